//! `--view graph`: a process sees the directory graph and no host's files; and views of both kinds without root.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::dev::script;
use crate::system::{Outcome, System, finish};

/// Defines `graph`, which runs on another host with the graph as its files, and `fill`, which puts programs of this host into
/// the graph, each with its linker and its libraries.
const GRAPH: &str = r#"
    graph() { amoeba run --on bolt --view graph "$@"; }
    fill() {
        for program in "$@"; do
            for file in $(command -v $program) $(ldd $(command -v $program) | grep -o '/[^ ]*'); do
                amoeba mkdir -p $(dirname $file)
                amoeba ls $file > /dev/null 2>&1 || amoeba put $file $file
            done
        done
    }
"#;

/// Whether anything can be mounted here; says so if not.
fn can_mount() -> bool {
    let can = File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !can {
        eprintln!("SKIPPED: nothing can be mounted here");
    }
    can
}

fn run(text: &str) -> Outcome {
    script(&System::new(), &["2"], &[GRAPH, text].concat()).ok()
}

#[test]
fn a_process_sees_the_graph_and_changes_it() {
    if !can_mount() {
        return;
    }
    let text = r#"
        echo here > here
        printf 'from outside' | amoeba put - /home/there
        graph -- sh -c 'echo nothing is here yet' && exit 1
        [ $? = 127 ]
        fill sh cat ls mv grep
        graph -- cat there
        graph -- sh -c 'pwd; echo $HOME'
        graph -- sh -c 'test ! -e here && test ! -e /etc/passwd && test ! -e "$AMOEBA_STATE" && test -S $AMOEBA_SOCKET'
        graph -- sh -c 'ls -d /proc/self /dev/null /sys/class /tmp /run'
        graph -- sh -c 'grep -q "bullet server" /profile/cap/bulletsvr/default'
        # What it writes is there when its end is told.
        graph -- sh -c 'echo one > a; echo two > b; mv b c; echo private > /tmp/private'
        amoeba cat a c
        amoeba ls /home/b > /dev/null 2>&1 && exit 1
        graph -- sh -c 'test ! -e /tmp/private'
        amoeba ls /tmp/private > /dev/null 2>&1 && exit 1
        for i in $(seq 20); do graph -w / -- sh -c "echo $i > home/count; exec 3>>home/count; echo more >&3"; done
        amoeba cat count
        # What others have written is there when it begins, and a directory of the graph may be all there is.
        for i in $(seq 5); do echo $i | amoeba put - new-$i; test "$(graph -- cat new-$i)" = $i; done
        amoeba mkdir -p box/bin
        graph --root box -- sh -c true && exit 1
        [ $? = 127 ]
        graph -w /profile -- pwd && exit 1
        graph -w /no/such -- sh -c true && exit 1
        graph --root count -- sh && exit 1
        amoeba run --view host --root box -- true && exit 1
        true
    "#;
    let outcome = run(text);
    let printed = outcome.text();
    let expected =
        "from outside/home\n/home\n/dev/null\n/proc/self\n/run\n/sys/class\n/tmp\none\ntwo\n20\nmore";
    assert_eq!(printed, expected, "{}", outcome.error_text());
    outcome.told("not found").told("not a directory").told("`--view graph` shows it");
}

#[test]
fn processes_of_a_host_share_one_mount_and_a_map_sees_it() {
    if !can_mount() {
        return;
    }
    let text = r#"
        fill sh cat sleep dd
        # On one mount what is written is seen before it is committed.
        mkfifo pipe
        graph -- dd of=shared bs=6 status=none < pipe &
        command=$!
        exec 4> pipe
        echo first >&4
        graph -- sh -c 'while [ ! -s shared ]; do sleep 0.1; done; cat shared'
        # The end of another process does not commit it.
        test -z "$(amoeba cat shared)"
        echo later >&4
        exec 4>&-
        wait $command
        amoeba cat shared
        amoeba map --view graph -j 4 sh -c 'echo $1 > out-$1' sh ::: 1 2 3 4
        amoeba cat out-1 out-2 out-3 out-4
        # Nobody need stay for it.
        process=$(graph -d -- sh -c 'sleep 0.3; echo later > late')
        amoeba wait $process
        amoeba cat late
    "#;
    run(text).printed("first\nfirst\nlater\n1\n2\n3\n4\nlater\n");
}

#[test]
fn what_was_synced_survives_the_viewer() {
    if !can_mount() {
        return;
    }
    let text = r#"
        fill sh dd
        echo old- | amoeba put - synced
        mkfifo pipe
        graph -- dd of=synced conv=notrunc oflag=sync bs=5 < pipe &
        command=$!
        exec 4> pipe
        echo kept >&4
        until grep -qs synced ${AMOEBA_STATE%/*}/bolt/graphs/*/log; do sleep 0.1; done
        amoeba cat synced
        viewer=$(pgrep -f ' viewer$' | while read pid; do grep -lz "^AMOEBA_STATE=${AMOEBA_STATE%/*}/bolt" /proc/$pid/environ || true; done | cut -d/ -f3)
        kill -9 $viewer
        until grep -qs zombie /proc/$viewer/status; do sleep 0.1; done
        kill -9 $command; wait $command && exit 1
        graph -- sh -c 'true'
        amoeba cat synced
    "#;
    run(text).printed("old-\nkept\n");
}

/// A shell script as somebody who is not root, on a host as distributions have it: `/dev/fuse` is for all.
fn as_nobody(system: &System, text: &str) -> Outcome {
    let amoeba = system.command::<&str>(&[]);
    let script = format!(
        "mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec 'amoeba() {{ {} \"$@\"; }}\n{text}'",
        amoeba.get_program().to_str().expect("the folder is ASCII")
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script]).env_clear().stdin(Stdio::null());
    command.envs(amoeba.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(system.work());
    finish(command, None)
}

#[test]
fn without_root_a_process_sees_its_callers_files_and_the_graph() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can make a host whose /dev/fuse is for all");
    }
    if !can_mount() {
        return;
    }
    let system = System::unprivileged();
    let text = r#"
        amoeba up > /dev/null
        echo one > file
        mine() { amoeba run --view mine -- "$@"; }
        mine sh -c "cat file; echo two >> file; mkdir d; echo x > d/new; mv d e; test ! -e $AMOEBA_STATE/root.cap"
        cat file e/new
        mine sh -c "echo x > /usr/private; cat /usr/private; rm -r /usr/share; test ! -e /usr/share; echo y > /tmp/y"
        test ! -e /usr/private; test -e /usr/share; test ! -e /tmp/y
        mine cat /etc/shadow && exit 1
        for file in /bin/sh /bin/cat $(ldd /bin/sh /bin/cat | grep -o "/[^ ]* " | sort -u); do
            amoeba mkdir -p $(dirname $file); amoeba put $file $file
        done
        amoeba run --view graph -- sh -c "echo three > file; cat file; test ! -e /etc/passwd"
        amoeba cat file
    "#;
    as_nobody(&system, text).ok().printed("one\none\ntwo\nx\nx\nthree\nthree\n");
}
