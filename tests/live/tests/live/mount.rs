//! The directory graph as files of this host: `mount` and `umount`, and the bad days of those who use it. Skipped, and said so,
//! where nothing can be mounted.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::system::{System, kill};

/// A mount, and no trace of it at the end.
struct Mount<'a> {
    system: &'a System,
    directory: PathBuf,
    pid: i32,
}

impl<'a> Mount<'a> {
    fn new(system: &'a System, name: &str) -> Option<Mount<'a>> {
        if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: nothing can be mounted here");
            return None;
        }
        let directory = system.work().join(name);
        // A dead mount is a directory that cannot be looked at.
        let _ = fs::create_dir(&directory);
        let said = system.json(&["mount", "--json", name]);
        assert_eq!(said["directory"], directory.to_str().expect("the folder is ASCII"));
        let pid = said["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("it says its process");
        Some(Mount { system, directory, pid })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Ends it, with everything committed.
    fn end(self) {
        self.system.amoeba(&["umount", self.directory.to_str().expect("the folder is ASCII")]).ok();
    }

    /// Kills its process; the directory is dead until it is mounted again.
    fn kill(&self) {
        kill(self.pid, Signal::KILL);
        self.system.wait_for("the end of the mount", || fs::metadata(&self.directory).is_err().then_some(()));
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", "-q"]).arg(&self.directory).status();
    }
}

#[test]
fn files_of_the_graph_are_files() {
    let system = System::up();
    system.amoeba_with(&["put", "-", "/home/there"], b"from outside").ok();
    let Some(mount) = Mount::new(&system, "m") else { return };
    assert_eq!(fs::read(mount.at("home/there")).unwrap(), b"from outside");
    fs::create_dir_all(mount.at("home/a/b")).unwrap();
    fs::write(mount.at("home/a/b/c"), b"written").unwrap();
    fs::set_permissions(mount.at("home/a/b/c"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("b/c", mount.at("home/a/link")).unwrap();
    fs::rename(mount.at("home/there"), mount.at("home/a/moved")).unwrap();
    assert_eq!(fs::read(mount.at("home/a/link")).unwrap(), b"written");
    mount.end();
    assert_eq!(system.amoeba(&["cat", "/home/a/b/c"]).ok().stdout, b"written");
    assert_eq!(system.amoeba(&["cat", "/home/a/moved"]).ok().stdout, b"from outside");
    system.amoeba(&["cat", "/home/there"]).exit(1);
    // As it was, with modes, for the next one.
    let Some(mount) = Mount::new(&system, "m") else { return };
    assert_eq!(fs::metadata(mount.at("home/a/b/c")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(mount.at("home/a/link")).unwrap(), Path::new("b/c"));
    fs::remove_dir_all(mount.at("home/a")).unwrap();
    mount.end();
    let listed = system.json(&["ls", "--json", "/home"]);
    assert_eq!(listed[0]["entries"].as_array().map(Vec::len), Some(0), "{listed}");
    let work = system.work().join("m");
    system.amoeba(&["umount", work.to_str().unwrap()]).exit(1);
}

#[test]
fn what_one_mount_closes_another_sees_whole() {
    let system = System::up();
    let Some(one) = Mount::new(&system, "one") else { return };
    let Some(other) = Mount::new(&system, "other") else { return };
    let (here, there) = (one.at("home/f"), other.at("home/f"));
    assert!(!there.exists());
    fs::write(&here, b"first").unwrap();
    system.wait_for("the first version", || (fs::read(&there).ok()? == b"first").then_some(()));
    for round in 1..=3_u8 {
        let bytes = vec![round; 300_000];
        let file = File::create(&here).unwrap();
        for piece in bytes.chunks(70_000) {
            (&file).write_all(piece).unwrap();
            // Half a file is seen here and nowhere else.
            let seen = fs::read(&there).unwrap();
            assert!(
                seen == b"first" || (seen.len() == 300_000 && seen.iter().all(|byte| *byte == round - 1))
            );
        }
        drop(file);
        system.wait_for("the next version", || (fs::read(&there).ok()? == bytes).then_some(()));
    }
    fs::remove_file(&there).unwrap();
    system.wait_for("the end of the name", || (!here.exists()).then_some(()));
    one.end();
    other.end();
}

#[test]
fn what_was_synced_survives_a_killed_mount() {
    let system = System::up();
    let Some(mount) = Mount::new(&system, "m") else { return };
    fs::write(mount.at("home/closed"), b"closed").unwrap();
    // Whatever was done before is at the servers.
    File::open(mount.at("home")).unwrap().sync_all().unwrap();
    let open = File::create(mount.at("home/open")).unwrap();
    open.write_all_at(b"synced", 0).unwrap();
    open.sync_all().unwrap();
    open.write_all_at(b"S", 0).unwrap();
    let other = File::options().write(true).open(mount.at("home/closed")).unwrap();
    other.write_all_at(b"CLOSED and synced", 0).unwrap();
    other.sync_data().unwrap();
    let told = || {
        let status = system.json(&["status", "--json"]);
        let mounts = status["mounts"].as_array().expect("a list").clone();
        assert_eq!(mounts.len(), 1, "{status}");
        assert_eq!((&mounts[0]["shows"], &mounts[0]["read_only"]), (&"/".into(), &false.into()));
        (mounts[0]["alive"].clone(), status["attention"].to_string().contains("is dead"))
    };
    assert_eq!(told(), (true.into(), false));
    mount.kill();
    assert_eq!(told(), (false.into(), true));
    assert!(open.write_all_at(b"x", 0).is_err());
    assert_eq!(system.amoeba(&["cat", "/home/closed"]).ok().stdout, b"closed");
    system.amoeba(&["cat", "/home/open"]).exit(1);
    let Some(mount) = Mount::new(&system, "m") else { return };
    assert_eq!(fs::read(mount.at("home/open")).unwrap().to_ascii_lowercase(), b"synced");
    assert_eq!(fs::read(mount.at("home/closed")).unwrap(), b"CLOSED and synced");
    mount.end();
    assert_eq!(system.amoeba(&["cat", "/home/closed"]).ok().stdout, b"CLOSED and synced");
}

/// Writes files while a daemon is killed again and again: those that were closed are whole, here and at the servers.
fn written_while_killed(role: &str) {
    const KILLS: usize = 3;
    const FILES_EACH: usize = 60;
    let system = System::up();
    let Some(mount) = Mount::new(&system, "m") else { return };
    let text = |number: usize| format!("{number} ").repeat(500);
    let mut closed = Vec::new();
    for round in 0..KILLS {
        for number in round * FILES_EACH..(round + 1) * FILES_EACH {
            if number % FILES_EACH == FILES_EACH / 2 {
                let daemon =
                    system.daemons().into_iter().find(|daemon| daemon.role == role).expect("it runs");
                kill(daemon.pid, Signal::KILL);
            }
            // An error is one answer; to hang is none.
            if fs::write(mount.at(&format!("home/f{number}")), text(number)).is_ok() {
                closed.push(number);
            }
        }
        system.wait_for("the daemon to be back", || {
            let daemons = system.daemons();
            daemons.iter().any(|daemon| daemon.role == role).then_some(())
        });
    }
    assert!(closed.len() > KILLS * FILES_EACH / 2, "only {} of the files were closed", closed.len());
    for number in &closed {
        let path = mount.at(&format!("home/f{number}"));
        let read = system.wait_for("an answer", || fs::read_to_string(&path).ok());
        assert_eq!(read, text(*number));
    }
    mount.end();
    for number in &closed {
        let name = format!("/home/f{number}");
        assert_eq!(system.amoeba(&["cat", &name]).ok().stdout, text(*number).as_bytes());
    }
}

#[test]
fn the_file_server_is_killed_while_files_are_written() {
    written_while_killed("bullet");
}

#[test]
fn the_directory_server_is_killed_while_files_are_written() {
    written_while_killed("directory");
}

#[test]
fn the_kernel_is_killed_while_files_are_written() {
    written_while_killed("kernel");
}

#[test]
fn where_a_mount_is_another_is_refused_and_both_are_found_as_they_were() {
    let system = System::up();
    let Some(mount) = Mount::new(&system, "m") else { return };
    fs::write(mount.at("home/file"), "kept").unwrap();
    for options in [&["mount"][..], &["mount", "--foreground"]] {
        system.amoeba(&[options, &["m"]].concat()).exit(1).complained("is a mount already");
    }
    assert_eq!(fs::read(mount.at("home/file")).unwrap(), b"kept");
    let inner = mount.at("home/inner");
    fs::create_dir(&inner).unwrap();
    let inner = inner.to_str().expect("the folder is ASCII");
    // What lies in a mount is another place.
    system.amoeba(&["mount", inner]).ok();
    system.amoeba(&["umount", inner]).ok();
    mount.end();
    let Some(mount) = Mount::new(&system, "m") else { return };
    mount.end();
}

#[test]
fn a_mount_can_be_ended_while_no_server_answers() {
    let system = System::up();
    let Some(mount) = Mount::new(&system, "m") else { return };
    fs::write(mount.at("home/a"), b"a").unwrap();
    File::open(mount.at("home")).unwrap().sync_all().unwrap();
    let file = File::create(mount.at("home/b")).unwrap();
    file.write_all_at(b"b", 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    File::open(mount.at("home")).unwrap().sync_all().unwrap();
    system.amoeba(&["down"]).ok();
    fs::write(mount.at("home/c"), b"c").unwrap();
    let late = mount.at("home/c");
    File::options().write(true).open(late).unwrap().sync_all().unwrap();
    system.amoeba(&["umount", "--timeout", "1s", mount.directory.to_str().unwrap()]).exit(1);
    mount_is_gone(&mount.directory);
    // It gives the servers up after a while, or is killed; what was synced is committed by the next one.
    kill(mount.pid, Signal::KILL);
    system.amoeba(&["up"]).ok();
    let Some(next) = Mount::new(&system, "m") else { return };
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read(next.at(&format!("home/{name}"))).unwrap(), name.as_bytes());
    }
    next.end();
}

fn mount_is_gone(directory: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(directory.to_str().unwrap()), "{table}");
}
