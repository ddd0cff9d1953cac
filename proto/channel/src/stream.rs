//! The way of one message through a ring. Every message begins at the start of the ring: one at a time is in it, and the
//! lines that small messages use stay warm on both sides.

use amoeba_wire::Header;
use amoeba_world::Message;

use crate::head::{HEAD_SIZE, Head, Kind};
use crate::memory::{HEAD_OFFSET, Own, Peer, RING_OFFSET, Word};
use crate::side::Side;
use crate::{Broken, DATA_SIZE_MAX};

/// The most bytes that one step copies: both sides of a large message copy at once.
pub const CHUNK_SIZE: usize = 32 << 10;
/// The most bytes that are reserved for a message before any of it has arrived. More is reserved as it arrives, never
/// beyond twice what has.
pub const RESERVE_SIZE_MAX: usize = 2 << 20;

/// How a step of a stream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It is all through.
    All,
    /// Some bytes more.
    Some,
    /// Nothing can be done before the peer does something.
    Nothing,
}

/// A word that counts the bytes of the message `sequence`.
fn count(sequence: u64, bytes: usize) -> u64 {
    sequence << 32 | bytes as u64
}

/// The bytes that a word counts, if it speaks of the message `sequence`.
fn counted(word: u64, sequence: u64) -> Option<usize> {
    (word >> 32 == sequence & 0xffff_ffff).then_some((word & 0xffff_ffff) as usize)
}

/// A message on its way out.
pub(crate) struct Outgoing {
    sequence: u64,
    size: usize,
    produced: usize,
    consumed: usize,
}

impl Outgoing {
    /// Announces the message, with as much of it as one step takes.
    pub(crate) fn begin<O: Own, P: Peer>(
        side: &mut Side<O, P>,
        sequence: u64,
        kind: Kind,
        reply_size_max: u64,
        (header, data): (Header, &[u8]),
    ) -> Outgoing {
        let size = data.len();
        assert!(size <= DATA_SIZE_MAX, "a message of {size} bytes");
        let head = Head { kind, size: size as u32, reply_size_max, header };
        side.own.write(HEAD_OFFSET, &head.to_bytes());
        let mut outgoing = Outgoing { sequence, size, produced: 0, consumed: 0 };
        outgoing.put(side, data, side.own.ring_size());
        outgoing
    }

    /// Puts more of `data` into the ring.
    pub(crate) fn step<O: Own, P: Peer>(
        &mut self,
        side: &mut Side<O, P>,
        data: &[u8],
    ) -> Result<Moved, Broken> {
        if self.is_done() {
            return Ok(Moved::All);
        }
        if self.room(side) < (self.size - self.produced).min(CHUNK_SIZE) {
            self.look(side)?;
        }
        match self.room(side) {
            0 => Ok(Moved::Nothing),
            room => {
                self.put(side, data, room);
                Ok(if self.is_done() { Moved::All } else { Moved::Some })
            }
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.produced == self.size
    }

    /// Whether the peer had taken some of it at the last step.
    pub(crate) fn is_being_read(&self) -> bool {
        self.consumed > 0
    }

    /// Whether the peer has made room since the last step.
    pub(crate) fn is_ready<O: Own, P: Peer>(&self, side: &Side<O, P>) -> bool {
        let consumed = counted(side.peer.load(Word::Consumed), self.sequence).unwrap_or(0);
        !self.is_done() && consumed != self.consumed
    }

    fn room<O: Own, P: Peer>(&self, side: &Side<O, P>) -> usize {
        side.own.ring_size() - (self.produced - self.consumed)
    }

    fn look<O: Own, P: Peer>(&mut self, side: &Side<O, P>) -> Result<(), Broken> {
        if let Some(consumed) = counted(side.peer.load(Word::Consumed), self.sequence) {
            if consumed < self.consumed || consumed > self.produced {
                return Err(Broken::Consumed);
            }
            self.consumed = consumed;
        }
        Ok(())
    }

    fn put<O: Own, P: Peer>(&mut self, side: &mut Side<O, P>, data: &[u8], room: usize) {
        let next = &data[self.produced..][..(self.size - self.produced).min(room).min(CHUNK_SIZE)];
        let at = self.produced & (side.own.ring_size() - 1);
        let (first, second) = next.split_at(next.len().min(side.own.ring_size() - at));
        if !first.is_empty() {
            side.own.write(RING_OFFSET + at, first);
        }
        if !second.is_empty() {
            side.own.write(RING_OFFSET, second);
        }
        self.produced += next.len();
        side.publish(Word::Produced, count(self.sequence, self.produced));
    }
}

/// Whether the last message that the peer announced is `sequence`.
pub(crate) fn is_about<P: Peer>(peer: &P, sequence: u64) -> bool {
    counted(peer.load(Word::Produced), sequence).is_some()
}

/// A message on its way in.
pub(crate) struct Incoming {
    sequence: u64,
    head: Head,
    data: Vec<u8>,
}

impl Incoming {
    /// Begins to receive what the peer has announced as `sequence`.
    pub(crate) fn begin<O: Own, P: Peer>(side: &Side<O, P>, sequence: u64) -> Result<Incoming, Broken> {
        let mut bytes = [0; HEAD_SIZE];
        side.peer.read(HEAD_OFFSET, &mut bytes);
        let head = Head::from_bytes(&bytes)?;
        if head.size as usize > DATA_SIZE_MAX {
            return Err(Broken::Size);
        }
        Ok(Incoming { sequence, head, data: Vec::new() })
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Whether the peer has done anything since the last step; a wrong word counts as something.
    pub(crate) fn is_ready<O: Own, P: Peer>(&self, side: &Side<O, P>) -> bool {
        counted(side.peer.load(Word::Produced), self.sequence) != Some(self.data.len())
    }

    /// Copies what has come.
    pub(crate) fn step<O: Own, P: Peer>(&mut self, side: &mut Side<O, P>) -> Result<Moved, Broken> {
        let (arrived, size) = (self.data.len(), self.head.size as usize);
        if arrived == size {
            return Ok(Moved::All);
        }
        let produced = counted(side.peer.load(Word::Produced), self.sequence).ok_or(Broken::Sequence)?;
        if produced < arrived || produced > size || produced - arrived > side.peer.ring_size() {
            return Err(Broken::Produced);
        }
        if produced == arrived {
            return Ok(Moved::Nothing);
        }
        self.copy(&side.peer, (produced - arrived).min(CHUNK_SIZE));
        if size > side.peer.ring_size() {
            side.publish(Word::Consumed, count(self.sequence, self.data.len()));
        }
        Ok(if self.data.len() == size { Moved::All } else { Moved::Some })
    }

    fn copy<P: Peer>(&mut self, peer: &P, count: usize) {
        self.reserve(count);
        let at = self.data.len() & (peer.ring_size() - 1);
        let first = count.min(peer.ring_size() - at);
        peer.append(RING_OFFSET + at, first, &mut self.data);
        if first < count {
            peer.append(RING_OFFSET, count - first, &mut self.data);
        }
    }

    /// Room for `count` bytes more: what was announced may be a lie, what has arrived is none.
    fn reserve(&mut self, count: usize) {
        let (arrived, size) = (self.data.len(), self.head.size as usize);
        if self.data.capacity() - arrived < count {
            let wanted = size.min(RESERVE_SIZE_MAX.max(2 * arrived));
            self.data.reserve_exact(wanted.max(arrived + count) - arrived);
        }
    }

    /// Bytes that were reserved for it.
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> usize {
        self.data.capacity()
    }

    /// The message, once all of it is there.
    pub(crate) fn take_message(&mut self) -> Message {
        Message { header: self.head.header, data: std::mem::take(&mut self.data) }
    }
}
