//! A process's end of a connection: blocking, whole frames.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use amoeba_threads::Instant;
use amoeba_wire::DATA_SIZE_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, shutdown, sockopt};

use super::{Assembler, ToKernel, ToProcess, receive_some, send_some};
use crate::fork::Origin;
use crate::look::{Look, Next};
use crate::threads::now;

/// Bytes that a socket may hold unread, where the system allows as much: with less, bulk data would change
/// processes more often than necessary.
const SOCKET_BUFFER_SIZE: usize = 1 << 20;

/// Bytes read at once when the size of what comes is not known yet.
const FIRST_READ_SIZE: usize = 4096;

/// The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the kernel is lost")]
pub(crate) struct Lost;

/// One connection to the kernel. Whoever took it may send and receive; PUTREP and FAIL may come in between from
/// other threads.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: OwnedFd,
    /// In a child that was forked, it is lost.
    origin: Origin,
    sending: Mutex<()>,
    /// How whoever receives waits; only one does.
    look: Mutex<Look>,
}

impl Stream {
    /// A stream over a connected socket.
    pub(crate) fn new(socket: OwnedFd) -> Stream {
        prepare(&socket);
        Stream { socket, origin: Origin::here(), sending: Mutex::new(()), look: Mutex::default() }
    }

    /// Sends a whole frame. After an error the kernel has certainly not received all of it.
    pub(crate) fn send(&self, frame: &ToKernel) -> Result<(), Lost> {
        self.send_with(frame, &[])
    }

    /// Sends a whole frame and the descriptors that belong to it.
    pub(crate) fn send_with(&self, frame: &ToKernel, descriptors: &[BorrowedFd<'_>]) -> Result<(), Lost> {
        self.is_ours()?;
        debug_assert!(frame.data().len() <= DATA_SIZE_MAX, "callers keep to the bound");
        let _whole_frames = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let head = frame.head();
        let mut sent = 0;
        while sent < head.bytes().len() + frame.data().len() {
            sent += send_some(&self.socket, &head, frame.data(), sent, descriptors, SendFlags::empty())
                .map_err(|_| Lost)?;
        }
        Ok(())
    }

    /// Waits for the next frame from the kernel, which must be alone: the kernel only answers.
    pub(crate) fn receive(&self) -> Result<ToProcess, Lost> {
        self.receive_with().map(|(frame, _)| frame)
    }

    /// Waits for the next frame, and the descriptors that belong to it: exactly as many as its kind has.
    pub(crate) fn receive_with(&self) -> Result<(ToProcess, Vec<OwnedFd>), Lost> {
        loop {
            if let Some(received) = self.receive_first(true)? {
                return Ok(received);
            }
        }
    }

    /// The next frame and its descriptors, if it begins to arrive while it is looked for.
    pub(crate) fn receive_soon(&self) -> Result<Option<(ToProcess, Vec<OwnedFd>)>, Lost> {
        self.receive_first(false)
    }

    fn receive_first(&self, sleep: bool) -> Result<Option<(ToProcess, Vec<OwnedFd>)>, Lost> {
        self.is_ours()?;
        let mut descriptors = Vec::new();
        let mut assembler = Assembler::default();
        let mut first = [0; FIRST_READ_SIZE];
        loop {
            let assembled = if assembler.missing() == 0 {
                let sleep = sleep || !assembler.is_idle();
                let Some(count) = self.wait_for(&mut first, &mut descriptors, sleep)? else {
                    return Ok(None);
                };
                let mut bytes = first.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(Lost)?;
                let assembled = assembler.feed(&mut bytes).map_err(|_| Lost)?;
                if !bytes.is_empty() {
                    return Err(Lost);
                }
                assembled
            } else {
                let count = self.receive_into(&mut assembler)?;
                // SAFETY: the system call has just initialised `count` bytes of the space.
                unsafe { assembler.filled(count) }
            };
            if let Some(assembled) = assembled {
                let expected = assembled.parts.kind.descriptors();
                let frame = ToProcess::parse(assembled.parts).map_err(|_| Lost)?;
                return if descriptors.len() == expected {
                    Ok(Some((frame, descriptors)))
                } else {
                    Err(Lost)
                };
            }
        }
    }

    /// Waits for the next bytes: looks for a moment, since the kernel may be about to answer, and then sleeps, or leaves
    /// that to the caller.
    fn wait_for(
        &self,
        bytes: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        sleep: bool,
    ) -> Result<Option<usize>, Lost> {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        look.slept(); // if whoever looked last left the rest to the caller
        loop {
            match receive_some(&self.socket, bytes, descriptors, RecvFlags::DONTWAIT) {
                Err(Errno::WOULDBLOCK) => {}
                received => {
                    look.found();
                    return received.map(Some).map_err(|_| Lost);
                }
            }
            if let Next::Sleep(_) = look.again() {
                break;
            }
        }
        if !sleep {
            return Ok(None); // how long that takes is seen when it is looked again
        }
        let received = receive_some(&self.socket, bytes, descriptors, RecvFlags::empty());
        look.slept();
        received.map(Some).map_err(|_| Lost)
    }

    fn receive_into(&self, assembler: &mut Assembler) -> Result<usize, Lost> {
        let space = assembler.space();
        loop {
            match recv(&self.socket, &mut *space, RecvFlags::WAITALL) {
                Ok((_, 0)) => return Err(Lost),
                Ok((_, count)) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Lost),
            }
        }
    }

    /// Waits until there is something to receive, or the connection is over; false when neither was so in time.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<bool, Lost> {
        self.is_ours()?;
        let Some(deadline) = deadline else { return Ok(true) };
        loop {
            let left = Timespec::try_from(deadline.since(now())).map_err(|_| Lost)?;
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Lost),
            }
        }
    }

    /// Ends the connection, also for threads that wait on it.
    pub(crate) fn end(&self) {
        if self.origin.is_here() {
            let _ = shutdown(&self.socket, Shutdown::Both); // it fails only when the other end was faster
        }
    }

    fn is_ours(&self) -> Result<(), Lost> {
        if self.origin.is_here() { Ok(()) } else { Err(Lost) }
    }

    /// Sends a frame and waits for its answer.
    pub(crate) fn ask(&self, frame: &ToKernel) -> Result<ToProcess, Lost> {
        self.send(frame)?;
        self.receive()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sets up a connected socket, at either end.
pub(crate) fn prepare(socket: &OwnedFd) {
    // Smaller buffers are slower, nothing else.
    let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_SIZE);
}
