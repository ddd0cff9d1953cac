//! Guests with a file tree of their own: what they find there, and that nothing of it is left to the next. The viewer here
//! shows the host's own root, and of it what is to be written.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use amoeba_cap::Capability;
use amoeba_linux::guest::{Desk, Isolation, Visit};
use amoeba_process::{Mine, ProcessDescriptor, Tree, View, status};
use amoeba_stubs::process::ExitRecord;
use amoeba_world::Error;

use super::{Host, all, command_of};

/// Where the logs are, for a viewer.
pub(super) const VIEWER: &str = "AMOEBA_TEST_VIEWER";

/// Not a test of its own: the program of every viewer below.
#[test]
fn viewer_entry() {
    let Some(logs) = std::env::var_os(VIEWER) else { return };
    let desk = Desk::open(Path::new(&logs)).unwrap();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    loop {
        let visit = desk.accept().unwrap();
        std::thread::spawn(move || serve(visit));
    }
}

/// Serves the guests of one warden. A tree whose path says so is never right for the next guest, or loses a change of each.
/// In each that was not granted ahead, a line is added to the file `visits`.
fn serve(mut visit: Visit) {
    // Whoever looks whether the desk is open wants nothing.
    let mut wanted = visit.wanted();
    let mut known = false;
    while let Ok(View::Mine(mine)) = wanted {
        let written = mine.trees.iter().filter(|tree| tree.writable);
        let written = written.map(|tree| shown(Path::new(OsStr::from_bytes(&tree.path))));
        let places: Vec<PathBuf> = std::iter::once("/".into()).chain(written).collect();
        if !known {
            let visits = places[1].join("visits");
            let mut visits = std::fs::File::options().append(true).create(true).open(visits).unwrap();
            visits.write_all(b"x\n").unwrap();
        }
        let granted = if known { visit.grant_next(&places) } else { visit.grant_twice(&places) };
        granted.unwrap();
        known = !places[1].ends_with("fickle.shown");
        if !visit.wait() {
            return;
        }
        visit.tell(u64::from(places[1].ends_with("lossy.shown"))).unwrap();
        wanted = visit.next_wanted(super::PATIENCE);
    }
}

/// Where a tree that may be written lies, so that the host has something else there.
fn shown(path: &Path) -> PathBuf {
    path.with_extension("shown")
}

/// A host where guests can have a file tree, and the directory that they may write to.
fn host(name: &str, directory: &str) -> Option<(Host, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: {name}: only root can show a guest a file tree of its own");
        return None;
    }
    let host = Host::start(name, Isolation::Best)?;
    let work = host.logs.parent().unwrap().join(directory);
    for directory in [&work, &shown(&work)] {
        std::fs::create_dir_all(directory).unwrap();
    }
    Some((host, work))
}

/// Puts a command where its caller's files are.
fn rooted(work: &Path, command: &[&str]) -> ProcessDescriptor {
    let path = work.as_os_str().as_bytes().to_vec();
    let trees = vec![Tree { path: path.clone(), writable: true }];
    let view = View::Mine(Mine { files: Capability::NULL, identity: [7; 32], trees });
    ProcessDescriptor { view, working_directory: path, ..command_of(command) }
}

fn run(host: &Host, mut descriptor: ProcessDescriptor) -> Result<(ExitRecord, String), Error> {
    let (output, _) = host.attach(&mut descriptor, b"");
    let process = host.exec(&descriptor)?;
    let output = all(&output);
    Ok((host.wait(&process), String::from_utf8(output).unwrap()))
}

#[test]
fn nothing_of_a_guests_file_tree_is_left_to_the_next() {
    // In one that was made ready while the last ran, and where the viewer does not stand by that.
    nothing_is_left("rooted", "work");
    nothing_is_left("rooted-anew", "fickle");
}

fn nothing_is_left(name: &str, directory: &str) {
    let Some((host, work)) = host(name, directory) else { return };
    let left = format!("/left-{}", std::process::id());
    // What is shown: whether anything is left, how many descriptors and how many mounts there are.
    let script = format!(
        "for f in /tmp{left} /run{left} {left}; do test -e $f && echo $f; echo x > $f; done; \
         ls /proc/1/root/ /proc/1/cwd/ 2>/dev/null; ls /proc/self/fd | wc -l; wc -l < /proc/self/mountinfo; pwd; \
         echo x >> counted"
    );
    let mine = rooted(&work, &["sh", "-c", &script]);
    let hosts =
        command_of(&["sh", "-c", &format!("test -e {left} && echo left; wc -l < /proc/self/mountinfo")]);
    let before = run(&host, hosts.clone()).unwrap().1;
    let first = run(&host, mine.clone()).unwrap().1;
    assert!(first.ends_with(&format!("{}\n", work.display())) && !first.contains("left"), "{first}");
    for _ in 0..4 {
        assert_eq!(run(&host, mine.clone()).unwrap().1, first);
    }
    assert_eq!(std::fs::read_to_string(shown(&work).join("counted")).unwrap(), "x\n".repeat(5));
    assert!(!Path::new(&left).exists() && !Path::new(&format!("/tmp{left}")).exists());
    // The other guests of the same wardens see the host as before.
    assert_eq!(run(&host, hosts).unwrap().1, before);
}

#[test]
fn a_program_is_looked_for_in_the_guests_own_tree() {
    let Some((host, work)) = host("rooted-program", "work") else { return };
    let tool = shown(&work).join("tool");
    std::fs::write(&tool, "echo a shell reads this: $1").unwrap();
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(run(&host, rooted(&work, &["./tool", "x"])).unwrap().1, "a shell reads this: x\n");
    let refused = |descriptor| match run(&host, descriptor) {
        Err(Error::Refused(status)) => status,
        other => panic!("{other:?}"),
    };
    let hosts = work.join("hosts");
    std::fs::copy("/bin/true", &hosts).unwrap();
    let hosts = hosts.to_str().unwrap();
    assert_eq!(run(&host, command_of(&[hosts])).unwrap().0.code, 0);
    assert_eq!(refused(rooted(&work, &[hosts])), status::NOPROG);
    assert_eq!(refused(rooted(&work, &["/etc/passwd"])), status::NOTEXEC);
    let nowhere =
        ProcessDescriptor { working_directory: b"/etc/passwd".to_vec(), ..rooted(&work, &["true"]) };
    assert_eq!(refused(nowhere), status::NOWORK);
}

#[test]
fn who_wants_the_same_as_the_last_finds_it_ready() {
    let Some((host, work)) = host("rooted-again", "counted") else { return };
    for _ in 0..12 {
        let (exit, said) = run(&host, rooted(&work, &["pwd"])).unwrap();
        assert_eq!((exit.code, said), (0, format!("{}\n", work.display())));
    }
    // On a busy machine a warden that takes long with its last guest does not have the next.
    let visits = std::fs::read_to_string(shown(&work).join("visits")).unwrap().lines().count();
    assert!(visits < 12, "no warden had what the next guest wants");
}

#[test]
fn what_a_guest_has_written_in_vain_is_no_success() {
    let Some((host, work)) = host("rooted-lost", "lossy") else { return };
    for (command, code) in [("exit 0", 125), ("exit 3", 3)] {
        let exit = run(&host, rooted(&work, &["sh", "-c", command])).unwrap().0;
        assert_eq!(exit.code, code);
        assert_eq!(exit.reason, b"1 changes of its files did not become its caller's");
    }
}

#[test]
fn a_tree_is_another_guests_only_if_nothing_was_left_in_it() {
    let Some((host, work)) = host("rooted-left", "work") else { return };
    let trees = |left: &str| -> std::collections::BTreeSet<String> {
        let tree = |_| {
            // Either number alone may be given again.
            let script = format!("{left}readlink /proc/self/ns/mnt; stat -c %w /var; echo x > mine");
            run(&host, rooted(&work, &["sh", "-c", &script])).unwrap().1
        };
        (0..12).map(tree).collect()
    };
    // Which warden has a guest is chance, and one that has never had such a guest makes it a tree.
    assert!(trees("").len() < 12, "what a guest writes that becomes its caller's is not left in its tree");
    assert!(trees("> /tmp/x; rm /tmp/x; ").len() < 12, "what came and went in /tmp is not left there");
    for left in
        ["> /tmp/x; ", "> /etc/x; rm /etc/x; ", "chmod 700 /run; ", "mkdir /etc/x; ", "ln -s x /var/l; "]
    {
        assert_eq!(trees(left).len(), 12, "{left}");
    }
    assert!(trees("").len() < 12, "a tree that was left as it was is another guest's again");
}

#[test]
fn what_was_made_ready_is_for_nobody_who_wants_something_else() {
    let Some((host, work)) = host("rooted-other", "work") else { return };
    let other = work.with_file_name("other");
    for (directory, text) in [(&work, "of work"), (&other, "of other")] {
        std::fs::create_dir_all(shown(directory)).unwrap();
        std::fs::write(shown(directory).join("file"), text).unwrap();
    }
    let network = |network| ProcessDescriptor {
        network,
        ..rooted(&work, &["sh", "-c", "cat file; ls /sys/class/net | wc -l"])
    };
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().count();
    let own = run(&host, network(false)).unwrap().1;
    for _ in 0..2 {
        assert_eq!(run(&host, rooted(&work, &["cat", "file"])).unwrap().1, "of work");
        assert_eq!(run(&host, rooted(&other, &["cat", "file"])).unwrap().1, "of other");
        let theirs = [work.as_path(), other.as_path()].map(|path| path.join("file").display().to_string());
        let both = run(&host, rooted(&work, &["cat", &theirs[0], &theirs[1]])).unwrap();
        assert_eq!((both.0.code, both.1.as_str()), (1, "of work"), "one guest sees one of them");
        assert_eq!(run(&host, network(false)).unwrap().1, own);
        assert!(run(&host, network(true)).unwrap().1.ends_with(&format!("{interfaces}\n")));
    }
    // One that cannot start leaves nothing in the way either.
    assert!(run(&host, rooted(&work, &["no-such-program"])).is_err());
    assert_eq!(run(&host, rooted(&work, &["cat", "file"])).unwrap().1, "of work");
}
