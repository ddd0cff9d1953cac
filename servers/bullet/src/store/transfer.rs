//! What a backup reads and a restore writes: the list of files, the service's identity, files with their old numbers.
//!
//! A service is restored into a volume without files: first the identity, which the server takes at its next start,
//! then the files. From then on every capability that the old service gave out is one of the new.

use amoeba_cap::{CheckField, GetPort, ObjectNumber, ServerSecret};

use super::contents::Contents;
use super::table::{Entry, FileState};
use super::{Counter, FileId, Store, StoreError};

/// Entries looked at under one lock.
const LIST_STEP: u32 = 65536;

/// What makes a service's capabilities.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The secret port the server listens on.
    pub get_port: GetPort,
    /// The random of object 0, the server itself.
    pub super_random: CheckField,
    /// The key of its check fields.
    pub secret: ServerSecret,
}

/// A committed file, as a backup sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which file.
    pub file: FileId,
    /// Bytes.
    pub size: u64,
    /// Of its commit; 0 while it is not on disk.
    pub sequence: u64,
    /// The account it belongs to; 0 for none.
    pub owner: u64,
}

impl Store {
    /// Up to `count` committed files with numbers above `after`, in their order, and where to go on: 0 at the end.
    pub fn list(&self, after: u32, count: usize) -> (Vec<Listed>, u32) {
        let mut files = Vec::new();
        let mut number = after.saturating_add(1);
        loop {
            let table_end = self.with(|state| {
                let end = number.saturating_add(LIST_STEP).min(state.table.len());
                while number < end && files.len() < count {
                    files.extend(state.table.get(number).and_then(|entry| listed(number, entry)));
                    number += 1;
                }
                state.table.len()
            });
            if number >= table_end {
                return (files, 0);
            }
            if files.len() >= count {
                return (files, number - 1);
            }
        }
    }

    /// The service's identity.
    pub fn identity(&self) -> Identity {
        Identity {
            get_port: self.get_port.clone(),
            super_random: self.super_random,
            secret: self.secret.clone(),
        }
    }

    /// Takes another service's identity, at the next start; until then no files are made.
    ///
    /// # Errors
    /// Exists, when the volume holds files; BadArgument for a null port; DiskFailed, WriteProtected.
    pub fn adopt(&self, identity: &Identity) -> Result<(), StoreError> {
        if identity.get_port.is_null() {
            return Err(StoreError::BadArgument);
        }
        let mut superblock = self.superblock.lock();
        let empty = self.with(|state| {
            let empty = state.table.free_count() + 1 == state.table.len() as usize;
            state.adopted |= empty;
            empty
        });
        if !empty {
            return Err(StoreError::Exists);
        }
        self.write_superblock(&mut superblock, |new| {
            new.get_port = identity.get_port.clone();
            new.super_random = identity.super_random;
            new.secret = identity.secret.clone();
        })
    }

    /// Makes an uncommitted file that holds `data`, with the number and the random that an old one had.
    ///
    /// # Errors
    /// Exists, when the number is taken; NotNow, between an adoption and the next start; BadArgument for a number the volume cannot have; those of [`Store::create`].
    pub fn restore(&self, file: FileId, data: Vec<u8>, owner: u64) -> Result<(), StoreError> {
        self.count(Counter::Create);
        self.volume.writable()?;
        self.take_this_number(file)?;
        self.with(|state| state.table.get_mut(file.number()).owner = owner);
        let mut contents = Contents::Memory(data);
        let kept = self.keep_draft(file, &mut contents, None);
        if let Err(error) = kept {
            self.abandon(file, contents, Some(error));
        }
        kept
    }

    fn take_this_number(&self, file: FileId) -> Result<(), StoreError> {
        let number = file.number();
        if file.object == ObjectNumber::SUPER || number >= self.superblock.lock().inode_count {
            return Err(StoreError::BadArgument);
        }
        while self.with(|state| state.table.len()) <= number {
            self.grow_table_by_a_step()?;
        }
        self.with(|state| match state.adopted {
            true => Err(StoreError::NotNow),
            false if state.table.take_this(number, file.random) => Ok(()),
            false => Err(StoreError::Exists),
        })
    }
}

fn listed(number: u32, entry: &Entry) -> Option<Listed> {
    let object = ObjectNumber::new(number).expect("the table has at most 2^24 entries");
    entry.is_committed().then_some(Listed {
        file: FileId { object, random: entry.random },
        size: entry.size,
        sequence: if entry.state == FileState::Stored { entry.sequence } else { 0 },
        owner: entry.owner,
    })
}
