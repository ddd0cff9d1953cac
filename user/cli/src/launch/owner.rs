//! The owner of the processes of a command: hears that one was stunned, and that one has ended. While it answers, their
//! process servers know that somebody wants them.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, Rights, ServerSecret};
use amoeba_server::{AnyObject, Call, Object, Objects, Pending};
use amoeba_stubs::owner;
use amoeba_threads::{Condition, Mutex};
use amoeba_wire::Status;
use amoeba_world::World;

/// The one object here.
const OWNER: ObjectNumber = ObjectNumber::new(1).expect("a small number");
/// How long the end of the process may take to be told after somebody who waits has heard it.
const TOLD_TIMEOUT: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Owner {
    world: World,
    capability: Capability,
    shared: Arc<Shared>,
}

struct Shared {
    secret: ServerSecret,
    random: CheckField,
    /// Whether a person reads what is written to standard error.
    visible: bool,
    /// How many processes have ended.
    told: Mutex<usize>,
    came: Condition,
}

impl Owner {
    /// Serves an owner; with `visible` a stun is told on standard error.
    pub(crate) fn serve(world: &World, visible: bool) -> anyhow::Result<Owner> {
        let port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
        let listener = world.transactions.listen(&port, owner::REQUEST_SIZE_MAX)?;
        let shared = Arc::new(Shared {
            secret: ServerSecret::from_bytes(amoeba_world::random(&*world.entropy)),
            random: CheckField::from_bytes(amoeba_world::random(&*world.entropy)),
            visible,
            told: Mutex::new(&world.threads, 0),
            came: Condition::new(&world.threads),
        });
        let capability = shared.secret.capability(listener.put_port(), OWNER, Rights::ALL, shared.random);
        owner::start(world, listener, shared.clone(), 1)?;
        Ok(Owner { world: world.clone(), capability, shared })
    }

    /// The capability that goes into the descriptor.
    pub(crate) fn capability(&self) -> Capability {
        self.capability
    }

    /// Waits a moment until the end of so many processes has been told here too, so that their process servers need not
    /// look for an owner that has gone.
    pub(crate) fn wait_until_told(&self, count: usize) {
        let deadline = self.world.threads.now() + TOLD_TIMEOUT;
        let mut told = self.shared.told.lock();
        while *told < count && self.world.threads.now() < deadline {
            told = self.shared.came.wait_until(told, Some(deadline)).0;
        }
    }
}

impl Objects for Shared {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == OWNER).then_some(self.random)
    }

    fn info(&self, _: AnyObject) -> Result<String, Status> {
        Ok("o owner of a process".into())
    }
}

impl owner::Serve for Shared {
    fn checkpoint(&self, _: &Call, _: Object<0>, cause: u16, _: i32, _: Vec<u8>, pending: Pending<Vec<u8>>) {
        if cause == owner::TERM_STUNNED {
            if self.visible {
                eprintln!("amoeba: the process was stunned; `amoeba resume` lets it run on");
            }
            // It stays as whoever stunned it wants it.
            return pending.send(Err(Status::STD_NOTNOW));
        }
        pending.send(Ok(Vec::new()));
        *self.told.lock() += 1;
        self.came.notify_all();
    }
}
