//! The graph as a file system, over the real servers, in a world of one process: no kernel is asked.

mod closed;
mod model;
mod settle;
mod system;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use amoeba_cap::{Capability, GetPort, PutPort};
use amoeba_name::Attributes;
use amoeba_stubs::directory::CMD_INSTALL;
use amoeba_stubs::{bullet, bullet_stream, directory};
use amoeba_volume::{
    Caller, Change, ChangeTime, Error, FileSystem, Kind, Node, OpenMode, Rename, SetAttribute, Time,
};
use amoeba_world::{Error as TransError, Listener, Message, TransOptions, Transactions};
use system::{ME, Scene, System};

const WRITE: OpenMode = OpenMode::WRITE;

#[test]
fn a_closed_file_is_a_row_and_a_committed_file() {
    let system = System::new();
    let scene = Scene::new(&system);
    scene.write(Node::ROOT, b"a", b"hello");
    scene.settle();
    let found = directory::lookup(&system.world, &system.root, b"a").unwrap();
    let file = *found.set.first().unwrap();
    assert_eq!(bullet_stream::read_whole(&system.world, &file, 100).unwrap(), b"hello");
    let attributes = Attributes::from_bytes(&found.attributes).unwrap();
    assert_eq!(attributes.mode, Some(0o100_644));
    let content = attributes.content.unwrap();
    assert!(content.is_of(&file) && content.size == 5);
    assert_eq!(content.hash, *blake3::hash(b"hello").as_bytes());
    assert_eq!(scene.read(Node::ROOT, b"a"), b"hello");
}

#[test]
fn another_mount_sees_what_was_closed_and_nothing_before() {
    let system = System::new();
    let (one, other) = (Scene::new(&system), Scene::new(&system));
    one.write(Node::ROOT, b"a", b"first");
    one.settle();
    assert_eq!(other.read(Node::ROOT, b"a"), b"first");
    let (node, handle) = one.open(Node::ROOT, b"a", WRITE);
    one.files.write(node, handle, 0, b"SECOND").unwrap();
    assert_eq!(one.read(Node::ROOT, b"a"), b"SECOND");
    one.settle();
    assert_eq!(other.read(Node::ROOT, b"a"), b"first");
    one.close(node, handle);
    one.settle();
    other.until(|| other.read(Node::ROOT, b"a") == b"SECOND");
    one.files.unlink(Node::ROOT, b"a").unwrap();
    other.until(|| other.find(Node::ROOT, b"a").is_none());
}

#[test]
fn trees_are_made_moved_and_removed() {
    let system = System::new();
    let scene = Scene::new(&system);
    let top = scene.mkdir(Node::ROOT, b"top");
    let inner = scene.mkdir(top, b"inner");
    for number in 0..300 {
        scene.write(inner, format!("f{number}").as_bytes(), format!("{number}").as_bytes());
    }
    assert_eq!(scene.files.rmdir(Node::ROOT, b"top"), Err(Error::NotEmpty));
    scene.files.rename(top, b"inner", Node::ROOT, b"moved", Rename::empty()).unwrap();
    assert_eq!(scene.files.rename(Node::ROOT, b"moved", inner, b"x", Rename::empty()), Err(Error::Invalid));
    scene.files.rmdir(Node::ROOT, b"top").unwrap();
    scene.settle();
    let other = Scene::new(&system);
    assert_eq!(other.names(Node::ROOT), [&b"moved"[..]]);
    let moved = other.find(Node::ROOT, b"moved").unwrap();
    assert_eq!(other.names(moved).len(), 300);
    assert_eq!(other.read(moved, b"f299"), b"299");
    for name in other.names(moved) {
        other.files.unlink(moved, &name).unwrap();
    }
    other.files.rmdir(Node::ROOT, b"moved").unwrap();
    other.settle();
    let left = directory::list(&system.world, &system.root, b"", 100).unwrap();
    assert!(left.rows.is_empty());
    // With a mount go the directories that it has made ahead.
    drop((scene, other));
    let used = directory::usage(&system.world, &system.root).unwrap();
    assert_eq!(used.directories, 1, "directories without a name were discarded");
}

#[test]
fn a_rename_replaces_at_once_and_the_old_file_stays_open() {
    let system = System::new();
    let scene = Scene::new(&system);
    scene.write(Node::ROOT, b"a", b"old");
    scene.write(Node::ROOT, b"b", b"new");
    let (node, handle) = scene.open(Node::ROOT, b"a", OpenMode::READ);
    scene.files.rename(Node::ROOT, b"b", Node::ROOT, b"a", Rename::empty()).unwrap();
    assert_eq!(scene.read_node(node), b"old");
    assert_eq!(scene.files.getattr(node).unwrap().links, 0);
    assert_eq!(scene.read(Node::ROOT, b"a"), b"new");
    scene.close(node, handle);
    let keep = scene.files.rename(Node::ROOT, b"a", Node::ROOT, b"a2", Rename::KEEP);
    assert_eq!(keep, Ok(()));
    scene.write(Node::ROOT, b"a", b"third");
    let keep = scene.files.rename(Node::ROOT, b"a", Node::ROOT, b"a2", Rename::KEEP);
    assert_eq!(keep, Err(Error::Exists));
    scene.files.rename(Node::ROOT, b"a", Node::ROOT, b"a2", Rename::EXCHANGE).unwrap();
    scene.settle();
    let other = Scene::new(&system);
    assert_eq!(
        (other.read(Node::ROOT, b"a"), other.read(Node::ROOT, b"a2")),
        (b"new".into(), b"third".into())
    );
}

#[test]
fn a_file_renamed_before_it_was_closed_replaces_when_it_is() {
    let system = System::new();
    let (scene, other) = (Scene::new(&system), Scene::new(&system));
    scene.write(Node::ROOT, b"a", b"old");
    let (node, handle) = scene.create(Node::ROOT, b"part");
    scene.files.write(node, handle, 0, b"half").unwrap();
    scene.files.rename(Node::ROOT, b"part", Node::ROOT, b"a", Rename::empty()).unwrap();
    scene.settle();
    assert_eq!(other.read(Node::ROOT, b"a"), b"old");
    assert_eq!(scene.read(Node::ROOT, b"a"), b"half");
    scene.close(node, handle);
    scene.settle();
    other.until(|| other.read(Node::ROOT, b"a") == b"half");
    assert_eq!(other.names(Node::ROOT), [&b"a"[..]]);
}

#[test]
fn hard_links_are_one_file_also_for_the_next_mount() {
    let system = System::new();
    let scene = Scene::new(&system);
    scene.write(Node::ROOT, b"a", b"one");
    let node = scene.find(Node::ROOT, b"a").unwrap();
    scene.files.link(node, Node::ROOT, b"b").unwrap();
    assert_eq!(scene.files.getattr(node).unwrap().links, 2);
    scene.settle();
    let other = Scene::new(&system);
    let (a, b) = (other.find(Node::ROOT, b"a").unwrap(), other.find(Node::ROOT, b"b").unwrap());
    assert_eq!((a, other.files.getattr(a).unwrap().links), (b, 2));
    let (node, handle) = other.open(Node::ROOT, b"b", WRITE);
    other.files.write(node, handle, 0, b"two").unwrap();
    other.close(node, handle);
    other.settle();
    scene.until(|| scene.read(Node::ROOT, b"a") == b"two");
    scene.files.unlink(Node::ROOT, b"a").unwrap();
    let b = scene.find(Node::ROOT, b"b").unwrap();
    assert_eq!(scene.files.getattr(b).unwrap().links, 1);
}

#[test]
fn attributes_survive_and_bound_what_fits_a_row() {
    let system = System::new();
    let scene = Scene::new(&system);
    scene.write(Node::ROOT, b"a", b"x");
    let node = scene.find(Node::ROOT, b"a").unwrap();
    let time = Time { seconds: -5, nanoseconds: 7 };
    let change = Change {
        permissions: Some(0o4751),
        user: Some(12),
        modified: Some(ChangeTime::To(time)),
        ..Change::default()
    };
    scene.files.setattr(node, None, &change).unwrap();
    scene.files.setxattr(node, b"user.k", b"v", SetAttribute::CREATE).unwrap();
    assert_eq!(scene.files.setxattr(node, b"user.k", b"v", SetAttribute::CREATE), Err(Error::Exists));
    assert_eq!(
        scene.files.setxattr(node, b"user.big", &[7; 4000], SetAttribute::empty()),
        Err(Error::NoSpace)
    );
    scene.settle();
    let other = Scene::new(&system);
    let node = other.find(Node::ROOT, b"a").unwrap();
    let seen = other.files.getattr(node).unwrap();
    assert_eq!((seen.permissions, seen.user, seen.modified), (0o4751, 12, time));
    assert_eq!(other.files.getxattr(node, b"user.k").unwrap(), b"v");
    assert_eq!(other.files.getxattr(node, b"user.amoeba.capability"), Err(Error::NoAttribute));
    // Whoever writes takes the set-id bit off.
    let (node, handle) = other.open(Node::ROOT, b"a", WRITE);
    other.files.write(node, handle, 1, b"y").unwrap();
    other.close(node, handle);
    assert_eq!(other.files.getattr(node).unwrap().permissions, 0o751);
}

#[test]
fn links_and_pipes_are_what_they_were() {
    let system = System::new();
    let scene = Scene::new(&system);
    let long = [b'x'; 4000];
    scene.files.symlink(&ME, Node::ROOT, b"short", b"../there").unwrap();
    scene.files.symlink(&ME, Node::ROOT, b"long", &long).unwrap();
    scene.files.mknod(&ME, Node::ROOT, b"pipe", 0o010_600, 0).unwrap();
    assert_eq!(scene.files.mknod(&ME, Node::ROOT, b"device", 0o020_600, 1), Err(Error::NotPermitted));
    scene.settle();
    let other = Scene::new(&system);
    let link = |name: &[u8]| other.files.readlink(other.find(Node::ROOT, name).unwrap()).unwrap();
    assert_eq!((link(b"short"), link(b"long")), (b"../there".to_vec(), long.to_vec()));
    let pipe = other.find(Node::ROOT, b"pipe").unwrap();
    assert_eq!(other.files.getattr(pipe).unwrap().kind, Kind::Pipe);
}

#[test]
fn what_others_have_put_there_is_shown() {
    let system = System::new();
    let file = bullet::create(&system.world, &system.bullet, bullet::COMMIT, &b"plain"[..]).unwrap();
    let append = |name: &[u8], capability: amoeba_cap::Capability| {
        directory::append(&system.world, &system.root, name, &capability.into(), &[0xFF; 4], &[]).unwrap();
    };
    append(b"plain", file);
    append(b"server", system.bullet);
    append(b"again", system.root);
    let scene = Scene::new(&system);
    assert_eq!(scene.names(Node::ROOT), [&b"again"[..], b"plain", b"server"]);
    assert_eq!(scene.read(Node::ROOT, b"plain"), b"plain");
    let server = scene.find(Node::ROOT, b"server").unwrap();
    assert_eq!(scene.files.open(&ME, server, WRITE).map(drop), Err(Error::AccessDenied));
    assert_eq!(scene.read(Node::ROOT, b"server"), b"bullet server\n");
    let again = scene.find(Node::ROOT, b"again").unwrap();
    assert_eq!(scene.read(again, b"plain"), b"plain");
}

/// Nothing that a program could take for the file's bytes, and nothing that is believed later.
#[test]
fn what_does_not_answer_is_an_error_and_still_has_a_name() {
    let system = System::new();
    let file = bullet::create(&system.world, &system.bullet, bullet::COMMIT, &b"plain"[..]).unwrap();
    let nobody = system.world.transactions.put_port(&GetPort::from_bytes(*b"nobody")).unwrap();
    let lost = amoeba_cap::Capability { port: nobody, ..file };
    for (name, capability) in [(&b"a"[..], file), (b"lost", lost), (b"z", file)] {
        directory::append(&system.world, &system.root, name, &capability.into(), &[0xFF; 4], &[]).unwrap();
    }
    let scene = Scene::new(&system);
    assert_eq!(scene.names(Node::ROOT), [&b"a"[..], b"lost", b"z"]);
    let found = scene.files.lookup(&ME, Node::ROOT, b"lost").map(drop);
    assert_eq!(found, Err(Error::Io));
    directory::replace(&system.world, &system.root, b"lost", &file.into()).unwrap();
    scene.until(|| scene.find(Node::ROOT, b"lost").is_some());
    assert_eq!(scene.read(Node::ROOT, b"lost"), b"plain");
}

#[test]
fn a_capability_without_rights_changes_nothing() {
    let system = System::new();
    let scene = Scene::new(&system);
    scene.write(Node::ROOT, b"a", b"x");
    scene.settle();
    let all = amoeba_cap::Rights::from_bits_retain(0x0F);
    let restricted =
        amoeba_stubs::standard::restrict(&system.world, &system.root, all.bits().into()).unwrap();
    let narrow = Scene::of(&system, restricted);
    assert_eq!(narrow.read(Node::ROOT, b"a"), b"x");
    let none = Some(Error::AccessDenied);
    assert_eq!(narrow.files.mkdir(&ME, Node::ROOT, b"d", 0o755).err(), none);
    assert_eq!(narrow.files.unlink(Node::ROOT, b"a").err(), none);
    let node = narrow.find(Node::ROOT, b"a").unwrap();
    assert_eq!(narrow.files.open(&ME, node, WRITE).err(), none);
    let change = Change { permissions: Some(0), ..Change::default() };
    assert_eq!(narrow.files.setattr(node, None, &change).err(), none);
}

#[test]
fn what_was_synced_is_redone_and_never_replaces_what_came_meanwhile() {
    let system = System::new();
    let folder = {
        let scene = Scene::new(&system);
        scene.write(Node::ROOT, b"a", b"old");
        scene.write(Node::ROOT, b"b", b"old");
        scene.settle();
        for name in [b"a", b"b"] {
            let (node, handle) = scene.open(Node::ROOT, name, WRITE);
            scene.files.write(node, handle, 0, b"synced").unwrap();
            scene.files.fsync(node, handle, false).unwrap();
            scene.files.write(node, handle, 0, b"S").unwrap();
        }
        let (node, handle) = scene.create(Node::ROOT, b"new");
        scene.files.write(node, handle, 0, b"created").unwrap();
        scene.files.fsync(node, handle, false).unwrap();
        scene.kill()
    };
    let file = bullet::create(&system.world, &system.bullet, bullet::COMMIT, &b"theirs"[..]).unwrap();
    directory::replace(&system.world, &system.root, b"b", &file.into()).unwrap();
    let (next, said) = Scene::again(&system, folder);
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(next.read(Node::ROOT, b"a").to_ascii_lowercase(), b"synced");
    assert_eq!(next.read(Node::ROOT, b"new"), b"created");
    assert_eq!(next.read(Node::ROOT, b"b"), b"theirs");
    let names = next.names(Node::ROOT);
    let conflict = names.iter().find(|name| name.starts_with(b"b.conflict-")).expect("both are kept");
    assert_eq!(next.read(Node::ROOT, conflict).to_ascii_lowercase(), b"synced");
    // Once only.
    let folder = next.kill();
    let (_, said) = Scene::again(&system, folder);
    assert!(said.is_empty(), "{said:?}");
}

/// However a sync and a commit fall together, and under whichever name the file was synced.
#[test]
fn what_was_synced_and_committed_is_not_redone() {
    let system = System::new();
    let scene = Scene::new(&system);
    for round in 0..200_u32 {
        let (new, name) = (format!("{round}.new"), format!("{round}"));
        let (node, handle) = scene.create(Node::ROOT, new.as_bytes());
        scene.files.write(node, handle, 0, name.as_bytes()).unwrap();
        scene.close(node, handle);
        if round % 3 == 0 {
            std::thread::yield_now();
        }
        let (_, handle) = scene.open(Node::ROOT, new.as_bytes(), OpenMode::READ);
        scene.files.fsync(node, handle, false).unwrap();
        scene.close(node, handle);
        let how = Rename::empty();
        scene.files.rename(Node::ROOT, new.as_bytes(), Node::ROOT, name.as_bytes(), how).unwrap();
        if round % 5 == 0 {
            scene.files.unlink(Node::ROOT, name.as_bytes()).unwrap();
        }
    }
    scene.settle();
    let names = scene.names(Node::ROOT);
    assert_eq!(names.len(), 160);
    // Notes go right after the commit that they are for: what others remove after that stays away.
    let folder = scene.end();
    for name in &names {
        directory::delete(&system.world, &system.root, name).unwrap();
    }
    let (next, said) = Scene::again(&system, folder);
    assert_eq!((next.names(Node::ROOT), said), (Vec::new(), Vec::new()));
}

/// The first sync is in the journal's log, the next ones are in a file of their own, through a rename and a commit.
#[test]
fn a_file_that_is_synced_again_and_again_survives_a_kill() {
    for rounds in 1..=6_u8 {
        let system = System::new();
        let scene = Scene::quiet(&system);
        let (node, handle) = scene.create(Node::ROOT, b"part");
        let mut expected = Vec::new();
        for round in 0..rounds {
            let piece = vec![b'a' + round; if round == 3 { 300_000 } else { 10 }];
            scene.files.write(node, handle, expected.len() as u64, &piece).unwrap();
            expected.extend(piece);
            scene.files.fsync(node, handle, false).unwrap();
            if round == 1 {
                scene.files.rename(Node::ROOT, b"part", Node::ROOT, b"whole", Rename::empty()).unwrap();
            }
            if round == 4 {
                // This version is committed, and the file is written on.
                scene.files.flush(node, handle).unwrap();
                scene.settle();
            }
        }
        let (next, said) = Scene::again(&system, scene.copy_of_the_folder());
        let name: &[u8] = if rounds == 1 { b"part" } else { b"whole" };
        assert_eq!(next.names(Node::ROOT), [name], "{said:?}");
        assert!(next.read(Node::ROOT, name) == expected, "after {rounds} rounds");
    }
}

/// A mount that is killed between a commit and its note of that does not make a second file of it.
#[test]
fn what_is_there_already_is_no_conflict() {
    let system = System::new();
    let scene = Scene::new(&system);
    let (node, handle) = scene.create(Node::ROOT, b"a");
    scene.files.write(node, handle, 0, b"synced").unwrap();
    scene.files.fsync(node, handle, false).unwrap();
    let kept = scene.copy_of_the_folder();
    scene.close(node, handle);
    scene.settle();
    drop(scene);
    let (next, said) = Scene::again(&system, kept);
    assert_eq!((next.names(Node::ROOT), said), (vec![b"a".to_vec()], Vec::new()));
}

#[test]
fn one_who_must_be_first_gets_another_name_when_he_is_not() {
    let system = System::new();
    let (one, other) = (Scene::quiet(&system), Scene::quiet(&system));
    // Both have looked before.
    assert!(one.find(Node::ROOT, b"lock").is_none() && other.find(Node::ROOT, b"lock").is_none());
    let mode = OpenMode::WRITE | OpenMode::EXCLUSIVE;
    for (scene, text) in [(&one, &b"one"[..]), (&other, b"other")] {
        let (entry, opened) = scene.files.create(&ME, Node::ROOT, b"lock", 0o600, mode).unwrap();
        scene.files.write(entry.attributes.node, opened.handle, 0, text).unwrap();
        scene.close(entry.attributes.node, opened.handle);
        scene.settle();
    }
    let third = Scene::new(&system);
    assert_eq!(third.read(Node::ROOT, b"lock"), b"one");
    let names = third.names(Node::ROOT);
    assert_eq!(names.len(), 2);
    assert_eq!(third.read(Node::ROOT, &names[1]), b"other");
}

#[test]
fn a_lock_file_may_come_and_go() {
    let system = System::new();
    let scene = Scene::new(&system);
    let mode = OpenMode::WRITE | OpenMode::EXCLUSIVE;
    for round in 0..100 {
        let (entry, opened) = scene.files.create(&ME, Node::ROOT, b"lock", 0o600, mode).unwrap();
        let taken = scene.files.create(&ME, Node::ROOT, b"lock", 0o600, mode).err();
        assert_eq!(taken, Some(Error::Exists));
        scene.files.write(entry.attributes.node, opened.handle, 0, &[round]).unwrap();
        scene.close(entry.attributes.node, opened.handle);
        if round % 3 == 0 {
            scene.files.rename(Node::ROOT, b"lock", Node::ROOT, b"kept", Rename::empty()).unwrap();
        } else {
            scene.files.unlink(Node::ROOT, b"lock").unwrap();
        }
    }
    scene.settle();
    let other = Scene::new(&system);
    assert_eq!(other.names(Node::ROOT), [&b"kept"[..]]);
    assert_eq!(other.read(Node::ROOT, b"kept"), [99]);
}

#[test]
fn large_files_go_through_a_scratch_on_the_disk() {
    let system = System::new();
    let scene = Scene::new(&system);
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    scene.write(Node::ROOT, b"a", &bytes);
    scene.settle();
    let other = Scene::new(&system);
    assert!(other.read(Node::ROOT, b"a") == bytes);
    let (node, handle) = other.open(Node::ROOT, b"a", WRITE);
    other.files.write(node, handle, 2_000_000, b"middle").unwrap();
    other.close(node, handle);
    other.settle();
    let mut model = bytes;
    model[2_000_000..2_000_006].copy_from_slice(b"middle");
    scene.until(|| scene.read(Node::ROOT, b"a") == model);
    let change = Change { size: Some(3), ..Change::default() };
    let node = scene.find(Node::ROOT, b"a").unwrap();
    scene.files.setattr(node, None, &change).unwrap();
    scene.settle();
    assert_eq!(Scene::new(&system).read(Node::ROOT, b"a"), model[..3]);
    assert_eq!(
        scene.files.create(&ME, Node::ROOT, &[b'n'; 256], 0o644, WRITE).err(),
        Some(Error::NameTooLong)
    );
}

#[test]
fn a_directory_of_many_rows_is_looked_up_and_listed() {
    let system = System::new();
    let file = bullet::create(&system.world, &system.bullet, bullet::COMMIT, &b"x"[..]).unwrap();
    for number in 0..1500 {
        let name = format!("r{number:04}");
        directory::append(&system.world, &system.root, name.as_bytes(), &file.into(), &[0xFF; 4], &[])
            .unwrap();
    }
    let scene = Scene::new(&system);
    assert!(scene.find(Node::ROOT, b"r1499").is_some());
    assert!(scene.find(Node::ROOT, b"r1500").is_none());
    directory::delete(&system.world, &system.root, b"r1499").unwrap();
    directory::append(&system.world, &system.root, b"r1500", &file.into(), &[0xFF; 4], &[]).unwrap();
    scene.until(|| scene.find(Node::ROOT, b"r1499").is_none() && scene.find(Node::ROOT, b"r1500").is_some());
    assert_eq!(scene.names(Node::ROOT).len(), 1500);
    std::thread::sleep(Duration::from_millis(1));
    let caller = Caller { user: 5, ..ME };
    scene.files.mkdir(&caller, Node::ROOT, b"d", 0o700).unwrap();
    assert_eq!(scene.names(Node::ROOT).len(), 1501);
}

#[test]
fn what_was_made_exclusively_is_ones_own_from_then_on() {
    let system = System::new();
    let scene = Scene::new(&system);
    let mode = OpenMode::WRITE | OpenMode::EXCLUSIVE;
    for number in 0..50 {
        let name = format!("f{number}").into_bytes();
        let (entry, opened) = scene.files.create(&ME, Node::ROOT, &name, 0o600, mode).unwrap();
        let node = entry.attributes.node;
        scene.close(node, opened.handle);
        // Some of these find the file at the servers already, some do not.
        for permissions in 0..5 {
            let change = Change { permissions: Some(permissions), ..Change::default() };
            scene.files.setattr(node, None, &change).unwrap();
        }
    }
    scene.settle();
    assert_eq!(scene.names(Node::ROOT).len(), 50);
    assert_eq!(Scene::new(&system).names(Node::ROOT).len(), 50);
}

#[test]
fn what_was_synced_over_ones_own_commit_is_no_conflict() {
    let system = System::new();
    let folder = {
        let scene = Scene::new(&system);
        let (node, handle) = scene.create(Node::ROOT, b"a");
        for round in 0..5 {
            scene.files.write(node, handle, 0, &[b'0' + round]).unwrap();
            // One of several descriptors is closed: this is committed while the file is written on.
            scene.files.flush(node, handle).unwrap();
            scene.files.write(node, handle, 1, b" synced").unwrap();
            scene.files.fsync(node, handle, false).unwrap();
        }
        scene.settle();
        scene.kill()
    };
    let (next, said) = Scene::again(&system, folder);
    assert_eq!(next.names(Node::ROOT), [&b"a"[..]], "{said:?}");
    assert_eq!(next.read(Node::ROOT, b"a"), b"4 synced");
}

/// Transactions that somebody looks at before they are made.
struct Watched<W>(Arc<dyn Transactions>, W);

impl<W: Fn(&Message) + Send + Sync> Transactions for Watched<W> {
    fn trans(&self, request: Message, options: &TransOptions) -> Result<Message, TransError> {
        (self.1)(&request);
        self.0.trans(request, options)
    }
    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, TransError> {
        self.0.listen(port, request_size_max)
    }
    fn put_port(&self, port: &GetPort) -> Result<PutPort, TransError> {
        self.0.put_port(port)
    }
}

/// Has installs wait until they are let through.
#[derive(Default)]
struct Gate(Mutex<Counts>, Condvar);

#[derive(Default)]
struct Counts {
    /// Installs that have come, and those that may pass.
    come: usize,
    pass: usize,
    /// Transactions with the file server.
    files: usize,
}

impl Gate {
    fn come(&self, request: &Message, file_server: PutPort) {
        let mut counts = self.0.lock().unwrap();
        counts.files += usize::from(request.header.port == file_server);
        let is_install = request.header.command == CMD_INSTALL.0;
        counts.come += usize::from(is_install);
        let number = counts.come;
        self.1.notify_all();
        if is_install {
            drop(self.1.wait_while(counts, |counts| counts.pass < number).unwrap());
        }
    }
    fn wait(&self, what: impl Fn(&Counts) -> bool) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |counts| !what(counts)).unwrap());
    }
    fn let_pass(&self, count: usize) {
        self.0.lock().unwrap().pass = count;
        self.1.notify_all();
    }
}

/// As programs do that lock a file, write what is to replace it into the lock, and rename that; while everything is on its way.
#[test]
fn a_name_that_was_left_twice_is_not_there_in_between() {
    let mut system = System::new();
    let gate = Arc::new(Gate::default());
    gate.let_pass(usize::MAX);
    let (at, file_server) = (gate.clone(), system.bullet.port);
    let watch = move |request: &Message| at.come(request, file_server);
    system.world.transactions = Arc::new(Watched(Arc::clone(&system.world.transactions), watch));
    let scene = Scene::quiet(&system);
    scene.write(Node::ROOT, b"lock", b"0");
    scene.settle();
    let (come, files) = {
        let counts = gate.0.lock().unwrap();
        (counts.come, counts.files)
    };
    let rename =
        |to: &[u8]| scene.files.rename(Node::ROOT, b"lock", Node::ROOT, to, Rename::empty()).unwrap();
    gate.let_pass(come);
    rename(b"file");
    gate.wait(|counts| counts.come == come + 1);
    scene.write(Node::ROOT, b"lock", b"1");
    let mut seen = Vec::new();
    std::thread::scope(|threads| {
        // Somebody waits: so the lock is a batch of its own.
        threads.spawn(|| scene.settle());
        gate.wait(|counts| counts.files > files);
        rename(b"file");
        for passed in 1..3 {
            gate.let_pass(come + passed);
            gate.wait(|counts| counts.come == come + passed + 1);
            seen.push(scene.find(Node::ROOT, b"lock"));
        }
        gate.let_pass(usize::MAX);
    });
    assert_eq!(seen, [None, None]);
    scene.settle();
    assert_eq!(scene.names(Node::ROOT), [&b"file"[..]]);
    assert_eq!(scene.read(Node::ROOT, b"file"), b"1");
}

#[test]
fn a_listing_asks_each_server_that_is_gone_once() {
    let mut system = System::new();
    let world = system.world.clone();
    let counted: Arc<Mutex<BTreeMap<PutPort, usize>>> = Arc::default();
    let counts = Arc::clone(&counted);
    let count = move |request: &Message| *counts.lock().unwrap().entry(request.header.port).or_default() += 1;
    let port = |number: u8| PutPort::from_bytes([0xEE, 1, 2, 3, 4, number]);
    let mut names = Vec::new();
    for index in 0..12_u8 {
        // Six objects of one server, and one each of six others.
        let private = system.bullet.private;
        let gone = Capability { port: port(index.saturating_sub(5)), private };
        let name = format!("gone{index:02}").into_bytes();
        directory::append(&world, &system.root, &name, &gone.into(), &[0xFF; 4], &[]).unwrap();
        names.push(name);
    }
    system.world.transactions = Arc::new(Watched(Arc::clone(&world.transactions), count));
    let scene = Scene::quiet(&system);
    assert_eq!(scene.names(Node::ROOT), names);
    let asked = counted.lock().unwrap().clone();
    for number in 0..7 {
        assert_eq!(asked.get(&port(number)), Some(&1), "{number}");
    }
}
