//! Datagrams of processes of one host, through a daemon.

mod common;

use std::sync::Arc;
use std::time::Duration;

use amoeba_wire::Status;
use amoeba_world::{DATAGRAM_SIZE_MAX, Destination, Error, ListenError, Transactions};
use common::{System, port};

const LONG: Option<Duration> = Some(Duration::from_secs(60));
const SHORT: Option<Duration> = Some(Duration::from_millis(1));

#[test]
fn processes_send_each_other_datagrams() {
    let system = System::start("datagrams");
    let (client, server) = (system.client(), system.client());
    let there = server.datagrams(Some(&port(9))).unwrap();
    let here = client.datagrams(None).unwrap();
    assert_eq!(there.put_port(), Some(client.put_port(&port(9)).unwrap()));
    assert_eq!(there.receive(SHORT), Ok(None));
    let data: Vec<u8> = (0..DATAGRAM_SIZE_MAX).map(|byte| byte as u8).collect();
    here.send(Destination::Port(there.put_port().unwrap()), data.clone()).unwrap();
    let got = there.receive(LONG).unwrap().unwrap();
    assert_eq!((got.from, got.data), (here.address(), data.clone()));
    there.send(Destination::Address(got.from), b"thanks".to_vec()).unwrap();
    assert_eq!(here.receive(None).unwrap().unwrap().data, b"thanks");
    client.send(Destination::Address(there.address()), Vec::new()).unwrap();
    let got = there.receive(LONG).unwrap().unwrap();
    assert!(got.data.is_empty() && got.from != here.address());

    let mut large = data;
    large.push(0);
    let to = Destination::Address(there.address());
    assert_eq!(here.send(to, large), Err(Error::NotSent(Status::RPC_BADADDRESS)));
    let nowhere = Destination::Port(amoeba_cap::PutPort::NULL);
    assert_eq!(client.send(nowhere, Vec::new()), Err(Error::NotSent(Status::RPC_BADPORT)));
    assert_eq!(here.receive(SHORT), Ok(None));
}

#[test]
fn a_closed_endpoint_ends_whoever_waits_and_one_of_a_dead_kernel_too() {
    let mut system = System::start("datagrams-end");
    let client = system.client();
    for restart in [false, true] {
        let endpoint = client.datagrams(Some(&port(1))).unwrap();
        let waiting = std::thread::spawn({
            let endpoint = Arc::clone(&endpoint);
            move || endpoint.receive(None)
        });
        client.send(Destination::Address(endpoint.address()), b"one".to_vec()).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().unwrap().data, b"one");
        let waiting = std::thread::spawn({
            let endpoint = Arc::clone(&endpoint);
            move || endpoint.receive(None)
        });
        if restart {
            system.restart()
        } else {
            endpoint.close()
        }
        assert_eq!(waiting.join().unwrap(), Err(ListenError));
        assert_eq!(endpoint.receive(LONG), Err(ListenError));
        // Nobody is there any more: lost without a word.
        client.send(Destination::Address(endpoint.address()), b"two".to_vec()).unwrap();
    }
    let again = client.datagrams(Some(&port(1))).unwrap();
    client.send(Destination::Port(again.put_port().unwrap()), b"three".to_vec()).unwrap();
    assert_eq!(again.receive(LONG).unwrap().unwrap().data, b"three");
}
