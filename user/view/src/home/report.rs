//! What hosts have changed, for whoever started the processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use amoeba_wire::Status;

use super::trees::to_shown;

/// The most paths that are remembered; changes of further ones are made and only counted.
pub const CHANGES_TOLD_MAX: usize = 100_000;

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Done {
    /// It was not there before.
    Made,
    /// It has other contents or attributes.
    Changed,
    /// It is gone.
    Removed,
    /// Somebody else had changed it: the new contents are at this path instead.
    Conflict(Vec<u8>),
    /// It could not be changed.
    Failed(Status),
}

/// A path and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// On this host.
    pub path: PathBuf,
    /// See there.
    pub done: Done,
}

/// What has been changed so far.
#[derive(Default)]
pub(crate) struct Report(Mutex<Told>);

#[derive(Default)]
struct Told {
    paths: BTreeMap<Vec<u8>, Done>,
    left_out: u64,
}

impl Report {
    pub(crate) fn add(&self, path: &[u8], done: Done) {
        let mut told = self.told();
        if told.paths.len() >= CHANGES_TOLD_MAX && !told.paths.contains_key(path) {
            told.left_out += 1;
            return;
        }
        match (told.paths.get(path), &done) {
            // What goes wrong is not forgotten because something else went well.
            (Some(Done::Conflict(_) | Done::Failed(_)), Done::Made | Done::Changed) => return,
            // It came and went, or is still new.
            (Some(Done::Made), Done::Removed) => {
                told.paths.remove(path);
                return;
            }
            (Some(Done::Made), Done::Changed) => return,
            // Another one is there in its place.
            (Some(Done::Removed), Done::Made) => {
                told.paths.insert(path.to_vec(), Done::Changed);
                return;
            }
            _ => {}
        }
        told.paths.insert(path.to_vec(), done);
    }

    /// All of it, by path, and how many paths were left out.
    pub(crate) fn all(&self) -> (Vec<Changed>, u64) {
        let told = self.told();
        let one = |(path, done): (&Vec<u8>, &Done)| Changed { path: to_shown(path), done: done.clone() };
        (told.paths.iter().map(one).collect(), told.left_out)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went_is_no_change_and_what_failed_is_told() {
        let report = Report::default();
        for (path, done) in [
            (&b"temporary"[..], Done::Made),
            (b"temporary", Done::Changed),
            (b"temporary", Done::Removed),
            (b"saved", Done::Removed),
            (b"saved", Done::Made),
            (b"lost", Done::Failed(Status::STD_DENIED)),
            (b"lost", Done::Changed),
        ] {
            report.add(path, done);
        }
        let (all, left_out) = report.all();
        let expected = [("/lost", Done::Failed(Status::STD_DENIED)), ("/saved", Done::Changed)];
        assert_eq!(all, expected.map(|(path, done)| Changed { path: path.into(), done }));
        assert_eq!(left_out, 0);
    }
}
