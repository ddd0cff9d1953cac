//! What happened, as a hash (two runs with one hash are one run) and as the last lines before a failure.

use std::collections::VecDeque;
use std::fmt;

use amoeba_threads::Instant;

/// Lines kept for a failure's report.
const TAIL_MAX: usize = 60;

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Run { thread: u64 },
    Start { thread: u64, process: u64 },
    Packet { from: u16, to: u16, size: usize, digest: u64 },
    Lost { from: u16, to: u16, size: usize },
    Disk { host: u16, operation: &'static str, offset: u64, size: u64 },
    Fault { text: String },
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Run { thread } => write!(f, "thread {thread} runs"),
            Happening::Start { thread, process } => write!(f, "thread {thread} starts in process {process}"),
            Happening::Packet { from, to, size, .. } => write!(f, "packet {from} -> {to}, {size} bytes"),
            Happening::Lost { from, to, size } => write!(f, "packet {from} -> {to}, {size} bytes, lost"),
            Happening::Disk { host, operation, offset, size } => {
                write!(f, "disk of host {host}: {operation} {size} bytes at {offset}")
            }
            Happening::Fault { text } => f.write_str(text),
        }
    }
}

/// FNV-1a over 64-bit words: fast, and good enough to tell runs apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) const NEW: Digest = Digest(0xCBF2_9CE4_8422_2325);

    pub(crate) fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut digest = Digest::NEW;
    digest.bytes(bytes);
    digest.value()
}

/// The record of a run.
pub(crate) struct Trace {
    digest: Digest,
    tail: VecDeque<(Instant, Happening)>,
    aloud: bool,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        let aloud = std::env::var_os("AMOEBA_TRACE").is_some();
        Trace { digest: Digest::NEW, tail: VecDeque::with_capacity(TAIL_MAX), aloud }
    }

    pub(crate) fn add(&mut self, now: Instant, happening: Happening) {
        self.digest.word(now.since_epoch().as_nanos() as u64);
        match &happening {
            Happening::Run { thread } => self.digest.word(*thread),
            Happening::Start { thread, process } => self.digest.word((thread << 32) ^ process),
            Happening::Packet { from, to, digest, .. } => {
                self.digest.word((u64::from(*from) << 16) ^ u64::from(*to) ^ digest.rotate_left(32));
            }
            Happening::Lost { from, to, size } => {
                self.digest.word((u64::from(*from) << 48) ^ (u64::from(*to) << 32) ^ *size as u64);
            }
            Happening::Disk { host, operation, offset, size } => {
                self.digest.word(u64::from(*host) ^ offset.rotate_left(16) ^ size.rotate_left(48));
                self.digest.bytes(operation.as_bytes());
            }
            Happening::Fault { text } => self.digest.bytes(text.as_bytes()),
        }
        if self.aloud {
            eprintln!("{}", line(now, &happening));
        }
        if self.tail.len() == TAIL_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back((now, happening));
    }

    pub(crate) fn hash(&self) -> u64 {
        self.digest.value()
    }

    /// The last happenings, a line each.
    pub(crate) fn tail(&self) -> String {
        self.tail.iter().map(|(now, happening)| line(*now, happening) + "\n").collect()
    }
}

fn line(now: Instant, happening: &Happening) -> String {
    format!("{:>14.6} {happening}", now.since_epoch().as_secs_f64())
}
