//! Large uncommitted files, of which what is complete is written before the commit.

use std::sync::Arc;
use std::time::Duration;

use amoeba_bullet::store::{Commit, Edit, FileId, Outcome, Settings, Store, StoreError};

use super::disk::CrashDisk;
use super::world::{Random, SMALL, format_small, open_with};

const MIB: usize = 1 << 20;
/// Writes by which a complete chunk reaches the disk.
const CHUNK_WRITES: usize = 4;
const SETTINGS: Settings =
    Settings { cache_size: 32 << 20, uncommitted_life: Duration::from_secs(3600), ..SMALL };

fn volume(size: usize) -> (Arc<CrashDisk>, Store) {
    let disk = CrashDisk::new(size);
    format_small(&*disk, 64);
    let store = open_with(disk.clone(), 1, SETTINGS).unwrap();
    (disk, store)
}

fn begin(store: &Store, data: Vec<u8>) -> FileId {
    match store.create(data, Commit::No, None, 0) {
        Ok(Outcome::New(file)) => file,
        other => panic!("{other:?}"),
    }
}

fn append(store: &Store, file: FileId, offset: usize, data: &[u8], commit: Commit) {
    let edit = Edit::Modify { offset: offset as u64, data: data.to_vec() };
    assert_eq!(store.edit(file, edit, commit, 0), Ok(Outcome::Same));
}

/// Begins a file of whole chunks, in pieces of one.
fn begin_pieces(store: &Store, bytes: &[u8]) -> FileId {
    let file = begin(store, bytes[..MIB].to_vec());
    for offset in (MIB..bytes.len()).step_by(MIB) {
        append(store, file, offset, &bytes[offset..(offset + MIB).min(bytes.len())], Commit::No);
    }
    file
}

fn reopen(image: Vec<u8>) -> Store {
    open_with(CrashDisk::with_image(image), 2, SETTINGS).unwrap()
}

#[test]
fn what_is_complete_is_written_as_it_comes_and_the_commit_writes_the_rest() {
    let (disk, store) = volume(128 * MIB);
    let bytes = Random(1).bytes(5 * MIB + 1000);
    let before = disk.writes();
    let file = begin_pieces(&store, &bytes[..5 * MIB]);
    assert_eq!(disk.writes() - before, 5 * CHUNK_WRITES);
    let (writes, flushes) = (disk.writes(), disk.flushes());
    append(&store, file, 5 * MIB, &bytes[5 * MIB..], Commit::Disk);
    // The last chunk with the hashes, the record; one flush.
    assert_eq!((disk.writes() - writes, disk.flushes() - flushes), (2, 1));
    assert!(store.read(file, 0, bytes.len()).unwrap() == bytes);
    let after = reopen(disk.crash(&mut Random(2)));
    assert!(after.read(file, 0, bytes.len()).unwrap() == bytes);
    assert_eq!(after.space(), store.space(), "no more blocks are taken than the file has");
    assert_eq!(after.check(false).unwrap().problem_count, 0);
}

#[test]
fn a_crash_before_the_commit_forgets_it_and_no_block_is_lost() {
    let (disk, store) = volume(128 * MIB);
    let empty = store.space();
    let bytes = Random(3).bytes(4 * MIB);
    let file = begin_pieces(&store, &bytes);
    assert_ne!(store.space(), empty);
    let after = reopen(disk.image());
    assert_eq!(after.read(file, 0, 1), Err(StoreError::NoSuchFile));
    assert_eq!(after.space(), empty);
    store.destroy(file).unwrap();
    assert_eq!(store.space(), empty, "destroyed");
    let other = begin_pieces(&store, &bytes);
    append(&store, other, bytes.len(), &vec![7; 9 * MIB], Commit::No);
    append(&store, other, 0, &[], Commit::Disk); // too large for the memory by now: kept on disk as a whole
    store.destroy(other).unwrap();
    assert_eq!(store.space(), empty, "spilled, committed and destroyed");
}

#[test]
fn random_edits_of_what_was_written_give_what_the_model_gives() {
    for seed in 0..10 {
        let random = &mut Random(seed);
        let (disk, store) = volume(128 * MIB);
        let empty = store.space();
        let mut model = random.bytes(2 * MIB + random.clone().below(2 * MIB));
        let file = begin(&store, model[..100].to_vec());
        append(&store, file, 100, &model[100..], Commit::No);
        for _ in 0..random.below(7) {
            let offset = random.below(model.len() + 1);
            let data = random.bytes(1 + random.clone().below(MIB + MIB / 2));
            let edit = match random.below(4) {
                0 => {
                    let end = offset.max(model.len().min(offset + data.len()));
                    model.splice(offset..end, data.iter().copied());
                    Edit::Modify { offset: offset as u64, data }
                }
                1 => {
                    model.splice(offset..offset, data.iter().copied());
                    Edit::Insert { offset: offset as u64, data }
                }
                2 => {
                    model.drain(offset..model.len().min(offset + data.len()));
                    Edit::Delete { offset: offset as u64, size: data.len() as u64 }
                }
                _ => {
                    model.extend_from_slice(&data);
                    Edit::Modify { offset: (model.len() - data.len()) as u64, data }
                }
            };
            assert_eq!(store.edit(file, edit, Commit::No, 0), Ok(Outcome::Same), "seed {seed}");
        }
        append(&store, file, model.len(), &[], Commit::Disk);
        assert!(store.read(file, 0, model.len() + 1).unwrap() == model, "seed {seed}");
        let after = reopen(disk.crash(random));
        assert!(after.read(file, 0, model.len() + 1).unwrap() == model, "seed {seed}");
        assert_eq!(after.space(), store.space(), "seed {seed}");
        store.destroy(file).unwrap();
        assert_eq!(store.space(), empty, "seed {seed}");
    }
}

#[test]
fn a_commit_in_memory_is_not_written_a_second_time() {
    let (disk, store) = volume(128 * MIB);
    let bytes = Random(4).bytes(4 * MIB);
    let file = begin_pieces(&store, &bytes);
    append(&store, file, 0, &[], Commit::Memory);
    let lost = reopen(disk.image());
    assert_eq!(lost.read(file, 0, 1), Err(StoreError::NoSuchFile), "it has no record yet");
    let (writes, flushes) = (disk.writes(), disk.flushes());
    store.sync().unwrap();
    assert_eq!((disk.writes() - writes, disk.flushes() - flushes), (1, 1), "the record");
    let after = reopen(disk.crash(&mut Random(5)));
    assert!(after.read(file, 0, bytes.len()).unwrap() == bytes);
}

#[test]
fn where_there_is_little_space_nothing_is_reserved_before_the_commit() {
    let (disk, store) = volume(24 * MIB);
    let bytes = Random(6).bytes(4 * MIB);
    let (before, empty) = (disk.writes(), store.space());
    let file = begin_pieces(&store, &bytes);
    assert_eq!((disk.writes(), store.space()), (before, empty));
    append(&store, file, 0, &[], Commit::Disk);
    assert!(reopen(disk.crash(&mut Random(7))).read(file, 0, bytes.len()).unwrap() == bytes);
}

#[test]
fn a_host_that_is_full_loses_only_what_needs_its_space() {
    let (disk, store) = volume(128 * MIB);
    let empty = store.space();
    let bytes = Random(8).bytes(3 * MIB);
    let file = begin_pieces(&store, &bytes);
    disk.fill_host();
    let more = Edit::Modify { offset: bytes.len() as u64, data: vec![1; MIB] };
    assert_eq!(store.edit(file, more, Commit::No, 0), Ok(Outcome::Same), "it is in memory");
    let nothing = || Edit::Modify { offset: 0, data: Vec::new() };
    assert_eq!(store.edit(file, nothing(), Commit::Disk, 0), Err(StoreError::NoSpace));
    store.destroy(file).unwrap();
    assert_eq!(store.space(), empty);
}
