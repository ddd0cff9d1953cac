//! At most once, and it says which: the real kernels between simulated hosts, under every harm there is.

use std::time::Duration;

use amoeba_sim::{Config, Faults, HostId, Nemesis, Sim, Task, for_each_seed};
use amoeba_tests_world::counter::{Counter, Log, TRANSACTION_MAX, Tally};

const CLIENT_THREADS: usize = 2;

/// A system of servers and clients.
struct System {
    sim: Sim,
    log: Log,
    counter: Counter,
    servers: Vec<HostId>,
    clients: Vec<HostId>,
}

impl System {
    /// Two hosts that serve and two that ask; the first of each kind also does the other's work.
    fn new(seed: u64, config: Config) -> System {
        let sim = Sim::new(seed, config);
        let log = Log::default();
        let counter = Counter::new(&log, 1);
        let servers: Vec<HostId> = (0..2).map(|_| sim.add_host()).collect();
        let mut clients: Vec<HostId> = (0..2).map(|_| sim.add_host()).collect();
        for host in &servers {
            counter.serve_on(&sim, *host, 3);
        }
        clients.push(servers[0]);
        System { sim, log, counter, servers, clients }
    }

    fn start_clients(&self, count: usize) -> Vec<Task<()>> {
        let start = |(index, host): (usize, &HostId)| {
            let (counter, seed) = (self.counter.clone(), self.sim.seed());
            self.sim.spawn(*host, "client", move |place| {
                let threads: Vec<_> = (0..CLIENT_THREADS)
                    .filter_map(|thread| {
                        let (counter, inner) = (counter.clone(), place.clone());
                        let label = (index * CLIENT_THREADS + thread) as u64;
                        let mut random = amoeba_sim::Prng::new(seed, "client", label);
                        place
                            .world
                            .threads
                            .spawn("asker", move || counter.ask(&inner, &mut random, count))
                            .ok()
                    })
                    .collect();
                for thread in threads {
                    thread.join();
                }
            })
        };
        self.clients.iter().enumerate().map(start).collect()
    }

    /// Clients work while `nemesis` does its worst; then everything must work again.
    fn torment(self, nemesis: Nemesis, time: Duration) -> (u64, Tally) {
        let sim = self.sim.clone();
        let tally = sim.run(move |sim| {
            let tasks = self.start_clients(25);
            nemesis.torment(sim, time);
            let deadline = sim.now() + TRANSACTION_MAX * 25;
            for task in tasks {
                assert!(task.join_until(Some(deadline)).is_ok(), "a client hangs");
            }
            self.is_whole(sim);
            self.log.check()
        });
        (sim.trace_hash(), tally)
    }

    fn is_whole(&self, sim: &Sim) {
        for host in &self.clients {
            let counter = self.counter.clone();
            let served = sim
                .spawn(*host, "visitor", move |place| counter.is_served(&place, TRANSACTION_MAX * 3))
                .join();
            assert_eq!(served, Some(true), "after every harm has ended a client is served again");
        }
    }

    fn every_harm(&self) -> Nemesis {
        let programs = self.servers.iter().map(|host| (*host, "counter".to_owned()));
        let clients = self.clients.iter().map(|host| (*host, "client".to_owned()));
        Nemesis {
            hosts: [self.servers.clone(), self.clients[..1].to_vec()].concat(),
            programs: programs.chain(clients.take(1)).collect(),
            storms: true,
            partitions: true,
            pause: Duration::from_millis(800),
        }
    }
}

#[test]
fn nothing_goes_wrong_on_a_quiet_network() {
    for_each_seed(0..10, |seed| {
        let system = System::new(seed, Config::default());
        let (_, tally) = system.torment(Nemesis::default(), Duration::ZERO);
        assert_eq!(tally.not_executed, 0);
        assert!(tally.unknown <= tally.executed / 5, "servers give up 3 in 100: {tally:?}");
    });
}

#[test]
fn a_storm_alone_never_runs_a_request_twice() {
    for_each_seed(0..200, |seed| {
        let system = System::new(seed, Config { faults: Faults::STORM, ..Config::default() });
        let nemesis =
            Nemesis { storms: true, partitions: true, pause: Duration::from_secs(1), ..Nemesis::default() };
        system.torment(nemesis, Duration::from_secs(15));
    });
}

#[test]
fn no_harm_runs_a_request_twice_or_lies_about_it() {
    for_each_seed(0..200, |seed| {
        let system = System::new(seed, Config::default());
        let nemesis = system.every_harm();
        system.torment(nemesis, Duration::from_secs(20));
    });
}

#[test]
fn large_packets_change_nothing() {
    for_each_seed(0..20, |seed| {
        let system = System::new(seed, Config { packet_size_max: 60_000, ..Config::default() });
        let nemesis = system.every_harm();
        system.torment(nemesis, Duration::from_secs(15));
    });
}

#[test]
fn a_seed_reproduces_its_run_exactly() {
    let run = |seed| {
        let system = System::new(seed, Config::default());
        let nemesis = system.every_harm();
        system.torment(nemesis, Duration::from_secs(10))
    };
    for_each_seed(0..8, |seed| assert_eq!(run(seed), run(seed)));
    assert_ne!(run(1).0, run(2).0);
}

/// Lies on a link that is not sealed can forge anything, so at-most-once is not what is checked here: every kernel
/// survives, and once the liar is silent all is well.
#[test]
fn a_scribbling_peer_stops_nobody() {
    for_each_seed(0..40, |seed| {
        let sim = Sim::new(seed, Config::default());
        let hosts = [sim.add_host(), sim.add_host()];
        let counter = Counter::new(&Log::default(), 2);
        sim.add_scribbler(Duration::from_micros(700));
        sim.run(move |sim| {
            sim.sleep(Duration::from_secs(20));
            sim.silence_scribblers();
            counter.serve_on(sim, hosts[0], 3);
            sim.sleep(Duration::from_secs(1));
            let served =
                sim.spawn(hosts[1], "visitor", move |place| counter.is_served(&place, TRANSACTION_MAX));
            assert_eq!(served.join(), Some(true));
        });
    });
}
