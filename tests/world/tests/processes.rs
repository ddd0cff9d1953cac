//! The real process servers of several hosts with guests that only pretend, under every harm there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amoeba_sim::{Config, HostId, Nemesis, Prng, Sim, for_each_seed};
use amoeba_tests_world::processes::{Client, Log, ORPHAN_MAX, PROGRAM, Reported, WAIT_MAX, serve_on};

/// Until when harm is done.
const HARM: Duration = Duration::from_secs(20);
/// Processes of one client.
const COUNT: usize = 10;
/// Of the five hosts, those with a process server; clients are on the others and on the first.
const SERVERS: usize = 3;

/// Runs clients under `nemesis`; gives the trace's hash, what clients reported, and what became of guests.
fn torment(
    seed: u64,
    nemesis: impl FnOnce(&[HostId]) -> Nemesis + Send + 'static,
) -> (u64, Vec<Option<Reported>>, [usize; 3]) {
    let sim = Sim::new(seed, Config { time_max: Duration::from_secs(7200), ..Config::default() });
    let (reported, counts) = sim.run(move |sim| {
        let hosts: Vec<HostId> = (0..5).map(|_| sim.add_host()).collect();
        let log = Log::new(sim);
        hosts[..SERVERS].iter().for_each(|host| serve_on(sim, *host, &log));
        let healed = Arc::new(AtomicBool::new(false));
        let clients = [hosts[3], hosts[4], hosts[4], hosts[0]].into_iter().zip(0..).map(|(host, index)| {
            let client = Client::new(&log, Prng::new(seed, "client", index), &hosts[..SERVERS], &healed);
            sim.spawn(host, "client", move |place| client.work(&place, COUNT))
        });
        let clients: Vec<_> = clients.collect();
        nemesis(&hosts).torment(sim, HARM);
        sim.sleep(Duration::from_secs(10)); // what was under way has arrived, and every server is up
        healed.store(true, Ordering::Relaxed);
        let deadline = sim.now() + WAIT_MAX * (2 * COUNT as u32);
        let join = |client: amoeba_sim::Task<Reported>| {
            client.join_until(Some(deadline)).unwrap_or_else(|_| panic!("a client hangs"))
        };
        let reported: Vec<_> = clients.into_iter().map(join).collect();
        sim.sleep(ORPHAN_MAX);
        assert_eq!(log.anything_runs(), None, "a process runs on for nobody");
        (reported, log.counts())
    });
    (sim.trace_hash(), reported, counts)
}

/// Servers are killed, hosts crash, one of them with clients; the clients of the last host live.
fn every_harm(hosts: &[HostId]) -> Nemesis {
    let servers = hosts[..SERVERS].iter().map(|host| (*host, PROGRAM.to_owned()));
    Nemesis {
        hosts: hosts[..4].to_vec(),
        programs: servers.chain([(hosts[3], "client".to_owned())]).collect(),
        storms: true,
        partitions: true,
        pause: Duration::from_millis(900),
    }
}

#[test]
fn on_a_quiet_network_every_process_ends_and_its_client_hears_it() {
    for_each_seed(0..6, |seed| {
        let (_, reported, [started, ended, lost]) = torment(seed, |_| Nemesis::default());
        assert_eq!((ended, lost), (started, 0));
        let heard: usize = reported.iter().flatten().map(|reported| reported.finished).sum();
        assert_eq!(heard, started);
    });
}

#[test]
fn no_process_runs_twice_or_is_both_lost_and_finished() {
    let totals = Arc::new(std::sync::Mutex::new([0; 3]));
    for_each_seed(0..200, |seed| {
        let (_, reported, counts) = torment(seed, every_harm);
        assert!(reported[1].is_some() && reported[2].is_some(), "clients on a host that lives end");
        let mut totals = totals.lock().unwrap();
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    });
    // Harm must leave time for work and work for harm, or nothing was tested.
    let totals = totals.lock().unwrap();
    assert!(totals.iter().all(|total| *total > 50), "{totals:?}");
}

#[test]
fn a_seed_reproduces_its_run_exactly() {
    for_each_seed(0..3, |seed| assert_eq!(torment(seed, every_harm), torment(seed, every_harm)));
}
