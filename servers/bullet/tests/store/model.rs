//! Random operations on a store and on a plain model of it must give the same answers.

use std::collections::BTreeMap;

use amoeba_bullet::store::{Commit, Compare, Edit, FileId, Outcome, Store, StoreError};
use amoeba_cap::Rights;

use super::disk::CrashDisk;
use super::world::{Random, SMALL, format_small, open, open_with};

#[derive(Clone, Default)]
struct ModelFile {
    bytes: Vec<u8>,
    committed: bool,
}

struct Pair {
    store: Store,
    files: Vec<(FileId, ModelFile)>,
    random: Random,
}

impl Pair {
    fn size(&mut self) -> usize {
        match self.random.below(20) {
            0 => 0,
            1 => 2_000_000 + self.random.below(500_000),
            2 => (1 << 20) + self.random.below(3) - 1,
            3..8 => self.random.below(40_000),
            _ => self.random.below(5000),
        }
    }

    fn commit(&mut self) -> Commit {
        [Commit::No, Commit::Memory, Commit::Disk][self.random.below(3)]
    }

    fn settle(&mut self, outcome: Outcome, index: Option<usize>, bytes: Vec<u8>, commit: Commit) {
        let committed = commit != Commit::No;
        match (outcome, index) {
            (Outcome::New(file), _) => self.files.push((file, ModelFile { bytes, committed })),
            (Outcome::Same, Some(index)) => self.files[index].1 = ModelFile { bytes, committed },
            (outcome, _) => panic!("{outcome:?} without reason"),
        }
    }

    fn step(&mut self) {
        let pick = (!self.files.is_empty()).then(|| self.random.below(self.files.len()));
        match (self.random.below(12), pick) {
            (0..3, _) | (_, None) => {
                let (size, commit) = (self.size(), self.commit());
                let bytes = self.random.bytes(size);
                match self.store.create(bytes.clone(), commit, None, 0) {
                    Ok(outcome) => self.settle(outcome, None, bytes, commit),
                    Err(error) => {
                        assert_eq!((error, commit), (StoreError::NoMemory, Commit::No));
                        assert!(self.has_large_draft(), "the memory for uncommitted files is full");
                    }
                }
            }
            (3..6, Some(index)) => self.edit(index),
            (6..9, Some(index)) => self.read(index),
            (9, Some(index)) => {
                let (file, _) = self.files.swap_remove(index);
                self.store.destroy(file).unwrap();
                assert_eq!(self.store.destroy(file), Err(StoreError::NoSuchFile));
            }
            (10, Some(index)) => {
                let (file, model) = self.files[index].clone();
                match self.store.copy(file, 0) {
                    Ok(copy) => self.files.push((copy, model)),
                    Err(error) => assert_eq!((error, model.committed), (StoreError::NoSuchFile, false)),
                }
            }
            (_, Some(_)) if self.random.below(3) == 0 => drop(self.store.compact().unwrap()),
            (_, Some(_)) => self.store.sweep().unwrap(),
        }
        if self.files.len() > 12 {
            let (file, _) = self.files.swap_remove(0);
            self.store.destroy(file).unwrap();
        }
    }

    fn has_large_draft(&self) -> bool {
        self.files.iter().any(|(_, model)| !model.committed && model.bytes.len() > 500_000)
    }

    fn edit(&mut self, index: usize) {
        let (file, model) = self.files[index].clone();
        let length = model.bytes.len();
        let offset = self.random.below(length + 2);
        let mut bytes = model.bytes.clone();
        let size = self.size();
        let edit = match self.random.below(3) {
            0 => {
                let data = self.random.bytes(size);
                if offset <= length {
                    bytes.resize(length.max(offset + size), 0);
                    bytes[offset..offset + size].copy_from_slice(&data);
                }
                Edit::Modify { offset: offset as u64, data }
            }
            1 => {
                let data = self.random.bytes(size);
                if offset <= length {
                    bytes.splice(offset..offset, data.iter().copied());
                }
                Edit::Insert { offset: offset as u64, data }
            }
            _ => {
                if offset <= length {
                    bytes.drain(offset..length.min(offset + size));
                }
                Edit::Delete { offset: offset as u64, size: size as u64 }
            }
        };
        let legal = offset <= length && (size > 0 || matches!(edit, Edit::Modify { .. }));
        let commit = self.commit();
        match self.store.edit(file, edit, commit, 0) {
            Ok(outcome) => {
                assert!(legal);
                assert_eq!(matches!(outcome, Outcome::New(_)), model.committed);
                self.settle(outcome, Some(index), bytes, commit);
            }
            Err(StoreError::BadArgument) => assert!(!legal),
            Err(StoreError::NoMemory) => assert_ne!((model.committed, commit), (true, Commit::Disk)),
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self, index: usize) {
        let (file, model) = self.files[index].clone();
        let offset = self.random.below(model.bytes.len() + 2);
        let size = self.size();
        let expected = match model.bytes.get(offset..) {
            _ if !model.committed => Err(StoreError::NoSuchFile),
            None => Err(StoreError::BadArgument),
            Some(rest) => Ok(rest[..rest.len().min(size)].to_vec()),
        };
        assert!(self.store.read(file, offset as u64, size) == expected);
        if model.committed {
            assert_eq!(self.store.size(file), Ok(model.bytes.len() as u64));
        }
    }
}

#[test]
fn random_operations_give_what_the_model_gives() {
    for seed in 0..12 {
        println!("seed {seed}");
        let disk = CrashDisk::new(96 << 20);
        format_small(&*disk, 128);
        let mut pair =
            Pair { store: open(disk.clone(), seed).unwrap(), files: Vec::new(), random: Random(seed) };
        for _ in 0..120 {
            pair.step();
        }
        let check = pair.store.check(false).unwrap();
        assert_eq!(check.problems, Vec::<String>::new());
        // A clean stop keeps every committed file, and nothing else.
        pair.store.close().unwrap();
        let store = open(CrashDisk::with_image(disk.image()), seed).unwrap();
        for (file, model) in &pair.files {
            let expected =
                if model.committed { Ok(model.bytes.clone()) } else { Err(StoreError::NoSuchFile) };
            assert!(store.read(*file, 0, usize::MAX) == expected);
        }
        // Every block comes back when all files go.
        for (file, model) in &pair.files {
            assert_eq!(store.destroy(*file).is_ok(), model.committed);
        }
        let (free, all) = store.space();
        assert_eq!(free, all);
    }
}

#[test]
fn an_uncommitted_file_larger_than_memory_is_kept_on_disk_and_read_by_ranges() {
    let disk = CrashDisk::new(64 << 20);
    format_small(&*disk, 64);
    let store = open(disk, 1).unwrap();
    let mut random = Random(1);
    let mut expected = random.bytes(100);
    let Ok(Outcome::New(file)) = store.create(expected.clone(), Commit::No, None, 0) else { panic!() };
    for _ in 0..40 {
        let piece = random.bytes(300_000);
        let edit = Edit::Modify { offset: expected.len() as u64, data: piece.clone() };
        assert_eq!(store.edit(file, edit, Commit::No, 0), Ok(Outcome::Same));
        expected.extend_from_slice(&piece);
    }
    let middle = random.bytes(1_500_000);
    expected[700_000..2_200_000].copy_from_slice(&middle);
    let edit = Edit::Modify { offset: 700_000, data: middle };
    assert_eq!(store.edit(file, edit, Commit::Disk, 0), Ok(Outcome::Same));
    for _ in 0..100 {
        let offset = random.below(expected.len());
        let size = random.below(3_000_000);
        let got = store.read(file, offset as u64, size).unwrap();
        assert!(got == expected[offset..expected.len().min(offset + size)]);
    }
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
}

#[test]
fn an_equal_file_gives_the_old_capability_with_the_rights_it_had() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    let Ok(Outcome::New(old)) = store.create(b"same".to_vec(), Commit::Memory, None, 0) else { panic!() };
    let compare = Some(Compare { file: old, rights: Rights::from_bits_retain(3) });
    let equal = Ok(Outcome::Equal(old, Rights::from_bits_retain(3)));
    // Asked for safety, so the old file, in memory only so far, must be on disk before the answer.
    assert_eq!(store.create(b"same".to_vec(), Commit::Disk, compare, 0), equal);
    let crashed = open(CrashDisk::with_image(disk.crash(&mut Random(7))), 2).unwrap();
    assert_eq!(crashed.read(old, 0, 10), Ok(b"same".to_vec()));
    // Piece by piece too, and not for another content.
    let Ok(Outcome::New(new)) = store.create(b"sa".to_vec(), Commit::No, compare, 0) else { panic!() };
    let edit = Edit::Modify { offset: 2, data: b"me".to_vec() };
    assert_eq!(store.edit(new, edit, Commit::Memory, 0), equal);
    assert_eq!(store.size(new), Err(StoreError::NoSuchFile));
    assert!(matches!(store.create(b"other".to_vec(), Commit::Disk, compare, 0), Ok(Outcome::New(_))));
    let (free, all) = store.space();
    assert_eq!(all - free, 2 * 4096);
}

#[test]
fn untouched_files_age_and_die_and_touched_ones_live() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    let create = |data: &[u8], commit| match store.create(data.to_vec(), commit, None, 0) {
        Ok(Outcome::New(file)) => file,
        other => panic!("{other:?}"),
    };
    let (touched, read, left, dirty) = (
        create(b"a", Commit::Disk),
        create(b"b", Commit::Disk),
        create(b"c", Commit::Disk),
        create(b"d", Commit::Memory),
    );
    let draft = create(b"e", Commit::No);
    for round in 1..=24 {
        store.touch(touched.object);
        store.read(read, 0, 1).unwrap();
        assert_eq!(store.age(), Ok(if round == 24 { 2 } else { 0 }));
    }
    let lives: BTreeMap<&str, bool> =
        [("touched", touched), ("read", read), ("left", left), ("dirty", dirty), ("draft", draft)]
            .into_iter()
            .map(|(name, file)| (name, store.file(file.object).is_some()))
            .collect();
    assert_eq!(
        lives.into_iter().filter(|(_, lives)| *lives).map(|(name, _)| name).collect::<Vec<_>>(),
        ["draft", "read", "touched"]
    );
    let restarted = open(CrashDisk::with_image(disk.crash(&mut Random(3))), 2).unwrap();
    assert_eq!(restarted.size(left), Err(StoreError::NoSuchFile));
}

#[test]
fn an_uncommitted_file_is_forgotten_when_its_time_is_over() {
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 64);
    let store = open_with(disk, 1, SMALL).unwrap();
    let Ok(Outcome::New(small)) = store.create(vec![1; 10], Commit::No, None, 0) else { panic!() };
    let Ok(Outcome::New(large)) = store.create(vec![1; 3 << 20], Commit::No, None, 0) else { panic!() };
    store.sweep().unwrap();
    assert_eq!(store.size(small), Err(StoreError::NoSuchFile));
    assert_eq!(store.size(large), Err(StoreError::NoSuchFile));
    let (free, all) = store.space();
    assert_eq!(free, all);
}
