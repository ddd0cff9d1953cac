//! What a program calls: the run server decides, or the client when there is none.

use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_name::NameError;
use amoeba_stubs::{Client, pool};
use amoeba_wire::Status;
use amoeba_world::{Error, TransOptions, World};

use crate::decision::Decision;
use crate::need::{Bad, Need};
use crate::placer::{Place, Placer};

/// How long a run server is searched for before the client places by itself.
const LOCATE_TIMEOUT: Duration = Duration::from_millis(1000);

/// Who chose.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// A run server, which remembers the decision under this number.
    RunServer {
        /// The run server.
        server: Capability,
        /// The number.
        decision: u64,
    },
    /// This client.
    Client(Box<Decision>),
}

/// Hosts for processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// One for each process, at least one; fewer than asked for when the hosts have no memory for more.
    pub places: Vec<Place>,
    /// Who chose them.
    pub by: By,
}

impl Found {
    /// Says which process came of this, so that `amoeba why` can explain it. A client's own decision is nobody else's
    /// business; a run server that is gone has nothing to remember.
    pub fn note(&self, world: &World, process: &Capability) {
        if let By::RunServer { server, decision } = &self.by {
            let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
            let client = Client::new(&*world.transactions, &options);
            let _ = pool::note(client, server, *decision, process.port, process.object().get());
        }
    }

    /// Says to whoever chose that a host could not be reached, so that it is not chosen again before it answers.
    pub fn doubt(&self, world: &World, placer: &Placer, host: &str) {
        placer.doubt(host);
        if let By::RunServer { server, .. } = &self.by {
            let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
            let _ = pool::doubt(Client::new(&*world.transactions, &options), server, host.as_bytes());
        }
    }

    /// Says to whoever chose that processes which were placed on `host` have ended, so that they count no longer as on
    /// their way.
    pub fn ended(&self, world: &World, placer: &Placer, host: &str, count: u32) {
        match &self.by {
            By::RunServer { server, decision } => {
                let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
                let client = Client::new(&*world.transactions, &options);
                let _ = pool::ended(client, server, *decision, host.as_bytes(), count);
            }
            By::Client(decision) => placer.ended(decision, host, count),
        }
    }

    /// How the choice came about, if that is still known.
    pub fn why(&self, world: &World) -> Option<String> {
        match &self.by {
            By::RunServer { server, decision } => {
                let text = pool::why(world, server, *decision).ok()?;
                Some(String::from_utf8_lossy(&text).into_owned())
            }
            By::Client(decision) => Some(decision.to_string()),
        }
    }
}

/// Why no host was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// No host can take the process; the text, of several lines, says why for each.
    #[error("{0}")]
    NoHost(String),
    /// The pool is switched off.
    #[error("the pool is switched off (its parameter ENABLE is 0)")]
    SwitchedOff,
    /// What is asked for cannot be meant.
    #[error(transparent)]
    Bad(#[from] Bad),
    /// There is no run server, and the pool directory cannot be read.
    #[error("the pool directory cannot be read: {0}")]
    Directory(#[from] NameError),
}

/// Finds hosts for `count` (1 to [`crate::FIND_MAX`]) processes: asks `run_server`, if there is one, and places with
/// `placer` when it does not answer, then leaving it alone for five seconds.
///
/// # Errors
/// See [`FindError`].
pub fn find(
    world: &World,
    run_server: Option<&Capability>,
    placer: &Placer,
    need: &Need,
    count: u32,
) -> Result<Found, FindError> {
    Placer::check(need, count)?;
    if let Some(server) = run_server.filter(|_| !placer.shuns()) {
        match ask(world, server, need, count) {
            Ok(reply) => return taken(server, reply),
            Err(Error::Refused(Status::STD_NOTNOW)) => return Err(FindError::SwitchedOff),
            // A run server is a hint-giver: whatever ails it, the hosts are still there. One that died while it was asked
            // has cost seconds already; nobody is asked again.
            Err(Error::Refused(_)) => {}
            Err(_) => placer.shun(),
        }
    }
    let (places, decision) = placer.find(need, count)?;
    if places.is_empty() {
        return Err(FindError::NoHost(decision.to_string()));
    }
    Ok(Found { places, by: By::Client(Box::new(decision)) })
}

/// As [`find`], but only the run server chooses: a client that starts many short processes has no time to ask all hosts for
/// each. `None`: it does not answer.
///
/// # Errors
/// See [`FindError`].
pub fn find_by_run_server(
    world: &World,
    run_server: &Capability,
    need: &Need,
    count: u32,
) -> Result<Option<Found>, FindError> {
    Placer::check(need, count)?;
    match ask(world, run_server, need, count) {
        Ok(reply) => taken(run_server, reply).map(Some),
        Err(Error::Refused(Status::STD_NOTNOW)) => Err(FindError::SwitchedOff),
        Err(_) => Ok(None),
    }
}

fn ask(world: &World, server: &Capability, need: &Need, count: u32) -> Result<pool::FindHostReply, Error> {
    let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
    pool::find_host(Client::new(&*world.transactions, &options), server, &need.to_record(), count)
}

fn taken(server: &Capability, reply: pool::FindHostReply) -> Result<Found, FindError> {
    let pool::FindHostReply { decision, places, refusal } = reply;
    if places.is_empty() {
        return Err(FindError::NoHost(String::from_utf8_lossy(&refusal).into_owned()));
    }
    let place = |place: pool::Place| Place {
        host: String::from_utf8_lossy(&place.host).into_owned(),
        server: place.server,
    };
    let places = places.into_iter().map(place).collect();
    Ok(Found { places, by: By::RunServer { server: *server, decision } })
}
