//! Guests that mean no good, as root and as a user: what is ours, what is another guest's and what is the host's stays out of
//! their reach, and whatever they use up is their own.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use crate::system::{System, random};

/// As whom the system runs: what holds for one holds for the other.
fn both(test: impl Fn(&System)) {
    for system in [System::new(), System::unprivileged()] {
        system.amoeba(&["up"]).ok();
        test(&system);
    }
}

/// Which limits this host enforces for a system's guests.
fn enforces(system: &System, option: &[&str]) -> bool {
    let line = [&["run"], option, &["--", "true"]].concat();
    let outcome = system.amoeba(&line);
    if outcome.status.success() {
        return true;
    }
    outcome.exit(126).complained("cannot be enforced");
    eprintln!("SKIPPED: {option:?} is refused here, as a user or without control groups");
    false
}

/// Whether a script that a guest runs succeeds in what it tries last, among the host's files or its caller's.
fn manages(system: &System, script: &str) -> bool {
    let script = format!("({script}) >/dev/null 2>&1 && echo it did");
    [&["--view", "host"][..], &[]].into_iter().any(|view| {
        let line = [&["run"], view, &["--", "sh", "-c", &script]].concat();
        system.amoeba(&line).text() == "it did"
    })
}

#[test]
fn a_guest_reads_no_secret_and_no_image_and_writes_nothing_there() {
    both(|system| {
        assert!(manages(system, "true"));
        let state = system.state();
        let mut files = Vec::new();
        let mut pending = vec![state.clone()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => pending.push(entry.path()),
                    // The host's name and its configuration are no secrets, and its commands ask for them.
                    _ if ["host.name", "config.toml"].iter().any(|known| entry.file_name() == *known) => {}
                    kind if kind.is_file() => files.push(entry.path()),
                    _ => {}
                }
            }
        }
        assert!(files.iter().any(|path| path.ends_with("system.secret")) && files.len() > 8, "{files:?}");
        let list: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let list = list.join(" ");
        assert!(!manages(system, &format!("for f in {list}; do test -e $f && exit 0; done; exit 1")));
        assert!(!manages(system, &format!("cat {list} | grep -q .")));
        // Among its caller's files there is a directory of this name, of its own.
        manages(system, &format!("touch {0}/x; mkdir -p {0}/guests/x", state.display()));
        manages(system, &format!("umount -l {0}; mv {0} {0}.moved", state.display()));
        assert!(!state.join("x").exists() && !state.join("guests/x").exists());
        assert!(state.join("system.secret").exists());
        // What it may do with its own kernel it can do nevertheless.
        system.amoeba_with(&["put", "-", "thing"], b"mine").ok();
        let amoeba = binary(system);
        system.amoeba(&["run", "--", &amoeba, "cat", "thing"]).ok().printed("mine");
    });
}

/// The binary that the system runs.
fn binary(system: &System) -> String {
    let boot = system.daemons().into_iter().next().expect("a daemon runs");
    std::fs::read_link(format!("/proc/{}/exe", boot.pid)).unwrap().display().to_string()
}

#[test]
fn a_guest_signals_traces_and_sees_no_daemon() {
    both(|system| {
        let daemons = system.daemons();
        let pids: Vec<String> = daemons.iter().map(|daemon| daemon.pid.to_string()).collect();
        let pids = pids.join(" ");
        assert!(!manages(system, &format!("for p in {pids}; do kill -KILL $p && exit 0; done; exit 1")));
        assert!(!manages(system, "kill -KILL -1 && kill -KILL 1 && sleep 1 && exit 1"));
        assert!(!manages(system, "cat /proc/1/environ || cat /proc/1/maps || ls /proc/1/fd/0"));
        assert!(!manages(system, "test $(ls -d /proc/[0-9]* | wc -l) -gt 12"));
        let still = system.daemons();
        let known = |pid: i32| still.iter().any(|daemon| daemon.pid == pid);
        assert!(daemons.iter().all(|daemon| known(daemon.pid)), "{daemons:?} became {still:?}");
    });
}

#[test]
fn a_guest_changes_neither_mounts_nor_devices_nor_the_hosts_settings() {
    both(|system| {
        for script in [
            "mount -t tmpfs none /mnt",
            "mount --bind /tmp /etc",
            "umount /dev",
            "unshare --user true",
            "unshare --user --map-root-user --mount true",
            "unshare --mount true",
            "unshare --net true",
            "nsenter --target 1 --mount true",
            "chroot / true",
            "mknod /tmp/amoeba-live-device b 254 0",
            "head -c 1 /dev/vda || head -c 1 /dev/sda || head -c 1 /dev/mem || head -c 1 /dev/kmsg || head -c 1 /dev/fuse",
            "echo 0 > /proc/sys/kernel/randomize_va_space",
            "echo h > /proc/sysrq-trigger",
            "echo core > /proc/sys/kernel/core_pattern",
            "test -e /sys/kernel/uevent_seqnum && echo x > /sys/power/state",
            "hostname stolen",
            "ip link add dummy0 type dummy",
            "nice -n -5 true && test $(nice -n -5 nice) -lt 0",
        ] {
            assert!(!manages(system, script), "{script}");
        }
        // No group of its own and none of the host's lets go of it or takes it.
        let script = "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name tasks -o -name memory.limit_in_bytes \
                      -o -name pids.max -o -name memory.max | head -n 200); do (echo $$ > $f) && exit 0; done; exit 1";
        assert!(!manages(system, script), "{script}");
    });
}

#[test]
fn without_net_a_guest_has_a_loopback_interface_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5)");
    if std::process::Command::new("python3").args(["-c", "1"]).stdout(Stdio::null()).status().is_err() {
        return eprintln!("SKIPPED: no python3 to speak to a network");
    }
    both(|system| {
        system.amoeba(&["run", "--", "python3", "-c", &connect]).exit(1).told("refused");
        system.amoeba(&["run", "--net", "--", "python3", "-c", &connect]).ok();
        let own = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())";
        system.amoeba(&["run", "--", "python3", "-c", own]).ok();
        let raw = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)";
        for net in [&["run"][..], &["run", "--net"]] {
            system.amoeba(&[net, &["--", "python3", "-c", raw]].concat()).exit(1).told("not permitted");
        }
        // Abstract sockets belong to a network; with the host's they are kept apart by the domain, where there is one.
        let away = "import socket; socket.create_connection(('192.0.2.1', 9), 5)";
        system.amoeba(&["run", "--", "python3", "-c", away]).exit(1).told("unreachable");
    });
}

#[test]
fn a_hog_and_a_bomb_hurt_only_themselves_and_say_so() {
    let system = System::up();
    if !enforces(&system, &["--mem", "1G", "--pids", "100", "--cpus", "1"]) {
        return;
    }
    let hog = "head -c 300M /dev/zero | tail | wc -c; exit 1";
    system
        .amoeba(&["run", "--mem", "64M", "--", "sh", "-c", hog])
        .exit(1)
        .told("out of memory (limit 64 MiB)");
    system
        .amoeba(&["run", "--", "sh", "-c", "head -c 300M /dev/zero | tail | wc -c"])
        .ok()
        .printed("314572800\n");
    let hog = "head -c $1 /dev/zero | tail | wc -c; test $1 = 1M";
    let told = system.amoeba(&["map", "-k", "--mem", "64M", "sh", "-c", hog, "sh", ":::", "1M", "300M"]);
    told.exit(1).told("out of memory (limit 64 MiB), exit code 1");
    let bomb = "b() { b | b & }; b; while :; do sleep 1; done";
    let name = system.amoeba(&["run", "-d", "--pids", "60", "--", "bash", "-c", bomb]).ok().text();
    // While it goes on exploding, everybody else has what he wants.
    let bytes = random(300_000);
    system.amoeba_with(&["put", "-", "thing"], &bytes).ok();
    assert!(system.amoeba_with(&["run", "--", "cat"], &bytes).ok().stdout == bytes);
    let listed = system.json(&["ps", "--json"]);
    assert_eq!(
        (&listed[0]["process_limit"], &listed[0]["memory_limit"]),
        (&60.into(), &serde_json::Value::Null)
    );
    system.amoeba(&["ps"]).ok().text().find("60 processes").expect("the list shows the limit");
    system.amoeba(&["kill", "-s", "KILL", &name]).ok();
    let ended = system.amoeba(&["wait", "--json", &name]);
    let ended: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended["reason"], "out of processes (limit 60)", "{ended}");
    // Half a processor is half a processor: the time it has had is at most that, with what it had saved up.
    let spin = "t=$(($(date +%s%N) + 1000000000)); while [ $(date +%s%N) -lt $t ]; do :; done";
    let name = system.amoeba(&["run", "-d", "--cpus", "0.2", "--", "sh", "-c", spin]).ok().text();
    let ended = system.json(&["wait", "--json", &name]);
    let used = ended["user_microseconds"].as_u64().unwrap() + ended["system_microseconds"].as_u64().unwrap();
    assert!(used > 0 && ended["exit_code"] == 0, "{ended}");
}

#[test]
fn a_guest_has_as_many_processes_as_were_asked_for_whatever_it_sees() {
    let system = System::up();
    if !enforces(&system, &["--pids", "100"]) {
        return;
    }
    // Itself and five that sleep; the sixth cannot be started, at which a shell ends.
    let script = "for i in 1 2 3 4 5; do sleep 100 > /dev/null 2>&1 & done; echo five; sleep 100 & echo six";
    for view in ["host", "mine"] {
        for net in [&[][..], &["--net"]] {
            let line = [&["run", "--view", view], net, &["--pids", "1", "--", "true"]].concat();
            system.amoeba(&line).ok();
            let line = [&["run", "--view", view], net, &["--pids", "6", "--", "dash", "-c", script]].concat();
            system.amoeba(&line).exit(2).printed("five\n").told("out of processes (limit 6)");
        }
    }
}

#[test]
fn a_limit_that_cannot_be_enforced_is_refused() {
    let system = System::unprivileged();
    system.amoeba(&["up"]).ok();
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return eprintln!("SKIPPED: a user may have groups of his own here");
    }
    system.amoeba(&["run", "--mem", "64M", "--", "true"]).exit(126).complained("(64 MiB) cannot be enforced");
    system.amoeba(&["run", "--", "true"]).ok();
    for bad in [["--mem", "lots"], ["--cpus", "0"], ["--pids", "0"]] {
        system.amoeba(&["run", bad[0], bad[1], "--", "true"]).exit(125).complained(bad[0]);
    }
}

#[test]
fn a_guest_sees_nothing_of_another_ones_directory_and_log() {
    let system = System::up();
    system.write("in", b"theirs");
    let args = ["run", "--in", "in", "--out", "seen", "--", "sh", "-c"];
    // Its own directory has a path, which leads to it and to no other.
    let script = "test \"$(cat $(pwd)/in)\" = theirs && ls $(dirname $(pwd)) > seen && test -w .";
    system.amoeba(&[&args[..], &[script]].concat()).ok();
    assert_eq!(std::fs::read_to_string(system.work().join("seen")).unwrap(), "scratch\n");
    let name = system.amoeba(&["run", "-d", "--", "sh", "-c", "echo secret; sleep 1000"]).ok().text();
    system.wait_for("the log", || (system.amoeba(&["logs", &name]).text() == "secret").then_some(()));
    let logs = system.state().join("guests");
    assert!(!manages(&system, &format!("cat {}/*.log", logs.display())));
    assert!(!manages(&system, "grep -aq 'sleep 1000' /proc/[0-9]*/cmdline && ps -e | grep -q sleep"));
    system.amoeba(&["kill", "-s", "KILL", &name]).ok();
}
