//! What the servers say: rows of directories, and what objects are.

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{Attributes, Masks};
use amoeba_stubs::directory::{self, RowFull, RowHead};
use amoeba_stubs::{Client, bullet, standard};
use amoeba_volume::{Error, Kind};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;

/// Rows that are asked for at once.
pub(crate) const PAGE: u32 = directory::LIST_FULL_MAX as u32;
/// The type in a mode, and its values.
pub(crate) const TYPE: u32 = 0o170_000;

/// A row as its server has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What it stands for, with the rights that we see; empty where no server could be asked.
    pub(crate) set: CapabilitySet,
    /// Its type capability.
    pub(crate) kind: Capability,
    /// Its masks.
    pub(crate) masks: Masks,
    /// What its attributes say.
    pub(crate) attributes: Attributes,
    /// When it last changed: nanoseconds since 1970.
    pub(crate) time: u64,
}

impl Row {
    fn of(row: RowFull) -> (Vec<u8>, Row) {
        let attributes = Attributes::from_bytes(&row.attributes).unwrap_or_default();
        (row.name, Row { set: row.set, kind: row.kind, masks: row.masks, attributes, time: row.time })
    }

    /// The object, if anything is known of it.
    pub(crate) fn object(&self) -> Option<&Capability> {
        self.set.first()
    }

    /// Whether both stand for the same object with the same attributes.
    pub(crate) fn says_the_same(&self, other: &Row) -> bool {
        self.set == other.set && self.attributes == other.attributes
    }
}

/// Part of a directory.
pub(crate) struct Page {
    pub(crate) rows: Vec<(Vec<u8>, Row)>,
    pub(crate) more: bool,
    /// The number of the directory's last change before; 0 where its server does not tell.
    pub(crate) sequence: u64,
}

/// At most `count` rows of a directory behind the name `after`.
pub(crate) fn page(
    client: Client<'_>,
    directory: &Capability,
    after: &[u8],
    count: u32,
) -> Result<Page, Error> {
    match directory::list_full(client, directory, after, count) {
        Ok(page) => {
            let rows = page.rows.into_iter().map(|row| looked_up(client, directory, row)).collect();
            Ok(Page { rows, more: page.more, sequence: page.sequence })
        }
        // A host's own directory has only the classic half.
        Err(Refusal::Refused(Status::STD_COMBAD)) => classic_page(client, directory, after, count),
        Err(error) => Err(error_of(error)),
    }
}

/// A row of a full list; one for which too many others would have had to be asked is looked up by itself.
fn looked_up(client: Client<'_>, directory: &Capability, row: RowFull) -> (Vec<u8>, Row) {
    if row.status != Status::STD_NOTNOW.0 {
        return Row::of(row);
    }
    let set = directory::lookup(client, directory, &row.name).map(|found| found.set).unwrap_or_default();
    Row::of(RowFull { set, ..row })
}

fn classic_page(client: Client<'_>, directory: &Capability, after: &[u8], count: u32) -> Result<Page, Error> {
    let page = directory::list(client, directory, after, count).map_err(error_of)?;
    let look = |head: RowHead| {
        let found = directory::lookup(client, directory, &head.name).ok();
        let (set, attributes) = found.map(|found| (found.set, found.attributes)).unwrap_or_default();
        let attributes = Attributes::from_bytes(&attributes).unwrap_or_default();
        let (masks, time, kind) = (head.masks, head.time, Capability::NULL);
        (head.name, Row { set, kind, masks, attributes, time })
    };
    Ok(Page { rows: page.rows.into_iter().map(look).collect(), more: page.more, sequence: 0 })
}

/// One row of a directory, by itself.
pub(crate) fn row(client: Client<'_>, directory: &Capability, name: &[u8]) -> Result<Option<Row>, Error> {
    let page = page(client, directory, &before(name), 1)?;
    Ok(page.rows.into_iter().next().filter(|(found, _)| found == name).map(|(_, row)| row))
}

/// The largest name that is smaller than `name`.
fn before(name: &[u8]) -> Vec<u8> {
    let mut before = name.to_vec();
    match before.pop() {
        Some(last) if last > 1 => {
            // No name has a '/' in it.
            before.push(if last - 1 == b'/' { b'.' } else { last - 1 });
            before.resize(directory::NAME_MAX, 0xFF);
        }
        _ => {}
    }
    // Nor are these names.
    if matches!(&before[..], b"." | b"..") { self::before(&before) } else { before }
}

/// What an object is, as far as a file system is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A committed file.
    File,
    /// A directory.
    Directory,
    /// Something else: what it says of itself.
    Other(String),
}

/// What an object says it is; `None` where its server does not answer.
pub(crate) fn class(client: Client<'_>, object: &Capability) -> Option<Class> {
    match standard::info_text(client, object) {
        Ok(info) => Some(match info.bytes().next() {
            Some(b'-') => Class::File,
            Some(b'/' | b'%') => Class::Directory,
            _ => Class::Other(info),
        }),
        Err(Refusal::Refused(status)) => Some(Class::Other(format!("its server says: {status}"))),
        Err(_) => None,
    }
}

/// The size of a committed file, of which one copy must answer.
pub(crate) fn size(client: Client<'_>, set: &CapabilitySet) -> Result<u64, Error> {
    let mut failure = Error::Io;
    for copy in set.current() {
        match bullet::size(client, copy) {
            Ok(size) => return Ok(size),
            Err(error) => failure = error_of(error),
        }
    }
    Err(failure)
}

/// What a mode says a node is.
pub(crate) fn kind_of_mode(mode: u32) -> Option<Kind> {
    Some(match mode & TYPE {
        0o100_000 => Kind::File,
        0o040_000 => Kind::Directory,
        0o120_000 => Kind::SymbolicLink,
        0o010_000 => Kind::Pipe,
        0o140_000 => Kind::Socket,
        _ => return None,
    })
}

/// The type bits of a mode.
pub(crate) fn mode_of_kind(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::SymbolicLink => 0o120_000,
        Kind::Pipe => 0o010_000,
        Kind::Socket => 0o140_000,
        Kind::CharacterDevice => 0o020_000,
        Kind::BlockDevice => 0o060_000,
    }
}

/// What a program hears when a server did not do what it was asked.
pub(crate) fn error_of(error: Refusal) -> Error {
    match error {
        Refusal::Refused(Status::STD_DENIED) => Error::AccessDenied,
        Refusal::Refused(Status::STD_NOTFOUND) => Error::NotFound,
        Refusal::Refused(Status::STD_EXISTS) => Error::Exists,
        Refusal::Refused(Status::STD_NOSPACE | Status::STD_NOMEM) => Error::NoSpace,
        Refusal::Refused(Status::STD_OVERFLOW) => Error::TooLarge,
        Refusal::Refused(Status::STD_CAPBAD) => Error::Stale,
        Refusal::Refused(Status::STD_WRITEPROT) => Error::ReadOnly,
        Refusal::Refused(Status::SP_NOTEMPTY) => Error::NotEmpty,
        _ => Error::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_between_a_name_and_the_one_before() {
        let bytes = [1, 2, b'-', b'.', b'0', b'a', 0xFE, 0xFF];
        let mut names: Vec<Vec<u8>> = bytes.iter().map(|byte| vec![*byte]).collect();
        names.extend(bytes.iter().flat_map(|one| bytes.map(|two| vec![*one, two])));
        names.extend(bytes.iter().flat_map(|one| bytes.map(|two| vec![b'.', *one, two])));
        names.extend([vec![0xFF; 255], vec![b'a'; 255]]);
        names.retain(|name| !matches!(&name[..], b"." | b".."));
        for name in &names {
            let before = before(name);
            assert!(before < *name && before.len() <= directory::NAME_MAX, "{name:?}");
            assert!(!before.contains(&b'/') && !matches!(&before[..], b"." | b".."), "{name:?}");
            assert!(!names.iter().any(|other| *other > before && other < name), "{name:?}");
        }
    }
}
