//! Statuses: what a server answers instead of a result. Numbers and names are the original's.

use std::fmt;

/// A status: 0 is success, negative numbers are errors, each range of a hundred belongs to one server.
///
/// Unknown numbers survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub i16);

macro_rules! statuses {
    ($($name:ident = $number:literal, $why:literal;)*) => {
        impl Status {
            $(#[doc = $why] pub const $name: Status = Status($number);)*

            /// The original's name, `None` for a number that belongs to a class or to nobody.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($number => Some(stringify!($name)),)* _ => None }
            }

            /// What it means, for people.
            pub const fn why(self) -> &'static str {
                match self.0 { $($number => $why,)* _ => "error of the server" }
            }
        }
    };
}

statuses! {
    STD_OK = 0, "success";
    RPC_FAILURE = -1, "server or network failed after sending: the request may have been executed";
    RPC_NOTFOUND = -2, "no server found: the request was certainly not executed";
    RPC_BADADDRESS = -3, "bad request header or buffer";
    RPC_ABORTED = -4, "interrupted before the request was sent";
    RPC_TRYAGAIN = -5, "out of resources: the request was certainly not executed";
    RPC_COMBAD = -6, "an error code was sent as a command";
    RPC_REMOTERPC = -7, "the server put an RPC error into its reply";
    RPC_BADPORT = -8, "null port";
    RPC_UNSAFE = -9, "the server is only reachable over untrusted networks";
    STD_CAPBAD = -1000, "no such object, or a forged or revoked capability";
    STD_COMBAD = -1001, "the server does not know this command";
    STD_ARGBAD = -1002, "bad argument";
    STD_NOTNOW = -1003, "not possible now";
    STD_NOSPACE = -1004, "no space left";
    STD_DENIED = -1005, "the capability lacks a right";
    STD_NOMEM = -1006, "out of memory";
    STD_EXISTS = -1007, "exists already";
    STD_NOTFOUND = -1008, "no such name";
    STD_SYSERR = -1009, "the server failed inside";
    STD_INTR = -1010, "interrupted";
    STD_OVERFLOW = -1011, "too large";
    STD_WRITEPROT = -1012, "write protected";
    STD_NOMEDIUM = -1013, "no medium";
    SP_UNAVAIL = -2101, "no directory server answers";
    SP_NOTEMPTY = -2102, "the directory is not empty";
    SP_UNREACH = -2103, "the object's server cannot be reached";
    SP_CLASH = -2104, "somebody else changed the row";
}

impl Status {
    /// Whether this is an error.
    pub const fn is_error(self) -> bool {
        self.0 < 0
    }

    /// Whether this is an error of the transaction layer (-1 to -999) and not of a server.
    pub const fn is_rpc(self) -> bool {
        self.0 < 0 && self.0 > -1000
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.why()),
            None => write!(f, "{} ({})", self.why(), self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Status({})", self.0),
        }
    }
}
