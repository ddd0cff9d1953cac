//! Channels between clients and servers of one host, introduced by a real daemon.

mod common;

use std::time::{Duration, Instant};

use amoeba_cap::PutPort;
use amoeba_linux::client::Client;
use amoeba_wire::{DATA_SIZE_MAX, Status};
use amoeba_world::{Error, Message, TransOptions, Transactions};
use common::{Echo, System, port, request};

/// A number in what the kernel says of itself.
fn counter(client: &Client, name: &str) -> u64 {
    let status = client.kernel_status().unwrap();
    let line = status.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let value = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} in {status}"))
}

fn ok(client: &Client, echo: &Echo, data: Vec<u8>) {
    let reply = client.trans(request(echo.port, data.clone()), &TransOptions::default()).unwrap();
    assert!(reply.data == data && reply.header.extra == 1);
}

/// Transactions until the client has its channel: it does without where the server was busy when it asked.
fn warm(client: &Client, put: PutPort, data: &[u8], options: &TransOptions) {
    let before = counter(client, "channels accepted");
    for _ in 0..1000 {
        client.trans(request(put, data.to_vec()), options).unwrap();
        if counter(client, "channels accepted") > before {
            return;
        }
    }
    panic!("no channel has come");
}

#[test]
fn the_second_transaction_and_those_after_it_go_over_a_channel() {
    let system = System::start("second-on");
    let echo = Echo::start(&system, 2, 1 << 20);
    let client = system.client();
    warm(&client, echo.port, &[], &TransOptions::default());
    let (here, served) = (counter(&client, "transactions here"), echo.served());
    for number in 0..1000u32 {
        ok(&client, &echo, number.to_le_bytes().to_vec());
    }
    assert_eq!(echo.served(), served + 1000);
    assert_eq!(counter(&client, "channels"), 1);
    assert_eq!(counter(&client, "transactions here"), here);
    drop(client);
    let other = system.client();
    wait_until(|| counter(&other, "channels") == 0);
    assert_eq!(counter(&other, "channels revoked"), 1);
}

/// Waits for what comes soon.
fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "it has not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn large_messages_are_streamed_past_the_daemon() {
    let system = System::start_with("streamed", |config| config.buffered_max = 1 << 20);
    let echo = Echo::start(&system, 1, DATA_SIZE_MAX);
    let client = system.client();
    warm(&client, echo.port, &[], &TransOptions::default());
    let here = counter(&client, "transactions here");
    for size in [1, 4096, 32 << 10, (32 << 10) + 1, 256 << 10, (256 << 10) + 1, 1 << 20, 100_000_001] {
        let data: Vec<u8> = (0..size).map(|index: usize| (index % 251) as u8).collect();
        ok(&client, &echo, data);
    }
    // The daemon has room for a mebibyte alone.
    assert_eq!(counter(&client, "transactions here"), here);
    let fresh = system.client().trans(request(echo.port, vec![1; 2 << 20]), &TransOptions::default());
    assert_eq!(fresh.unwrap_err(), Error::NotSent(Status::RPC_TRYAGAIN));
}

#[test]
fn what_is_too_large_for_its_receiver_is_a_status_and_the_channel_goes_on() {
    let system = System::start("too-large");
    let echo = Echo::start(&system, 1, 100_000);
    let client = system.client();
    let trans = |size: usize, reply_size_max: usize| {
        let options = TransOptions { reply_size_max, ..TransOptions::default() };
        let reply = client.trans(request(echo.port, vec![7; size]), &options).unwrap();
        (reply.header.status(), reply.data.len())
    };
    warm(&client, echo.port, &[], &TransOptions::default());
    let here = counter(&client, "transactions here");
    for _ in 0..3 {
        assert_eq!(trans(100_000, 100_000), (Status::STD_OK, 100_000));
        assert_eq!(trans(100_001, 200_000), (Status::STD_OVERFLOW, 0));
        assert_eq!(trans(10 << 20, 200_000), (Status::STD_OVERFLOW, 0));
        assert_eq!(trans(1000, 999), (Status::STD_OVERFLOW, 0));
    }
    assert_eq!(counter(&client, "transactions here"), here);
}

#[test]
fn the_request_is_kept_for_who_keeps_it() {
    let system = System::start("kept");
    let echo = Echo::start(&system, 1, 1 << 20);
    let client = system.client();
    warm(&client, echo.port, &[], &TransOptions::default());
    for size in [0, 10, 1 << 20, 2 << 20] {
        let mut kept = request(echo.port, vec![3; size]);
        client.trans_keeping(&mut kept, &TransOptions::default()).unwrap();
        assert!(kept == request(echo.port, vec![3; size]));
    }
}

#[test]
fn who_the_client_is_was_bound_at_the_introduction() {
    let system = System::start("bound");
    let server = system.client();
    let listener = server.listen(&port(5), 100).unwrap();
    let put = listener.put_port();
    let seen = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while let Ok(incoming) = listener.getreq() {
            seen.push((incoming.caller, incoming.request.header.signature, incoming.request.header.port));
            let last = incoming.request.data == [9];
            incoming.reply.send(Message::status(Status::STD_OK));
            if last {
                break;
            }
        }
        seen
    });
    let client = system.client();
    let signed = TransOptions { signature: Some(port(6)), ..TransOptions::default() };
    warm(&client, put, &[], &signed);
    warm(&client, put, &[], &TransOptions::default());
    for _ in 0..5 {
        let mut lie = request(put, vec![]);
        lie.header.signature = amoeba_cap::PutPort::from_bytes([7; 6]);
        client.trans(lie.clone(), &signed).unwrap();
        client.trans(lie, &TransOptions::default()).unwrap();
    }
    client.trans(request(put, vec![9]), &signed).unwrap();
    let signature = client.put_port(&port(6)).unwrap();
    let seen = seen.join().unwrap();
    let last = seen.len() - 11;
    for (index, (caller, in_header, in_port)) in seen.into_iter().skip(last).enumerate() {
        let expected = (index % 2 == 0).then_some(signature);
        assert_eq!(caller.signature, expected);
        assert_eq!(in_header, expected.unwrap_or(amoeba_cap::PutPort::NULL));
        assert_eq!(in_port, put);
    }
    assert_eq!(counter(&client, "channels accepted"), 2);
}

#[test]
fn a_server_that_dies_fails_what_it_executes_at_once() {
    let system = System::start("dies");
    let server = system.client();
    let listener = server.listen(&port(2), 100).unwrap();
    let put = listener.put_port();
    let client = system.client();
    let clients = std::thread::spawn({
        let client = client.clone();
        move || {
            warm(&client, put, &[1], &TransOptions::default());
            client.trans(request(put, vec![2]), &TransOptions::default()).map(|reply| reply.data)
        }
    });
    let last = loop {
        let incoming = listener.getreq().unwrap();
        if incoming.request.data == [2] {
            break incoming;
        }
        incoming.reply.send(incoming.request);
    };
    let here = counter(&client, "transactions here");
    // The process forgets its reply and dies: nothing of it is left.
    std::mem::forget(last.reply);
    drop(listener);
    drop(server);
    assert_eq!(counter(&client, "transactions here"), here);
    assert_eq!(clients.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
}

#[test]
fn what_a_server_has_not_taken_is_executed_elsewhere() {
    let system = System::start("elsewhere");
    let (one, two) = (system.client(), system.client());
    let first = one.listen(&port(3), 100).unwrap();
    let put = first.put_port();
    let client = system.client();
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || {
            warm(&client, put, &[1], &TransOptions::default());
            client.trans(request(put, vec![3]), &TransOptions::default()).unwrap();
            client.trans(request(put, vec![2]), &TransOptions::default()).map(|reply| reply.data)
        }
    });
    loop {
        let incoming = first.getreq().unwrap();
        let last = incoming.request.data == [3];
        incoming.reply.send(incoming.request);
        if last {
            break;
        }
    }
    // The last request lies in the channel, and nobody takes it.
    let second = two.listen(&port(3), 100).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    first.close();
    drop(one);
    let incoming = second.getreq().unwrap();
    assert_eq!(incoming.request.data, [2]);
    incoming.reply.send(incoming.request);
    assert_eq!(waiting.join().unwrap(), Ok(vec![2]));
}

#[test]
fn a_deadline_says_whether_the_request_was_taken() {
    let system = System::start("deadline");
    let server = system.client();
    let listener = server.listen(&port(4), 100).unwrap();
    let put = listener.put_port();
    let client = system.client();
    let serving = std::thread::spawn(move || {
        loop {
            let incoming = listener.getreq().unwrap();
            if incoming.request.data == [1] {
                return (incoming, listener);
            }
            incoming.reply.send(incoming.request);
        }
    });
    let quick = TransOptions { deadline: Some(Duration::from_millis(50)), ..TransOptions::default() };
    warm(&client, put, &[], &TransOptions::default());
    let taken = client.trans(request(put, vec![1]), &quick);
    assert_eq!(taken.unwrap_err(), Error::MaybeExecuted(Status::RPC_FAILURE));
    let (incoming, listener) = serving.join().unwrap();
    incoming.reply.send(incoming.request); // to nobody
    // Nobody takes the next ones: neither the daemon's nor those over channels are executed.
    for _ in 0..3 {
        let untaken = client.trans(request(put, vec![2]), &quick);
        assert!(matches!(untaken, Err(Error::NotSent(Status::RPC_TRYAGAIN))), "{untaken:?}");
    }
    drop(listener);
}

#[test]
fn several_threads_have_several_channels_and_a_bound() {
    let system = System::start("several");
    let echo = Echo::start(&system, 8, 100);
    let client = system.client();
    let threads: Vec<_> = (0..100u8)
        .map(|number| {
            let (client, port) = (client.clone(), echo.port);
            std::thread::spawn(move || {
                for _ in 0..500 {
                    let reply = client.trans(request(port, vec![number]), &TransOptions::default());
                    assert_eq!(reply.unwrap().data, [number]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(echo.served(), 100 * 500);
    assert!(counter(&client, "channels accepted") > 0);
    assert!(counter(&client, "channels") <= amoeba_linux::client::CHANNELS_MAX as u64);
}

#[test]
fn channels_of_ports_that_are_not_used_make_room() {
    let system = System::start("room");
    let client = system.client();
    let ports = amoeba_linux::client::CHANNELS_MAX as u8 + 10;
    let serving = system.client();
    let listeners: Vec<_> = (1..=ports).map(|number| serving.listen(&port(number), 100).unwrap()).collect();
    let threads: Vec<_> = listeners
        .iter()
        .map(|listener| {
            let listener = listener.clone();
            std::thread::spawn(move || {
                while let Ok(incoming) = listener.getreq() {
                    incoming.reply.send(incoming.request);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        for listener in &listeners {
            let put = listener.put_port();
            assert_eq!(client.trans(request(put, vec![5]), &TransOptions::default()).unwrap().data, [5]);
        }
    }
    assert!(counter(&client, "channels") <= amoeba_linux::client::CHANNELS_MAX as u64);
    assert!(counter(&client, "channels accepted") > u64::from(ports));
    for listener in listeners {
        listener.close();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn replies_may_come_late_and_from_any_thread() {
    let system = System::start("late");
    let server = system.client();
    let listener = server.listen(&port(7), 1 << 20).unwrap();
    let put = listener.put_port();
    let client = system.client();
    let clients: Vec<_> = (0..8u8)
        .map(|number| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..20u8 {
                    let reply = client.trans(request(put, vec![number, round]), &TransOptions::default());
                    assert_eq!(reply.unwrap().data, [number, round]);
                }
            })
        })
        .collect();
    // One thread takes them all; others answer, in any order.
    for served in 0..8 * 20u64 {
        let incoming = listener.getreq().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(served * 37 % 500));
            incoming.reply.send(incoming.request);
        });
    }
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_dropped_reply_is_a_failure_and_the_next_request_is_served() {
    let system = System::start("dropped");
    let server = system.client();
    let listener = server.listen(&port(8), 100).unwrap();
    let put = listener.put_port();
    let serving = std::thread::spawn(move || {
        while let Ok(incoming) = listener.getreq() {
            match incoming.request.data[0] {
                0 => drop(incoming.reply),
                1 => incoming.reply.send(incoming.request),
                2 => incoming.reply.send(Message::status(Status::RPC_NOTFOUND)),
                _ => return incoming.reply.send(incoming.request),
            }
        }
    });
    let client = system.client();
    let trans = |what: u8| client.trans(request(put, vec![what]), &TransOptions::default());
    for _ in 0..5 {
        assert_eq!(trans(1).unwrap().data, [1]);
        assert_eq!(trans(1).unwrap().data, [1]);
        assert_eq!(trans(0).unwrap_err(), Error::MaybeExecuted(Status::RPC_FAILURE));
        assert_eq!(trans(2).unwrap().header.status(), Status::RPC_REMOTERPC, "only kernels say RPC_NOTFOUND");
    }
    trans(3).unwrap();
    serving.join().unwrap();
}

#[test]
fn introductions_balance_over_the_processes_that_serve_a_port() {
    let system = System::start("balance");
    let echoes = [Echo::start(&system, 1, 100), Echo::start(&system, 1, 100)];
    let clients: Vec<_> = (0..8).map(|_| system.client()).collect();
    for client in &clients {
        for _ in 0..50 {
            ok(client, &echoes[0], vec![1]);
        }
    }
    let channels = clients.iter().map(|client| counter(client, "channels")).max();
    assert_eq!(channels, Some(8));
    for echo in &echoes {
        assert!(echo.served() >= 2 * 48, "{} of {}", echo.served(), 8 * 50);
    }
}

#[test]
fn a_busy_channel_keeps_nobody_from_the_daemons_path() {
    let system = System::start("fair");
    let echo = Echo::start(&system, 1, 100);
    let client = system.client();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let (client, stop, port) = (client.clone(), stop.clone(), echo.port);
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.trans(request(port, vec![1]), &TransOptions::default()).unwrap();
                }
            })
        })
        .collect();
    for number in 0..50u8 {
        // Each is a new process: its first transaction goes through the daemon.
        ok(&system.client(), &echo, vec![number]);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
}

#[test]
fn an_idle_channel_burns_nothing() {
    let system = System::start("idle");
    let echo = Echo::start(&system, 4, 100);
    let client = system.client();
    warm(&client, echo.port, &[], &TransOptions::default());
    std::thread::sleep(Duration::from_millis(50)); // everybody has gone to sleep
    let switches = |task: &std::path::Path| {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("voluntary")).map(str::to_owned);
        (task.to_owned(), line)
    };
    let tasks = || -> Vec<_> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks.map(|task| switches(&task.unwrap().path())).collect()
    };
    // Threads of other tests run too, and the daemon's wakes for its tables now and then: what counts is that there is a
    // time in which as many threads as are ours have not run at all.
    let quiet = || {
        let before = tasks();
        std::thread::sleep(Duration::from_millis(100));
        let after = tasks();
        before.iter().filter(|task| after.contains(task)).count()
    };
    assert!((0..50).any(|_| quiet() >= 5), "four threads of the server and the daemon's sleep");
    ok(&client, &echo, vec![2]);
    assert_eq!(counter(&client, "channels"), 1);
}

#[test]
fn what_listens_goes_on_when_its_kernel_is_restarted() {
    let mut system = System::start("restarted");
    let echo = Echo::start(&system, 2, 1000);
    let client = system.client();
    for _ in 0..3 {
        for _ in 0..5 {
            ok(&client, &echo, vec![4; 10]);
        }
        system.restart();
    }
    for _ in 0..5 {
        ok(&client, &echo, vec![4; 10]);
    }
    assert_eq!(echo.served(), 20);
}
