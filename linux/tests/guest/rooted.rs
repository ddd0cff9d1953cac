//! Guests with a file tree of their own: what they find there, and that nothing of it is left to the next. The viewer here
//! shows the host's own root, and of it what is to be written.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use amoeba_cap::Capability;
use amoeba_linux::guest::{Desk, Isolation};
use amoeba_process::{Mine, ProcessDescriptor, Tree, View, status};
use amoeba_stubs::process::{self, ExitRecord};
use amoeba_world::Error;

use super::{Host, all, command_of, parent};

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
        let mut visit = desk.accept().unwrap();
        std::thread::spawn(move || {
            // Whoever looks whether the desk is open wants nothing.
            let Ok(View::Mine(mine)) = visit.wanted() else { return };
            let written = mine.trees.iter().filter(|tree| tree.writable);
            let written = written.map(|tree| shown(Path::new(OsStr::from_bytes(&tree.path))));
            visit.grant(&std::iter::once("/".into()).chain(written).collect::<Vec<_>>()).unwrap();
            if visit.wait() {
                visit.tell(0).unwrap();
            }
        });
    }
}

/// Where a tree that may be written lies, so that the host has something else there.
fn shown(path: &Path) -> PathBuf {
    path.with_extension("shown")
}

/// A host where guests can have a file tree, and the directory that they may write to.
fn host(name: &str) -> Option<(Host, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: {name}: only root can show a guest a file tree of its own");
        return None;
    }
    let host = Host::start(name, Isolation::Best)?;
    let work = host.logs.parent().unwrap().join("work");
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

/// The warden of a guest, which is ended.
fn warden_of(host: &Host, descriptor: &ProcessDescriptor) -> u32 {
    let process = host.exec(descriptor).unwrap();
    let records = process::processes(&host.world, &host.server).unwrap();
    let guest = records.iter().find(|record| record.state == process::STATE_RUNNING).unwrap().pid;
    let warden = parent(guest);
    process::signal(&host.world, &process, 9).unwrap();
    host.wait(&process);
    warden
}

#[test]
fn nothing_of_a_guests_file_tree_is_left_to_the_next() {
    let Some((host, work)) = host("rooted") else { return };
    let left = format!("/left-{}", std::process::id());
    // What is shown: whether anything is left, the descriptors, and how many mounts there are.
    let script = format!(
        "for f in /tmp{left} /run{left} {left}; do test -e $f && echo $f; echo x > $f; done; \
         ls /proc/1/root/ /proc/1/cwd/ 2>/dev/null; ls /proc/self/fd; wc -l < /proc/self/mountinfo; pwd; \
         echo x >> counted"
    );
    let mine = rooted(&work, &["sh", "-c", &script]);
    let hosts =
        command_of(&["sh", "-c", &format!("test -e {left} && echo left; wc -l < /proc/self/mountinfo")]);
    let before = (warden_of(&host, &rooted(&work, &["sleep", "1000"])), run(&host, hosts.clone()).unwrap().1);
    let first = run(&host, mine.clone()).unwrap().1;
    assert!(first.ends_with(&format!("{}\n", work.display())) && !first.contains("left"), "{first}");
    for _ in 0..4 {
        assert_eq!(run(&host, mine.clone()).unwrap().1, first);
    }
    assert_eq!(std::fs::read_to_string(shown(&work).join("counted")).unwrap(), "x\n".repeat(5));
    assert!(!Path::new(&left).exists() && !Path::new(&format!("/tmp{left}")).exists());
    // The same warden has had them all, and its other guests see the host as before.
    let after = (warden_of(&host, &rooted(&work, &["sleep", "1000"])), run(&host, hosts).unwrap().1);
    assert_eq!(after, before);
}

#[test]
fn a_program_is_looked_for_in_the_guests_own_tree() {
    let Some((host, work)) = host("rooted-program") else { return };
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
