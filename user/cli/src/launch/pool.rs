//! The hosts that a process may run on: this one, the ones that a person names, and those that are chosen.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_name::{NameError, Names};
use amoeba_place::{FindError, Found, Need, POOL_DEFAULT, Parameters, Placer, Record, Survey};
use amoeba_stubs::pool::{self, HostRecord, STATE_DOWN, STATE_SILENT, STATE_UP};
use amoeba_stubs::{Client, process};
use amoeba_wire::Status;
use amoeba_world::{Error as Refusal, LOCATE_TIMEOUT_DEFAULT, TransOptions, World};
use anyhow::{Context as _, anyhow};

use crate::failure::{Advise, Hint};
use crate::graph::Graph;

/// Where the run server is published.
const RUN_SERVER: &[u8] = b"/profile/cap/runsvr/default";
/// The entry of a host's directory that is its process server.
const SERVER: &str = "proc";
/// How long another host is searched for before it counts as gone.
pub(crate) const HOST_LOCATE_TIMEOUT: Duration = Duration::from_secs(2);

/// The hosts of the system, as one command sees them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    world: World,
    names: Names,
    here: Target,
    /// Whether this host is the whole system, so that there is nothing to choose and nobody to ask.
    alone: bool,
    /// Looked up by who first has something to ask it.
    run_server: OnceLock<Option<Capability>>,
    placer: Placer,
}

/// A host to start a process on.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) server: Capability,
    pub(crate) is_here: bool,
    /// How it was chosen, if it was.
    found: Option<Arc<Found>>,
}

impl Target {
    /// How transactions with this host's process server are to be done.
    pub(crate) fn options(&self) -> TransOptions {
        let locate_timeout = if self.is_here { LOCATE_TIMEOUT_DEFAULT } else { HOST_LOCATE_TIMEOUT };
        TransOptions { locate_timeout, ..TransOptions::default() }
    }

    /// Starts a process from its encoded descriptor.
    pub(crate) fn exec(&self, world: &World, descriptor: Vec<u8>) -> Result<Capability, Refusal> {
        let options = self.options();
        process::exec(Client::new(&*world.transactions, &options), &self.server, descriptor)
    }

    /// Waits for the end of a process that runs there. A host that dies is heard of in less than ten seconds.
    pub(crate) fn wait(&self, world: &World, process: &Capability) -> Result<process::ExitRecord, Refusal> {
        let options = self.options();
        process::wait(Client::new(&*world.transactions, &options), process)
    }

    /// Lets `amoeba why` explain the process by the choice it came of.
    pub(crate) fn note(&self, world: &World, process: &Capability) {
        if let Some(found) = &self.found {
            found.note(world, process);
        }
    }

    /// The name of a process there, for people and for other commands: with its host, unless that is this one.
    pub(crate) fn name_of(&self, process: &Capability) -> String {
        let id = process.object().get() & 0xFFFF;
        if self.is_here { id.to_string() } else { format!("{}:{id}", self.host) }
    }
}

impl Pool {
    /// Asks no more than where this host's process server is.
    pub(crate) fn new(graph: &Graph) -> anyhow::Result<Pool> {
        let session = graph.session();
        let server = graph.at_host(SERVER).context("the process server of this host")?;
        let here = Target { host: session.host_name.clone(), server, is_here: true, found: None };
        let names = Names::new(&amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT), session.root);
        let placer = Placer::new(graph.world(), &names, POOL_DEFAULT, Parameters::default());
        let (world, alone) = (graph.world().clone(), session.alone);
        Ok(Pool(Arc::new(Inner { world, names, here, alone, run_server: OnceLock::new(), placer })))
    }

    /// This host.
    pub(crate) fn here(&self) -> Target {
        self.0.here.clone()
    }

    /// Whether there is nothing to choose.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.alone
    }

    /// The run server, if one is published.
    pub(crate) fn run_server(&self) -> Option<&Capability> {
        let look = || if self.0.alone { None } else { self.0.names.resolve(RUN_SERVER).ok() };
        self.0.run_server.get_or_init(look).as_ref()
    }

    /// The host that a person names.
    ///
    /// # Errors
    /// There is none of this name, or it does not answer.
    pub(crate) fn on(&self, host: &str) -> anyhow::Result<Target> {
        if host == self.0.here.host {
            return Ok(self.here());
        }
        let server = self.entry(host, SERVER)?;
        Ok(Target { host: host.to_owned(), server, is_here: false, found: None })
    }

    /// Something in the directory of a host.
    ///
    /// # Errors
    /// There is no host of this name, or it does not answer.
    pub(crate) fn entry(&self, host: &str, entry: &str) -> anyhow::Result<Capability> {
        let list = "`amoeba host ls` lists the hosts";
        let silent = || {
            let error = anyhow!("host {host} does not answer");
            error.context(Hint("`amoeba host ls` shows since when".to_owned()))
        };
        if host.is_empty() || host.contains('/') {
            return Err(anyhow!("{host:?} is not the name of a host")).hint(list);
        }
        let path = [POOL_DEFAULT, b"/", host.as_bytes()].concat();
        let directory = match self.0.names.resolve(&path) {
            Err(error) if error.status() == Status::STD_NOTFOUND => {
                return Err(anyhow!("there is no host {host}")).hint(list);
            }
            // Who may not have all of it has it from the directory server only when the host was asked.
            Err(NameError::Transaction(Refusal::Refused(Status::SP_UNREACH))) => return Err(silent()),
            found => found.with_context(|| format!("host {host}"))?,
        };
        let found = Names::new(&amoeba_place::hasty(&self.0.world, HOST_LOCATE_TIMEOUT), directory)
            .resolve(entry.as_bytes());
        match found {
            Err(NameError::Unavailable | NameError::Transaction(Refusal::NotSent(_))) => Err(silent()),
            found => found.with_context(|| format!("host {host}")),
        }
    }

    /// Chooses hosts for `count` processes, at least one: the run server, or without it this client. Where nobody can
    /// choose it is this host.
    ///
    /// # Errors
    /// No host can take the process; the text of several lines says why for each.
    pub(crate) fn choose(&self, need: &Need, count: usize) -> Result<Vec<Target>, String> {
        if self.0.alone {
            return Ok(vec![self.here(); count]);
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX).clamp(1, amoeba_place::FIND_MAX);
        let found = amoeba_place::find(&self.0.world, self.run_server(), &self.0.placer, need, count);
        match found {
            Ok(found) => {
                let found = Arc::new(found);
                Ok(found.places.iter().map(|place| self.target(place, &found)).collect())
            }
            Err(FindError::NoHost(why)) => Err(why),
            // Nobody chooses, or nobody can: a wish for certain hosts is then one for this host or none.
            Err(error) if !need.only.is_empty() && !need.only.contains(&self.0.here.host) => {
                Err(error.to_string())
            }
            Err(_) => Ok(vec![self.here(); count as usize]),
        }
    }

    /// Chooses a host for one process, if the run server does; nobody else is asked.
    pub(crate) fn ask(&self, need: &Need) -> Option<Target> {
        let run_server = self.run_server()?;
        let found = amoeba_place::find_by_run_server(&self.0.world, run_server, need, 1).ok()??;
        let found = Arc::new(found);
        found.places.first().map(|place| self.target(place, &found))
    }

    fn target(&self, place: &amoeba_place::Place, found: &Arc<Found>) -> Target {
        if place.host == self.0.here.host {
            return Target { found: Some(found.clone()), ..self.here() };
        }
        Target { host: place.host.clone(), server: place.server, is_here: false, found: Some(found.clone()) }
    }

    /// A host could not be reached: it is not chosen again before it has answered somebody.
    pub(crate) fn doubt(&self, host: &str) {
        self.0.placer.doubt(host);
        if let Some(server) = self.run_server() {
            let options = TransOptions { locate_timeout: HOST_LOCATE_TIMEOUT, ..TransOptions::default() };
            // A hint to a hint-giver: if it is not heard, the next choice is no better.
            let _ = pool::doubt(Client::new(&*self.0.world.transactions, &options), server, host.as_bytes());
        }
    }

    /// A process that was to run there has ended: it no longer counts as placed.
    pub(crate) fn ended(&self, target: &Target) {
        if let Some(found) = &target.found {
            found.ended(&self.0.world, &self.0.placer, &target.host, 1);
        }
    }

    /// The need of a process about which nothing is known.
    pub(crate) fn need(&self) -> Need {
        Need { here: self.0.here.host.clone(), ..Need::default() }
    }

    /// The names of all hosts of the system. This host is one of them, also where none is written down.
    ///
    /// # Errors
    /// The directory of hosts cannot be read.
    pub(crate) fn names(&self) -> anyhow::Result<Vec<String>> {
        let here = || vec![self.0.here.host.clone()];
        if self.0.alone {
            return Ok(here());
        }
        let survey = Survey::new(&self.0.world, &self.0.names, POOL_DEFAULT, HOST_LOCATE_TIMEOUT);
        let (names, _) = survey.scan().context("the directory of hosts")?;
        Ok(if names.is_empty() { here() } else { names })
    }

    /// Every host of the system, by name: as the run server sees them, or as this command does.
    ///
    /// # Errors
    /// There is no run server, and the directory of hosts cannot be read.
    pub(crate) fn hosts(&self) -> anyhow::Result<Vec<HostRecord>> {
        if let Some(server) = self.run_server() {
            let options = TransOptions { locate_timeout: HOST_LOCATE_TIMEOUT, ..TransOptions::default() };
            if let Ok(hosts) = pool::hosts(Client::new(&*self.0.world.transactions, &options), server) {
                return Ok(hosts);
            }
        }
        let records = self.0.placer.hosts().map_err(|error| match error {
            NameError::Unavailable => anyhow!("the directory of hosts cannot be read")
                .context(Hint("the directory server does not answer: see `amoeba status`".into())),
            error => error.into(),
        })?;
        let (now, unix) = (self.0.world.threads.now(), self.0.world.clock.unix_time());
        let seconds = |instant| unix.saturating_sub(now.since(instant)).as_secs();
        Ok(records.into_iter().map(|record| host_record(record, seconds)).collect())
    }

    /// The world of the command.
    pub(crate) fn world(&self) -> &World {
        &self.0.world
    }
}

fn host_record(record: Record, seconds: impl Fn(amoeba_world::Instant) -> u64) -> HostRecord {
    use amoeba_place::State;
    let (state, reason) = match record.state {
        // It was asked a moment ago.
        State::New | State::Silent(_) => (STATE_SILENT, "it has not answered yet".into()),
        State::Up => (STATE_UP, String::new()),
        State::Doubted => (STATE_SILENT, "it could not be reached".into()),
        State::Down { why, .. } => (STATE_DOWN, why),
    };
    HostRecord {
        name: record.name.as_bytes().to_vec(),
        state,
        since: seconds(record.since),
        reason: reason.into_bytes(),
        architecture: record.machine.architecture.as_bytes().to_vec(),
        cpus: record.machine.cpus,
        kips: record.machine.kips,
        load_thousandths: (record.load * 1000.0) as u64,
        placed_thousandths: (record.placed * 1000.0) as u64,
        memory_free: record.memory_free,
        memory_total: record.machine.memory_total,
        processes: record.processes,
        answered: record.answered.map_or(0, seconds),
        polls: record.polls,
        considered: record.considered,
        chosen: record.chosen,
    }
}
