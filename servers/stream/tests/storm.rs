//! A stream between two simulated hosts whose link loses, doubles and reorders.

use std::time::Duration;

use amoeba_cap::{Capability, GetPort};
use amoeba_sim::{Config, Faults, Sim, for_each_seed};
use amoeba_stream::StreamServer;
use amoeba_stubs::stream;
use amoeba_world::{Error, World};

const SIZE: usize = 200_000;

/// As a guest's pump: what may or may not have arrived is said again.
fn again<T>(mut request: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match request() {
            Ok(value) => return value,
            Err(Error::NotSent(_) | Error::MaybeExecuted(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads everything and writes it back.
fn cat(world: &World, input: Capability, output: Capability) {
    let mut position = 0;
    loop {
        let reply = again(|| stream::read(world, &input, position, 7001));
        again(|| stream::write(world, &output, position, &reply.data[..]));
        position += reply.data.len() as u64;
        if reply.end {
            return again(|| stream::close(world, &output, position));
        }
    }
}

#[test]
fn no_byte_is_lost_or_doubled_in_a_storm() {
    for_each_seed(0..20, |seed| {
        let sim = Sim::new(seed, Config::default());
        sim.run(|sim| {
            let (caller, other) = (sim.add_host(), sim.add_host());
            let guest_sim = sim.clone();
            let task = sim.spawn(caller, "caller", move |place| {
                let world = place.world;
                let port = GetPort::from_bytes(*b"stream");
                let listener = world.transactions.listen(&port, amoeba_stream::REQUEST_SIZE_MAX).unwrap();
                let server = StreamServer::new(&world, listener.put_port());
                drop(amoeba_stream::start(&world, listener, server.clone(), 2).unwrap());
                let (input, source) = server.source().unwrap();
                let (output, sink) = server.sink().unwrap();
                drop(guest_sim.spawn(other, "guest", move |place| cat(&place.world, input, output)));
                let bytes: Vec<u8> = (0..SIZE).map(|n| ((n * 31) >> 3) as u8).collect();
                let brought = bytes.clone();
                let feeder = world.threads.spawn("feeder", move || {
                    for piece in brought.chunks(33_333) {
                        source.push(piece).unwrap();
                    }
                    source.end();
                });
                let taken: Vec<u8> = std::iter::from_fn(|| sink.take()).flatten().collect();
                feeder.unwrap().join().unwrap();
                assert!(taken == bytes, "{} bytes came back of {}", taken.len(), bytes.len());
            });
            sim.set_faults(Faults::STORM);
            sim.sleep(Duration::from_millis(300));
            sim.partition(|host| u32::from(host == caller));
            sim.sleep(Duration::from_secs(2));
            sim.heal();
            task.join().expect("the caller ends");
        });
    });
}
