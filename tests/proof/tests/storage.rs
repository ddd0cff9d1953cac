//! What the file server and the directory server have acknowledged is there, over the real binary. `AMOEBA_SEED=n` runs that
//! seed, and longer; so does every round of `cargo xtask long`.

mod support;

use std::process::Command;

use support::{Folder, among, among_with, asked, binary};

/// Room for a host and little more, bytes: its directory server alone has a log of 64 MiB.
const SMALL_DISK: u32 = 100 << 20;

fn number(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| text.parse::<u64>().is_ok())
}

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed() {
    let folder = Folder::new("killed");
    let rounds = number("AMOEBA_ROUNDS").unwrap_or(if asked().is_some() { "40" } else { "10" }.to_owned());
    let seed = asked().unwrap_or(1).to_string();
    among(&folder, &["1", "--loopback"], &["storage", "killed", &seed, &rounds]);
}

/// The disk is in memory, small, and mounted for this test alone.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let folder = Folder::new("full");
    let mut unshared = Command::new("unshare");
    unshared.args(["--mount", "--propagation", "private", "true"]);
    if !unshared.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: only root may mount");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o size={SMALL_DISK} none \"$0\" && exec \"$@\""));
    command.arg(&folder.0).arg(binary());
    let seed = asked().unwrap_or(1).to_string();
    among_with(command, &folder, &["1", "--loopback"], &["storage", "full", &seed]);
}

#[test]
fn a_failing_disk_is_told_and_trusted_no_more() {
    let folder = Folder::new("failing");
    let seed = asked().unwrap_or(1).to_string();
    among(&folder, &["1", "--loopback"], &["storage", "failing", &seed]);
}

#[test]
fn memory_and_descriptors_stay_what_they_are() {
    let folder = Folder::new("soak");
    let seconds = number("AMOEBA_SOAK").unwrap_or("20".to_owned());
    let seed = asked().unwrap_or(1).to_string();
    among(&folder, &["1", "--loopback"], &["storage", "soak", &seed, &seconds]);
}
