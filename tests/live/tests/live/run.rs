//! `amoeba run` in front of a command changes nothing of what the command does.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::system::{System, finish, random, signal, wait};

#[test]
fn echo_in_an_empty_home_starts_a_private_system_by_itself() {
    let system = System::new();
    system.amoeba(&["run", "--", "echo", "hello"]).ok().printed("hello\n");
    system.amoeba(&["run", "--", "echo", "again"]).ok().printed("again\n").said("");
}

#[test]
fn three_megabytes_of_random_bytes_pass_unchanged() {
    let system = System::up();
    let bytes = random(3_000_000);
    let outcome = system.amoeba_with(&["run", "--", "cat"], &bytes).ok();
    assert!(outcome.stdout == bytes, "{} bytes came back of {}", outcome.stdout.len(), bytes.len());
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let system = System::up();
    system.amoeba(&["run", "--", "sh", "-c", "exit 7"]).exit(7).printed("").said("");
    system.amoeba(&["run", "--", "true"]).exit(0);
    system.amoeba(&["run", "--", "false"]).exit(1);
    system.amoeba(&["run", "--", "sh", "-c", "kill -TERM $$"]).exit(128 + 15);
}

#[test]
fn a_command_that_does_not_exist_is_127_and_one_that_cannot_run_is_126() {
    let system = System::up();
    system.amoeba(&["run", "--", "no-such-command"]).exit(127).complained("no-such-command");
    let plain = system.write("plain", b"not a program\n");
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    system.amoeba(&["run", "--", "./plain"]).exit(126).complained("plain");
}

#[test]
fn a_program_for_another_cpu_is_refused_before_it_starts() {
    let system = System::up();
    let mut program = std::fs::read(std::fs::canonicalize("/bin/true").unwrap()).unwrap();
    // e_machine, bytes 18 and 19 of an ELF file: S/390, which none of our hosts is.
    program[18..20].copy_from_slice(&[22, 0]);
    system.amoeba_with(&["put", "-", "/bin/foreign"], &program).ok();
    system.amoeba(&["run", "--", "foreign"]).exit(126).complained("foreign");
    system.amoeba_with(&["put", "-", "/bin/truncated"], &program[..40]).ok();
    system.amoeba(&["run", "--", "truncated"]).exit(126).complained("truncated");
}

#[test]
fn output_and_errors_stay_apart() {
    let system = System::up();
    let outcome = system.amoeba(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    outcome.exit(3).printed("out\n").said("err\n");
}

#[test]
fn arguments_environment_and_working_directory_are_the_callers() {
    let system = System::up();
    let odd = ["run", "--", "printf", "%s|", "a b", "", "*", "$HOME", "ü", "--json"];
    system.amoeba(&odd).ok().printed("a b||*|$HOME|ü|--json|");
    let here = system.work().canonicalize().unwrap();
    system.amoeba(&["run", "--", "pwd"]).ok().printed(&format!("{}\n", here.display()));
    let mut command = system.command(&["run", "--", "sh", "-c", "echo $FAVOURITE"]);
    command.env("FAVOURITE", "amoebae");
    crate::system::finish(command, None).ok().printed("amoebae\n");
    system.amoeba(&["run", "--", "sh", "-c", "echo written > here"]).ok();
    assert_eq!(std::fs::read(system.work().join("here")).unwrap(), b"written\n");
}

#[test]
fn options_are_before_the_command_and_never_taken_from_it() {
    let system = System::up();
    system.amoeba(&["run", "printf", "%s|", "-d", "--json", "--", "x"]).ok().printed("-d|--json|--|x|");
    system.amoeba(&["run", "--", "-d"]).exit(127).complained("-d");
    system.amoeba(&["run", "--timeout", "0.2", "sleep", "1000"]).exit(124).printed("");
    system.amoeba(&["run", "--env", "A=1", "--", "sh", "-c", "echo $A"]).ok().printed("1\n");
    system.amoeba(&["run", "--workdir", "/", "pwd"]).ok().printed("/\n");
}

#[test]
fn a_terminal_is_a_terminal_there_too() {
    let system = System::up();
    system.amoeba(&["run", "--", "sh", "-c", "test -t 0 || test -t 1"]).exit(1);
    system.amoeba(&["run", "-t", "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2"]).exit(0);
}

#[test]
fn the_end_of_input_reaches_the_command() {
    let system = System::up();
    system.amoeba_with(&["run", "--", "wc", "-c"], b"12345").ok().printed("5\n");
    system.amoeba(&["run", "--", "wc", "-c"]).ok().printed("0\n");
}

#[test]
fn a_command_that_leaves_its_input_unread_ends() {
    let system = System::up();
    let bytes = random(3_000_000);
    let outcome = system.amoeba_with(&["run", "--", "head", "-c", "5"], &bytes).ok();
    assert_eq!(outcome.stdout, bytes[..5]);
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let system = System::up();
    let mut child = system.command(&["run", "--", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    let ended = wait(&mut child, Duration::from_secs(60));
    assert!(ended.is_some(), "`yes` runs on for nobody");
}

#[test]
fn signals_are_forwarded() {
    let system = System::up();
    for (sent, name) in
        [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")]
    {
        let script =
            format!("trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done");
        let mut child =
            system.command(&["run", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        signal(&child, sent);
        assert_eq!(lines.next().map(Result::unwrap).as_deref(), Some(format!("got {name}").as_str()));
        assert_eq!(
            wait(&mut child, Duration::from_secs(60)).and_then(|status| status.code()),
            Some(5),
            "{name}"
        );
    }
}

#[test]
fn output_streams_while_the_command_runs() {
    let system = System::up();
    let mut child = system.command(&["run", "--", "sh", "-c", "echo first; read line; echo $line"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The second line comes only after the first was seen: nothing waits for the command's end.
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"second\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    assert!(wait(&mut child, Duration::from_secs(60)).is_some_and(|status| status.success()));
}

#[test]
fn two_that_start_the_system_at_once_share_it() {
    let system = System::new();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let run = |word: &'static str| scope.spawn(|| system.amoeba(&["run", "--", "echo", word]));
        [run("one"), run("two"), run("three"), run("four")].map(|thread| thread.join().unwrap()).into()
    });
    for (outcome, expected) in outcomes.into_iter().zip(["one\n", "two\n", "three\n", "four\n"]) {
        outcome.ok().printed(expected);
    }
    let mut roles: Vec<String> = system.daemons().into_iter().map(|daemon| daemon.role).collect();
    let all = roles.len();
    roles.sort();
    roles.dedup();
    assert_eq!(roles.len(), all, "some daemon runs twice: {roles:?}");
}

#[test]
fn a_state_directory_with_a_very_long_name_works() {
    // Longer than the 107 bytes that the address of a Unix socket may have.
    let system = System::named(&"-long".repeat(30));
    system.amoeba(&["run", "--", "echo", "far"]).ok().printed("far\n");
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let system = System::up();
    let outcome = system.amoeba(&["run", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]).ok();
    assert!(outcome.text().parse::<i32>().is_ok());
    system.wait_for("the end of a grandchild", || {
        let sleepers = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            let folder = entry.path();
            let command = std::fs::read(folder.join("cmdline")).unwrap_or_default();
            let directory = std::fs::read_link(folder.join("cwd")).unwrap_or_default();
            command == b"sleep\x001000\0" && directory == system.work()
        });
        (sleepers.count() == 0).then_some(())
    });
}

/// The first command of the README, word for word, in a home with nothing in it but the toolchain.
#[test]
fn the_readmes_first_command_runs_in_an_empty_home() {
    let system = System::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    assert_eq!(block, "cargo amoeba run -- echo hello", "the README begins with one command");
    let home = std::env::var("HOME").unwrap();
    let toolchain =
        |name: &str, folder: &str| std::env::var(name).unwrap_or_else(|_| format!("{home}/{folder}"));
    let mut words = block.split(' ');
    let mut cargo = std::process::Command::new(words.next().unwrap());
    cargo
        .args(words)
        .current_dir(&root)
        .env("CARGO_HOME", toolchain("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", toolchain("RUSTUP_HOME", ".rustup"))
        .env("HOME", system.work())
        .env("AMOEBA_STATE", system.state());
    finish(cargo, None).ok().printed("hello\n");
}
