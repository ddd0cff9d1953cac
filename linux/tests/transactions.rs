//! Transactions of several clients and servers over a real daemon, in one process.

mod common;

use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_linux::client::Client;
use amoeba_wire::{DATA_SIZE_MAX, Status};
use amoeba_world::{Error, ListenError, TransOptions, Transactions};
use common::{Echo, System, port, request};

#[test]
fn data_come_back_whole() {
    let system = System::start("whole");
    let echo = Echo::start(&system, 1, DATA_SIZE_MAX);
    let client = system.client();
    for size in [0, 1, 4000, 4096, 65_536, 1 << 20, (1 << 20) + 1, 64 << 20] {
        let data: Vec<u8> = (0..size).map(|index: usize| (index % 251) as u8).collect();
        let reply = client.trans(request(echo.port, data.clone()), &TransOptions::default()).unwrap();
        assert!(reply.data == data, "{size} bytes came back changed");
        assert_eq!(reply.header.extra, 1);
    }
}

#[test]
fn a_byte_over_a_bound_is_refused() {
    let system = System::start("bound");
    let echo = Echo::start(&system, 1, 1000);
    let client = system.client();
    let trans = |size: usize, options: &TransOptions| {
        let reply = client.trans(request(echo.port, vec![1; size]), options)?;
        Ok::<_, Error>((reply.header.status(), reply.data.len()))
    };
    let options = TransOptions::default();
    let too_large = Ok((Status::STD_OVERFLOW, 0));
    assert_eq!(trans(1000, &options), Ok((Status::STD_OK, 1000)));
    assert_eq!(trans(1001, &options), too_large);
    let narrow = TransOptions { reply_size_max: 999, ..options.clone() };
    assert_eq!(trans(999, &narrow), Ok((Status::STD_OK, 999)));
    assert_eq!(trans(1000, &narrow), too_large);
    assert_eq!(trans(DATA_SIZE_MAX + 1, &options), Err(Error::NotSent(Status::RPC_BADADDRESS)));
    assert_eq!(trans(7, &options), Ok((Status::STD_OK, 7)));
}

#[test]
fn what_cannot_be_sent_says_so() {
    let system = System::start("refused");
    let client = system.client();
    let quick = TransOptions { locate_timeout: Duration::from_millis(20), ..TransOptions::default() };
    let trans = |port| client.trans(request(port, vec![]), &quick).unwrap_err();
    assert_eq!(trans(PutPort::NULL), Error::NotSent(Status::RPC_BADPORT));
    assert_eq!(trans(PutPort::from_bytes([1; 6])), Error::NotSent(Status::RPC_NOTFOUND));
    assert!(client.kernel_status().unwrap().contains("connections"));

    let nowhere = Client::new(&system.path.with_file_name("nobody"));
    let error = nowhere.trans(request(PutPort::from_bytes([1; 6]), vec![]), &quick).unwrap_err();
    assert_eq!(error, Error::NotSent(Status::RPC_NOTFOUND));
    assert!(nowhere.listen(&port(3), 10).is_err());
}

#[test]
fn a_signature_is_proven_by_the_kernel() {
    let system = System::start("signature");
    let server = system.client();
    let listener = server.listen(&port(5), 100).unwrap();
    let seen = std::thread::spawn(move || {
        let first = listener.getreq().unwrap();
        let callers = [first.caller];
        first.reply.send(amoeba_world::Message::status(Status::STD_OK));
        let second = listener.getreq().unwrap();
        let forged = second.request.header.signature;
        second.reply.send(amoeba_world::Message::status(Status::STD_OK));
        (callers[0], second.caller, forged)
    });
    let client = system.client();
    let put = client.put_port(&port(5)).unwrap();
    let signed = TransOptions { signature: Some(port(6)), ..TransOptions::default() };
    client.trans(request(put, vec![]), &signed).unwrap();
    let mut lie = request(put, vec![]);
    lie.header.signature = PutPort::from_bytes([7; 6]);
    client.trans(lie, &TransOptions::default()).unwrap();
    let (honest, liar, forged) = seen.join().unwrap();
    assert_eq!(honest.signature, Some(client.put_port(&port(6)).unwrap()));
    assert_eq!((liar.signature, forged), (None, PutPort::NULL));
    assert_eq!(honest.process, liar.process);
}

#[test]
fn many_clients_are_served_at_once() {
    let system = System::start("many");
    let echo = Echo::start(&system, 8, 1 << 20);
    let clients: Vec<_> = (0..64u32)
        .map(|number| {
            let (client, port) = (system.client(), echo.port);
            std::thread::spawn(move || {
                for round in 0..20u32 {
                    let data = [number.to_le_bytes(), round.to_le_bytes()].concat();
                    let reply = client.trans(request(port, data.clone()), &TransOptions::default()).unwrap();
                    assert_eq!(reply.data, data);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(echo.served(), 64 * 20);
}

#[test]
fn threads_of_one_process_share_it() {
    let system = System::start("threads");
    let echo = Echo::start(&system, 4, 1 << 20);
    let client = system.client();
    let threads: Vec<_> = (0..64)
        .map(|_| {
            let (client, port) = (client.clone(), echo.port);
            std::thread::spawn(move || {
                for _ in 0..10 {
                    client.trans(request(port, vec![3; 100]), &TransOptions::default()).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(echo.served(), 640);
}

#[test]
fn replies_may_come_later_and_in_any_order() {
    let system = System::start("later");
    let server = system.client();
    let listener = server.listen(&port(2), 100).unwrap();
    let put = listener.put_port();
    let clients: Vec<_> = (0..40u8)
        .map(|number| {
            let client = system.client();
            std::thread::spawn(move || {
                client
                    .trans(request(put, vec![number]), &TransOptions::default())
                    .map(|reply| (number, reply.data))
            })
        })
        .collect();
    let mut waiting: Vec<_> = (0..40).map(|_| listener.getreq().unwrap()).collect();
    waiting.reverse();
    let dropped = waiting.pop().unwrap();
    let lost = dropped.request.data[0];
    drop(dropped.reply);
    for incoming in waiting {
        std::thread::spawn(move || incoming.reply.send(incoming.request)).join().unwrap();
    }
    for (number, client) in clients.into_iter().enumerate() {
        match client.join().unwrap() {
            Ok((number, data)) => assert_eq!(data, [number]),
            Err(error) => {
                assert_eq!((number, error), (lost.into(), Error::MaybeExecuted(Status::RPC_FAILURE)));
            }
        }
    }
}

#[test]
fn closing_wakes_the_threads_in_getreq() {
    let system = System::start("close");
    let server = system.client();
    let listener = server.listen(&port(4), 100).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let listener = listener.clone();
            std::thread::spawn(move || listener.getreq().map(drop))
        })
        .collect();
    listener.close();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Err(ListenError));
    }
    let quick = TransOptions { locate_timeout: Duration::from_millis(20), ..TransOptions::default() };
    let gone = system.client().trans(request(listener.put_port(), vec![]), &quick);
    assert_eq!(gone.unwrap_err(), Error::NotSent(Status::RPC_NOTFOUND));
}

#[test]
fn a_server_survives_a_restart_of_its_kernel() {
    let mut system = System::start("restart");
    let echo = Echo::start(&system, 3, 1000);
    let client = system.client();
    let trans = || client.trans(request(echo.port, vec![8; 10]), &TransOptions::default());
    for _ in 0..3 {
        assert_eq!(trans().unwrap().data, [8; 10]);
        system.restart();
    }
    assert_eq!(trans().unwrap().data, [8; 10]);
}

#[test]
fn a_transaction_under_way_ends_with_its_kernel() {
    let mut system = System::start("under-way");
    let server = system.client();
    let listener = server.listen(&port(9), 100).unwrap();
    let put = listener.put_port();
    let client = system.client();
    let waiting = std::thread::spawn(move || client.trans(request(put, vec![1]), &TransOptions::default()));
    let incoming = listener.getreq().unwrap();
    system.restart();
    assert_eq!(waiting.join().unwrap().unwrap_err(), Error::MaybeExecuted(Status::RPC_FAILURE));
    incoming.reply.send(request(put, vec![])); // the kernel that asked is gone: nothing happens
}
