use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::*;
use crate::testing::TestSystem;

/// A local directory of the test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("amoeba-cli-tree-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("the name is ours alone");
        Scratch(path)
    }

    fn text(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("temporary directories are named in UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32, seconds: u64) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    fs::File::options()
        .read(true)
        .open(path)
        .unwrap()
        .set_times(fs::FileTimes::new().set_modified(time).set_accessed(time))
        .unwrap();
}

/// A tree with everything a tree can have, and its size in files.
fn sample(top: &Path) {
    fs::create_dir_all(top.join("inner/deep")).unwrap();
    fs::create_dir(top.join("empty")).unwrap();
    write(&top.join("plain"), b"plain", 0o640, 1_000_000_000);
    write(&top.join("inner/tool"), b"#!/bin/sh\n", 0o755, 1_100_000_000);
    write(&top.join("inner/deep/large"), &vec![7; 3_000_000], 0o600, 1_200_000_000);
    write(&top.join("inner/none"), b"", 0o444, 0);
    fs::write(top.join(OsStr::from_bytes(b"not \xFF text")), "bytes").unwrap();
    fs::hard_link(top.join("plain"), top.join("inner/same")).unwrap();
    symlink("../plain", top.join("inner/link")).unwrap();
    symlink("/nowhere/at/all", top.join("dangling")).unwrap();
    symlink("x".repeat(3500), top.join("long")).unwrap();
    write(&top.join("inner/set"), b"id", 0o4755, 5);
    fs::set_permissions(top.join("empty"), fs::Permissions::from_mode(0o711)).unwrap();
}

/// Everything in a directory that `get` brings back: kind, mode, time, contents, by path.
fn told(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let contents = if facts.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if facts.is_dir() {
                waiting.push(path.clone());
                format!("{:o} directory", facts.mode() & 0o777)
            } else {
                let sum = blake3::hash(&fs::read(&path).unwrap());
                format!("{:o} {} {sum}", facts.mode() & 0o777, facts.nlink())
            };
            let time = format!("{}.{}", facts.mtime(), facts.mtime_nsec());
            found.insert(path.strip_prefix(top).unwrap().to_owned(), format!("{contents} {time}"));
        }
    }
    found
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("--json prints JSON")
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (system, scratch) = (TestSystem::new(), Scratch::new("round"));
    sample(&scratch.0.join("from"));
    let put = json(system.run(&["put", "-r", "--json", &scratch.text("from"), "tree"]).text());
    let count = |value: &serde_json::Value, name: &str| value[name].as_u64().expect("a number");
    assert_eq!((count(&put, "files"), count(&put, "directories"), count(&put, "links")), (7, 4, 3), "{put}");
    assert_eq!((count(&put, "shipped"), count(&put, "unchanged")), (6, 1), "{put}");
    system.run(&["cat", "tree/inner/same"]).printed("plain");
    system.run(&["cat", "tree/inner/link"]).printed("../plain");
    let got = json(system.run(&["get", "-r", "--json", "tree", &scratch.text("to")]).text());
    assert_eq!((count(&got, "files"), count(&got, "directories"), count(&got, "links")), (7, 4, 3), "{got}");
    assert_eq!(told(&scratch.0.join("to")), told(&scratch.0.join("from")));
    // Rights of an owner are lent only by who gives the file to that owner.
    assert_eq!(fs::metadata(scratch.0.join("to/inner/set")).unwrap().mode() & 0o7000, 0);
    assert_eq!(
        fs::metadata(scratch.0.join("to")).unwrap().mode(),
        fs::metadata(scratch.0.join("from")).unwrap().mode()
    );
    let left: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    system.run(&["ls", "-a"]).printed("tree\n");
}

#[test]
fn only_what_differs_travels_again() {
    let (system, scratch) = (TestSystem::new(), Scratch::new("again"));
    let (from, to) = (scratch.0.join("from"), scratch.0.join("to"));
    sample(&from);
    system.run(&["put", "-r", &scratch.text("from"), "tree"]).printed("");
    let taken = "amoeba: tree exists already\nhint: -f lets the name stand for the new tree\n";
    system.run(&["put", "-r", &scratch.text("from"), "tree"]).failed(1, taken);
    system.run(&["get", "-r", "tree", &scratch.text("to")]).printed("");
    let put = || json(system.run(&["put", "-r", "-f", "--json", &scratch.text("from"), "tree"]).text());
    let get = || json(system.run(&["get", "-r", "-f", "--json", "tree", &scratch.text("to")]).text());
    assert_eq!((put()["shipped"].as_u64(), get()["shipped"].as_u64()), (Some(0), Some(0)));
    // Other contents, a new file, one less, a directory where a file was, another time alone, another mode alone.
    write(&from.join("inner/tool"), b"#!/bin/ksh", 0o755, 1_300_000_000);
    write(&from.join("new"), b"new", 0o644, 9);
    fs::remove_file(from.join("plain")).unwrap();
    fs::create_dir(from.join("plain")).unwrap();
    fs::remove_file(from.join("dangling")).unwrap();
    write(&from.join("inner/deep/large"), &vec![7; 3_000_000], 0o600, 1_250_000_000);
    fs::set_permissions(from.join("inner/none"), fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(put()["shipped"].as_u64(), Some(2));
    assert!(system.names().lookup(b"/home/tree/dangling").is_err());
    assert_eq!(get()["shipped"].as_u64(), Some(2));
    assert!(to.join("dangling").is_symlink(), "what only the local tree has stays");
    fs::remove_file(to.join("dangling")).unwrap();
    assert_eq!(told(&to), told(&from));
    // Same size, same time, other contents: only the contents tell.
    let large = || write(&from.join("inner/deep/large"), &vec![8; 3_000_000], 0o600, 1_250_000_000);
    large();
    assert_eq!(put()["shipped"].as_u64(), Some(0));
    let checked = json(system.run(&["put", "-rcf", "--json", &scratch.text("from"), "tree"]).text());
    assert_eq!(checked["shipped"].as_u64(), Some(1));
    assert_eq!(get()["shipped"].as_u64(), Some(0));
    let checked = json(system.run(&["get", "-rcf", "--json", "tree", &scratch.text("to")]).text());
    assert_eq!(checked["shipped"].as_u64(), Some(1));
    assert_eq!(told(&to), told(&from));
}

#[test]
fn half_a_tree_never_has_the_name_and_the_rest_follows() {
    let (system, scratch) = (TestSystem::new(), Scratch::new("half"));
    let from = scratch.0.join("from");
    sample(&from);
    let mut deep = from.clone();
    for _ in 0..DEPTH_MAX {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let ran = format!("{:?}", system.run(&["put", "-r", &scratch.text("from"), "tree"]));
    assert!(ran.contains("more than 256 directories deep") && ran.contains("(1)"), "{ran}");
    assert!(ran.contains("tree has no such name yet") && ran.contains("the same command goes on"), "{ran}");
    system.run(&["ls"]).printed("");
    fs::remove_dir_all(from.join("d")).unwrap();
    let put = json(system.run(&["put", "-r", "--json", &scratch.text("from"), "tree"]).text());
    assert_eq!((put["shipped"].as_u64(), put["unchanged"].as_u64()), (Some(0), Some(7)), "{put}");
    system.run(&["get", "-r", "tree", &scratch.text("to")]).printed("");
    assert_eq!(told(&scratch.0.join("to")), told(&from));
    system.run(&["ls", "-a"]).printed("tree\n");
    // A file that the server has lost is missing in what is fetched, so that has no name either.
    system.run(&["rm", "--destroy", "tree/inner/tool"]).printed("");
    system.file("/home/lost", b"lost");
    system.run(&["ln", "lost", "tree/inner/lost"]).printed("");
    system.run(&["rm", "--destroy", "lost"]).printed("");
    let ran = format!("{:?}", system.run(&["get", "-r", "tree", &scratch.text("two")]));
    assert!(ran.contains("tree/inner/lost") && ran.contains("is not whole yet"), "{ran}");
    assert!(!scratch.0.join("two").exists());
    let ran = system.run(&["get", "-r", "--partial", "tree", &scratch.text("two")]);
    assert!(format!("{ran:?}").contains("tree/inner/lost"), "{ran:?}");
    assert_eq!(told(&scratch.0.join("two")).len(), told(&from).len() - 1);
}

#[test]
fn what_a_tree_cannot_have_is_named() {
    let (system, scratch) = (TestSystem::new(), Scratch::new("special"));
    let from = scratch.0.join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a"), "a").unwrap();
    assert!(Command::new("mkfifo").arg(from.join("pipe")).status().unwrap().success());
    assert!(fs::symlink_metadata(from.join("pipe")).unwrap().file_type().is_fifo());
    let ran = format!("{:?}", system.run(&["put", "-r", &scratch.text("from"), "tree"]));
    assert!(ran.contains("from/pipe: a pipe is left out") && ran.contains("1 entry left out"), "{ran}");
    assert!(ran.contains("code: ExitCode(unix_exit_status(0))"), "{ran}");
    system.run(&["ls", "tree"]).printed("a\n");
    system.run(&["ln", "tree", "tree/circle"]).printed("");
    let ran = format!("{:?}", system.run(&["get", "-r", "tree", &scratch.text("to")]));
    assert!(ran.contains("tree/circle: is a directory above itself"), "{ran}");
    system.run(&["put", &scratch.text("from"), "x"]).failed(
        1,
        &format!("amoeba: {} is a directory\nhint: -r stores it with what is in it\n", scratch.text("from")),
    );
    system.run(&["put", "--json", "/dev/null", "x"]).failed(2, "");
}

#[test]
fn a_tree_goes_into_a_directory_where_the_path_says_so() {
    let (system, scratch) = (TestSystem::new(), Scratch::new("into"));
    let from = scratch.0.join("from");
    fs::create_dir(&from).unwrap();
    write(&from.join("a"), b"a", 0o644, 1);
    write(&scratch.0.join("b"), b"b", 0o644, 1);
    system.run(&["put", "-r", &scratch.text("from"), &scratch.text("b"), "/bin"]).printed("");
    system.run(&["ls", "/bin", "/bin/from"]).printed("/bin:\nb\nfrom\n\n/bin/from:\na\n");
    system.run(&["put", "-r", &scratch.text("from"), "/home/"]).printed("");
    system.run(&["cat", "from/a"]).printed("a");
    fs::create_dir(scratch.0.join("here")).unwrap();
    system.run(&["get", "-r", "from", &scratch.text("here/")]).printed("");
    system.run(&["get", "-r", "from/a", &scratch.text("here")]).printed("");
    assert_eq!(fs::read(scratch.0.join("here/from/a")).unwrap(), b"a");
    assert_eq!(fs::read(scratch.0.join("here/a")).unwrap(), b"a");
    // A name that was given another file by who knows nothing of attributes is that file.
    system.run(&["put", "-f", &scratch.text("b"), "from/a"]).printed("");
    system.run(&["get", "-r", "-f", "from", &scratch.text("here/")]).printed("");
    assert_eq!(fs::read(scratch.0.join("here/from/a")).unwrap(), b"b");
}
