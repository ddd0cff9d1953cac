//! Nothing of the main job needs root.

use crate::system::{System, kill_daemon, random};

#[test]
fn commands_run_and_files_are_kept_without_root() {
    let system = System::unprivileged();
    system.amoeba(&["run", "--", "echo", "hello"]).ok().printed("hello\n");
    let bytes = random(3_000_000);
    assert!(system.amoeba_with(&["run", "--", "cat"], &bytes).ok().stdout == bytes);
    system.amoeba(&["run", "--", "sh", "-c", "exit 7"]).exit(7);
    system.amoeba_with(&["put", "-", "file"], &bytes).ok();
    assert!(system.amoeba(&["cat", "file"]).ok().stdout == bytes);
    system.amoeba_with(&["put", "-", "/bin/hi"], b"#!/bin/sh\necho hi $1\n").ok();
    system.amoeba(&["run", "--", "hi", "there"]).ok().printed("hi there\n");
}

#[test]
fn a_process_is_waited_for_and_killed_without_root() {
    let system = System::unprivileged();
    let name = system.amoeba(&["run", "-d", "--", "sh", "-c", "sleep 1000 & wait"]).ok().text();
    system.amoeba(&["kill", &name]).ok();
    let code = system.amoeba(&["wait", &name]).status.code();
    assert!(matches!(code, Some(137 | 143)), "killed, but its exit code is {code:?}");
}

#[test]
fn killed_daemons_come_back_without_root() {
    let system = System::unprivileged();
    system.amoeba(&["up"]).ok();
    let bytes = random(100_000);
    system.amoeba_with(&["put", "-", "file"], &bytes).ok();
    system.daemons().iter().for_each(kill_daemon);
    let outcome = system.wait_for("the file after the restart", || {
        system.amoeba(&["up"]);
        let outcome = system.amoeba(&["cat", "file"]);
        outcome.status.success().then_some(outcome)
    });
    assert!(outcome.stdout == bytes);
}

/// What somebody who is not root does with the graph as files, in a mount namespace of the test, where he may open `/dev/fuse` as
/// is usual elsewhere. `$1` is the binary, `$2` a folder.
const MOUNTED: &str = r#"
set -e
if [ "$(id -u)" = 0 ]; then
    mknod "$2/fuse" c 10 229
    chmod 666 "$2/fuse"
    mount --bind "$2/fuse" /dev/fuse
    exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "$0" "$0" "$@"
fi
"$1" mount m > said
trap '"$1" umount m' EXIT
grep -q " $PWD/m fuse.amoeba " /proc/mounts
mkdir m/home/d
echo written > m/home/d/f
mv m/home/d/f m/home/d/g
ln -s g m/home/d/link
chmod 600 m/home/d/g
test "$(stat -c %a:%u m/home/d/g)" = "600:$(id -u)"
dd if=/dev/zero of=m/home/large bs=1M count=3 conv=fsync 2> said
test "$(stat -c %s m/home/large)" = 3145728
cat m/home/d/link
"#;

#[test]
fn the_graph_is_files_without_root() {
    let is_root = rustix::process::geteuid().is_root();
    let has = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    if device.is_err() || !has("fusermount3") || (is_root && !(has("unshare") && has("setpriv"))) {
        eprintln!("SKIPPED: there is no fusermount3, or no /dev/fuse");
        return;
    }
    let system = System::unprivileged();
    system.amoeba(&["up"]).ok();
    let usual = system.command::<&str>(&[]);
    let place = system.work().join("m");
    std::fs::create_dir(&place).unwrap();
    let mut words = vec!["sh", "-c", MOUNTED, MOUNTED];
    if is_root {
        std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
        words.splice(..0, ["unshare", "--mount"]);
    }
    let mut command = std::process::Command::new(words[0]);
    command.args(&words[1..]).arg(usual.get_program()).arg(system.work()).current_dir(system.work());
    command.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stdout == b"written\n", "{output:?}");
    system.amoeba(&["cat", "/home/d/g"]).ok().printed("written\n");
    assert_eq!(system.amoeba(&["cat", "/home/large"]).ok().stdout.len(), 3 << 20);
}
