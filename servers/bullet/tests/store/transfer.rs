//! A backup and a restore: every old capability is good again.

use amoeba_bullet::store::{Commit, Edit, FileId, Listed, Outcome, Store, StoreError};
use amoeba_cap::ObjectNumber;

use super::disk::CrashDisk;
use super::world::{Random, SeededEntropy, format_small, open};

fn create(store: &Store, bytes: Vec<u8>, owner: u64) -> FileId {
    match store.create(bytes, Commit::Disk, None, owner) {
        Ok(Outcome::New(file)) => file,
        other => panic!("{other:?}"),
    }
}

fn all(store: &Store, page: usize) -> Vec<Listed> {
    let (mut files, mut after) = (Vec::new(), 0);
    loop {
        let (more, next) = store.list(after, page);
        assert!(more.len() <= page);
        files.extend(more);
        if next == 0 {
            return files;
        }
        after = next;
    }
}

#[test]
fn a_restored_service_has_every_file_under_its_old_capability() {
    let mut random = Random(1);
    let disk = CrashDisk::new(16 << 20);
    format_small(&*disk, 20_000);
    let old = open(disk, 1).unwrap();
    let mut files: Vec<_> = [0, 5, 70_000, 2_500_000]
        .into_iter()
        .map(|size| {
            let bytes = random.bytes(size);
            (create(&old, bytes.clone(), size as u64), bytes)
        })
        .collect();
    let (gone, _) = files.remove(1);
    old.destroy(gone).unwrap();
    old.create(vec![1; 10], Commit::No, None, 0).unwrap();
    let Ok(Outcome::New(unwritten)) = old.create(vec![2; 20], Commit::Memory, None, 0) else { panic!() };
    let listed = all(&old, 2);
    assert_eq!(listed, all(&old, 100));
    assert_eq!(
        listed.last().map(|listed| (listed.file, listed.size, listed.sequence)),
        Some((unwritten, 20, 0))
    );
    files.push((unwritten, vec![2; 20]));
    assert_eq!(
        listed.iter().map(|listed| listed.file).collect::<Vec<_>>(),
        files.iter().map(|file| file.0).collect::<Vec<_>>()
    );
    assert!(listed.windows(2).all(|pair| pair[0].file.object < pair[1].file.object));

    let disk = CrashDisk::new(16 << 20);
    let options = amoeba_bullet::FormatOptions { inode_count: Some(20_000), force: false };
    amoeba_bullet::format(&*disk, &*SeededEntropy::new(77), &options).unwrap();
    let new = open(disk.clone(), 5).unwrap();
    let first = create(&new, vec![1], 0);
    assert_eq!(new.adopt(&old.identity()), Err(StoreError::Exists));
    new.destroy(first).unwrap();
    new.adopt(&old.identity()).unwrap();
    assert_eq!(new.create(vec![1], Commit::Disk, None, 0), Err(StoreError::NotNow));
    assert_eq!(new.restore(listed[0].file, Vec::new(), 0), Err(StoreError::NotNow));
    drop(new);
    // Durable with the answer: nothing was closed.
    let disk = CrashDisk::with_image(disk.crash(&mut random));
    let new = open(disk.clone(), 6).unwrap();
    assert_eq!(new.get_port(), old.get_port());
    assert_eq!(new.super_random(), old.super_random());
    assert_eq!(new.secret().to_bytes(), old.secret().to_bytes());
    for (listed, (file, bytes)) in listed.iter().zip(&files) {
        let (head, tail) = bytes.split_at(bytes.len().min(1_000_000));
        new.restore(listed.file, head.to_vec(), listed.owner).unwrap();
        assert_eq!(new.restore(listed.file, Vec::new(), 0), Err(StoreError::Exists));
        let rest = Edit::Modify { offset: head.len() as u64, data: tail.to_vec() };
        assert_eq!(new.edit(*file, rest, Commit::Disk, 0), Ok(Outcome::Same));
    }
    // A number that the table has no record for yet, and those that it never can have.
    let far = FileId { object: ObjectNumber::new(19_000).unwrap(), random: first.random };
    new.restore(far, vec![3], 0).unwrap();
    for number in [0, 1 << 20] {
        let object = ObjectNumber::new(number).unwrap();
        assert_eq!(new.restore(FileId { object, ..far }, vec![3], 0), Err(StoreError::BadArgument));
    }
    let made = create(&new, vec![4], 0);
    assert!(files.iter().all(|(file, _)| file.object != made.object));
    let restarted = open(CrashDisk::with_image(disk.crash(&mut random)), 7).unwrap();
    for store in [&new, &restarted] {
        for (listed, (file, bytes)) in listed.iter().zip(&files) {
            assert!(store.read(*file, 0, usize::MAX) == Ok(bytes.clone()));
            let again = all(store, 10).into_iter().find(|found| found.file == *file).unwrap();
            assert_eq!((again.size, again.owner), (listed.size, listed.owner));
        }
        assert_eq!(store.size(gone), Err(StoreError::NoSuchFile));
        assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
    }
}
