//! Commits of many threads share flushes, and stay correct while they do.

use std::sync::{Arc, Condvar, Mutex};

use amoeba_bullet::store::{Commit, FileId, Outcome, StoreError};
use amoeba_world::{Disk, DiskError};

use super::disk::CrashDisk;
use super::world::{Random, format_small, open, threads};

/// Holds its next flush back until it is told that enough has been written.
struct Gate {
    disk: Arc<CrashDisk>,
    state: Mutex<Option<usize>>,
    change: Condvar,
}

impl Disk for Gate {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.disk.set_size(size)
    }
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read(offset, bytes)
    }
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
