//! The connections of the daemon, by tokens that are never mistaken for each other.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;

use amoeba_cap::PutPort;
use amoeba_kernel::{EndpointId, ProcessId, RequestId, Slot};
use amoeba_threads::Instant;

use crate::socket::{Assembler, FrameHead};

/// Names a connection; a place that is used again gets a new generation, so an old token finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token {
    generation: u32,
    index: u32,
}

impl Token {
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_u64(token: u64) -> Token {
        Token { generation: (token >> 32) as u32, index: token as u32 }
    }
}

/// A frame on its way to a process.
pub(super) struct Outgoing {
    pub(super) head: FrameHead,
    pub(super) data: Vec<u8>,
    /// Bytes of head and data that the socket took.
    pub(super) sent: usize,
    /// Descriptors that go with its first byte.
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Which process a connection belongs to, and as which of its client threads.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) process: ProcessId,
    pub(super) slot: Slot,
}

/// One connection.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    /// The process at the other end, as the operating system knows it.
    pub(super) pid: i32,
    /// `None` before ATTACH or JOIN.
    pub(super) member: Option<Member>,
    pub(super) assembler: Assembler,
    pub(super) outgoing: VecDeque<Outgoing>,
    /// Data bytes of the transaction that is outstanding, if one is.
    pub(super) trans: Option<usize>,
    /// The port whose next request this connection waits for.
    pub(super) getreq: Option<PutPort>,
    /// The endpoint of datagrams that this connection is for.
    pub(super) endpoint: Option<EndpointId>,
    /// Whether it waits for a datagram.
    pub(super) receiving: bool,
    /// Requests that were delivered here and are not answered.
    pub(super) executing: BTreeSet<RequestId>,
    /// Whether it waits to be introduced.
    pub(super) introducing: bool,
    /// Whether it was asked if it has time for a request.
    pub(super) knocked: bool,
    /// Descriptors that came with the frame that is being read.
    pub(super) descriptors: Vec<OwnedFd>,
    /// When bytes last moved in either direction.
    pub(super) progress: Instant,
    /// Nothing more is read; it is closed when everything is sent.
    pub(super) closing: bool,
    /// Whether epoll watches for room to send.
    pub(super) watching_out: bool,
    /// The bytes that the daemon's sum holds for this connection.
    pub(super) counted: usize,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, pid: i32, now: Instant) -> Connection {
        Connection {
            socket,
            pid,
            member: None,
            assembler: Assembler::default(),
            outgoing: VecDeque::new(),
            trans: None,
            getreq: None,
            endpoint: None,
            receiving: false,
            executing: BTreeSet::new(),
            introducing: false,
            knocked: false,
            descriptors: Vec::new(),
            progress: now,
            closing: false,
            watching_out: false,
            counted: 0,
        }
    }

    /// Whether a thread waits for an answer on this connection.
    pub(super) fn is_waiting(&self) -> bool {
        self.trans.is_some() || self.getreq.is_some() || self.receiving || self.introducing || self.knocked
    }

    /// Bytes of data in memory for this connection.
    pub(super) fn held(&self) -> usize {
        let outgoing: usize = self.outgoing.iter().map(|frame| frame.data.len()).sum();
        self.assembler.held() + self.trans.unwrap_or(0) + outgoing
    }
}

/// All connections.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    count: usize,
}

#[derive(Default)]
struct Entry {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, connection: Connection) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            u32::try_from(self.entries.len() - 1).expect("descriptors are fewer than 2^32")
        });
        let entry = &mut self.entries[index as usize];
        entry.connection = Some(Box::new(connection));
        self.count += 1;
        Token { generation: entry.generation, index }
    }

    pub(super) fn get(&self, token: Token) -> Option<&Connection> {
        let entry = self.entries.get(token.index as usize)?;
        entry.connection.as_deref().filter(|_| entry.generation == token.generation)
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut Connection> {
        let entry = self.entries.get_mut(token.index as usize)?;
        entry.connection.as_deref_mut().filter(|_| entry.generation == token.generation)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<Box<Connection>> {
        let entry = self.entries.get_mut(token.index as usize)?;
        if entry.generation != token.generation {
            return None;
        }
        let connection = entry.connection.take()?;
        // The two highest generations are left out: they are the tokens of the daemon's own descriptors.
        entry.generation = (entry.generation + 1) % (u32::MAX - 1);
        self.free.push(token.index);
        self.count -= 1;
        Some(connection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &Connection)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let token = Token { generation: entry.generation, index: index as u32 };
            Some((token, entry.connection.as_deref()?))
        })
    }
}
