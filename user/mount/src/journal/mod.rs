//! What was synced and not committed yet, so that the next mount can commit it.
//!
//! The [`log`] in the state folder of the mount has a [`record`] of each such file. Small contents are in the log too, so that
//! a sync costs one flush, shared by all who wait for it; what is larger, or is synced more than once, is in a file of its
//! own, `N.data`.

mod log;
mod record;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{Attributes, Content};
use amoeba_stubs::directory::{self, InstallRow, NAME_MAX};
use amoeba_stubs::{Client, bullet};
use amoeba_threads::Threads;
use amoeba_volume::Error;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;

use crate::queue::send;
use crate::rows;
use crate::scratch::{Scratch, refused};
use crate::text;

use log::{INLINE_MAX, Live, Log};
pub(crate) use record::{Place, Record};

/// What the journal has of a scratch.
#[derive(Debug)]
pub(crate) struct Note {
    record: Record,
    /// How often the scratch had been changed by then.
    changes: u64,
    /// Whether its contents are in the log.
    is_inline: bool,
}

/// The journal of a mount.
pub(crate) struct Journal {
    folder: PathBuf,
    log: Log,
}

impl Journal {
    /// The journal in a folder; what is left in it stays there.
    pub(crate) fn open(threads: &Threads, folder: &Path) -> io::Result<Journal> {
        Ok(Journal { folder: folder.to_owned(), log: Log::open(threads, folder)? })
    }

    /// Makes a scratch durable, and what is to become of it. Nobody changes it meanwhile.
    pub(crate) fn sync(&self, scratch: &Scratch, record: Record) -> Result<(), Error> {
        let (number, changes) = (scratch.number(), scratch.changes());
        let known = scratch.note().as_ref().map(|note| (note.is_inline, note.changes == changes));
        let note = |is_inline, data: Option<&[u8]>| {
            self.log.note(number, &record, data).map_err(|error| refused(&error))?;
            *scratch.note() = Some(Note { record: record.clone(), changes, is_inline });
            self.flush()
        };
        match known {
            None if scratch.is_in_memory() && scratch.size() <= INLINE_MAX as u64 => {
                note(true, Some(&scratch.whole()?))
            }
            // None of its contents are new.
            Some((true, true)) => {
                self.rename(scratch, record)?;
                self.flush()
            }
            Some((false, _)) => {
                scratch.sync()?;
                self.rename(scratch, record)?;
                self.flush()
            }
            _ => {
                scratch.sync()?;
                scratch.keep(true);
                // The name of its file, which may be new.
                let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
                folder.map_err(|error| refused(&error))?;
                note(false, None)
            }
        }
    }

    /// Something else is to become of a scratch that was synced; a [`flush`](Journal::flush) makes that durable, unless only
    /// times differ. The gate of the file is held.
    pub(crate) fn rename(&self, scratch: &Scratch, record: Record) -> Result<(), Error> {
        let urgent = match &*scratch.note() {
            Some(note) if note.record != record => !note.record.differs_in_times_only(&record),
            _ => return Ok(()),
        };
        self.log.rename(scratch.number(), &record, urgent).map_err(|error| refused(&error))?;
        if let Some(note) = &mut *scratch.note() {
            note.record = record;
        }
        Ok(())
    }

    /// Makes durable what was said before and matters.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.log.flush().map_err(|error| refused(&error))
    }

    /// The scratch is committed, or nobody wants it any more. Its file goes with it.
    pub(crate) fn forget(&self, scratch: &Scratch) {
        if scratch.note().take().is_some() {
            scratch.keep(false);
            // What stays is done again at the next mount, and changes nothing then.
            drop(self.log.done(scratch.number()));
        }
    }

    /// Keeps what cannot be committed where a person finds it.
    pub(crate) fn lose(&self, scratch: &Scratch, name: &[u8]) {
        lose(&self.folder, scratch, name);
    }
}

fn lose(folder: &Path, scratch: &Scratch, name: &[u8]) {
    let lost = folder.join("lost");
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

/// Removes the folder of a mount that has ended, unless something is left in it for the next one or for a person: whether it
/// is gone.
pub(crate) fn remove_if_done(folder: &Path) -> io::Result<bool> {
    Ok(log::remove_if_done(folder)? && fs::remove_dir(folder).is_ok())
}

/// Commits what an earlier mount has left in a folder, and clears the rest of it away. The first free number, and what was
/// redone.
pub(crate) fn redo(folder: &Path, client: Client<'_>, server: &Capability) -> io::Result<(u64, Vec<String>)> {
    let mut all = log::what_is_left(folder)?;
    let mut next = all.keys().last().map_or(1, |last| last + 1);
    let mut said = Vec::new();
    let mut installed = Installed::new();
    // In the order in which they were begun.
    let redone = |number: &u64, live: &mut Live| match redo_one(
        folder,
        client,
        server,
        (*number, live),
        &mut installed,
    ) {
        Ok(one) => {
            said.extend(one);
            false
        }
        // It stays for the next mount.
        Err(error) => {
            said.push(format!("what was synced as {number} cannot be committed: {error}"));
            true
        }
    };
    all.retain(redone);
    log::replace(folder, &all)?;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".data")?.parse::<u64>().ok());
        let Some(number) = number else { continue };
        next = next.max(number + 1);
        if all.get(&number).is_none_or(|live| live.data.is_some()) {
            fs::remove_file(data_path(folder, number))?;
        }
    }
    Ok((next, said))
}

fn data_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number}.data"))
}

/// What names stand for since they were redone.
type Installed = BTreeMap<([u8; 16], Vec<u8>), Capability>;

fn redo_one(
    folder: &Path,
    client: Client<'_>,
    server: &Capability,
    (number, live): (u64, &Live),
    installed: &mut Installed,
) -> Result<Vec<String>, String> {
    let path = data_path(folder, number);
    let scratch = match &live.data {
        Some(data) => Ok(Scratch::of(number, &path, data.clone())),
        None => Scratch::reopen(number, &path),
    };
    let scratch = scratch.map_err(|error| error.to_string())?;
    let record = &live.record;
    let made = send(client, server, &scratch).map_err(|error| error.to_string())?;
    bullet::sync(client, server).map_err(|error| error.to_string())?;
    bullet::size(client, &made.file).map_err(|error| error.to_string())?;
    let attributes = Attributes { content: Some(made.content), ..record.attributes.clone() };
    let attributes = attributes.to_bytes().unwrap_or_default();
    let mut said = Vec::new();
    for place in &record.names {
        let install = |name: &[u8], old: Capability| {
            let row = InstallRow {
                directory: place.directory.private,
                name: name.to_vec(),
                set: CapabilitySet::singleton(made.file),
                old,
                keep: false,
                masks: record.masks,
                kind: record.kind,
                attributes: attributes.clone(),
            };
            directory::install(client, &place.directory, &[row])
        };
        let name = text(&place.name);
        let key = (place.directory.to_bytes(), place.name.clone());
        // An earlier version of ours may have come there meanwhile, or just now.
        let coming = Some(place.coming).filter(|coming| *coming != Capability::NULL);
        let mut result = install(&place.name, place.old);
        for old in coming.into_iter().chain(installed.get(&key).copied()) {
            if result == Err(Refusal::Refused(Status::SP_CLASH)) {
                result = install(&place.name, old);
            }
        }
        match result {
            Ok(()) => {
                installed.insert(key, made.file);
                said.push(format!("{name} was synced and is committed now"));
            }
            // It was committed, and the mount killed before it noted that.
            Err(Refusal::Refused(Status::SP_CLASH)) if has_contents(client, place, &made.content) => {}
            Err(Refusal::Refused(Status::SP_CLASH)) => {
                let hash = blake3::Hash::from(made.content.hash).to_hex();
                let end = format!(".conflict-{}", &hash[..12]);
                let kept = place.name.len().min(NAME_MAX - end.len());
                let other = [&place.name[..kept], end.as_bytes()].concat();
                let shown = text(&other);
                match install(&other, Capability::NULL) {
                    // It was done by a mount that was killed right after.
                    Ok(()) | Err(Refusal::Refused(Status::SP_CLASH)) => said.push(format!(
                        "{name} was synced, and has changed elsewhere since: what was synced is {shown}"
                    )),
                    Err(error) => return Err(error.to_string()),
                }
            }
            // The directory itself is gone.
            Err(Refusal::Refused(Status::STD_CAPBAD)) => {
                lose(folder, &scratch, &place.name);
                said.push(format!("{name} was synced, and its directory is gone"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(said)
}

/// Whether a name stands for a file of the same contents.
fn has_contents(client: Client<'_>, place: &Place, content: &Content) -> bool {
    let row = rows::row(client, &place.directory, &place.name).ok().flatten();
    let there = row.and_then(|row| row.attributes.content);
    there.is_some_and(|there| (there.size, there.hash) == (content.size, content.hash))
}
