//! Channels between clients and servers of one host, introduced by a real daemon.

mod common;

use std::time::{Duration, Instant};

use amoeba_linux::client::Client;
use amoeba_wire::{DATA_SIZE_MAX, Header, Status};
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

#[test]
fn the_second_transaction_and_those_after_it_go_over_a_channel() {
    let system = System::start("second-on");
    let echo = Echo::start(&system, 2, 1 << 20);
    let client = system.client();
    for number in 0..1000u32 {
        ok(&client, &echo, number.to_le_bytes().to_vec());
    }
    assert_eq!(echo.served(), 1000);
    assert_eq!(counter(&client, "channels"), 1);
    assert_eq!(counter(&client, "transactions here"), 1);
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
    ok(&client, &echo, vec![1]);
    for size in [1, 4096, 32 << 10, (32 << 10) + 1, 256 << 10, (256 << 10) + 1, 1 << 20, 100_000_001] {
        let data: Vec<u8> = (0..size).map(|index: usize| (index % 251) as u8).collect();
        ok(&client, &echo, data);
    }
    // The daemon has room for a mebibyte alone.
    assert_eq!(counter(&client, "transactions here"), 1);
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
    for _ in 0..3 {
        assert_eq!(trans(100_000, 100_000), (Status::STD_OK, 100_000));
        assert_eq!(trans(100_001, 200_000), (Status::STD_OVERFLOW, 0));
        assert_eq!(trans(10 << 20, 200_000), (Status::STD_OVERFLOW, 0));
        assert_eq!(trans(1000, 999), (Status::STD_OVERFLOW, 0));
    }
    assert_eq!(counter(&client, "transactions here"), 1);
}

#[test]
fn the_request_is_kept_for_who_keeps_it() {
    let system = System::start("kept");
    let echo = Echo::start(&system, 1, 1 << 20);
    let client = system.client();
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
    for _ in 0..100 {
        let mut lie = request(put, vec![]);
        lie.header.signature = amoeba_cap::PutPort::from_bytes([7; 6]);
        client.trans(lie.clone(), &signed).unwrap();
        client.trans(lie, &TransOptions::default()).unwrap();
    }
    client.trans(request(put, vec![9]), &signed).unwrap();
    let signature = client.put_port(&port(6)).unwrap();
    for (index, (caller, in_header, in_port)) in seen.join().unwrap().into_iter().enumerate() {
        let expected = (index % 2 == 0).then_some(signature);
        assert_eq!(caller.signature, expected);
        assert_eq!(in_header, expected.unwrap_or(amoeba_cap::PutPort::NULL));
        assert_eq!(in_port, put);
    }
    assert!(counter(&client, "channels accepted") >= 2);
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
            let first = client.trans(request(put, vec![1]), &TransOptions::default());
            let second = client.trans(request(put, vec![2]), &TransOptions::default());
            (first.map(|reply| reply.data), second.map(|reply| reply.data))
        }
    });
    let first = listener.getreq().unwrap();
    first.reply.send(first.request);
    let second = listener.getreq().unwrap();
    assert_eq!(second.request.data, [2]);
    assert_eq!(counter(&client, "channels"), 1);
    // The process forgets its reply and dies: nothing of it is left.
    std::mem::forget(second.reply);
    drop(listener);
    drop(server);
    let (first, second) = clients.join().unwrap();
    assert_eq!(first, Ok(vec![1]));
    assert_eq!(second, Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
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
            let trans = |number: u8| client.trans(request(put, vec![number]), &TransOptions::default());
            (0..3).map(|number| trans(number).map(|reply| reply.data)).collect::<Vec<_>>()
        }
    });
    for _ in 0..2 {
        let incoming = first.getreq().unwrap();
        incoming.reply.send(incoming.request);
    }
    // The third request lies in the channel, and nobody takes it.
    let second = two.listen(&port(3), 100).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    first.close();
    drop(one);
    let incoming = second.getreq().unwrap();
    assert_eq!(incoming.request.data, [2]);
    incoming.reply.send(incoming.request);
    assert_eq!(waiting.join().unwrap(), [Ok(vec![0]), Ok(vec![1]), Ok(vec![2])]);
}

#[test]
fn a_deadline_says_whether_the_request_was_taken() {
    let system = System::start("deadline");
    let server = system.client();
    let listener = server.listen(&port(4), 100).unwrap();
    let put = listener.put_port();
    let client = system.client();
    let serving = std::thread::spawn(move || {
        for _ in 0..2 {
            let incoming = listener.getreq().unwrap();
            incoming.reply.send(incoming.request);
        }
        let taken = listener.getreq().unwrap();
        (taken, listener)
    });
    let quick = TransOptions { deadline: Some(Duration::from_millis(50)), ..TransOptions::default() };
    for _ in 0..2 {
        client.trans(request(put, vec![]), &TransOptions::default()).unwrap();
    }
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
                for _ in 0..50 {
                    let reply = client.trans(request(port, vec![number]), &TransOptions::default());
                    assert_eq!(reply.unwrap().data, [number]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(echo.served(), 100 * 50);
    let channels = counter(&client, "channels");
    assert!((1..=amoeba_linux::client::CHANNELS_MAX as u64).contains(&channels), "{channels}");
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
    let mut held = Vec::new();
    for served in 0..8 * 20 {
        held.push(listener.getreq().unwrap());
        if held.len() == 3 || served >= 8 * 20 - 8 {
            for incoming in held.drain(..).rev() {
                std::thread::spawn(move || incoming.reply.send(incoming.request));
            }
        }
    }
    for client in clients {
        client.join().unwrap();
    }
    assert!(counter(&client, "channels accepted") > 0);
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
        assert!(echo.served() >= 4 * 48, "{} of {}", echo.served(), 8 * 50);
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
    for _ in 0..100 {
        ok(&client, &echo, vec![1]);
    }
    std::thread::sleep(Duration::from_millis(100));
    let used = || {
        let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = usage.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let _ = used();
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
    let header = Header { extra: 1, ..Header::NULL };
    assert_eq!(header.extra, 1);
}
