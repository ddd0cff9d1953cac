//! Two networks, and hosts in the middle that are on both: transactions cross them, at most once, whatever happens to
//! whoever is in the middle.

use std::time::Duration;

use amoeba_sim::{Config, Faults, HostId, Nemesis, Sim, for_each_seed};
use amoeba_tests_world::counter::{Counter, Log, TRANSACTION_MAX, Tally};

/// A client on one network, a server on the other, and hosts between them.
struct System {
    sim: Sim,
    log: Log,
    counter: Counter,
    client: HostId,
    server: HostId,
    middle: Vec<HostId>,
}

impl System {
    fn new(seed: u64, middle: usize, faults: Faults) -> System {
        let sim = Sim::new(seed, Config { faults, ..Config::default() });
        let log = Log::default();
        let mut counter = Counter::new(&log, 1);
        counter.thinks = false;
        let (client, server) = (sim.add_host_on(&[0]), sim.add_host_on(&[1]));
        let middle = (0..middle).map(|_| sim.add_host_on(&[0, 1])).collect();
        counter.serve_on(&sim, server, 3);
        System { sim, log, counter, client, server, middle }
    }

    /// The client asks while `harm` is done; then it must be served again, and every claim must hold.
    fn ask(self, count: usize, harm: impl FnOnce(&System, &Sim) + Send + 'static) -> Tally {
        let sim = self.sim.clone();
        sim.run(move |sim| {
            let (counter, seed) = (self.counter.clone(), sim.seed());
            let client = sim.spawn(self.client, "client", move |place| {
                let mut random = amoeba_sim::Prng::new(seed, "client", 0);
                counter.ask(&place, &mut random, count);
            });
            harm(&self, sim);
            let deadline = sim.now() + TRANSACTION_MAX * count as u32;
            assert!(client.join_until(Some(deadline)).is_ok(), "the client hangs");
            let counter = self.counter.clone();
            let visitor = sim
                .spawn(self.client, "visitor", move |place| counter.is_served(&place, TRANSACTION_MAX * 2));
            assert_eq!(visitor.join(), Some(true), "after every harm has ended the client is served again");
            self.log.check()
        })
    }
}

#[test]
fn transactions_cross_a_host_in_the_middle() {
    for_each_seed(0..20, |seed| {
        let tally = System::new(seed, 1, Faults::NONE).ask(20, |_, _| {});
        assert_eq!(tally.not_executed, 0);
        assert!(tally.executed >= 15, "servers give up 3 in 100: {tally:?}");
    });
}

#[test]
fn a_second_way_takes_over_when_the_host_in_the_middle_crashes() {
    for_each_seed(0..40, |seed| {
        let tally = System::new(seed, 2, Faults::NONE).ask(40, |system, sim| {
            for turn in 0..4 {
                let broken = system.middle[turn % 2];
                sim.sleep(Duration::from_millis(900));
                sim.crash_host(broken);
                sim.sleep(Duration::from_millis(900));
                sim.restart_host(broken);
            }
        });
        // Each crash may take along what was just under way, and no more.
        assert!(tally.executed + 4 + 6 >= 40, "{tally:?}");
    });
}

#[test]
fn no_harm_to_the_ways_runs_a_request_twice_or_lies_about_it() {
    for_each_seed(0..150, |seed| {
        let system = System::new(seed, 2, Faults::NONE);
        let mut hosts = system.middle.clone();
        hosts.push(system.server);
        let nemesis = Nemesis {
            hosts,
            programs: vec![(system.server, "counter".to_owned())],
            storms: true,
            partitions: true,
            pause: Duration::from_millis(600),
        };
        system.ask(40, move |_, sim| nemesis.torment(sim, Duration::from_secs(15)));
    });
}

#[test]
fn a_seed_reproduces_a_run_over_two_networks() {
    let run = |seed| {
        let system = System::new(seed, 2, Faults::STORM);
        let sim = system.sim.clone();
        (system.ask(10, |_, _| {}), sim.trace_hash())
    };
    for_each_seed(0..4, |seed| assert_eq!(run(seed), run(seed)));
}
