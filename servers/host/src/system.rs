//! The kernel as an object: what it has counted, whom it sees, and the way to a port.

use std::sync::Arc;

use amoeba_cap::{CheckField, ObjectNumber, PutPort, ServerSecret};
use amoeba_server::{AnyObject, Call, Object, Objects};
use amoeba_stubs::system::{self, AboutReply, NEVER, Network, READ, Way};
use amoeba_threads::{Instant, Threads};
use amoeba_wire::Status;

use crate::PERMANENT;

/// What the server asks the kernel of its host.
pub trait Kernel: Send + Sync {
    /// Counters and tables, a line each.
    ///
    /// # Errors
    /// The kernel does not answer.
    fn statistics(&self) -> Result<String, Status>;
    /// Links and peers.
    ///
    /// # Errors
    /// The kernel does not answer.
    fn network(&self) -> Result<Network, Status>;
    /// The way to a port.
    ///
    /// # Errors
    /// The kernel does not answer.
    fn way(&self, port: PutPort) -> Result<Way, Status>;
}

/// What a host says of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// The version of the program.
    pub version: String,
    /// What the host is called.
    pub host: String,
}

/// The server of the kernel.
pub struct System {
    secret: ServerSecret,
    about: About,
    threads: Threads,
    started: Instant,
    kernel: Box<dyn Kernel>,
}

impl System {
    /// A server that says `about` and asks `kernel`, which has just been started.
    pub fn server(
        secret: ServerSecret,
        about: About,
        threads: Threads,
        kernel: impl Kernel + 'static,
    ) -> Arc<System> {
        let started = threads.now();
        Arc::new(System { secret, about, threads, started, kernel: Box::new(kernel) })
    }
}

impl Objects for System {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == ObjectNumber::SUPER).then_some(PERMANENT)
    }

    fn info(&self, _: AnyObject) -> Result<String, Status> {
        Ok("System Server".to_owned())
    }

    fn status(&self, _: AnyObject) -> Result<String, Status> {
        self.kernel.statistics()
    }
}

impl system::Serve for System {
    fn statistics(&self, _: &Call, _: Object<{ READ.bits() }>) -> Result<Vec<u8>, Status> {
        let mut text = self.kernel.statistics()?.into_bytes();
        text.truncate(system::STATISTICS_SIZE_MAX);
        Ok(text)
    }

    fn about(&self, _: &Call, _: Object<0>) -> Result<AboutReply, Status> {
        let up = self.threads.now().since(self.started).as_nanos();
        Ok(AboutReply {
            version: self.about.version.clone().into_bytes(),
            host: self.about.host.clone().into_bytes(),
            up: u64::try_from(up).unwrap_or(NEVER),
        })
    }

    fn network(&self, _: &Call, _: Object<{ READ.bits() }>) -> Result<Network, Status> {
        self.kernel.network()
    }

    fn way(&self, _: &Call, _: Object<{ READ.bits() }>, destination: PutPort) -> Result<Way, Status> {
        self.kernel.way(destination)
    }

    fn echo(&self, _: &Call, _: Object<0>, data: Vec<u8>) -> Result<Vec<u8>, Status> {
        Ok(data)
    }
}
