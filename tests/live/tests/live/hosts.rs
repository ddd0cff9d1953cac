//! Several hosts are one computer: files are the same from everywhere, commands run everywhere, and a host that is lost
//! takes nobody with it and comes back.
//!
//! The scripts run in `amoeba dev 3`, whose first two hosts have a file server each. Where something must be heard soon,
//! `timeout` is the watchdog: its 124 is no exit code of `amoeba`.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::dev::{nothing_left, script};
use crate::system::{Outcome, System, random};

/// What every script can say: `on HOST COMMAND`, and `pids HOST ROLE` for the processes of its daemons.
const WORDS: &str = r#"
    all=${AMOEBA_STATE%/*}
    on() { _host=$1; shift; AMOEBA_STATE=$all/$_host "$@"; }
    pids() { on "$1" amoeba status --json | tr -d ' \n' | tr '{' '\n' | grep "\"role\":\"$2\"" | grep -o '"pid":[1-9][0-9]*' | cut -d: -f2; }
    lose() { kill -9 $(grep -o '"pid": *[1-9][0-9]*' "$all/$1/run/boot.json" | tr -dc '0-9\n') 2>/dev/null || true; }
    code_of() { _file=$1; shift; _code=0; "$@" || _code=$?; echo $_code > "$_file"; }
    until_ok() { until "$@" >/dev/null 2>&1; do sleep 0.1; done; }
"#;

/// Runs a script on three hosts, and then nothing is left of them.
#[track_caller]
fn on_three_hosts(system: &System, text: &str) -> Outcome {
    let outcome = script(system, &["3"], &format!("{WORDS}{text}"));
    nothing_left(system);
    outcome
}

/// The lines that a `map --json` has printed.
fn lines(system: &System, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(system.work().join(file)).expect("the script wrote it");
    text.lines().map(|line| serde_json::from_str(line).expect("map prints JSON")).collect()
}

/// Bytes of the large file: more than any cache of a link, and far more in a long run.
fn large_size() -> usize {
    if std::env::var_os("AMOEBA_LONG").is_some() { 1 << 30 } else { 64 << 20 }
}

#[test]
fn a_large_file_is_the_same_from_every_host() {
    let system = System::new();
    system.write("large", &random(large_size()));
    let text = r#"
        on bolt amoeba put large /home/large
        for host in anvil bolt chisel; do
            on $host amoeba cat /home/large | cmp - large
        done"#;
    on_three_hosts(&system, text).ok();
}

#[test]
fn reading_goes_on_at_another_server_when_a_host_is_lost() {
    let system = System::new();
    system.write("large", &random(32 << 20));
    // The pipe holds the reader in the middle of the file until its first server is gone.
    let text = r#"
        amoeba put --copies 2 large /home/large
        on chisel amoeba cat /home/large |
            { dd bs=64k count=32 iflag=fullblock 2>/dev/null; lose anvil; timeout 20 cat; } | cmp - large"#;
    on_three_hosts(&system, text).ok();
}

#[test]
fn reading_goes_on_when_a_file_server_is_killed() {
    let system = System::new();
    system.write("large", &random(32 << 20));
    let text = r#"
        amoeba put --copies 2 large /home/large
        for killed in anvil bolt anvil; do
            on chisel amoeba cat /home/large |
                { dd bs=64k count=32 iflag=fullblock 2>/dev/null; kill -9 $(pids $killed bullet); timeout 20 cat; } |
                cmp - large
        done"#;
    on_three_hosts(&system, text).ok();
}

#[test]
fn sixty_commands_land_on_all_hosts_and_come_in_order() {
    let system = System::new();
    let text = r#"
        amoeba map --json -j 12 sh -c 'uname -n; echo "$0"; sleep 0.1' ::: $(seq 60) > lines
        [ -e "$AMOEBA_STATE/namespaces" ] && echo named"#;
    let outcome = script(&system, &["3"], &format!("{WORDS}{text} || true")).ok();
    let mut hosts = BTreeSet::new();
    let lines = lines(&system, "lines");
    assert_eq!(lines.len(), 60);
    for (index, line) in (1..).zip(&lines) {
        assert_eq!(
            (&line["arg"], &line["code"]),
            (&Value::from(index.to_string()), &Value::from(0)),
            "{line}"
        );
        let host = line["host"].as_str().expect("a process ran somewhere");
        let wrote = line["stdout"].as_str().expect("it wrote something");
        assert!(wrote.ends_with(&format!("\n{index}\n")), "{line}");
        // Without namespaces all hosts have the machine's name.
        assert!(outcome.text() != "named" || wrote.starts_with(host), "{line}");
        hosts.insert(host);
    }
    assert_eq!(hosts, BTreeSet::from(["anvil", "bolt", "chisel"]));
    nothing_left(&system);
}

/// Has commands run everywhere, loses a host by `harm`, and has it back by `back`.
fn a_host_is_lost_under_load(system: &System, view: &str, harm: &str, back: &str) {
    system.write("kept", &random(3 << 20));
    let text = format!(
        r#"
        export AMOEBA_VIEW={view}
        amoeba ln -f /profile/cap/bulletsvr/bolt /profile/cap/bulletsvr/default
        on chisel amoeba put kept /home/kept
        code_of lost.code timeout 60 amoeba run --on bolt -- sleep 1000 &
        code_of lost.map.code timeout 60 amoeba map --json -k --on bolt -j 4 sleep ::: 1000 1001 1002 1003 > lost &
        until [ "$(on bolt amoeba ps | grep -c 'running.*sleep')" -ge 5 ]; do sleep 0.05; done
        code_of everywhere.code amoeba map --json -k -j 9 sleep ::: 3 3 3 3 3 3 3 3 3 > everywhere &
        amoeba run --on chisel -- sh -c 'sleep 6; echo unharmed' > unharmed &
        until [ "$(on bolt amoeba ps | grep -c 'running.*sleep')" -ge 6 ]; do sleep 0.05; done
        {harm}
        wait
        timeout 30 amoeba map -j 6 echo ::: 1 2 3 4 5 6 > after
        {back}
        until_ok amoeba run --on bolt -- true
        until_ok amoeba cat /home/kept
        on chisel amoeba cat /home/kept | cmp - kept
        on bolt amoeba run --on chisel -- echo reached"#
    );
    on_three_hosts(system, &text).ok().printed("reached\n");
    let read = |name: &str| fs::read_to_string(system.work().join(name)).expect("the script wrote it");
    assert_eq!((read("lost.code"), read("lost.map.code")), ("75\n".into(), "75\n".into()));
    assert_eq!((read("unharmed"), read("after")), ("unharmed\n".into(), "1\n2\n3\n4\n5\n6\n".into()));
    let lost = lines(system, "lost");
    assert!(lost.len() == 4 && lost.iter().all(|line| line["code"] == 75), "{lost:?}");
    let everywhere = lines(system, "everywhere");
    assert_eq!(everywhere.len(), 9);
    for line in &everywhere {
        // Of one that was being started there nobody knows whether it runs there.
        let is_lost = line["host"] == "bolt" || line["why"].as_str().is_some_and(|why| why.contains("bolt"));
        let expected = if is_lost { 75 } else { 0 };
        assert_eq!(line["code"], expected, "{line}");
    }
    let some_were_lost = everywhere.iter().any(|line| line["code"] == 75);
    assert_eq!(read("everywhere.code"), if some_were_lost { "75\n" } else { "0\n" });
}

#[test]
fn a_kernel_that_is_killed_takes_only_its_own_processes_with_it() {
    a_host_is_lost_under_load(&System::new(), "mine", "kill -9 $(pids bolt kernel)", "");
}

#[test]
fn a_host_that_is_lost_comes_back_with_its_files() {
    a_host_is_lost_under_load(&System::new(), "mine", "lose bolt", "until_ok on bolt amoeba up");
}

#[test]
fn a_host_that_is_lost_comes_back_without_root_too() {
    a_host_is_lost_under_load(&System::unprivileged(), "host", "lose bolt", "until_ok on bolt amoeba up");
}

#[test]
fn a_run_server_that_is_killed_changes_nothing_for_callers() {
    let system = System::new();
    let text = r#"
        (sleep 0.5; kill -9 $(pids anvil pool); sleep 0.5; kill -9 $(pids bolt pool) $(pids anvil pool)) &
        timeout 60 amoeba map --json -j 6 sh -c 'sleep 0.2; echo "$0"' ::: $(seq 60) > lines
        for number in 1 2 3; do timeout 10 amoeba run -- echo $number; done
        wait"#;
    on_three_hosts(&system, text).ok().printed("1\n2\n3\n");
    let lines = lines(&system, "lines");
    assert_eq!(lines.len(), 60);
    for (index, line) in (1..).zip(&lines) {
        assert_eq!(
            (&line["stdout"], &line["code"]),
            (&Value::from(format!("{index}\n")), &Value::from(0)),
            "{line}"
        );
    }
}
