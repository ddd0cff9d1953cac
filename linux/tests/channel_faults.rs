//! What goes wrong between processes that share memory: servers that are busy, close, or stop.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use amoeba_cap::PutPort;
use amoeba_linux::client::Client;
use amoeba_wire::Status;
use amoeba_world::{Error, Incoming, Listener, Message, TransOptions, Transactions};
use common::{Echo, System, port, request};

/// Requests that the server keeps and does not answer.
const KEEP: u8 = 255;

fn counter(client: &Client, name: &str) -> u64 {
    let status = client.kernel_status().unwrap();
    let line = status.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let value = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} in {status}"))
}

fn trans(client: &Client, put: PutPort, data: Vec<u8>) -> Result<Vec<u8>, Error> {
    client.trans(request(put, data), &TransOptions::default()).map(|reply| reply.data)
}

/// Transactions until the client has its channel.
fn warm(client: &Client, put: PutPort) {
    let before = counter(client, "channels accepted");
    for _ in 0..1000 {
        trans(client, put, vec![1]).unwrap();
        if counter(client, "channels accepted") > before {
            return;
        }
    }
    panic!("no channel has come");
}

fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "it has not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Serves until a request is to be kept.
fn serve_until_kept(listener: &Listener) -> Incoming {
    loop {
        let incoming = listener.getreq().unwrap();
        if incoming.request.data.first() == Some(&KEEP) {
            return incoming;
        }
        incoming.reply.send(incoming.request);
    }
}

/// A server whose only thread executes a request of a client that has a channel, and that client's thread.
fn busy(
    system: &System,
    name: u8,
) -> (Listener, Incoming, Client, std::thread::JoinHandle<Result<Vec<u8>, Error>>) {
    let listener = system.client().listen(&port(name), 1 << 20).unwrap();
    let (put, client) = (listener.put_port(), system.client());
    let asking = std::thread::spawn({
        let client = client.clone();
        move || {
            warm(&client, put);
            trans(&client, put, vec![KEEP])
        }
    });
    let kept = serve_until_kept(&listener);
    (listener, kept, client, asking)
}

#[test]
fn a_request_does_not_wait_for_a_busy_server_while_another_has_time() {
    let system = System::start("patience");
    let (listener, kept, client, asking) = busy(&system, 1);
    let put = listener.put_port();
    // The client's only channel is in use; another thread of it, and other processes, find the server that has time.
    let echo = Echo::start(&system, 1, 1 << 20);
    assert_eq!(echo.port, put);
    for number in 0..10u8 {
        assert_eq!(trans(&client, put, vec![number]), Ok(vec![number]));
        assert_eq!(trans(&system.client(), put, vec![number]), Ok(vec![number]));
    }
    assert_eq!(echo.served(), 20, "the busy one has taken none");
    kept.reply.send(kept.request);
    assert_eq!(asking.join().unwrap(), Ok(vec![KEEP]));
}

#[test]
fn a_request_in_the_channel_of_a_server_that_went_away_from_it_goes_elsewhere() {
    let system = System::start("left");
    let first = system.client().listen(&port(1), 100).unwrap();
    let (put, client) = (first.put_port(), system.client());
    let asking = std::thread::spawn({
        let client = client.clone();
        move || {
            warm(&client, put);
            trans(&client, put, vec![2]).unwrap();
            trans(&client, put, vec![3])
        }
    });
    loop {
        let incoming = first.getreq().unwrap();
        let last = incoming.request.data == [2];
        incoming.reply.send(incoming.request);
        if last {
            break;
        }
    }
    // Nobody is in getreq, and the listener stays open.
    let echo = Echo::start(&system, 1, 1 << 20);
    assert_eq!(asking.join().unwrap(), Ok(vec![3]));
    assert_eq!(echo.served(), 1);
    drop(first);
}

#[test]
fn a_server_that_calls_itself_is_served_by_its_other_process() {
    let system = System::start("itself");
    let (listener, kept, _client, asking) = busy(&system, 1);
    let other = system.client().listen(&port(1), 100).unwrap();
    let serving = std::thread::spawn(move || {
        let incoming = other.getreq().unwrap();
        incoming.reply.send(incoming.request);
    });
    // As the thread that executes the request does it.
    assert_eq!(trans(&system.client(), listener.put_port(), vec![7]), Ok(vec![7]));
    serving.join().unwrap();
    kept.reply.send(kept.request);
    assert_eq!(asking.join().unwrap(), Ok(vec![KEEP]));
}

#[test]
fn a_listener_that_closes_answers_what_it_executes_and_leaves_no_channel() {
    let system = System::start("closes");
    let server = system.client();
    let listener = server.listen(&port(1), 1 << 20).unwrap();
    let (put, client) = (listener.put_port(), system.client());
    let asking = std::thread::spawn({
        let client = client.clone();
        move || {
            warm(&client, put);
            trans(&client, put, vec![KEEP])
        }
    });
    let kept = serve_until_kept(&listener);
    listener.close();
    kept.reply.send(kept.request);
    assert_eq!(asking.join().unwrap(), Ok(vec![KEEP]));
    wait_until(|| counter(&client, "channels") == 0);
    let quick = TransOptions { locate_timeout: Duration::from_millis(10), ..TransOptions::default() };
    let none = client.trans(request(put, vec![4]), &quick);
    assert_eq!(none.unwrap_err(), Error::NotSent(Status::RPC_NOTFOUND));
    drop(server);
}

#[test]
fn a_reply_that_is_half_sent_when_its_listener_closes_is_finished() {
    let system = System::start("half");
    let server = system.client();
    let listener = server.listen(&port(1), 100).unwrap();
    let (put, client) = (listener.put_port(), system.client());
    let large: Vec<u8> = (0..20 << 20).map(|index: u32| (index % 251) as u8).collect();
    let asking = std::thread::spawn({
        let client = client.clone();
        move || {
            warm(&client, put);
            trans(&client, put, vec![KEEP])
        }
    });
    let kept = serve_until_kept(&listener);
    let sending = std::thread::spawn({
        let data = large.clone();
        move || kept.reply.send(Message { header: request(put, vec![]).header, data })
    });
    listener.close(); // before, while, or after it is sent
    sending.join().unwrap();
    assert!(asking.join().unwrap() == Ok(large));
    wait_until(|| counter(&client, "channels") == 0);
    drop(server);
}

#[test]
fn a_transaction_with_a_deadline_ends_in_time_whatever_the_server_does() {
    let system = System::start("in-time");
    let (listener, kept, client, asking) = busy(&system, 1);
    let quick = TransOptions { deadline: Some(Duration::from_millis(200)), ..TransOptions::default() };
    for _ in 0..3 {
        let untaken = client.trans(request(listener.put_port(), vec![2]), &quick);
        assert_eq!(untaken.unwrap_err(), Error::NotSent(Status::RPC_TRYAGAIN), "nobody was given it");
    }
    kept.reply.send(kept.request);
    assert_eq!(asking.join().unwrap(), Ok(vec![KEEP]));
}

#[test]
fn thousands_of_short_lived_clients_are_all_served_and_leave_nothing() {
    let system = System::start("short-lived");
    let echo = Echo::start(&system, 2, 1000);
    let threads: Vec<_> = (0..8u8)
        .map(|number| {
            let (path, put) = (system.path.clone(), echo.port);
            std::thread::spawn(move || {
                for round in 0..400u32 {
                    let client = Client::new(&path);
                    // Some live long enough for a channel.
                    for _ in 0..1 + round % 4 {
                        assert_eq!(trans(&client, put, vec![number]), Ok(vec![number]), "client {round}");
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let client = system.client();
    wait_until(|| counter(&client, "channels") == 0);
    wait_until(|| counter(&client, "processes") <= 2);
    assert_eq!(counter(&client, "clients remembered"), 0, "what one kernel sees is remembered for no retry");
}

#[test]
fn whoever_talks_much_to_a_server_without_rest_gets_its_channel() {
    const CLIENTS: usize = 32;
    let system = System::start("without-rest");
    let echo = Echo::start(&system, 1, 100);
    let with_channel = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let (client, put) = (system.client(), echo.port);
                let (started, mut has) = (Instant::now(), false);
                // There are always more clients that wait than threads of the server.
                while with_channel.load(Ordering::SeqCst) < CLIENTS {
                    assert!(started.elapsed() < Duration::from_secs(60), "some have none");
                    trans(&client, put, vec![1]).unwrap();
                    if !has && client.passage(put) == Some("channel") {
                        has = true;
                        with_channel.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
}
