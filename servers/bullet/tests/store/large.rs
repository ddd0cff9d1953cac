//! Volumes and files far beyond four gigabytes, on a disk that keeps only what was written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use amoeba_bullet::store::{Commit, Edit, FileId, Outcome, Store};
use amoeba_cap::{CheckField, ObjectNumber};
use amoeba_world::{Disk, DiskError};

use super::disk::left_to_disk;
use super::world::{Random, format_small, open};

const BLOCK: u64 = 4096;
const CHUNK: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// What was never written is zeros.
struct SparseDisk {
    size: u64,
    blocks: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl SparseDisk {
    fn new(size: u64) -> Arc<SparseDisk> {
        Arc::new(SparseDisk { size, blocks: Default::default() })
    }

    fn last_block(&self) -> u64 {
        *self.blocks.lock().unwrap().last_key_value().unwrap().0
    }

    fn check(&self, offset: u64, size: usize) -> Result<(), DiskError> {
        let end = offset.checked_add(size as u64).ok_or(DiskError::Full)?;
        if end <= self.size { Ok(()) } else { Err(DiskError::Full) }
    }
}

impl Disk for SparseDisk {
    fn size(&self) -> u64 {
        self.size
    }
    fn set_size(&self, _: u64) -> Result<(), DiskError> {
        Err(DiskError::Full)
    }
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len())?;
        bytes.fill(0);
        let end = offset + bytes.len() as u64;
        for (block, found) in self.blocks.lock().unwrap().range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let (start, stop) = ((block * BLOCK).max(offset), ((block + 1) * BLOCK).min(end));
            let from = &found[(start - block * BLOCK) as usize..(stop - block * BLOCK) as usize];
            bytes[(start - offset) as usize..(stop - offset) as usize].copy_from_slice(from);
        }
        Ok(())
    }
    fn write(&self, offset: u64, mut bytes: &[u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len())?;
        let mut offset = offset;
        let mut blocks = self.blocks.lock().unwrap();
        while !bytes.is_empty() {
            let at = (offset % BLOCK) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK as usize - at));
            let block = blocks.entry(offset / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
            block[at..at + now.len()].copy_from_slice(now);
            (offset, bytes) = (offset + now.len() as u64, rest);
        }
        Ok(())
    }
    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Puts a file of a tebibyte of zeros, and a byte, onto a fresh volume, as `docs/bullet.md` says it lies there.
fn plant_a_tebibyte(disk: &SparseDisk) -> (FileId, u64) {
    let mut superblock = [0; 512];
    disk.read(0, &mut superblock).unwrap();
    let uuid = &superblock[16..32];
    let first = u64::from_le_bytes(superblock[64..72].try_into().unwrap());
    let size = TIB + 1;
    let cut = |hash: blake3::Hash| hash.as_bytes()[..16].to_vec();
    let zeros = vec![0; CHUNK as usize];
    let mut table = cut(blake3::hash(&zeros)).repeat((TIB / CHUNK) as usize);
    table.extend(cut(blake3::hash(&[0])));
    disk.write((first + size.div_ceil(BLOCK)) * BLOCK, &table).unwrap();
    let mut record = vec![1, 0, 9, 9, 9, 9, 9, 9];
    for number in [size, first, 0, 1] {
        record.extend(u64::to_le_bytes(number));
    }
    record.extend(cut(blake3::hash(&table)));
    let key = blake3::derive_key("amoeba bullet inode record 1", uuid);
    let check = blake3::keyed_hash(&key, &[&1u32.to_le_bytes()[..], &record].concat());
    record.extend(&check.as_bytes()[..8]);
    disk.write(2 * BLOCK + 64, &record).unwrap();
    // The checkpoint is 1: a tebibyte is not read at the start.
    for place in [0, BLOCK] {
        disk.read(place, &mut superblock).unwrap();
        superblock[72] = 1;
        let check = *blake3::hash(&superblock[..480]).as_bytes();
        superblock[480..].copy_from_slice(&check);
        disk.write(place, &superblock).unwrap();
    }
    let file = FileId { object: ObjectNumber::new(1).unwrap(), random: CheckField::from_bytes([9; 6]) };
    (file, size)
}

fn create(store: &Store, bytes: Vec<u8>) -> FileId {
    match store.create(bytes, Commit::Disk, None, 0) {
        Ok(Outcome::New(file)) => file,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_of_a_tebibyte_is_read_anywhere_and_others_lie_behind_it() {
    let disk = SparseDisk::new(TIB + TIB / 8);
    format_small(&*disk, 64);
    let (huge, size) = plant_a_tebibyte(&disk);
    let mut random = Random(4);
    let small = random.bytes(100_000);
    let streamed = random.bytes(9_000_000);
    let (near, far) = {
        let store = open(disk.clone(), 1).unwrap();
        assert_eq!(store.size(huge), Ok(size));
        for offset in [0, 1 << 31, (1 << 32) - 5, (1 << 32) + 5, TIB / 3, TIB - 3] {
            let expected = (size - offset).min(10);
            assert_eq!(store.read(huge, offset, 10), Ok(vec![0; expected as usize]), "at {offset}");
        }
        assert_eq!(store.read(huge, size, 10), Ok(Vec::new()));
        assert!(store.read(huge, size + 1, 10).is_err());
        // Larger than the memory the store has, piece by piece.
        let near = create(&store, small.clone());
        let Ok(Outcome::New(far)) = store.create(Vec::new(), Commit::No, None, 0) else { panic!() };
        for (index, piece) in streamed.chunks(700_000).enumerate() {
            let last = (index + 1) * 700_000 >= streamed.len();
            let edit = Edit::Modify { offset: index as u64 * 700_000, data: piece.to_vec() };
            let commit = if last { Commit::Disk } else { Commit::No };
            assert_eq!(store.edit(far, edit, commit, 0), Ok(Outcome::Same));
        }
        assert!(disk.last_block() > TIB / BLOCK);
        (near, far)
    };
    let store = open(disk, 2).unwrap();
    assert!(store.read(near, 0, usize::MAX) == Ok(small));
    for offset in [0, 8_123_456] {
        let expected = &streamed[offset..streamed.len().min(offset + 900_000)];
        assert!(store.read(far, offset as u64, 900_000).unwrap() == expected);
    }
    store.destroy(near).unwrap();
    store.destroy(far).unwrap();
    store.destroy(huge).unwrap();
    let usage = store.usage();
    assert_eq!((usage.blocks_free, usage.hole_count), (usage.blocks, 1));
}

/// Looks how much is free whenever space is to be made ready, which it gains nothing by.
struct WatchingDisk {
    disk: Arc<SparseDisk>,
    store: OnceLock<Arc<Store>>,
    free: Mutex<Vec<(u64, u64)>>,
}

impl Disk for WatchingDisk {
    left_to_disk!(size read write flush);

    fn prepare(&self, _: u64, _: u64) -> Result<bool, DiskError> {
        let store = self.store.get().expect("nothing is made ready before the store is open");
        self.free.lock().unwrap().push(store.space());
        Ok(false)
    }
}

#[test]
fn what_is_being_made_ready_is_free() {
    let disk = SparseDisk::new(TIB / 8);
    format_small(&*disk, 64);
    let disk = Arc::new(WatchingDisk { disk, store: OnceLock::new(), free: Mutex::default() });
    let store = disk.store.get_or_init(|| Arc::new(open(disk.clone(), 1).unwrap()));
    store.run_ahead();
    let (free, all) = store.space();
    assert_eq!((free, disk.free.lock().unwrap().clone()), (all, vec![(all, all)]));
}

/// More inodes than one thread reads at once, some of them free again, and files that lie in another order than they are
/// numbered.
#[test]
fn a_table_of_several_steps_is_as_it_was() {
    let disk = SparseDisk::new(TIB / 8);
    format_small(&*disk, 60_000);
    let store = open(disk.clone(), 1).unwrap();
    let bytes = |number: usize| (number as u32).to_le_bytes().repeat(number % 3);
    let made: Vec<Vec<u8>> = (0..40_000).map(bytes).collect();
    let mut files: Vec<(usize, FileId)> =
        store.create_many(made, true, 7).unwrap().into_iter().enumerate().collect();
    let dead: Vec<_> = files.extract_if(.., |(number, _)| number.is_multiple_of(1000)).collect();
    for (_, file) in &dead {
        store.destroy(*file).unwrap();
    }
    // Into the holes, under numbers that were never used.
    let again = store.create_many(vec![vec![9; 5]; 30], true, 7).unwrap();
    let before = (store.usage(), store.space());
    drop(store);
    let store = open(disk.clone(), 2).unwrap();
    assert!(again.iter().all(|&file| store.read(file, 0, 9) == Ok(vec![9; 5])));
    assert!(files.iter().all(|&(number, file)| store.read(file, 0, 99) == Ok(bytes(number))));
    assert!(dead.iter().all(|&(_, file)| store.size(file).is_err()));
    let after = store.usage();
    assert_eq!((after.files, after.files_max, after.damaged_files), (before.0.files, before.0.files_max, 0));
    assert_eq!((after.blocks_free, after.hole_count), (before.0.blocks_free, before.0.hole_count));
    store.close().unwrap();
    drop(store);
    let store = open(disk, 3).unwrap(); // now nothing has to prove itself
    assert_eq!(store.usage().files, after.files);
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
}

/// The flag bits of a record leave room; its sizes do not wrap.
#[test]
fn a_volume_of_many_tebibytes_has_all_its_blocks() {
    let disk = SparseDisk::new(40 * TIB);
    format_small(&*disk, 64);
    let store = open(disk, 1).unwrap();
    assert!(store.space().1 > 40 * TIB - (1 << 20));
}
