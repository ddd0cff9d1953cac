//! A private service of a program.

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, PutPort, Rights, ServerSecret};
use amoeba_world::{Error, Listener, World, random};

/// A secret port of this program, listened on, and the key of the objects behind it. Whoever is given one of its
/// capabilities can use it; nobody can find it otherwise, and it ends with the program.
pub struct Service {
    listener: Listener,
    secret: ServerSecret,
}

impl Service {
    /// Draws a secret port and listens on it; requests of more than `request_size_max` bytes are refused.
    ///
    /// # Errors
    /// No kernel, or it has no room.
    pub fn new(world: &World, request_size_max: usize) -> Result<Service, Error> {
        let port = GetPort::from_bytes(random(&*world.entropy));
        let listener = world.transactions.listen(&port, request_size_max)?;
        Ok(Service { listener, secret: ServerSecret::from_bytes(random(&*world.entropy)) })
    }

    /// The public port of the service.
    pub fn put_port(&self) -> PutPort {
        self.listener.put_port()
    }

    /// What a class's `serve` takes.
    pub fn listener(&self) -> Listener {
        self.listener.clone()
    }

    /// What makes and verifies the check fields of the service's objects.
    pub fn secret(&self) -> ServerSecret {
        self.secret.clone()
    }

    /// The capability for an object whose random is `random`.
    pub fn capability(&self, object: ObjectNumber, rights: Rights, random: CheckField) -> Capability {
        self.secret.capability(self.put_port(), object, rights, random)
    }
}
