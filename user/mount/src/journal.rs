//! What was synced and not committed yet, so that the next mount can commit it.
//!
//! A record is a file beside the scratch that it is about, `N.row` beside `N.data`, in the state folder of the mount. Integers
//! are little-endian.
//!
//! ```text
//! magic "AMMNTJ01" | count u32 | count times: directory 16, name, old 16 | masks 4 | kind 16 | attributes | BLAKE3 of all before, 32
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{Attributes, Content, Masks};
use amoeba_stubs::directory::{self, ATTRIBUTES_MAX, InstallRow, NAME_MAX};
use amoeba_stubs::{Client, bullet};
use amoeba_volume::Error;
use amoeba_wire::{Malformed, Reader, Status, Writer};
use amoeba_world::Error as Refusal;

use crate::queue::send;
use crate::rows;
use crate::scratch::{Scratch, refused};
use crate::text;

const MAGIC: &[u8; 8] = b"AMMNTJ01";
const CHECK_SIZE: usize = 32;
/// Names of a file that a record has.
const NAMES_MAX: u32 = 100;
/// Bytes of the largest record.
const RECORD_SIZE_MAX: u64 = 64 << 10;

/// A file that was synced: what its rows are to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) names: Vec<Place>,
    pub(crate) masks: Masks,
    pub(crate) kind: Capability,
    pub(crate) attributes: Attributes,
}

/// A name, and what it stood for when the file was begun.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) directory: Capability,
    pub(crate) name: Vec<u8>,
    pub(crate) old: Capability,
}

impl Record {
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(MAGIC).put_u32(self.names.len() as u32);
        for place in &self.names {
            writer.put_cap(&place.directory).put_string(&place.name).put_cap(&place.old);
        }
        writer.raw(&self.masks).put_cap(&self.kind);
        writer.put_bytes(&self.attributes.to_bytes().unwrap_or_default());
        let mut bytes = writer.finish();
        let check = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&check);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Record, Malformed> {
        let end = bytes.len().checked_sub(CHECK_SIZE).ok_or(Malformed)?;
        let (bytes, check) = bytes.split_at(end);
        if blake3::hash(bytes).as_bytes() != check {
            return Err(Malformed);
        }
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != *MAGIC {
            return Err(Malformed);
        }
        let count = reader.get_u32()?;
        if count > NAMES_MAX {
            return Err(Malformed);
        }
        let mut names = Vec::new();
        for _ in 0..count {
            let directory = reader.get_cap()?;
            let name = reader.get_string(NAME_MAX)?.to_vec();
            names.push(Place { directory, name, old: reader.get_cap()? });
        }
        let (masks, kind) = (reader.array()?, reader.get_cap()?);
        let attributes = Attributes::from_bytes(reader.get_bytes(ATTRIBUTES_MAX)?).map_err(|_| Malformed)?;
        reader.end()?;
        Ok(Record { names, masks, kind, attributes })
    }
}

/// The state folder of a mount.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
}

impl Journal {
    pub(crate) fn new(folder: &Path) -> Journal {
        Journal { folder: folder.to_owned() }
    }

    fn path(&self, number: u64, end: &str) -> PathBuf {
        self.folder.join(format!("{number}.{end}"))
    }

    /// Notes what is to become of a scratch, durably. The scratch was synced before.
    pub(crate) fn write(&self, scratch: &Scratch, record: &Record) -> Result<(), Error> {
        let number = scratch.number();
        let write = || -> io::Result<()> {
            let part = self.path(number, "part");
            let mut options = File::options();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(&record.to_bytes())?;
            file.sync_data()?;
            fs::rename(&part, self.path(number, "row"))?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| refused(&error))?;
        scratch.keep(true);
        Ok(())
    }

    /// The scratch is committed, or nobody wants it any more.
    pub(crate) fn remove(&self, number: u64) {
        // What stays is done again at the next mount, and changes nothing then.
        drop(fs::remove_file(self.path(number, "row")));
        drop(fs::remove_file(self.path(number, "data")));
    }

    /// Keeps what cannot be committed where a person finds it.
    pub(crate) fn lose(&self, scratch: &Scratch, name: &[u8]) {
        let lost = self.folder.join("lost");
        let to = lost.join(format!("{}-{}", scratch.number(), text(name).replace('/', "_")));
        let keep = || -> Result<(), Error> {
            scratch.sync()?;
            fs::create_dir_all(&lost).map_err(|error| refused(&error))?;
            fs::copy(scratch.path(), &to).map_err(|error| refused(&error))?;
            Ok(())
        };
        match keep() {
            Ok(()) => tracing::error!("what was written to {} is in {}", text(name), to.display()),
            Err(error) => tracing::error!("what was written to {} is lost: {error}", text(name)),
        }
    }

    /// Commits what an earlier mount has left, and clears the rest of it away. The first free number, and what was redone.
    pub(crate) fn redo(&self, client: Client<'_>, server: &Capability) -> io::Result<(u64, Vec<String>)> {
        let mut next = 1;
        let mut said = Vec::new();
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('.'));
            let number = parts.and_then(|(number, _)| number.parse::<u64>().ok());
            left.extend(number.zip(parts.map(|(_, end)| end.to_owned())));
        }
        // In the order in which they were begun.
        left.sort();
        for (number, end) in left {
            next = next.max(number + 1);
            match &*end {
                "part" => fs::remove_file(self.path(number, &end))?,
                "data" if !self.path(number, "row").exists() => fs::remove_file(self.path(number, &end))?,
                "row" => match self.redo_one(client, server, number) {
                    Ok(one) => {
                        said.extend(one);
                        self.remove(number);
                    }
                    // It stays for the next mount.
                    Err(error) => {
                        said.push(format!("what was synced as {number} cannot be committed: {error}"))
                    }
                },
                _ => {}
            }
        }
        Ok((next, said))
    }

    fn redo_one(&self, client: Client<'_>, server: &Capability, number: u64) -> Result<Vec<String>, String> {
        let path = self.path(number, "row");
        let size = fs::metadata(&path).map_err(|error| error.to_string())?.len();
        let bytes = if size > RECORD_SIZE_MAX {
            Err("it is too large".to_owned())
        } else {
            fs::read(&path).map_err(|error| error.to_string())
        }?;
        let record = Record::from_bytes(&bytes).map_err(|_| "its record is damaged".to_owned())?;
        let scratch =
            Scratch::reopen(number, &self.path(number, "data")).map_err(|error| error.to_string())?;
        scratch.keep(true);
        let made = send(client, server, &scratch).map_err(|error| error.to_string())?;
        bullet::sync(client, server).map_err(|error| error.to_string())?;
        bullet::size(client, &made.file).map_err(|error| error.to_string())?;
        let attributes = Attributes { content: Some(made.content), ..record.attributes.clone() };
        let attributes = attributes.to_bytes().unwrap_or_default();
        let mut said = Vec::new();
        for place in &record.names {
            let row = |name: Vec<u8>, old| InstallRow {
                directory: place.directory.private,
                name,
                set: CapabilitySet::singleton(made.file),
                old,
                keep: false,
                masks: record.masks,
                kind: record.kind,
                attributes: attributes.clone(),
            };
            let name = text(&place.name);
            match directory::install(client, &place.directory, &[row(place.name.clone(), place.old)]) {
                Ok(()) => said.push(format!("{name} was synced and is committed now")),
                // It was committed, and the mount killed before it noted that.
                Err(Refusal::Refused(Status::SP_CLASH)) if has_contents(client, place, &made.content) => {}
                Err(Refusal::Refused(Status::SP_CLASH)) => {
                    let hash = blake3::Hash::from(made.content.hash).to_hex();
                    let end = format!(".conflict-{}", &hash[..12]);
                    let kept = place.name.len().min(NAME_MAX - end.len());
                    let other = [&place.name[..kept], end.as_bytes()].concat();
                    let shown = text(&other);
                    match directory::install(client, &place.directory, &[row(other, Capability::NULL)]) {
                        // It was done by a mount that was killed right after.
                        Ok(()) | Err(Refusal::Refused(Status::SP_CLASH)) => said.push(format!(
                            "{name} was synced, and has changed elsewhere since: what was synced is {shown}"
                        )),
                        Err(error) => return Err(error.to_string()),
                    }
                }
                // The directory itself is gone.
                Err(Refusal::Refused(Status::STD_CAPBAD)) => {
                    self.lose(&scratch, &place.name);
                    said.push(format!("{name} was synced, and its directory is gone"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(said)
    }
}

/// Whether a name stands for a file of the same contents.
fn has_contents(client: Client<'_>, place: &Place, content: &Content) -> bool {
    let row = rows::row(client, &place.directory, &place.name).ok().flatten();
    let there = row.and_then(|row| row.attributes.content);
    there.is_some_and(|there| (there.size, there.hash) == (content.size, content.hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let capability = Capability::from_bytes([7; 16]);
        let place = Place { directory: capability, name: b"n".to_vec(), old: Capability::NULL };
        let attributes = Attributes { mode: Some(0o100_644), ..Attributes::default() };
        Record { names: vec![place], masks: [1, 2, 3, 4], kind: capability, attributes }
    }

    #[test]
    fn a_record_comes_back_and_a_torn_one_does_not() {
        let bytes = sample().to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Ok(sample()));
        for index in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[index] ^= 1;
            assert_eq!(Record::from_bytes(&torn), Err(Malformed));
            assert_eq!(Record::from_bytes(&bytes[..index]), Err(Malformed));
        }
    }
}
