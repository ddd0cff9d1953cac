//! A host joins a system by its address, and is one of it.

use std::net::UdpSocket;

use crate::system::{System, random};

/// A system that hosts can join, and where.
fn open_system() -> (System, String) {
    let system = System::new();
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound").to_string();
    drop(free);
    let config = format!("[link]\nlisten = \"{address}\"\n");
    std::fs::write(system.state().join("config.toml"), config).expect("the state directory is ours");
    std::fs::write(system.state().join("host.name"), "first").expect("the state directory is ours");
    system.amoeba(&["up"]).ok();
    (system, address)
}

fn address_of_its_own() -> String {
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it is bound").to_string()
}

#[test]
fn a_host_that_joins_has_the_same_names_and_files() {
    let (first, address) = open_system();
    let second = System::new();
    second.amoeba(&["join", &address, "--name", "second", "--listen", &address_of_its_own()]).ok();
    let roles: Vec<String> = second.daemons().into_iter().map(|daemon| daemon.role).collect();
    assert_eq!(roles, ["supervisor", "kernel"]);
    first.wait_for("the new host's name", || {
        let hosts = first.amoeba(&["ls", "/profile/hosts"]).ok();
        (hosts.stdout == b"first\nsecond\n").then_some(())
    });
    let bytes = random(3_000_000);
    second.amoeba_with(&["put", "-", "/tmp/from-second"], &bytes).ok();
    assert!(first.amoeba(&["cat", "/tmp/from-second"]).ok().stdout == bytes);
    first.amoeba(&["mkdir", "/tmp/from-first"]).ok();
    second.amoeba(&["ls", "/tmp"]).ok().printed("from-first\nfrom-second\n");
    // Both start again, the one that joined first: it waits for nobody.
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
fn what_cannot_join_is_told_why() {
    let (first, address) = open_system();
    let second = System::new();
    let taken = second.amoeba(&["join", &address, "--name", "first"]);
    taken.exit(1).complained("a host called first is there already");
    second.amoeba(&["join", "192.0.2.1:5321"]).exit(1).complained("not a loopback address");
    second.amoeba(&["join", &address, "--name", "a/b"]).exit(1).complained("cannot be a host's name");
    first.amoeba(&["join", &address]).exit(1).complained("belongs to a system already");
    let nobody = address_of_its_own();
    second.amoeba(&["join", &nobody]).exit(1).complained("nobody answers");
    assert!(!second.state().join("system.secret").exists(), "nothing is left of what failed");
}
