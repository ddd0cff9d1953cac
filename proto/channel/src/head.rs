//! The bytes that a message begins with.

use amoeba_wire::{HEADER_SIZE, Header};

use crate::Broken;

/// Bytes of a head: with [`crate::Word::Produced`] before it, less than a cache line.
pub const HEAD_SIZE: usize = 16 + HEADER_SIZE;

/// What kind of message follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// A request.
    Request = 1,
    /// The reply to it.
    Reply = 2,
    /// No reply will come: the server gave up what it was executing.
    Failure = 3,
    /// No reply will come: the request was withdrawn in time, and not executed.
    Withdrawn = 4,
}

/// See [`HEAD_SIZE`].
///
/// ```text
///   0        4        8                16                              48
///   | kind   | size   | reply_size_max | transaction header            |
/// ```
/// Integers in little-endian order; `reply_size_max` is zero in what a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// Bytes of data behind it.
    pub(crate) size: u32,
    /// The most bytes of data that the reply may have.
    pub(crate) reply_size_max: u64,
    pub(crate) header: Header,
}

impl Head {
    pub(crate) fn to_bytes(self) -> [u8; HEAD_SIZE] {
        let mut bytes = [0; HEAD_SIZE];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.reply_size_max.to_le_bytes());
        bytes[16..].copy_from_slice(&self.header.to_bytes(false));
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; HEAD_SIZE]) -> Result<Head, Broken> {
        let (kind, rest) = bytes.split_first_chunk().expect("48 bytes");
        let (size, rest) = rest.split_first_chunk().expect("44 bytes");
        let (reply_size_max, rest) = rest.split_first_chunk().expect("40 bytes");
        let header: &[u8; HEADER_SIZE] = rest.try_into().expect("32 bytes");
        let kind = match u32::from_le_bytes(*kind) {
            1 => Kind::Request,
            2 => Kind::Reply,
            3 => Kind::Failure,
            4 => Kind::Withdrawn,
            _ => return Err(Broken::Kind),
        };
        Ok(Head {
            kind,
            size: u32::from_le_bytes(*size),
            reply_size_max: u64::from_le_bytes(*reply_size_max),
            header: Header::from_bytes(header, false),
        })
    }
}
