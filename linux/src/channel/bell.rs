//! Bells: how a process that sleeps is woken by the one process that may wake it, and by the kernel.
//!
//! A bell is a pipe. The sleeper alone holds the end that is read. The ringer and the kernel each hold an opening of
//! their own of the other end, so that neither can change how the other's writes block; and they open it for reading too,
//! so that ringing for a process which is gone is no signal. When ringer and kernel are both gone, the sleeper wakes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// The byte of an ordinary ring.
const RING: u8 = 1;
/// The byte by which the kernel says that the channel is over. A peer that forges it ends its own channel.
const REVOKED: u8 = 2;
/// Bytes that a pipe may hold: a ringer rings once for each sleep, so that more than a few are an attack.
const HELD_MAX: usize = 4096;

/// The three parts of a new bell.
#[derive(Debug)]
pub(crate) struct Bell {
    /// For the process that sleeps.
    pub(crate) ear: OwnedFd,
    /// For the process that wakes it.
    pub(crate) rope: OwnedFd,
    /// For the kernel.
    pub(crate) keeper: Keeper,
}

impl Bell {
    /// A new bell.
    pub(crate) fn new() -> io::Result<Bell> {
        let (ear, end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A larger one would work as well: this is what a user may have many of.
        let _ = fcntl_setpipe_size(&end, HELD_MAX);
        let again = || {
            let path = format!("/proc/self/fd/{}", end.as_raw_fd());
            open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        };
        Ok(Bell { rope: again()?, keeper: Keeper(again()?), ear })
    }
}

/// The kernel's part of a bell.
#[derive(Debug)]
pub(crate) struct Keeper(OwnedFd);

impl Keeper {
    /// Tells the sleeper that the channel is over. A pipe that is full says so by itself.
    pub(crate) fn revoke(&self) {
        let _ = retry_on_intr(|| write(&self.0, &[REVOKED]));
    }
}

/// What rings.
#[derive(Debug)]
pub(crate) struct Rope(OwnedFd);

impl Rope {
    /// The ringer's part of a bell.
    pub(crate) fn new(rope: OwnedFd) -> Rope {
        Rope(rope)
    }

    /// Wakes the sleeper. Where the pipe is full it is awake already, or will find out.
    pub(crate) fn ring(&self) {
        let _ = retry_on_intr(|| write(&self.0, &[RING]));
    }
}

/// What a sleeper heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing, or what it was to be woken for.
    Rung,
    /// The channel is over.
    Over,
}

/// What is slept on.
#[derive(Debug)]
pub(crate) struct Ear(OwnedFd);

impl Ear {
    /// The sleeper's part of a bell.
    pub(crate) fn new(ear: OwnedFd) -> Ear {
        Ear(ear)
    }

    /// Takes what was rung, without waiting.
    pub(crate) fn hear(&self) -> Heard {
        let mut bytes = [MaybeUninit::uninit(); HELD_MAX];
        match retry_on_intr(|| {
            read(&self.0, &mut bytes[..]).map(|(heard, _)| (heard.len(), heard.contains(&REVOKED)))
        }) {
            Err(Errno::AGAIN) | Ok((1..HELD_MAX, false)) => Heard::Rung,
            _ => Heard::Over,
        }
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_heard_and_so_is_the_end() {
        let Bell { ear, rope, keeper } = Bell::new().unwrap();
        let (ear, rope) = (Ear::new(ear), Rope::new(rope));
        assert_eq!(ear.hear(), Heard::Rung, "silence is no end");
        rope.ring();
        rope.ring();
        assert_eq!(ear.hear(), Heard::Rung);
        keeper.revoke();
        assert_eq!(ear.hear(), Heard::Over);
        drop(rope);
        assert_eq!(ear.hear(), Heard::Rung, "the kernel still holds it");
        drop(keeper);
        assert_eq!(ear.hear(), Heard::Over);
    }

    #[test]
    fn who_rings_without_end_ends_its_channel_and_blocks_nobody() {
        let Bell { ear, rope, keeper } = Bell::new().unwrap();
        rustix::fs::fcntl_setfl(&rope, OFlags::RDWR).unwrap(); // the ringer's writes block from now on
        rustix::io::write(&rope, &[RING; HELD_MAX]).unwrap();
        keeper.revoke(); // and the kernel's do not
        assert_eq!(Ear::new(ear).hear(), Heard::Over);
    }

    #[test]
    fn ringing_for_nobody_is_no_signal() {
        let Bell { ear, rope, keeper } = Bell::new().unwrap();
        drop(ear);
        Rope::new(rope).ring();
        keeper.revoke();
    }
}
