use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A directory of the test's own, removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("amoeba-tree-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("the name is ours alone");
        Scratch(path)
    }

    fn folder(&self) -> Folder {
        Folder::open(&self.0).expect("it was just made")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn no_name_leads_out() {
    let scratch = Scratch::new("names");
    let folder = scratch.folder();
    let long = [b'x'; NAME_MAX + 1];
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"../x", b"a\0b", &long] {
        let refused = |result: io::Result<()>| {
            assert_eq!(result.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidInput), "{name:?}");
        };
        refused(folder.enter(name).map(drop));
        refused(folder.make(name).map(drop));
        refused(folder.facts(name).map(drop));
        refused(folder.read(name).map(drop));
        refused(folder.create(name).map(drop));
        refused(folder.link_text(name).map(drop));
        refused(folder.make_link(name, b"x"));
        refused(folder.hard_link(b"x", &folder, name));
        refused(folder.hard_link(name, &folder, b"x"));
        refused(folder.rename(b"x", &folder, name));
        refused(folder.rename(name, &folder, b"x"));
        refused(folder.rename_new(b"x", &folder, name));
        refused(folder.remove(name));
        refused(folder.remove_folder(name));
        refused(folder.set_link_times(name, Time::default(), Time::default()));
    }
    assert_eq!(std::fs::read_dir(&scratch.0).expect("it is ours").count(), 0);
}

#[test]
fn no_link_is_followed() {
    let (scratch, outside) = (Scratch::new("links"), Scratch::new("outside"));
    std::fs::write(outside.0.join("secret"), "secret").expect("it is ours");
    symlink(&outside.0, scratch.0.join("out")).expect("it is ours");
    symlink(outside.0.join("secret"), scratch.0.join("file")).expect("it is ours");
    symlink(outside.0.join("new"), scratch.0.join("dangling")).expect("it is ours");
    let folder = scratch.folder();
    assert!(folder.enter(b"out").is_err() && folder.make(b"out").is_err());
    assert!(folder.read(b"file").is_err() && folder.create(b"dangling").is_err());
    assert_eq!(folder.facts(b"out").unwrap().map(|facts| facts.kind), Some(Kind::Link));
    folder.set_link_times(b"file", Time::default(), Time { seconds: 7, nanoseconds: 9 }).unwrap();
    assert_eq!(folder.facts(b"file").unwrap().unwrap().modified, Time { seconds: 7, nanoseconds: 9 });
    // A link that has the name is replaced, not what it leads to.
    folder.create(b"mine").unwrap().write_all(b"mine").unwrap();
    folder.rename(b"mine", &folder, b"file").unwrap();
    assert_eq!(std::fs::read(scratch.0.join("file")).unwrap(), b"mine");
    assert_eq!(std::fs::read(outside.0.join("secret")).unwrap(), b"secret");
    assert!(!outside.0.join("new").exists());
}

#[test]
fn what_is_set_is_there() {
    let scratch = Scratch::new("facts");
    let folder = scratch.folder();
    let mut file = folder.create(b"\xFFname").unwrap();
    file.write_all(b"12345").unwrap();
    set_mode(&file, 0o751).unwrap();
    let (accessed, modified) =
        (Time { seconds: 1, nanoseconds: 2 }, Time { seconds: -3, nanoseconds: 999_999_999 });
    set_times(&file, accessed, modified).unwrap();
    let facts = folder.facts(b"\xFFname").unwrap().unwrap();
    assert_eq!((facts.kind, facts.mode & 0o7777, facts.size, facts.links), (Kind::File, 0o751, 5, 1));
    assert_eq!((facts.accessed, facts.modified), (accessed, modified));
    let inner = folder.make(b"inner").unwrap();
    assert_eq!(folder.facts(b"inner").unwrap().unwrap().mode & 0o7777, 0o700);
    folder.hard_link(b"\xFFname", &inner, b"other").unwrap();
    let again = inner.facts(b"other").unwrap().unwrap();
    assert_eq!((again.inode, again.links), (facts.inode, 2));
    inner.make_link(b"link", b"../nowhere").unwrap();
    assert_eq!(inner.link_text(b"link").unwrap(), b"../nowhere");
    let mut names: Vec<_> = folder.names().unwrap().collect::<io::Result<_>>().unwrap();
    names.sort();
    assert_eq!(names, [b"inner".to_vec(), b"\xFFname".to_vec()]);
    assert_eq!(folder.facts(b"nothing").unwrap(), None);
    assert!(folder.rename_new(b"\xFFname", &inner, b"link").is_err());
    folder.rename_new(b"\xFFname", &inner, b"moved").unwrap();
    inner.remove(b"link").unwrap();
    assert!(folder.remove_folder(b"inner").is_err(), "it is not empty");
    let (mut read, _) = inner.read(b"moved").unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "12345");
    assert!(inner.read(b"none").is_err() && folder.read(b"inner").is_err());
}

#[test]
fn a_pipe_is_not_waited_for() {
    let scratch = Scratch::new("pipe");
    fs::mkfifoat(scratch.folder(), "pipe", Mode::RUSR | Mode::WUSR).unwrap();
    assert_eq!(scratch.folder().facts(b"pipe").unwrap().unwrap().kind, Kind::Other("pipe"));
    assert!(scratch.folder().read(b"pipe").is_err());
}

#[test]
fn extended_attributes_come_back_where_the_file_system_keeps_them() {
    let scratch = Scratch::new("extended");
    let file = scratch.folder().create(b"file").unwrap();
    match set_extended(&file, b"user.amoeba", b"value") {
        Ok(()) => {
            let found = extended(&file).unwrap();
            assert!(found.contains(&(b"user.amoeba".to_vec(), b"value".to_vec())), "{found:?}");
        }
        Err(error) => eprintln!("SKIPPED: {} keeps none: {error}", scratch.0.display()),
    }
}
