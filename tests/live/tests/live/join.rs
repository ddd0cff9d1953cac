//! Hosts are invited, join, and are removed: a token is good once, and who is not on the list of hosts is refused.

use std::net::UdpSocket;
use std::time::Duration;

use rustix::process::Signal;

use crate::dev::{nothing_left, script};
use crate::system::{Outcome, System, kill, random};

/// A system of one host called `first`, and where it is to listen.
fn first_host() -> (System, String) {
    let system = System::new();
    std::fs::write(system.state().join("host.name"), "first").expect("the state directory is ours");
    system.amoeba(&["up"]).ok();
    (system, free_address())
}

fn free_address() -> String {
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it is bound").to_string()
}

/// A token of this host, which listens at `address`.
fn invite(system: &System, address: &str, more: &[&str]) -> String {
    let line = system.amoeba(&[&["invite", "--listen", address], more].concat()).ok().text();
    let token = line.strip_prefix("amoeba join ").expect("it is a line to paste").to_owned();
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
    token
}

fn join(system: &System, token: &str, name: &str) -> Outcome {
    system.amoeba(&["join", token, "--name", name, "--listen", &free_address()])
}

/// Waits until a host lists exactly these.
fn wait_for_hosts(system: &System, names: &str) {
    system.wait_for(names, || {
        let outcome = system.amoeba(&["ls", "/profile/hosts"]);
        (outcome.status.success() && outcome.text() == names).then_some(())
    });
}

/// Waits until a host speaks with another.
fn wait_for_up(system: &System, other: &str) {
    system.wait_for("a host that is up", || {
        let outcome = system.amoeba(&["run", "--on", other, "--", "true"]);
        outcome.status.success().then_some(())
    });
}

#[test]
fn a_host_that_joins_has_the_same_names_and_files() {
    let (first, address) = first_host();
    let second = System::new();
    join(&second, &invite(&first, &address, &[]), "second").ok();
    let roles: Vec<String> = second.daemons().into_iter().map(|daemon| daemon.role).collect();
    assert_eq!(roles, ["supervisor", "kernel"]);
    wait_for_hosts(&first, "first\nsecond");
    first.amoeba(&["ls", "/system/hosts"]).ok().printed("first\nsecond\n");
    let bytes = random(3_000_000);
    second.amoeba_with(&["put", "-", "/tmp/from-second"], &bytes).ok();
    assert!(first.amoeba(&["cat", "/tmp/from-second"]).ok().stdout == bytes);
    first.amoeba(&["mkdir", "/tmp/from-first"]).ok();
    second.amoeba(&["ls", "/tmp"]).ok().printed("from-first\nfrom-second\n");
    // Both start again, the one that joined first: it waits for nobody, and nobody is invited anew.
    second.amoeba(&["down"]).ok();
    first.amoeba(&["down"]).ok();
    second.amoeba(&["up"]).ok();
    first.amoeba(&["up"]).ok();
    second.wait_for("the file from both hosts", || {
        let outcome = second.amoeba(&["cat", "/tmp/from-second"]);
        (outcome.status.success() && outcome.stdout == bytes).then_some(())
    });
}

#[test]
fn every_daemon_may_be_killed_and_the_hosts_still_know_each_other() {
    let (first, address) = first_host();
    let second = System::new();
    join(&second, &invite(&first, &address, &[]), "second").ok();
    wait_for_up(&first, "second");
    let token = invite(&first, &address, &[]);
    for system in [&first, &second] {
        for daemon in system.daemons().iter().filter(|daemon| daemon.role != "supervisor") {
            kill(daemon.pid, Signal::KILL);
        }
    }
    wait_for_up(&first, "second");
    wait_for_up(&second, "first");
    // The invitation was kept, too.
    let third = System::new();
    third.wait_for("the inviter's kernel", || join(&third, &token, "third").status.success().then_some(()));
}

#[test]
fn a_third_host_learns_of_both_and_both_of_it() {
    let (first, address) = first_host();
    let (second, third) = (System::new(), System::new());
    join(&second, &invite(&first, &address, &[]), "second").ok();
    wait_for_hosts(&second, "first\nsecond");
    // Whoever belongs to the system may invite.
    let line = second.amoeba(&["invite", "--name", "third"]).ok().text();
    let token = line.strip_prefix("amoeba join ").expect("it is a line to paste").to_owned();
    third.amoeba_with(&["join", "-", "--listen", &free_address()], line.as_bytes()).ok();
    for system in [&first, &second, &third] {
        wait_for_hosts(system, "first\nsecond\nthird");
    }
    wait_for_up(&first, "third");
    wait_for_up(&third, "second");
    let shown = first.json(&["host", "show", "third", "--json"]);
    assert_eq!(shown["inviter"], "second", "{shown}");
    assert_eq!(shown["key"].as_str().map(str::len), Some(64), "{shown}");
    let table = first.amoeba(&["host", "ls"]).ok().text();
    assert!(
        table.contains("KEY") && table.contains(shown["addresses"][0].as_str().expect("it listens")),
        "{table}"
    );
    join(&System::new(), &token, "fourth").exit(1).complained("for a host called third");
}

#[test]
fn a_host_that_is_removed_is_refused_by_all() {
    let (first, address) = first_host();
    let (second, third) = (System::new(), System::new());
    let used = invite(&first, &address, &[]);
    join(&second, &used, "second").ok();
    join(&third, &invite(&first, &address, &[]), "third").ok();
    wait_for_up(&first, "second");
    wait_for_up(&third, "second");
    let mut running = second.command(&["run", "--on", "first", "--", "sleep", "1000"]);
    let mut running = running.spawn().expect("the binary starts");
    first.amoeba(&["host", "remove", "first", "--yes"]).exit(1).complained("only directory server");
    first.amoeba(&["host", "remove", "second"]).exit(1).complained("nobody can be asked");
    first.amoeba(&["host", "remove", "second", "--yes"]).ok();
    first.amoeba(&["host", "remove", "second", "--yes"]).exit(1).complained("there is no host second");
    // Five seconds are promised; a test machine may be slow, but not for ever.
    second.wait_for("the refusal", || {
        let outcome = second.amoeba(&["status"]);
        outcome.text().contains("was removed from its system").then_some(())
    });
    second.wait_for("the end of what it ran elsewhere", || running.try_wait().expect("it is ours"));
    second.wait_for("nobody to speak with it", || {
        (!second.amoeba(&["ls", "/"]).status.success()).then_some(())
    });
    for system in [&first, &third] {
        wait_for_hosts(system, "first\nthird");
        system
            .amoeba(&["run", "--on", "second", "--", "true"])
            .exit(126)
            .complained("there is no host second");
    }
    // Its state is of no use any more, by a new start either.
    second.amoeba(&["down"]).ok();
    second.amoeba(&["up"]).ok();
    assert!(!second.amoeba(&["ls", "/"]).status.success());
    let token = invite(&first, &address, &[]);
    join(&second, &token, "second").exit(1).complained("was removed from its system");
    // Nor does the token that it joined with bring its identity back.
    let back = System::new();
    std::fs::create_dir_all(back.state()).expect("the state directory is ours");
    std::fs::copy(second.state().join("host.key"), back.state().join("host.key")).expect("it has one");
    join(&back, &used, "second").exit(1).complained("used already");
    wait_for_hosts(&first, "first\nthird");
    // The others go on.
    wait_for_up(&first, "third");
    let again = System::new();
    join(&again, &token, "second").ok();
    wait_for_up(&first, "second");
}

#[test]
fn a_host_that_was_removed_while_it_was_down_hears_of_it() {
    let (first, address) = first_host();
    let second = System::new();
    join(&second, &invite(&first, &address, &[]), "second").ok();
    wait_for_up(&first, "second");
    second.amoeba(&["down"]).ok();
    first.amoeba(&["host", "remove", "second", "--yes"]).ok();
    wait_for_hosts(&first, "first");
    std::thread::sleep(Duration::from_secs(3)); // the others have read it
    second.amoeba(&["up"]).ok();
    second.wait_for("the refusal", || {
        let outcome = second.amoeba(&["status"]);
        outcome.text().contains("was removed from its system").then_some(())
    });
}

#[test]
fn a_token_is_good_once_and_not_for_ever() {
    let (first, address) = first_host();
    let (second, third) = (System::new(), System::new());
    let used = invite(&first, &address, &[]);
    join(&second, &used, "second").ok();
    join(&third, &used, "third").exit(1).complained("used already").told("amoeba invite");
    let late = invite(&first, &address, &["--for", "10ms"]);
    std::thread::sleep(Duration::from_millis(50));
    join(&third, &late, "third").exit(1).complained("time of this token is over");
    let revoked = invite(&first, &address, &[]);
    let list = first.json(&["invite", "--list", "--json"]);
    let states: Vec<&str> =
        list.as_array().expect("a list").iter().filter_map(|one| one["state"].as_str()).collect();
    assert_eq!(states, ["used", "expired", "open"]);
    let id = list[2]["id"].as_str().expect("it has a number").to_owned();
    first.amoeba(&["invite", "--revoke", &id]).ok();
    join(&third, &revoked, "third").exit(1).complained("revoked");
    let used_id = list[0]["id"].as_str().expect("it has a number");
    first.amoeba(&["invite", "--revoke", used_id]).exit(1).complained("used by second");
    first.amoeba(&["invite", "--revoke", "00"]).exit(1).complained("there is no invitation 00");
    assert!(!third.state().join("system.secret").exists(), "nothing is left of what failed");
    // What is shown of them is no secret.
    let shown = first.amoeba(&["invite", "--list"]).ok().text();
    assert!(!shown.contains("am1"), "{shown}");
    join(&third, &invite(&first, &address, &[]), "third").ok();
}

#[test]
fn what_cannot_join_is_told_why() {
    let (first, address) = first_host();
    let second = System::new();
    let token = invite(&first, &address, &[]);
    join(&second, &token, "first").exit(1).complained("a host called first is there already");
    join(&second, &token, "a/b").exit(1).complained("cannot be a host's name");
    join(&second, &token[..token.len() - 4], "second").exit(1).complained("not copied whole");
    join(&second, &address, "second").exit(1).complained("no token").told("amoeba invite");
    join(&first, &token, "second").exit(1).complained("belongs to a system already");
    first.amoeba(&["down"]).ok();
    join(&second, &token, "second").exit(1).complained("nobody answers").told("firewall");
    assert!(!second.state().join("system.secret").exists(), "nothing is left of what failed");
    second.amoeba(&["invite", "--name", "a/b"]).exit(1).complained("cannot be a host's name");
    // None of that has cost the token anything.
    first.amoeba(&["up"]).ok();
    join(&second, &token, "second").ok();
}

#[test]
fn a_stranger_gets_nothing_and_before_the_first_invitation_nobody_listens() {
    let (first, address) = first_host();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    stranger.set_read_timeout(Some(Duration::from_millis(300))).expect("sockets have that");
    assert!(!first.state().join("config.toml").exists());
    drop(UdpSocket::bind(&address).expect("nobody listens before somebody was invited"));
    invite(&first, &address, &[]);
    UdpSocket::bind(&address).expect_err("the kernel listens");
    let secret = std::fs::read(first.state().join("system.secret")).expect("the state directory is ours");
    let mut heard = Vec::new();
    for kind in 0..=255 {
        for rest in [&b"AMOE\x01"[..], b"\0\0\0", b""] {
            let datagram = [&[kind], rest, &random(120)].concat();
            stranger.send_to(&datagram, &address).expect("loopback takes it");
            let mut answer = [0; 2048];
            // The first answer is waited for, whatever else there is comes with it.
            if kind == 0x20
                && let Ok(size) = stranger.recv(&mut answer)
            {
                assert!(size <= datagram.len(), "nobody is answered more than he says");
                heard.push(answer[..size].to_vec());
            }
        }
    }
    stranger.set_nonblocking(true).expect("sockets have that");
    let mut answer = [0; 2048];
    while let Ok(size) = stranger.recv(&mut answer) {
        heard.push(answer[..size].to_vec());
    }
    for answer in heard {
        assert!(answer.len() < 64, "{answer:?}");
        assert!(!answer.windows(8).any(|window| secret.windows(8).any(|part| part == window)));
    }
    wait_for_hosts(&first, "first");
    first.amoeba(&["run", "--", "true"]).ok();
}

#[test]
fn joining_that_was_interrupted_is_completed_with_the_same_token() {
    let (first, address) = first_host();
    let second = System::new();
    let token = invite(&first, &address, &[]);
    // Killed at any moment: what is there afterwards is nothing, something to complete, or a host.
    for pause in [5, 15, 30, 60] {
        let mut child = second
            .command(&["join", &token, "--name", "second", "--listen", &free_address()])
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(pause));
        let _ = child.kill();
        let _ = child.wait();
    }
    let last = join(&second, &token, "second");
    if !last.status.success() {
        last.complained("belongs to a system already");
        second.amoeba(&["up"]).ok();
    }
    wait_for_hosts(&second, "first\nsecond");
    join(&System::new(), &token, "third").exit(1).complained("used already");
}

#[test]
fn hosts_join_over_a_network() {
    let system = System::new();
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: network namespaces need root");
    }
    let text = r#"
        all=${AMOEBA_STATE%/*}
        [ -e "$AMOEBA_STATE/namespaces/net" ] || { echo skipped; exit 0; }
        token=$(amoeba invite)
        beside() { nsenter --net="$all/bolt/namespaces/net" env AMOEBA_STATE="$PWD/new" "$@"; }
        mkdir -m 700 new
        echo "$token" | beside amoeba join - --name newcomer >/dev/null
        until amoeba run --on newcomer -- true; do sleep 0.1; done 2>/dev/null
        beside amoeba run --on anvil -- uname -n
        beside amoeba host ls --json | grep -c '"10.77.0.2:'
        beside amoeba down"#;
    let outcome = script(&system, &["2"], text).ok();
    nothing_left(&system);
    if outcome.text() == "skipped" {
        return eprintln!("SKIPPED: there are no network namespaces here");
    }
    outcome.printed("anvil\n2\n");
}
