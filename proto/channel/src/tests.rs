//! Both ends over plain memory.

mod hostile;
mod weak;

use amoeba_cap::PutPort;
use amoeba_wire::{Header, Status};
use amoeba_world::{Message, Shared};
use proptest::prelude::*;

use crate::memory::Plain;
use crate::{Broken, ClientEnd, End, Fate, Receiving, Sending, ServerEnd, Service, Step};

type Client = ClientEnd<std::sync::Arc<Plain>, std::sync::Arc<Plain>>;
type Server = ServerEnd<std::sync::Arc<Plain>, std::sync::Arc<Plain>>;

fn pair(client_ring: usize, server_ring: usize, request_size_max: usize) -> (Client, Server) {
    let (requests, replies) = (Plain::new(client_ring), Plain::new(server_ring));
    let client = ClientEnd::new(requests.clone(), replies.clone());
    let service = Service { port: PutPort::from_bytes([7; 6]), signature: PutPort::NULL, request_size_max };
    (client, ServerEnd::new(replies, requests, service))
}

fn message(command: u16, size: usize) -> Message {
    let header = Header { port: PutPort::from_bytes([7; 6]), command, ..Header::NULL };
    let data = (0..size).map(|index| (index * 31 + usize::from(command)) as u8).collect();
    Message { header, data }
}

/// Steps both ends in turn until the client hears how it ended; the server answers with `reply`.
fn finish(client: &mut Client, server: &mut Server, reply: &Message) -> (Option<Message>, Step) {
    let mut request = None;
    for _ in 0..1_000_000 {
        match server.receive() {
            Receiving::Request(message) => {
                request = Some(message);
                server.reply(reply.clone());
            }
            Receiving::Busy => {
                server.step();
            }
            _ => {}
        }
        match client.step() {
            Step::Waiting | Step::Progress => {}
            end => return (request, end),
        }
    }
    panic!("no end");
}

#[test]
fn messages_of_every_size_come_through_rings_of_every_size() {
    for (ring_there, ring_back) in [(64, 64), (64, 4096), (1 << 16, 64), (1 << 18, 1 << 18)] {
        let (mut client, mut server) = pair(ring_there, ring_back, 1 << 20);
        for size in [0, 1, 63, 64, 65, 127, 128, 4095, 4096, 70_000, 1 << 18, (1 << 18) + 1] {
            let (request, reply) = (message(1, size), message(2, size / 2));
            client.begin(request.clone(), 1 << 20).expect("idle");
            let (received, end) = finish(&mut client, &mut server, &reply);
            assert_eq!(received, Some(request.clone()));
            assert_eq!(end, Step::Reply(reply));
            assert_eq!(client.take_request(), Some(request));
        }
    }
}

#[test]
fn what_is_too_large_is_answered_in_its_stead() {
    let (mut client, mut server) = pair(64, 64, 100);
    client.begin(message(1, 1000), 1 << 20).expect("idle");
    let (request, end) = finish(&mut client, &mut server, &message(2, 0));
    assert_eq!((request, end), (None, Step::Reply(Message::status(Status::STD_OVERFLOW))));
    client.begin(message(3, 100), 10).expect("a refused request leaves the channel as it was");
    let (request, end) = finish(&mut client, &mut server, &message(4, 11));
    assert_eq!(request, Some(message(3, 100)));
    assert_eq!(end, Step::Reply(Message::status(Status::STD_OVERFLOW)));
    client.begin(message(5, 100), 10).expect("so does a reply that is too large");
    let (_, end) = finish(&mut client, &mut server, &message(6, 10));
    assert_eq!(end, Step::Reply(message(6, 10)));
}

#[test]
fn a_reply_that_others_hold_too_comes_through_as_its_own_would() {
    let (mut client, mut server) = pair(64, 4096, 100);
    let whole = message(2, 100_000).data;
    for (range, bound) in [(0..0, 0), (7..100, 93), (3..100_000, 1 << 20), (0..11, 10)] {
        client.begin(message(1, 5), bound).expect("idle");
        assert!(matches!(server.receive(), Receiving::Request(_)));
        let held = std::sync::Arc::new(whole.clone());
        let shared = Shared::new(held.clone(), range.clone());
        server.reply_shared(Header::reply(Status::STD_OK), shared);
        let (_, end) = finish(&mut client, &mut server, &message(9, 0));
        let expected = match range.len() <= bound {
            true => Message { data: whole[range].to_vec(), ..Message::status(Status::STD_OK) },
            false => Message::status(Status::STD_OVERFLOW),
        };
        assert_eq!(end, Step::Reply(expected));
        server.receive();
        assert_eq!(std::sync::Arc::strong_count(&held), 1, "what was sent is not kept");
    }
}

#[test]
fn a_request_says_nothing_of_port_and_signature() {
    let (mut client, mut server) = pair(64, 64, 100);
    let mut request = message(1, 3);
    request.header.port = PutPort::from_bytes([9; 6]);
    request.header.signature = PutPort::from_bytes([8; 6]);
    client.begin(request, 0).expect("idle");
    assert_eq!(server.receive(), Receiving::Request(message(1, 3)));
}

#[test]
fn only_kernels_speak_with_the_statuses_of_kernels() {
    let (mut client, mut server) = pair(64, 64, 100);
    client.begin(message(1, 0), 0).expect("idle");
    let (_, end) = finish(&mut client, &mut server, &Message::status(Status::RPC_NOTFOUND));
    assert_eq!(end, Step::Reply(Message::status(Status::RPC_REMOTERPC)));
    client.begin(message(0x8000, 0), 0).expect("idle");
    assert_eq!(server.receive(), Receiving::Over(Broken::Command));
}

#[test]
fn a_server_that_gives_up_is_heard() {
    let (mut client, mut server) = pair(64, 64, 100);
    client.begin(message(1, 0), 0).expect("idle");
    assert!(matches!(server.receive(), Receiving::Request(_)));
    assert_eq!(server.fail(), Sending::Done);
    assert_eq!(client.step(), Step::Failed);
    client.begin(message(1, 0), 0).expect("the channel is as good as before");
}

#[test]
fn a_request_is_withdrawn_or_taken_never_both() {
    let (mut client, mut server) = pair(64, 64, 1000);
    client.begin(message(1, 200), 0).expect("idle");
    assert_eq!(server.receive(), Receiving::Progress);
    assert_eq!(client.withdraw(), Fate::NotTaken);
    assert_eq!(client.take_request(), Some(message(1, 200)));
    client.begin(message(3, 300), 0).expect("the channel is as good as before");
    assert_eq!(client.withdraw(), Fate::NotTaken, "and as often as you like");
    client.begin(message(4, 20), 0).expect("idle");
    let (request, end) = finish(&mut client, &mut server, &message(5, 0));
    assert_eq!((request, end), (Some(message(4, 20)), Step::Reply(message(5, 0))));

    let (mut client, mut server) = pair(64, 64, 1000);
    client.begin(message(1, 10), 0).expect("idle");
    assert!(matches!(server.receive(), Receiving::Request(_)));
    assert_eq!(client.withdraw(), Fate::MaybeTaken);
    server.reply(message(2, 0));
    assert_eq!(client.step(), Step::Reply(message(2, 0)), "who waits after all hears the reply");
}

#[test]
fn what_a_dead_server_left_complete_is_delivered() {
    let (mut client, mut server) = pair(64, 4096, 1000);
    client.begin(message(1, 10), 4096).expect("idle");
    assert!(matches!(server.receive(), Receiving::Request(_)));
    server.reply(message(2, 3000));
    drop(server);
    assert_eq!(client.peer_gone(), End::Reply(message(2, 3000)));

    let (mut client, mut server) = pair(64, 64, 1000);
    client.begin(message(1, 10), 4096).expect("idle");
    assert!(matches!(server.receive(), Receiving::Request(_)));
    server.reply(message(2, 3000));
    drop(server);
    assert_eq!(client.peer_gone(), End::MaybeTaken);

    let (mut client, server) = pair(64, 64, 1000);
    client.begin(message(1, 10), 4096).expect("idle");
    drop(server);
    assert_eq!(client.peer_gone(), End::NotTaken);
    assert_eq!(client.take_request(), Some(message(1, 10)));
}

/// Of two ends that sleep when they have nothing to do, drawn from `lots`, one is always awake while a transaction is
/// under way.
struct Sleepy {
    client: Client,
    server: Server,
    client_asleep: bool,
    server_asleep: bool,
    lots: Vec<u8>,
    drawn: usize,
    executed: Vec<Message>,
}

impl Sleepy {
    fn lot(&mut self) -> u8 {
        self.drawn += 1;
        self.lots[self.drawn % self.lots.len()].rotate_left((self.drawn / self.lots.len()) as u32)
    }

    /// Does one transaction; `withdraw_at` steps the client takes its request back.
    fn transact(&mut self, request: Message, bound: usize, reply: &Message, withdraw_at: usize) -> End {
        self.client.begin(request, bound).expect("idle");
        self.ring();
        for step in 0..10_000_000 {
            if step == withdraw_at && self.client.withdraw() == Fate::NotTaken {
                return End::NotTaken;
            }
            let turn = self.lot();
            assert!(!(self.client_asleep && self.server_asleep), "both sleep");
            if turn & 1 == 0 && !self.client_asleep {
                match self.client.step() {
                    Step::Reply(reply) => return End::Reply(reply),
                    Step::Idle => return End::NotTaken,
                    Step::Waiting if turn & 2 == 0 => self.client_asleep = self.client.before_sleep(),
                    Step::Waiting | Step::Progress => {}
                    other => panic!("{other:?}"),
                }
                if !self.client_asleep {
                    self.client.after_sleep();
                }
            } else if turn & 1 == 1 && !self.server_asleep {
                self.serve(reply, turn);
            }
            self.ring();
        }
        panic!("no end");
    }

    fn serve(&mut self, reply: &Message, turn: u8) {
        let idle = match self.server.receive() {
            Receiving::Request(request) => {
                self.executed.push(request);
                self.server.reply(reply.clone()) == Sending::Waiting
            }
            Receiving::Busy => self.server.step() == Sending::Waiting,
            Receiving::Waiting => true,
            Receiving::Progress => false,
            Receiving::Over(why) => panic!("{why:?}"),
        };
        self.server_asleep = idle && turn & 2 == 0 && self.server.before_sleep();
        if !self.server_asleep {
            self.server.after_sleep();
        }
    }

    fn ring(&mut self) {
        if self.client.bell() && std::mem::take(&mut self.server_asleep) {
            self.server.after_sleep();
        }
        if self.server.bell() && std::mem::take(&mut self.client_asleep) {
            self.client.after_sleep();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_channel_is_a_queue_of_messages(
        rings in (6..13_u32, 6..13_u32),
        sizes in prop::collection::vec((0..20_000_usize, 0..20_000_usize, 0..25_000_usize), 1..8),
        request_size_max in 0..25_000_usize,
        lots in prop::collection::vec(any::<u8>(), 1..200),
        withdrawals in prop::collection::vec(prop::option::of(0..300_usize), 8),
    ) {
        let (client, server) = pair(1 << rings.0, 1 << rings.1, request_size_max);
        let mut ends = Sleepy {
            client, server, client_asleep: false, server_asleep: false, lots, drawn: 0, executed: Vec::new(),
        };
        let mut executed = Vec::new();
        for (turn, &(there, back, bound)) in sizes.iter().enumerate() {
            let (request, reply) = (message(turn as u16, there), message(turn as u16, back));
            let withdraw_at = withdrawals[turn].unwrap_or(usize::MAX);
            let end = ends.transact(request.clone(), bound, &reply, withdraw_at);
            if end == End::NotTaken {
                prop_assert_eq!(ends.client.take_request(), Some(request));
                continue;
            }
            let refused = there > request_size_max;
            let overflow = Message::status(Status::STD_OVERFLOW);
            prop_assert_eq!(end, End::Reply(if refused || back > bound { overflow } else { reply }));
            if !refused {
                executed.push(request);
            }
        }
        prop_assert_eq!(ends.executed, executed);
    }
}
