//! What the original's manual says of commands, flags and the status, where no other test says it.

use amoeba_cap::Private;
use amoeba_stubs::standard;

use super::*;

#[test]
fn flags_say_when_a_file_is_committed() {
    let (world, running, server) = system();
    let draft = bullet::create(&world, &server, SAFETY, b"a".to_vec()).unwrap();
    assert_eq!(refused(bullet::size(&world, &draft)), Status::STD_CAPBAD, "SAFETY alone says nothing");
    assert_eq!(bullet::modify(&world, &draft, COMMIT, 0, Vec::new()), Ok(draft), "no bytes: to commit");
    assert_eq!(bullet::size(&world, &draft), Ok(1));
    assert_eq!(refused(bullet::create(&world, &server, 4, b"a".to_vec())), Status::STD_ARGBAD);
    assert_eq!(refused(bullet::modify(&world, &draft, 0x8000, 0, Vec::new())), Status::STD_ARGBAD);
    running.stop().unwrap();
}

#[test]
fn many_files_are_made_at_once_or_none() {
    let (server, world) = two_processes();
    let disk = new_disk(&server, 48 << 20);
    let running = serve(&server, disk.clone());
    let service = running.super_capability();
    let all: Vec<Vec<u8>> = (0..100_u8).map(|index| vec![index; usize::from(index) * 100]).collect();
    let before = disk.flushes();
    let files = bullet::create_many(&world, &service, COMMIT | SAFETY, &all).unwrap();
    assert_eq!(disk.flushes() - before, 1, "one flush for all");
    assert_eq!(files.len(), all.len());
    for (file, bytes) in files.iter().zip(&all) {
        assert_eq!(&bullet::read(&world, file, 0, 100_000).unwrap(), bytes);
        assert_eq!(file.rights(), Rights::ALL);
    }
    assert_eq!(bullet::create_many(&world, &service, COMMIT, &[]), Ok(Vec::new()));
    for flags in [0, SAFETY, 4 | COMMIT] {
        assert_eq!(refused(bullet::create_many(&world, &service, flags, &all)), Status::STD_ARGBAD);
    }
    let weak = standard::restrict(&world, &service, 0xFE).unwrap();
    assert_eq!(refused(bullet::create_many(&world, &weak, COMMIT, &all)), Status::STD_DENIED);
    assert_eq!(refused(bullet::create_many(&world, &files[0], COMMIT, &all)), Status::STD_COMBAD);
    // When there is no room for the last of them, there is none of them.
    let large = vec![vec![7; bullet::MANY_SIZE_MAX]; bullet::MANY_MAX];
    let count = || bullet::usage(&world, &service).unwrap().files;
    let mut there = count();
    let full = loop {
        match bullet::create_many(&world, &service, COMMIT | SAFETY, &large) {
            Ok(made) => there += made.len() as u64,
            Err(error) => break error,
        }
    };
    assert_eq!((full, count()), (Error::Refused(Status::STD_NOSPACE), there));
    running.stop().unwrap();
}

#[test]
fn a_comparison_is_made_when_the_file_is_committed() {
    let (world, running, server) = system();
    let old = bullet::create(&world, &server, COMMIT, b"abcdef".to_vec()).unwrap();
    let draft = bullet::create(&world, &old, 0, b"abc".to_vec()).unwrap();
    assert_eq!(bullet::modify(&world, &draft, 0, 3, b"d".to_vec()), Ok(draft));
    assert_eq!(bullet::modify(&world, &draft, COMMIT | SAFETY, 4, b"ef".to_vec()), Ok(old));
    assert_eq!(refused(bullet::modify(&world, &draft, 0, 0, Vec::new())), Status::STD_CAPBAD, "it is gone");
    let longer = bullet::create(&world, &old, COMMIT, b"abcdefg".to_vec()).unwrap();
    assert_ne!(longer, old);
    let empty = bullet::create(&world, &server, COMMIT, Vec::new()).unwrap();
    assert_eq!(bullet::create(&world, &empty, COMMIT, Vec::new()), Ok(empty), "two empty files are equal");
    // Compared with a file that is destroyed before the commit, it is just a new one.
    let draft = bullet::create(&world, &longer, 0, b"abcdefg".to_vec()).unwrap();
    standard::destroy(&world, &longer).unwrap();
    assert_eq!(bullet::modify(&world, &draft, COMMIT, 0, Vec::new()), Ok(draft));
    running.stop().unwrap();
}

#[test]
fn offsets_and_sizes_are_checked_by_what_each_edit_means() {
    let (world, running, server) = system();
    let file = bullet::create(&world, &server, COMMIT, b"0123456789".to_vec()).unwrap();
    let of = |file: Capability| bullet::read(&world, &file, 0, 100).unwrap();
    let cut = bullet::delete(&world, &file, COMMIT, 7, u64::MAX).unwrap();
    assert_eq!(of(cut), b"0123456", "cut at the end of the file");
    assert_eq!(of(bullet::delete(&world, &file, COMMIT, 10, 1).unwrap()), b"0123456789");
    assert_eq!(refused(bullet::delete(&world, &file, COMMIT, 11, 1)), Status::STD_ARGBAD);
    assert_eq!(refused(bullet::delete(&world, &file, COMMIT, 0, 0)), Status::STD_ARGBAD);
    assert_eq!(refused(bullet::insert(&world, &file, COMMIT, 11, b"x".to_vec())), Status::STD_ARGBAD);
    assert_eq!(of(bullet::insert(&world, &file, COMMIT, 10, b"x".to_vec()).unwrap()), b"0123456789x");
    assert_eq!(of(bullet::modify(&world, &file, COMMIT, 9, b"xy".to_vec()).unwrap()), b"012345678xy");
    assert_eq!(refused(bullet::modify(&world, &file, COMMIT, 11, Vec::new())), Status::STD_ARGBAD);
    assert_eq!(bullet::read(&world, &file, 10, 0).unwrap(), b"");
    assert_eq!(refused(bullet::read(&world, &file, 11, 0)), Status::STD_ARGBAD);
    let far = u64::MAX - 3;
    assert_eq!(refused(bullet::modify(&world, &file, 0, far, b"xxxx".to_vec())), Status::STD_ARGBAD);
    assert_eq!(refused(bullet::read(&world, &file, far, 8)), Status::STD_ARGBAD);
    assert_eq!(of(file), b"0123456789", "a committed file stays what it is");
    running.stop().unwrap();
}

#[test]
fn rights_are_those_of_the_original() {
    let (world, running, server) = system();
    let file = bullet::create(&world, &server, COMMIT, b"text".to_vec()).unwrap();
    let with = |object: &Capability, rights: u32| standard::restrict(&world, object, rights).unwrap();
    let nothing = with(&server, 0);
    bullet::sync(&world, &nothing).unwrap();
    assert_eq!(standard::info_text(&world, &nothing).unwrap(), "bullet server");
    standard::touch(&world, &with(&file, 0)).unwrap();
    assert_eq!(standard::info_text(&world, &with(&file, 0)).unwrap(), "-        4 bytes");
    assert_eq!(refused(bullet::sync(&world, &file)), Status::STD_COMBAD);
    assert_eq!(refused(bullet::create(&world, &with(&server, 0xFE), COMMIT, vec![])), Status::STD_DENIED);
    assert_eq!(refused(standard::status_text(&world, &with(&server, 0xFD))), Status::STD_DENIED);
    assert_eq!(refused(standard::status_text(&world, &file)), Status::STD_COMBAD);
    assert_eq!(refused(bullet::read(&world, &with(&file, 0xFD), 0, 1)), Status::STD_DENIED);
    assert_eq!(refused(bullet::size(&world, &with(&file, 0xFD))), Status::STD_DENIED);
    for rights in [0xFB, 0xFD] {
        let weak = with(&file, rights);
        assert_eq!(refused(bullet::modify(&world, &weak, COMMIT, 0, vec![1])), Status::STD_DENIED);
        assert_eq!(refused(bullet::insert(&world, &weak, COMMIT, 0, vec![1])), Status::STD_DENIED);
        assert_eq!(refused(bullet::delete(&world, &weak, COMMIT, 0, 1)), Status::STD_DENIED);
    }
    assert_eq!(refused(standard::destroy(&world, &with(&file, 0xF7))), Status::STD_DENIED);
    let not_all = with(&server, 0x7F);
    assert_eq!(refused(bullet::classic_fsck(&world, &not_all)), Status::STD_DENIED);
    assert_eq!(refused(bullet::classic_compact(&world, &not_all)), Status::STD_DENIED);
    assert_eq!(refused(standard::age(&world, &not_all)), Status::STD_DENIED);
    for secret in [
        refused(bullet::identity(&world, &not_all)),
        refused(bullet::list(&world, &not_all, 0)),
        refused(bullet::compact(&world, &not_all)),
    ] {
        assert_eq!(secret, Status::STD_DENIED);
    }
    let draft = bullet::create(&world, &with(&file, 1), 0, b"x".to_vec()).unwrap();
    assert_eq!(draft.rights(), Rights::ALL, "whoever makes a file has all rights to it");
    standard::destroy(&world, &draft).unwrap();
    running.stop().unwrap();
}

#[test]
fn many_are_touched_at_once_and_the_server_itself_is_passed_over() {
    let (world, running, server) = system();
    let file = bullet::create(&world, &server, COMMIT, b"x".to_vec()).unwrap();
    let mut nobody = server.private;
    nobody.check = file.private.check;
    let (touched, result) = standard::touch_all(&world, server.port, &[file.private, nobody, server.private]);
    assert_eq!((touched, result), (3, Ok(())));
    let wrong = Private { object: ObjectNumber::new(77).unwrap(), ..file.private };
    let (touched, result) = standard::touch_all(&world, server.port, &[wrong, file.private]);
    assert_eq!((touched, result), (1, Err(Error::Refused(Status::STD_CAPBAD))));
    running.stop().unwrap();
}

/// What the original's status shows, in its order. What it shows of fixed tables (cache slots, hole structures) we do not
/// have.
const STATUS: [&str; 30] = [
    "Inodes",
    "Disk Blocks",
    "Cache Memory",
    "committed bytes in cache",
    "uncommitted bytes in memory",
    "cache hits",
    "cache misses",
    "disk reads",
    "disk writes",
    "timed out files",
    "aged files",
    "std_age",
    "std_copy local",
    "std_copy remote",
    "std_destroy",
    "std_info",
    "std_restrict",
    "std_touch",
    "b_sync",
    "b_status",
    "b_fsck",
    "b_size",
    "b_read",
    "b_create",
    "b_modify",
    "b_insert",
    "b_delete",
    "b_disk_compact",
    "moved files",
    "requests", // what every server says
];

#[test]
fn the_status_has_what_the_originals_had_in_its_order() {
    let (world, running, server) = system();
    let file = bullet::create(&world, &server, COMMIT, b"xyz".to_vec()).unwrap();
    for _ in 0..2 {
        standard::restrict(&world, &file, 1).unwrap();
    }
    for _ in 0..3 {
        standard::touch(&world, &file).unwrap();
    }
    bullet::read(&world, &file, 0, 3).unwrap();
    let text = standard::status_text(&world, &server).unwrap();
    assert!(text.lines().next().is_some_and(|head| {
        head.split_whitespace().collect::<Vec<_>>() == ["In", "Use", "Free", "Holes"]
    }));
    let mut lines = text.lines();
    for name in STATUS {
        assert!(lines.any(|line| line.starts_with(name)), "{name} is missing, or not in its place:\n{text}");
    }
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
        line.trim().parse::<u64>().expect("a number")
    };
    let expected = [("std_restrict", 2), ("std_touch", 3), ("b_create", 1), ("b_read", 1), ("b_status", 1)];
    for (name, expected) in expected {
        assert_eq!(count(name), expected, "{name}");
    }
    running.stop().unwrap();
}
