//! What generated code leans on. Not for people.

pub use amoeba_cap::{Capability, CapabilitySet, Private, PutPort, Rights};
pub use amoeba_server::{
    Bulk, Call, Failure, Object, Objects, On, Pending, Request, Running, Service, Standard, start,
};
pub use amoeba_threads::SpawnError;
pub use amoeba_wire::{Command, Header, Malformed, Reader, Status, Writer};
pub use amoeba_world::{Error, Listener, Message, World};

pub use crate::client::Client;

/// Elements for which room is made before they are read; more grow the list as they come, so that a small message
/// cannot claim much memory.
const RESERVE_MAX: usize = 256;

/// A value exceeds what its class allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("over the limit of the class")]
pub struct OverLimit;

impl From<OverLimit> for Error {
    fn from(_: OverLimit) -> Error {
        Error::NotSent(Status::STD_ARGBAD)
    }
}

impl From<OverLimit> for Failure {
    fn from(_: OverLimit) -> Failure {
        Failure::from(Status::STD_OVERFLOW)
    }
}

/// A record of a class: how it is put into data and taken from it.
pub trait Marshal: Sized {
    /// Appends it.
    fn put(&self, writer: &mut Writer) -> Result<(), OverLimit>;
    /// Takes it.
    fn get(reader: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Its bytes.
    fn to_bytes(&self) -> Result<Vec<u8>, OverLimit> {
        let mut writer = Writer::new();
        self.put(&mut writer)?;
        Ok(writer.finish())
    }

    /// The record in these bytes, all of them.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let record = Self::get(&mut reader)?;
        reader.end()?;
        Ok(record)
    }
}

/// Appends a string of at most `max` bytes, none of them NUL.
pub fn put_string(writer: &mut Writer, string: &[u8], max: usize) -> Result<(), OverLimit> {
    if string.len() > max || string.contains(&0) {
        return Err(OverLimit);
    }
    writer.put_string(string);
    Ok(())
}

/// Appends a length and at most `max` bytes.
pub fn put_bytes(writer: &mut Writer, bytes: &[u8], max: usize) -> Result<(), OverLimit> {
    if bytes.len() > max {
        return Err(OverLimit);
    }
    writer.put_bytes(bytes);
    Ok(())
}

/// Checks the length of a list.
pub fn check_count(count: usize, max: usize) -> Result<(), OverLimit> {
    if count > max { Err(OverLimit) } else { Ok(()) }
}

/// Appends the length of a list.
pub fn put_count(writer: &mut Writer, count: usize, max: usize) -> Result<(), OverLimit> {
    check_count(count, max)?;
    writer.put_u32(u32::try_from(count).map_err(|_| OverLimit)?);
    Ok(())
}

/// The bytes, when they are at most `max`.
pub fn within<B: std::ops::Deref<Target = [u8]>>(bytes: B, max: usize) -> Result<B, OverLimit> {
    if bytes.len() > max { Err(OverLimit) } else { Ok(bytes) }
}

/// What follows the first `taken` bytes of `data`, at most `max` bytes; not copied when `taken` is 0.
pub fn rest(mut data: Vec<u8>, taken: usize, max: usize) -> Result<Vec<u8>, Malformed> {
    if data.len() - taken > max {
        return Err(Malformed);
    }
    data.drain(..taken);
    Ok(data)
}

/// Takes a length and that many elements, at most `max`.
pub fn get_list<'a, T>(
    reader: &mut Reader<'a>,
    max: usize,
    get: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = usize::try_from(reader.get_u32()?).map_err(|_| Malformed)?;
    if count > max {
        return Err(Malformed);
    }
    let mut list = Vec::with_capacity(count.min(RESERVE_MAX));
    for _ in 0..count {
        list.push(get(reader)?);
    }
    Ok(list)
}

/// Takes elements to the end of the data, at most `max`.
pub fn get_until_end<'a, T>(
    reader: &mut Reader<'a>,
    max: usize,
    get: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut list = Vec::new();
    while reader.remaining() > 0 {
        if list.len() == max {
            return Err(Malformed);
        }
        list.push(get(reader)?);
    }
    Ok(list)
}

/// The `size` of a header: by convention the bytes of data, as far as 16 bits can tell.
pub fn header_size(data: &[u8]) -> u16 {
    u16::try_from(data.len()).unwrap_or(u16::MAX)
}
