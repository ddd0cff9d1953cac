//! Real daemons, servers and clients, and harm to all of them. `AMOEBA_SEED=n` runs that seed, and longer; so does every
//! round of `cargo xtask long`.

mod support;

use support::{Folder, among, asked};

/// The seed to run, and for how many seconds.
fn seed() -> (u64, &'static str) {
    asked().map_or((1, "12"), |seed| (seed, "30"))
}

#[test]
fn at_most_once_on_a_bad_wire_whatever_is_killed() {
    let (seed, seconds) = seed();
    let folder = Folder::new("wire");
    let faults = format!("loss=3%,duplicate=3%,reorder=10%,corrupt=1%,delay=0.1ms..5ms,seed={seed}");
    among(&folder, &["3", "--faults", &faults], &["torment", &seed.to_string(), seconds, &folder.ledgers()]);
}

/// On loopback the wire is perfect, so it needs no privilege: processes, kernels and hosts are what dies.
#[test]
fn at_most_once_whatever_is_killed() {
    let (seed, seconds) = seed();
    let folder = Folder::new("loopback");
    let words = ["torment", &(seed + 1000).to_string(), seconds, &folder.ledgers()];
    among(&folder, &["3", "--loopback"], &words);
}

#[test]
fn a_flood_from_a_stranger_keeps_nobody_out_and_costs_no_memory() {
    let folder = Folder::new("flood");
    let count = if asked().is_some() { "5000000" } else { "400000" };
    among(&folder, &["2", "--loopback"], &["flood", count, &folder.ledgers()]);
}
