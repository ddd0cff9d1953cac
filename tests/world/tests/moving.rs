//! What makes "at most once" hard: a service that moves while it is asked, numbers that wrap around, and memory that has
//! to be given back however it went.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amoeba_sim::{Config, Faults, HostId, Nemesis, Prng, Sim, Task, for_each_seed};
use amoeba_tests_world::counter::{Counter, Log, TRANSACTION_MAX, Tally};

const COUNT: usize = 40;

/// A service that is always on one of some hosts, and clients on others and on those.
struct System {
    sim: Sim,
    log: Log,
    counter: Counter,
    places: Vec<HostId>,
    clients: Vec<HostId>,
}

impl System {
    fn new(seed: u64, config: Config) -> System {
        let sim = Sim::new(seed, config);
        let log = Log::default();
        let mut counter = Counter::new(&log, 1);
        (counter.thinks, counter.hurries) = (seed.is_multiple_of(2), seed.is_multiple_of(3));
        let places: Vec<HostId> = (0..3).map(|_| sim.add_host()).collect();
        let clients = vec![sim.add_host(), sim.add_host(), places[0]];
        System { sim, log, counter, places, clients }
    }

    fn start_clients(&self) -> Vec<Task<()>> {
        let start = |(label, host): (usize, &HostId)| {
            let (counter, seed) = (self.counter.clone(), self.sim.seed());
            self.sim.spawn(*host, "client", move |place| {
                let asker = |thread: u64| {
                    let (counter, inner) = (counter.clone(), place.clone());
                    let mut random = Prng::new(seed, "asker", (label as u64) << 8 | thread);
                    place.world.threads.spawn("asker", move || counter.ask(&inner, &mut random, COUNT)).ok()
                };
                let threads: Vec<_> = (0..2).filter_map(asker).collect();
                for thread in threads {
                    thread.join();
                }
            })
        };
        self.clients.iter().enumerate().map(start).collect()
    }

    /// The service listens here for a while, then there, for `moves` moves; sometimes it is killed instead of closing, and
    /// sometimes the new one listens before the old one has stopped.
    fn wander(&self, sim: &Sim, random: &mut Prng, moves: usize) {
        for turn in 0..moves {
            let counter = self.counter.clone();
            let stay = Duration::from_millis(random.between(50, 1500));
            let host = self.places[turn % self.places.len()];
            let server = sim.spawn(host, "counter", move |place| counter.serve_for(&place, 2, stay));
            let killed = random.chance(300);
            let overlap = random.chance(400);
            sim.sleep(if killed || overlap { stay.mul_f64(0.7) } else { stay });
            if let (true, Some(process)) = (killed, server.process()) {
                sim.crash_process(process, Duration::ZERO);
            }
        }
    }

    fn run(self, faults: bool, nemesis: impl FnOnce(&System) -> Nemesis) -> Tally {
        let nemesis = nemesis(&self);
        let sim = self.sim.clone();
        sim.run(move |sim| {
            let clients = self.start_clients();
            let mut random = sim.random("wander");
            if faults {
                sim.set_faults(Faults { loss: 50, duplicate: 50, late: 30, ..Faults::STORM });
            }
            self.wander(sim, &mut random, 12);
            nemesis.torment(sim, Duration::from_secs(3));
            self.counter.serve_on(sim, self.places[1], 3);
            let deadline = sim.now() + TRANSACTION_MAX * COUNT as u32;
            for client in clients {
                assert!(client.join_until(Some(deadline)).is_ok(), "a client hangs");
            }
            let counter = self.counter.clone();
            let visitor = sim
                .spawn(self.clients[1], "visitor", move |place| counter.is_served(&place, TRANSACTION_MAX));
            assert_eq!(visitor.join(), Some(true), "it is found where it is now");
            let all = [self.places.clone(), self.clients.clone()].concat();
            gives_everything_back(sim, &all);
            self.log.check()
        })
    }
}

/// What the status of a kernel says in a line.
fn number(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
    let text = line.unwrap_or_else(|| panic!("{name} is not in {status}"));
    text.trim().parse().expect("it is a number")
}

/// Some time after the last transaction nothing of any is kept: neither requests nor replies nor parts of messages; and
/// clients that are long idle are forgotten.
fn gives_everything_back(sim: &Sim, hosts: &[HostId]) {
    sim.sleep(TRANSACTION_MAX);
    let held =
        ["requests under way", "bytes queued", "bytes of replies kept", "bytes arriving", "bytes leaving"];
    let check = |names: &[&str]| {
        for host in hosts {
            let status = sim.kernel_status(*host).expect("every host is up");
            for name in names {
                assert_eq!(number(&status, name), 0, "{name} of host {host:?}: {status}");
            }
        }
    };
    check(&held);
    sim.sleep(Duration::from_secs(400));
    check(&["clients remembered"]);
}

#[test]
fn a_service_that_moves_is_found_and_executes_once() {
    let answered = AtomicUsize::new(0);
    for_each_seed(0..60, |seed| {
        let tally = System::new(seed, Config::default()).run(false, |_| Nemesis::default());
        answered.fetch_add(tally.executed, Ordering::Relaxed);
    });
    assert!(answered.into_inner() > 0);
}

#[test]
fn a_service_that_moves_in_a_storm_executes_once() {
    for_each_seed(0..60, |seed| {
        System::new(seed, Config::default()).run(true, |system| Nemesis {
            hosts: system.places.clone(),
            storms: true,
            partitions: true,
            pause: Duration::from_millis(500),
            ..Nemesis::default()
        });
    });
}

/// Every kernel's transaction and message numbers pass through zero in the middle of the run.
#[test]
fn numbers_that_wrap_around_are_still_in_order() {
    for_each_seed(0..100, |seed| {
        let config = Config { numbers_wrap: true, ..Config::default() };
        System::new(seed, config).run(seed % 2 == 1, |system| Nemesis {
            hosts: if seed % 4 == 3 { system.clients[..1].to_vec() } else { Vec::new() },
            storms: seed % 2 == 1,
            partitions: true,
            pause: Duration::from_millis(700),
            ..Nemesis::default()
        });
    });
}

/// What a kernel takes for older than it is it does not execute, and says so: nothing is lied about, but much is lost. So
/// without any harm nothing may be.
#[test]
fn nothing_is_lost_where_numbers_wrap_around() {
    for_each_seed(0..20, |seed| {
        let mut system = System::new(seed, Config { numbers_wrap: true, ..Config::default() });
        (system.counter.gives_up, system.counter.hurries) = (false, false);
        let sim = system.sim.clone();
        sim.run(move |sim| {
            system.counter.serve_on(sim, system.places[0], 3);
            sim.sleep(Duration::from_secs(1));
            let clients = system.start_clients();
            for client in clients {
                assert_eq!(client.join(), Some(()));
            }
            let tally = system.log.check();
            assert_eq!(tally, Tally { executed: system.clients.len() * 2 * COUNT, ..Tally::default() });
        });
    });
}

/// Clients die one after the other in the middle of their transactions, by process and by host, and leave replies behind
/// that nobody will acknowledge.
#[test]
fn what_is_kept_for_clients_that_died_is_given_back() {
    for_each_seed(0..30, |seed| {
        let mut system = System::new(seed, Config { faults: Faults::STORM, ..Config::default() });
        (system.counter.thinks, system.counter.hurries) = (false, false);
        let sim = system.sim.clone();
        sim.run(move |sim| {
            system.counter.serve_on(sim, system.places[0], 4);
            sim.sleep(Duration::from_secs(1));
            let mut random = sim.random("killer");
            for turn in 0..15 {
                let clients = system.start_clients();
                sim.sleep(Duration::from_millis(random.between(50, 600)));
                for process in clients.iter().filter_map(Task::process) {
                    sim.crash_process(process, Duration::ZERO);
                }
                if turn % 5 == 4 {
                    sim.crash_host(system.clients[1]);
                    sim.sleep(Duration::from_millis(random.between(0, 3000)));
                    sim.restart_host(system.clients[1]);
                }
            }
            sim.set_faults(Faults::NONE);
            gives_everything_back(sim, &[system.places.clone(), system.clients.clone()].concat());
            system.log.check();
        });
    });
}
