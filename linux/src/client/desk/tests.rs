use std::sync::Weak;

use amoeba_cap::PutPort;
use amoeba_channel::{ClientEnd, ServerEnd, Service, Step};
use amoeba_wire::Header;
use amoeba_wire::packet::Address;
use amoeba_world::{Caller, ReplyTo};

use super::*;
use crate::channel::bell::{Bell, Ear, Keeper, Rope};
use crate::channel::region::{OwnRegion, PeerRegion};
use crate::fork::Origin;

/// A client of a desk, with what keeps its bells.
struct Asker {
    end: ClientEnd<OwnRegion, PeerRegion>,
    /// Rings the desk.
    rope: Rope,
    _bells: (OwnedFd, Keeper, Keeper),
    /// Requests that were served since its own was made.
    waited: u32,
    /// Requests of others that are served before it asks again.
    rest: u32,
    served: u32,
}

impl Asker {
    fn join(desk: &Arc<Desk>, id: u64) -> Asker {
        let (client_own, client_file) = OwnRegion::create(4096).unwrap();
        let (server_own, server_file) = OwnRegion::create(4096).unwrap();
        let (client_bell, server_bell) = (Bell::new().unwrap(), Bell::new().unwrap());
        let service =
            Service { port: PutPort::from_bytes([1; 6]), signature: PutPort::NULL, request_size_max: 100 };
        let served = Served {
            id,
            session: 1,
            end: ServerEnd::new(server_own, PeerRegion::map(&client_file).unwrap(), service),
            line: Arc::new(Line::new(Ear::new(server_bell.ear))),
            rope: Rope::new(client_bell.rope),
            caller: Caller { process: Address::NULL, signature: None },
            desk: Arc::downgrade(desk),
            client: Weak::new(),
            origin: Origin::here(),
            used: 0,
            round: 0,
            since: None,
        };
        desk.add(Box::new(served)).unwrap();
        let bells = (client_bell.ear, client_bell.keeper, server_bell.keeper);
        let end = ClientEnd::new(client_own, PeerRegion::map(&server_file).unwrap());
        Asker { end, rope: Rope::new(server_bell.rope), _bells: bells, waited: 0, rest: 0, served: 0 }
    }

    fn ask(&mut self) {
        let request = Message { header: Header::NULL, data: Vec::new() };
        self.end.begin(request, 0).expect("the last transaction has ended");
        self.waited = 0;
    }
}

#[test]
fn whoever_is_woken_for_the_kernel_wakes_nobody_and_closing_wakes_everybody() {
    let desk = Arc::new(Desk::new().unwrap());
    let (connection, kernel) = rustix::pipe::pipe().unwrap();
    desk.watch(&connection).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let desk = desk.clone();
            std::thread::spawn(move || desk.wait())
        })
        .collect();
    let until = |wanted: (usize, usize)| {
        loop {
            let roles = lock(&desk.roles);
            if (roles.sleepers, roles.waiting) == wanted {
                return;
            }
            drop(roles);
            std::thread::yield_now();
        }
    };
    until((SLEEPERS_MAX, 2));
    rustix::io::write(&kernel, b"a request").unwrap();
    until((SLEEPERS_MAX - 1, 2));
    desk.close();
    let waits: Vec<Wait> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let told = waits.iter().filter(|wait| matches!(wait, Wait::Connection)).count();
    let closed = waits.iter().filter(|wait| matches!(wait, Wait::Closed)).count();
    assert_eq!((told, closed), (1, 3));
}

#[test]
fn closing_wakes_everybody_also_when_the_kernel_has_something_at_the_same_time() {
    for _ in 0..300 {
        let desk = Arc::new(Desk::new().unwrap());
        let (connection, kernel) = rustix::pipe::pipe().unwrap();
        desk.watch(&connection).unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let desk = desk.clone();
                std::thread::spawn(move || {
                    while !desk.is_closed() {
                        desk.wait();
                    }
                })
            })
            .collect();
        while lock(&desk.roles).sleepers < SLEEPERS_MAX {
            std::thread::yield_now();
        }
        rustix::io::write(&kernel, b"a request").unwrap();
        desk.close();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn threads_that_fell_asleep_before_the_first_channel_wake_to_tidy_it_up() {
    let desk = Arc::new(Desk::new().unwrap());
    let wait = || {
        let desk = desk.clone();
        std::thread::spawn(move || desk.wait())
    };
    let until = |is_so: &dyn Fn(&Roles) -> bool| {
        while !is_so(&lock(&desk.roles)) {
            std::thread::yield_now();
        }
    };
    let sleepers = [wait(), wait()];
    until(&|roles| roles.unbounded == SLEEPERS_MAX);
    let _asker = Asker::join(&desk, 1);
    let third = wait();
    until(&|roles| roles.sleepers == 1 && roles.unbounded == 0 && roles.waiting == 2);
    desk.close();
    for thread in sleepers.into_iter().chain([third]) {
        assert!(matches!(thread.join().unwrap(), Wait::Closed));
    }
}

/// Half of the clients ask again as soon as they have their replies, as one does that runs beside the server; the
/// others must be woken first, which takes as long as some requests. All get the same turns.
#[test]
fn nobody_is_served_twice_while_somebody_waits() {
    let desk = Arc::new(Desk::new().unwrap());
    let mut askers: Vec<Asker> = (0..6).map(|id| Asker::join(&desk, id)).collect();
    let count = askers.len() as u32;
    askers.iter_mut().for_each(Asker::ask);
    for _ in 0..6000 {
        let Wait::Request(served, request) = desk.wait() else { panic!("every client asks") };
        ReplyTo::new(served).send(request);
        let answered = askers.iter().position(|asker| asker.end.is_ready() && !asker.end.is_idle());
        for (index, asker) in askers.iter_mut().enumerate() {
            if Some(index) == answered {
                assert!(matches!(asker.end.step(), Step::Reply(_)));
                asker.served += 1;
                asker.rest = if index % 2 == 0 { 0 } else { 2 };
            } else if asker.end.is_idle() {
                asker.rest -= 1;
            } else {
                asker.waited += 1;
                assert!(asker.waited < count, "client {index} waits for more than one turn of each other");
            }
            if asker.end.is_idle() && asker.rest == 0 {
                asker.ask();
            }
        }
    }
    let counts: Vec<u32> = askers.iter().map(|asker| asker.served).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= most / 2, "{counts:?}");
    desk.close();
}

/// Requests that take no time make a habit: whoever leaves with one tells nobody to ring. When one of them takes long after
/// all, somebody else serves the others although no bell rings; and where nothing is asked nobody watches.
#[test]
fn whoever_does_not_come_back_from_what_used_to_be_brief_is_replaced() {
    const HOLD: i32 = 1;
    let desk = Arc::new(Desk::new().unwrap());
    let (held, is_held) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let may_go_on = Arc::new(Mutex::new(may_go_on));
    let serve = |desk: Arc<Desk>| {
        let (held, may_go_on) = (held.clone(), may_go_on.clone());
        move || {
            while !desk.is_closed() {
                let Wait::Request(served, request) = desk.wait() else { continue };
                if request.header.offset == HOLD {
                    held.send(()).unwrap();
                    lock(&may_go_on).recv().unwrap();
                }
                ReplyTo::new(served).send(request);
            }
        }
    };
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(serve(desk.clone()))).collect();
    let mut askers = [Asker::join(&desk, 1), Asker::join(&desk, 2)];
    // Whether the desk's bells had to be rung.
    let ask = |asker: &mut Asker, offset: i32| {
        let request = Message { header: Header { offset, ..Header::NULL }, data: Vec::new() };
        asker.end.begin(request, 0).expect("the last transaction has ended");
        let rung = asker.end.bell();
        if rung {
            asker.rope.ring();
        }
        rung
    };
    let finish = |asker: &mut Asker| {
        while !matches!(asker.end.step(), Step::Reply(_)) {
            give_way();
        }
    };
    let mut replaced_without_a_bell = 0;
    while replaced_without_a_bell < 3 {
        while !lock(&desk.roles).habit.is_trusted() {
            ask(&mut askers[0], 0);
            finish(&mut askers[0]);
        }
        ask(&mut askers[0], HOLD);
        is_held.recv().unwrap();
        let rung = ask(&mut askers[1], 0);
        finish(&mut askers[1]);
        replaced_without_a_bell += u32::from(!rung);
        go_on.send(()).unwrap();
        finish(&mut askers[0]);
    }
    while lock(&desk.roles).habit.watchers > 0 {
        std::thread::yield_now();
    }
    desk.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
