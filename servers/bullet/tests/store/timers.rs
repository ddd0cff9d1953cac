//! Time, moved by the test: the life of uncommitted files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amoeba_bullet::store::{Commit, Edit, FileId, Outcome, Settings, Store, StoreError};
use amoeba_threads::{Instant, Scheduler, SpawnError, Threads, Unpark};

use crate::disk::CrashDisk;
use crate::world::{SMALL, SeededEntropy, format_small};

/// One thread, whose clock stands still but for the test.
struct Still(Arc<AtomicU64>);

struct Nobody;

impl Unpark for Nobody {
    fn unpark(&self) {}
}

impl Scheduler for Still {
    fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
        Err(SpawnError)
    }

    fn current(&self) -> Arc<dyn Unpark> {
        Arc::new(Nobody)
    }

    fn park(&self, _: Option<Instant>) {}

    fn now(&self) -> Instant {
        Instant::from_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed)))
    }
}

fn new(store: &Store, commit: Commit) -> FileId {
    match store.create(b"text".to_vec(), commit, None, 0) {
        Ok(Outcome::New(file)) => file,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_uncommitted_file_lives_ten_minutes_from_its_last_edit_and_no_touch_lengthens_that() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 64);
    let clock = Arc::new(AtomicU64::new(1000));
    let threads = Threads::new(Arc::new(Still(clock.clone())));
    let life = Settings::default().uncommitted_life;
    assert_eq!(life, Duration::from_secs(600));
    let settings = Settings { uncommitted_life: life, ..SMALL };
    let store = Store::open(disk, &threads, SeededEntropy::new(1), settings).unwrap();
    let (touched, edited, committed) =
        (new(&store, Commit::No), new(&store, Commit::No), new(&store, Commit::Memory));
    let nothing = || Edit::Modify { offset: 0, data: Vec::new() };
    let pass = |seconds: u64| {
        clock.fetch_add(seconds, Ordering::Relaxed);
        store.sweep().unwrap();
    };
    pass(400);
    store.touch(touched.object);
    assert_eq!(store.edit(edited, nothing(), Commit::No, 0), Ok(Outcome::Same));
    pass(250);
    assert_eq!(store.edit(touched, nothing(), Commit::No, 0), Err(StoreError::NoSuchFile), "650 s old");
    assert_eq!(store.edit(edited, nothing(), Commit::No, 0), Ok(Outcome::Same), "edited 250 s ago");
    pass(599);
    assert_eq!(store.edit(edited, nothing(), Commit::Disk, 0), Ok(Outcome::Same));
    pass(10_000);
    assert_eq!(store.read(edited, 0, 10).unwrap(), b"text", "a committed file has no such end");
    assert_eq!(store.read(committed, 0, 10).unwrap(), b"text");
}
