//! Large uncommitted files that are on their way to the disk while they grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amoeba_bullet::store::{Commit, Edit, FileId, Outcome, Settings, Store, StoreError};

use super::disk::CrashDisk;
use super::world::{Random, SMALL, format_small, open_with};

const MIB: usize = 1 << 20;
/// Memory enough for chunks under way, little enough that not every file fits.
const SETTINGS: Settings =
    Settings { cache_size: 16 << 20, uncommitted_life: std::time::Duration::from_secs(3600), ..SMALL };

/// Does something with a store that has its carrier, or none.
fn with_carrier<T>(store: &Arc<Store>, carrier: bool, work: impl FnOnce() -> T) -> T {
    let thread = carrier.then(|| {
        let store = store.clone();
        std::thread::spawn(move || store.run_carrier())
    });
    let result = work();
    store.stop_carrier();
    if let Some(thread) = thread {
        thread.join().unwrap();
    }
    result
}

/// Bytes of which no two chunks are equal, made as quickly as a test without optimisation can.
fn bytes(random: &mut Random, size: usize) -> Vec<u8> {
    let mut bytes = random.bytes(4099).repeat(size / 4099 + 1);
    bytes.truncate(size);
    bytes
}

fn start(store: &Store, bytes: &[u8]) -> Result<FileId, StoreError> {
    match store.create(bytes.to_vec(), Commit::Later, None, 0)? {
        Outcome::New(file) => Ok(file),
        other => panic!("{other:?}"),
    }
}

fn add(
    store: &Store,
    file: FileId,
    offset: usize,
    bytes: &[u8],
    commit: Commit,
) -> Result<Outcome, StoreError> {
    store.edit(file, Edit::Modify { offset: offset as u64, data: bytes.to_vec() }, commit, 0)
}

/// Makes a durable file in pieces of `piece` bytes.
fn stream(store: &Store, bytes: &[u8], piece: usize) -> Result<FileId, StoreError> {
    let file = start(store, &bytes[..piece])?;
    for offset in (piece..bytes.len()).step_by(piece) {
        let end = bytes.len().min(offset + piece);
        let commit = if end == bytes.len() { Commit::Disk } else { Commit::Later };
        let added = add(store, file, offset, &bytes[offset..end], commit);
        if let Err(error) = added {
            let _ = store.destroy(file); // a disk that has died lets nothing be destroyed
            return Err(error);
        }
    }
    Ok(file)
}

#[test]
fn a_crash_at_any_write_leaves_an_acknowledged_file_whole_and_no_other() {
    let mut random = Random(11);
    for round in 0..24 {
        let disk = CrashDisk::new(24 << 20);
        format_small(&*disk, 64);
        let small = bytes(&mut random, 5000);
        let large = {
            let size = 4 * MIB + random.below(MIB);
            bytes(&mut random, size)
        };
        let store = Arc::new(open_with(disk.clone(), round, SETTINGS).unwrap());
        let Ok(Outcome::New(before)) = store.create(small.clone(), Commit::Disk, None, 0) else { panic!() };
        disk.die_after(random.below(30));
        let piece = if round % 3 == 0 { 700_000 } else { MIB };
        let made = with_carrier(&store, round % 2 == 0, || stream(&store, &large, piece));
        drop(store);
        let store = open_with(CrashDisk::with_image(disk.crash(&mut random)), round, SETTINGS).unwrap();
        assert!(store.read(before, 0, usize::MAX) == Ok(small));
        if let Ok(file) = made {
            assert!(store.read(file, 0, usize::MAX) == Ok(large), "an acknowledged file is lost");
        }
        let check = store.check(false).unwrap();
        assert!(check.problems.iter().all(|problem| problem.contains("torn")), "{check:?}");
        assert!(check.file_count <= 2);
    }
}

#[test]
fn a_file_is_what_its_edits_say_while_parts_of_it_are_under_way() {
    for seed in 0..9 {
        let mut random = Random(seed);
        let disk = CrashDisk::new(96 << 20);
        format_small(&*disk, 64);
        let store = Arc::new(open_with(disk, seed, SETTINGS).unwrap());
        with_carrier(&store, seed % 3 > 0, || edit_at_random(&store, &mut random));
        let (free, all) = store.space();
        assert_eq!(free, all, "what was discarded is free");
    }
}

fn edit_at_random(store: &Store, random: &mut Random) {
    let mut expected = bytes(random, MIB);
    let file = start(store, &expected).unwrap();
    for _ in 0..25 {
        let offset = random.below(expected.len() + 1);
        let piece = random.below(2 * MIB + 1) + 1;
        let data = bytes(random, piece);
        let edit = match random.below(8) {
            0 => {
                expected.splice(offset..offset, data.iter().copied());
                Edit::Insert { offset: offset as u64, data }
            }
            1 => {
                expected.drain(offset..expected.len().min(offset + piece));
                Edit::Delete { offset: offset as u64, size: piece as u64 }
            }
            2 => {
                let end = expected.len().max(offset + piece);
                expected.resize(end, 0);
                expected[offset..offset + piece].copy_from_slice(&data);
                Edit::Modify { offset: offset as u64, data }
            }
            3..6 => {
                let data = bytes(random, MIB);
                let offset = expected.len() as u64;
                expected.extend_from_slice(&data);
                Edit::Modify { offset, data }
            }
            _ => {
                let offset = expected.len() as u64;
                expected.extend_from_slice(&data);
                Edit::Modify { offset, data }
            }
        };
        assert_eq!(store.edit(file, edit, Commit::Later, 0), Ok(Outcome::Same));
    }
    assert_eq!(add(store, file, 0, &[], Commit::Disk), Ok(Outcome::Same));
    assert!(store.read(file, 0, usize::MAX).unwrap() == expected);
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
    store.destroy(file).unwrap();
}

/// The host's disk fills up behind what was acknowledged already, and has space again later.
#[test]
fn no_space_loses_nothing_that_was_acknowledged() {
    for (carrier, piece) in [(false, MIB), (true, MIB), (false, 700_000), (true, 700_000), (true, 1_700_000)]
    {
        let disk = CrashDisk::new(24 << 20);
        format_small(&*disk, 64);
        let store = Arc::new(open_with(disk.clone(), 1, SETTINGS).unwrap());
        with_carrier(&store, carrier, || {
            let data = bytes(&mut Random(3), 12 * piece);
            disk.full_behind(Some(4 << 20));
            let file = start(&store, &data[..piece]).unwrap();
            let mut done = piece;
            let refused = loop {
                match add(&store, file, done, &data[done..done + piece], Commit::Later) {
                    Ok(_) => done += piece,
                    Err(error) => break error,
                }
            };
            assert_eq!(refused, StoreError::NoSpace);
            assert!(done >= 3 * MIB && done < data.len());
            for _ in 0..2 {
                let again = add(&store, file, done, &data[done..done + piece], Commit::Disk);
                assert_eq!(again, Err(StoreError::NoSpace));
            }
            disk.full_behind(None);
            assert_eq!(add(&store, file, done, &data[done..], Commit::Disk), Ok(Outcome::Same));
            assert!(store.read(file, 0, usize::MAX).unwrap() == data);
        });
    }
}

/// Files that are given up while their chunks are carried, beside files that take their places.
#[test]
fn a_chunk_of_a_file_that_is_gone_is_written_nowhere() {
    let disk = CrashDisk::new(64 << 20);
    format_small(&*disk, 256);
    let store = Arc::new(open_with(disk, 1, SETTINGS).unwrap());
    let over = AtomicBool::new(false);
    with_carrier(&store, true, || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let data = bytes(&mut Random(5), 4 * MIB);
                for _ in 0..60 {
                    let file = start(&store, &data[..MIB]).unwrap();
                    for chunk in 1..4 {
                        let more = &data[chunk * MIB..][..MIB];
                        add(&store, file, chunk * MIB, more, Commit::Later).unwrap();
                    }
                    store.destroy(file).unwrap();
                }
                over.store(true, Ordering::Relaxed);
            });
            let mut random = Random(6);
            let mut made = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let data = bytes(&mut random, 100_000);
                let Ok(Outcome::New(file)) = store.create(data, Commit::Disk, None, 0) else { panic!() };
                made.push(file);
                if made.len() > 100 {
                    made.drain(..).for_each(|file| store.destroy(file).unwrap());
                }
            }
        });
    });
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
}

#[test]
fn what_is_under_way_counts_as_memory_and_a_file_that_must_not_wait_stays_there() {
    let disk = CrashDisk::new(64 << 20);
    format_small(&*disk, 64);
    let store = open_with(disk.clone(), 1, SETTINGS).unwrap();
    let data = bytes(&mut Random(8), 3 * MIB);
    let writes = disk.writes();
    let in_memory = start(&store, &data[..MIB]).unwrap();
    add(&store, in_memory, MIB, &data[MIB..], Commit::No).unwrap();
    assert_eq!(disk.writes(), writes);
    let before = (disk.writes(), store.usage().uncommitted);
    let on_disk = start(&store, &data[..MIB]).unwrap();
    add(&store, on_disk, MIB, &data[MIB..], Commit::Later).unwrap();
    assert!(disk.writes() > before.0, "the disk has begun");
    let counted = store.usage().uncommitted - before.1;
    assert!((3 * MIB as u64..4 * MIB as u64).contains(&counted), "{counted}");
    for file in [in_memory, on_disk] {
        assert_eq!(add(&store, file, 3 * MIB, &[], Commit::Disk), Ok(Outcome::Same));
        assert!(store.read(file, 0, usize::MAX).unwrap() == data);
    }
    assert_eq!(store.usage().uncommitted, 0);
}
