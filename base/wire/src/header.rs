//! The 32-byte transaction header that every request and every reply begins with.

use amoeba_cap::{Capability, PRIVATE_SIZE, Private, PutPort};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Status;

/// Bytes of a transaction header.
pub const HEADER_SIZE: usize = 32;

/// A request's operation. Each server owns a hundred numbers; zero is never valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command(pub u16);

/// The transaction header, as it means.
///
/// `offset`, `size` and `extra` are free parameters of the operation. On the wire they travel in the byte order
/// that the packet's header announces; everything else is a byte string.
///
/// # Source
/// Amoeba 5.3, rpc(L).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Request: the server's put-port. Reply: the port of a returned capability, or free.
    pub port: PutPort,
    /// Request as delivered: F of the get-port the client signed with, as the kernels computed it; null for none.
    pub signature: PutPort,
    /// Private part of the object's capability; in a reply of a returned capability.
    pub private: Private,
    /// Request: the [`Command`]. Reply: the [`Status`]. One field, as on the wire.
    pub command: u16,
    /// Free parameter.
    pub offset: i32,
    /// Free parameter, by convention a count of bytes.
    pub size: u16,
    /// Free parameter.
    pub extra: u16,
}

impl Header {
    /// A header of zeros.
    pub const NULL: Header = Header {
        port: PutPort::NULL,
        signature: PutPort::NULL,
        private: Private::NULL,
        command: 0,
        offset: 0,
        size: 0,
        extra: 0,
    };

    /// The header of a request for `command` on the object that `capability` names.
    pub fn request(capability: &Capability, command: Command) -> Header {
        Header { port: capability.port, private: capability.private, command: command.0, ..Header::NULL }
    }

    /// The header of a reply with `status`.
    pub fn reply(status: Status) -> Header {
        Header { command: status.0 as u16, ..Header::NULL }
    }

    /// A request's capability; in a reply the returned one.
    pub fn capability(&self) -> Capability {
        Capability { port: self.port, private: self.private }
    }

    /// Puts a capability to be returned into a reply.
    pub fn set_capability(&mut self, capability: &Capability) {
        self.port = capability.port;
        self.private = capability.private;
    }

    /// A request's command.
    pub fn command(&self) -> Command {
        Command(self.command)
    }

    /// A reply's status.
    pub fn status(&self) -> Status {
        Status(self.command as i16)
    }

    /// The 32 bytes, integers big-endian or little-endian.
    pub fn to_bytes(&self, big_endian: bool) -> [u8; HEADER_SIZE] {
        let (two, four) = integers(big_endian);
        let raw = RawHeader {
            port: self.port.to_bytes(),
            signature: self.signature.to_bytes(),
            private: self.private.to_bytes(),
            command: two.0(self.command),
            offset: four.0(self.offset as u32),
            size: two.0(self.size),
            extra: two.0(self.extra),
        };
        let mut bytes = [0; HEADER_SIZE];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The header in these 32 bytes; every value is legal.
    pub fn from_bytes(bytes: &[u8; HEADER_SIZE], big_endian: bool) -> Header {
        let (two, four) = integers(big_endian);
        let raw = RawHeader::ref_from_bytes(bytes).expect("RawHeader is 32 unaligned bytes");
        Header {
            port: PutPort::from_bytes(raw.port),
            signature: PutPort::from_bytes(raw.signature),
            private: Private::from_bytes(raw.private),
            command: two.1(raw.command),
            offset: four.1(raw.offset) as i32,
            size: two.1(raw.size),
            extra: two.1(raw.extra),
        }
    }
}

/// The bytes with named fields.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    port: [u8; 6],
    signature: [u8; 6],
    private: [u8; PRIVATE_SIZE],
    command: [u8; 2],
    offset: [u8; 4],
    size: [u8; 2],
    extra: [u8; 2],
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_SIZE);

type Codec<const N: usize, T> = (fn(T) -> [u8; N], fn([u8; N]) -> T);

/// How to write and read two-byte and four-byte integers in one byte order.
pub(crate) fn integers(big_endian: bool) -> (Codec<2, u16>, Codec<4, u32>) {
    if big_endian {
        ((u16::to_be_bytes, u16::from_be_bytes), (u32::to_be_bytes, u32::from_be_bytes))
    } else {
        ((u16::to_le_bytes, u16::from_le_bytes), (u32::to_le_bytes, u32::from_le_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_the_originals() {
        let bytes: [u8; 32] = std::array::from_fn(|index| index as u8);
        let header = Header::from_bytes(&bytes, true);
        assert_eq!(header.port.to_bytes(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(header.signature.to_bytes(), [6, 7, 8, 9, 10, 11]);
        assert_eq!(header.private.to_bytes(), [12, 13, 14, 15, 16, 17, 18, 19, 20, 21]);
        assert_eq!(header.command, 0x1617);
        assert_eq!(header.offset, 0x18191A1B);
        assert_eq!((header.size, header.extra), (0x1C1D, 0x1E1F));
        assert_eq!(Header::from_bytes(&bytes, false).command, 0x1716);
    }

    proptest! {
        #[test]
        fn every_32_bytes_come_back(bytes: [u8; 32], big_endian: bool) {
            prop_assert_eq!(Header::from_bytes(&bytes, big_endian).to_bytes(big_endian), bytes);
        }
    }
}
