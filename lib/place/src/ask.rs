//! The transactions of placement: reading the pool directory, asking a host for its load.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, GetPort, PutPort, Rights};
use amoeba_name::{NameError, Names};
use amoeba_stubs::process::{self, LoadReply};
use amoeba_stubs::standard;
use amoeba_wire::Status;
use amoeba_world::{Error, Listener, Message, TransOptions, Transactions, World};

use crate::candidate::Machine;
use crate::need::is_printable;
use crate::roster::{Ask, HOSTS_MAX, NAME_SIZE_MAX};

/// The rights of the process-server capabilities that are given to clients: to look, to start processes, to make
/// segments.
pub const SERVER_RIGHTS: Rights = CONFINED_RIGHTS.union(process::HOST);
/// The same for clients that may start no processes that see a host's files.
pub const CONFINED_RIGHTS: Rights = process::READ.union(process::CREATE).union(process::EXEC);

/// What a host answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its process server, with [`SERVER_RIGHTS`] at most.
    pub server: Capability,
    /// What it is.
    pub machine: Machine,
    /// Runnable processes, averaged over a minute.
    pub load: f64,
    /// Bytes of memory it can still give.
    pub memory_free: u64,
    /// Its guests.
    pub processes: u32,
}

/// A pool directory, and how to ask its hosts. Cheap to clone.
#[derive(Clone)]
pub struct Survey {
    world: World,
    names: Names,
    path: Vec<u8>,
}

impl Survey {
    /// The pool directory at `path` in the name space `names`. Its servers are given `locate_timeout` to be found.
    pub fn new(world: &World, names: &Names, path: &[u8], locate_timeout: Duration) -> Survey {
        let world = hasty(world, locate_timeout);
        let hasty = Names::new(&world, names.root().clone());
        let names = hasty.with_work(names.work().clone(), names.work_path());
        Survey { world, names, path: path.to_vec() }
    }

    /// The names of the pool's hosts, and how many rows were left out because there are more than [`HOSTS_MAX`].
    /// Rows that begin with a dot, or whose names cannot be shown to people, are no hosts.
    ///
    /// # Errors
    /// The pool directory cannot be read.
    pub fn scan(&self) -> Result<(Vec<String>, usize), NameError> {
        let mut hosts = Vec::new();
        let mut left_out = 0;
        self.names.list_pages(&self.path, |page| {
            for name in page.into_iter().filter_map(|row| host_name(row.name)) {
                if hosts.len() < HOSTS_MAX { hosts.push(name) } else { left_out += 1 }
            }
        })?;
        Ok((hosts, left_out))
    }

    /// Asks a host.
    ///
    /// # Errors
    /// A clause for people on why it has not answered.
    pub fn ask(&self, ask: &Ask) -> Result<Answer, String> {
        let Some(known) = ask.server.filter(|_| !ask.suspect) else {
            let server = self.resolve(&ask.name).or_else(|why| ask.server.ok_or(why))?;
            return self.load(server).map_err(unanswered);
        };
        match self.load(known) {
            // A host that was set up anew has new capabilities under its old name.
            Err(Error::Refused(_)) => self.load(self.resolve(&ask.name)?).map_err(unanswered),
            answer => answer.map_err(unanswered),
        }
    }

    fn resolve(&self, host: &str) -> Result<Capability, String> {
        let path = [&self.path[..], b"/", host.as_bytes(), b"/proc"].concat();
        let server = self.names.resolve(&path).map_err(unresolved)?;
        if SERVER_RIGHTS.contains(server.rights()) {
            return Ok(server);
        }
        standard::restrict(&self.world, &server, SERVER_RIGHTS.bits().into()).map_err(unanswered)
    }

    fn load(&self, server: Capability) -> Result<Answer, Error> {
        let reply = process::load(&self.world, &server)?;
        let load = reply.load_thousandths as f64 / 1000.0;
        let LoadReply { memory_free, processes, cpus, kips, memory_total, architecture, enforces, .. } =
            reply;
        let architecture = String::from_utf8(architecture).ok().filter(|text| is_printable(text));
        let architecture = architecture.ok_or(Error::BadReply)?;
        let machine = Machine { architecture, options: None, cpus, kips, memory_total, enforces };
        Ok(Answer { server, machine, load, memory_free, processes })
    }
}

fn host_name(row: Vec<u8>) -> Option<String> {
    let good = !row.starts_with(b".") && row.len() <= NAME_SIZE_MAX;
    String::from_utf8(row).ok().filter(|name| good && is_printable(name))
}

fn unresolved(error: NameError) -> String {
    match error {
        NameError::Transaction(Error::Refused(Status::STD_NOTFOUND)) => {
            "there is no process server under its name".to_owned()
        }
        NameError::NotADirectory => "its name does not stand for a host".to_owned(),
        // Who sees hosts through a column of less than all rights is told by the directory server.
        NameError::Unavailable | NameError::Transaction(Error::Refused(Status::SP_UNREACH)) => {
            "its kernel cannot be found".to_owned()
        }
        error => format!("its name cannot be followed: {error}"),
    }
}

fn unanswered(error: Error) -> String {
    match error {
        Error::NotSent(Status::RPC_NOTFOUND) => "its process server cannot be found".to_owned(),
        Error::NotSent(status) => format!("its process server cannot be asked: {}", status.why()),
        Error::MaybeExecuted(_) => "its process server has stopped answering".to_owned(),
        Error::Refused(status) => format!("its process server refuses: {}", status.why()),
        _ => "its process server answers what nobody understands".to_owned(),
    }
}

/// The same world, but a transaction searches for its server no longer than `locate_timeout`.
pub fn hasty(world: &World, locate_timeout: Duration) -> World {
    let transactions = Arc::new(Hasty { inner: world.transactions.clone(), locate_timeout });
    World { transactions, ..world.clone() }
}

struct Hasty {
    inner: Arc<dyn Transactions>,
    locate_timeout: Duration,
}

impl Transactions for Hasty {
    fn trans(&self, request: Message, options: &TransOptions) -> Result<Message, Error> {
        let locate_timeout = options.locate_timeout.min(self.locate_timeout);
        self.inner.trans(request, &TransOptions { locate_timeout, ..options.clone() })
    }

    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, Error> {
        self.inner.listen(port, request_size_max)
    }

    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error> {
        self.inner.put_port(port)
    }
}
