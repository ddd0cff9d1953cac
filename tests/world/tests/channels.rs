//! Processes of one host over the memory they share: at most once, it says which, and a hostile one hurts only itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amoeba_cap::{Capability, GetPort, Private};
use amoeba_sim::{Config, HostId, Nemesis, Place, Prng, Sim, Task, for_each_seed};
use amoeba_tests_world::counter::{Counter, Log, TRANSACTION_MAX};
use amoeba_wire::{Command, Header, Status};
use amoeba_world::{Message, TransOptions};

const LARGE_SIZE_MAX: usize = 3 << 20;
const ECHO: Command = Command(15_300);

fn large_port() -> GetPort {
    GetPort::from_bytes(*b"large!")
}

fn start_client(sim: &Sim, host: HostId, counter: &Counter, label: u64, count: usize) -> Task<()> {
    let (counter, seed) = (counter.clone(), sim.seed());
    sim.spawn(host, "client", move |place| {
        let ask = |thread: u64| {
            let (counter, inner) = (counter.clone(), place.clone());
            let mut random = Prng::new(seed, "channel client", label << 8 | thread);
            place.world.threads.spawn("asker", move || counter.ask(&inner, &mut random, count)).ok()
        };
        let threads: Vec<_> = (0..3).filter_map(ask).collect();
        for thread in threads {
            thread.join();
        }
    })
}

fn join_all(sim: &Sim, tasks: Vec<Task<()>>, count: usize) {
    let deadline = sim.now() + TRANSACTION_MAX * count as u32;
    for task in tasks {
        assert!(task.join_until(Some(deadline)).is_ok(), "a client hangs");
    }
}

/// Two processes that serve, three that ask, all on one host; every seed some are killed, and the host crashes.
#[test]
fn no_harm_runs_a_request_twice_or_lies_about_it() {
    let (runs, over_channels) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for_each_seed(0..100, |seed| {
        let sim = Sim::new(seed, Config::default());
        let host = sim.add_host();
        let log = Log::default();
        let mut counter = Counter::new(&log, 1);
        (counter.lingers, counter.hurries) = (true, true);
        counter.serve_on(&sim, host, 2);
        counter.serve_on(&sim, host, 1);
        let nemesis = Nemesis {
            hosts: if seed % 4 == 0 { vec![host] } else { Vec::new() },
            programs: vec![(host, "counter".to_owned()), (host, "client".to_owned())],
            pause: Duration::from_millis(700),
            ..Nemesis::default()
        };
        let requests = sim.run(move |sim| {
            let tasks = (0..3).map(|label| start_client(sim, host, &counter, label, 30)).collect();
            nemesis.torment(sim, Duration::from_secs(15));
            join_all(sim, tasks, 30);
            let visitor = counter.clone();
            let served =
                sim.spawn(host, "visitor", move |place| visitor.is_served(&place, TRANSACTION_MAX * 3));
            assert_eq!(served.join(), Some(true));
            log.check();
            sim.requests_over_channels()
        });
        over_channels.fetch_add(requests as usize, Ordering::Relaxed);
        runs.fetch_add(1, Ordering::Relaxed);
    });
    let over_channels = over_channels.into_inner();
    assert!(over_channels > runs.into_inner() * 20, "only {over_channels} requests went over channels");
}

/// A port whose process stops listening now and then, and listens again: what it has taken it answers, what it has not
/// taken goes elsewhere.
#[test]
fn who_stops_listening_loses_nothing() {
    for_each_seed(0..60, |seed| {
        let sim = Sim::new(seed, Config::default());
        let host = sim.add_host();
        let log = Log::default();
        let mut counter = Counter::new(&log, 1);
        counter.gives_up = false;
        sim.run(move |sim| {
            for label in 0..2 {
                let counter = counter.clone();
                sim.program(host, "fickle", move |place| {
                    let lot = amoeba_world::random::<1>(&*place.world.entropy)[0];
                    counter.serve_for(&place, 2, Duration::from_millis(100 + 10 * u64::from(lot) + label));
                });
            }
            let tasks = (0..3).map(|label| start_client(sim, host, &counter, label, 30)).collect();
            join_all(sim, tasks, 30);
            assert_eq!(log.check().unknown, 0, "nobody died, so everybody knows");
        });
    });
}

/// A process that scribbles over its own side of its channels while it asks: what it gets is its own affair, everybody
/// else is served as if it were not there.
#[test]
fn a_hostile_client_hurts_only_itself() {
    for_each_seed(0..15, |seed| {
        let sim = Sim::new(seed, Config::default());
        let host = sim.add_host();
        let log = Log::default();
        let counter = Counter::new(&log, 1);
        sim.program(host, "large", serve_large);
        counter.serve_on(&sim, host, 2);
        sim.run(move |sim| {
            let hostile = sim.spawn(host, "hostile", move |place| ask_hostile(&place));
            let process = hostile.process().expect("the host is up");
            sim.scribble_channels(process, Duration::from_micros(150));
            let honest = sim.spawn(host, "honest", |place| ask_large(&place, 20));
            let tasks = (0..2).map(|label| start_client(sim, host, &counter, label, 20)).collect();
            join_all(sim, tasks, 20);
            assert!(honest.join().is_some());
            log.check();
        });
    });
}

/// A server that scribbles over its replies: its clients' transactions end by their deadlines at the latest, and their
/// transactions with others are what they always were.
#[test]
fn a_hostile_server_hurts_only_who_asks_it() {
    for_each_seed(0..12, |seed| {
        let sim = Sim::new(seed, Config::default());
        let host = sim.add_host();
        let log = Log::default();
        let counter = Counter::new(&log, 1);
        counter.serve_on(&sim, host, 2);
        sim.run(move |sim| {
            let hostile = sim.spawn(host, "hostile", serve_large);
            let process = hostile.process().expect("the host is up");
            sim.scribble_channels(process, Duration::from_micros(150));
            let asker = {
                let counter = counter.clone();
                sim.spawn(host, "asker", move |place| {
                    let mut random = Prng::new(seed, "asker", 0);
                    for turn in 0..30 {
                        let started = place.world.threads.now();
                        let deadline = Some(Duration::from_millis(500));
                        let options = TransOptions { deadline, ..TransOptions::default() };
                        let _ = place.world.transactions.trans(large(&place, turn * 7000, 1), &options);
                        assert!(place.world.threads.now() - started < Duration::from_secs(5));
                        counter.ask(&place, &mut random, 1);
                    }
                })
            };
            assert_eq!(asker.join(), Some(()));
            log.check();
            assert!(!hostile.has_ended(), "it dies of nothing either");
        });
    });
}

/// Megabytes through rings of kilobytes, both ways, while the server is killed.
#[test]
fn large_messages_go_round_small_rings() {
    for_each_seed(0..20, |seed| {
        let sim = Sim::new(seed, Config::default());
        let host = sim.add_host();
        sim.program(host, "large", serve_large);
        sim.run(move |sim| {
            sim.sleep(Duration::from_millis(10));
            let clients: Vec<_> =
                (0..3).map(|_| sim.spawn(host, "client", |place| ask_large(&place, 12))).collect();
            if seed % 2 == 1 {
                let nemesis = Nemesis {
                    programs: vec![(host, "large".to_owned())],
                    pause: Duration::from_millis(30),
                    ..Nemesis::default()
                };
                nemesis.torment(sim, Duration::from_millis(300));
            }
            let answered: usize = clients.into_iter().map(|client| client.join().expect("it lives")).sum();
            assert!(seed % 2 == 1 || answered == 3 * 12, "{answered} were answered");
            assert!(answered > 0);
        });
    });
}

/// Echoes any data, and says how much it was.
fn serve_large(place: Place) {
    let Ok(listener) = place.world.transactions.listen(&large_port(), LARGE_SIZE_MAX) else { return };
    let threads: Vec<_> = (0..2)
        .filter_map(|_| {
            let listener = listener.clone();
            let body = move || {
                while let Ok(incoming) = listener.getreq() {
                    assert!(incoming.request.data.len() <= LARGE_SIZE_MAX);
                    assert_eq!(incoming.request.header.port, listener.put_port());
                    let header =
                        Header { offset: incoming.request.header.offset, ..Header::reply(Status::STD_OK) };
                    incoming.reply.send(Message { header, data: incoming.request.data });
                }
            };
            place.world.threads.spawn("worker", body).ok()
        })
        .collect();
    for thread in threads {
        thread.join();
    }
}

fn large(place: &Place, size: usize, number: i32) -> Message {
    let port = place.world.transactions.put_port(&large_port()).expect("the kernel is there");
    let capability = Capability { port, private: Private::NULL };
    let data = (0..size).map(|index| (index / 3 + number as usize) as u8).collect();
    Message { header: Header { offset: number, ..Header::request(&capability, ECHO) }, data }
}

/// Asks `count` times with data of many sizes; how often it was answered. An answer is always the right one.
fn ask_large(place: &Place, count: i32) -> usize {
    let sizes = [0, 1, 4096, 100_000, 131_072, LARGE_SIZE_MAX];
    let ask = |number: i32| {
        let request = large(place, sizes[number as usize % sizes.len()], number);
        let data = request.data.clone();
        let reply = place.world.transactions.trans(request, &TransOptions::default()).ok()?;
        if reply.header.status() != Status::STD_OK {
            return None;
        }
        assert_eq!(reply.header.offset, number);
        assert!(reply.data == data, "request {number} got other bytes back");
        Some(())
    };
    (0..count).filter_map(ask).count()
}

fn ask_hostile(place: &Place) {
    let mut random = Prng::new(place.world.threads.now().since_epoch().as_nanos() as u64, "hostile", 0);
    for _ in 0..200 {
        let deadline = Some(Duration::from_millis(random.between(1, 50)));
        let options = TransOptions { deadline, ..TransOptions::default() };
        let request = large(place, random.between(0, 40_000) as usize, 1);
        let _ = place.world.transactions.trans(request, &options);
    }
}
