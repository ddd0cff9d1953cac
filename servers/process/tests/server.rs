//! The process server over a host that only pretends: life cycle, owners, bounds, bad input.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, Rights, ServerSecret};
use amoeba_process::{
    ClassicHead, Events, Exit, Guest, GuestError, Guests, HostLoad, Mine, PROCESSES_MAX, ProcessDescriptor,
    ProcessServer, Program, REMEMBERED_MAX, Spec, Tree, View, WAITERS_MAX, WindowSize, status,
};
use amoeba_server::{Call, Object, Objects, Pending};
use amoeba_stubs::{owner, process, standard};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

/// A host whose guests do what the test says.
#[derive(Default)]
struct FakeHost {
    guests: Mutex<BTreeMap<u16, Arc<FakeGuest>>>,
    forgotten: Mutex<Vec<u16>>,
}

struct FakeGuest {
    events: Arc<dyn Events>,
    seen: Mutex<Vec<String>>,
    freezes: bool,
}

impl FakeGuest {
    fn note(&self, what: String) -> Result<(), GuestError> {
        self.seen.lock().unwrap().push(what);
        Ok(())
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Guest for FakeGuest {
    fn pid(&self) -> u32 {
        4711
    }

    fn times(&self) -> (Duration, Duration) {
        (Duration::from_millis(5), Duration::from_millis(7))
    }

    fn signal(&self, number: u8) -> Result<(), GuestError> {
        if number == 9 {
            self.events.exited(Exit { code: 137, signal: 9, ..Exit::default() });
        }
        self.note(format!("signal {number}"))
    }

    fn freeze(&self) -> Result<(), GuestError> {
        if self.freezes { self.note("freeze".into()) } else { Err(GuestError::NotStopped) }
    }

    fn thaw(&self) -> Result<(), GuestError> {
        self.note("thaw".into())
    }

    fn resize(&self, window: WindowSize) -> Result<(), GuestError> {
        self.note(format!("resize {}x{}", window.rows, window.columns))
    }
}

impl Guests for FakeHost {
    fn architecture(&self) -> &str {
        "pdp11-linux"
    }

    fn has_option(&self, option: &[u8]) -> bool {
        option == b"fpu"
    }

    fn load(&self) -> HostLoad {
        HostLoad { cpus: 4, load: 1.5, memory_free: 5 << 30, memory_total: 8 << 30, kips: 4_096_000 }
    }

    fn start(&self, spec: Spec, events: Arc<dyn Events>) -> Result<Arc<dyn Guest>, GuestError> {
        let name = spec.descriptor.arguments[0].clone();
        match &name[..] {
            b"no-room" => return Err(GuestError::NoRoom("full".into())),
            b"missing" => events.exited(Exit::not_started(status::NOPROG, 127, "no such file".into())),
            b"at-once" => {
                events.started();
                events.exited(Exit::default());
            }
            _ => events.started(),
        }
        let freezes = name != b"restless";
        let guest = Arc::new(FakeGuest { events, seen: Mutex::default(), freezes });
        self.guests.lock().unwrap().insert(spec.index, guest.clone());
        Ok(guest)
    }

    fn read_log(&self, index: u16, offset: u64, size: u32) -> (Vec<u8>, bool) {
        (format!("{index} {offset} {size}").into_bytes(), true)
    }

    fn forget(&self, index: u16) {
        self.forgotten.lock().unwrap().push(index);
    }
}

/// A process server over a host of its own.
fn serve(world: &World, port: &[u8; 6]) -> (Capability, Arc<FakeHost>) {
    let host = Arc::new(FakeHost::default());
    let listener = world.transactions.listen(&GetPort::from_bytes(*port), process::REQUEST_SIZE_MAX).unwrap();
    let (secret, random) = (ServerSecret::from_bytes([3; 32]), CheckField::from_bytes([4; 6]));
    let server = ProcessServer::new(world.clone(), listener.put_port(), secret, random, host.clone());
    drop(process::start(world, listener, server.clone(), 3).unwrap());
    (server.super_capability(), host)
}

struct Fixture {
    world: World,
    host: Arc<FakeHost>,
    server: Capability,
}

impl Fixture {
    fn start() -> Fixture {
        let world = amoeba_loopback::world();
        let (server, host) = serve(&world, b"procsv");
        Fixture { world, host, server }
    }

    fn exec(&self, descriptor: &ProcessDescriptor) -> Result<Capability, Error> {
        process::exec(&self.world, &self.server, descriptor.encode().unwrap())
    }

    fn run(&self, name: &str) -> Result<Capability, Error> {
        self.exec(&command(name))
    }

    fn guest(&self, process: &Capability) -> Arc<FakeGuest> {
        self.host.guests.lock().unwrap()[&index_of(process)].clone()
    }

    fn state(&self, process: &Capability) -> u8 {
        let records = process::processes(&self.world, &self.server).unwrap();
        let index = process.object().get() & 0xFFFF;
        records.iter().find(|record| u32::from(record.index) == index).unwrap().state
    }

    /// Waits for what another thread does soon.
    fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..1000 {
            if is_so() {
                return;
            }
            self.world.threads.sleep(Duration::from_millis(10));
        }
        panic!("never happened: {what}");
    }
}

fn index_of(process: &Capability) -> u16 {
    (process.object().get() & 0xFFFF) as u16
}

fn command(name: &str) -> ProcessDescriptor {
    let program = Program::HostPath(name.as_bytes().to_vec());
    ProcessDescriptor::new("pdp11-linux", program, vec![name.as_bytes().to_vec(), b"-v".to_vec()])
}

fn refused(status: Status) -> Error {
    Error::Refused(status)
}

/// An owner that answers every checkpoint with the same status and keeps what it heard.
struct Owner {
    secret: ServerSecret,
    answer: Status,
    heard: Mutex<Vec<(u16, i32, Capability)>>,
}

const OWNER_RANDOM: CheckField = CheckField::from_bytes([8; 6]);

impl Owner {
    fn start(world: &World, answer: Status) -> (Capability, Arc<Owner>) {
        let get_port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
        let listener = world.transactions.listen(&get_port, owner::REQUEST_SIZE_MAX).unwrap();
        let secret = ServerSecret::from_bytes([5; 32]);
        let capability =
            secret.capability(listener.put_port(), ObjectNumber::SUPER, Rights::ALL, OWNER_RANDOM);
        let server = Arc::new(Owner { secret, answer, heard: Mutex::default() });
        drop(owner::start(world, listener, server.clone(), 1).unwrap());
        (capability, server)
    }

    fn heard(&self) -> Vec<(u16, i32, Capability)> {
        self.heard.lock().unwrap().clone()
    }
}

impl Objects for Owner {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == ObjectNumber::SUPER).then_some(OWNER_RANDOM)
    }
}

impl owner::Serve for Owner {
    fn checkpoint(
        &self,
        _call: &Call,
        _object: Object<0>,
        cause: u16,
        detail: i32,
        descriptor: Vec<u8>,
        pending: Pending<Vec<u8>>,
    ) {
        let head = ClassicHead::parse(&descriptor).unwrap();
        self.heard.lock().unwrap().push((cause, detail, head.process));
        let answer = if self.answer == Status::STD_OK { Ok(descriptor) } else { Err(self.answer) };
        pending.send(answer);
    }
}

#[test]
fn a_process_starts_is_waited_for_and_is_remembered() {
    let fixture = Fixture::start();
    let process = fixture.run("cc").unwrap();
    assert_eq!(process.object().get() >> 16, u32::from(b'P'));
    assert_eq!(standard::info_text(&fixture.world, &process).unwrap(), "! cc -v");
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let world = fixture.world.clone();
            let threads = world.threads.clone();
            threads.spawn("waiter", move || process::wait(&world, &process).unwrap()).unwrap()
        })
        .collect();
    fixture.world.threads.sleep(Duration::from_millis(50));
    fixture.guest(&process).events.exited(Exit { code: 3, ..Exit::default() });
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap().code, 3);
    }
    assert_eq!(process::wait(&fixture.world, &process).unwrap().code, 3);
    assert_eq!(fixture.state(&process), process::STATE_EXITED);
    assert_eq!(process::stun(&fixture.world, &process, 0), Err(refused(Status::STD_NOTNOW)));
    standard::destroy(&fixture.world, &process).unwrap();
    assert_eq!(process::wait(&fixture.world, &process), Err(refused(Status::STD_CAPBAD)));
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing() {
    let fixture = Fixture::start();
    let exec_bytes = |bytes: Vec<u8>| process::exec(&fixture.world, &fixture.server, bytes).unwrap_err();
    assert_eq!(exec_bytes(b"#!/bin/sh".to_vec()), refused(Status::STD_ARGBAD));
    assert_eq!(exec_bytes(vec![]), refused(Status::STD_ARGBAD));
    let mut nothing = command("cc");
    nothing.program = Program::None;
    assert_eq!(fixture.exec(&nothing), Err(refused(Status::STD_ARGBAD)));
    nothing.program = Program::File(Capability::NULL);
    assert_eq!(fixture.exec(&nothing), Err(refused(Status::STD_ARGBAD)));
    let mut other = command("cc");
    other.architecture = b"vax-linux".to_vec();
    assert_eq!(fixture.exec(&other), Err(refused(status::BADARCH)));
    other.architecture = Vec::new();
    other.options = vec![b"fpu".to_vec()];
    assert!(fixture.exec(&other).is_ok());
    other.options.push(b"vector".to_vec());
    assert_eq!(fixture.exec(&other), Err(refused(status::BADARCH)));
    assert_eq!(fixture.run("missing"), Err(refused(status::NOPROG)));
    assert_eq!(fixture.run("no-room"), Err(refused(Status::STD_NOMEM)));
    let oversized = vec![0; process::DESCRIPTOR_SIZE_MAX + 1];
    assert!(matches!(exec_bytes(oversized), Error::NotSent(_)));
    assert_eq!(process::processes(&fixture.world, &fixture.server).unwrap().len(), 1);
}

#[test]
fn a_process_that_ends_before_anybody_looks_is_answered_for() {
    let fixture = Fixture::start();
    let process = fixture.run("at-once").unwrap();
    assert_eq!(process::wait(&fixture.world, &process).unwrap().code, 0);
}

#[test]
fn exec_and_wait_in_one_tell_how_it_ended() {
    let fixture = Fixture::start();
    let run = |name: &str| process::run(&fixture.world, &fixture.server, command(name).encode().unwrap());
    let at_once = run("at-once").unwrap();
    assert_eq!(at_once.result.code, 0);
    assert_eq!(process::wait(&fixture.world, &at_once.process).unwrap(), at_once.result);
    assert_eq!(run("missing"), Err(refused(status::NOPROG)));
    assert_eq!(run("no-room"), Err(refused(Status::STD_NOMEM)));
    let (world, server) = (fixture.world.clone(), fixture.server);
    let running = move || process::run(&world, &server, command("cc").encode().unwrap());
    let running = fixture.world.threads.spawn("run", running).unwrap();
    let live = || {
        let records = process::processes(&fixture.world, &fixture.server).unwrap();
        records.into_iter().find(|record| record.state == process::STATE_RUNNING)
    };
    fixture.eventually("it runs", || live().is_some());
    let index = live().unwrap().index;
    let found = process::lookup_process(&fixture.world, &fixture.server, index).unwrap();
    fixture.guest(&found).events.exited(Exit { code: 3, ..Exit::default() });
    let ended = running.join().unwrap().unwrap();
    assert_eq!((ended.process, ended.result.code), (found, 3));
    let looker =
        standard::restrict(&fixture.world, &fixture.server, u32::from(process::READ.bits())).unwrap();
    let denied = process::run(&fixture.world, &looker, command("cc").encode().unwrap());
    assert_eq!(denied, Err(refused(Status::STD_DENIED)));
}

#[test]
fn numbers_begin_elsewhere_in_every_life_of_the_server() {
    let world = amoeba_loopback::world();
    let first = |port: &[u8; 6]| {
        let (server, _) = serve(&world, port);
        index_of(&process::exec(&world, &server, command("cc").encode().unwrap()).unwrap())
    };
    assert_ne!(first(b"life-1"), first(b"life-2"));
}

#[test]
fn one_client_too_many_displaces_the_one_that_has_waited_longest() {
    let fixture = Fixture::start();
    let process = fixture.run("cc").unwrap();
    let wait = || {
        let world = fixture.world.clone();
        let threads = world.threads.clone();
        threads.spawn("waiter", move || process::wait(&world, &process)).unwrap()
    };
    let waiting = |count: usize| {
        let line = format!("waiting clients {count},");
        fixture.eventually("they wait", || {
            standard::status_text(&fixture.world, &process).unwrap().contains(&line)
        });
    };
    let oldest = wait();
    waiting(1);
    // A few at a time: as many at once as may wait for a server's threads would be refused by the kernel.
    let mut others: Vec<_> = Vec::new();
    while others.len() + 1 < WAITERS_MAX {
        let more = (WAITERS_MAX - 1 - others.len()).min(100);
        others.extend((0..more).map(|_| wait()));
        waiting(others.len() + 1);
    }
    let last = wait();
    assert_eq!(oldest.join().unwrap(), Err(refused(Status::STD_NOSPACE)));
    fixture.guest(&process).events.exited(Exit { code: 3, ..Exit::default() });
    for waiter in others.into_iter().chain([last]) {
        assert_eq!(waiter.join().unwrap().unwrap().code, 3);
    }
}

/// A process with this file tree.
fn seeing(view: View) -> ProcessDescriptor {
    let mut descriptor = command("cc");
    descriptor.view = view;
    descriptor
}

#[test]
fn without_its_right_nobody_starts_or_reaches_a_process_that_sees_the_hosts_files() {
    let fixture = Fixture::start();
    let world = &fixture.world;
    let confined =
        standard::restrict(world, &fixture.server, u32::from(amoeba_process::CONFINED.bits())).unwrap();
    let exec = |view: View| process::exec(world, &confined, seeing(view).encode().unwrap());
    assert_eq!(exec(View::Host), Err(refused(status::NOHOST)));
    let run = process::run(world, &confined, seeing(View::Host).encode().unwrap());
    assert_eq!(run, Err(refused(status::NOHOST)));
    assert!(process::processes(world, &confined).unwrap().is_empty());
    let mine = exec(View::Mine(Mine {
        files: Capability::from_bytes([5; 16]),
        identity: [6; 32],
        trees: vec![Tree { path: b"/usr".to_vec(), writable: false }],
    }));
    let own = [mine.unwrap(), exec(View::Graph(Capability::NULL)).unwrap()];
    let theirs = fixture.exec(&seeing(View::Host)).unwrap();
    // It is listed, with no capability: its output and the files it leaves may be the host's.
    assert_eq!(process::processes(world, &confined).unwrap().len(), 3);
    let lookup = |server: &Capability, process| process::lookup_process(world, server, index_of(process));
    assert_eq!(lookup(&confined, &theirs), Err(refused(Status::STD_DENIED)));
    assert_eq!(lookup(&fixture.server, &theirs), Ok(theirs));
    for process in &own {
        let found = lookup(&confined, process).unwrap();
        assert_eq!(found.rights(), amoeba_process::CONFINED);
        assert_eq!(process::signal(world, &found, 15), Ok(()));
    }
}

#[test]
fn rights_are_needed_for_what_they_name() {
    let fixture = Fixture::start();
    let process = fixture.run("cc").unwrap();
    let weak = |capability: &Capability, rights: Rights| {
        standard::restrict(&fixture.world, capability, u32::from(rights.bits())).unwrap()
    };
    let reader = weak(&process, process::READ);
    assert_eq!(process::signal(&fixture.world, &reader, 15), Err(refused(Status::STD_DENIED)));
    assert_eq!(process::stun(&fixture.world, &reader, 0), Err(refused(Status::STD_DENIED)));
    assert_eq!(standard::destroy(&fixture.world, &reader), Err(refused(Status::STD_DENIED)));
    assert_eq!(process::setcomment(&fixture.world, &reader, b"x"), Err(refused(Status::STD_DENIED)));
    let looker = weak(&fixture.server, process::READ);
    let exec = process::exec(&fixture.world, &looker, command("cc").encode().unwrap());
    assert_eq!(exec, Err(refused(Status::STD_DENIED)));
    // Who may only look at the server may only look at its processes.
    let process = fixture.exec(&seeing(View::Graph(Capability::NULL))).unwrap();
    let found = process::lookup_process(&fixture.world, &looker, index_of(&process)).unwrap();
    assert_eq!(found.rights(), process::READ);
    assert_eq!(found, weak(&process, process::READ));
    let mut forged = process;
    forged.private.check = CheckField::from_bytes([1; 6]);
    assert_eq!(process::signal(&fixture.world, &forged, 15), Err(refused(Status::STD_CAPBAD)));
    assert_eq!(process::signal(&fixture.world, &fixture.server, 15), Err(refused(Status::STD_COMBAD)));
}

#[test]
fn a_process_without_an_owner_is_stunned_until_it_is_resumed() {
    let fixture = Fixture::start();
    let process = fixture.run("cc").unwrap();
    assert_eq!(process::resume(&fixture.world, &process), Err(refused(Status::STD_NOTNOW)));
    process::stun(&fixture.world, &process, 3).unwrap();
    assert_eq!(fixture.state(&process), process::STATE_STUNNED);
    assert_eq!(process::stun(&fixture.world, &process, 3), Err(refused(Status::STD_NOTNOW)));
    process::stun(&fixture.world, &process, -3).unwrap();
    assert_eq!(process::signal(&fixture.world, &process, 18), Err(refused(Status::STD_NOTNOW)));
    process::signal(&fixture.world, &process, 15).unwrap();
    process::resume(&fixture.world, &process).unwrap();
    assert_eq!(fixture.state(&process), process::STATE_RUNNING);
    assert_eq!(fixture.guest(&process).seen(), ["freeze", "signal 15", "thaw"]);
    let restless = fixture.run("restless").unwrap();
    assert_eq!(process::stun(&fixture.world, &restless, 0), Err(refused(Status::STD_NOTNOW)));
    assert_eq!(fixture.state(&restless), process::STATE_RUNNING);
}

#[test]
fn an_owner_decides_what_becomes_of_a_stunned_process() {
    for (answer, after) in [
        (Status::STD_OK, process::STATE_RUNNING),
        (Status::STD_NOTNOW, process::STATE_STUNNED),
        (Status::STD_DENIED, process::STATE_EXITED),
    ] {
        let fixture = Fixture::start();
        let (capability, owner) = Owner::start(&fixture.world, answer);
        let mut descriptor = command("cc");
        descriptor.owner = capability;
        let process = fixture.exec(&descriptor).unwrap();
        assert_eq!(process::getowner(&fixture.world, &process).unwrap(), capability);
        process::stun(&fixture.world, &process, 99).unwrap();
        fixture.eventually("the owner hears", || !owner.heard().is_empty());
        assert_eq!(owner.heard()[0], (owner::TERM_STUNNED, 99, process));
        fixture.eventually("the owner's answer counts", || fixture.state(&process) == after);
    }
}

#[test]
fn a_stunned_process_whose_owner_is_gone_ends() {
    let fixture = Fixture::start();
    let mut descriptor = command("cc");
    descriptor.owner = Capability::from_bytes([0xEE; 16]);
    let process = fixture.exec(&descriptor).unwrap();
    process::stun(&fixture.world, &process, 1).unwrap();
    assert_eq!(process::wait(&fixture.world, &process).unwrap().signal, 9);
}

#[test]
fn an_owner_hears_of_the_end_once() {
    let fixture = Fixture::start();
    let (capability, owner) = Owner::start(&fixture.world, Status::STD_OK);
    let process = fixture.run("cc").unwrap();
    process::setowner(&fixture.world, &process, &capability).unwrap();
    fixture.guest(&process).events.exited(Exit { code: 7, ..Exit::default() });
    fixture.guest(&process).events.exited(Exit { code: 8, ..Exit::default() });
    fixture.eventually("the owner hears", || !owner.heard().is_empty());
    let killed = {
        let mut descriptor = command("cc");
        descriptor.owner = capability;
        fixture.exec(&descriptor).unwrap()
    };
    standard::destroy(&fixture.world, &killed).unwrap();
    fixture.eventually("the owner hears again", || owner.heard().len() == 2);
    assert_eq!(owner.heard(), [(owner::TERM_NORMAL, 7, process), (owner::TERM_EXCEPTION, 9, killed)]);
    assert_eq!(process::wait(&fixture.world, &process).unwrap().code, 7);
}

#[test]
fn an_owner_that_waits_is_not_told_and_another_is() {
    let fixture = Fixture::start();
    let (first, heard_first) = Owner::start(&fixture.world, Status::STD_OK);
    let mut descriptor = command("cc");
    (descriptor.owner, descriptor.awaited) = (first, true);
    let awaited = fixture.exec(&descriptor).unwrap();
    let given_away = fixture.exec(&descriptor).unwrap();
    process::stun(&fixture.world, &awaited, 5).unwrap();
    fixture.eventually("its owner hears of a stun", || heard_first.heard().len() == 1);
    let (second, heard_second) = Owner::start(&fixture.world, Status::STD_OK);
    process::setowner(&fixture.world, &given_away, &second).unwrap();
    for process in [&awaited, &given_away] {
        fixture.guest(process).events.exited(Exit { code: 7, ..Exit::default() });
        assert_eq!(process::wait(&fixture.world, process).unwrap().code, 7);
    }
    fixture.eventually("the new owner hears", || !heard_second.heard().is_empty());
    assert_eq!(heard_second.heard(), [(owner::TERM_NORMAL, 7, given_away)]);
    assert_eq!(heard_first.heard().len(), 1, "the one that waits hears of the end by that alone");
}

#[test]
fn the_host_is_described_in_both_forms() {
    let fixture = Fixture::start();
    let load = process::load(&fixture.world, &fixture.server).unwrap();
    assert_eq!((load.cpus, load.load_thousandths, load.kips), (4, 1500, 4_096_000));
    assert_eq!((load.memory_free, &load.architecture[..]), (5 << 30, &b"pdp11-linux"[..]));
    let classic = process::getload_classic(&fixture.world, &fixture.server).unwrap();
    assert_eq!((classic.speed, classic.load, classic.memory_free), (4000, 1536, i32::MAX));
    let def = process::getdef(&fixture.world, &fixture.server).unwrap();
    assert_eq!((def.log2_page, def.first_page, def.last_page), (12, 1, 1 << 19));
    assert!(standard::status_text(&fixture.world, &fixture.server).unwrap().contains("processes 0"));
}

#[test]
fn comments_logs_and_sizes_reach_their_process() {
    let fixture = Fixture::start();
    let process = fixture.run("cc").unwrap();
    process::setcomment(&fixture.world, &process, b"a comment that is longer than the original's bound")
        .unwrap();
    let classic = process::getcomment_classic(&fixture.world, &process).unwrap();
    assert_eq!(classic, b"a comment that is longer than t");
    process::resize(&fixture.world, &process, 24, 80).unwrap();
    assert_eq!(fixture.guest(&process).seen(), ["resize 24x80"]);
    let log = process::read_log(&fixture.world, &process, 5, u32::MAX).unwrap();
    assert_eq!(log.data, format!("{} 5 {}", index_of(&process), process::LOG_READ_MAX).into_bytes());
    assert_eq!(process::signal(&fixture.world, &process, 0), Err(refused(Status::STD_ARGBAD)));
    assert_eq!(process::signal(&fixture.world, &process, 65), Err(refused(Status::STD_ARGBAD)));
}

#[test]
fn lost_output_is_told_in_the_list() {
    let fixture = Fixture::start();
    let process = fixture.run("cc").unwrap();
    let comment = || process::processes(&fixture.world, &fixture.server).unwrap().remove(0).comment;
    fixture.guest(&process).events.output_lost("no space");
    assert_eq!(comment(), b"cc -v [output lost: no space]");
    assert!(standard::status_text(&fixture.world, &process).unwrap().contains("output lost: no space"));
    process::setcomment(&fixture.world, &process, &[b'x'; process::COMMENT_SIZE_MAX]).unwrap();
    fixture.guest(&process).events.output_lost(&"y".repeat(1000));
    assert_eq!(comment().len(), process::COMMENT_SIZE_MAX);
    assert!(comment().starts_with(b"xxx") && comment().ends_with(b"yyy"));
}

#[test]
fn tables_are_bounded_and_the_oldest_end_is_forgotten() {
    let fixture = Fixture::start();
    let first = fixture.run("at-once").unwrap();
    for _ in 0..REMEMBERED_MAX {
        fixture.run("at-once").unwrap();
    }
    assert_eq!(process::wait(&fixture.world, &first), Err(refused(Status::STD_CAPBAD)));
    assert_eq!(*fixture.host.forgotten.lock().unwrap(), [index_of(&first)]);
    for _ in 0..PROCESSES_MAX {
        fixture.run("cc").unwrap();
    }
    assert_eq!(fixture.run("cc"), Err(refused(Status::STD_NOMEM)));
    let records = process::processes(&fixture.world, &fixture.server).unwrap();
    assert_eq!(records.len(), PROCESSES_MAX + REMEMBERED_MAX);
}
