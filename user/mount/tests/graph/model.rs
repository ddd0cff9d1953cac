//! Whatever is done to the graph has the effect that it has on the file system in memory: here, and for the next mount.

use std::collections::BTreeMap;

use crate::system::{ME, Scene, System};
use amoeba_volume::{Error, FileSystem, Handle, Kind, MemoryFileSystem, Node, OpenMode, Rename};
use proptest::prelude::*;

const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
const OPERATIONS: usize = 60;

/// Something to do at a name of the root, or of the directory `d` in it.
#[derive(Clone, Debug)]
enum Step {
    Write(bool, usize, u8),
    Append(bool, usize, u8),
    Truncate(bool, usize, u64),
    Mkdir(bool, usize),
    Symlink(bool, usize, u8),
    Unlink(bool, usize),
    Rmdir(bool, usize),
    Link((bool, usize), (bool, usize)),
    Rename((bool, usize), (bool, usize), u32),
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || (any::<bool>(), 0..NAMES.len());
    let step = prop_oneof![
        4 => (name(), any::<u8>()).prop_map(|((deep, name), byte)| Step::Write(deep, name, byte)),
        2 => (name(), any::<u8>()).prop_map(|((deep, name), byte)| Step::Append(deep, name, byte)),
        1 => (name(), 0..9_u64).prop_map(|((deep, name), size)| Step::Truncate(deep, name, size)),
        2 => name().prop_map(|(deep, name)| Step::Mkdir(deep, name)),
        1 => (name(), any::<u8>()).prop_map(|((deep, name), byte)| Step::Symlink(deep, name, byte)),
        2 => name().prop_map(|(deep, name)| Step::Unlink(deep, name)),
        1 => name().prop_map(|(deep, name)| Step::Rmdir(deep, name)),
        2 => (name(), name()).prop_map(|(from, to)| Step::Link(from, to)),
        4 => (name(), name(), 0..3_u32).prop_map(|(from, to, how)| Step::Rename(from, to, how)),
        1 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..OPERATIONS)
}

fn find(files: &dyn FileSystem, directory: Node, name: &[u8]) -> Result<Node, Error> {
    files.lookup(&ME, directory, name).map(|entry| entry.attributes.node)
}

/// The directory that a step means, if it is there.
fn directory(files: &dyn FileSystem, deep: bool) -> Result<Node, Error> {
    if deep { find(files, Node::ROOT, b"d") } else { Ok(Node::ROOT) }
}

fn change(
    files: &dyn FileSystem,
    node: Node,
    how: impl FnOnce(Handle) -> Result<(), Error>,
) -> Result<(), Error> {
    let handle = files.open(&ME, node, OpenMode::WRITE)?.handle;
    let done = how(handle);
    let closed = files.flush(node, handle);
    files.release(node, handle);
    // The one in memory does not ask to be told.
    done.and(if closed == Err(Error::NotImplemented) { Ok(()) } else { closed })
}

fn apply(files: &dyn FileSystem, step: &Step) -> Result<(), Error> {
    match *step {
        Step::Write(deep, name, byte) => {
            let directory = directory(files, deep)?;
            let mode = OpenMode::WRITE | OpenMode::TRUNCATE;
            let (entry, opened) = files.create(&ME, directory, NAMES[name], 0o644, mode)?;
            let node = entry.attributes.node;
            files.write(node, opened.handle, 0, &[byte; 5])?;
            change(files, node, |_| Ok(()))?;
            let _ = files.flush(node, opened.handle);
            files.release(node, opened.handle);
            Ok(())
        }
        Step::Append(deep, name, byte) => {
            let node = find(files, directory(files, deep)?, NAMES[name])?;
            let size = files.getattr(node)?.size;
            change(files, node, |handle| files.write(node, handle, size, &[byte; 3]))
        }
        Step::Truncate(deep, name, size) => {
            let node = find(files, directory(files, deep)?, NAMES[name])?;
            let change = amoeba_volume::Change { size: Some(size), ..Default::default() };
            files.setattr(node, None, &change).map(drop)
        }
        Step::Mkdir(deep, name) => files.mkdir(&ME, directory(files, deep)?, NAMES[name], 0o755).map(drop),
        Step::Symlink(deep, name, byte) => {
            files.symlink(&ME, directory(files, deep)?, NAMES[name], &[byte.max(1)]).map(drop)
        }
        Step::Unlink(deep, name) => files.unlink(directory(files, deep)?, NAMES[name]),
        Step::Rmdir(deep, name) => files.rmdir(directory(files, deep)?, NAMES[name]),
        Step::Link((deep, name), (to_deep, to_name)) => {
            let node = find(files, directory(files, deep)?, NAMES[name])?;
            files.link(node, directory(files, to_deep)?, NAMES[to_name]).map(drop)
        }
        Step::Rename((deep, name), (to_deep, to_name), how) => {
            let (from, to) = (directory(files, deep)?, directory(files, to_deep)?);
            let how = Rename::from_bits_truncate(how);
            files.rename(from, NAMES[name], to, NAMES[to_name], how)
        }
        Step::Settle => Ok(()),
    }
}

/// What a person sees below a directory: bytes, links and how many names a file has.
fn seen(files: &dyn FileSystem, directory: Node, depth: usize) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    for name in NAMES {
        let Ok(node) = find(files, directory, name) else { continue };
        let attributes = files.getattr(node).unwrap();
        let what = match attributes.kind {
            Kind::Directory if depth == 0 => "deeper".to_owned(),
            Kind::Directory => format!("{:?}", seen(files, node, depth - 1)),
            Kind::SymbolicLink => format!("to {:?}", files.readlink(node).unwrap()),
            _ => {
                let mut bytes = Vec::new();
                let mut give = |piece: &[u8]| bytes.extend_from_slice(piece);
                files.read(node, Handle(0), 0, 1 << 20, &mut give).unwrap();
                assert_eq!(attributes.size, bytes.len() as u64);
                format!("{bytes:?} {}", attributes.links)
            }
        };
        all.insert(name.to_vec(), what);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_graph_does_what_memory_does(steps in steps()) {
        let system = System::new();
        let model = MemoryFileSystem::new(system.world.clock.clone(), 1 << 20);
        let scene = Scene::new(&system);
        for step in &steps {
            let (expected, done) = (apply(&model, step), apply(&scene.files, step));
            prop_assert_eq!(done, expected, "{:?}", step);
            if matches!(step, Step::Settle) {
                scene.settle();
            }
        }
        let expected = seen(&model, Node::ROOT, 3);
        prop_assert_eq!(seen(&scene.files, Node::ROOT, 3), expected.clone());
        scene.settle();
        prop_assert_eq!(seen(&scene.files, Node::ROOT, 3), expected.clone());
        let next = Scene::new(&system);
        prop_assert_eq!(seen(&next.files, Node::ROOT, 3), expected);
    }
}
