//! Whole trees in and out: what is interrupted is taken up again, and half a tree never has the name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::system::{System, finish, random, signal, wait};

const FILES: usize = 400;

/// Some hundred files in some directories, with links of both kinds.
fn make_tree(top: &Path) {
    for index in 0..FILES {
        let folder = top.join(format!("d{}/e{}", index % 7, index % 3));
        fs::create_dir_all(&folder).unwrap();
        let size = [0, 1, 1000, 5000, 70_000][index % 5];
        fs::write(folder.join(format!("f{index}")), random(size)).unwrap();
    }
    fs::write(top.join("large"), random(5_000_000)).unwrap();
    fs::set_permissions(top.join("large"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(top.join("large"), top.join("d1/large too")).unwrap();
    symlink("../large", top.join("d2/link")).unwrap();
}

/// Everything about two trees that a copy keeps is the same.
fn assert_same(one: &Path, other: &Path) {
    let list = |folder: &Path| {
        let mut command = Command::new("sh");
        let what = "find . -mindepth 1 -printf '%P %y %m %n %T@ %l\\n' | LC_ALL=C sort \
                    && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 cksum";
        command.args(["-c", what]).current_dir(folder);
        finish(command, None).ok().text()
    };
    let (one, other) = (list(one), list(other));
    assert!(one == other, "trees differ:\n{one}\n--- and ---\n{other}");
}

/// Runs it again and again, killed a little later each time, until it gets through; how often it was killed.
fn killed_until_it_gets_through(system: &System, arguments: &[&str], how: Signal) -> usize {
    for round in 0..100 {
        let mut child =
            system.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let limit = Duration::from_millis(40 + 25 * round as u64);
        if let Some(status) = wait(&mut child, limit) {
            let mut said = String::new();
            let _ = std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said);
            // Killed after its last step and before its end, it had got through the time before.
            let got_through = round > 0 && said.contains("exists already");
            assert!(status.success() || got_through, "{status}: {said}");
            return round;
        }
        signal(&child, how);
        let outcome = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(
            how == Signal::KILL || outcome.status.code() == Some(130) || outcome.status.success(),
            "{said}"
        );
        if outcome.status.success() {
            return round;
        }
    }
    panic!("it never gets through");
}

#[test]
fn a_tree_survives_kills_and_interrupts_of_who_carries_it() {
    let system = System::up();
    let (from, to) = (system.work().join("from"), system.work().join("to"));
    make_tree(&from);
    for how in [Signal::KILL, Signal::INT] {
        killed_until_it_gets_through(&system, &["put", "-r", "from", "tree"], how);
        system.amoeba(&["ls", "-a"]).ok().printed("tree\n");
        let put = system.json(&["put", "-r", "-f", "--json", "from", "tree"]);
        assert_eq!(put["shipped"], 0, "{put}");
        killed_until_it_gets_through(&system, &["get", "-r", "tree", "to"], how);
        assert_same(&from, &to);
        let mut left: Vec<_> =
            fs::read_dir(system.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["from", "to"]);
        fs::remove_dir_all(&to).unwrap();
        system.amoeba(&["rm", "-r", "--destroy", "tree"]).ok();
    }
}

#[test]
fn an_interrupted_tree_has_no_name_and_says_what_next() {
    let system = System::up();
    make_tree(&system.work().join("from"));
    let mut child = system.command(&["put", "-r", "from", "tree"]).stderr(Stdio::piped()).spawn().unwrap();
    system.wait_for("the beginning of a tree", || {
        let listed = system.amoeba(&["ls", "-a"]);
        if wait(&mut child, Duration::ZERO).is_some() {
            return Some(()); // this machine was faster than the test
        }
        listed.text().contains(".amoeba-put-").then_some(())
    });
    signal(&child, Signal::INT);
    let outcome = child.wait_with_output().unwrap();
    if !outcome.status.success() {
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert_eq!(outcome.status.code(), Some(130), "{said}");
        assert!(said.contains("tree has no such name yet"), "{said}");
        assert!(said.contains("hint: the same command goes on from there"), "{said}");
        system.amoeba(&["cat", "tree/large"]).exit(1);
    }
    system.amoeba(&["put", "-r", "-f", "from", "tree"]).ok();
    system.amoeba(&["ls", "-a"]).ok().printed("tree\n");
}

#[test]
fn who_is_not_root_carries_what_may_be_read_also_into_what_may_not_be_written() {
    let system = System::unprivileged();
    system.amoeba(&["up"]).ok();
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        let amoeba = system.command(&["x"]);
        command.args(["-ec", script]).current_dir(system.work()).env_clear();
        command.envs(amoeba.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if rustix::process::geteuid().is_root() {
            let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(system.work()).unwrap());
            std::os::unix::process::CommandExt::uid(&mut command, owner);
        }
        finish(command, None).ok()
    };
    shell("mkdir -p from/ro/deep && echo a > from/ro/deep/a && echo b > from/ro/b && echo c > from/closed");
    shell("ln from/ro/b from/ro/deep/b2 && chmod 555 from/ro/deep from/ro from && chmod 0 from/closed");
    system
        .amoeba(&["put", "-r", "from", "tree"])
        .exit(1)
        .complained("from/closed: permission denied")
        .complained("tree has no such name yet");
    shell("chmod 400 from/closed");
    system.amoeba(&["put", "-r", "from", "tree"]).ok();
    system.amoeba(&["get", "-r", "tree", "to"]).ok();
    assert_same(&system.work().join("from"), &system.work().join("to"));
    shell("chmod 755 to to/ro && rm -f to/closed to/ro/b && chmod 555 to to/ro");
    system.amoeba(&["get", "-r", "-f", "tree", "to"]).ok();
    shell("diff -r from to && test $(stat -c %a to) = 555");
    shell("chmod -R u+w from to");
}
