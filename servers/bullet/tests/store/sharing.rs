//! Commits of many threads share flushes, and stay correct while they do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use amoeba_bullet::store::{Commit, FileId, Outcome, StoreError};
use amoeba_world::{Disk, DiskError};

use super::disk::{CrashDisk, left_to_disk};
use super::world::{Random, format_small, open, threads};

/// Holds its next flush back until it is told that enough has been written.
struct Gate {
    disk: Arc<CrashDisk>,
    state: Mutex<Option<usize>>,
    change: Condvar,
}

impl Disk for Gate {
    left_to_disk!(size read);

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let result = self.disk.write(offset, bytes);
        self.change.notify_all();
        result
    }
    fn flush(&self) -> Result<(), DiskError> {
        let mut state = self.state.lock().unwrap();
        while state.is_some_and(|writes| self.disk.writes() < writes) {
            state = self.change.wait_timeout(state, std::time::Duration::from_millis(1)).unwrap().0;
        }
        // Who has written joins those who wait a moment later, on a busy machine a long one.
        if state.take().is_some() {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        drop(state);
        self.disk.flush()
    }
}

#[test]
fn eight_commits_that_wait_together_cost_two_flushes() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 64);
    let gate = Arc::new(Gate { disk: disk.clone(), state: Mutex::new(None), change: Condvar::new() });
    let store = Arc::new(open(gate.clone(), 1).unwrap());
    let before = disk.flushes();
    // The first flush starts after one commit's two writes and ends when all eight have written.
    *gate.state.lock().unwrap() = Some(disk.writes() + 16);
    let threads = threads();
    let clients: Vec<_> = (0..8u8)
        .map(|client| {
            let store = store.clone();
            threads.spawn("client", move || store.create(vec![client; 100], Commit::Disk, None, 0)).unwrap()
        })
        .collect();
    let files: Vec<FileId> = clients
        .into_iter()
        .map(|client| match client.join() {
            Some(Ok(Outcome::New(file))) => file,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(disk.flushes() - before, 2);
    let store = open(CrashDisk::with_image(disk.crash(&mut Random(1))), 2).unwrap();
    for (client, file) in files.iter().enumerate() {
        assert_eq!(store.read(*file, 0, 100), Ok(vec![client as u8; 100]));
    }
}

/// Its first flush returns only when two more writes were made, and its second one waits until it is let go.
struct Steps {
    disk: Arc<CrashDisk>,
    /// Flushes that have begun since it was armed.
    flushes: AtomicUsize,
    armed: AtomicBool,
    let_go: AtomicBool,
}

/// Waits for what another thread is about to do.
fn wait_until(condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < end, "nobody comes");
        std::thread::yield_now();
    }
}

impl Disk for Steps {
    left_to_disk!(size read write);

    fn flush(&self) -> Result<(), DiskError> {
        if !self.armed.load(Ordering::SeqCst) {
            return self.disk.flush();
        }
        let writes = self.disk.writes();
        match self.flushes.fetch_add(1, Ordering::SeqCst) {
            0 => {
                self.disk.flush()?;
                wait_until(|| self.disk.writes() >= writes + 2);
                return Ok(());
            }
            1 => wait_until(|| self.let_go.load(Ordering::SeqCst)),
            _ => {}
        }
        self.disk.flush()
    }
}

/// A record that waits for its flush may be on the disk before its data is. A checkpoint that passed it would vouch for it.
#[test]
fn a_checkpoint_does_not_pass_a_record_that_waits_for_its_flush() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 64);
    let steps = Arc::new(Steps {
        disk: disk.clone(),
        flushes: AtomicUsize::new(0),
        armed: AtomicBool::new(false),
        let_go: AtomicBool::new(false),
    });
    let store = Arc::new(open(steps.clone(), 1).unwrap());
    let Ok(Outcome::New(flushed)) = store.create(vec![1; 100], Commit::Disk, None, 0) else { panic!() };
    let data_start = disk.size() as usize - store.space().1 as usize;
    let before = disk.writes();
    steps.armed.store(true, Ordering::SeqCst);
    let sweeping = store.clone();
    let sweeper = threads().spawn("sweeper", move || sweeping.sweep().unwrap()).unwrap();
    wait_until(|| steps.flushes.load(Ordering::SeqCst) == 1);
    // Its data and its record are written behind the sweeper's flush; then the sweeper writes the superblock.
    let creating = store.clone();
    let creator =
        threads().spawn("creator", move || creating.create(vec![2; 100], Commit::Disk, None, 0)).unwrap();
    wait_until(|| disk.writes() >= before + 3);
    let image = disk.crash_before(data_start);
    steps.let_go.store(true, Ordering::SeqCst);
    creator.join().unwrap().unwrap();
    sweeper.join().unwrap();
    let store = open(CrashDisk::with_image(image), 2).unwrap();
    let (files, _) = store.list(0, 10);
    assert_eq!(files.iter().map(|listed| listed.file).collect::<Vec<_>>(), [flushed]);
    assert_eq!(store.check(false).unwrap().problem_count, 0);
}

#[test]
fn threads_that_create_read_and_destroy_at_once_never_see_each_others_bytes() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 64);
    let store = Arc::new(open(disk.clone(), 1).unwrap());
    let shared = Arc::new(Mutex::new(Vec::<(FileId, u8, usize)>::new()));
    let threads = threads();
    let clients: Vec<_> = (0..6u64)
        .map(|client| {
            let (store, shared) = (store.clone(), shared.clone());
            let body = move || {
                let mut random = Random(client);
                for _ in 0..60 {
                    let pick = {
                        let mut shared = shared.lock().unwrap();
                        let count = shared.len();
                        match random.below(3) {
                            0 if count > 8 => Some((true, shared.swap_remove(random.below(count)))),
                            1 if count > 0 => Some((false, shared[random.below(count)])),
                            _ => None,
                        }
                    };
                    match pick {
                        Some((true, (file, ..))) => store.destroy(file).unwrap(),
                        Some((false, (file, fill, size))) => match store.read(file, 0, usize::MAX) {
                            Ok(bytes) => assert!(bytes == vec![fill; size]),
                            Err(error) => assert_eq!(error, StoreError::NoSuchFile),
                        },
                        None => {
                            let (fill, size) = (random.next() as u8, random.below(200_000));
                            let commit = if random.below(2) == 0 { Commit::Memory } else { Commit::Disk };
                            match store.create(vec![fill; size], commit, None, 0) {
                                Ok(Outcome::New(file)) => shared.lock().unwrap().push((file, fill, size)),
                                other => assert_eq!(other, Err(StoreError::NoSpace)),
                            }
                        }
                    }
                    if random.below(10) == 0 {
                        store.sweep().unwrap();
                    }
                }
            };
            threads.spawn("client", body).unwrap()
        })
        .collect();
    for client in clients {
        client.join().expect("no client panicked");
    }
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
    store.sync().unwrap();
    let restarted = open(CrashDisk::with_image(disk.crash(&mut Random(9))), 2).unwrap();
    for &(file, fill, size) in shared.lock().unwrap().iter() {
        assert!(restarted.read(file, 0, usize::MAX) == Ok(vec![fill; size]));
    }
}
