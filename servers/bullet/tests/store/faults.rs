//! Full disks and failing disks: a clear error, and nothing acknowledged is lost.

use std::sync::Arc;

use amoeba_bullet::store::{Commit, Edit, FormatOptions, Outcome, StoreError, VolumeError, format};

use super::disk::CrashDisk;
use super::world::{Random, SeededEntropy, format_small, open, threads};

#[test]
fn a_full_volume_says_so_and_keeps_what_it_has() {
    let disk = CrashDisk::new(3 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    let mut files = Vec::new();
    let refused = loop {
        match store.create(vec![files.len() as u8; 300_000], Commit::Disk, None, 0) {
            Ok(Outcome::New(file)) => files.push(file),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StoreError::NoSpace);
    assert_eq!(store.create(vec![0; 2 << 20], Commit::No, None, 0), Err(StoreError::NoSpace));
    // An uncommitted file that does not fit stays what it was, and fits when there is room again.
    let Ok(Outcome::New(draft)) = store.create(vec![7; 300_000], Commit::No, None, 0) else { panic!() };
    let commit = Edit::Modify { offset: 300_000, data: Vec::new() };
    assert_eq!(store.edit(draft, commit.clone(), Commit::Disk, 0), Err(StoreError::NoSpace));
    store.destroy(files.pop().unwrap()).unwrap();
    assert_eq!(store.edit(draft, commit, Commit::Disk, 0), Ok(Outcome::Same));
    let store = open(CrashDisk::with_image(disk.crash(&mut Random(1))), 2).unwrap();
    for (index, file) in files.iter().enumerate() {
        assert!(store.read(*file, 0, 1 << 20) == Ok(vec![index as u8; 300_000]));
    }
    assert!(store.read(draft, 0, 1 << 20) == Ok(vec![7; 300_000]));
}

#[test]
fn inodes_run_out_before_object_numbers_do() {
    let disk = CrashDisk::new(3 << 20);
    format_small(&*disk, 64);
    let store = open(disk, 1).unwrap();
    let made = (0..100).filter(|_| store.create(Vec::new(), Commit::Disk, None, 0).is_ok()).count();
    assert_eq!(made, 63);
    assert_eq!(store.create(Vec::new(), Commit::No, None, 0), Err(StoreError::NoSpace));
}

#[test]
fn the_inode_table_grows_by_steps() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 20_000);
    let store = open(disk.clone(), 1).unwrap();
    let files: Vec<_> = (0..17_000u32)
        .map(|_| match store.create(Vec::new(), Commit::Memory, None, 0) {
            Ok(Outcome::New(file)) => file,
            other => panic!("{other:?}"),
        })
        .collect();
    store.close().unwrap();
    let store = open(CrashDisk::with_image(disk.image()), 2).unwrap();
    assert!(files.iter().all(|file| store.size(*file) == Ok(0)));
}

#[test]
fn a_host_that_is_full_behind_a_sparse_image_is_no_space() {
    let disk = CrashDisk::new(8 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    disk.full_behind(Some(1 << 20));
    let refused = store.create(vec![1; 2 << 20], Commit::Disk, None, 0);
    assert_eq!(refused, Err(StoreError::NoSpace));
    assert!(matches!(store.create(vec![1; 1000], Commit::Disk, None, 0), Ok(Outcome::New(_))));
    disk.full_behind(Some(4096));
    let Ok(Outcome::New(kept)) = store.create(vec![2; 1000], Commit::Memory, None, 0) else { panic!() };
    assert_eq!(store.sync(), Err(StoreError::NoSpace));
    disk.full_behind(None);
    assert_eq!(store.sync(), Ok(()));
    let store = open(CrashDisk::with_image(disk.crash(&mut Random(1))), 2).unwrap();
    assert_eq!(store.read(kept, 0, 1000), Ok(vec![2; 1000]));
}

/// Whatever needs new space of the host is refused, the growth of the inode table too; a destroy needs none, and what
/// it frees can be written again.
#[test]
fn files_can_be_destroyed_while_the_host_is_full() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 20_000);
    let store = open(disk.clone(), 1).unwrap();
    let large = match store.create(vec![1; 100_000], Commit::Disk, None, 0) {
        Ok(Outcome::New(file)) => file,
        other => panic!("{other:?}"),
    };
    disk.fill_host();
    assert_eq!(store.create(vec![2; 100_000], Commit::Disk, None, 0), Err(StoreError::NoSpace));
    let empty = |_| store.create(Vec::new(), Commit::Memory, None, 0);
    assert_eq!((0..17_000).map_while(|file| empty(file).ok()).count(), 16_382);
    assert_eq!(empty(0), Err(StoreError::NoSpace), "more inodes need more space");
    store.destroy(large).unwrap();
    store.sync().unwrap();
    assert!(!store.usage().write_protected);
    let again = store.create(vec![3; 90_000], Commit::Disk, None, 0);
    assert!(matches!(again, Ok(Outcome::New(_))), "{again:?}");
    store.close().unwrap();
    let store = open(CrashDisk::with_image(disk.crash(&mut Random(1))), 2).unwrap();
    assert_eq!(store.size(large), Err(StoreError::NoSuchFile));
    assert_eq!(store.usage().files, 16_383);
}

/// Space is made ready where no file lies, and no file is refused for it.
#[test]
fn space_is_made_ready_ahead_of_files() {
    let disk = CrashDisk::new(96 << 20);
    format_small(&*disk, 64);
    let store = Arc::new(open(disk.clone(), 1).unwrap());
    let ahead = {
        let store = store.clone();
        threads().spawn("ahead", move || store.run_ahead()).unwrap()
    };
    let mut random = Random(2);
    let mut files = Vec::new();
    for size in [1000, 30_000_000, 5000, 40_000_000, 70_000] {
        let bytes = random.bytes(size);
        match store.create(bytes.clone(), Commit::Disk, None, 0) {
            Ok(Outcome::New(file)) => files.push((file, bytes)),
            other => panic!("{size} bytes: {other:?}"),
        }
    }
    store.stop_ahead();
    ahead.join().expect("it does not panic");
    let mut prepared = disk.prepared();
    prepared.sort_unstable();
    assert!(prepared.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "twice: {prepared:?}");
    for (file, bytes) in &files {
        assert!(store.read(*file, 0, usize::MAX) == Ok(bytes.clone()));
    }
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
    let (free, all) = store.space();
    files.iter().for_each(|(file, _)| store.destroy(*file).unwrap());
    assert!(free < all && store.space().0 == all);
    assert_eq!(store.usage().hole_count, 1);
}

#[test]
fn after_a_failed_flush_nothing_is_promised_any_more_but_reading_goes_on() {
    let disk = CrashDisk::new(8 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    let Ok(Outcome::New(good)) = store.create(b"good".to_vec(), Commit::Disk, None, 0) else { panic!() };
    disk.fail_flushes(true);
    assert_eq!(store.create(b"bad".to_vec(), Commit::Disk, None, 0), Err(StoreError::DiskFailed));
    disk.fail_flushes(false); // the next flush would succeed, and would lie about what was lost
    assert_eq!(store.create(b"bad".to_vec(), Commit::Disk, None, 0), Err(StoreError::WriteProtected));
    assert_eq!(store.create(b"bad".to_vec(), Commit::Memory, None, 0), Err(StoreError::WriteProtected));
    assert_eq!(store.destroy(good), Err(StoreError::WriteProtected));
    assert_eq!(store.sync(), Err(StoreError::WriteProtected));
    assert_eq!(store.read(good, 0, 10), Ok(b"good".to_vec()));
    assert!(store.status().contains("WRITE PROTECTED"));
}

#[test]
fn a_failed_read_is_an_error_of_that_read_alone() {
    let disk = CrashDisk::new(8 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    let Ok(Outcome::New(file)) = store.create(b"good".to_vec(), Commit::Disk, None, 0) else { panic!() };
    let store = open(disk.clone(), 2).unwrap();
    disk.fail_reads(true);
    assert_eq!(store.read(file, 0, 10), Err(StoreError::DiskFailed));
    disk.fail_reads(false);
    assert_eq!(store.read(file, 0, 10), Ok(b"good".to_vec()));
    assert!(store.create(b"more".to_vec(), Commit::Disk, None, 0).is_ok());
}

/// What cannot be read at one start may be read at the next: its blocks must not become another file's meanwhile.
#[test]
fn a_file_that_could_not_be_read_at_the_start_keeps_its_blocks() {
    let disk = CrashDisk::new(8 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    let bytes = vec![7; 10_000];
    let Ok(Outcome::New(file)) = store.create(bytes.clone(), Commit::Disk, None, 0) else { panic!() };
    let place = disk.image().windows(10_000).position(|window| window == bytes).unwrap();
    disk.bad_sector(Some(place as u64 + 5000));
    let store = open(disk.clone(), 2).unwrap();
    assert_eq!(store.read(file, 0, 10), Err(StoreError::Damaged));
    for _ in 0..20 {
        store.create(vec![8; 10_000], Commit::Disk, None, 0).unwrap();
    }
    store.close().unwrap();
    disk.bad_sector(None);
    let store = open(disk, 3).unwrap();
    assert!(store.read(file, 0, usize::MAX) == Ok(bytes));
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
}

#[test]
fn memory_for_uncommitted_files_is_bounded() {
    let disk = CrashDisk::new(8 << 20);
    format_small(&*disk, 64);
    let store = open(disk, 1).unwrap();
    let results: Vec<_> = (0..10).map(|_| store.create(vec![0; 900_000], Commit::No, None, 0)).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(results[9], Err(StoreError::NoMemory));
    // What commits at once needs no such memory.
    assert!(store.create(vec![0; 900_000], Commit::Disk, None, 0).is_ok());
}

#[test]
fn a_volume_is_not_formatted_twice_by_mistake() {
    let disk = CrashDisk::new(8 << 20);
    format_small(&*disk, 64);
    let again = format(&*disk, &*SeededEntropy::new(2), &FormatOptions::default());
    assert_eq!(again.unwrap_err(), VolumeError::AlreadyFormatted);
    let forced = FormatOptions { force: true, ..FormatOptions::default() };
    assert!(format(&*disk, &*SeededEntropy::new(2), &forced).is_ok());
    let tiny = format(&*CrashDisk::new(8192), &*SeededEntropy::new(2), &FormatOptions::default());
    assert_eq!(tiny.unwrap_err(), VolumeError::TooSmall);
}

#[test]
fn a_durable_create_costs_one_data_write_one_record_write_and_one_flush() {
    let disk = CrashDisk::new(8 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    // Whole blocks are written from where they are, 256 KiB at once, the last one and the hashes from a copy. The last file is too large
    // for so small a memory: chunk by chunk, then the rest with the hashes.
    for (size, data_writes) in [(1000, 1), (5000, 1), (1_000_000, 5), (1 << 20, 4), (1_500_000, 5)] {
        let (writes, flushes) = (disk.writes(), disk.flushes());
        store.create(vec![5; size], Commit::Disk, None, 0).unwrap();
        assert_eq!((disk.writes() - writes, disk.flushes() - flushes), (data_writes + 1, 1));
    }
}
