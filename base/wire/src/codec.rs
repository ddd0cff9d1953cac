//! Marshalling of data inside transactions: little-endian integers, verbatim capabilities, NUL-ended strings.
//!
//! # Source
//! Amoeba 5.3, buffer(L). The length-prefixed `bytes` form is ours: the original had none.

use amoeba_cap::{CAPABILITY_SIZE, Capability, CapabilitySet, PRIVATE_SIZE, Private, PutPort, Suite};

/// The data ends too early, or holds something its type forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed data")]
pub struct Malformed;

/// Room that a buffer has from its first byte on: most replies fit, which would grow to it in five steps.
const ROOM_FIRST: usize = 120;

/// Appends values to a buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

macro_rules! integers {
    ($($put:ident, $get:ident, $type:ty;)*) => {
        impl Writer {
            $(
                /// Appends a little-endian integer.
                pub fn $put(&mut self, value: $type) -> &mut Self {
                    self.raw(&value.to_le_bytes())
                }
            )*
        }
        impl<'a> Reader<'a> {
            $(
                /// Takes a little-endian integer.
                pub fn $get(&mut self) -> Result<$type, Malformed> {
                    Ok(<$type>::from_le_bytes(self.array()?))
                }
            )*
        }
    };
}

integers! {
    put_u8, get_u8, u8;
    put_u16, get_u16, u16;
    put_u32, get_u32, u32;
    put_u64, get_u64, u64;
    put_i16, get_i16, i16;
    put_i32, get_i32, i32;
    put_i64, get_i64, i64;
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty buffer with room for so many bytes.
    pub fn with_room(size: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(size) }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(bytes.len().max(ROOM_FIRST));
        }
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends one byte, 1 or 0.
    pub fn put_bool(&mut self, value: bool) -> &mut Self {
        self.put_u8(u8::from(value))
    }

    /// Appends a length (u32) and the bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).expect("data in a transaction is at most 1 GiB");
        self.put_u32(length).raw(bytes)
    }

    /// Appends a string and its ending NUL. The string must hold none.
    pub fn put_string(&mut self, string: &[u8]) -> &mut Self {
        debug_assert!(!string.contains(&0), "a NUL would end the string early");
        self.raw(string).put_u8(0)
    }

    /// Appends the sixteen bytes of a capability.
    pub fn put_cap(&mut self, capability: &Capability) -> &mut Self {
        self.raw(&capability.to_bytes())
    }

    /// Appends the ten bytes of a private part.
    pub fn put_private(&mut self, private: &Private) -> &mut Self {
        self.raw(&private.to_bytes())
    }

    /// Appends the six bytes of a put-port.
    pub fn put_port(&mut self, port: &PutPort) -> &mut Self {
        self.raw(&port.to_bytes())
    }

    /// Appends a capability set.
    pub fn put_capset(&mut self, set: &CapabilitySet) -> &mut Self {
        self.put_i16(set.initial() as i16).put_i16(set.suites().len() as i16);
        for suite in set.suites() {
            self.put_cap(&suite.capability).put_i16(i16::from(suite.current));
        }
        self
    }
}

/// Takes values from a buffer, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes not yet taken; takes them all.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Checks that nothing is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// Takes `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes one byte that must be 0 or 1.
    pub fn get_bool(&mut self) -> Result<bool, Malformed> {
        match self.get_u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Takes a length (u32) and that many bytes, at most `max`.
    pub fn get_bytes(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.get_u32()?).map_err(|_| Malformed)?;
        if length > max { Err(Malformed) } else { self.take(length) }
    }

    /// Takes a string of at most `max` bytes, and its ending NUL, which is not part of it.
    pub fn get_string(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let within = &self.rest[..self.rest.len().min(max.saturating_add(1))];
        let length = within.iter().position(|&byte| byte == 0).ok_or(Malformed)?;
        let string = self.take(length)?;
        self.take(1)?;
        Ok(string)
    }

    /// Takes a capability.
    pub fn get_cap(&mut self) -> Result<Capability, Malformed> {
        Ok(Capability::from_bytes(self.array::<CAPABILITY_SIZE>()?))
    }

    /// Takes a private part.
    pub fn get_private(&mut self) -> Result<Private, Malformed> {
        Ok(Private::from_bytes(self.array::<PRIVATE_SIZE>()?))
    }

    /// Takes a put-port.
    pub fn get_port(&mut self) -> Result<PutPort, Malformed> {
        Ok(PutPort::from_bytes(self.array()?))
    }

    /// Takes a capability set of at most eight members.
    pub fn get_capset(&mut self) -> Result<CapabilitySet, Malformed> {
        let initial = usize::try_from(self.get_i16()?).map_err(|_| Malformed)?;
        let count = usize::try_from(self.get_i16()?).map_err(|_| Malformed)?;
        if initial > count || count > amoeba_cap::SET_MEMBERS_MAX {
            return Err(Malformed);
        }
        let suites = (0..count)
            .map(|_| Ok(Suite { capability: self.get_cap()?, current: self.get_i16()? != 0 }))
            .collect::<Result<Vec<_>, Malformed>>()?;
        CapabilitySet::from_suites(initial, suites).map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_little_endian_and_strings_end_with_nul() {
        let mut writer = Writer::new();
        writer.put_u16(0x0102).put_i32(-2).put_string(b"etc").put_bytes(b"xy");
        let bytes = writer.finish();
        assert_eq!(bytes, [2, 1, 0xFE, 0xFF, 0xFF, 0xFF, b'e', b't', b'c', 0, 2, 0, 0, 0, b'x', b'y']);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.get_u16(), Ok(0x0102));
        assert_eq!(reader.get_i32(), Ok(-2));
        assert_eq!(reader.get_string(3), Ok(&b"etc"[..]));
        assert_eq!(reader.get_bytes(2), Ok(&b"xy"[..]));
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(reader.get_u8(), Err(Malformed));
    }

    #[test]
    fn bounds_come_before_contents() {
        assert_eq!(Reader::new(b"abcd\0").get_string(3), Err(Malformed));
        assert_eq!(Reader::new(b"abcd").get_string(255), Err(Malformed));
        assert_eq!(Reader::new(&[255, 255, 255, 255]).get_bytes(usize::MAX), Err(Malformed));
        assert_eq!(Reader::new(&[3, 0, 0, 0, 1, 2, 3]).get_bytes(2), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 9, 0]).get_capset(), Err(Malformed));
        assert_eq!(Reader::new(&[2, 0, 1, 0]).get_capset(), Err(Malformed));
    }

    #[test]
    fn no_bytes_panic_and_a_set_that_reads_writes_the_same() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            if let Ok(set) = reader.get_capset() {
                let mut writer = Writer::new();
                writer.put_capset(&set);
                let again = Reader::new(&writer.finish()).get_capset();
                assert_eq!(again, Ok(set));
            }
            let _ = (reader.get_string(255).is_ok(), reader.get_bytes(64).is_ok(), reader.get_u64().is_ok());
        });
    }
}
