//! Memory that was borrowed, and is kept for the next time it is wanted: a few files, and none for long.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use amoeba_cap::Capability;

use crate::Memory;

/// Files that a process keeps at most; past it the one that was unused for longest goes.
pub const KEPT_FILES_MAX: usize = 64;
/// Bytes that a process keeps at most, for they are memory of the files' servers: the same, past it. Three quarters of what a
/// file server lends by default, so that no one reader has all of it.
pub const KEPT_SIZE_MAX: u64 = 48 << 20;

/// See the module. Whoever finds something here asks its server all the same whether he may still have it.
#[derive(Default)]
pub struct Kept {
    /// The least recently used first.
    files: Mutex<VecDeque<File>>,
}

struct File {
    capability: Capability,
    memory: Memory,
    /// Since it was looked at by [`Kept::age`] last.
    is_used: bool,
}

impl Kept {
    /// What is kept under a capability; it is the most recently used now.
    pub fn find(&self, capability: &Capability) -> Option<Memory> {
        let mut files = self.files();
        let index = files.iter().rposition(|file| file.capability == *capability)?;
        let mut file = files.remove(index)?;
        file.is_used = true;
        let memory = file.memory.clone();
        files.push_back(file);
        Some(memory)
    }

    /// Keeps memory that was borrowed with this capability; what is larger than [`KEPT_SIZE_MAX`] is not kept.
    pub fn keep(&self, capability: &Capability, memory: &Memory) {
        if size(memory) > KEPT_SIZE_MAX {
            return;
        }
        let mut gone = Vec::new();
        let mut files = self.files();
        if let Some(index) = files.iter().position(|file| file.capability == *capability) {
            gone.extend(files.remove(index)); // another thread has borrowed it too
        }
        let mut total: u64 = files.iter().map(|file| size(&file.memory)).sum();
        while total + size(memory) > KEPT_SIZE_MAX || files.len() >= KEPT_FILES_MAX {
            let oldest =
                files.pop_front().expect("one that fits alone makes room at the latest as the only one");
            total -= size(&oldest.memory);
            gone.push(oldest);
        }
        files.push_back(File { capability: *capability, memory: memory.clone(), is_used: true });
        drop(files);
        drop(gone); // to unmap megabytes takes time, so not under the lock
    }

    /// Keeps it no longer.
    pub fn forget(&self, capability: &Capability) {
        let mut files = self.files();
        let index = files.iter().position(|file| file.capability == *capability);
        let gone = index.and_then(|index| files.remove(index));
        drop(files);
        drop(gone);
    }

    /// Gives back what nobody has wanted since this was called last; whether anything is left.
    pub fn age(&self) -> bool {
        let mut files = self.files();
        let (used, gone): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut *files).into_iter().partition(|file| file.is_used);
        *files = used;
        files.iter_mut().for_each(|file| file.is_used = false);
        let is_left = !files.is_empty();
        drop(files);
        drop(gone);
        is_left
    }

    fn files(&self) -> MutexGuard<'_, VecDeque<File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(memory: &Memory) -> u64 {
    memory.bytes().len() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use amoeba_cap::{CheckField, ObjectNumber, Private, PutPort, Rights};

    use super::*;
    use crate::SharedFile;

    fn capability(number: u32) -> Capability {
        let object = ObjectNumber::new(number).unwrap();
        Capability {
            port: PutPort::from_bytes([1; 6]),
            private: Private { object, rights: Rights::ALL, check: CheckField::from_bytes([2; 6]) },
        }
    }

    fn borrowed(size: usize) -> (Memory, Arc<Vec<u8>>) {
        let bytes = Arc::new(vec![3; size]);
        (SharedFile::borrowed(bytes.clone()), bytes)
    }

    #[test]
    fn the_least_recently_used_make_way() {
        let kept = Kept::default();
        let half = KEPT_SIZE_MAX as usize / 2;
        let files: Vec<_> = [half, half, half].map(borrowed).into_iter().collect();
        kept.keep(&capability(0), &files[0].0);
        kept.keep(&capability(1), &files[1].0);
        assert!(kept.find(&capability(0)).is_some());
        kept.keep(&capability(2), &files[2].0);
        let found = [0, 1, 2].map(|number| kept.find(&capability(number)).is_some());
        assert_eq!(found, [true, false, true]);
        let (huge, _) = borrowed(KEPT_SIZE_MAX as usize + 1);
        kept.keep(&capability(3), &huge);
        assert!(kept.find(&capability(3)).is_none());
        assert!(kept.find(&capability(0)).is_some(), "what is not kept takes nothing away");
        for number in 10..10 + KEPT_FILES_MAX as u32 {
            kept.keep(&capability(number), &borrowed(1).0);
        }
        assert!(kept.find(&capability(0)).is_none());
        assert!(kept.find(&capability(10)).is_some());
    }

    #[test]
    fn what_is_not_wanted_any_more_is_given_back() {
        let kept = Kept::default();
        let (memory, bytes) = borrowed(5);
        kept.keep(&capability(1), &memory);
        kept.keep(&capability(1), &memory);
        drop(memory);
        assert_eq!(Arc::strong_count(&bytes), 2, "kept once");
        assert!(kept.age(), "it was used");
        assert!(kept.find(&capability(1)).is_some() && kept.age(), "and again");
        assert!(!kept.age());
        assert_eq!(Arc::strong_count(&bytes), 1);
        let (memory, bytes) = borrowed(5);
        kept.keep(&capability(1), &memory);
        drop(memory);
        kept.forget(&capability(2));
        kept.forget(&capability(1));
        assert_eq!((kept.find(&capability(1)).is_none(), Arc::strong_count(&bytes)), (true, 1));
    }
}
