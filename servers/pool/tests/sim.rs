//! Two copies of the run server in the simulated world, while hosts crash, copies are killed and the network storms and
//! splits: a client that wants a host is answered in bounded time, and when the harm ends all hosts are used again.

mod fakes;

use std::collections::BTreeSet;
use std::time::Duration;

use amoeba_cap::{Capability, ServerSecret};
use amoeba_name::Names;
use amoeba_place::{By, FindError, Need, Parameters, Placer, find};
use amoeba_pool::{Keys, Options};
use amoeba_sim::{Config, HostId, Nemesis, Place, Sim, for_each_seed};
use amoeba_stubs::pool;
use amoeba_world::World;

use fakes::{FakeDirectory, FakeGuests, FakeHost, FakePool, get_port};

const NAMES: [&str; 3] = ["anvil", "bolt", "cask"];
/// How long harm is done.
const HARM: Duration = Duration::from_secs(20);
/// Within this every host has been asked again after the harm, whatever happened to it.
const HEALED: Duration = Duration::from_secs(30);
/// Within this a client has its answer, or knows that there is none: a run server or a directory server that dies while it
/// is asked is noticed within five seconds.
const FIND_MAX: Duration = Duration::from_secs(10);

fn for_ever(world: &World) -> ! {
    loop {
        world.threads.sleep(Duration::from_secs(3600));
    }
}

/// What capabilities of servers with these names are; every port is F of a known get-port.
fn directory_of(world: &World, name: &str) -> Capability {
    let port = world.transactions.put_port(&get_port(name)).expect("F is always there");
    FakeDirectory::capability(name, port)
}

fn serve_host(name: &'static str) -> impl Fn(Place) + Send + Sync {
    move |place| {
        let _host = FakeHost::start(&place.world, name, FakeGuests::idle("x86_64-linux"));
        for_ever(&place.world);
    }
}

fn serve_directory(place: Place) {
    let row = |name: &str| (name.to_owned(), directory_of(&place.world, &format!("d{name}")));
    let _pool = FakePool::start(&place.world, NAMES.map(row));
    for_ever(&place.world);
}

fn serve_runs(place: Place) {
    let keys = Keys { get_port: get_port("run"), secret: ServerSecret::from_bytes([9; 32]) };
    let names = Names::new(&place.world, directory_of(&place.world, "hosts"));
    let started = amoeba_pool::start(&place.world, keys, &names, b"/", Options::default(), 4);
    started.unwrap_or_else(|error| panic!("the run server does not start: {error}")).join();
    panic!("nobody closed the run server");
}

/// Whom the client asks: as [`serve_runs`] would tell it.
fn run_server(world: &World) -> Capability {
    let port = world.transactions.put_port(&get_port("run")).expect("F is always there");
    let number = amoeba_cap::ObjectNumber::SUPER;
    let rights = pool::FINDHOST | pool::STATUS;
    ServerSecret::from_bytes([9; 32]).capability(port, number, rights, amoeba_cap::CheckField::NULL)
}

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    by_server: usize,
    by_client: usize,
    refused: usize,
}

fn want_hosts(place: Place, until: Duration) -> Seen {
    let world = &place.world;
    let names = Names::new(world, directory_of(world, "hosts"));
    let placer = Placer::new(world, &names, b"/", Parameters::default());
    let run = run_server(world);
    let end = world.threads.now() + until;
    let mut seen = Seen::default();
    while world.threads.now() < end {
        let began = world.threads.now();
        match find(world, Some(&run), &placer, &Need::default(), 1) {
            Ok(found) => {
                assert!(NAMES.contains(&found.places[0].host.as_str()), "{found:?}");
                match found.by {
                    By::RunServer { .. } => seen.by_server += 1,
                    By::Client(_) => seen.by_client += 1,
                }
            }
            Err(FindError::NoHost(why)) => {
                assert!(
                    why.starts_with("no host can take it\n") || why == "the pool has no hosts\n",
                    "{why}"
                );
                seen.refused += 1;
            }
            Err(FindError::Directory(_)) => seen.refused += 1,
            Err(error) => panic!("no honest pool makes a client hear: {error}"),
        }
        let took = world.threads.now().since(began);
        assert!(took < FIND_MAX, "a client waited for {took:?}");
        world.threads.sleep(Duration::from_millis(100));
    }
    seen
}

/// The hosts that twelve placements go to.
fn hosts_used(place: Place) -> BTreeSet<String> {
    let need = Need::default().to_record();
    let found = pool::find_host(&place.world, &run_server(&place.world), &need, 12);
    let places = found.unwrap_or_else(|error| panic!("after the harm: {error}")).places;
    places.into_iter().map(|place| String::from_utf8(place.host).expect("names are text")).collect()
}

fn torment(seed: u64) {
    let sim = Sim::new(seed, Config::default());
    let seen = sim.run(move |sim| {
        let hosts: Vec<HostId> = NAMES.iter().map(|_| sim.add_host()).collect();
        let (directory, copies, client) = (sim.add_host(), [sim.add_host(), sim.add_host()], sim.add_host());
        for (&host, name) in hosts.iter().zip(NAMES) {
            sim.program(host, "kernel", serve_host(name));
        }
        sim.program(directory, "directory", serve_directory);
        copies.iter().for_each(|&copy| sim.program(copy, "run", serve_runs));
        let work = sim.spawn(client, "client", |place| want_hosts(place, HARM));
        let nemesis = Nemesis {
            hosts: hosts.into_iter().chain([directory]).chain(copies).collect(),
            programs: copies.iter().map(|&copy| (copy, "run".to_owned())).collect(),
            storms: true,
            partitions: true,
            pause: Duration::from_millis(900),
        };
        nemesis.torment(sim, HARM);
        sim.sleep(HEALED);
        let seen = work.join().expect("the client lives");
        let used = sim.spawn(client, "after", hosts_used).join().expect("the client lives");
        assert_eq!(used, NAMES.map(str::to_owned).into(), "every host is used again");
        seen
    });
    assert!(seen.by_server + seen.by_client + seen.refused > 0, "{seen:?}");
}

#[test]
fn hosts_are_found_in_bounded_time_and_again_after_all_harm() {
    for_each_seed(0..20, torment);
}

#[test]
fn a_seed_reproduces_its_run() {
    let run = |seed| {
        let sim = Sim::new(seed, Config::default());
        let used = sim.run(|sim| {
            let (host, directory, copy) = (sim.add_host(), sim.add_host(), sim.add_host());
            sim.program(host, "kernel", serve_host(NAMES[0]));
            sim.program(directory, "directory", serve_directory);
            sim.program(copy, "run", serve_runs);
            sim.sleep(Duration::from_secs(5));
            sim.spawn(directory, "client", hosts_used).join()
        });
        assert_eq!(used, Some(BTreeSet::from([NAMES[0].to_owned()])));
        sim.trace_hash()
    };
    assert_eq!(run(7), run(7));
}
