//! Whoever looks on sees transactions as they pass, without what is secret, and disturbs nobody.

mod common;

use std::time::{Duration, Instant};

use amoeba_cap::SystemSecret;
use amoeba_linux::client::{Client, Passed, Trace};
use amoeba_linux::socket::TraceFilter;
use amoeba_stubs::system::{HERE, UNKNOWN};
use amoeba_wire::trace::{Event, Outcome, Record};
use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Message, TransOptions, Transactions};
use common::{Echo, System, port, request};

/// Looks on, with the secret that `common` gives every system.
fn look(viewer: &Client, filter: TraceFilter) -> Result<Trace, Error> {
    viewer.trace(&SystemSecret::from_bytes([42; 32]), filter)
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Everything up to the end of a transaction that `ends` is about.
fn until(trace: &mut Trace, ends: impl Fn(&Event) -> bool) -> Vec<Record> {
    let (mut records, started) = (Vec::new(), Instant::now());
    while !records.iter().any(|record: &Record| ends(&record.event)) {
        assert!(started.elapsed() < PATIENCE, "only this has passed: {records:?}");
        let passed = trace.next(Duration::from_millis(100)).unwrap();
        assert_eq!(passed.dropped, 0);
        records.extend(passed.records);
    }
    records
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Ended { .. })
}

/// A request with a check field and data in which there is another secret.
fn secret_request(echo: &Echo) -> Message {
    let capability = amoeba_cap::Capability::from_bytes([0xC4; 16]);
    let header = Header { port: echo.port, ..Header::request(&capability, amoeba_wire::Command(1004)) };
    Message { header, data: b"secret data".to_vec() }
}

fn bytes_of(records: &[Record]) -> Vec<u8> {
    let mut writer = amoeba_wire::Writer::new();
    records.iter().for_each(|record| record.put(&mut writer));
    writer.finish()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_transaction_is_seen_from_end_to_end_without_secrets() {
    let system = System::start("trace-whole");
    let echo = Echo::start(&system, 1, 1000);
    let (client, viewer) = (system.client(), system.client());
    let mut trace = look(&viewer, TraceFilter { port: Some(echo.port), ..TraceFilter::default() }).unwrap();
    client.trans(secret_request(&echo), &TransOptions::default()).unwrap();
    let records = until(&mut trace, is_end);
    let pid = std::process::id();
    match &records.iter().map(|record| &record.event).collect::<Vec<_>>()[..] {
        [
            Event::Request { pid: client, message: asked, .. },
            Event::Delivered { pid: server, request, message: taken, .. },
            Event::Answered { request: answered, reply: Some(reply), .. },
            Event::Ended { outcome: Outcome::Reply(ended), elapsed: Some(_), .. },
        ] => {
            assert_eq!((*client, *server, request), (pid, pid, answered));
            assert_eq!((asked, reply), (taken, ended));
            assert_eq!((asked.header.command, asked.size, reply.size), (1004, 11, 11));
            assert_eq!(reply.header.status(), Status::STD_OK);
        }
        other => panic!("{other:?}"),
    }
    let bytes = bytes_of(&records);
    assert!(!holds(&bytes, &[0xC4; 6]), "the check field is not there");
    assert!(!holds(&bytes, b"secret data"));
}

#[test]
fn data_are_seen_by_whoever_asks_for_them_and_check_fields_by_nobody() {
    let system = System::start("trace-data");
    let echo = Echo::start(&system, 1, 1000);
    let (client, viewer) = (system.client(), system.client());
    let mut trace = look(&viewer, TraceFilter { data: true, ..TraceFilter::default() }).unwrap();
    client.trans(secret_request(&echo), &TransOptions::default()).unwrap();
    let bytes = bytes_of(&until(&mut trace, is_end));
    assert!(holds(&bytes, b"secret data") && !holds(&bytes, &[0xC4; 6]));
}

#[test]
fn a_viewer_of_another_process_or_port_sees_nothing() {
    let system = System::start("trace-other");
    let echo = Echo::start(&system, 1, 1000);
    let (client, viewer) = (system.client(), system.client());
    let of_init = TraceFilter { pid: Some(1), ..TraceFilter::default() };
    let other = client.put_port(&port(9)).unwrap();
    let of_port = TraceFilter { port: Some(other), ..TraceFilter::default() };
    let mut blind = [look(&viewer, of_init).unwrap(), look(&viewer, of_port).unwrap()];
    let mut seeing = look(&viewer, TraceFilter::default()).unwrap();
    client.trans(request(echo.port, vec![1]), &TransOptions::default()).unwrap();
    until(&mut seeing, is_end);
    for trace in &mut blind {
        assert_eq!(trace.next(Duration::ZERO).unwrap(), Passed::default());
    }
}

#[test]
fn a_transaction_that_finds_nobody_ends_as_not_sent() {
    let system = System::start("trace-nobody");
    let (client, viewer) = (system.client(), system.client());
    let mut trace = look(&viewer, TraceFilter::default()).unwrap();
    let options = TransOptions { locate_timeout: Duration::from_millis(20), ..TransOptions::default() };
    client.trans(request(client.put_port(&port(9)).unwrap(), vec![]), &options).unwrap_err();
    let records = until(&mut trace, is_end);
    let end = records.into_iter().find(|record| is_end(&record.event)).map(|record| record.event);
    let expected = Outcome::NotSent(Status::RPC_NOTFOUND.0);
    assert!(matches!(end, Some(Event::Ended { outcome, .. }) if outcome == expected));
}

#[test]
fn who_looks_too_slowly_is_told_how_much_was_left_out() {
    let system = System::start("trace-slow");
    let echo = Echo::start(&system, 1, 100_000);
    let (client, viewer) = (system.client(), system.client());
    let mut trace = look(&viewer, TraceFilter { data: true, ..TraceFilter::default() }).unwrap();
    for _ in 0..600 {
        // Four records of about a kibibyte each: more than a mebibyte in all.
        client.trans(request(echo.port, vec![7; 5000]), &TransOptions::default()).unwrap();
    }
    let (mut seen, mut dropped, started) = (0, 0, Instant::now());
    while seen + dropped < 2400 {
        assert!(started.elapsed() < PATIENCE, "{seen} seen, {dropped} left out");
        let passed = trace.next(Duration::from_millis(100)).unwrap();
        seen += passed.records.len() as u64;
        dropped += passed.dropped;
    }
    assert_eq!(seen + dropped, 2400);
    assert!(seen > 0 && dropped > 0, "{seen} seen, {dropped} left out");
}

/// Transactions until they pass the kernel by.
fn warm(client: &Client, echo: &Echo) {
    let started = Instant::now();
    while client.passage(echo.port).is_none() {
        assert!(started.elapsed() < PATIENCE, "no channel has come");
        client.trans(request(echo.port, vec![]), &TransOptions::default()).unwrap();
    }
}

#[test]
fn nothing_new_passes_by_while_somebody_looks_on() {
    let system = System::start("trace-channels");
    let echo = Echo::start(&system, 2, 1000);
    let (old, new, viewer) = (system.client(), system.client(), system.client());
    warm(&old, &echo);
    let trace = look(&viewer, TraceFilter::default()).unwrap();
    for _ in 0..50 {
        new.trans(request(echo.port, vec![]), &TransOptions::default()).unwrap();
        assert_eq!(new.passage(echo.port), None);
    }
    old.trans(request(echo.port, vec![]), &TransOptions::default()).unwrap();
    assert_eq!(old.passage(echo.port), Some("channel"), "what was there goes on");
    drop(trace);
    warm(&new, &echo);

    let mut trace = look(&viewer, TraceFilter { all: true, ..TraceFilter::default() }).unwrap();
    // The channel is found to be over, and nobody is lost: the request goes through the kernel, where it is seen.
    old.trans(request(echo.port, vec![]), &TransOptions::default()).unwrap();
    until(&mut trace, is_end);
    assert_eq!(old.passage(echo.port), None);
}

#[test]
fn without_the_systems_secret_nobody_sees_anything() {
    let system = System::start("trace-denied");
    let guess = SystemSecret::from_bytes([41; 32]);
    let refused = system.client().trace(&guess, TraceFilter::default()).err();
    assert_eq!(refused, Some(Error::Refused(Status::STD_DENIED)));
}

#[test]
fn only_so_many_may_look_on_and_the_others_are_told() {
    let system = System::start("trace-many");
    let viewer = system.client();
    let mut traces: Vec<Trace> = (0..8).map(|_| look(&viewer, TraceFilter::default()).unwrap()).collect();
    let refused = look(&viewer, TraceFilter::default()).err();
    assert_eq!(refused, Some(Error::NotSent(Status::RPC_TRYAGAIN)));
    traces.pop();
    let started = Instant::now();
    while look(&viewer, TraceFilter::default()).is_err() {
        assert!(started.elapsed() < PATIENCE, "no place becomes free");
    }
}

#[test]
fn the_way_to_a_port_is_told() {
    let system = System::start("trace-way");
    let client = system.client();
    let nobody = client.way(client.put_port(&port(9)).unwrap()).unwrap();
    assert_eq!((nobody.reach, nobody.processes), (UNKNOWN, 0));
    let echo = Echo::start(&system, 1, 1000);
    let here = client.way(echo.port).unwrap();
    assert_eq!((here.reach, here.processes, here.link.len()), (HERE, 1, 0));
    let network = client.network().unwrap();
    assert!(network.links.is_empty() && network.peers.is_empty());
}
