//! Crashes at every write, with what was not flushed applied in part and in any order.

use std::sync::Arc;
use std::time::Duration;

use amoeba_bullet::store::{Commit, Edit, FileId, Outcome, Store, StoreError};

use super::disk::CrashDisk;
use super::world::{Random, format_small, open, threads};

/// What a client may rely on.
#[derive(Default)]
struct Promises {
    durable: Vec<(FileId, Vec<u8>)>,
    /// Committed without safety: whole after a crash, or not there.
    memory: Vec<(FileId, Vec<u8>)>,
    destroyed: Vec<FileId>,
    /// Contents of operations that were not acknowledged; they may be there, but whole.
    attempted: Vec<Vec<u8>>,
    /// Destroys that were not acknowledged: there or not.
    doubtful: Vec<(FileId, Vec<u8>)>,
}

impl Promises {
    fn keep(&mut self, file: FileId, bytes: Vec<u8>, commit: Commit) {
        match commit {
            Commit::Disk => self.durable.push((file, bytes)),
            _ => self.memory.push((file, bytes)),
        }
    }

    fn join(&mut self, mut other: Promises) {
        self.durable.append(&mut other.durable);
        self.memory.append(&mut other.memory);
        self.destroyed.append(&mut other.destroyed);
        self.attempted.append(&mut other.attempted);
        self.doubtful.append(&mut other.doubtful);
    }

    /// One random operation; false when the disk has died.
    fn step(&mut self, store: &Store, random: &mut Random) -> bool {
        let size = if random.below(10) == 0 { 1_100_000 + random.below(1000) } else { random.below(9000) };
        let commit = if random.below(3) == 0 { Commit::Memory } else { Commit::Disk };
        match random.below(10) {
            0..4 => {
                let bytes = random.bytes(size);
                self.attempted.push(bytes.clone());
                match store.create(bytes.clone(), commit, None, 0) {
                    Ok(Outcome::New(file)) => self.keep(file, bytes, commit),
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => return survives(error),
                }
            }
            4 => {
                let start = random.bytes(size / 2);
                let whole = [&start[..], &start[..]].concat();
                self.attempted.push(whole.clone());
                let Ok(Outcome::New(file)) = store.create(start.clone(), Commit::No, None, 0) else {
                    return false;
                };
                let edit = Edit::Modify { offset: start.len() as u64, data: start };
                match store.edit(file, edit, commit, 0) {
                    Ok(_) => self.keep(file, whole, commit),
                    Err(error) => return survives(error),
                }
            }
            5 | 6 => {
                let list = if random.below(2) == 0 { &mut self.durable } else { &mut self.memory };
                if list.is_empty() {
                    return true;
                }
                let (file, bytes) = list.swap_remove(random.below(list.len()));
                match store.destroy(file) {
                    Ok(()) => self.destroyed.push(file),
                    Err(error) => {
                        self.doubtful.push((file, bytes));
                        return survives(error);
                    }
                }
            }
            7 => {
                let all: Vec<Vec<u8>> = (0..random.below(6)).map(|_| random.bytes(size / 4)).collect();
                self.attempted.extend(all.iter().cloned());
                match store.create_many(all.clone(), commit == Commit::Disk, 0) {
                    Ok(files) => {
                        files.into_iter().zip(all).for_each(|(file, bytes)| self.keep(file, bytes, commit));
                    }
                    Err(error) => return survives(error),
                }
            }
            8 => match store.compact() {
                Ok(_) | Err(StoreError::NotNow) => {}
                Err(error) => return survives(error),
            },
            _ => {
                if let Err(error) = if random.below(2) == 0 { store.sweep() } else { store.sync() } {
                    return survives(error);
                }
                self.durable.append(&mut self.memory);
            }
        }
        true
    }

    /// Looks at the store after a restart; afterwards only what is durable is promised.
    fn verify(&mut self, store: &Store, random: &mut Random) {
        for (file, bytes) in &self.durable {
            assert!(
                store.read(*file, 0, usize::MAX) == Ok(bytes.clone()),
                "an acknowledged file is lost: {file:?}"
            );
        }
        for file in &self.destroyed {
            assert_eq!(
                store.size(*file),
                Err(StoreError::NoSuchFile),
                "a destroyed file came back: {file:?}"
            );
        }
        for (file, bytes) in self.memory.drain(..).chain(self.doubtful.drain(..)) {
            match store.read(file, 0, usize::MAX) {
                Ok(found) => {
                    assert!(found == bytes, "a file is half there");
                    self.durable.push((file, bytes));
                }
                Err(error) => assert_eq!(error, StoreError::NoSuchFile),
            }
        }
        for number in 1..256 {
            let object = amoeba_cap::ObjectNumber::new(number).unwrap();
            let Some(file) = store.file(object) else { continue };
            let bytes = store.read(file, 0, usize::MAX).expect("every file verifies");
            assert!(self.attempted.contains(&bytes), "nobody ever wrote that");
        }
        let check = store.check(random.below(2) == 0).unwrap();
        assert!(check.problems.iter().all(|problem| problem.contains("torn")), "{check:?}");
    }
}

/// Whether the disk lives on after this error.
fn survives(error: StoreError) -> bool {
    match error {
        StoreError::NoSpace | StoreError::NoMemory => true,
        StoreError::DiskFailed | StoreError::WriteProtected => false,
        other => panic!("{other}"),
    }
}

fn crash_rounds(seed: u64) {
    let mut random = Random(seed);
    let mut image = {
        let disk = CrashDisk::new(12 << 20);
        format_small(&*disk, 128);
        disk.image()
    };
    let mut promises = Promises::default();
    for round in 0..4 {
        let disk = CrashDisk::with_image(image);
        disk.die_after(random.below(60));
        // Recovery itself writes, and may be interrupted too.
        if let Ok(store) = open(disk.clone(), seed * 10 + round) {
            for _ in 0..40 {
                if !promises.step(&store, &mut random) {
                    break;
                }
            }
        }
        image = disk.crash(&mut random);
        let healthy = CrashDisk::with_image(image);
        let store = open(healthy.clone(), seed * 10 + round + 5).unwrap();
        promises.verify(&store, &mut random);
        image = healthy.crash(&mut random);
    }
}

/// Seeds from 0 on; `AMOEBA_SEED` and `AMOEBA_SEEDS` choose as in the simulator.
fn for_each_seed(count: u64, run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match (number("AMOEBA_SEED"), number("AMOEBA_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count_wanted) => 0..count_wanted.unwrap_or(count),
    };
    for seed in seeds {
        println!("seed {seed}: again with AMOEBA_SEED={seed}");
        run(seed);
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    for_each_seed(60, crash_rounds);
}

/// As above, with several clients at once: whose writes one flush covers is then a matter of luck, and what one
/// client's destroy frees is what another's create takes.
#[test]
fn nothing_acknowledged_to_many_at_once_is_lost() {
    for_each_seed(20, |seed| {
        let mut random = Random(seed);
        let disk = CrashDisk::new(3 << 20); // little room, so that blocks are taken again soon
        format_small(&*disk, 128);
        let store = Arc::new(open(disk.clone(), seed).unwrap());
        disk.die_after(50 + random.below(300));
        disk.slow_flushes(Duration::from_micros(100));
        let threads = threads();
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let store = store.clone();
                let mut random = Random(seed * 4 + client);
                let body = move || {
                    let mut promises = Promises::default();
                    while promises.step(&store, &mut random) {}
                    promises
                };
                threads.spawn("client", body).unwrap()
            })
            .collect();
        let mut all = Promises::default();
        for client in clients {
            all.join(client.join().expect("no client panicked"));
        }
        drop(store);
        let store = open(CrashDisk::with_image(disk.crash(&mut random)), seed + 1).unwrap();
        all.verify(&store, &mut random);
    });
}
