//! World two: simulated hosts, network, disks and time, all from one seed.
//!
//! The real servers run here unchanged, on coroutines under a scheduler that draws who runs next, over the real
//! transaction kernel of each host, over a link that delays, loses, doubles and reorders, on disks that lose what was
//! not flushed. One seed decides everything, so every failure can be had again.
//!
//! Start at [`for_each_seed`] and [`Sim`]. `executor` switches stacks (the only `unsafe`), `scheduler` is the table of
//! threads, `core` the loop, `host` drives the kernels, `world` is what a process sees, `network` and `disk` misbehave,
//! `nemesis` decides when.
//!
//! A crash takes the disk first: what was not flushed is decided by lot, then the host's kernel is gone, and only
//! then do its threads unwind, so no destructor can tidy up. Disk operations never park, so code under foreign locks
//! may use them; transactions, sleeping and AMUTHR's locks park.

mod channel;
mod core;
mod datagram;
mod disk;
mod executor;
mod host;
mod listener;
mod memory;
mod nemesis;
mod network;
mod random;
mod scheduler;
mod seeds;
mod sim;
mod trace;
mod world;

use std::time::Duration;

pub use disk::SECTOR_SIZE;
pub use executor::Killed;
pub use host::{HostId, ProcessId};
pub use nemesis::Nemesis;
pub use network::{DELAY_MAX, FLYING_MAX, Faults};
pub use random::Prng;
pub use seeds::for_each_seed;
pub use sim::{Place, Sim, Task};

/// What a run allows itself.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How the link behaves at first.
    pub faults: Faults,
    /// The most bytes of a FLIP packet on the link.
    pub packet_size_max: usize,
    /// The longest the run may last, in virtual time: longer is a hang.
    pub time_max: Duration,
    /// The most steps it may take.
    pub steps_max: u64,
    /// Of a thousand parks, how many return early for no reason, as they may.
    pub spurious_wakes: u32,
    /// Whether a panicking thread is the end of that thread alone; else it fails the run.
    pub panics_allowed: bool,
    /// Bytes of a thread's stack.
    pub stack_size: usize,
    /// Whether the numbers of transactions and messages, which begin anywhere, begin just before they wrap around.
    pub numbers_wrap: bool,
}

/// FLIP header and payload of a classic Ethernet frame.
pub const CLASSIC_PACKET_SIZE: usize = 1498;

impl Default for Config {
    fn default() -> Config {
        Config {
            faults: Faults::NONE,
            packet_size_max: CLASSIC_PACKET_SIZE,
            time_max: Duration::from_secs(1800),
            steps_max: 20_000_000,
            spurious_wakes: 10,
            panics_allowed: false,
            stack_size: 512 << 10,
            numbers_wrap: false,
        }
    }
}
