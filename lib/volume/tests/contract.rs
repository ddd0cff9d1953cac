//! What every file system promises, on the one in memory.

use std::sync::Arc;
use std::time::Duration;

use amoeba_volume::{
    Caller, Change, ChangeTime, Error, FileSystem, Handle, Kind, MemoryFileSystem, NAME_SIZE_MAX, Node,
    OpenMode, Rename, SetAttribute, Time,
};
use amoeba_world::Clock;

const SIZE_MAX: u64 = 64 << 20;
const SOMEBODY: Caller = Caller { user: 7, group: 8, process: 9 };
const ROOT: Node = Node::ROOT;

struct Still;

impl Clock for Still {
    fn unix_time(&self) -> Duration {
        Duration::new(1_000, 5)
    }
}

fn files() -> MemoryFileSystem {
    MemoryFileSystem::new(Arc::new(Still), SIZE_MAX)
}

fn file(files: &MemoryFileSystem, directory: Node, name: &str) -> Node {
    let mode = OpenMode::READ | OpenMode::WRITE;
    let (entry, opened) = files.create(&SOMEBODY, directory, name.as_bytes(), 0o640, mode).unwrap();
    files.release(entry.attributes.node, opened.handle);
    entry.attributes.node
}

fn directory(files: &MemoryFileSystem, parent: Node, name: &str) -> Node {
    files.mkdir(&SOMEBODY, parent, name.as_bytes(), 0o755).unwrap().attributes.node
}

fn found(files: &MemoryFileSystem, parent: Node, name: &str) -> Result<Node, Error> {
    let entry = files.lookup(&SOMEBODY, parent, name.as_bytes())?;
    files.forget(entry.attributes.node, 1);
    Ok(entry.attributes.node)
}

fn contents(files: &MemoryFileSystem, node: Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    files.read(node, Handle(0), 0, 1 << 20, &mut |part| bytes.extend_from_slice(part)).unwrap();
    bytes
}

fn links(files: &MemoryFileSystem, node: Node) -> u32 {
    files.getattr(node).unwrap().links
}

fn listed(files: &MemoryFileSystem, node: Node) -> Vec<String> {
    let mut names = Vec::new();
    let take = &mut |line: &amoeba_volume::DirectoryEntry<'_>| {
        names.push(String::from_utf8(line.name.to_vec()).unwrap());
        true
    };
    files.readdir(node, Handle(0), 0, false, take).unwrap();
    names
}

#[test]
fn what_is_made_belongs_to_its_maker() {
    let files = files();
    let attributes = files.getattr(file(&files, ROOT, "a")).unwrap();
    assert_eq!((attributes.user, attributes.group, attributes.permissions), (7, 8, 0o640));
    assert_eq!((attributes.kind, attributes.links, attributes.size), (Kind::File, 1, 0));
    assert_eq!(attributes.modified, Time { seconds: 1_000, nanoseconds: 5 });
    let again = files.create(&SOMEBODY, ROOT, b"a", 0o600, OpenMode::EXCLUSIVE).map(drop);
    assert_eq!(again, Err(Error::Exists));
    assert_eq!(files.mkdir(&SOMEBODY, ROOT, b"a", 0o755), Err(Error::Exists));
}

#[test]
fn what_is_made_in_a_directory_of_a_group_gets_the_group() {
    let files = files();
    let shared = directory(&files, ROOT, "shared");
    let change = Change { group: Some(50), permissions: Some(0o2775), ..Change::default() };
    files.setattr(shared, None, &change).unwrap();
    let (inner, within) = (directory(&files, shared, "inner"), file(&files, shared, "file"));
    let inner = files.getattr(inner).unwrap();
    assert_eq!((inner.group, inner.permissions), (50, 0o2755));
    let within = files.getattr(within).unwrap();
    assert_eq!((within.group, within.permissions), (50, 0o640));
}

#[test]
fn an_unlinked_file_lives_until_it_is_forgotten() {
    let files = files();
    let node = file(&files, ROOT, "a");
    files.write(node, Handle(0), 0, b"still here").unwrap();
    files.unlink(ROOT, b"a").unwrap();
    assert_eq!(found(&files, ROOT, "a"), Err(Error::NotFound));
    assert_eq!(contents(&files, node), b"still here");
    assert_eq!(links(&files, node), 0);
    assert_eq!(files.link(node, ROOT, b"b"), Err(Error::NotFound));
    files.forget(node, 1);
    assert_eq!(files.getattr(node), Err(Error::NotFound));
    let space = files.statfs().unwrap();
    assert_eq!((space.blocks_free, files.node_count()), (space.blocks, 1));
}

#[test]
fn two_names_are_one_file() {
    let files = files();
    let node = file(&files, ROOT, "a");
    assert_eq!(files.link(node, ROOT, b"b").unwrap().attributes.links, 2);
    files.write(node, Handle(0), 0, b"x").unwrap();
    assert_eq!(found(&files, ROOT, "b"), Ok(node));
    // Renaming one over the other does nothing.
    files.rename(ROOT, b"a", ROOT, b"b", Rename::empty()).unwrap();
    assert_eq!(links(&files, node), 2);
    files.unlink(ROOT, b"a").unwrap();
    assert_eq!(links(&files, node), 1);
    let inner = directory(&files, ROOT, "d");
    assert_eq!(files.link(inner, ROOT, b"e"), Err(Error::NotPermitted));
}

#[test]
fn a_rename_replaces() {
    let files = files();
    let (old, new) = (file(&files, ROOT, "old"), file(&files, ROOT, "new"));
    let keep = files.rename(ROOT, b"new", ROOT, b"old", Rename::KEEP);
    assert_eq!(keep, Err(Error::Exists));
    files.rename(ROOT, b"new", ROOT, b"old", Rename::empty()).unwrap();
    assert_eq!(found(&files, ROOT, "old"), Ok(new));
    assert_eq!(found(&files, ROOT, "new"), Err(Error::NotFound));
    assert_eq!(links(&files, old), 0);
}

#[test]
fn directories_are_moved_with_their_links() {
    let files = files();
    let (a, b) = (directory(&files, ROOT, "a"), directory(&files, ROOT, "b"));
    let inner = directory(&files, a, "inner");
    assert_eq!((links(&files, ROOT), links(&files, a), links(&files, b)), (4, 3, 2));
    files.rename(a, b"inner", b, b"moved", Rename::empty()).unwrap();
    assert_eq!((links(&files, a), links(&files, b)), (2, 3));
    // Not below itself.
    assert_eq!(files.rename(ROOT, b"b", inner, b"x", Rename::empty()), Err(Error::Invalid));
    // Over an empty one, which is gone then; not over a full one.
    assert_eq!(files.rename(ROOT, b"a", ROOT, b"b", Rename::empty()), Err(Error::NotEmpty));
    files.rename(b, b"moved", ROOT, b"a", Rename::empty()).unwrap();
    assert_eq!((links(&files, ROOT), links(&files, b)), (4, 2));
    assert_eq!(found(&files, ROOT, "a"), Ok(inner));
    assert_eq!(files.mkdir(&SOMEBODY, a, b"late", 0o755), Err(Error::NotFound));
}

#[test]
fn names_change_places() {
    let files = files();
    let (a, b) = (directory(&files, ROOT, "a"), directory(&files, ROOT, "b"));
    let (inner, other) = (directory(&files, a, "x"), file(&files, b, "y"));
    files.rename(a, b"x", b, b"y", Rename::EXCHANGE).unwrap();
    assert_eq!((found(&files, a, "x"), found(&files, b, "y")), (Ok(other), Ok(inner)));
    assert_eq!((links(&files, a), links(&files, b)), (2, 3));
    assert_eq!(files.rename(ROOT, b"a", ROOT, b"none", Rename::EXCHANGE), Err(Error::NotFound));
    assert_eq!(files.rename(b, b"y", ROOT, b"b", Rename::EXCHANGE), Err(Error::Invalid));
}

#[test]
fn what_is_wrong_is_refused() {
    let files = files();
    let (dir, node) = (directory(&files, ROOT, "d"), file(&files, ROOT, "f"));
    file(&files, dir, "within");
    assert_eq!(files.unlink(ROOT, b"d"), Err(Error::IsDirectory));
    assert_eq!(files.rmdir(ROOT, b"f"), Err(Error::NotDirectory));
    assert_eq!(files.rmdir(ROOT, b"d"), Err(Error::NotEmpty));
    assert_eq!(files.rename(ROOT, b"f", ROOT, b"d", Rename::empty()), Err(Error::IsDirectory));
    assert_eq!(files.rename(ROOT, b"d", ROOT, b"f", Rename::empty()), Err(Error::NotDirectory));
    assert_eq!(found(&files, node, "x"), Err(Error::NotDirectory));
    assert_eq!(found(&files, ROOT, &"n".repeat(NAME_SIZE_MAX + 1)), Err(Error::NameTooLong));
    assert_eq!(files.readlink(node), Err(Error::Invalid));
    assert_eq!(files.write(node, Handle(0), u64::MAX, b"x"), Err(Error::TooLarge));
    assert_eq!(files.write(node, Handle(0), i64::MAX as u64, b"x"), Err(Error::TooLarge));
    assert_eq!(files.getattr(Node(999)), Err(Error::NotFound));
}

#[test]
fn what_is_full_is_full_and_has_room_again() {
    let files = files();
    let node = file(&files, ROOT, "f");
    let mebibyte = vec![1; 1 << 20];
    for index in 0..SIZE_MAX >> 20 {
        files.write(node, Handle(0), index << 20, &mebibyte).unwrap();
    }
    assert_eq!(files.write(node, Handle(0), SIZE_MAX, b"x"), Err(Error::NoSpace));
    assert_eq!(files.getattr(node).unwrap().size, SIZE_MAX);
    // What was there can be written over.
    files.write(node, Handle(0), 5, b"x").unwrap();
    files.setattr(node, None, &Change { size: Some(1), ..Change::default() }).unwrap();
    files.write(node, Handle(0), SIZE_MAX, b"x").unwrap();
}

#[test]
fn a_listing_goes_on_whatever_comes_and_goes() {
    let files = files();
    for index in 0..100 {
        file(&files, ROOT, &format!("{index:03}"));
    }
    let (mut seen, mut offset) = (Vec::new(), 0);
    loop {
        let (mut taken, from) = (0, offset);
        let take = &mut |line: &amoeba_volume::DirectoryEntry<'_>| {
            if taken == 7 {
                return false;
            }
            taken += 1;
            offset = line.next;
            seen.push(String::from_utf8(line.name.to_vec()).unwrap());
            true
        };
        files.readdir(ROOT, Handle(0), from, false, take).unwrap();
        if taken == 0 {
            break;
        }
        // What was seen goes away, as `rm -r` does it, and something else comes.
        for name in &seen {
            let _ = files.unlink(ROOT, name.as_bytes());
        }
        let many = seen.len();
        if many < 30 {
            file(&files, ROOT, &format!("new {many}"));
        }
    }
    for index in 0..100 {
        let name = format!("{index:03}");
        assert_eq!(seen.iter().filter(|other| **other == name).count(), 1, "{name}");
    }
    assert_eq!(listed(&files, ROOT), [".", ".."]);
}

#[test]
fn entries_of_a_listing_are_remembered_if_they_were_taken() {
    let files = files();
    for name in ["a", "b"] {
        let node = file(&files, ROOT, name);
        files.forget(node, 1);
    }
    let mut taken = Vec::new();
    let take = &mut |line: &amoeba_volume::DirectoryEntry<'_>| {
        if taken.len() == 1 {
            return false;
        }
        taken.extend(line.entry.map(|entry| entry.attributes.node));
        true
    };
    files.readdir(ROOT, Handle(0), 0, true, take).unwrap();
    for name in ["a", "b"] {
        files.unlink(ROOT, name.as_bytes()).unwrap();
    }
    assert_eq!(files.node_count(), 2);
    files.forget(taken[0], 1);
    assert_eq!(files.node_count(), 1);
}

#[test]
fn times_are_set_to_the_nanosecond() {
    let files = files();
    let node = file(&files, ROOT, "f");
    let (accessed, modified) =
        (Time { seconds: -5, nanoseconds: 999_999_999 }, Time { seconds: 1 << 33, nanoseconds: 1 });
    let (to_accessed, to_modified) = (Some(ChangeTime::To(accessed)), Some(ChangeTime::To(modified)));
    let change = Change { accessed: to_accessed, modified: to_modified, ..Change::default() };
    let attributes = files.setattr(node, None, &change).unwrap();
    assert_eq!((attributes.accessed, attributes.modified), (accessed, modified));
}

#[test]
fn extended_attributes() {
    let files = files();
    let node = file(&files, ROOT, "f");
    let set = |how| files.setxattr(node, b"user.a", b"1", how);
    assert_eq!(set(SetAttribute::REPLACE), Err(Error::NoAttribute));
    set(SetAttribute::CREATE).unwrap();
    assert_eq!(set(SetAttribute::CREATE), Err(Error::Exists));
    files.setxattr(node, b"user.b", b"", SetAttribute::empty()).unwrap();
    assert_eq!(files.listxattr(node).unwrap(), [b"user.a", b"user.b"]);
    assert_eq!(files.getxattr(node, b"user.a").unwrap(), b"1");
    files.removexattr(node, b"user.a").unwrap();
    assert_eq!(files.getxattr(node, b"user.a"), Err(Error::NoAttribute));
}

#[test]
fn who_writes_a_program_takes_its_privileges_away() {
    let files = files();
    let node = file(&files, ROOT, "f");
    let give = || {
        files.setattr(node, None, &Change { permissions: Some(0o6755), ..Change::default() }).unwrap();
        files.setxattr(node, b"security.capability", b"x", SetAttribute::empty()).unwrap();
    };
    let has = || (files.getattr(node).unwrap().permissions, files.listxattr(node).unwrap().len());
    give();
    assert_eq!(has(), (0o6755, 1));
    files.write(node, Handle(0), 0, b"x").unwrap();
    assert_eq!(has(), (0o755, 0));
    give();
    files.setattr(node, None, &Change { size: Some(0), ..Change::default() }).unwrap();
    assert_eq!(has(), (0o755, 0));
    give();
    files.setattr(node, None, &Change { user: Some(0), ..Change::default() }).unwrap();
    assert_eq!(has(), (0o755, 0));
}
