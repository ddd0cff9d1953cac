//! Clients and servers whose every request has a number of its own, and a log outside that knows what became of it.
//!
//! The promises it checks: no request is executed twice; `NotSent` means never executed; an `Ok` reply means executed
//! once and is the reply to this request; every transaction ends within a bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amoeba_cap::{Capability, GetPort, Private, PutPort};
use amoeba_sim::{HostId, Place, Prng, Sim};
use amoeba_wire::{Command, Header, Status};
use amoeba_world::{Error, Incoming, Listener, Message, TransOptions};

/// The longest a server thinks about one request.
pub const THINKING_MAX: Duration = Duration::from_secs(8);
/// Within this a transaction ends, whatever happens: the locate timeout, the longest thinking, and the time in which a
/// kernel gives a silent peer up, with room.
pub const TRANSACTION_MAX: Duration = Duration::from_secs(40);

/// The same where servers think for milliseconds: the search (5.2 s), the questions whether the request has arrived
/// (4.6 s) and those whether its server lives (4.8 s), with room for what is on its way.
pub const UNTHINKING_MAX: Duration = Duration::from_secs(16);

const COUNT: Command = Command(15_100);
const REQUEST_SIZE_MAX: usize = 60_000;

/// What became of requests, by number.
#[derive(Default)]
struct Entries {
    executed: BTreeMap<u64, u32>,
    claims: Vec<(u64, Claim)>,
    next: u64,
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Executed,
    NotExecuted,
    Unknown,
}

/// The log outside.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Entries>>);

/// How many transactions ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// With the right reply.
    pub executed: usize,
    /// Certainly without effect.
    pub not_executed: usize,
    /// Nobody knows.
    pub unknown: usize,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_number(&self) -> u64 {
        let mut entries = self.entries();
        entries.next += 1;
        entries.next
    }

    fn execute(&self, number: u64) {
        let mut entries = self.entries();
        let times = entries.executed.entry(number).or_default();
        *times += 1;
        assert_eq!(*times, 1, "request {number} was executed twice");
    }

    fn claim(&self, number: u64, claim: Claim) {
        let mut entries = self.entries();
        let times = entries.executed.get(&number).copied().unwrap_or(0);
        let allowed = match claim {
            Claim::Executed => times == 1,
            Claim::NotExecuted => times == 0,
            Claim::Unknown => true,
        };
        assert!(allowed, "request {number}: the client heard {claim:?}, and it was executed {times} times");
        entries.claims.push((number, claim));
    }

    /// Whether every claim still holds, at the end: a request that was certainly not executed must never be.
    pub fn check(&self) -> Tally {
        let entries = self.entries();
        let mut tally = Tally::default();
        for &(number, claim) in &entries.claims {
            let times = entries.executed.get(&number).copied().unwrap_or(0);
            match claim {
                Claim::Executed => tally.executed += 1,
                Claim::NotExecuted => {
                    assert_eq!(
                        times, 0,
                        "request {number} was executed after its client heard that it was not"
                    );
                    tally.not_executed += 1;
                }
                Claim::Unknown => tally.unknown += 1,
            }
        }
        tally
    }
}

/// A service of any number of processes that listen on one port.
#[derive(Clone)]
pub struct Counter {
    log: Log,
    secret: GetPort,
    /// Whether servers sometimes think for long.
    pub thinks: bool,
    /// Whether servers sometimes give a request up.
    pub gives_up: bool,
    /// Whether a thread of a server sometimes does other things after a reply.
    pub lingers: bool,
    /// Whether clients sometimes wait for a short time only.
    pub hurries: bool,
}

impl Counter {
    /// A service that writes into `log`; `number` tells services apart.
    pub fn new(log: &Log, number: u8) -> Counter {
        Counter {
            log: log.clone(),
            secret: GetPort::from_bytes([b'c', b'o', b'u', b'n', b't', number]),
            thinks: true,
            gives_up: true,
            lingers: false,
            hurries: false,
        }
    }

    /// Has `host` serve it with `threads` threads, from every boot on.
    pub fn serve_on(&self, sim: &Sim, host: HostId, threads: usize) {
        let counter = self.clone();
        sim.program(host, "counter", move |place| counter.serve(&place, threads));
    }

    fn serve(&self, place: &Place, threads: usize) {
        let listening = place.world.transactions.listen(&self.secret, REQUEST_SIZE_MAX);
        if let Ok(listener) = listening {
            self.serve_with(place, threads, &listener);
        } // else no room at the kernel: we are started again
    }

    /// Serves for a while, then stops listening; what it has taken by then it answers.
    pub fn serve_for(&self, place: &Place, threads: usize, time: Duration) {
        let world = &place.world;
        let Ok(listener) = world.transactions.listen(&self.secret, REQUEST_SIZE_MAX) else { return };
        let (closing, sleeper) = (listener.clone(), world.threads.clone());
        let closer = world.threads.spawn("closer", move || {
            sleeper.sleep(time);
            closing.close();
        });
        self.serve_with(place, threads, &listener);
        drop(closer);
    }

    fn serve_with(&self, place: &Place, threads: usize, listener: &Listener) {
        let world = &place.world;
        let workers: Vec<_> = (0..threads)
            .filter_map(|_| {
                let (listener, counter, place) = (listener.clone(), self.clone(), place.clone());
                let body = move || {
                    while let Ok(incoming) = listener.getreq() {
                        counter.answer(&place, incoming);
                    }
                };
                world.threads.spawn("worker", body).ok()
            })
            .collect();
        for worker in workers {
            worker.join();
        }
    }

    fn answer(&self, place: &Place, incoming: Incoming) {
        let data = &incoming.request.data;
        let number = number_in(data).expect("every request begins with its number");
        assert!(data[8..] == filler(number, data.len() - 8), "request {number} arrived changed");
        self.log.execute(number);
        let lot = amoeba_world::random::<8>(&*place.world.entropy);
        place.world.threads.sleep(self.thinking(u64::from_le_bytes(lot)));
        match lot[7] {
            0..8 if self.gives_up => drop(incoming.reply), // a server that gives up
            _ => incoming.reply.send(reply_to(number)),
        }
        if self.lingers && lot[6] < 12 {
            place.world.threads.sleep(Duration::from_millis(u64::from(lot[5])));
        }
    }

    fn thinking(&self, lot: u64) -> Duration {
        match lot % 100 {
            0..3 if self.thinks => THINKING_MAX.mul_f64((lot >> 40) as f64 / (1u64 << 24) as f64),
            3..40 => Duration::from_micros((lot >> 20) % 50_000),
            _ => Duration::ZERO,
        }
    }

    /// A client's thread: `count` requests one after the other, everything checked.
    pub fn ask(&self, place: &Place, random: &mut Prng, count: usize) {
        for _ in 0..count {
            self.ask_once(place, random);
            place.world.threads.sleep(Duration::from_micros(random.between(0, 200_000)));
        }
    }

    fn ask_once(&self, place: &Place, random: &mut Prng) {
        let world = &place.world;
        let port = world.transactions.put_port(&self.secret).unwrap_or(PutPort::NULL);
        let capability = Capability { port, private: Private::NULL };
        let number = self.log.new_number();
        let size = if random.chance(100) { random.between(0, 20_000) } else { random.between(0, 100) };
        let mut data = number.to_le_bytes().to_vec();
        data.extend(filler(number, size as usize));
        let request = Message { header: Header::request(&capability, COUNT), data };
        let before = world.threads.now();
        let hurries = self.hurries && random.chance(200);
        let deadline = hurries.then(|| Duration::from_micros(random.between(0, 60_000)));
        let options = TransOptions { deadline, ..TransOptions::default() };
        let result = world.transactions.trans(request, &options);
        let took = world.threads.now() - before;
        let bound = if self.thinks { TRANSACTION_MAX } else { UNTHINKING_MAX };
        assert!(took <= bound, "request {number} took {took:?}: {result:?}");
        self.log.claim(number, claim_of(number, &result));
    }

    /// Asks until it gets the right reply, at most for `time`; whether it did.
    pub fn is_served(&self, place: &Place, time: Duration) -> bool {
        let mut random = Prng::new(place.world.threads.now().since_epoch().as_nanos() as u64, "served", 0);
        let end = place.world.threads.now() + time;
        let before = self.log.check().executed;
        while place.world.threads.now() < end {
            self.ask_once(place, &mut random);
            if self.log.check().executed > before {
                return true;
            }
        }
        false
    }
}

fn claim_of(number: u64, result: &Result<Message, Error>) -> Claim {
    match result {
        Ok(reply) if reply.header.status() == Status::STD_OK => {
            assert!(*reply == reply_to(number), "request {number} got the reply to another");
            Claim::Executed
        }
        Err(error) if error.not_executed() => Claim::NotExecuted,
        Err(Error::MaybeExecuted(_)) => Claim::Unknown,
        other => panic!("request {number} ended with {other:?}, which nobody could mean"),
    }
}

fn reply_to(number: u64) -> Message {
    let size = if number.is_multiple_of(10) { 5000 } else { (number % 64) as usize };
    let mut data = number.to_be_bytes().to_vec();
    data.extend(filler(!number, size));
    Message { header: Header::reply(Status::STD_OK), data }
}

fn number_in(data: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(..8)?.try_into().ok()?))
}

fn filler(number: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|index| (number.wrapping_mul(31).wrapping_add(index * 7)) as u8).collect()
}
