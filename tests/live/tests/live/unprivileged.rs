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
