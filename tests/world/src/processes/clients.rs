//! A client that starts processes, waits for them, owns them, and compares what it hears.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, Rights, ServerSecret};
use amoeba_process::{ClassicHead, ProcessDescriptor, Program};
use amoeba_server::{Call, Object, Objects, Pending};
use amoeba_sim::{HostId, Place, Prng};
use amoeba_stubs::{owner, process};
use amoeba_wire::Status;
use amoeba_world::Error;

use super::guests::Life;
use super::{Log, TRANSACTION_MAX, WAIT_MAX, server_of};
use crate::{Outcome, outcome};

const SIGNAL_KILL: u8 = 9;
/// How often a client tries to end a process.
const KILLS_MAX: usize = 5;

/// What a client knows of its processes at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Processes whose end it heard.
    pub finished: usize,
    /// Processes that are lost.
    pub lost: usize,
    /// What was certainly not started.
    pub not_started: usize,
    /// What may have been started.
    pub unknown: usize,
}

/// See the module.
pub struct Client {
    log: Log,
    random: Prng,
    servers: Vec<HostId>,
    /// Whether every harm has ended.
    healed: Arc<AtomicBool>,
    owned: Arc<Owned>,
    /// Started processes of which nothing is known yet.
    open: Vec<(u64, Capability)>,
    never: Vec<u64>,
    reported: Reported,
}

impl Client {
    /// A client of the process servers of `servers`.
    pub fn new(log: &Log, random: Prng, servers: &[HostId], healed: &Arc<AtomicBool>) -> Client {
        Client {
            log: log.clone(),
            random,
            servers: servers.to_vec(),
            healed: healed.clone(),
            owned: Owned::new(),
            open: Vec::new(),
            never: Vec::new(),
            reported: Reported::default(),
        }
    }

    /// Runs `count` processes, one after the other; when every harm has ended, asks for those it knows nothing of.
    pub fn work(mut self, place: &Place, count: usize) -> Reported {
        let Some(owner) = self.own(place) else { return self.reported };
        for _ in 0..count {
            self.one(place, &owner);
            place.world.threads.sleep(Duration::from_micros(self.random.between(0, 300_000)));
        }
        while !self.healed.load(Ordering::Relaxed) {
            place.world.threads.sleep(Duration::from_millis(500));
        }
        for (number, process) in std::mem::take(&mut self.open) {
            self.kill(place, &process);
            self.watch(place, number, process);
        }
        assert_eq!(self.open, [], "after every harm has ended a process server answers");
        place.world.threads.sleep(TRANSACTION_MAX);
        self.owned.check(&self.log);
        for number in &self.never {
            assert_eq!(
                self.log.fate(*number).starts,
                0,
                "process {number} runs, and it was said that it never would"
            );
        }
        self.reported
    }

    /// Serves the owner of all its processes.
    fn own(&self, place: &Place) -> Option<Capability> {
        let world = &place.world;
        let port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
        let listener = world.transactions.listen(&port, owner::REQUEST_SIZE_MAX).ok()?;
        let capability =
            self.owned.secret.capability(listener.put_port(), ObjectNumber::SUPER, Rights::ALL, RANDOM);
        owner::start(world, listener, self.owned.clone(), 1).ok()?;
        Some(capability)
    }

    fn one(&mut self, place: &Place, owner: &Capability) {
        let server = server_of(place, *self.random.pick(&self.servers));
        let life = Life { number: self.log.new_number(), endless: self.random.chance(150) };
        let program = Program::HostPath(b"guest".to_vec());
        let mut descriptor = ProcessDescriptor::new("sim", program, life.to_arguments());
        descriptor.owner = *owner;
        let bytes = descriptor.encode().expect("a small descriptor");
        let before = place.world.threads.now();
        let started = process::exec(&place.world, &server, bytes);
        let took = place.world.threads.now().since(before);
        assert!(took <= TRANSACTION_MAX, "starting a process took {took:?}: {started:?}");
        match outcome(started) {
            Outcome::Done(process) => {
                assert_eq!(self.log.fate(life.number).starts, 1, "process {} was never started", life.number);
                self.owned.learn(process, life.number);
                if life.endless && !self.kill(place, &process) {
                    return self.open.push((life.number, process));
                }
                self.watch(place, life.number, process);
            }
            Outcome::NotDone(_) => {
                self.never.push(life.number);
                self.reported.not_started += 1;
            }
            Outcome::Unknown => self.reported.unknown += 1,
        }
    }

    /// Ends a process; whether its server has heard it.
    fn kill(&self, place: &Place, process: &Capability) -> bool {
        (0..KILLS_MAX).any(|_| {
            matches!(process::signal(&place.world, process, SIGNAL_KILL), Ok(()) | Err(Error::Refused(_)))
        })
    }

    /// Waits for a process that will end.
    fn watch(&mut self, place: &Place, number: u64, process: Capability) {
        let before = place.world.threads.now();
        let ended = process::wait(&place.world, &process);
        let took = place.world.threads.now().since(before);
        assert!(took <= WAIT_MAX, "waiting for process {number} took {took:?}: {ended:?}");
        match ended {
            Ok(exit) => {
                self.log.told_end(number, (exit.code, exit.signal));
                self.reported.finished += 1;
            }
            Err(Error::Refused(Status::STD_CAPBAD)) => {
                self.log.told_lost(number);
                self.reported.lost += 1;
            }
            Err(Error::NotSent(_) | Error::MaybeExecuted(_)) => self.open.push((number, process)),
            Err(error) => panic!("waiting for process {number}: {error}"),
        }
    }
}

/// Whose processes they are: hears their ends.
struct Owned {
    secret: ServerSecret,
    processes: Mutex<BTreeMap<[u8; 16], Heard>>,
}

#[derive(Clone, Debug, Default)]
struct Heard {
    number: Option<u64>,
    /// The cause and its detail, each time it was told.
    ends: Vec<(u16, i32)>,
}

const RANDOM: CheckField = CheckField::from_bytes([8; 6]);

impl Owned {
    fn new() -> Arc<Owned> {
        Arc::new(Owned { secret: ServerSecret::from_bytes([5; 32]), processes: Mutex::default() })
    }

    fn with(&self, process: &Capability, change: impl FnOnce(&mut Heard)) {
        change(
            self.processes
                .lock()
                .expect("no holder of this lock panics")
                .entry(process.to_bytes())
                .or_default(),
        );
    }

    fn learn(&self, process: Capability, number: u64) {
        self.with(&process, |heard| heard.number = Some(number));
    }

    /// Every end that was told is the true one, and was told if its server lived to tell it.
    fn check(&self, log: &Log) {
        for heard in self.processes.lock().expect("no holder of this lock panics").values() {
            let Some(number) = heard.number else { continue };
            for told in &heard.ends {
                let end = match *told {
                    (owner::TERM_NORMAL, code) => (code as u8, 0),
                    (_, signal) => (128 + signal as u8, signal as u8),
                };
                log.told_end(number, end);
            }
            let was_told = !heard.ends.is_empty() || !log.is_remembered(number);
            assert!(was_told, "the owner of process {number} never heard of its end: {:?}", log.fate(number));
        }
    }
}

impl Objects for Owned {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == ObjectNumber::SUPER).then_some(RANDOM)
    }
}

impl owner::Serve for Owned {
    fn checkpoint(
        &self,
        _: &Call,
        _: Object<0>,
        cause: u16,
        detail: i32,
        descriptor: Vec<u8>,
        pending: Pending<Vec<u8>>,
    ) {
        let head = ClassicHead::parse(&descriptor).expect("a process server tells what it should");
        self.with(&head.process, |heard| heard.ends.push((cause, detail)));
        pending.send(Ok(descriptor));
    }
}
