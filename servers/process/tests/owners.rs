//! A process whose owner's host is gone, in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, GetPort, ServerSecret};
use amoeba_process::{
    Events, Exit, Guest, GuestError, Guests, HostLoad, ProcessDescriptor, ProcessServer, Program, Spec,
    WindowSize,
};
use amoeba_sim::{Config, HostId, Place, Sim, for_each_seed};
use amoeba_stream::StreamServer;
use amoeba_stubs::process;

/// A host whose guests end by signal 9 alone, and keep every signal.
#[derive(Clone, Default)]
struct FakeHost(Arc<Mutex<Vec<u8>>>);

struct FakeGuest(Arc<Mutex<Vec<u8>>>, Arc<dyn Events>);

impl Guest for FakeGuest {
    fn pid(&self) -> u32 {
        1
    }

    fn times(&self) -> (Duration, Duration) {
        Default::default()
    }

    fn signal(&self, number: u8) -> Result<(), GuestError> {
        self.0.lock().unwrap().push(number);
        if number == 9 {
            self.1.exited(Exit { code: 137, signal: 9, ..Exit::default() });
        }
        Ok(())
    }

    fn freeze(&self) -> Result<(), GuestError> {
        Ok(())
    }

    fn thaw(&self) -> Result<(), GuestError> {
        Ok(())
    }

    fn resize(&self, _window: WindowSize) -> Result<(), GuestError> {
        Ok(())
    }
}

impl Guests for FakeHost {
    fn architecture(&self) -> &str {
        "sim"
    }

    fn has_option(&self, _option: &[u8]) -> bool {
        false
    }

    fn load(&self) -> HostLoad {
        HostLoad::default()
    }

    fn start(&self, _spec: Spec, events: Arc<dyn Events>) -> Result<Arc<dyn Guest>, GuestError> {
        events.started();
        Ok(Arc::new(FakeGuest(self.0.clone(), events)))
    }

    fn read_log(&self, _index: u16, _offset: u64, _size: u32) -> (Vec<u8>, bool) {
        (Vec::new(), true)
    }

    fn forget(&self, _index: u16) {}
}

fn serve(place: &Place, host: FakeHost) -> Capability {
    let world = place.world.clone();
    let listener =
        world.transactions.listen(&GetPort::from_bytes(*b"procsv"), process::REQUEST_SIZE_MAX).unwrap();
    let (secret, random) = (ServerSecret::from_bytes([1; 32]), CheckField::from_bytes([2; 6]));
    let server = ProcessServer::new(world.clone(), listener.put_port(), secret, random, Arc::new(host));
    drop(process::start(&world, listener, server.clone(), 2).unwrap());
    server.super_capability()
}

/// Starts a process that the caller owns, which goes on serving streams. Any object will do as owner here: what
/// counts is that somebody answers.
fn call(place: &Place, server: &Capability) -> Capability {
    let world = place.world.clone();
    let port = GetPort::from_bytes(*b"stream");
    let listener = world.transactions.listen(&port, amoeba_stream::REQUEST_SIZE_MAX).unwrap();
    let streams = StreamServer::new(&world, listener.put_port());
    drop(amoeba_stream::start(&world, listener, streams.clone(), 1).unwrap());
    let program = Program::HostPath(b"x".to_vec());
    let mut descriptor = ProcessDescriptor::new("sim", program, vec![b"x".to_vec()]);
    descriptor.owner = streams.source().unwrap().0;
    process::exec(&world, server, descriptor.encode().unwrap()).unwrap()
}

/// Runs `body` as a program of `host` that goes on after it, and gives what it gave.
fn launch(sim: &Sim, host: HostId, body: impl FnOnce(&Place) -> Capability + Send + 'static) -> Capability {
    let slot = Arc::new(Mutex::new(None));
    let filled = slot.clone();
    drop(sim.spawn(host, "program", move |place| {
        *filled.lock().unwrap() = Some(body(&place));
        loop {
            place.world.threads.sleep(Duration::from_secs(1000));
        }
    }));
    loop {
        if let Some(capability) = *slot.lock().unwrap() {
            return capability;
        }
        sim.sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_process_whose_owner_is_gone_is_hung_up_and_ended() {
    for_each_seed(0..10, |seed| {
        Sim::new(seed, Config::default()).run(|sim| {
            let (here, there) = (sim.add_host(), sim.add_host());
            let host = FakeHost::default();
            let seen = host.0.clone();
            let server = launch(sim, here, move |place| serve(place, host));
            let process = launch(sim, there, move |place| call(place, &server));
            sim.sleep(Duration::from_secs(300));
            assert_eq!(*seen.lock().unwrap(), [], "an owner that answers keeps its process");
            sim.crash_host(there);
            let waiter =
                sim.spawn(here, "waiter", move |place| process::wait(&place.world, &process).unwrap().signal);
            assert_eq!(waiter.join(), Some(9));
            assert_eq!(*seen.lock().unwrap(), [1, 9]);
        });
    });
}

/// Starts a process whose owner takes every question and answers none.
fn call_silently(place: &Place, server: &Capability) -> Capability {
    let world = place.world.clone();
    let listener = world.transactions.listen(&GetPort::from_bytes(*b"silent"), 4096).unwrap();
    let port = listener.put_port();
    let keep = move || {
        let mut kept = Vec::new();
        while let Ok(incoming) = listener.getreq() {
            kept.push(incoming);
        }
    };
    drop(world.threads.spawn("silent", keep).unwrap());
    let program = Program::HostPath(b"x".to_vec());
    let mut descriptor = ProcessDescriptor::new("sim", program, vec![b"x".to_vec()]);
    descriptor.owner = Capability { port, ..Capability::from_bytes([1; 16]) };
    process::exec(&world, server, descriptor.encode().unwrap()).unwrap()
}

#[test]
fn an_owner_that_takes_a_stun_and_never_answers_is_given_up() {
    for_each_seed(0..10, |seed| {
        Sim::new(seed, Config::default()).run(|sim| {
            let (here, there) = (sim.add_host(), sim.add_host());
            let host = FakeHost::default();
            let seen = host.0.clone();
            let server = launch(sim, here, move |place| serve(place, host));
            let process = launch(sim, there, move |place| call_silently(place, &server));
            let waiter = sim.spawn(here, "waiter", move |place| {
                process::stun(&place.world, &process, 0).unwrap();
                process::wait(&place.world, &process).unwrap().signal
            });
            assert_eq!(waiter.join(), Some(9));
            assert_eq!(*seen.lock().unwrap(), [9]);
        });
    });
}
