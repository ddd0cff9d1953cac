//! What the machine can do with no Amoeba at all.
//!
//! Round trips of 32 bytes (a transaction header) each way, bulk of 1 MiB, and starting a program. The far end of a
//! socket is another process; the far end of shared memory is another thread, because sharing memory between processes
//! needs `unsafe`, which only `linux` has: the wake-ups, which are the cost, are the same.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::thread::futex;

use crate::report::median_time;

/// First argument of the program when it is the far end of a socket.
pub(crate) const FAR_END: &str = "far-end";

/// Bytes of a bulk reply.
pub(crate) const BULK: usize = 1 << 20;

const HEADER: usize = 32;
/// What one send of a packet socket carries in bulk.
const PACKET: usize = 64 << 10;
/// How long the yielding wait looks before it sleeps (design: channels).
const YIELD: Duration = Duration::from_micros(20);

/// The far end in another process; it ends when its socket does.
struct FarEnd {
    socket: Option<OwnedFd>,
    child: Child,
}

impl FarEnd {
    fn start(kind: &str, socket_type: SocketType) -> Result<FarEnd> {
        let (near, far) = socketpair(AddressFamily::UNIX, socket_type, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(std::env::current_exe()?)
            .args([FAR_END, kind])
            .stdin(Stdio::from(far))
            .spawn()
            .context("starting the far end")?;
        Ok(FarEnd { socket: Some(near), child })
    }

    fn socket(&self) -> &OwnedFd {
        self.socket.as_ref().expect("the socket is there until the drop")
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = self.child.wait();
    }
}

/// What the program does when it was started as a far end: its stdin is the socket.
pub(crate) fn far_end(kind: &str) -> Result<()> {
    let socket = std::io::stdin();
    let bulk = vec![7; BULK];
    let mut request = [0; HEADER];
    match kind {
        "packet" => loop {
            let (size, _) = recv(&socket, &mut request, RecvFlags::empty())?;
            if size == 0 {
                return Ok(());
            }
            let reply = if request[0] == 0 { &bulk[..HEADER] } else { &bulk[..] };
            for packet in reply.chunks(PACKET) {
                send(&socket, packet, SendFlags::empty())?;
            }
        },
        "stream" => {
            let mut stream = std::os::unix::net::UnixStream::from(socket.as_fd().try_clone_to_owned()?);
            while stream.read_exact(&mut request).is_ok() {
                stream.write_all(if request[0] == 0 { &bulk[..HEADER] } else { &bulk })?;
            }
            Ok(())
        }
        other => bail!("no far end `{other}`"),
    }
}

/// A round trip of a header over a Unix packet socket to another process.
pub(crate) fn unix_packet(count: usize) -> Result<Duration> {
    let far = FarEnd::start("packet", SocketType::SEQPACKET)?;
    let mut reply = [0; HEADER];
    median_time(count, || {
        send(far.socket(), &[0; HEADER], SendFlags::empty())?;
        let (size, _) = recv(far.socket(), &mut reply, RecvFlags::empty())?;
        ensure!(size == HEADER, "the far end is gone");
        Ok(())
    })
}

/// A bulk reply over a Unix packet socket.
pub(crate) fn unix_packet_bulk(count: usize) -> Result<Duration> {
    let far = FarEnd::start("packet", SocketType::SEQPACKET)?;
    let mut reply = vec![0; BULK];
    median_time(count, || {
        send(far.socket(), &[1; HEADER], SendFlags::empty())?;
        let mut got = 0;
        while got < BULK {
            let (size, _) = recv(far.socket(), &mut reply[got..], RecvFlags::empty())?;
            ensure!(size > 0, "the far end is gone");
            got += size;
        }
        Ok(())
    })
}

/// A round trip of a header over a Unix stream socket to another process.
pub(crate) fn unix_stream(count: usize) -> Result<Duration> {
    stream(count, 0, HEADER)
}

/// A bulk reply over a Unix stream socket.
pub(crate) fn unix_stream_bulk(count: usize) -> Result<Duration> {
    stream(count, 1, BULK)
}

fn stream(count: usize, wish: u8, reply_size: usize) -> Result<Duration> {
    let far = FarEnd::start("stream", SocketType::STREAM)?;
    let mut stream = std::os::unix::net::UnixStream::from(far.socket().try_clone()?);
    let mut reply = vec![0; reply_size];
    median_time(count, || {
        stream.write_all(&[wish; HEADER])?;
        stream.read_exact(&mut reply)?;
        Ok(())
    })
}

/// How one side of shared memory waits for the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Sleeps at once.
    Sleep,
    /// Looks and yields the core for a bounded time, then sleeps.
    Yield,
}

/// A number that one side sets and the other waits for, a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Bell {
    number: AtomicU32,
    sleeps: AtomicU32,
}

impl Bell {
    fn ring(&self, number: u32) {
        self.number.store(number, Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(&self.number, futex::Flags::empty(), 1);
        }
    }

    /// Waits for another number than `old` and returns it.
    fn wait(&self, old: u32, how: Wait) -> u32 {
        let start = Instant::now();
        while how == Wait::Yield && start.elapsed() < YIELD {
            let number = self.number.load(Ordering::Acquire);
            if number != old {
                return number;
            }
            rustix::thread::sched_yield();
        }
        loop {
            self.sleeps.store(1, Ordering::SeqCst);
            let number = self.number.load(Ordering::SeqCst);
            if number != old {
                self.sleeps.store(0, Ordering::Relaxed);
                return number;
            }
            // A wake-up for nothing and a number that changed already both lead back to the look above.
            let _ = futex::wait(&self.number, futex::Flags::empty(), old, None);
        }
    }
}

/// A round trip over shared memory.
pub(crate) fn shared_memory(count: usize, how: Wait) -> Result<Duration> {
    const END: u32 = u32::MAX;
    let bells = Arc::new((Bell::default(), Bell::default()));
    let far = std::thread::spawn({
        let bells = bells.clone();
        move || {
            let mut last = 0;
            while last != END {
                last = bells.0.wait(last, how);
                bells.1.ring(last);
            }
        }
    });
    let mut number = 0;
    let time = median_time(count, || {
        number += 1;
        bells.0.ring(number);
        bells.1.wait(number - 1, how);
        Ok(())
    });
    bells.0.ring(END);
    far.join().ok().context("the far thread panicked")?;
    time
}

/// A copy of a bulk's bytes, warm.
pub(crate) fn copy(count: usize) -> Result<Duration> {
    let from = vec![7_u8; BULK];
    let mut to = vec![0_u8; BULK];
    median_time(count, || {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_comes_back_either_way() {
        for how in [Wait::Sleep, Wait::Yield] {
            shared_memory(100, how).unwrap();
        }
    }
}
