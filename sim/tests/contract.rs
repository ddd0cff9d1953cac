//! World two keeps the promises that world one keeps.

use amoeba_sim::{Config, Faults, Sim, for_each_seed};
use amoeba_tests_contract as contract;

#[test]
fn threads() {
    for_each_seed(0..20, |seed| {
        let sim = Sim::new(seed, Config { panics_allowed: true, ..Config::default() });
        sim.run(|sim| contract::threads_keep_their_promises(&sim.threads()));
    });
}

#[test]
fn disks() {
    for_each_seed(0..4, |seed| {
        let sim = Sim::new(seed, Config::default());
        let host = sim.add_host();
        sim.run(move |sim| {
            let done = sim.spawn(host, "owner", |place| {
                contract::a_disk_keeps_its_bytes(&*place.disk("one", 1 << 16));
                contract::a_disk_keeps_its_bytes(&*place.slow_disk("three", 1 << 16));
                contract::a_disk_refuses_what_lies_beyond_its_end(&*place.disk("two", 1 << 20));
            });
            assert_eq!(done.join(), Some(()));
        });
    });
}

/// Server and client: on one host, on two, and on two in bad weather.
#[test]
fn transactions() {
    for_each_seed(0..12, |seed| {
        // In bad weather packets are large: of a hundred small ones one is always lost.
        let storm = Config {
            faults: Faults { loss: 20, ..Faults::STORM },
            packet_size_max: 65_000,
            ..Config::default()
        };
        let sim = Sim::new(seed, if seed % 3 == 2 { storm } else { Config::default() });
        let hosts = [sim.add_host(), sim.add_host()];
        let client_host = if seed % 3 == 0 { hosts[0] } else { hosts[1] };
        sim.run(move |sim| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let server = sim.spawn(hosts[0], "server", move |place| {
                let threads = place.world.threads.clone();
                sender.send(place.world).expect("the root waits");
                threads.park(None);
                loop {
                    threads.sleep(std::time::Duration::from_secs(3600));
                }
            });
            sim.sleep(std::time::Duration::from_secs(3));
            let server_world = receiver.recv().expect("it has run");
            let client = sim.spawn(client_host, "client", move |place| {
                contract::transactions_keep_their_promises(&server_world, &place.world);
                if client_host == hosts[0] {
                    contract::memory_files_keep_their_promises(&server_world, &place.world);
                }
            });
            assert_eq!(client.join(), Some(()));
            assert!(!server.has_ended());
        });
    });
}
