//! A caller's files as a host elsewhere has them, through both ends and a world of one process; and hosts that ask for
//! what is none of their business.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use amoeba_cap::Capability;
use amoeba_stubs::view::{self, ChangeRecord};
use amoeba_view::away::{Owner, Store, Visible, begin};
use amoeba_view::home::{Done, Server, Shown};
use amoeba_volume::{Caller, Error, FileSystem, Node, Notifier, OpenMode, Rename};
use amoeba_wire::Status;
use amoeba_world::World;

const ANYBODY: Caller = Caller { user: 0, group: 0, process: 0 };

/// A caller with a directory of its own, and a host with a store.
struct Pair {
    place: PathBuf,
    server: Arc<Server>,
    world: World,
    store: Arc<Store>,
    run: Capability,
}

impl Pair {
    fn new(name: &str) -> Pair {
        Pair::with_closed(name, "work/closed")
    }

    fn with_closed(name: &str, closed: &str) -> Pair {
        let place = std::env::temp_dir().join(format!("amoeba-view-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        for part in ["work/inner", "read", "outside"] {
            fs::create_dir_all(place.join(part)).unwrap();
        }
        let place = fs::canonicalize(&place).unwrap();
        fs::write(place.join("outside/secret"), "secret").unwrap();
        fs::write(place.join("read/file"), "to be read").unwrap();
        let (home, away) = amoeba_loopback::two_processes();
        let shown = [
            Shown { path: place.join("work"), writable: true, public: false },
            Shown { path: place.join("read"), writable: false, public: true },
            Shown { path: place.join("missing"), writable: true, public: false },
        ];
        let server = Server::start(&home, &shown, &[place.join(closed)]).unwrap();
        let store = Arc::new(Store::open(&place.join("store"), 1 << 30).unwrap());
        let run = server.admit().unwrap();
        Pair { place, server, world: away, store, run }
    }

    /// The path of something of the caller's, as requests name it.
    fn path(&self, name: &str) -> Vec<u8> {
        self.place.join(name).to_str().unwrap()[1..].into()
    }

    fn writable(&self) -> Visible {
        let owner = Owner { user: 7, group: 8, is_alone: false };
        let files = Visible::to_write(&self.world, &self.store, [1; 32], owner, &self.path("work"));
        begin(&[&files], self.run);
        files
    }

    fn readable(&self) -> Visible {
        let files =
            Visible::to_read(&self.world, &self.store, [1; 32], Owner { user: 7, group: 8, is_alone: false });
        begin(&[&files], self.run);
        files
    }

    fn at_home(&self, name: &str) -> String {
        fs::read_to_string(self.place.join(name)).unwrap()
    }

    /// Asks for everything that a host could ask for with these names.
    fn attack(&self, kind: u8, path: &[u8], other: &[u8], mode: u16) {
        let short = |bytes: &[u8], max| -> Vec<u8> {
            bytes.iter().copied().filter(|byte| *byte != 0).take(max).collect()
        };
        let path = short(path, 1000);
        let other = short(other, view::NAME_MAX);
        let run = self.server.admit().unwrap();
        let inside = [self.path("work/"), path.clone()].concat();
        for (path, sequence) in [(path, 1), (inside, 2)] {
            let _ = view::lookup(&self.world, &run, &path);
            let _ = view::list(&self.world, &run, &path, &other);
            let _ = view::read(&self.world, &run, &[0; 16], u64::MAX, u32::MAX, &path);
            let wanted = ChangeRecord { other: other.clone(), mode, ..change(kind % 13, path) };
            assert_eq!(view::apply(&self.world, &run, 1, sequence, &[wanted]).unwrap().len(), 1);
        }
        self.server.dismiss(&run);
    }

    fn change(&self, sequence: u64, change: ChangeRecord) -> view::OutcomeRecord {
        view::apply(&self.world, &self.run, 1, sequence, &[change]).unwrap().remove(0)
    }
}

/// Nothing of a pair is looked at after a panic.
impl std::panic::RefUnwindSafe for Pair {}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn change(kind: u8, path: Vec<u8>) -> ChangeRecord {
    let (other, data, base) = (Vec::new(), Vec::new(), [0; 16]);
    ChangeRecord { kind, path, other, mode: 0o644, seconds: 1, nanoseconds: 2, base, upload: 0, data }
}

/// The node at a path below the root of the mount.
fn walk(files: &Visible, path: &str) -> Result<Node, Error> {
    path.split('/').try_fold(Node::ROOT, |at, name| {
        files.lookup(&ANYBODY, at, name.as_bytes()).map(|entry| entry.attributes.node)
    })
}

fn contents(files: &Visible, node: Node) -> Result<Vec<u8>, Error> {
    let opened = files.open(&ANYBODY, node, OpenMode::READ)?;
    let mut data = Vec::new();
    files.read(node, opened.handle, 0, 1 << 20, &mut |bytes| data.extend_from_slice(bytes))?;
    files.release(node, opened.handle);
    Ok(data)
}

fn write(files: &Visible, name: &str, text: &str) -> Node {
    let mode = OpenMode::READ | OpenMode::WRITE;
    let (entry, opened) = files.create(&ANYBODY, Node::ROOT, name.as_bytes(), 0o640, mode).unwrap();
    files.write(entry.attributes.node, opened.handle, 0, text.as_bytes()).unwrap();
    files.release(entry.attributes.node, opened.handle);
    entry.attributes.node
}

#[test]
fn a_host_sees_the_trees_and_the_way_to_them_and_nothing_else() {
    let pair = Pair::new("sees");
    for secret in ["work/.ssh", "work/closed"] {
        fs::create_dir(pair.place.join(secret)).unwrap();
        fs::write(pair.place.join(secret).join("id"), "secret").unwrap();
    }
    fs::write(pair.place.join("read/private"), "secret").unwrap();
    fs::set_permissions(pair.place.join("read/private"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink(pair.place.join("outside"), pair.place.join("work/out")).unwrap();
    symlink("..", pair.place.join("work/up")).unwrap();
    let look = |path: &[u8]| view::lookup(&pair.world, &pair.run, path).map(|node| node.kind);
    assert_eq!(look(b""), Ok(view::KIND_DIRECTORY));
    assert_eq!(look(&pair.path("work/inner")), Ok(view::KIND_DIRECTORY));
    assert_eq!(look(&pair.path("work/out")), Ok(view::KIND_LINK));
    assert_eq!(look(&pair.path("read/file")), Ok(view::KIND_FILE));
    let absent = Err(amoeba_world::Error::Refused(Status::STD_NOTFOUND));
    for hidden in [
        "outside",
        "outside/secret",
        "work/.ssh",
        "work/.ssh/id",
        "work/closed",
        "work/closed/id",
        "read/private",
        "work/out/secret",
        "work/up/outside/secret",
        "missing",
    ] {
        assert_eq!(look(&pair.path(hidden)), absent, "{hidden}");
        let read = view::read(&pair.world, &pair.run, &[0; 16], 0, 10, &pair.path(hidden));
        assert!(read.is_err(), "{hidden}");
    }
    for bad in [&b"/etc"[..], b"..", b"etc/../etc", b"etc//passwd", b"etc/", b"."] {
        assert_eq!(look(bad), Err(amoeba_world::Error::Refused(Status::STD_ARGBAD)), "{bad:?}");
    }
    let names = |path: &[u8]| -> Vec<String> {
        let page = view::list(&pair.world, &pair.run, path, b"").unwrap();
        page.entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    };
    assert_eq!(names(&pair.path("")[..pair.path("").len() - 1]), ["read", "work"]);
    assert_eq!(names(&pair.path("work")), ["inner", "out", "up"]);
    assert_eq!(names(&pair.path("read")), ["file"]);
}

#[test]
fn no_change_leads_out_of_what_may_be_written() {
    let pair = Pair::new("out");
    symlink(pair.place.join("outside"), pair.place.join("work/out")).unwrap();
    symlink(pair.place.join("outside/secret"), pair.place.join("work/link")).unwrap();
    let path = |name: &str| pair.path(name);
    let mut sequence = 0;
    let mut refused = |change: ChangeRecord| {
        sequence += 1;
        let what = format!("{change:?}");
        assert!(Status(pair.change(sequence, change).status).is_error(), "{what}");
    };
    for target in
        ["outside/new", "work/out/new", "read/new", "work/../outside/new", "work", "work/.ssh", "new"]
    {
        refused(change(view::CHANGE_CREATE, path(target)));
        refused(change(view::CHANGE_DIRECTORY, path(target)));
    }
    for target in ["outside/secret", "work/out/secret", "read/file", "work"] {
        refused(change(view::CHANGE_REMOVE, path(target)));
        refused(change(view::CHANGE_MODE, path(target)));
        refused(change(view::CHANGE_TIME, path(target)));
        refused(change(view::CHANGE_CONTENTS, path(target)));
        refused(ChangeRecord { other: path("work/taken"), ..change(view::CHANGE_RENAME, path(target)) });
        refused(ChangeRecord { other: path("work/taken"), ..change(view::CHANGE_HARD_LINK, path(target)) });
    }
    fs::write(pair.place.join("work/mine"), "mine").unwrap();
    for target in ["outside/x", "work/out/x", "read/file", "work", "work/.aws"] {
        refused(ChangeRecord { other: path(target), ..change(view::CHANGE_RENAME, path("work/mine")) });
    }
    refused(change(view::CHANGE_MODE, path("work/link")));
    // A link is replaced or removed itself.
    assert_eq!(pair.change(sequence + 1, change(view::CHANGE_REMOVE, path("work/link"))).status, 0);
    assert_eq!(pair.at_home("outside/secret"), "secret");
    assert_eq!(fs::read_dir(pair.place.join("outside")).unwrap().count(), 1);
    let set_id = ChangeRecord { mode: 0o7755, ..change(view::CHANGE_MODE, path("work/mine")) };
    assert_eq!(pair.change(sequence + 2, set_id).status, 0);
    let mode = fs::metadata(pair.place.join("work/mine")).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o1755);
}

#[test]
fn what_is_hidden_by_its_way_is_not_carried_away_from_there_nor_there() {
    let pair = Pair::new("way");
    for secret in ["work/.config/gcloud", "work/.local/state/amoeba", "work/closed/inner", "work/made/gh"] {
        fs::create_dir_all(pair.place.join(secret)).unwrap();
        fs::write(pair.place.join(secret).join("key"), "secret").unwrap();
    }
    fs::create_dir(pair.place.join("work/.config/other")).unwrap();
    let mut sequence = 0;
    let mut rename = |kind: u8, from: &str, to: &str| {
        sequence += 1;
        let wanted = ChangeRecord { other: pair.path(to), ..change(kind, pair.path(from)) };
        Status(pair.change(sequence, wanted).status)
    };
    for kind in [view::CHANGE_RENAME, view::CHANGE_RENAME_NEW] {
        for (from, to) in [
            ("work/.config", "work/config"),
            ("work/.local/state", "work/.local/else"),
            ("work/.local/state", "work/inner/lib"),
            ("work/made", "work/inner/.config"),
        ] {
            assert_eq!(rename(kind, from, to), Status::STD_DENIED, "{from} {to}");
            assert!(pair.place.join(from).exists() && !pair.place.join(to).exists());
        }
    }
    // What cannot be looked into may hold anything; root looks into everything.
    if !amoeba_tree::is_root() {
        fs::set_permissions(pair.place.join("work/.config"), fs::Permissions::from_mode(0o300)).unwrap();
        assert_eq!(rename(view::CHANGE_RENAME, "work/.config", "work/config"), Status::STD_DENIED);
        fs::set_permissions(pair.place.join("work/.config"), fs::Permissions::from_mode(0o700)).unwrap();
    }
    // Above that they stay where they are, and beside it nothing is kept from anybody.
    for (from, to) in [
        ("work/.local", "work/local"),
        ("work/.config/other", "work/other"),
        ("work/made", "work/inner/made"),
        ("work/other", "work/inner/.config"),
        ("work/inner/.config", "work/share"),
    ] {
        assert_eq!(rename(view::CHANGE_RENAME, from, to), Status::STD_OK, "{from} {to}");
    }
    assert_eq!(pair.at_home("work/local/state/amoeba/key"), "secret");
}

#[test]
fn what_is_closed_is_not_carried_away_with_what_leads_to_it() {
    let pair = Pair::with_closed("above", "work/inner/deep/closed");
    fs::create_dir_all(pair.place.join("work/inner/deep/closed")).unwrap();
    fs::create_dir(pair.place.join("work/other")).unwrap();
    let moved = |sequence, from: &str, to: &str| {
        let wanted = ChangeRecord { other: pair.path(to), ..change(view::CHANGE_RENAME, pair.path(from)) };
        Status(pair.change(sequence, wanted).status)
    };
    assert_eq!(moved(1, "work/inner", "work/x"), Status::STD_DENIED);
    assert_eq!(moved(2, "work/inner/deep", "work/x"), Status::STD_DENIED);
    fs::remove_dir_all(pair.place.join("work/inner/deep")).unwrap();
    assert_eq!(moved(3, "work/other", "work/inner/deep"), Status::STD_DENIED);
    assert_eq!(moved(4, "work/other", "work/inner/else"), Status::STD_OK);
}

#[test]
fn changes_are_made_once_and_in_their_order() {
    let pair = Pair::new("once");
    let make = |name: &str| change(view::CHANGE_CREATE, pair.path(name));
    let first = pair.change(1, make("work/a"));
    assert_eq!(first.status, 0);
    // The same request again, as after a lost reply.
    assert_eq!(pair.change(1, make("work/b")), first);
    assert!(!pair.place.join("work/b").exists());
    for sequence in [0, 3, u64::MAX] {
        assert!(view::apply(&pair.world, &pair.run, 1, sequence, &[make("work/b")]).is_err());
    }
    // Another writer has numbers of its own.
    assert_eq!(view::apply(&pair.world, &pair.run, 2, 1, &[make("work/b")]).unwrap()[0].status, 0);
    assert!(pair.place.join("work/b").exists());
    pair.server.dismiss(&pair.run);
    assert!(view::lookup(&pair.world, &pair.run, b"").is_err());
}

#[test]
fn what_is_written_comes_home_with_the_last_close() {
    let pair = Pair::new("writes");
    let files = pair.writable();
    let node = write(&files, "made", "first");
    assert_eq!(files.finish(), 0);
    assert_eq!(pair.at_home("work/made"), "first");
    assert_eq!(fs::metadata(pair.place.join("work/made")).unwrap().mode() & 0o777, 0o640);
    // Part of it is changed; two have it open.
    let (one, two) = (
        files.open(&ANYBODY, node, OpenMode::WRITE).unwrap(),
        files.open(&ANYBODY, node, OpenMode::WRITE).unwrap(),
    );
    files.write(node, one.handle, 0, b"F").unwrap();
    files.release(node, one.handle);
    assert_eq!(contents(&files, node).unwrap(), b"First");
    assert_eq!(pair.at_home("work/made"), "first");
    files.write(node, two.handle, 5, b"!").unwrap();
    files.release(node, two.handle);
    files.rename(Node::ROOT, b"made", Node::ROOT, b"moved", Rename::empty()).unwrap();
    assert_eq!(pair.at_home("work/moved"), "First!");
    assert!(!pair.place.join("work/made").exists());
    files.unlink(Node::ROOT, b"moved").unwrap();
    let made = files.mkdir(&ANYBODY, Node::ROOT, b"directory", 0o755).unwrap().attributes.node;
    files.symlink(&ANYBODY, made, b"link", b"/outside").unwrap();
    assert_eq!(files.rmdir(Node::ROOT, b"directory"), Err(Error::NotEmpty));
    assert_eq!(fs::read_link(pair.place.join("work/directory/link")).unwrap(), Path::new("/outside"));
    assert_eq!(files.finish(), 0);
    let (changes, left_out) = pair.server.changes();
    let changes: Vec<_> = changes.into_iter().map(|change| (change.path, change.done)).collect();
    let made = |name: &str| (pair.place.join(name), Done::Made);
    assert_eq!((changes, left_out), (vec![made("work/directory"), made("work/directory/link")], 0));
}

#[test]
fn two_trees_of_a_run_are_written_side_by_side() {
    let pair = Pair::new("side");
    let (one, two) = (pair.writable(), pair.writable());
    write(&one, "one", "1");
    write(&two, "two", "2");
    let node = walk(&one, "one").unwrap();
    one.link(node, Node::ROOT, b"other").unwrap();
    let opened = one.open(&ANYBODY, node, OpenMode::WRITE).unwrap();
    one.write(node, opened.handle, 1, b"!").unwrap();
    one.release(node, opened.handle);
    assert_eq!((one.finish(), two.finish()), (0, 0));
    assert_eq!((pair.at_home("work/one"), pair.at_home("work/two")), ("1!".into(), "2".into()));
}

#[test]
fn a_tree_that_one_process_has_written_is_for_the_next_what_the_caller_has() {
    let pair = Pair::new("next");
    for name in ["gone", "same"] {
        fs::write(pair.place.join("work").join(name), name).unwrap();
    }
    let files = pair.writable();
    assert!(["gone", "same"].iter().all(|name| walk(&files, name).is_ok()));
    let node = write(&files, "made", "first");
    let opened = files.open(&ANYBODY, node, OpenMode::READ).unwrap();
    assert_eq!(files.finish(), 0);
    assert!(files.is_sound() && !files.is_as_new(), "a process has it");
    files.end(&pair.run);
    assert!(!files.is_as_new(), "a file is open");
    files.release(node, opened.handle);
    assert!(files.is_as_new());

    pair.server.dismiss(&pair.run);
    fs::write(pair.place.join("work/made"), "changed at home").unwrap();
    fs::write(pair.place.join("work/new"), "new").unwrap();
    fs::remove_file(pair.place.join("work/gone")).unwrap();
    let run = pair.server.admit().unwrap();
    begin(&[&files], run);
    assert!(!files.is_as_new());
    assert_eq!(contents(&files, node).unwrap(), b"changed at home");
    assert_eq!(contents(&files, walk(&files, "new").unwrap()).unwrap(), b"new");
    assert_eq!(contents(&files, walk(&files, "same").unwrap()).unwrap(), b"same");
    assert_eq!(walk(&files, "gone"), Err(Error::NotFound));
    write(&files, "more", "second");
    assert_eq!(files.finish(), 0);
    assert_eq!(pair.at_home("work/more"), "second");
}

#[test]
fn a_tree_of_which_something_was_lost_or_much_is_known_is_for_no_other_process() {
    let pair = Pair::new("unsound");
    let files = pair.writable();
    let node = write(&files, "file", "old");
    assert_eq!(files.finish(), 0);
    assert!(files.is_sound());
    let opened = files.open(&ANYBODY, node, OpenMode::WRITE).unwrap();
    files.write(node, opened.handle, 0, b"theirs").unwrap();
    fs::write(pair.place.join("work/file"), "mine, longer").unwrap();
    files.release(node, opened.handle);
    assert_eq!(files.finish(), 1);
    assert!(!files.is_sound());

    let files = pair.writable();
    (0..300).for_each(|number| fs::write(pair.place.join(format!("work/{number}")), "").unwrap());
    assert!((0..300).all(|number: u32| walk(&files, &number.to_string()).is_ok()));
    assert_eq!(files.finish(), 0);
    assert!(!files.is_sound());
}

#[test]
fn large_files_come_home_in_pieces() {
    let pair = Pair::new("large");
    let files = pair.writable();
    let text: Vec<u8> = (0..5_000_000u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let (entry, opened) = files.create(&ANYBODY, Node::ROOT, b"large", 0o600, OpenMode::WRITE).unwrap();
    let node = entry.attributes.node;
    for (piece, offset) in text.chunks(700_000).zip((0..).step_by(700_000)) {
        files.write(node, opened.handle, offset, piece).unwrap();
    }
    files.release(node, opened.handle);
    assert_eq!(files.finish(), 0);
    assert!(fs::read(pair.place.join("work/large")).unwrap() == text);
    // And out again, a piece at a time.
    let readable = pair.readable();
    let node = walk(&readable, std::str::from_utf8(&pair.path("work/large")).unwrap()).unwrap();
    let opened = readable.open(&ANYBODY, node, OpenMode::READ).unwrap();
    assert!(opened.backing.is_none());
    let mut data: Vec<u8> = Vec::new();
    while data.len() < text.len() {
        readable
            .read(node, opened.handle, data.len() as u64, 300_000, &mut |more| data.extend(more))
            .unwrap();
    }
    assert!(data == text);
    readable.release(node, opened.handle);
    // Now all of it is kept.
    assert!(readable.open(&ANYBODY, node, OpenMode::READ).unwrap().backing.is_some());
}

#[test]
fn what_was_changed_at_home_meanwhile_is_not_overwritten() {
    let pair = Pair::new("conflict");
    fs::write(pair.place.join("work/file"), "old").unwrap();
    let files = pair.writable();
    let node = walk(&files, "file").unwrap();
    let opened = files.open(&ANYBODY, node, OpenMode::WRITE).unwrap();
    files.write(node, opened.handle, 0, b"theirs").unwrap();
    fs::write(pair.place.join("work/file"), "mine, longer").unwrap();
    files.release(node, opened.handle);
    assert_eq!(files.finish(), 1);
    assert_eq!(pair.at_home("work/file"), "mine, longer");
    assert_eq!(pair.at_home("work/file.conflict-1"), "theirs");
    let (changes, _) = pair.server.changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].done, Done::Conflict(pair.path("work/file.conflict-1")));
}

#[test]
fn what_a_host_knows_is_right_when_the_next_process_begins() {
    let pair = Pair::new("begin");
    let files = pair.readable();
    let path = String::from_utf8(pair.path("read/file")).unwrap();
    let node = walk(&files, &path).unwrap();
    assert_eq!(contents(&files, node).unwrap(), b"to be read");
    assert_eq!(files.getattr(node).unwrap().user, 7);
    fs::write(pair.place.join("read/file"), "changed").unwrap();
    fs::write(pair.place.join("read/new"), "new").unwrap();
    let second = pair.server.admit().unwrap();
    begin(&[&files], second);
    assert_eq!(contents(&files, node).unwrap(), b"changed");
    let new = path.replace("read/file", "read/new");
    assert_eq!(contents(&files, walk(&files, &new).unwrap()).unwrap(), b"new");
    fs::remove_file(pair.place.join("read/file")).unwrap();
    begin(&[&files], pair.server.admit().unwrap());
    assert_eq!(files.getattr(node), Err(Error::NotFound));
    assert_eq!(walk(&files, &path), Err(Error::NotFound));
    // What may not be written may not be written.
    assert!(matches!(files.open(&ANYBODY, node, OpenMode::WRITE), Err(Error::ReadOnly)));
    assert!(files.unlink(Node::ROOT, b"x").is_err());
}

/// Which names a kernel hears of.
#[derive(Default)]
struct Heard(Mutex<Vec<(Node, Vec<u8>)>>);

impl Notifier for Heard {
    fn name_changed(&self, directory: Node, name: &[u8]) {
        self.0.lock().unwrap().push((directory, name.into()));
    }

    fn node_changed(&self, _: Node) {}
}

#[test]
fn a_kernel_that_believes_names_to_be_absent_hears_when_a_process_begins_and_they_may_not_be() {
    let pair = Pair::new("absent");
    let read = String::from_utf8(pair.path("read")).unwrap();
    for (files, path, home) in
        [(pair.readable(), &*read, "read/a"), (pair.writable(), "inner", "work/inner/a")]
    {
        let heard = Arc::new(Heard::default());
        files.mounted(heard.clone());
        let directory = walk(&files, path).unwrap();
        let missing =
            |name: &str| assert_eq!(files.lookup(&ANYBODY, directory, name.as_bytes()), Err(Error::NotFound));
        let next = || {
            begin(&[&files], pair.server.admit().unwrap());
            std::mem::take(&mut *heard.0.lock().unwrap())
        };
        missing("a");
        missing("b");
        let before = files.absences();
        // Nothing has changed, and nobody need be told.
        assert_eq!((next(), files.absences()), (Vec::new(), before));
        fs::write(pair.place.join(home), "new").unwrap();
        let told = [(directory, b"a".to_vec()), (directory, b"b".to_vec())];
        assert_eq!(next(), told);
        assert_ne!(files.absences(), before);
        assert!(files.lookup(&ANYBODY, directory, b"a").is_ok());
        missing("b");
        assert!(!files.absent_lifetime().is_zero());
        // What is too much to be remembered is not believed, and given up with the next process.
        for number in 0..5000 {
            missing(&format!("missing-{number}"));
        }
        assert!(files.absent_lifetime().is_zero());
        assert_eq!(next().len(), 4096);
        assert!(!files.absent_lifetime().is_zero());
    }
}

#[test]
fn what_was_fetched_once_is_not_fetched_again_and_never_for_another() {
    let pair = Pair::new("store");
    let path = String::from_utf8(pair.path("read/file")).unwrap();
    let files = pair.readable();
    assert_eq!(contents(&files, walk(&files, &path).unwrap()).unwrap(), b"to be read");
    let record = view::lookup(&pair.world, &pair.run, path.as_bytes()).unwrap();
    drop(files);
    // Another life of the viewer: what it has kept is found by identity and version alone.
    let store = Arc::new(Store::open(&pair.place.join("store"), 1 << 30).unwrap());
    let owner = Owner { user: 7, group: 8, is_alone: false };
    let again = Visible::to_read(&pair.world, &store, [1; 32], owner);
    begin(&[&again], pair.run);
    let node = walk(&again, &path).unwrap();
    assert!(again.open(&ANYBODY, node, OpenMode::READ).unwrap().backing.is_some());
    assert_eq!(store.fetched(), 0);
    let other = Visible::to_read(&pair.world, &store, [2; 32], owner);
    begin(&[&other], pair.run);
    assert_eq!(contents(&other, walk(&other, &path).unwrap()).unwrap(), b"to be read");
    assert_eq!(store.fetched(), record.size);
}

#[test]
fn a_caller_that_is_gone_is_waited_for_once_and_no_longer() {
    let pair = Pair::new("gone");
    let files = pair.readable();
    pair.server.dismiss(&pair.run);
    assert_eq!(walk(&files, "usr"), Err(Error::Io));
    // A thousand waits would be hours, and no test may be silent for so long.
    for _ in 0..1000 {
        assert_eq!(walk(&files, "usr"), Err(Error::Io));
    }
    begin(&[&files], pair.server.admit().unwrap());
    let path = String::from_utf8(pair.path("read/file")).unwrap();
    assert!(walk(&files, &path).is_ok());
}

#[test]
fn no_request_of_a_host_harms_its_caller() {
    let pair = Pair::new("hostile");
    bolero::check!()
        .with_type::<(u8, Vec<u8>, Vec<u8>, u16)>()
        .for_each(|(kind, path, other, mode)| pair.attack(*kind, path, other, *mode));
    assert_eq!(pair.at_home("outside/secret"), "secret");
    assert_eq!(pair.at_home("read/file"), "to be read");
    assert_eq!(fs::read_dir(pair.place.join("outside")).unwrap().count(), 1);
}
