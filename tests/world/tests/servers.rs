//! The real Bullet and directory servers, under every harm there is: nothing that was acknowledged is lost, nothing is
//! half there, and every capability given out verifies.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_sim::{Config, Nemesis, Place, Prng, Sim, for_each_seed};
use amoeba_stubs::bullet::{self, FsckReply};
use amoeba_stubs::directory;
use amoeba_tests_world::TRANSACTION_MAX;
use amoeba_tests_world::files::Files;
use amoeba_tests_world::names::{self, Names, SHARED, Swaps};
use amoeba_tests_world::servers::Servers;

/// Until when clients work.
const WORK: Duration = Duration::from_secs(15);

fn config() -> Config {
    // Large enough that a file of 20 kB has a chance in a storm.
    Config { packet_size_max: 9000, ..Config::default() }
}

/// How often clients pause, at most.
fn rest(place: &Place, random: &mut Prng) {
    place.world.threads.sleep(Duration::from_micros(random.between(0, 400_000)));
}

fn work_on_files(place: Place, mut files: Files, mut random: Prng) -> Files {
    let end = place.world.threads.now() + WORK;
    while place.world.threads.now() < end {
        files.step(&place);
        rest(&place, &mut random);
    }
    files
}

fn work_on_names(place: Place, mut names: Names, mut random: Prng) -> Names {
    let end = place.world.threads.now() + WORK;
    while place.world.threads.now() < end {
        names.step(&place);
        rest(&place, &mut random);
    }
    names
}

/// Runs clients under `nemesis`, then checks. Gives the trace's hash and how much was acknowledged.
fn torment(seed: u64, nemesis: impl FnOnce(&Servers) -> Nemesis + Send + 'static) -> (u64, [usize; 3]) {
    let sim = Sim::new(seed, config());
    let counts = sim.run(move |sim| {
        let servers = Servers::start(sim);
        let swaps = Swaps::default();
        let first = put_shared(sim, &servers);
        let random = |index| (Prng::new(seed, "client", index), Prng::new(seed, "pause", index));
        let file_tasks: Vec<_> = (0..3)
            .map(|index| {
                let (work, pause) = random(index);
                let files = Files::new(servers.bullet, work);
                let host = servers.client_hosts[index as usize % 2];
                sim.spawn(host, "files", move |place| work_on_files(place, files, pause))
            })
            .collect();
        let name_tasks: Vec<_> = (0..3)
            .map(|index| {
                let (work, pause) = random(100 + index);
                let names = Names::new(servers.root, work, swaps.clone());
                let host = servers.client_hosts[index as usize % 2];
                sim.spawn(host, "names", move |place| work_on_names(place, names, pause))
            })
            .collect();
        nemesis(&servers).torment(sim, WORK);
        let deadline = sim.now() + TRANSACTION_MAX * 20;
        let join = "a client hangs";
        let files: Vec<Files> = file_tasks
            .into_iter()
            .map(|task| task.join_until(Some(deadline)).ok().expect(join).expect("clients live"))
            .collect();
        let names: Vec<Names> = name_tasks
            .into_iter()
            .map(|task| task.join_until(Some(deadline)).ok().expect(join).expect("clients live"))
            .collect();
        sim.sleep(Duration::from_secs(10)); // what was under way has arrived, and every server is up
        check(sim, &servers, files, names, (first, swaps))
    });
    (sim.trace_hash(), counts)
}

fn put_shared(sim: &Sim, servers: &Servers) -> Capability {
    let (root, host) = (servers.root, servers.client_hosts[0]);
    let first = names::value(&mut Prng::new(sim.seed(), "first", 0));
    let put = sim.spawn(host, "put", move |place| {
        directory::append(&place.world, &root, SHARED, &CapabilitySet::singleton(first), &[0xFF; 4], b"")
    });
    assert_eq!(put.join(), Some(Ok(())));
    first
}

fn check(
    sim: &Sim,
    servers: &Servers,
    files: Vec<Files>,
    names: Vec<Names>,
    (first, swaps): (Capability, Swaps),
) -> [usize; 3] {
    let (bullet, root, host) = (servers.bullet, servers.root, servers.client_hosts[0]);
    let checked = sim.spawn(host, "checker", move |place| {
        let report = is_sound(&place, &bullet);
        let least: usize = files.iter().map(|files| files.check_all(&place)).sum();
        assert!(report.file_count >= least as u64, "{} files of {least}", report.file_count);
        names.iter().for_each(|names| names.check_all(&place));
        let last = names::lookup(&place.world, &root, SHARED).flatten().expect("the shared row is there");
        swaps.check(&first, &last);
        let named = names.iter().map(Names::count).sum();
        [files.iter().map(Files::count).sum(), named, swaps.count()]
    });
    checked.join().expect("nothing crashes any more")
}

/// The volume without problems. A record that was torn under an unacknowledged commit is one, until it is repaired:
/// nobody but a person can tell it from an acknowledged one that has rotted.
fn is_sound(place: &Place, bullet: &Capability) -> FsckReply {
    let report = bullet::fsck(&place.world, bullet, true).expect("after every harm has ended");
    for problem in &report.problems {
        let text = String::from_utf8_lossy(problem);
        assert!(text.ends_with("torn or damaged record"), "{text}");
    }
    let report = bullet::fsck(&place.world, bullet, false).expect("after every harm has ended");
    assert_eq!(report.problem_count, 0, "{:?}", report.problems);
    report
}

#[test]
fn on_a_quiet_network_everything_is_acknowledged() {
    for_each_seed(0..6, |seed| {
        let (_, counts) = torment(seed, |_| Nemesis::default());
        assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    });
}

#[test]
fn no_acknowledged_file_or_name_is_lost() {
    let counts = Arc::new(std::sync::Mutex::new([0; 3]));
    for_each_seed(0..200, |seed| {
        let (_, acknowledged) = torment(seed, Servers::every_harm);
        let mut counts = counts.lock().unwrap();
        (0..3).for_each(|index| counts[index] += acknowledged[index]);
    });
    // Harm must leave time for work, or nothing was tested.
    assert!(counts.lock().unwrap().iter().all(|count| *count > 0));
}

#[test]
fn a_seed_reproduces_its_run_exactly() {
    for_each_seed(0..3, |seed| {
        assert_eq!(torment(seed, Servers::every_harm), torment(seed, Servers::every_harm));
    });
}
