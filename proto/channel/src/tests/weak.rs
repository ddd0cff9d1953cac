//! The handshakes of sleeping and of taking, in every interleaving and with every value that a processor may let each
//! side see, as far as loom explores them.

use std::sync::{Arc, Mutex};

use amoeba_cap::PutPort;
use amoeba_world::Message;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicU64, Ordering, fence};

use super::message;
use crate::memory::{Own, Peer, RING_OFFSET, Word, region_size};
use crate::{ClientEnd, End, Fate, Receiving, ServerEnd, Service, Step};

/// A region whose words loom watches. Of the head, and of the ring, the last image is an index that loom watches too: who
/// reads without having synchronised may be given an old one.
struct Watched {
    words: [AtomicU64; Word::COUNT],
    latest: [AtomicU64; 2],
    images: Mutex<Vec<Vec<u8>>>,
    fences: bool,
}

const RING_SIZE: usize = 64;

fn region(fences: bool) -> Arc<Watched> {
    Arc::new(Watched {
        words: Default::default(),
        latest: Default::default(),
        images: Mutex::new(vec![vec![0; region_size(RING_SIZE)]]),
        fences,
    })
}

/// Which image an offset is in.
fn part(offset: usize) -> usize {
    usize::from(offset >= RING_OFFSET)
}

impl Own for Arc<Watched> {
    fn ring_size(&self) -> usize {
        RING_SIZE
    }

    fn load(&self, word: Word) -> u64 {
        self.words[word as usize].load(Ordering::Relaxed)
    }

    fn store(&self, word: Word, value: u64) {
        self.words[word as usize].store(value, Ordering::Release);
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let index = {
            let mut images = self.images.lock().expect("no test panics with it");
            let mut image = images.last().expect("the first is there from the start").clone();
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
            images.push(image);
            images.len() as u64 - 1
        };
        self.latest[part(offset)].store(index, Ordering::Relaxed);
    }

    fn fence(&self) {
        if self.fences {
            fence(Ordering::SeqCst);
        }
    }
}

impl Peer for Arc<Watched> {
    fn ring_size(&self) -> usize {
        RING_SIZE
    }

    fn load(&self, word: Word) -> u64 {
        self.words[word as usize].load(Ordering::Acquire)
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let index = self.latest[part(offset)].load(Ordering::Relaxed) as usize;
        let images = self.images.lock().expect("no test panics with it");
        into.copy_from_slice(&images[index][offset..offset + into.len()]);
    }

    fn append(&self, offset: usize, size: usize, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + size, 0);
        Peer::read(self, offset, &mut into[start..]);
    }
}

type Client = ClientEnd<Arc<Watched>, Arc<Watched>>;
type Server = ServerEnd<Arc<Watched>, Arc<Watched>>;

fn pair(fences: bool) -> (Client, Server) {
    let (requests, replies) = (region(fences), region(fences));
    let service =
        Service { port: PutPort::from_bytes([7; 6]), signature: PutPort::NULL, request_size_max: 1000 };
    (ClientEnd::new(requests.clone(), replies.clone()), ServerEnd::new(replies, requests, service))
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A client and a server that sleep whenever they may.
fn transact_asleep(fences: bool, request: Message, reply: Message) {
    let (mut client, mut server) = pair(fences);
    let bells = Arc::new((Notify::new(), Notify::new()));
    let (theirs, wanted, answer) = (bells.clone(), request.clone(), reply.clone());
    let thread = loom::thread::spawn(move || {
        loop {
            let waiting = match server.receive() {
                Receiving::Request(request) => {
                    assert_eq!(request, wanted);
                    server.reply(answer.clone());
                    false
                }
                Receiving::Busy => server.step() == crate::Sending::Waiting,
                received => received == Receiving::Waiting,
            };
            if server.bell() {
                theirs.0.notify();
            }
            if waiting && server.is_answered(1) {
                return;
            }
            if waiting {
                if server.before_sleep() {
                    theirs.1.wait();
                }
                server.after_sleep();
            }
        }
    });
    client.begin(request, 1000).expect("idle");
    loop {
        if client.bell() {
            bells.1.notify();
        }
        match client.step() {
            Step::Reply(received) => {
                assert_eq!(received, reply);
                break;
            }
            Step::Waiting => {
                if client.before_sleep() {
                    bells.0.wait();
                }
                client.after_sleep();
            }
            Step::Progress => {}
            other => panic!("{other:?}"),
        }
    }
    thread.join().expect("the server does not panic");
}

#[test]
fn nobody_sleeps_through_a_null_transaction() {
    explore(4, || transact_asleep(true, message(1, 0), message(2, 5)));
}

#[test]
fn nobody_sleeps_through_a_stream() {
    explore(3, || transact_asleep(true, message(1, 2 * RING_SIZE), message(2, 0)));
    explore(3, || transact_asleep(true, message(1, 0), message(2, 2 * RING_SIZE)));
}

/// That the models can fail.
#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_somebody_does() {
    explore(3, || transact_asleep(false, message(1, 0), message(2, 0)));
}

fn withdraw_while_taking(fences: bool) {
    let (mut client, mut server) = pair(fences);
    client.begin(message(1, 3), 1000).expect("idle");
    let thread = loom::thread::spawn(move || matches!(server.receive(), Receiving::Request(_)));
    let fate = client.withdraw();
    let executed = thread.join().expect("the server does not panic");
    assert!(!(executed && fate == Fate::NotTaken), "withdrawn, and executed");
}

#[test]
fn what_is_withdrawn_is_not_executed() {
    explore(4, || withdraw_while_taking(true));
}

#[test]
#[should_panic(expected = "withdrawn, and executed")]
fn without_fences_it_might_be() {
    explore(4, || withdraw_while_taking(false));
}

/// A client that takes a request back and sends another, or waits for what became of it.
#[test]
fn what_replaces_what_was_withdrawn_is_not_mixed_with_it() {
    explore(3, || {
        let (mut client, mut server) = pair(true);
        client.begin(message(1, RING_SIZE + 1), 1000).expect("idle");
        let thread = loom::thread::spawn(move || {
            let mut executed = Vec::new();
            for _ in 0..4 {
                match server.receive() {
                    Receiving::Request(request) => {
                        executed.push(request);
                        server.reply(message(9, 0));
                    }
                    Receiving::Over(why) => panic!("{why}"),
                    _ => {}
                }
            }
            executed
        });
        client.step();
        let fate = client.withdraw();
        if fate == Fate::NotTaken {
            client.begin(message(2, 3), 1000).expect("idle");
        }
        let early = client.step();
        let executed = thread.join().expect("the server does not panic");
        let end = if matches!(early, Step::Waiting | Step::Progress) { client.step() } else { early };
        match (fate, end) {
            (Fate::NotTaken, _) => assert!(executed.iter().all(|request| *request == message(2, 3))),
            (Fate::MaybeTaken, Step::Idle) => assert_eq!(executed, []),
            (Fate::MaybeTaken, end) => {
                assert_eq!(executed, [message(1, RING_SIZE + 1)]);
                assert_eq!(end, Step::Reply(message(9, 0)));
            }
        }
    });
}

#[test]
fn a_server_that_dies_has_taken_it_or_not() {
    explore(3, || {
        let (mut client, mut server) = pair(true);
        client.begin(message(1, 3), 1000).expect("idle");
        let thread = loom::thread::spawn(move || match server.receive() {
            Receiving::Request(_) => {
                server.reply(message(2, 4));
                true
            }
            _ => false,
        });
        let end = client.peer_gone();
        let executed = thread.join().expect("the server does not panic");
        match end {
            End::Reply(reply) => assert_eq!(reply, message(2, 4)),
            End::NotTaken => assert!(!executed),
            End::MaybeTaken => {}
        }
    });
}
