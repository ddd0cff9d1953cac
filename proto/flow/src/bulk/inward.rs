//! What has arrived, and how it is said.

use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::{Malformed, Reader};

use super::{ACK_BITS_SIZE, NUMBERS_MAX};

const WORDS: usize = NUMBERS_MAX as usize / 64;

/// Which packets have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// How long the newest of them had waited to be read and acknowledged: no delay of the network.
    pub held: Duration,
    /// Everything below has arrived.
    pub next: u64,
    /// Bit `i` stands for `next + 1 + i`; at most [`ACK_BITS_SIZE`] bytes.
    pub bits: &'a [u8],
}

impl<'a> Ack<'a> {
    /// The acknowledgement in these bytes, which are all of it.
    ///
    /// # Errors
    /// [`Malformed`]: shorter or longer than any acknowledgement.
    pub fn parse(bytes: &'a [u8]) -> Result<Ack<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let held = Duration::from_micros(reader.get_u32()?.into());
        let (next, bits) = (reader.get_u64()?, reader.rest());
        if bits.len() <= ACK_BITS_SIZE { Ok(Ack { held, next, bits }) } else { Err(Malformed) }
    }

    /// The numbers above `next` that have arrived, in order.
    pub fn ahead(&self) -> impl Iterator<Item = u64> {
        let first = self.next.saturating_add(1);
        self.bits.iter().enumerate().flat_map(move |(index, &byte)| {
            let set = (0..8u64).filter(move |bit| byte >> bit & 1 == 1);
            set.map(move |bit| first.saturating_add(index as u64 * 8 + bit))
        })
    }
}

/// What comes from one peer: told the number of each packet, it knows the copies.
#[derive(Debug)]
pub struct Inward {
    /// Everything below has arrived.
    next: u64,
    /// One above the highest that has arrived.
    end: u64,
    /// Bit `number % NUMBERS_MAX` of the numbers from `next` on.
    ahead: Box<[u64; WORDS]>,
    /// Something arrived that was not acknowledged yet.
    owed: u32,
    /// When the last arrived.
    latest: Instant,
}

impl Default for Inward {
    fn default() -> Inward {
        Inward { next: 0, end: 0, ahead: Box::new([0; WORDS]), owed: 0, latest: Instant::default() }
    }
}

impl Inward {
    /// Whether a packet with this number would be taken: it is no copy, and not too far ahead.
    pub fn is_new(&self, number: u64) -> bool {
        number >= self.next && number - self.next < NUMBERS_MAX && !self.has(number)
    }

    /// A packet has arrived, at this time; false for a copy, and for one too far ahead.
    pub fn arrived(&mut self, at: Instant, number: u64) -> bool {
        if number >= self.next && number - self.next >= NUMBERS_MAX {
            return false;
        }
        self.owed = self.owed.saturating_add(1);
        self.latest = self.latest.max(at);
        if number < self.next || self.has(number) {
            return false;
        }
        let (word, bit) = place(number);
        self.ahead[word] |= bit;
        self.end = self.end.max(number + 1);
        while self.has(self.next) {
            let (word, bit) = place(self.next);
            self.ahead[word] &= !bit;
            self.next += 1;
        }
        true
    }

    /// Packets, copies included, that have arrived since the last acknowledgement.
    pub fn owed(&self) -> u32 {
        self.owed
    }

    /// Whether one is missing that was sent before another that has arrived.
    pub fn has_gaps(&self) -> bool {
        self.end > self.next
    }

    /// Appends the acknowledgement of everything so far.
    pub fn ack(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.owed = 0;
        let held = u32::try_from(now.since(self.latest).as_micros()).unwrap_or(u32::MAX);
        out.extend_from_slice(&held.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        let mut byte = 0;
        for number in self.next + 1..self.end {
            let bit = (number - self.next - 1) % 8;
            byte |= u8::from(self.has(number)) << bit;
            if bit == 7 || number + 1 == self.end {
                out.push(std::mem::take(&mut byte));
            }
        }
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.ahead[word] & bit != 0
    }
}

fn place(number: u64) -> (usize, u64) {
    let index = (number % NUMBERS_MAX) as usize;
    (index / 64, 1 << (index % 64))
}
