//! Ports: 48-bit names of services, in their two forms, and the check field, which has the same size.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a port and of a check field.
pub const PORT_SIZE: usize = 6;

/// The secret port a server listens on. Wiped when dropped, never printed.
///
/// [`crate::SystemSecret::put_port`] gives its public image; no function turns that back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Zeroize, ZeroizeOnDrop)]
pub struct GetPort([u8; PORT_SIZE]);

impl GetPort {
    /// The get-port in these bytes: random ones for a new service, stored ones for a restarted service.
    pub fn from_bytes(bytes: [u8; PORT_SIZE]) -> GetPort {
        GetPort(bytes)
    }

    /// The bytes, to be stored where only the server reads them.
    pub fn to_bytes(&self) -> [u8; PORT_SIZE] {
        self.0
    }

    /// Whether this is the null port, on which nobody can listen.
    pub fn is_null(&self) -> bool {
        self.0 == [0; PORT_SIZE]
    }
}

impl fmt::Debug for GetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GetPort(secret)")
    }
}

/// The public port of a service: the image of its get-port, found in every capability of its objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PutPort([u8; PORT_SIZE]);

impl PutPort {
    /// The port of a null capability; no server can have it.
    pub const NULL: PutPort = PutPort([0; PORT_SIZE]);

    /// The put-port in these bytes.
    pub const fn from_bytes(bytes: [u8; PORT_SIZE]) -> PutPort {
        PutPort(bytes)
    }

    /// The six bytes.
    pub const fn to_bytes(self) -> [u8; PORT_SIZE] {
        self.0
    }

    /// Whether this is the null port.
    pub fn is_null(&self) -> bool {
        *self == PutPort::NULL
    }
}

impl fmt::Display for PutPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:X}:{b:X}:{c:X}:{d:X}:{e:X}:{g:X}")
    }
}

impl fmt::Debug for PutPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The 48 bits that only the server of an object can compute for (object, rights). Compared in constant time,
/// never printed by `Debug`.
#[derive(Clone, Copy, PartialOrd, Ord)]
pub struct CheckField([u8; PORT_SIZE]);

impl CheckField {
    /// All zeros, as in a null capability.
    pub const NULL: CheckField = CheckField([0; PORT_SIZE]);

    /// The check field in these bytes.
    pub const fn from_bytes(bytes: [u8; PORT_SIZE]) -> CheckField {
        CheckField(bytes)
    }

    /// The six bytes.
    pub const fn to_bytes(self) -> [u8; PORT_SIZE] {
        self.0
    }
}

impl PartialEq for CheckField {
    fn eq(&self, other: &CheckField) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CheckField {}

impl std::hash::Hash for CheckField {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for CheckField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckField(secret)")
    }
}
