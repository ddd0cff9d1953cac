//! Datagrams on a network that loses, duplicates and reorders.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_cap::GetPort;
use amoeba_sim::{Config, Faults, Sim};
use amoeba_world::Destination;

const COUNT: u32 = 200;

fn port() -> GetPort {
    GetPort::from_bytes(*b"golfer")
}

/// What a listener heard of [`COUNT`] numbered datagrams, and how many answers the sender heard.
fn a_run(seed: u64, faults: Faults) -> (Vec<u32>, u32) {
    let sim = Sim::new(seed, Config { faults, ..Config::default() });
    let [near, far] = [sim.add_host(), sim.add_host()];
    let heard = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(0));
    let log = heard.clone();
    sim.program(far, "listener", move |place| {
        let endpoint = place.world.transactions.datagrams(Some(&port())).expect("room");
        while let Ok(Some(datagram)) = endpoint.receive(None) {
            let number = datagram.data[..4].try_into().expect("four bytes and more");
            assert!(datagram.data[4..].iter().all(|byte| *byte == 7), "no datagram is mixed with another");
            log.lock().unwrap().push(u32::from_be_bytes(number));
            endpoint.send(Destination::Address(datagram.from), vec![1]).expect("it has an address");
        }
    });
    let count = answers.clone();
    sim.run(move |sim| {
        let sender = sim.spawn(near, "sender", move |place| {
            let transactions = &place.world.transactions;
            let endpoint = transactions.datagrams(None).expect("room");
            let to = Destination::Port(transactions.put_port(&port()).expect("a kernel"));
            for number in 0..COUNT {
                let size = if number % 10 == 0 { 30_000 } else { 3 };
                let data = [&number.to_be_bytes()[..], &vec![7; size]].concat();
                endpoint.send(to, data).expect("it is small enough");
                place.world.threads.sleep(Duration::from_millis(20));
                while let Ok(Some(_)) = endpoint.receive(Some(Duration::ZERO)) {
                    *count.lock().unwrap() += 1;
                }
            }
        });
        assert!(sender.join().is_some());
    });
    let heard = heard.lock().unwrap().clone();
    let answers = *answers.lock().unwrap();
    (heard, answers)
}

#[test]
fn a_storm_loses_some_datagrams_and_spoils_none() {
    for seed in 0..20 {
        let (heard, answers) = a_run(seed, Faults::STORM);
        let different: BTreeSet<u32> = heard.iter().copied().collect();
        assert!(different.iter().all(|number| *number < COUNT), "seed {seed}");
        assert!(answers > 0 && !different.is_empty(), "seed {seed}: {answers} answers, {}", different.len());
    }
}

#[test]
fn a_quiet_network_loses_none_once_the_port_is_found() {
    let (heard, answers) = a_run(1, Faults::NONE);
    assert_eq!(heard, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(answers, COUNT);
}
