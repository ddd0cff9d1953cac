//! What a process keeps of the memory that it was lent, until it was unused for some seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_world::{Kept, Memory};

/// What was not wanted for this long, or for up to twice as long, is given back.
const AGE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub(super) struct Keeper {
    kept: Arc<Ageing>,
}

#[derive(Default)]
struct Ageing {
    files: Kept,
    /// Whether there is a thread that gives back what has become old.
    has_thread: AtomicBool,
}

impl Keeper {
    pub(super) fn find(&self, file: &Capability) -> Option<Memory> {
        self.kept.files.find(file)
    }

    /// Keeps it, as long as a thread can be had that does not keep it for ever.
    pub(super) fn keep(&self, file: &Capability, memory: &Memory) {
        self.kept.files.keep(file, memory);
        if self.kept.has_thread.swap(true, Ordering::AcqRel) {
            return;
        }
        let kept = self.kept.clone();
        let thread = std::thread::Builder::new().name("kept".to_owned());
        if thread.spawn(move || kept.age()).is_err() {
            self.kept.has_thread.store(false, Ordering::Release);
            self.kept.files.forget(file);
        }
    }

    pub(super) fn forget(&self, file: &Capability) {
        self.kept.files.forget(file);
    }
}

impl Ageing {
    /// Until nothing is left.
    fn age(&self) {
        loop {
            std::thread::sleep(AGE);
            if self.files.age() {
                continue;
            }
            self.has_thread.store(false, Ordering::Release);
            // What came in between has seen that there is a thread.
            if !self.files.age() || self.has_thread.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use amoeba_cap::{Private, PutPort};
    use amoeba_world::SharedFile;

    use super::*;

    #[test]
    fn what_nobody_wants_is_given_back_each_time() {
        let keeper = Keeper::default();
        let file = Capability { port: PutPort::from_bytes([1; 6]), private: Private::NULL };
        for _ in 0..2 {
            let bytes = Arc::new(vec![7]);
            keeper.keep(&file, &SharedFile::borrowed(bytes.clone()));
            assert_eq!(keeper.find(&file).map(|memory| memory.bytes().to_vec()), Some(vec![7]));
            while Arc::strong_count(&bytes) > 1 {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(keeper.find(&file).is_none());
        }
    }
}
