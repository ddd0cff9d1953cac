//! How many jobs run on this host's processors, counted by those who start them and by nobody else.
//!
//! A slot is a lock of `flock` on a numbered file. It belongs to the open file, which a process keeps when it becomes another
//! program and gives to its children: the slot is free when the last of them has gone, however they ended. The first slots,
//! one a processor, stand for processors; those after them count what runs in excess.

use std::cell::OnceCell;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

/// Slots for each processor; jobs past the last slot are not counted.
pub const SLOTS_PER_PROCESSOR: usize = 4;
/// Processors that are counted.
pub const PROCESSORS_MAX: usize = 256;
/// What Linux reports for a load of one.
const LOAD_UNIT: f64 = 65_536.0;

/// The slots of this host, as files of one directory.
#[derive(Clone, Debug)]
pub struct Slots {
    directory: PathBuf,
    /// Known when it was needed: asking takes longer than taking a slot.
    processors: OnceCell<usize>,
}

/// A slot that was taken. Whoever lets go of it gives it back, unless this process has become another program.
#[derive(Debug)]
pub struct Slot {
    _file: File,
}

impl Slots {
    /// Slots in `directory`, which is made, with mode 0700, when one is taken; one for each processor that this process may use.
    pub fn new(directory: &Path) -> Slots {
        Slots { directory: directory.to_owned(), processors: OnceCell::new() }
    }

    /// The processors.
    pub fn processors(&self) -> usize {
        *self.processors.get_or_init(|| available_parallelism().map_or(1, usize::from).min(PROCESSORS_MAX))
    }

    /// Takes a processor's slot; `None` when all are taken.
    ///
    /// # Errors
    /// The directory cannot be made or written to.
    pub fn take_processor(&self) -> io::Result<Option<Slot>> {
        match self.take(0)? {
            Some(slot) => Ok(Some(slot)),
            None => self.take_one(1, self.processors()),
        }
    }

    /// Takes a slot past those of the processors; `None` when these are taken, too.
    ///
    /// # Errors
    /// As [`Slots::take_processor`].
    pub fn take_excess(&self) -> io::Result<Option<Slot>> {
        self.take_one(self.processors(), self.processors() * SLOTS_PER_PROCESSOR)
    }

    /// How many jobs run, as far as slots tell, when no processor's slot is free. Looking takes no processor's slot from anybody.
    ///
    /// # Errors
    /// As [`Slots::take_processor`].
    pub fn taken(&self) -> io::Result<usize> {
        let mut taken = self.processors();
        for number in self.processors()..self.processors() * SLOTS_PER_PROCESSOR {
            taken += usize::from(self.take(number)?.is_none());
        }
        Ok(taken)
    }

    fn take_one(&self, first: usize, end: usize) -> io::Result<Option<Slot>> {
        for number in first..end {
            if let Some(slot) = self.take(number)? {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    fn take(&self, number: usize) -> io::Result<Option<Slot>> {
        let path = self.directory.join(number.to_string());
        // Not closed by execve: that is what a slot is for.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        let opened = match open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT) => {
                match DirBuilder::new().mode(0o700).create(&self.directory) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                open(&path, flags, Mode::RUSR | Mode::WUSR)
            }
            opened => opened,
        };
        let file = File::from(opened?);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Slot { _file: file })),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether more than `limit` processes of this host want a processor: on the average of the last minute, and also now, for
/// after a build the average stays high when the processors have long been free.
pub fn is_loaded(limit: f64) -> bool {
    let average = rustix::system::sysinfo().loads[0] as f64 / LOAD_UNIT;
    average > limit && runnable_now().is_none_or(|runnable| f64::from(runnable) > limit)
}

fn runnable_now() -> Option<u32> {
    runnable(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

/// The fourth word says how many can run of how many there are.
fn runnable(load: &str) -> Option<u32> {
    load.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn slots(name: &str) -> Slots {
        let directory = std::env::temp_dir().join(format!("amoeba-slots-{name}-{}", std::process::id()));
        Slots { directory, processors: OnceCell::from(2) }
    }

    #[test]
    fn what_can_run_is_counted() {
        assert_eq!(runnable("10.46 3.98 3.12 11/453 30975\n"), Some(11));
        assert_eq!([runnable(""), runnable("1 2 3 4 5"), runnable("1 2 3 -1/5 6")], [None; 3]);
        assert!(runnable_now().is_some_and(|runnable| runnable > 0), "this one runs");
    }

    #[test]
    fn slots_are_taken_once_and_given_back() {
        let slots = slots("once");
        let mut taken: Vec<Slot> = (0..2).map(|_| slots.take_processor().unwrap().unwrap()).collect();
        assert!(slots.take_processor().unwrap().is_none());
        assert_eq!(slots.taken().unwrap(), 2);
        taken.extend((0..6).map(|_| slots.take_excess().unwrap().unwrap()));
        assert!(slots.take_excess().unwrap().is_none());
        assert_eq!(slots.taken().unwrap(), 8);
        taken.swap_remove(0);
        assert!(slots.take_processor().unwrap().is_some());
        drop(taken);
        assert_eq!(slots.taken().unwrap(), 2, "only the excess is counted");
        std::fs::remove_dir_all(&slots.directory).unwrap();
    }

    #[test]
    fn a_slot_lives_as_long_as_the_last_child_that_has_it() {
        let slots = slots("child");
        let mut taken: Vec<Slot> = (0..2).map(|_| slots.take_processor().unwrap().unwrap()).collect();
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        taken.clear();
        assert!(slots.take_processor().unwrap().is_none(), "the child has both");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(slots.take_processor().unwrap().is_some());
        std::fs::remove_dir_all(&slots.directory).unwrap();
    }
}
