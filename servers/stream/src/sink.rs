//! The end of a process's output that its caller holds.

use std::collections::VecDeque;
use std::sync::Arc;

use amoeba_server::Pending;
use amoeba_stubs::stream::CLOSED;
use amoeba_threads::{Condition, Mutex, Threads};
use amoeba_wire::Status;

use crate::BUFFER_SIZE_MAX;

/// The most writes that wait for room. A process sends one at a time; more are repetitions of it.
const WAITERS_MAX: usize = 8;

/// Bytes that a process writes, to be taken in order. Clones are the same stream.
#[derive(Clone)]
pub struct Sink(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    came: Condition,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes in `pieces`.
    size: usize,
    /// How many bytes the process has brought.
    position: u64,
    /// The process, or the caller for it, has said that there is no more.
    ended: bool,
    /// The caller wants no more.
    refused: bool,
    /// Writes that were taken and are answered when there is room again.
    waiting: Vec<Pending<()>>,
}

impl Sink {
    pub(crate) fn new(threads: &Threads) -> Sink {
        Sink(Arc::new(Shared { state: Mutex::new(threads, State::default()), came: Condition::new(threads) }))
    }

    /// Waits for bytes, at most one piece of the process's; `None` at the end of the output.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.0.state.lock();
        while state.pieces.is_empty() {
            if state.ended || state.refused {
                return None;
            }
            state = self.0.came.wait(state);
        }
        let piece = state.pieces.pop_front()?;
        state.size -= piece.len();
        let answered =
            if state.size < BUFFER_SIZE_MAX { std::mem::take(&mut state.waiting) } else { Vec::new() };
        drop(state);
        for pending in answered {
            pending.send(Ok(()));
        }
        Some(piece)
    }

    /// Wants no more: what waits is dropped, and the process hears of a closed stream, as of a broken pipe.
    pub fn refuse(&self) {
        let mut state = self.0.state.lock();
        state.refused = true;
        state.pieces.clear();
        state.size = 0;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.0.came.notify_all();
        for pending in waiting {
            pending.send(Err(CLOSED));
        }
    }

    /// The process has ended: when what waits has been taken, [`Sink::take`] gives `None`.
    pub fn end(&self) {
        self.0.state.lock().ended = true;
        self.0.came.notify_all();
    }

    pub(crate) fn write(&self, position: u64, mut data: Vec<u8>, pending: Pending<()>) {
        let mut state = self.0.state.lock();
        let verdict = match state.position.checked_sub(position) {
            _ if state.refused => Some(Err(CLOSED)),
            None => Some(Err(Status::STD_ARGBAD)),
            Some(known) => {
                let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
                data.drain(..known);
                state.append(data)
            }
        };
        if let Some(verdict) = verdict {
            drop(state);
            self.0.came.notify_one();
            return pending.send(verdict);
        }
        if state.waiting.len() == WAITERS_MAX {
            // Its client has given it up long ago.
            drop(state.waiting.remove(0));
        }
        state.waiting.push(pending);
        drop(state);
        self.0.came.notify_one();
    }

    pub(crate) fn close(&self, position: u64) -> Result<(), Status> {
        let mut state = self.0.state.lock();
        if position > state.position {
            return Err(Status::STD_ARGBAD);
        }
        state.ended = true;
        drop(state);
        self.0.came.notify_all();
        Ok(())
    }
}

impl State {
    /// Takes new bytes. `None`: they were taken, the answer has to wait for room.
    fn append(&mut self, data: Vec<u8>) -> Option<Result<(), Status>> {
        if !data.is_empty() {
            if self.ended {
                return Some(Err(CLOSED));
            }
            if self.size >= BUFFER_SIZE_MAX {
                // A process that does not wait for its answers.
                return Some(Err(Status::STD_NOSPACE));
            }
            self.position += data.len() as u64;
            self.size += data.len();
            self.pieces.push_back(data);
        }
        (self.size < BUFFER_SIZE_MAX).then_some(Ok(()))
    }
}
