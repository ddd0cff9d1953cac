//! Detached processes and what can be asked of them later.

use crate::system::System;

/// Starts a detached process and returns the name by which the other commands know it.
fn detached(system: &System, command: &[&str]) -> String {
    let arguments = [&["run", "-d", "--"], command].concat();
    let outcome = system.amoeba(&arguments).ok();
    let name = outcome.text();
    assert!(!name.is_empty() && !name.contains('\n'), "one name alone: {outcome:?}");
    name
}

#[test]
fn a_detached_process_is_waited_for_and_its_output_read() {
    let system = System::up();
    let name = detached(&system, &["sh", "-c", "echo kept; echo also >&2; exit 9"]);
    system.amoeba(&["wait", &name]).exit(9);
    let logs = system.amoeba(&["logs", &name]).ok();
    let text = logs.text();
    assert!(text.contains("kept") && text.contains("also"), "{logs:?}");
    system.amoeba(&["wait", &name]).exit(9);
}

#[test]
fn a_detached_process_outlives_its_command_and_can_be_killed() {
    let system = System::up();
    let name = detached(&system, &["sleep", "1000"]);
    let listed = system.amoeba(&["ps"]).ok();
    assert!(listed.text().contains("sleep 1000"), "{listed:?}");
    let listed = system.json(&["ps", "--json"]);
    assert!(listed.to_string().contains("sleep"), "ps --json lists it");
    assert!(matches!(listed[0]["view"].as_str(), Some("mine" | "host")), "{listed}");
    system.amoeba(&["kill", &name]).ok();
    let code = system.amoeba(&["wait", &name]).status.code();
    assert!(matches!(code, Some(137 | 143)), "killed, but its exit code is {code:?}");
}

#[test]
fn what_is_left_in_the_background_may_still_write() {
    let system = System::up();
    system.amoeba(&["run", "--", "sh", "-c", "(sleep 1; echo late) & echo now"]).ok().printed("now\nlate\n");
}

#[test]
fn processes_that_do_not_exist_are_one_clear_error() {
    let system = System::up();
    for command in ["kill", "wait", "logs"] {
        let outcome = system.amoeba(&[command, "424242"]);
        assert_ne!(outcome.status.code(), Some(0), "{outcome:?}");
        outcome.complained("424242");
    }
}

#[test]
fn ps_shows_no_check_field() {
    let system = System::up();
    system.amoeba_with(&["put", "-", "thing"], b"x").ok();
    let capability = system.amoeba(&["cap", "show", "thing"]).ok().text();
    let check = capability.rsplit('/').next().expect("a split has a last part");
    let name = detached(&system, &["sleep", "1000"]);
    for arguments in [&["ps"][..], &["ps", "--json"], &["status"], &["status", "--json"]] {
        let outcome = system.amoeba(arguments).ok();
        assert!(!outcome.text().contains(check), "a check field is shown: {outcome:?}");
    }
    system.amoeba(&["kill", &name]).ok();
}
