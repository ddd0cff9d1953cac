//! Compaction: free blocks come together, every file stays what it was, at any crash too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use amoeba_bullet::store::{Commit, FileId, Outcome, Store, StoreError};

use super::disk::{CrashDisk, Interrupted};
use super::world::{Random, format_small, open, threads};

type Files = Vec<(FileId, Vec<u8>)>;

fn create(store: &Store, bytes: Vec<u8>) -> (FileId, Vec<u8>) {
    match store.create(bytes.clone(), Commit::Disk, None, 0) {
        Ok(Outcome::New(file)) => (file, bytes),
        other => panic!("{other:?}"),
    }
}

/// A volume that is nearly full, then every other file destroyed.
fn riddled(disk: &Arc<CrashDisk>, random: &mut Random, size_max: usize) -> (Store, Files) {
    format_small(&**disk, 512);
    let store = open(disk.clone(), 1).unwrap();
    let mut files = Vec::new();
    while store.space().0 as usize > 3 * size_max && files.len() < 400 {
        let size = 1 + random.below(size_max);
        files.push(create(&store, random.bytes(size)));
    }
    let (kept, dropped): (Vec<_>, Vec<_>) =
        files.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    dropped.iter().for_each(|(_, (file, _))| store.destroy(*file).unwrap());
    (store, kept.into_iter().map(|(_, file)| file).collect())
}

fn all_there(store: &Store, files: &Files) {
    for (file, bytes) in files {
        assert!(store.read(*file, 0, usize::MAX) == Ok(bytes.clone()), "{file:?} is not what it was");
    }
}

#[test]
fn holes_come_together_and_files_stay_what_they_were() {
    for (size_max, seed) in [(4096, 1), (20_000, 2), (100_000, 3), (2_500_000, 4)] {
        let disk = CrashDisk::new(24 << 20);
        let mut random = Random(seed);
        let (store, files) = riddled(&disk, &mut random, size_max);
        let before = store.usage();
        assert!(before.hole_count > 3);
        let done = store.compact().unwrap();
        let after = store.usage();
        assert!(done.moved_files > 0 && done.moved_size > 0);
        assert_eq!(before.blocks_free, after.blocks_free);
        assert_eq!((done.hole_count, done.hole_size_max), (after.hole_count, after.hole_blocks_max * 4096));
        assert_eq!(after.hole_count, 1, "files of up to {size_max} bytes");
        assert_eq!(after.compaction, None);
        all_there(&store, &files);
        assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
        // Nothing is left to be moved, and what was moved is there after a crash without a clean stop.
        assert_eq!(store.compact().unwrap().moved_files, 0);
        all_there(&open(CrashDisk::with_image(disk.crash(&mut random)), 2).unwrap(), &files);
    }
}

/// The disk dies at every write and every flush of a compaction, in turn.
#[test]
fn a_crash_at_any_write_leaves_every_file_whole() {
    let mut random = Random(7);
    let disk = CrashDisk::new(3 << 20);
    let (store, files) = riddled(&disk, &mut random, 40_000);
    store.close().unwrap();
    let image = disk.image();
    for writes in 0.. {
        let disk = CrashDisk::with_image(image.clone());
        let store = open(disk.clone(), 2).unwrap();
        disk.die_after(writes);
        let result = store.compact();
        for _ in 0..3 {
            let store = open(CrashDisk::with_image(disk.crash(&mut random)), 3).unwrap();
            all_there(&store, &files);
            assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new(), "after write {writes}");
        }
        if result.is_ok() {
            assert!(writes > 50, "{writes}");
            return;
        }
    }
}

/// A record torn in the middle of its change is written again at the start, and never a second time.
#[test]
fn a_number_that_is_used_again_is_not_mistaken_for_a_file_that_moved() {
    let mut random = Random(9);
    let disk = CrashDisk::new(3 << 20);
    let (store, mut files) = riddled(&disk, &mut random, 40_000);
    store.compact().unwrap();
    let (gone, _) = files.pop().unwrap();
    store.destroy(gone).unwrap();
    // Every number comes round, the destroyed one too; its record is torn.
    let mut made = Vec::new();
    while let Ok(Outcome::New(file)) = store.create(Vec::new(), Commit::Disk, None, 0) {
        made.push(file);
    }
    assert!(made.iter().any(|file| file.object == gone.object));
    let mut image = disk.image();
    image[2 * 4096 + 64 * gone.object.get() as usize + 30] ^= 1;
    let store = open(CrashDisk::with_image(image), 2).unwrap();
    assert!(store.file(gone.object).is_none());
    all_there(&store, &files);
}

#[test]
fn a_second_compaction_is_refused_while_one_runs() {
    let disk = CrashDisk::new(3 << 20);
    let (store, files) = riddled(&disk, &mut Random(3), 40_000);
    store.close().unwrap();
    let interrupted = Interrupted::new(disk);
    let store = Arc::new(open(interrupted.clone(), 2).unwrap());
    let seen = Arc::new(Mutex::new(None));
    let (inner, told) = (store.clone(), seen.clone());
    interrupted.before_write(move || {
        *told.lock().unwrap() = Some((inner.compact(), inner.usage().compaction.is_some()));
    });
    store.compact().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some((Err(StoreError::NotNow), true)));
    all_there(&store, &files);
    assert_eq!(store.compact().unwrap().moved_files, 0);
}

#[test]
fn files_are_read_made_and_destroyed_while_others_move() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let disk = CrashDisk::new(12 << 20);
        let (store, files) = riddled(&disk, &mut random, if seed % 2 == 0 { 30_000 } else { 1_500_000 });
        let store = Arc::new(store);
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..3u64)
            .map(|client| {
                let (store, over) = (store.clone(), over.clone());
                let mine: Files = files.iter().skip(client as usize).step_by(3).cloned().collect();
                let body = move || {
                    let mut random = Random(100 * seed + client);
                    let mut mine = mine;
                    let mut gone = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        match random.below(4) {
                            0 if mine.len() > 5 => {
                                let (file, _) = mine.swap_remove(random.below(mine.len()));
                                store.destroy(file).unwrap();
                                gone.push(file);
                            }
                            1 => {
                                let size = 1 + random.below(50_000);
                                let bytes = random.bytes(size);
                                if let Ok(Outcome::New(file)) =
                                    store.create(bytes.clone(), Commit::Disk, None, 0)
                                {
                                    mine.push((file, bytes));
                                }
                            }
                            _ => {
                                let (file, bytes) = &mine[random.below(mine.len())];
                                let start = random.below(bytes.len());
                                let got = store.read(*file, start as u64, 9000).unwrap();
                                assert!(got == bytes[start..bytes.len().min(start + 9000)]);
                            }
                        }
                    }
                    (mine, gone)
                };
                threads().spawn("client", body).unwrap()
            })
            .collect();
        for _ in 0..3 {
            store.compact().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        let ends: Vec<_> =
            clients.into_iter().map(|client| client.join().expect("no client panicked")).collect();
        let restarted = open(CrashDisk::with_image(disk.crash(&mut random)), 2).unwrap();
        for store in [&*store, &restarted] {
            assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
            for (mine, gone) in &ends {
                all_there(store, mine);
                gone.iter().for_each(|file| assert_eq!(store.size(*file), Err(StoreError::NoSuchFile)));
            }
        }
    }
}
