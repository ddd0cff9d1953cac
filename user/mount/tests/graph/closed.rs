//! A mount that is not told of opens and closes, on a host that says what the kernel would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use amoeba_volume::{
    Change, Closed, Error, FileSystem, Handle, Node, OpenMode, Rename, SetAttribute, Writers,
};

use crate::system::{ME, Scene, System};

/// Where opens are not told there is but one handle.
const NONE: Handle = Handle(0);
const WRITE: OpenMode = OpenMode::WRITE;

#[derive(Default)]
struct Host(Mutex<State>);

#[derive(Default)]
struct State {
    writers: BTreeMap<Node, u32>,
    closed: Closed,
    /// What the mount may ask about.
    known: BTreeSet<Node>,
    /// Who has closed these is still counted.
    lags: BTreeSet<Node>,
    /// More is closed than is said.
    loses: bool,
}

impl Host {
    fn open(&self, node: Node) {
        *self.0.lock().unwrap().writers.entry(node).or_default() += 1;
    }

    fn close(&self, node: Node) {
        let mut state = self.0.lock().unwrap();
        *state.writers.get_mut(&node).expect("it is open") -= 1;
        if state.loses {
            state.closed.any = true;
        } else {
            state.closed.nodes.push(node);
            state.known.insert(node);
        }
    }

    fn lag(&self, node: Node, lags: bool) {
        let lagging = &mut self.0.lock().unwrap().lags;
        if lags {
            lagging.insert(node)
        } else {
            lagging.remove(&node)
        };
    }
}

impl Writers for Host {
    fn closed(&self) -> Closed {
        std::mem::take(&mut self.0.lock().unwrap().closed)
    }

    fn is_written(&self, node: Node) -> Option<bool> {
        let state = self.0.lock().unwrap();
        let is_open = state.writers.get(&node).is_some_and(|count| *count > 0);
        state.known.contains(&node).then(|| is_open || state.lags.contains(&node))
    }

    fn look_for(&self, node: Node) {
        self.0.lock().unwrap().known.insert(node);
    }

    fn done(&self, node: Node) {
        self.0.lock().unwrap().known.remove(&node);
    }

    fn wake(&self) {}
}

fn scene(system: &System) -> (Scene, Arc<Host>) {
    told(Scene::quiet(system))
}

fn told(scene: Scene) -> (Scene, Arc<Host>) {
    let host = Arc::new(Host::default());
    scene.files.without_opens(Arc::clone(&host) as _);
    (scene, host)
}

/// Makes a file that is open for writing.
fn create(scene: &Scene, host: &Host, name: &[u8]) -> Node {
    let (entry, _) = scene.files.create(&ME, Node::ROOT, name, 0o644, WRITE).unwrap();
    host.open(entry.attributes.node);
    entry.attributes.node
}

/// Makes a file as programs do.
fn make(scene: &Scene, host: &Host, name: &[u8], bytes: &[u8]) -> Node {
    let node = create(scene, host, name);
    scene.files.write(node, NONE, 0, bytes).unwrap();
    host.close(node);
    node
}

#[test]
fn the_last_who_can_write_commits_and_what_comes_after_comes_after() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let node = create(&scene, &host, b"a");
    host.open(node);
    scene.files.write(node, NONE, 0, b"half").unwrap();
    host.close(node);
    scene.settle();
    let other = Scene::new(&system);
    assert_eq!(other.find(Node::ROOT, b"a"), None, "another can still write it");
    scene.files.write(node, NONE, 0, b"whole").unwrap();
    host.close(node);
    scene.files.rename(Node::ROOT, b"a", Node::ROOT, b"b", Rename::empty()).unwrap();
    // What is renamed has contents: at no moment is there a `b` without them.
    scene.settle();
    other.until(|| other.find(Node::ROOT, b"b").is_some());
    assert_eq!(other.read(Node::ROOT, b"b"), b"whole");
    assert_eq!(other.find(Node::ROOT, b"a"), None);
}

#[test]
fn opens_and_closes_are_refused_and_one_who_makes_what_is_there_has_it_open() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let node = make(&scene, &host, b"a", b"first");
    assert_eq!(scene.files.open(&ME, node, WRITE).err(), Some(Error::NotImplemented));
    assert_eq!(scene.files.flush(node, NONE), Err(Error::NotImplemented));
    let (entry, _) = scene.files.create(&ME, Node::ROOT, b"a", 0o600, WRITE | OpenMode::TRUNCATE).unwrap();
    assert_eq!((entry.attributes.node, entry.attributes.permissions), (node, 0o644));
    assert_eq!(scene.read_node(node), b"");
    host.open(node);
    scene.files.write(node, NONE, 0, b"second").unwrap();
    host.close(node);
    scene.settle();
    assert_eq!(Scene::new(&system).read(Node::ROOT, b"a"), b"second");
}

#[test]
fn what_is_made_only_to_be_read_is_whole_at_once() {
    let system = System::new();
    let (scene, _) = scene(&system);
    scene.files.create(&ME, Node::ROOT, b"lock", 0o644, OpenMode::READ).unwrap();
    scene.settle();
    assert_eq!(Scene::new(&system).read(Node::ROOT, b"lock"), b"");
}

#[test]
fn one_who_is_counted_a_moment_longer_has_closed_all_the_same() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let node = create(&scene, &host, b"a");
    scene.files.write(node, NONE, 0, b"bytes").unwrap();
    host.lag(node, true);
    host.close(node);
    assert!(scene.files.look_at_writers().is_some(), "it is to be looked at again");
    scene.settle();
    let other = Scene::new(&system);
    assert_eq!(other.find(Node::ROOT, b"a"), None);
    // His close has returned, and he does something else.
    host.lag(node, false);
    scene.mkdir(Node::ROOT, b"after");
    scene.settle();
    other.until(|| other.find(Node::ROOT, b"after").is_some());
    assert_eq!(other.read(Node::ROOT, b"a"), b"bytes");
    assert_eq!(scene.files.look_at_writers(), None, "nothing is suspect any more");
}

#[test]
fn what_is_emptied_by_name_is_committed_when_nobody_has_opened_it() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let (emptied, opened) =
        (make(&scene, &host, b"emptied", b"bytes"), make(&scene, &host, b"opened", b"bytes"));
    scene.settle();
    let empty = Change { size: Some(0), ..Change::default() };
    scene.files.setattr(emptied, None, &empty).unwrap();
    host.open(opened);
    scene.files.setattr(opened, None, &empty).unwrap();
    let other = Scene::new(&system);
    other.until(|| {
        scene.files.look_at_writers();
        other.find(Node::ROOT, b"emptied").is_some() && other.read(Node::ROOT, b"emptied").is_empty()
    });
    assert_eq!(other.read(Node::ROOT, b"opened"), b"bytes", "it is being written");
    scene.files.write(opened, NONE, 0, b"new").unwrap();
    host.close(opened);
    scene.settle();
    other.until(|| other.read(Node::ROOT, b"opened") == b"new");
    // Any other size is a whole change.
    let three = Change { size: Some(3), ..Change::default() };
    scene.files.setattr(emptied, None, &three).unwrap();
    scene.settle();
    other.until(|| other.read(Node::ROOT, b"emptied") == [0; 3]);
}

#[test]
fn closes_that_the_host_loses_are_found() {
    let system = System::new();
    let (scene, host) = scene(&system);
    host.0.lock().unwrap().loses = true;
    let open = create(&scene, &host, b"open");
    scene.files.write(open, NONE, 0, b"half").unwrap();
    for number in 0..20 {
        make(&scene, &host, format!("{number}").as_bytes(), b"bytes");
    }
    let other = Scene::new(&system);
    other.until(|| {
        scene.files.look_at_writers();
        other.names(Node::ROOT).len() == 20
    });
    assert_eq!(other.read(Node::ROOT, b"19"), b"bytes");
    assert_eq!(other.find(Node::ROOT, b"open"), None);
    host.close(open);
}

#[test]
fn the_last_to_close_counts_whoever_has_replaced_what_was_open() {
    let system = System::new();
    let (scene, host) = told(Scene::new(&system));
    let other = Scene::new(&system);
    let node = make(&scene, &host, b"a", b"first");
    scene.settle();
    host.open(node);
    other.until(|| other.find(Node::ROOT, b"a").is_some());
    let (theirs, handle) = other.open(Node::ROOT, b"a", WRITE);
    other.files.write(theirs, handle, 0, b"their").unwrap();
    other.close(theirs, handle);
    other.settle();
    scene.until(|| scene.find(Node::ROOT, b"a") != Some(node));
    assert_eq!(scene.read_node(node), b"first", "who has it open has the old version");
    scene.files.write(node, NONE, 0, b"OURS").unwrap();
    host.close(node);
    scene.settle();
    assert_eq!(scene.find(Node::ROOT, b"a"), Some(node));
    other.until(|| other.read(Node::ROOT, b"a") == b"OURSt");
}

#[test]
fn what_the_kernel_forgets_is_committed() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let node = make(&scene, &host, b"a", b"bytes");
    // It says nothing of the close.
    host.closed();
    scene.files.forget(node, 1);
    scene.settle();
    assert_eq!(Scene::new(&system).read(Node::ROOT, b"a"), b"bytes");
}

#[test]
fn what_is_read_on_stays_open_at_its_server_and_ends_with_its_end() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let bytes: Vec<u8> = (0..3 << 16).map(|at: u32| (at >> 8) as u8).collect();
    for number in 0..100 {
        make(&scene, &host, format!("{number}").as_bytes(), &bytes[number..]);
    }
    scene.settle();
    let read = |node, offset, size| {
        let mut read = Vec::new();
        scene.files.read(node, NONE, offset, size, &mut |piece| read.extend_from_slice(piece)).unwrap();
        read
    };
    let nodes: Vec<Node> = (0..100)
        .map(|number| scene.find(Node::ROOT, format!("{number}").as_bytes()).expect("it is there"))
        .collect();
    for offset in [0, 1 << 16, 2 << 16] {
        for (number, node) in nodes.iter().enumerate() {
            let whole = &bytes[number..];
            let end = whole.len().min(offset + (1 << 16));
            assert!(read(*node, offset as u64, 1 << 16) == whole[offset..end], "{number} at {offset}");
        }
    }
}

#[test]
fn attributes_are_changed_after_what_was_closed() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let node = make(&scene, &host, b"a", b"bytes");
    scene.files.setxattr(node, b"user.kept", b"value", SetAttribute::empty()).unwrap();
    scene.settle();
    let other = Scene::new(&system);
    let found = other.find(Node::ROOT, b"a").expect("it was closed before");
    assert_eq!(other.files.getxattr(found, b"user.kept").unwrap(), b"value");
    assert_eq!(other.read_node(found), b"bytes");
}

#[test]
fn attributes_of_a_file_that_nobody_has_seen_are_in_its_first_row_and_come_after_what_was_closed_before() {
    let system = System::new();
    let (scene, host) = scene(&system);
    let permissions = |permissions| Change { permissions: Some(permissions), ..Change::default() };
    make(&scene, &host, b"a", b"first");
    let node = create(&scene, &host, b"b");
    scene.files.setattr(node, None, &permissions(0o600)).unwrap();
    assert_eq!(host.0.lock().unwrap().closed, Closed::default(), "what was closed before is taken before");
    scene.files.write(node, NONE, 0, b"second").unwrap();
    host.close(node);
    scene.files.setattr(node, None, &permissions(0o640)).unwrap();
    scene.settle();
    let other = Scene::new(&system);
    assert_eq!(other.read(Node::ROOT, b"b"), b"second");
    let found = other.find(Node::ROOT, b"b").expect("it was committed");
    assert_eq!(other.files.getattr(found).unwrap().permissions, 0o640);
}
