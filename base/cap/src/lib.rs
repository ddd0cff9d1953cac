//! Capabilities: what names and protects an object.
//!
//! A capability is 16 bytes, the same on the wire, in memory and on disk: the server's [`PutPort`] (6), the
//! object number (3, little-endian), the [`Rights`] (1) and the [`CheckField`] (6). This crate knows their
//! forms and the functions that protect them; it knows no server, reads no clock and draws no randomness.
//!
//! Start with [`Capability`]; [`secret`] has the two keyed one-way functions that every system uses, [`classic`]
//! the original's unkeyed ones, kept for original disks and golden vectors.
#![forbid(unsafe_code)]

pub mod classic;
mod port;
pub mod secret;
mod set;
mod text;

pub use port::{CheckField, GetPort, PORT_SIZE, PutPort};
pub use secret::{ServerSecret, SystemSecret};
pub use set::{CapabilitySet, SET_MEMBERS_MAX, SetFull, Suite};
pub use text::{ParseError, without_secrets};

/// Bytes of a capability.
pub const CAPABILITY_SIZE: usize = 16;
/// Bytes of the private part of a capability: object number, rights, check field.
pub const PRIVATE_SIZE: usize = 10;

bitflags::bitflags! {
    /// What a capability lets its holder do: eight bits whose meaning each class declares for itself.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Rights: u8 {
        // The names belong to the classes; here every bit is legal.
        const _ = !0;
    }
}

impl Rights {
    /// All eight rights: what the creator of an object receives.
    pub const ALL: Rights = Rights::from_bits_retain(0xFF);
    /// No right at all; a capability with it still names its object.
    pub const NONE: Rights = Rights::from_bits_retain(0);
}

/// The number of an object within its server: 24 bits. Number 0 is the server itself (its super capability).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectNumber(u32);

impl ObjectNumber {
    /// The largest object number.
    pub const MAX: ObjectNumber = ObjectNumber(0xFF_FFFF);
    /// The server itself.
    pub const SUPER: ObjectNumber = ObjectNumber(0);

    /// The object number `number`, or `None` when it needs more than 24 bits.
    pub const fn new(number: u32) -> Option<ObjectNumber> {
        if number <= ObjectNumber::MAX.0 { Some(ObjectNumber(number)) } else { None }
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for ObjectNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of a capability that only its server interprets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Private {
    /// Which object of the server.
    pub object: ObjectNumber,
    /// What the holder may do.
    pub rights: Rights,
    /// What makes the other two believable.
    pub check: CheckField,
}

impl Private {
    /// The private part of a null capability.
    pub const NULL: Private =
        Private { object: ObjectNumber::SUPER, rights: Rights::NONE, check: CheckField::NULL };

    /// The ten bytes of this private part.
    pub fn to_bytes(self) -> [u8; PRIVATE_SIZE] {
        let object = self.object.0.to_le_bytes();
        let check = self.check.to_bytes();
        let mut bytes = [0; PRIVATE_SIZE];
        bytes[..3].copy_from_slice(&object[..3]);
        bytes[3] = self.rights.bits();
        bytes[4..].copy_from_slice(&check);
        bytes
    }

    /// The private part in these ten bytes; every value is legal.
    pub fn from_bytes(bytes: [u8; PRIVATE_SIZE]) -> Private {
        let [o0, o1, o2, rights, check @ ..] = bytes;
        Private {
            object: ObjectNumber(u32::from_le_bytes([o0, o1, o2, 0])),
            rights: Rights::from_bits_retain(rights),
            check: CheckField::from_bytes(check),
        }
    }
}

/// The name of an object and the right to use it.
///
/// Whoever knows the 16 bytes may do what the rights say: treat its text as a secret. `Debug` therefore leaves
/// the check field out; [`Capability::to_text`] is the one way to print it whole.
///
/// # Source
/// Amoeba 5.3, capability(L). The check field is keyed, which is ours ([`secret`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// The port of the server that keeps the object.
    pub port: PutPort,
    /// What the server needs to find and protect the object.
    pub private: Private,
}

impl Capability {
    /// The capability that names nothing: its port is null.
    pub const NULL: Capability = Capability { port: PutPort::NULL, private: Private::NULL };

    /// Whether this names nothing.
    pub fn is_null(&self) -> bool {
        self.port.is_null()
    }

    /// The object number.
    pub fn object(&self) -> ObjectNumber {
        self.private.object
    }

    /// The rights this capability claims; only its server knows whether the claim holds.
    pub fn rights(&self) -> Rights {
        self.private.rights
    }

    /// The sixteen bytes of this capability.
    pub fn to_bytes(&self) -> [u8; CAPABILITY_SIZE] {
        let mut bytes = [0; CAPABILITY_SIZE];
        bytes[..PORT_SIZE].copy_from_slice(&self.port.to_bytes());
        bytes[PORT_SIZE..].copy_from_slice(&self.private.to_bytes());
        bytes
    }

    /// The capability in these sixteen bytes; every value is legal.
    pub fn from_bytes(bytes: [u8; CAPABILITY_SIZE]) -> Capability {
        let [p0, p1, p2, p3, p4, p5, private @ ..] = bytes;
        Capability {
            port: PutPort::from_bytes([p0, p1, p2, p3, p4, p5]),
            private: Private::from_bytes(private),
        }
    }
}

impl std::fmt::Debug for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}({:X})", self.port, self.object(), self.rights().bits())
    }
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:X})", self.object, self.rights.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_port_object_rights_check() {
        let bytes: [u8; 16] = std::array::from_fn(|index| index as u8);
        let cap = Capability::from_bytes(bytes);
        assert_eq!(cap.port.to_bytes(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(cap.object().get(), 0x08_07_06);
        assert_eq!(cap.rights().bits(), 9);
        assert_eq!(cap.private.check.to_bytes(), [10, 11, 12, 13, 14, 15]);
        assert_eq!(cap.to_bytes(), bytes);
    }

    #[test]
    fn debug_never_shows_the_check_field() {
        let cap = Capability::from_bytes([0xAB; 16]);
        assert_eq!(format!("{cap:?}"), "AB:AB:AB:AB:AB:AB/11250603(AB)");
    }

    proptest! {
        #[test]
        fn every_sixteen_bytes_come_back(bytes: [u8; 16]) {
            prop_assert_eq!(Capability::from_bytes(bytes).to_bytes(), bytes);
        }
    }
}
