//! Damaged images: never a panic, never wrong bytes, and the damage is named.

use std::sync::{Arc, Mutex};

use amoeba_bullet::store::{Commit, FileId, Outcome, Store, StoreError, VolumeError};

use super::disk::{CrashDisk, Interrupted};
use super::world::{Random, format_small, open};

/// A closed volume with a few files.
fn volume() -> (Vec<u8>, Vec<(FileId, Vec<u8>)>) {
    let disk = CrashDisk::new(4 << 20);
    format_small(&*disk, 64);
    let store = open(disk.clone(), 1).unwrap();
    let mut random = Random(5);
    let files = [0, 1, 4096, 70_000, 1_300_000]
        .into_iter()
        .map(|size| {
            let bytes = random.bytes(size);
            match store.create(bytes.clone(), Commit::Disk, None, 0) {
                Ok(Outcome::New(file)) => (file, bytes),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    store.close().unwrap();
    (disk.image(), files)
}

#[test]
fn a_flipped_bit_anywhere_is_never_believed() {
    let (image, files) = volume();
    let used = 400 * 4096;
    let mut random = Random(11);
    for case in 0..400 {
        let mut damaged = image.clone();
        // Half the cases hit superblocks and inode table, the rest the data.
        let offset = if case % 2 == 0 { random.below(3 * 4096) } else { random.below(used) };
        damaged[offset] ^= 1 << random.below(8);
        let store = open(CrashDisk::with_image(damaged), 2).expect("one copy of the superblock is good");
        let mut wrong = 0;
        for (file, bytes) in &files {
            match store.read(*file, 0, usize::MAX) {
                Ok(found) => assert!(found == *bytes),
                Err(StoreError::Damaged | StoreError::NoSuchFile) => wrong += 1,
                Err(error) => panic!("{error}"),
            }
        }
        let check = store.check(false).unwrap();
        assert!(wrong <= 1);
        // A bit in the padding behind a file or in the superblock harms no file.
        assert!(wrong as u64 <= check.problem_count, "damage at {offset} is not named");
    }
}

#[test]
fn a_damaged_file_can_be_destroyed_and_a_lost_record_repaired() {
    let (mut image, files) = volume();
    image[2 * 4096 + 64 * files[0].0.object.get() as usize + 20] ^= 1;
    let data = image.windows(64).position(|window| *window == files[3].1[..64]).unwrap();
    image[data] ^= 1;
    let store = open(CrashDisk::with_image(image), 2).unwrap();
    assert_eq!(store.read(files[3].0, 0, 10), Err(StoreError::Damaged));
    assert_eq!(store.size(files[0].0), Err(StoreError::NoSuchFile));
    assert!(store.status().contains("damaged: "));
    assert_eq!(store.check(true).unwrap().problem_count, 2);
    store.destroy(files[3].0).unwrap();
    assert_eq!(store.check(false).unwrap().problem_count, 0);
}

/// Where the bytes of two images differ.
fn differing(one: &[u8], other: &[u8]) -> Vec<usize> {
    one.iter().zip(other).enumerate().filter(|(_, (a, b))| a != b).map(|(place, _)| place).collect()
}

/// Whatever a check finds, it changes nothing; a repair changes the records it names, and no other byte.
#[test]
fn a_check_names_what_it_finds_and_makes_nothing_worse() {
    let (image, files) = volume();
    let number = |index: usize| files[index].0.object.get();
    let record = |index: usize| 2 * 4096 + 64 * number(index) as usize;
    let place = |bytes: &[u8]| image.windows(64).position(|window| *window == bytes[..64]).unwrap();
    let mut flipped = image.clone();
    flipped[place(&files[3].1) + 30_000] ^= 4;
    let mut torn = image.clone();
    torn[record(2) + 32..record(2) + 64].fill(0);
    let mut in_the_table = image.clone();
    in_the_table[place(&files[4].1) + (1_300_000usize.next_multiple_of(4096)) + 3] ^= 1;
    // Two records that name the same blocks: the bytes of one file's record in another's place would not verify, so an
    // older image of the same volume lends one that does.
    let overlapping = {
        let disk = CrashDisk::with_image(image.clone());
        let store = open(disk.clone(), 2).unwrap();
        store.destroy(files[3].0).unwrap();
        let fill = vec![5; 69_000];
        let Ok(Outcome::New(later)) = store.create(fill, Commit::Disk, None, 0) else { panic!() };
        store.close().unwrap();
        assert_ne!(later.object, files[3].0.object);
        let mut mixed = disk.image();
        mixed[record(3)..record(3) + 64].copy_from_slice(&image[record(3)..record(3) + 64]);
        mixed
    };
    let cut = image[..image.len() - 4096 * 700].to_vec();
    let cases: [(&str, Vec<u8>, String); 5] = [
        ("a flipped bit", flipped, format!("file {}:", number(3))),
        ("a torn record", torn, format!("inode {}: torn", number(2))),
        ("a flipped bit in a table of hashes", in_the_table, format!("file {}:", number(4))),
        ("overlapping files", overlapping, format!("file {}: 70000 bytes at block", number(3))),
        ("a truncated image", cut, "truncated".to_string()),
    ];
    for (what, image, named) in cases {
        let disk = CrashDisk::with_image(image.clone());
        let store = open(disk.clone(), 3).unwrap();
        let check = store.check(false).unwrap();
        assert!(check.problems.iter().any(|problem| problem.contains(&named)), "{what}: {check:?}");
        assert!(differing(&image, &disk.image()).is_empty(), "{what}: a check wrote");
        let repaired = store.check(true);
        let changed = differing(&image, &disk.image());
        if what == "a torn record" {
            assert!(
                !changed.is_empty()
                    && changed.iter().all(|place| (record(2)..record(2) + 64).contains(place))
            );
            assert_eq!(store.check(false).unwrap().problem_count, 0);
        } else {
            assert!(changed.is_empty(), "{what}: a repair wrote at {changed:?}");
            assert!(repaired.is_ok_and(|check| check.problem_count > 0));
        }
    }
}

#[test]
fn two_repairs_at_once_clear_no_new_files_record() {
    let (mut image, files) = volume();
    image[2 * 4096 + 64 * files[0].0.object.get() as usize + 20] ^= 1;
    let disk = CrashDisk::with_image(image);
    let interrupted = Interrupted::new(disk.clone());
    let store = Arc::new(open(interrupted.clone(), 2).unwrap());
    let made = Arc::new(Mutex::new(Vec::new()));
    let meanwhile = {
        let (store, made) = (store.clone(), made.clone());
        move || {
            store.check(true).unwrap();
            let fill = |store: &Store| match store.create(vec![9; 10], Commit::Disk, None, 0) {
                Ok(Outcome::New(file)) => Some(file),
                _ => None,
            };
            made.lock().unwrap().extend(std::iter::from_fn(|| fill(&store)));
        }
    };
    interrupted.before_write(meanwhile);
    store.check(true).unwrap();
    let made = std::mem::take(&mut *made.lock().unwrap());
    assert!(made.len() >= 58, "all numbers but those of four old files, and perhaps the lost one");
    let restarted = open(CrashDisk::with_image(disk.crash(&mut Random(3))), 3).unwrap();
    for file in made {
        assert_eq!(store.read(file, 0, 10), Ok(vec![9; 10]));
        assert_eq!(restarted.read(file, 0, 10), Ok(vec![9; 10]));
    }
}

#[test]
fn a_truncated_image_opens_for_reading_only() {
    let (image, files) = volume();
    let cut = image[..image.len() - 4096 * 700].to_vec();
    let store = open(CrashDisk::with_image(cut), 2).unwrap();
    assert!(store.read(files[2].0, 0, usize::MAX) == Ok(files[2].1.clone()));
    assert_eq!(store.read(files[4].0, 0, usize::MAX), Err(StoreError::Damaged));
    assert_eq!(store.create(vec![1], Commit::Disk, None, 0), Err(StoreError::WriteProtected));
    assert!(store.check(false).unwrap().problem_count >= 2);
    assert!(open(CrashDisk::with_image(image[..4096 * 2 + 100].to_vec()), 2).is_err());
    assert_eq!(open(CrashDisk::with_image(vec![7; 100]), 2).err(), Some(VolumeError::NotBullet));
}

#[test]
fn no_image_panics() {
    let (image, _) = volume();
    let image = &image[..600 * 4096]; // enough for every file; the rest is free
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut damaged = image.to_vec();
        damaged.resize(4 << 20, 0);
        for patch in bytes.chunks(5) {
            let &[a, b, c, value, run] = patch else { continue };
            let wide = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            // Mostly the first blocks, where the structure is.
            let start = if a & 1 == 0 { wide % (3 * 4096) } else { wide % damaged.len() };
            let end = (start + usize::from(run)).min(damaged.len());
            damaged[start..end].fill(value);
        }
        let Ok(store) = open(CrashDisk::with_image(damaged), 2) else { return };
        for number in 0..70 {
            if let Some(file) = store.file(amoeba_cap::ObjectNumber::new(number).unwrap()) {
                let _ = store.read(file, 0, 1 << 20);
                let _ = store.destroy(file);
            }
        }
        let _ = store.create(vec![3; 5000], Commit::Disk, None, 0);
        let _ = (store.check(true), store.close(), store.status());
    });
}
