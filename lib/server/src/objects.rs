//! What the author of a server provides.

use amoeba_cap::{Capability, CheckField, ObjectNumber, Private, ServerSecret};
use amoeba_wire::{Command, Status};

use crate::{AnyObject, Call};

/// A parameter of a server that can be looked at and set while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// What it is called.
    pub name: String,
    /// Its type and range, for people.
    pub kind: String,
    /// What it does.
    pub description: String,
    /// What it is now.
    pub value: String,
}

/// The objects of a server. Only the first two methods must be there; a standard operation that is not provided
/// answers STD_COMBAD.
///
/// The skeleton calls these from several threads at once.
pub trait Objects: Send + Sync {
    /// The key that makes and verifies this server's check fields.
    fn secret(&self) -> &ServerSecret;

    /// The random that protects an object now; `None` when there is no such object (its capabilities are
    /// STD_CAPBAD). Object 0 is the server itself.
    fn random(&self, object: ObjectNumber) -> Option<CheckField>;

    /// Whether this server made `private` and did not revoke it since. A server that remembers check fields may say it
    /// sooner; it must say the same.
    fn verifies(&self, private: &Private) -> bool {
        self.random(private.object).is_some_and(|random| self.secret().verifies(private, random))
    }

    /// A standard operation has succeeded: for whoever counts them.
    fn performed(&self, command: Command) {
        let _ = command;
    }

    /// Notes that an object is in use. Called after every successful check.
    fn touch(&self, object: ObjectNumber) {
        let _ = object;
    }

    /// One line about an object; its first character tells the kind (`-` file, `/` directory …).
    fn info(&self, object: AnyObject) -> Result<String, Status> {
        let _ = object;
        Err(Status::STD_COMBAD)
    }

    /// Several lines on how an object is doing. To those of object 0 the skeleton appends its own.
    fn status(&self, object: AnyObject) -> Result<String, Status> {
        if object.number() == ObjectNumber::SUPER { Ok(String::new()) } else { Err(Status::STD_COMBAD) }
    }

    /// Destroys an object.
    fn destroy(&self, call: &Call, object: AnyObject) -> Result<(), Status> {
        let _ = (call, object);
        Err(Status::STD_COMBAD)
    }

    /// One round of garbage collection.
    fn age(&self, call: &Call) -> Result<(), Status> {
        let _ = call;
        Err(Status::STD_COMBAD)
    }

    /// Makes a copy of `original`, an object of this or another server, and gives its capability.
    fn copy(&self, call: &Call, target: AnyObject, original: &Capability) -> Result<Capability, Status> {
        let _ = (call, target, original);
        Err(Status::STD_COMBAD)
    }

    /// The parameters of an object.
    fn parameters(&self, object: AnyObject) -> Result<Vec<Parameter>, Status> {
        let _ = object;
        Err(Status::STD_COMBAD)
    }

    /// Sets a parameter of an object; STD_ARGBAD for an unknown one or a value out of range.
    fn set_parameter(&self, object: AnyObject, name: &[u8], value: &[u8]) -> Result<(), Status> {
        let _ = (object, name, value);
        Err(Status::STD_COMBAD)
    }
}
