//! The switch under processes that say anything in any order: nothing panics, no account is wrong, and who waits
//! for one answer gets at most one.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{GetPort, SystemSecret};
use amoeba_threads::Instant;
use amoeba_wire::Header;
use amoeba_world::{Destination, Message, TransOptions};

use super::switch::Switch;
use super::table::Token;
use super::{Config, OUTGOING_FRAMES_MAX};
use crate::socket::{Assembler, Cookie, ToKernel, ToProcess, TraceFilter, VERSION};

const PEERS: usize = 8;
const BUFFERED_MAX: usize = 2000;

/// What one peer has learnt.
#[derive(Default)]
struct Peer {
    token: Option<Token>,
    cookie: Option<Cookie>,
    requests: Vec<u64>,
    /// It was asked whether it has time.
    knocked: bool,
    /// Answers still owed to it.
    owed: usize,
}

struct World {
    switch: Switch,
    now: Instant,
    peers: [Peer; PEERS],
    /// Requests and replies that reached somebody.
    delivered: usize,
    knocked: usize,
}

impl World {
    fn new() -> World {
        let now = Instant::from_epoch(Duration::from_secs(1000));
        let secret = SystemSecret::from_bytes([6; 32]);
        let config = Config {
            connections_max: PEERS - 2,
            buffered_max: BUFFERED_MAX,
            ..Config::new(secret, Arc::new(crate::OsEntropy))
        };
        World { switch: Switch::new(config, now), now, peers: Default::default(), delivered: 0, knocked: 0 }
    }

    fn step(&mut self, index: usize, action: u8, parameter: u8) {
        let Some(token) = self.peers[index].token else { return self.connect(index) };
        if std::mem::take(&mut self.peers[index].knocked) && !parameter.is_multiple_of(8) {
            return self.say_and_settle(index, token, ToKernel::Ready);
        }
        let action = self.mostly_in_turn(token, action);
        match self.frame(index, action, parameter) {
            Some(frame) => self.say(index, token, frame),
            None if action == 14 => {
                self.now = self.now + Duration::from_millis(u64::from(parameter) * 40);
                self.switch.handle_timeout(self.now);
            }
            None => self.switch.doom(token),
        }
        self.settle();
    }

    /// One action in sixteen is what it is; of the others a stranger attaches or joins, and who waits only answers.
    fn mostly_in_turn(&self, token: Token, action: u8) -> u8 {
        let connection = self.switch.table.get(token).expect("peers forget closed connections");
        let (action, in_turn) = (action % 16, action >> 4 < 15);
        match action {
            _ if in_turn && connection.member.is_none() => action % 2,
            ..=10 if in_turn && connection.is_waiting() => 11 + action % 4,
            0 | 1 if in_turn => 11,
            _ => action,
        }
    }

    fn connect(&mut self, index: usize) {
        let socket: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        self.peers[index] =
            Peer { token: Some(self.switch.connected(self.now, socket, 1)), ..Peer::default() };
        self.settle();
    }

    fn frame(&mut self, index: usize, action: u8, parameter: u8) -> Option<ToKernel> {
        let get_port = GetPort::from_bytes([parameter % 3; 6]);
        let put_port = SystemSecret::from_bytes([6; 32]).put_port(&get_port);
        let data = vec![parameter; usize::from(parameter) * 8];
        let header = Header { port: put_port, command: 1, ..Header::NULL };
        let message = Message { header, data };
        let request = self.peers[index].requests.pop().unwrap_or(parameter.into());
        Some(match action {
            0 | 1 => match self.peers[usize::from(parameter) % PEERS].cookie {
                Some(cookie) if action == 1 => ToKernel::Join { cookie },
                _ => ToKernel::Attach { version: VERSION + u32::from(parameter > 250) },
            },
            2..=4 => ToKernel::Trans {
                options: TransOptions {
                    locate_timeout: Duration::from_millis(parameter.into()),
                    deadline: (parameter > 200).then(|| Duration::from_millis(u64::from(parameter) - 200)),
                    reply_size_max: 1000,
                    signature: (parameter.is_multiple_of(2)).then(|| get_port.clone()),
                },
                message,
            },
            5 | 6 => ToKernel::Listen { port: get_port, request_size_max: 1500 },
            7 => ToKernel::Unlisten { port: put_port },
            8..=10 => ToKernel::Getreq { port: put_port },
            11 | 12 => ToKernel::Putrep { request, message: Message { header: Header::NULL, ..message } },
            13 => ToKernel::Fail { request },
            15 => match parameter % 9 {
                0 => ToKernel::Open { port: Some(get_port) },
                1 => ToKernel::Receive,
                2 => ToKernel::Send { from: None, to: Destination::Port(put_port), data: message.data },
                3 => ToKernel::Look { port: Some(put_port) },
                4 => ToKernel::Look { port: None },
                5 => ToKernel::Trace {
                    proof: crate::socket::proof(&SystemSecret::from_bytes(
                        [6 + u8::from(parameter > 200); 32],
                    )),
                    filter: TraceFilter { data: true, ..TraceFilter::default() },
                },
                6 | 7 => ToKernel::TraceNext,
                _ => ToKernel::Ready,
            },
            _ => return None,
        })
    }

    fn say_and_settle(&mut self, index: usize, token: Token, frame: ToKernel) {
        self.say(index, token, frame);
        self.settle();
    }

    fn say(&mut self, index: usize, token: Token, frame: ToKernel) {
        let bytes = [frame.head().bytes(), frame.data()].concat();
        let assembled = Assembler::default().feed(&mut &bytes[..]).unwrap().expect("a whole frame");
        self.peers[index].owed +=
            usize::from(!matches!(frame, ToKernel::Putrep { .. } | ToKernel::Fail { .. }));
        match self.switch.frame(self.now, token, assembled) {
            Ok(()) => self.switch.recount(self.now, token),
            Err(_) => self.switch.doom(token),
        }
    }

    /// As the daemon does it, with sockets that take everything.
    fn settle(&mut self) {
        loop {
            self.switch.dispatch(self.now);
            if let Some(token) = self.switch.to_flush.pop() {
                self.take(token);
                self.switch.recount(self.now, token);
            } else if let Some(token) = self.switch.doomed.pop() {
                self.switch.disconnected(self.now, token);
                for peer in self.peers.iter_mut().filter(|peer| peer.token == Some(token)) {
                    *peer = Peer::default();
                }
            } else {
                return self.switch.check();
            }
        }
    }

    fn take(&mut self, token: Token) {
        let Some(connection) = self.switch.table.get_mut(token) else { return };
        assert!(connection.outgoing.len() <= OUTGOING_FRAMES_MAX);
        let (frames, closing) = (std::mem::take(&mut connection.outgoing), connection.closing);
        let peer = self.peers.iter_mut().find(|peer| peer.token == Some(token));
        let mut unknown = Peer { owed: 1, ..Peer::default() }; // one that is only being refused
        let peer = peer.unwrap_or(&mut unknown);
        for frame in frames {
            let bytes = [frame.head.bytes(), &frame.data].concat();
            let parts = Assembler::default().feed(&mut &bytes[..]).unwrap().expect("a whole frame").parts;
            let answer = ToProcess::parse(parts).unwrap();
            assert!(closing || peer.owed > 0, "{answer:?} was not asked for");
            peer.owed = peer.owed.saturating_sub(1);
            match answer {
                ToProcess::Attached { cookie, .. } => {
                    peer.cookie = Some(cookie);
                    self.switch.introduced(token); // nobody shares memory here, but all are asked as if they did
                }
                ToProcess::Knock => {
                    peer.knocked = true;
                    self.knocked += 1;
                }
                ToProcess::Request { request, .. } => {
                    peer.requests.push(request);
                    self.delivered += 1;
                }
                ToProcess::Reply { .. } => self.delivered += 1,
                _ => {}
            }
        }
        if closing {
            self.switch.doom(token);
        }
    }
}

#[test]
fn processes_that_say_anything_disturb_nothing() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut world = World::new();
        for step in bytes.chunks_exact(3) {
            world.step(usize::from(step[0]) % PEERS, step[1], step[2]);
        }
        for index in 0..PEERS {
            if let Some(token) = world.peers[index].token {
                world.switch.doom(token);
            }
        }
        world.settle();
        assert!(world.switch.is_empty());
    });
}

#[test]
fn a_long_disorder_disturbs_nothing() {
    let mut world = World::new();
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    for _ in 0..100_000 {
        // xorshift: the same disorder in every run
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [index, action, parameter, ..] = state.to_le_bytes();
        world.step(usize::from(index) % PEERS, action, parameter);
    }
    assert!(world.knocked > 100, "{} peers were asked whether they have time", world.knocked);
    assert!(world.delivered > 1000, "the disorder has {} messages in it", world.delivered);
}
