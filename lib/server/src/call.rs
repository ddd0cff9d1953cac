//! What an operation is told of its request, and the check that every object goes through.

use std::sync::Arc;

use amoeba_cap::{Capability, ObjectNumber, Private, PutPort, Rights};
use amoeba_wire::{Command, Status};
use amoeba_world::Caller;

use crate::Objects;
use crate::guard::Guard;

/// An object of this server whose capability was checked and had at least the rights `NEED`.
///
/// Nothing but [`Call`] can make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<const NEED: u8> {
    number: ObjectNumber,
    rights: Rights,
}

/// An object whose capability was checked, whatever its rights.
pub type AnyObject = Object<0>;

impl<const NEED: u8> Object<NEED> {
    /// Its number; 0 is the server itself.
    pub fn number(&self) -> ObjectNumber {
        self.number
    }

    /// All rights its capability had.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Whether this is the server itself.
    pub fn is_super(&self) -> bool {
        self.number == ObjectNumber::SUPER
    }

    /// The same object, its rights no longer part of the type.
    pub fn any(&self) -> AnyObject {
        Object { number: self.number, rights: self.rights }
    }
}

/// On which objects an operation works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Any, the server itself included.
    Any,
    /// The server itself.
    Super,
    /// Any but the server itself.
    Object,
}

/// One request, as its operation sees it. Cheap to clone.
#[derive(Clone)]
pub struct Call {
    caller: Caller,
    capability: Capability,
    command: Command,
    guard: Arc<Guard>,
}

impl Call {
    pub(crate) fn new(caller: Caller, capability: Capability, command: Command, guard: Arc<Guard>) -> Call {
        Call { caller, capability, command, guard }
    }

    /// The process that sent the request, and the signature it proved, as the kernels know them.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The put-port the request came to: the port of capabilities to give out.
    pub fn port(&self) -> PutPort {
        self.capability.port
    }

    /// The capability of the request.
    pub fn capability(&self) -> &Capability {
        &self.capability
    }

    /// The operation's number.
    pub fn command(&self) -> Command {
        self.command
    }

    /// The rights the request's capability claims; of a checked object they are true.
    pub fn rights(&self) -> Rights {
        self.capability.rights()
    }

    /// Checks the capability of the request: the object exists and its check field is right, it is one that `on`
    /// allows, all rights of `NEED` are there. Touches the object.
    ///
    /// # Errors
    /// STD_CAPBAD: no such object, or a wrong check field; this also slows the caller. STD_COMBAD: the operation is
    /// not one of this object. STD_DENIED: a right is missing. STD_NOTNOW: the caller sent too many bad capabilities.
    pub fn object<const NEED: u8>(&self, objects: &dyn Objects, on: On) -> Result<Object<NEED>, Status> {
        self.admit_on(objects, &self.capability.private, on)
    }

    /// Checks a capability of this server that came as a parameter, like [`Call::object`] the one of the request.
    ///
    /// # Errors
    /// As [`Call::object`].
    pub fn admit<const NEED: u8>(
        &self,
        objects: &dyn Objects,
        private: &Private,
    ) -> Result<Object<NEED>, Status> {
        self.admit_on(objects, private, On::Any)
    }

    fn admit_on<const NEED: u8>(
        &self,
        objects: &dyn Objects,
        private: &Private,
        on: On,
    ) -> Result<Object<NEED>, Status> {
        let object = self.check(objects, private, on, Rights::from_bits_retain(NEED))?;
        Ok(Object { number: object.number, rights: object.rights })
    }

    /// As [`Call::object`] with rights that are only known when the server runs.
    pub(crate) fn check(
        &self,
        objects: &dyn Objects,
        private: &Private,
        on: On,
        need: Rights,
    ) -> Result<AnyObject, Status> {
        let pass = self.guard.admit(&self.caller)?;
        if !is_genuine(objects, private) {
            pass.fail(1);
            return Err(Status::STD_CAPBAD);
        }
        drop(pass);
        let is_super = private.object == ObjectNumber::SUPER;
        if (on == On::Super && !is_super) || (on == On::Object && is_super) {
            return Err(Status::STD_COMBAD);
        }
        if !private.rights.contains(need) {
            return Err(Status::STD_DENIED);
        }
        objects.touch(private.object);
        Ok(Object { number: private.object, rights: private.rights })
    }

    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Call({} on {:?} by {})", self.command.0, self.capability, self.caller.process)
    }
}

/// Whether the server made this private part and did not revoke it since.
pub(crate) fn is_genuine(objects: &dyn Objects, private: &Private) -> bool {
    objects.verifies(private)
}
