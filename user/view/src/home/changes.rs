//! Changes that a host asks for, made in the trees that may be written: each through the directory that holds it, so that
//! none leads out.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError};

use amoeba_stubs::view::{
    CHANGE_CONTENTS, CHANGE_CREATE, CHANGE_DIRECTORY, CHANGE_HARD_LINK, CHANGE_LINK, CHANGE_MODE,
    CHANGE_REMOVE, CHANGE_REMOVE_DIRECTORY, CHANGE_RENAME, CHANGE_RENAME_NEW, CHANGE_TIME, ChangeRecord,
    KIND_FILE, KIND_LINK, OutcomeRecord, READONLY,
};
use amoeba_tree::{Folder, Time};
use amoeba_wire::Status;

use super::hidden::TEMPORARY;
use super::record::{self, MODE_MASK, status_of};
use super::report::{Done, Report};
use super::trees::{Trees, Walk, names_way};
use super::upload::Uploads;

/// Names that are tried for contents that must be kept beside what is there.
const KEPT_TRIES: u32 = 1000;

/// What one request for changes needs.
pub(crate) struct Making<'s> {
    pub(crate) trees: &'s Trees,
    pub(crate) uploads: &'s mut Uploads,
    pub(crate) report: &'s Report,
    /// Makes temporary names different.
    pub(crate) unique: u64,
}

/// A name and where it lies.
type Place<'p> = (Arc<Folder>, &'p [u8]);

impl Making<'_> {
    /// Makes one change, and says what became of it.
    pub(crate) fn make(&mut self, change: &ChangeRecord) -> OutcomeRecord {
        self.unique += 1;
        let mut walk = Walk::new(self.trees);
        let mut kept = Vec::new();
        let made = self.change(&mut walk, change, &mut kept);
        walk.forget();
        let renamed = matches!(change.kind, CHANGE_RENAME | CHANGE_RENAME_NEW | CHANGE_HARD_LINK);
        let path = if renamed && made.is_ok() { &change.other } else { &change.path };
        let node = walk.look(path).unwrap_or_else(|_| record::nothing());
        let status = made.err().unwrap_or(Status::STD_OK);
        self.tell(change, status, &kept);
        OutcomeRecord { status: status.0, node, kept }
    }

    fn change(
        &mut self,
        walk: &mut Walk<'_>,
        change: &ChangeRecord,
        kept: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let moving = &self.trees.moving;
        let (_alone, _with_others) = if is_move(change.kind)
            && [&change.path, &change.other].into_iter().any(|path| names_way(path))
        {
            (Some(moving.write().unwrap_or_else(PoisonError::into_inner)), None)
        } else {
            (None, Some(moving.read().unwrap_or_else(PoisonError::into_inner)))
        };
        let place = walk.changeable(&change.path)?;
        let (folder, name) = (&place.0, place.1);
        let failed = |error: io::Error| status_of(&error);
        match change.kind {
            CHANGE_CREATE => {
                let file = folder.create(name).map_err(failed)?;
                amoeba_tree::set_mode(&file, mode(change)).map_err(failed)
            }
            CHANGE_DIRECTORY => {
                let made = folder.make(name).map_err(failed)?;
                amoeba_tree::set_mode(&made, mode(change)).map_err(failed)
            }
            CHANGE_LINK => folder.make_link(name, &change.other).map_err(failed),
            CHANGE_REMOVE => folder.remove(name).map_err(failed),
            CHANGE_REMOVE_DIRECTORY => folder.remove_folder(name).map_err(failed),
            CHANGE_RENAME | CHANGE_RENAME_NEW | CHANGE_HARD_LINK => {
                let (to, to_name) = walk.changeable(&change.other)?;
                if is_move(change.kind) {
                    walk.movable(&change.path, &change.other)?;
                }
                match change.kind {
                    CHANGE_RENAME => folder.rename(name, &to, to_name),
                    CHANGE_RENAME_NEW => folder.rename_new(name, &to, to_name),
                    _ => folder.hard_link(name, &to, to_name),
                }
                .map_err(failed)
            }
            CHANGE_CONTENTS => self.contents(walk, change, &place, kept),
            CHANGE_MODE => {
                let node = walk.look(&change.path)?;
                if node.kind == KIND_LINK {
                    return Err(Status::STD_ARGBAD);
                }
                set_mode(folder, name, node.kind == KIND_FILE, mode(change))
            }
            CHANGE_TIME => folder.set_link_times(name, time(change), time(change)).map_err(failed),
            _ => Err(Status::STD_ARGBAD),
        }
    }

    /// Replaces a file in one step, or keeps the new contents beside it.
    fn contents(
        &mut self,
        walk: &mut Walk<'_>,
        change: &ChangeRecord,
        (folder, name): &Place<'_>,
        kept: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let failed = |error: io::Error| status_of(&error);
        let temporary = [TEMPORARY, format!("{:x}-new", self.unique).as_bytes()].concat();
        let mut file = folder.create(&temporary).map_err(failed)?;
        let written = self.fill(&mut file, change).and_then(|()| {
            amoeba_tree::set_mode(&file, mode(change)).map_err(failed)?;
            amoeba_tree::set_times(&file, time(change), time(change)).map_err(failed)
        });
        let settled = written.and_then(|()| {
            let is_there = match walk.look(&change.path) {
                Ok(node) => node.version == change.base,
                Err(Status::STD_NOTFOUND) => false,
                Err(status) => return Err(status),
            };
            if is_there {
                return folder.rename(&temporary, folder, name).map_err(failed);
            }
            *kept = keep_beside(folder, &temporary, &change.path, name)?;
            Ok(())
        });
        if settled.is_err() {
            // It may have its new name by now.
            let _ = folder.remove(&temporary);
        }
        settled
    }

    fn fill(&mut self, file: &mut File, change: &ChangeRecord) -> Result<(), Status> {
        match change.upload {
            0 => file.write_all(&change.data).map_err(|error| status_of(&error)),
            number => self.uploads.take(number, file),
        }
    }

    fn tell(&self, change: &ChangeRecord, status: Status, kept: &[u8]) {
        let done = match change.kind {
            // What else fails the process hears itself.
            CHANGE_CONTENTS if status.is_error() => Done::Failed(status),
            _ if status.is_error() => return,
            _ if !kept.is_empty() => Done::Conflict(kept.to_vec()),
            CHANGE_REMOVE | CHANGE_REMOVE_DIRECTORY => Done::Removed,
            CHANGE_CREATE | CHANGE_DIRECTORY | CHANGE_LINK => Done::Made,
            CHANGE_RENAME | CHANGE_RENAME_NEW | CHANGE_HARD_LINK => {
                self.report.add(&change.other, Done::Made);
                if change.kind == CHANGE_HARD_LINK {
                    return;
                }
                Done::Removed
            }
            _ => Done::Changed,
        };
        self.report.add(&change.path, done);
    }
}

fn is_move(kind: u8) -> bool {
    matches!(kind, CHANGE_RENAME | CHANGE_RENAME_NEW)
}

/// Gives what has the name `temporary` the first free name beside `name`.
fn keep_beside(folder: &Folder, temporary: &[u8], path: &[u8], name: &[u8]) -> Result<Vec<u8>, Status> {
    for number in 1..=KEPT_TRIES {
        let suffix = format!(".conflict-{number}");
        let short = &name[..name.len().min(amoeba_tree::NAME_MAX - suffix.len())];
        let kept = [short, suffix.as_bytes()].concat();
        match folder.rename_new(temporary, folder, &kept) {
            Ok(()) => return Ok([&path[..path.len() - name.len()], &kept].concat()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(status_of(&error)),
        }
    }
    Err(READONLY)
}

fn set_mode(folder: &Folder, name: &[u8], is_file: bool, mode: u32) -> Result<(), Status> {
    let set = if is_file {
        folder.read(name).and_then(|(file, _)| amoeba_tree::set_mode(&file, mode))
    } else {
        folder.enter(name).and_then(|inner| amoeba_tree::set_mode(&inner, mode))
    };
    set.map_err(|error| status_of(&error))
}

fn mode(change: &ChangeRecord) -> u32 {
    u32::from(change.mode) & MODE_MASK
}

fn time(change: &ChangeRecord) -> Time {
    Time { seconds: change.seconds, nanoseconds: change.nanoseconds.min(999_999_999) }
}
