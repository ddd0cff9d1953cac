//! `amoeba dev`: throw-away hosts are one system while they are there, and leave nothing behind however they end.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::system::{Outcome, System, finish, kill, random, signal, wait};

/// What `dev` is given that it may take to go away.
const LIMIT: Duration = Duration::from_secs(60);

/// Prints the host name, the directory and the network namespace of each host, then sleeps.
const DESCRIBE_AND_SLEEP: &str = r#"
    echo "$AMOEBA_DEV_HOSTS" | tr : '\n' | while IFS== read -r name state; do
        echo "host $name $state $(readlink "$state/namespaces/net" | xargs -r readlink)"
    done
    echo ready
    sleep 1000 & sleep 1000"#;

/// `amoeba dev` with its hosts in the test's own folder.
fn dev(system: &System, arguments: &[&str]) -> Command {
    let mut command = system.command(&[&["dev"], arguments].concat());
    command.env("TMPDIR", system.work());
    command
}

/// Runs a shell script among hosts.
pub(crate) fn script(system: &System, arguments: &[&str], script: &str) -> Outcome {
    finish(dev(system, &[arguments, &["--", "sh", "-ec", script]].concat()), None)
}

/// Some hosts that are there until something ends them.
struct Running {
    front: Child,
    /// The network namespaces; none in the loopback mode.
    namespaces: BTreeSet<PathBuf>,
}

impl Running {
    fn start(system: &System, arguments: &[&str]) -> Running {
        let mut command = dev(system, &[arguments, &["3", "--", "sh", "-c", DESCRIBE_AND_SLEEP]].concat());
        let mut front = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let stdout = BufReader::new(front.stdout.take().expect("stdout was piped"));
        let lines = stdout.lines().map(|line| line.expect("text is printed"));
        let described: Vec<String> = lines.take_while(|line| line != "ready").collect();
        let words = described.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        let namespaces: BTreeSet<PathBuf> = words
            .filter_map(|words| words.get(3).filter(|link| !link.is_empty()).map(PathBuf::from))
            .collect();
        assert_eq!(described.len(), 3, "{described:?}");
        Running { front, namespaces }
    }

    /// The child of the front that keeps the hosts.
    fn keeper(&self) -> i32 {
        let pid = self.front.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("Linux tells children");
        children.split_whitespace().next().expect("it has a keeper").parse().expect("a number")
    }

    /// The front has ended, and nothing is left of anything it has made.
    fn end(mut self, system: &System) -> Option<i32> {
        let status = wait(&mut self.front, LIMIT).expect("it ends");
        nothing_left(system);
        system.wait_for("the namespaces to vanish", || {
            self.namespaces.is_disjoint(&namespaces()).then_some(())
        });
        status.code()
    }
}

/// The network namespaces that processes are in.
fn namespaces() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok()).collect()
}

/// Waits until no process and no directory of `dev` is left.
pub(crate) fn nothing_left(system: &System) {
    let mark = [b"TMPDIR=", system.work().as_os_str().as_encoded_bytes(), b"\0"].concat();
    system.wait_for("the processes to end", || {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut environments =
            entries.map(|entry| fs::read(entry.path().join("environ")).unwrap_or_default());
        let left = environments.any(|strings| strings.windows(mark.len()).any(|window| window == mark));
        (!left).then_some(())
    });
    system.wait_for("the directory to vanish", || {
        let entries = fs::read_dir(system.work()).expect("the working directory is ours").flatten();
        let mut names = entries.map(|entry| entry.file_name());
        (!names.any(|name| name.to_string_lossy().starts_with("amoeba-dev"))).then_some(())
    });
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    assert!(!interfaces.contains("port1") && !interfaces.contains("bridge"), "{interfaces}");
}

#[test]
fn the_exit_code_is_the_command_s_and_nothing_stays() {
    let system = System::new();
    script(&system, &["1"], "sleep 1000 & exit 7").exit(7);
    nothing_left(&system);
    script(&system, &["1"], "kill -9 $$").exit(137);
    nothing_left(&system);
    finish(dev(&system, &["1", "--", "no-such-command"]), None).exit(127).complained("no-such-command");
    nothing_left(&system);
    finish(dev(&system, &["0"]), None).exit(125).complained("1..=60");
}

/// What three hosts must be, wherever they are.
fn three_hosts_are_one_system(system: &System, arguments: &[&str]) {
    let outcome = script(
        system,
        &[arguments, &["3"]].concat(),
        r#"
        export IFS=:
        for host in $AMOEBA_DEV_HOSTS; do
            export AMOEBA_STATE=${host#*=}
            amoeba status | head -1 | cut -d: -f1,3
            echo "text of ${host%%=*}" | amoeba put - /home/"${host%%=*}"
        done
        for host in $AMOEBA_DEV_HOSTS; do
            export AMOEBA_STATE=${host#*=}
            amoeba cat /home/anvil /home/bolt /home/chisel
            amoeba run --on "${host%%=*}" -- echo run on "${host%%=*}"
            [ ! -e "$AMOEBA_STATE/namespaces" ] || [ "$(amoeba run --on "${host%%=*}" -- uname -n)" = "${host%%=*}" ]
        done
        amoeba ls /profile/hosts
        exit 3"#,
    );
    let text = outcome.exit(3).text();
    let lines: Vec<&str> = text.lines().collect();
    for (host, name) in ["anvil", "bolt", "chisel"].iter().enumerate() {
        assert!(lines[host].starts_with(&format!("{name}:")) || lines[host] == *name, "{text}");
        let part = &lines[3 + 4 * host..][..4];
        let run = format!("run on {name}");
        assert_eq!(part, ["text of anvil", "text of bolt", "text of chisel", &run], "{text}");
    }
    assert_eq!(lines[15..], ["anvil", "bolt", "chisel"], "{text}");
    nothing_left(system);
}

#[test]
fn three_hosts_in_namespaces_are_one_system() {
    three_hosts_are_one_system(&System::new(), &[]);
}

#[test]
fn three_hosts_on_the_loopback_interface_are_one_system() {
    three_hosts_are_one_system(&System::new(), &["--loopback"]);
}

#[test]
fn three_hosts_without_root_are_one_system() {
    three_hosts_are_one_system(&System::unprivileged(), &[]);
}

#[test]
fn a_large_file_put_on_one_host_is_read_on_another() {
    let system = System::new();
    let contents = random(20_000_000);
    let file = system.write("large", &contents);
    let read = system.work().join("read");
    let text = format!(
        r#"
        AMOEBA_STATE=$(dirname $AMOEBA_STATE)/bolt amoeba put {} /home/large
        AMOEBA_STATE=$(dirname $AMOEBA_STATE)/chisel amoeba get /home/large {}"#,
        file.display(),
        read.display()
    );
    script(&system, &["3"], &text).ok();
    assert!(fs::read(read).expect("it was made") == contents);
}

#[test]
fn a_host_that_was_killed_comes_back_at_its_place() {
    let system = System::new();
    let text = r#"
        export AMOEBA_STATE=$(dirname $AMOEBA_STATE)/bolt
        before=$(readlink $AMOEBA_STATE/namespaces/net | xargs -r readlink)
        for pid in $(amoeba status | awk '$1 == "supervisor" || $1 == "kernel" { print $2 }'); do
            kill -9 $pid || true # the kernel ends with its supervisor
        done
        while amoeba status >/dev/null; do sleep 0.05; done
        amoeba up >/dev/null
        kernel=$(amoeba status | awk '$1 == "kernel" { print $2 }')
        [ "$before" = "" ] || [ "$(readlink /proc/$kernel/ns/net)" = "$before" ]
        amoeba run --on bolt -- echo back"#;
    script(&system, &["2"], text).ok().printed("back\n");
    nothing_left(&system);
}

#[test]
fn hosts_whose_front_was_killed_are_gone() {
    let system = System::new();
    let running = Running::start(&system, &[]);
    signal(&running.front, Signal::KILL);
    assert_eq!(running.end(&system), None);
}

#[test]
fn hosts_whose_keeper_was_killed_are_gone() {
    let system = System::new();
    let running = Running::start(&system, &[]);
    kill(running.keeper(), Signal::KILL);
    assert_eq!(running.end(&system), Some(125));
}

#[test]
fn hosts_that_are_told_to_end_are_gone() {
    let system = System::new();
    for number in [Signal::TERM, Signal::INT, Signal::HUP] {
        let running = Running::start(&system, &["--loopback"]);
        signal(&running.front, number);
        assert_eq!(running.end(&system), Some(143), "{number:?}");
    }
}

#[test]
fn a_command_that_does_not_listen_is_killed() {
    let system = System::new();
    let text = r#"trap "" TERM; kill -TERM $(cut -d' ' -f4 /proc/$PPID/stat); while :; do sleep 1; done"#;
    script(&system, &["1"], text).exit(137);
    nothing_left(&system);
}

#[test]
fn hosts_that_are_killed_while_they_start_are_gone() {
    let system = System::new();
    for delay in [5, 20, 40, 60, 100, 150, 250] {
        let mut front = dev(&system, &["2", "--", "sleep", "1000"]).spawn().expect("the binary starts");
        std::thread::sleep(Duration::from_millis(delay));
        signal(&front, Signal::KILL);
        wait(&mut front, LIMIT).expect("it ends");
        nothing_left(&system);
    }
}

#[test]
fn without_a_command_there_is_a_shell() {
    let system = System::new();
    let mut command = dev(&system, &["1"]);
    command.env("SHELL", "/bin/sh").stdout(Stdio::piped()).stderr(Stdio::piped());
    let outcome = finish(command, Some(b"echo in $(basename $AMOEBA_STATE)\nexit 5\n".to_vec()));
    let outcome = outcome.exit(5);
    assert_eq!(outcome.text(), "in anvil");
    nothing_left(&system);
}
