//! Process servers whose guests only pretend, their clients, and a log outside that knows what became of every guest.
//!
//! The promises it checks: no process runs twice; what was certainly not started never runs; whoever waits and whoever
//! owns hear the same end, and the true one; a process that its server calls lost does not run, nor will it; nothing
//! hangs; nothing runs on for nobody.

mod clients;
mod guests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, GetPort, ServerSecret};
use amoeba_process::{HANG_UP_TIME, OWNER_LOOK_INTERVAL, OWNER_MISSES_MAX, ProcessServer};
use amoeba_sim::{HostId, Place, ProcessId, Sim};
use amoeba_stubs::process;

use crate::TRANSACTION_MAX;
pub use clients::{Client, Reported};
use guests::SimGuests;

/// The longest a guest runs that ends by itself.
pub const GUEST_MAX: Duration = Duration::from_secs(12);
/// Within this a client that waits for such a guest hears something, whatever happens.
pub const WAIT_MAX: Duration = Duration::from_secs(12 + 3 * 30);
/// Within this after its owner has gone a process has ended.
pub const ORPHAN_MAX: Duration = Duration::from_secs(
    OWNER_MISSES_MAX as u64 * (OWNER_LOOK_INTERVAL.as_secs() + 3 * TRANSACTION_MAX.as_secs())
        + HANG_UP_TIME.as_secs(),
);

/// The name of the servers' program.
pub const PROGRAM: &str = "process";
const THREADS: usize = 3;

/// What became of a guest.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// How often it was started.
    starts: u32,
    /// The server it runs under.
    server: Option<(HostId, ProcessId)>,
    /// Its exit code and signal, once it has ended.
    end: Option<(u8, u8)>,
    /// Whether somebody was told that it is lost.
    lost: bool,
}

/// The log outside, by the numbers of guests.
#[derive(Clone)]
pub struct Log {
    sim: Sim,
    fates: Arc<Mutex<BTreeMap<u64, Fate>>>,
}

impl Log {
    /// A log of what happens in `sim`.
    pub fn new(sim: &Sim) -> Log {
        Log { sim: sim.clone(), fates: Arc::default() }
    }

    fn fates(&self) -> MutexGuard<'_, BTreeMap<u64, Fate>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, number: u64) -> Fate {
        self.fates().get(&number).copied().unwrap_or_default()
    }

    fn new_number(&self) -> u64 {
        let mut fates = self.fates();
        let number = fates.len() as u64;
        fates.insert(number, Fate::default());
        number
    }

    fn start(&self, number: u64, place: &Place) {
        let mut fates = self.fates();
        let fate = fates.entry(number).or_default();
        fate.starts += 1;
        assert_eq!(fate.starts, 1, "process {number} was started twice");
        fate.server = Some((place.host, place.process));
    }

    fn end(&self, number: u64, code: u8, signal: u8) {
        let mut fates = self.fates();
        let fate = fates.entry(number).or_default();
        assert!(!fate.lost, "process {number} was called lost, and ended later");
        assert_eq!(fate.end.replace((code, signal)), None, "process {number} ended twice");
    }

    /// Whether it runs now. A guest ends with its server.
    fn runs(&self, number: u64) -> bool {
        let fate = self.fate(number);
        fate.end.is_none() && fate.server.is_some_and(|server| self.lives(server))
    }

    fn lives(&self, (host, server): (HostId, ProcessId)) -> bool {
        self.sim.processes(host, PROGRAM).contains(&server)
    }

    /// Somebody heard that it has ended so.
    fn told_end(&self, number: u64, end: (u8, u8)) {
        assert_eq!(
            self.fate(number).end,
            Some(end),
            "process {number}: the end that was told is not the true one"
        );
    }

    /// Somebody heard from its server that there is no such process.
    fn told_lost(&self, number: u64) {
        assert!(!self.runs(number), "process {number} was called lost, and runs");
        self.fates().entry(number).or_default().lost = true;
    }

    /// Whether its server still lives, so that whoever asks must hear its true end.
    fn is_remembered(&self, number: u64) -> bool {
        self.fate(number).server.is_some_and(|server| self.lives(server))
    }

    /// Whether a guest runs, of all there ever were.
    pub fn anything_runs(&self) -> Option<u64> {
        let numbers: Vec<u64> = self.fates().keys().copied().collect();
        numbers.into_iter().find(|number| self.runs(*number))
    }

    /// Guests that were started, that ended, and that somebody was told are lost.
    pub fn counts(&self) -> [usize; 3] {
        let fates = self.fates();
        let count = |is: fn(&Fate) -> bool| fates.values().filter(|fate| is(fate)).count();
        [count(|fate| fate.starts > 0), count(|fate| fate.end.is_some()), count(|fate| fate.lost)]
    }
}

/// The capability of the process server of a host; it outlives the server.
pub fn server_of(place: &Place, host: HostId) -> Capability {
    let port = place.world.transactions.put_port(&port_of(host)).expect("F is always there");
    let number = amoeba_cap::ObjectNumber::SUPER;
    secret_of(host).capability(port, number, amoeba_cap::Rights::ALL, PERMANENT)
}

const PERMANENT: CheckField = CheckField::from_bytes([2; 6]);

fn port_of(host: HostId) -> GetPort {
    let number =
        format!("{host:?}").bytes().filter(u8::is_ascii_digit).fold(0, |n, digit| n * 10 + digit - b'0');
    GetPort::from_bytes([b'p', b'r', b'o', b'c', b's', number])
}

fn secret_of(host: HostId) -> ServerSecret {
    ServerSecret::from_bytes([port_of(host).to_bytes()[5]; 32])
}

/// Has `host` serve processes from every boot on.
pub fn serve_on(sim: &Sim, host: HostId, log: &Log) {
    let log = log.clone();
    sim.program(host, PROGRAM, move |place| {
        let world = place.world.clone();
        let Ok(listener) = world.transactions.listen(&port_of(host), process::REQUEST_SIZE_MAX) else {
            return; // no room at the kernel: we are started again
        };
        let guests = Arc::new(SimGuests::new(&place, &log));
        let port = listener.put_port();
        let server = ProcessServer::new(world.clone(), port, secret_of(host), PERMANENT, guests);
        let Ok(running) = process::start(&world, listener, server, THREADS) else { return };
        running.join();
    });
}
