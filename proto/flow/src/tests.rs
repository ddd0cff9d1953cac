//! Both ends over a network that loses, doubles, delays and reorders, from seeds; the checkers look from outside.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use amoeba_cap::PutPort;
use amoeba_seal::{Session, Suite, flow_keys};
use amoeba_wire::Header;
use amoeba_world::{Entropy, Error};
use proptest::prelude::*;

use super::*;
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_world::{Message, Shared};

/// A stream of numbers from a seed.
struct Dice(Cell<u64>);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03))
    }

    fn below(&self, end: u64) -> u64 {
        let state = self.0.get().wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0.set(state);
        (state >> 33) % end.max(1)
    }
}

struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

fn at(micros: u64) -> Instant {
    Instant::from_epoch(Duration::from_micros(micros))
}

fn zeros(size: usize) -> Vec<u8> {
    vec![0; size]
}

fn way() -> Way {
    Way { datagram_size: DATAGRAM_SIZE_MIN, window: 1 << 20 }
}

fn ends(request_size_max: usize) -> (FlowClient, FlowServer) {
    let (one, other) = flow_keys(&Fixed, Suite::Aes256Gcm);
    let client = FlowClient::new(at(0), Session::new(at(0), &one, 1), way(), zeros);
    (client, FlowServer::new(at(0), Session::new(at(0), &other, 1), way(), request_size_max, zeros))
}

fn request(id: u64, size: usize) -> Message {
    let header = Header { port: PutPort::from_bytes([3; 6]), offset: id as i32, ..Header::NULL };
    Message { header, data: (0..size).map(|index| (index as u64 * 31 + id) as u8).collect() }
}

fn reply(id: u64, size: usize) -> Message {
    let header = Header { offset: id as i32, ..Header::reply(Status::STD_OK) };
    Message { header, data: (0..size).map(|index| (index as u64 * 17 + id) as u8).collect() }
}

/// What a network does, in parts of a thousand.
#[derive(Clone, Copy, Debug)]
struct Weather {
    lost: u64,
    doubled: u64,
    /// µs, and how much more it may be.
    delay: u64,
    jitter: u64,
}

/// One flow in its network.
struct Net {
    now: u64,
    dice: Dice,
    weather: Weather,
    cut: bool,
    client: FlowClient,
    server: FlowServer,
    /// By time of arrival: to the server or not, and the datagram.
    flying: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    count: u64,
    /// What was sent at once arrives at once, so often of sixteen times.
    gathers: u64,
    /// Datagrams and bursts that were read.
    read: u64,
    /// Requests that the server executes, with when it ends and how.
    executing: Option<(u64, u32, u64)>,
    executed: BTreeMap<u64, u32>,
    refused: BTreeSet<u64>,
    reply_size: usize,
    serve: u64,
    /// The server refuses or fails some.
    fickle: bool,
}

impl Net {
    fn new(seed: u64, weather: Weather) -> Net {
        let (client, server) = ends(1 << 20);
        Net {
            now: 0,
            dice: Dice::new(seed),
            weather,
            cut: false,
            client,
            server,
            flying: BTreeMap::new(),
            count: 0,
            gathers: 0,
            read: 0,
            executing: None,
            executed: BTreeMap::new(),
            refused: BTreeSet::new(),
            reply_size: 0,
            serve: 0,
            fickle: false,
        }
    }

    /// What an end has sent at once, in datagrams of `size` bytes.
    fn put_all(&mut self, to_server: bool, sent: &[u8], size: usize) {
        if self.gathers > 0 && self.dice.below(16) < self.gathers {
            if self.gathers < 16 && sent.len() > 40 && self.dice.below(4) == 0 {
                // Somebody on the way lies about where it belongs, and is faster.
                let mut forged = sent.to_vec();
                forged[16 + self.dice.below(19) as usize] ^= 1 << self.dice.below(8);
                self.put(to_server, &forged);
            }
            return self.put(to_server, sent);
        }
        sent.chunks(size).for_each(|datagram| self.put(to_server, datagram));
    }

    fn put(&mut self, to_server: bool, datagram: &[u8]) {
        let copies = 1 + u64::from(self.dice.below(1000) < self.weather.doubled);
        for _ in 0..copies {
            if self.cut || self.dice.below(1000) < self.weather.lost {
                continue;
            }
            let due = self.now + self.weather.delay + self.dice.below(self.weather.jitter);
            self.count += 1;
            self.flying.insert((due, self.count), (to_server, datagram.to_vec()));
        }
    }

    fn transmit(&mut self) {
        let mut out = Vec::new();
        while let Some(size) = self.client.poll_transmit(at(self.now), 8, &mut out) {
            self.put_all(true, &out, size);
            out.clear();
        }
        while let Some(size) = self.server.poll_transmit(at(self.now), 8, &mut out) {
            self.put_all(false, &out, size);
            out.clear();
        }
    }

    /// One event, and what follows from it; false when there are no more before `until`.
    fn step(&mut self, until: u64) -> bool {
        self.transmit();
        let micros = |at: Instant| at.since_epoch().as_micros() as u64 + 1;
        let timers = [self.client.poll_timeout(), self.server.poll_timeout()];
        let next = [
            self.flying.keys().next().map(|(due, _)| *due),
            self.executing.map(|(ends, ..)| ends),
            timers.into_iter().flatten().map(micros).min(),
        ];
        let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        let now = at(self.now);
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to_server, mut read) = entry.remove();
            for datagram in cut(&mut read, DATAGRAM_SIZE_MIN) {
                self.read += 1;
                match to_server {
                    true => self.server.handle_datagram(now, datagram),
                    false => self.client.handle_datagram(now, datagram, None),
                };
            }
        }
        self.serve();
        self.client.handle_timeout(now);
        self.server.handle_timeout(now);
        true
    }

    /// A server that executes, refuses or fails.
    fn serve(&mut self) {
        if let Some((ends, tid, id)) = self.executing.filter(|(ends, ..)| *ends <= self.now) {
            let _ = ends;
            self.executing = None;
            match self.dice.below(20) {
                0 if self.fickle => self.server.fail(tid),
                _ => self.server.reply(tid, reply(id, self.reply_size)),
            }
        }
        if let Some((tid, message)) = self.server.poll_request() {
            let id = message.header.offset as u64;
            assert_eq!(message, request(id, message.data.len()), "what arrives is what was sent");
            if self.fickle && self.dice.below(20) == 0 {
                assert!(self.refused.insert(id));
                return self.server.refuse(tid);
            }
            *self.executed.entry(id).or_default() += 1;
            self.executing = Some((self.now + self.dice.below(self.serve), tid, id));
        }
    }

    fn transact(&mut self, id: u64, size: usize) -> Result<Message, Error> {
        let begun = self.now;
        self.client.begin(at(self.now), request(id, size), 1 << 20);
        let bound = begun + 120_000_000;
        loop {
            if let Some(result) = self.client.poll_result() {
                return result;
            }
            assert!(self.step(bound), "a transaction hangs: {id}");
        }
    }
}

/// Runs transactions and checks each from outside.
fn check(seed: u64, weather: Weather) {
    let mut net = Net::new(seed, weather);
    (net.fickle, net.gathers) = (true, if seed.is_multiple_of(2) { 15 } else { 0 });
    let mut not_sent = BTreeSet::new();
    let mut replies = 0;
    for id in 0..12 {
        let large = |dice: &Dice| if dice.below(3) == 0 { dice.below(60_000) } else { dice.below(200) };
        let size = large(&net.dice) as usize;
        (net.reply_size, net.serve) = (large(&net.dice) as usize, 1 + net.dice.below(2_000_000));
        net.cut = net.dice.below(12) == 0;
        let begun = net.now;
        let result = net.transact(id, size);
        match result {
            Ok(message) => {
                replies += 1;
                assert_eq!(message, reply(id, net.reply_size), "seed {seed}");
                assert_eq!(net.executed.get(&id), Some(&1), "seed {seed}");
            }
            Err(Error::NotSent(_)) => assert!(not_sent.insert(id)),
            Err(error) => assert_eq!(error, Error::MaybeExecuted(Status::RPC_FAILURE), "seed {seed}"),
        }
        if net.cut {
            assert!(net.now - begun < SILENCE_MAX.as_micros() as u64, "seed {seed}: {} µs", net.now - begun);
            net.cut = false;
            break; // as the library does: a flow over which nothing came is used no more
        }
        if net.dice.below(4) == 0 {
            net.step(net.now + 100_000);
        }
    }
    let end = net.now + 60_000_000;
    while net.step(end) {}
    assert!(net.executed.values().all(|count| *count == 1), "seed {seed}: executed twice");
    for id in not_sent {
        assert!(!net.executed.contains_key(&id), "seed {seed}: {id} was not sent, and executed");
    }
    assert!(weather.lost > 0 || replies > 0 || net.executed.len() < 3, "seed {seed}: nothing came back");
    assert!(net.executing.is_none() && net.server.is_idle());
}

#[test]
fn at_most_once_and_it_says_which_whatever_the_network_does() {
    let calm = Weather { lost: 0, doubled: 0, delay: 100, jitter: 1 };
    let rough = Weather { lost: 50, doubled: 50, delay: 100, jitter: 5000 };
    let storm = Weather { lost: 250, doubled: 200, delay: 20_000, jitter: 60_000 };
    for seed in 0..60 {
        check(seed, calm);
        check(seed, rough);
        check(seed, storm);
    }
}

#[test]
fn a_null_transaction_is_two_datagrams() {
    let mut net = Net::new(1, Weather { lost: 0, doubled: 0, delay: 100, jitter: 1 });
    net.serve = 1;
    for id in 1..4 {
        let before = net.count;
        net.transact(id, 0).unwrap();
        assert_eq!(net.count - before, 2);
    }
}

/// Pieces of a large message each way, over a way that keeps together what was sent at once, and over one that does not.
#[test]
fn pieces_are_sealed_together_where_that_arrives_and_one_by_one_where_it_does_not() {
    let transfer = |gathers| {
        let mut net = Net::new(1, Weather { lost: 0, doubled: 0, delay: 100, jitter: 1 });
        (net.gathers, net.reply_size, net.serve) = (gathers, 1 << 20, 1);
        for id in 0..4 {
            assert_eq!(net.transact(id, 1 << 20), Ok(reply(id, 1 << 20)));
        }
        (net.read, net.client.sent_again() + net.server.sent_again())
    };
    let pieces = ((4 * 2) << 20) / DATAGRAM_SIZE_MIN as u64;
    let (read, _) = transfer(16);
    assert!(read < pieces / 2, "{read} of {pieces}");
    let (read, again) = transfer(0);
    assert!(read > pieces && again < pieces / 10, "{read} of {pieces}, {again} again");
}

#[test]
fn a_ping_is_answered_and_a_request_before_it_is_kept() {
    let (mut client, mut server) = ends(100);
    client.ping();
    client.begin(at(0), request(1, 10), 100);
    let mut out = Vec::new();
    while let Some(size) = client.poll_transmit(at(0), 8, &mut out) {
        for datagram in out.chunks_mut(size) {
            assert!(server.handle_datagram(at(0), datagram));
        }
        out.clear();
    }
    assert!(!client.is_open());
    assert_eq!(server.poll_request().unwrap().1, request(1, 10));
    let size = server.poll_transmit(at(0), 8, &mut out).unwrap();
    assert!(out.len() == size && client.handle_datagram(at(0), &mut out, None) && client.is_open());
}

#[test]
fn what_is_larger_than_its_receiver_takes_is_a_status() {
    for (size, back) in [(0, 200_000), (200_000, 0), (300, 0), (0, 300)] {
        let mut net = Net::new(1, Weather { lost: 0, doubled: 0, delay: 100, jitter: 1 });
        (net.client, net.server) = ends(200);
        (net.reply_size, net.serve) = (back, 1);
        net.client.begin(at(0), request(1, size), 200);
        let result = loop {
            match net.client.poll_result() {
                Some(result) => break result,
                None => assert!(net.step(20_000_000)),
            }
        };
        assert_eq!(result, Ok(Message::status(Status::STD_OVERFLOW)), "{size} and {back}");
        assert_eq!(net.executed.len(), usize::from(size == 0));
        let later = net.transact(2, 100);
        while net.step(30_000_000) {}
        assert!(later.is_ok() && net.server.is_idle());
    }
}

#[test]
fn what_never_left_was_not_executed() {
    let (mut client, _) = ends(1 << 20);
    client.begin(at(0), request(1, 100), 0);
    assert_eq!(client.give_up(), Error::NotSent(Status::RPC_NOTFOUND));
    client.begin(at(0), request(1, 900_000), 0);
    let mut out = Vec::new();
    while client.poll_transmit(at(0), 8, &mut out).is_some() {}
    assert!(out.len() < 900_000, "a window is smaller");
    assert_eq!(client.give_up(), Error::NotSent(Status::RPC_NOTFOUND));
    client.begin(at(0), request(1, 100), 0);
    assert!(client.poll_transmit(at(0), 8, &mut out).is_some());
    client.handle_timeout(at(60_000)); // its second copy waits to be sent
    assert_eq!(client.give_up(), Error::MaybeExecuted(Status::RPC_FAILURE));
}

#[test]
fn a_late_copy_of_what_was_refused_is_not_executed() {
    let (mut client, mut server) = ends(100);
    client.begin(at(0), request(1, 10), 100);
    let mut first = Vec::new();
    client.poll_transmit(at(0), 8, &mut first).unwrap();
    client.handle_timeout(at(60_000));
    let mut second = Vec::new();
    client.poll_transmit(at(60_000), 8, &mut second).unwrap();
    server.handle_datagram(at(1), &mut second);
    let (tid, _) = server.poll_request().unwrap();
    server.refuse(tid);
    server.handle_datagram(at(2), &mut first);
    assert!(server.poll_request().is_none());
    let mut out = Vec::new();
    server.poll_transmit(at(3), 8, &mut out).unwrap();
    client.handle_datagram(at(3), &mut out, None);
    assert_eq!(client.poll_result(), Some(Err(Error::NotSent(Status::RPC_TRYAGAIN))));
}

#[test]
fn late_pieces_of_a_refused_request_do_not_undo_what_was_acknowledged_of_the_next() {
    let (mut client, mut server) = ends(1 << 20);
    let sent = |client: &mut FlowClient, now: u64| {
        let mut out = Vec::new();
        while client.poll_transmit(at(now), 1, &mut out).is_some() {}
        out
    };
    client.begin(at(0), request(1, 3000), 100);
    let mut first = sent(&mut client, 0);
    client.handle_timeout(at(300_000));
    let mut late = sent(&mut client, 300_000);
    let take = |server: &mut FlowServer, datagrams: &mut [u8]| {
        datagrams.chunks_mut(DATAGRAM_SIZE_MIN).for_each(|datagram| {
            server.handle_datagram(at(300_000), datagram);
        });
    };
    take(&mut server, &mut first);
    let (tid, _) = server.poll_request().unwrap();
    server.refuse(tid);
    carry(at(300_000), &mut client, &mut server, &mut []);
    assert_eq!(client.poll_result(), Some(Err(Error::NotSent(Status::RPC_TRYAGAIN))));
    client.begin(at(300_000), request(2, 3000), 100);
    let mut second = sent(&mut client, 300_000);
    let (begun, rest) = second.split_at_mut(DATAGRAM_SIZE_MIN);
    take(&mut server, begun);
    take(&mut server, &mut late);
    take(&mut server, rest);
    carry(at(300_001), &mut client, &mut server, &mut []);
    assert_eq!(server.poll_request().map(|(_, message)| message), Some(request(2, 3000)));
}

/// What arrives straight in its place passes no check of its transaction, so nothing older than the newest may arrive at all.
#[test]
fn the_rest_of_an_older_request_does_not_undo_a_refusal() {
    let (one, other) = flow_keys(&Fixed, Suite::Aes256Gcm);
    let mut client = Session::new(at(0), &one, 1);
    let mut server = FlowServer::new(at(0), Session::new(at(0), &other, 1), way(), 1 << 20, zeros);
    let size = DATAGRAM_SIZE_MIN - amoeba_seal::SEALED_OVERHEAD - datagram::PIECE_HEAD_SIZE;
    let header = half::rpc(amoeba_wire::packet::RpcKind::Request, 0, 5, None);
    let message = [&datagram::headers(&header, &Header::NULL)[..], &vec![1; 5 * size]].concat();
    let mut first = Vec::new();
    let head = datagram::piece_head(0, 5, 0, message.len());
    client.seal(at(0), &[&head, &message[..size]], &mut first).unwrap();
    assert!(server.handle_datagram(at(0), &mut first));
    let mut question = Vec::new();
    let enquire = half::rpc(amoeba_wire::packet::RpcKind::Enquire, 0, 6, None);
    client.seal(at(0), &[&datagram::PACKET_KIND, &enquire.to_bytes()], &mut question).unwrap();
    assert!(server.handle_datagram(at(0), &mut question));
    let mut rest = Vec::new();
    let head = datagram::burst_head(1, 5, size, message.len(), size);
    client.seal_burst(at(0), &head, &[&message[size..]], &mut rest).unwrap();
    server.handle_datagram(at(0), &mut rest);
    assert_eq!(server.poll_request(), None);
    assert!(server.is_idle());
}

/// Somebody who has no keys sends bursts that say they are what comes next, before each that is genuine, and each again
/// afterwards.
#[test]
fn forged_and_repeated_bursts_change_nothing_that_has_arrived() {
    let dice = Dice::new(3);
    let (mut client, mut server) = ends(1 << 20);
    let mut buffer = vec![0; 700_000];
    let mut forgeries = 0;
    for id in 1..4u64 {
        let mut now = id * 1_000_000;
        client.begin(at(now), request(id, 10), buffer.len());
        carry(at(now), &mut client, &mut server, &mut buffer);
        let (tid, _) = server.poll_request().unwrap();
        server.reply(tid, reply(id, 700_000));
        loop {
            now += 10;
            let mut sent = Vec::new();
            while let Some(size) = server.poll_transmit(at(now), 8, &mut sent) {
                let is_burst = amoeba_seal::burst_size(&sent) == Some(sent.len());
                if is_burst {
                    for _ in 0..8 {
                        let mut forged = sent.clone();
                        let place = match dice.below(3) {
                            0 => dice.below(35),
                            _ => dice.below(forged.len() as u64),
                        };
                        forged[place as usize] ^= 1 << dice.below(8);
                        cut(&mut forged, size).for_each(|datagram| {
                            assert!(!client.handle_datagram(at(now), datagram, Some(&mut buffer)));
                        });
                        forgeries += 1;
                    }
                }
                let mut again = sent.clone();
                cut(&mut sent, size).for_each(|datagram| {
                    assert!(client.handle_datagram(at(now), datagram, Some(&mut buffer)));
                });
                cut(&mut again, size).for_each(|datagram| {
                    assert!(!client.handle_datagram(at(now), datagram, Some(&mut buffer)));
                });
                sent.clear();
            }
            let mut acks = Vec::new();
            while let Some(size) = client.poll_transmit(at(now), 8, &mut acks) {
                cut(&mut acks, size).for_each(|datagram| {
                    server.handle_datagram(at(now), datagram);
                });
                acks.clear();
            }
            if let Some(result) = client.poll_result() {
                assert!(result.unwrap().header.status() == Status::STD_OK);
                break;
            }
        }
        assert!(client.posted_size() == 700_000 && buffer == reply(id, 700_000).data);
    }
    assert!(forgeries > 100, "{forgeries} forged bursts");
}

#[test]
fn contents_of_anything_are_harmless() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (mut client, mut server) = ends(1 << 16);
        let (one, other) = flow_keys(&Fixed, Suite::Aes256Gcm);
        let mut to_server = Session::new(at(0), &one, 1);
        let mut to_client = Session::new(at(0), &other, 1);
        client.begin(at(0), request(1, 3000), 1 << 16);
        let mut given = 0;
        for (step, chunk) in bytes.chunks(48).enumerate() {
            let now = at(step as u64 * 30_000);
            let mut sealed = Vec::new();
            to_server.seal(now, &[chunk], &mut sealed).unwrap();
            server.handle_datagram(now, &mut sealed);
            if let Some((tid, message)) = server.poll_request() {
                given += 1;
                server.reply(tid, message);
            }
            sealed.clear();
            to_client.seal(now, &[chunk], &mut sealed).unwrap();
            client.handle_datagram(now, &mut sealed, None);
            let mut out = Vec::new();
            while client.poll_transmit(now, 4, &mut out).is_some() {}
            while server.poll_transmit(now, 4, &mut out).is_some() {}
            client.handle_timeout(now);
            server.handle_timeout(now);
        }
        assert!(given <= bytes.len());
        server.handle_datagram(at(0), &mut bytes.to_vec());
        client.handle_datagram(at(0), &mut bytes.to_vec(), None);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn at_most_once_in_any_weather(
        seed: u64, lost in 0u64..300, doubled in 0u64..300, delay in 10u64..50_000, jitter in 1u64..50_000
    ) {
        check(seed, Weather { lost, doubled, delay, jitter });
    }
}

/// Carries everything between two ends, the client with its buffer, until nothing moves.
fn carry(now: Instant, client: &mut FlowClient, server: &mut FlowServer, posted: &mut [u8]) {
    loop {
        let mut moved = false;
        let mut out = Vec::new();
        while let Some(size) = client.poll_transmit(now, 4, &mut out) {
            moved = true;
            cut(&mut out, size).for_each(|datagram| assert!(server.handle_datagram(now, datagram)));
            out.clear();
        }
        while let Some(size) = server.poll_transmit(now, 4, &mut out) {
            moved = true;
            for datagram in cut(&mut out, size) {
                assert!(client.handle_datagram(now, datagram, Some(&mut *posted)));
            }
            out.clear();
        }
        if !moved {
            return;
        }
    }
}

#[test]
fn a_reply_goes_into_the_posted_buffer_or_says_that_it_does_not_fit() {
    let (mut client, mut server) = ends(1 << 20);
    let file: std::sync::Arc<Vec<u8>> = std::sync::Arc::new(reply(5, 600_000).data);
    let mut buffer = vec![0xee; 500_000];
    for (size, posted_size) in [(0, 500_000), (7, 7), (100, 99), (499_999, 500_000), (300_000, 299_999)] {
        buffer.fill(0xee);
        let now = at(size as u64 * 10);
        client.begin(now, request(1, 10), posted_size);
        carry(now, &mut client, &mut server, &mut buffer[..posted_size]);
        let (tid, _) = server.poll_request().unwrap();
        let shared = Shared::new(file.clone(), 1000..1000 + size);
        server.reply_shared(tid, Header::reply(Status::STD_OK), shared);
        carry(now, &mut client, &mut server, &mut buffer[..posted_size]);
        let result = client.poll_result().expect("everything was carried").unwrap();
        let fits = size <= posted_size;
        let status = if fits { Status::STD_OK } else { Status::STD_OVERFLOW };
        assert_eq!((result.header.status(), result.data.len()), (status, 0), "{size} into {posted_size}");
        assert_eq!(client.posted_size(), if fits { size } else { 0 });
        assert!(buffer[..client.posted_size()] == file[1000..1000 + client.posted_size()]);
        assert!(buffer[posted_size..].iter().all(|byte| *byte == 0xee), "nothing is written behind it");
        assert_eq!(server.kept_size(), if size > 1000 { 0 } else { size }, "large replies are let go");
    }
}

#[test]
fn a_late_piece_of_a_reply_never_reaches_the_buffer_of_the_next() {
    let (mut client, mut server) = ends(1 << 20);
    let mut buffer = vec![0; 100_000];
    client.begin(at(0), request(1, 10), 100_000);
    carry(at(0), &mut client, &mut server, &mut buffer);
    let (tid, _) = server.poll_request().unwrap();
    server.reply(tid, reply(1, 100_000));
    let mut late = Vec::new();
    let size = server.poll_transmit(at(1), 4, &mut late).unwrap();
    let mut again = late.clone();
    cut(&mut late, size).for_each(|datagram| {
        client.handle_datagram(at(1), datagram, Some(&mut buffer));
    });
    carry(at(2), &mut client, &mut server, &mut buffer);
    assert!(client.poll_result().unwrap().is_ok() && client.posted_size() == 100_000);
    buffer.fill(0);
    client.begin(at(3), request(2, 10), 100_000);
    for datagram in cut(&mut again, size) {
        assert!(!client.handle_datagram(at(4), datagram, Some(&mut buffer)), "a replay is not opened");
    }
    assert!(buffer.iter().all(|byte| *byte == 0));
}
