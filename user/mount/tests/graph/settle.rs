//! A mount that goes on says when what was done is at the servers; and what a killed one has left needs no next one.

use std::time::Duration;

use amoeba_mount::{Unfinished, clear, redo};
use amoeba_volume::{FileSystem, Node};

use crate::system::{Scene, System};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn what_was_closed_is_there_when_it_has_settled_and_what_is_open_stays_open() {
    let system = System::new();
    let scene = Scene::quiet(&system);
    let (open, handle) = scene.create(Node::ROOT, b"open");
    scene.files.write(open, handle, 0, b"half").unwrap();
    for number in 0..100 {
        scene.write(Node::ROOT, format!("closed-{number}").as_bytes(), b"whole");
    }
    assert_eq!(scene.files.settle(LONG), Ok(()));
    let other = Scene::new(&system);
    assert_eq!(other.read(Node::ROOT, b"closed-99"), b"whole");
    assert_eq!(other.find(Node::ROOT, b"open"), None);
    // What waits and does not get there in time is counted, and still gets there.
    scene.write(Node::ROOT, b"late", b"x");
    assert!(matches!(scene.files.settle(Duration::ZERO), Ok(()) | Err(Unfinished(1..))));
    assert_eq!(scene.files.settle(LONG), Ok(()));
    assert_eq!(scene.files.refused(), 0);
    scene.close(open, handle);
}

#[test]
fn what_others_have_changed_is_seen_when_it_has_looked() {
    let system = System::new();
    let (scene, other) = (Scene::quiet(&system), Scene::new(&system));
    for round in 0..20_u8 {
        let name = [b'a' + round];
        assert_eq!(scene.find(Node::ROOT, &name), None);
        other.write(Node::ROOT, &name, b"new");
        assert_eq!(other.files.settle(LONG), Ok(()));
        assert_eq!(scene.find(Node::ROOT, &name), None);
        scene.files.look(LONG);
        assert_eq!(scene.read(Node::ROOT, &name), b"new");
    }
}

#[test]
fn what_the_servers_refuse_is_counted() {
    let system = System::new();
    let (scene, other) = (Scene::quiet(&system), Scene::quiet(&system));
    scene.mkdir(Node::ROOT, b"d");
    assert_eq!(scene.files.settle(LONG), Ok(()));
    let gone = other.find(Node::ROOT, b"d").expect("it is at the servers");
    let (node, handle) = other.create(gone, b"a");
    scene.files.rmdir(Node::ROOT, b"d").unwrap();
    assert_eq!(scene.files.settle(LONG), Ok(()));
    other.files.write(node, handle, 0, b"nowhere to go").unwrap();
    // It may hear of it.
    let _ = other.files.flush(node, handle);
    other.files.release(node, handle);
    assert_eq!(other.files.settle(LONG), Ok(()));
    assert!(other.files.refused() > 0);
    assert_eq!(scene.files.refused(), 0);
}

#[test]
fn what_was_synced_is_committed_without_another_mount() {
    let system = System::new();
    let scene = Scene::new(&system);
    let (node, handle) = scene.create(Node::ROOT, b"synced");
    scene.files.write(node, handle, 0, b"bytes").unwrap();
    scene.files.fsync(node, handle, false).unwrap();
    let folder = scene.kill();
    assert!(!clear(&folder).unwrap());
    let said = redo(&system.world, &folder, &system.bullet).unwrap();
    assert_eq!(said, ["synced was synced and is committed now"]);
    assert_eq!(redo(&system.world, &folder, &system.bullet).unwrap(), Vec::<String>::new());
    assert_eq!(Scene::new(&system).read(Node::ROOT, b"synced"), b"bytes");
    assert!(clear(&folder).unwrap() && !folder.exists());
    assert_eq!(redo(&system.world, &folder, &system.bullet).unwrap(), Vec::<String>::new());
}
