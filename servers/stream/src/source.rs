//! The end of a process's input that its caller holds.

use std::collections::VecDeque;
use std::sync::Arc;

use amoeba_server::Pending;
use amoeba_stubs::stream::{PIECE_SIZE_MAX, ReadReply};
use amoeba_threads::{Condition, Mutex, Threads};
use amoeba_wire::Status;

use crate::{BUFFER_SIZE_MAX, Closed};

/// Bytes that a process is to read, brought in order. Clones are the same stream.
#[derive(Clone)]
pub struct Source(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    room: Condition,
}

#[derive(Default)]
struct State {
    /// Bytes that were given and may be asked for again.
    given: Vec<u8>,
    /// The position of the first of them.
    position: u64,
    /// Bytes that were not given yet.
    ahead: VecDeque<u8>,
    /// No more will be brought.
    ended: bool,
    /// The process wants no more.
    closed: bool,
    /// The read that waits for bytes: the latest, because a process has one at a time.
    waiting: Option<(u32, Pending<ReadReply>)>,
}

impl Source {
    pub(crate) fn new(threads: &Threads) -> Source {
        Source(Arc::new(Shared {
            state: Mutex::new(threads, State::default()),
            room: Condition::new(threads),
        }))
    }

    /// Brings bytes; waits while [`BUFFER_SIZE_MAX`] bytes or more are not yet read.
    ///
    /// # Errors
    /// [`Closed`]: the process reads no more.
    pub fn push(&self, bytes: &[u8]) -> Result<(), Closed> {
        for piece in bytes.chunks(BUFFER_SIZE_MAX) {
            let mut state = self.0.state.lock();
            while state.ahead.len() >= BUFFER_SIZE_MAX && !state.closed {
                state = self.0.room.wait(state);
            }
            if state.closed {
                return Err(Closed);
            }
            state.ahead.extend(piece);
            let answered = state.serve_waiting();
            drop(state);
            if let Some((pending, reply)) = answered {
                pending.send(Ok(reply));
            }
        }
        Ok(())
    }

    /// There is no more: the process reads the end after what was brought.
    pub fn end(&self) {
        let mut state = self.0.state.lock();
        state.ended = true;
        let answered = state.serve_waiting();
        drop(state);
        if let Some((pending, reply)) = answered {
            pending.send(Ok(reply));
        }
    }

    /// Waits until the process wants no more, or [`Source::close`] was called for it.
    pub fn wait_closed(&self) {
        let mut state = self.0.state.lock();
        while !state.closed {
            state = self.0.room.wait(state);
        }
    }

    /// The process wants no more: whoever brings bytes hears it.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.ahead.clear();
        let waiting = state.waiting.take();
        drop(state);
        self.0.room.notify_all();
        if let Some((_, pending)) = waiting {
            pending.send(Ok(ReadReply { end: true, data: Vec::new() }));
        }
    }

    pub(crate) fn read(&self, position: u64, size: u32, pending: Pending<ReadReply>) {
        let mut state = self.0.state.lock();
        if let Err(status) = state.advance_to(position, size) {
            drop(state);
            return pending.send(Err(status));
        }
        let earlier = state.waiting.replace((size, pending));
        let answered = state.serve_waiting();
        drop(state);
        drop(earlier); // a repetition of this read: its client has given it up
        self.0.room.notify_all();
        if let Some((pending, reply)) = answered {
            pending.send(Ok(reply));
        }
    }
}

impl State {
    /// The process has everything before `position`.
    fn advance_to(&mut self, position: u64, size: u32) -> Result<(), Status> {
        let passed = position.checked_sub(self.position).and_then(|passed| usize::try_from(passed).ok());
        match passed.filter(|passed| size > 0 && *passed <= self.given.len()) {
            Some(passed) => {
                self.given.drain(..passed);
                self.position = position;
                Ok(())
            }
            None => Err(Status::STD_ARGBAD),
        }
    }

    /// What the waiting read gets, once there is something to get.
    fn serve_waiting(&mut self) -> Option<(Pending<ReadReply>, ReadReply)> {
        let (size, pending) = self.waiting.take()?;
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(PIECE_SIZE_MAX);
        if self.given.is_empty() {
            let count = size.min(self.ahead.len());
            let (first, second) = self.ahead.as_slices();
            self.given.extend_from_slice(&first[..count.min(first.len())]);
            self.given.extend_from_slice(&second[..count.saturating_sub(first.len())]);
            self.ahead.drain(..count);
        }
        if self.given.is_empty() && !self.ended && !self.closed {
            self.waiting = Some((u32::try_from(size).unwrap_or(u32::MAX), pending));
            return None;
        }
        let data = self.given[..size.min(self.given.len())].to_vec();
        let end = (self.ended || self.closed) && self.ahead.is_empty() && data.len() == self.given.len();
        Some((pending, ReadReply { end, data }))
    }
}
