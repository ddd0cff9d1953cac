//! The process servers of hosts for clients that may start no processes that see a host's files.

use std::collections::BTreeMap;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_place::{CONFINED_RIGHTS, hasty};
use amoeba_stubs::{pool, standard};
use amoeba_threads::Mutex;
use amoeba_world::{Error, World};

/// Process servers whose restricted capabilities are remembered; when there are more, all are asked for again.
const REMEMBERED_MAX: usize = 2 * pool::HOSTS_MAX;

/// What hosts made of the capabilities that are known here. A restricted capability is a function of the one it was made of,
/// so what is remembered is never wrong.
pub(crate) struct Confined {
    world: World,
    remembered: Mutex<BTreeMap<[u8; 16], Capability>>,
}

impl Confined {
    /// Nothing is remembered yet; a host is searched for no longer than `locate_timeout`.
    pub(crate) fn new(world: &World, locate_timeout: Duration) -> Confined {
        let remembered = Mutex::new(&world.threads, BTreeMap::new());
        Confined { world: hasty(world, locate_timeout), remembered }
    }

    /// `server` with [`CONFINED_RIGHTS`] at most.
    ///
    /// # Errors
    /// Its host does not answer.
    pub(crate) fn of(&self, server: Capability) -> Result<Capability, Error> {
        if CONFINED_RIGHTS.contains(server.rights()) {
            return Ok(server);
        }
        let name = server.to_bytes();
        if let Some(known) = self.remembered.lock().get(&name) {
            return Ok(*known);
        }
        let confined = standard::restrict(&self.world, &server, CONFINED_RIGHTS.bits().into())?;
        let mut remembered = self.remembered.lock();
        if remembered.len() == REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(name, confined);
        Ok(confined)
    }
}
