//! A peer that follows the rules when it likes, and writes into its own region what it likes.

use std::sync::Arc;

use amoeba_cap::PutPort;

use super::{Client, Server, message};
use crate::memory::Plain;
use crate::{ClientEnd, HEAD_OFFSET, HEAD_SIZE, Own, RING_OFFSET, Receiving, ServerEnd, Service, Step, Word};

const REQUEST_SIZE_MAX: usize = 300;
const REPLY_SIZE_MAX: usize = 300;
const PORT: PutPort = PutPort::from_bytes([7; 6]);

/// What the fuzzer gives, in pieces.
struct Lots<'a>(&'a [u8]);

impl Lots<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.iter_mut().for_each(|byte| *byte = self.byte().unwrap_or(0));
        u64::from_le_bytes(bytes)
    }
}

const WORDS: [Word; Word::COUNT] =
    [Word::Produced, Word::Consumed, Word::Sleeping, Word::Taken, Word::Withdrawn];

/// One thing that only a hostile peer does to its own region.
fn scribble(region: &Arc<Plain>, lots: &mut Lots<'_>) {
    let kind = lots.byte().unwrap_or(0);
    let word = WORDS[usize::from(kind >> 4) % WORDS.len()];
    let old = Own::load(region, word);
    match kind % 8 {
        0 => region.store(word, lots.word()),
        1 => region.store(word, old ^ 1 << (lots.byte().unwrap_or(0) % 64)),
        2 => region.store(word, old.wrapping_add(1)),
        3 => region.store(word, old.wrapping_add(1 << 32)),
        4 => region.store(word, old & !0xffff_ffff),
        5 => {
            let at = usize::from(lots.byte().unwrap_or(0)) % (HEAD_SIZE - 8);
            region.write(HEAD_OFFSET + at, &lots.word().to_le_bytes());
        }
        6 => region.write(HEAD_OFFSET + 4, &(lots.word() as u32).to_le_bytes()),
        _ => {
            let at = usize::from(lots.byte().unwrap_or(0)) % (Own::ring_size(region) - 8);
            region.write(RING_OFFSET + at, &lots.word().to_le_bytes());
        }
    }
}

fn step_client(client: &mut Client, lots: &mut Lots<'_>) {
    if client.is_idle() {
        let size = usize::from(lots.byte().unwrap_or(0));
        client.begin(message(1, size), REPLY_SIZE_MAX).expect("idle");
    } else if lots.byte().unwrap_or(0) == 0 {
        client.withdraw();
    }
    if let Step::Reply(reply) = client.step() {
        assert!(reply.data.len() <= REPLY_SIZE_MAX);
        assert!(!reply.header.status().is_rpc() || reply.data.is_empty());
    }
    client.bell();
    client.before_sleep();
    client.after_sleep();
}

fn step_server(server: &mut Server, lots: &mut Lots<'_>) {
    match server.receive() {
        Receiving::Request(request) => {
            assert!(request.data.len() <= REQUEST_SIZE_MAX);
            assert_eq!((request.header.port, request.header.signature), (PORT, PutPort::NULL));
            match lots.byte().unwrap_or(0) {
                0 => server.fail(),
                size => server.reply(message(2, usize::from(size))),
            };
        }
        Receiving::Busy => {
            server.step();
        }
        Receiving::Waiting | Receiving::Progress | Receiving::Over(_) => {}
    }
    server.bell();
    server.before_sleep();
    server.after_sleep();
}

/// Runs both ends; the region of one is scribbled over.
fn attack(bytes: &[u8]) {
    let mut lots = Lots(bytes);
    let shape = lots.byte().unwrap_or(0);
    let (requests, replies) = (Plain::new(64 << (shape % 3)), Plain::new(64 << (shape / 3 % 3)));
    let mut client = ClientEnd::new(requests.clone(), replies.clone());
    let service = Service { port: PORT, signature: PutPort::NULL, request_size_max: REQUEST_SIZE_MAX };
    let mut server = ServerEnd::new(replies.clone(), requests.clone(), service);
    let region = if shape & 0x80 == 0 { requests } else { replies };
    while let Some(turn) = lots.byte() {
        match turn % 8 {
            0..=2 => step_client(&mut client, &mut lots),
            3..=5 => step_server(&mut server, &mut lots),
            _ => scribble(&region, &mut lots),
        }
    }
    client.peer_gone();
}

#[test]
fn whatever_a_peer_writes_is_survived() {
    bolero::check!().with_max_len(4096).for_each(|bytes: &[u8]| attack(bytes));
}

#[test]
fn nothing_is_allocated_for_what_is_only_announced() {
    let (requests, replies) = (Plain::new(64), Plain::new(64));
    let service = Service { port: PORT, signature: PutPort::NULL, request_size_max: usize::MAX };
    let mut server = ServerEnd::new(replies, requests.clone(), service);
    let mut client = ClientEnd::new(requests.clone(), Plain::new(64));
    client.begin(message(1, 1), 0).expect("idle");
    requests.write(HEAD_OFFSET + 4, &(1_u32 << 30).to_le_bytes());
    assert_eq!(server.receive(), Receiving::Progress);
    assert!(server.reserved() <= crate::RESERVE_SIZE_MAX);
    requests.write(HEAD_OFFSET + 4, &((1_u32 << 30) + 1).to_le_bytes());
    let mut other = ServerEnd::new(Plain::new(64), requests, service);
    assert_eq!(other.receive(), Receiving::Over(crate::Broken::Size));
}
