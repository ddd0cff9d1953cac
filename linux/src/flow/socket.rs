//! The socket of one end of a flow: made by a kernel, connected to the other end, handed to a process.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, send, sendmsg, setsockopt, sockopt,
};

/// Datagrams that the operating system is given at once.
pub(crate) const SEGMENTS_MAX: usize = 60;
/// Bytes that the operating system may keep until they are read, if it allows so many.
const BUFFER_SIZE: usize = 4 << 20;
/// Datagrams that are older than this are not: the time of day was changed.
const AGE_MAX: Duration = Duration::from_secs(10);
/// Errors of earlier datagrams that one read passes over.
const ERRORS_MAX: usize = 8;

/// A socket that is not connected yet: in a kernel, while the other end is being made.
#[derive(Debug)]
pub(crate) struct Unconnected(UdpSocket);

impl Unconnected {
    /// A socket with an ephemeral port of this address.
    pub(crate) fn bind(local: IpAddr) -> io::Result<Unconnected> {
        let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_SIZE).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER_SIZE); // it does what it may
        }
        let _ = setsockopt(&socket, sockopt::SndBuf, &BUFFER_SIZE);
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true); // without it datagrams come one by one
        Ok(Unconnected(socket))
    }

    /// Its port.
    pub(crate) fn port(&self) -> io::Result<u16> {
        self.0.local_addr().map(|address| address.port())
    }

    /// Bytes of datagrams that it keeps until they are read.
    pub(crate) fn window(&self) -> usize {
        let buffer = nix::sys::socket::getsockopt(&self.0, sockopt::RcvBuf).unwrap_or(0);
        buffer / 4 // the bound counts what the system needs to keep a datagram, too
    }

    /// Nobody else can send to it from now on, and it sends to nobody else.
    pub(crate) fn connect(self, peer: SocketAddr) -> io::Result<OwnedFd> {
        self.0.connect(peer)?;
        Ok(self.0.into())
    }
}

/// A socket that is connected to the other end.
#[derive(Debug)]
pub(crate) struct FlowSocket {
    socket: OwnedFd,
    datagram_size: usize,
    /// The operating system does not cut batches.
    one_by_one: AtomicBool,
}

impl FlowSocket {
    /// A socket that a kernel has made.
    pub(crate) fn new(socket: OwnedFd, datagram_size: usize) -> FlowSocket {
        let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true); // without it they arrive when they are read
        FlowSocket { socket, datagram_size, one_by_one: AtomicBool::new(false) }
    }

    /// Bytes of its largest datagram.
    pub(crate) fn datagram_size(&self) -> usize {
        self.datagram_size
    }

    /// Sends datagrams of `segment` bytes each but the last. What cannot be sent is lost, as in a network.
    pub(crate) fn send(&self, datagrams: &[u8], segment: usize, wait: bool) {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        if datagrams.len() > segment && !self.one_by_one.load(Ordering::Relaxed) {
            match self.send_batch(datagrams, segment, flags) {
                Err(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP) => {
                    tracing::info!("datagrams of flows are sent one by one");
                    self.one_by_one.store(true, Ordering::Relaxed);
                }
                _ => return,
            }
        }
        for datagram in datagrams.chunks(segment.max(1)) {
            for _ in 0..ERRORS_MAX {
                // An error of an earlier datagram is told here, and then this one was not sent.
                match send(self.socket.as_raw_fd(), datagram, flags | MsgFlags::MSG_NOSIGNAL) {
                    Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
                    _ => break,
                }
            }
        }
    }

    fn send_batch(&self, datagrams: &[u8], segment: usize, flags: MsgFlags) -> Result<(), Errno> {
        let slices = [IoSlice::new(datagrams)];
        let size = u16::try_from(segment).map_err(|_| Errno::EINVAL)?;
        let control = [ControlMessage::UdpGsoSegments(&size)];
        for _ in 0..ERRORS_MAX {
            match sendmsg::<()>(
                self.socket.as_raw_fd(),
                &slices,
                &control,
                flags | MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
                other => return other.map(|_| ()),
            }
        }
        Ok(())
    }

    /// Reads once. `None`: there is nothing.
    pub(crate) fn receive(&self, scratch: &mut [u8]) -> Option<Batch> {
        let mut control = nix::cmsg_space!(i32, nix::libc::timespec);
        for _ in 0..ERRORS_MAX {
            let mut slices = [IoSliceMut::new(scratch)];
            let received = recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            );
            match received {
                Ok(received) => {
                    let size = received.bytes;
                    let mut batch = Batch { size, segment: size, age: Duration::ZERO };
                    for message in received.cmsgs().ok()? {
                        match message {
                            ControlMessageOwned::UdpGroSegments(size) => {
                                batch.segment = usize::try_from(size).ok()?;
                            }
                            ControlMessageOwned::ScmTimestampns(at) => batch.age = age(at.into()),
                            _ => {}
                        }
                    }
                    return Some(batch);
                }
                Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// What was read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Bytes of all its datagrams.
    pub(crate) size: usize,
    /// Bytes of each datagram but the last.
    pub(crate) segment: usize,
    /// How long ago it arrived.
    pub(crate) age: Duration,
}

/// How long ago that was by the time of day, which may have jumped meanwhile.
fn age(at: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.checked_sub(at).filter(|age| *age < AGE_MAX).unwrap_or_default()
}

impl AsFd for FlowSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_as_datagrams() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let (one, other) = (Unconnected::bind(local).unwrap(), Unconnected::bind(local).unwrap());
        let address = |socket: &Unconnected| SocketAddr::new(local, socket.port().unwrap());
        let (to_one, to_other) = (address(&one), address(&other));
        assert!(one.window() > 0);
        let one = FlowSocket::new(one.connect(to_other).unwrap(), 1200);
        let other = FlowSocket::new(other.connect(to_one).unwrap(), 1200);
        let sent: Vec<u8> = (0..3000u32).map(|index| index as u8).collect();
        one.send(&sent, 1200, true);
        one.send(&sent[..7], 7, true);
        let (mut got, mut scratch) = (Vec::new(), vec![0; 1 << 16]);
        while let Some(Batch { size, segment, .. }) = other.receive(&mut scratch) {
            got.extend(scratch[..size].chunks(segment).map(<[u8]>::to_vec));
        }
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [1200, 1200, 600, 7]);
        assert_eq!(got[..3].concat(), sent);
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(b"x", to_other).unwrap();
        assert_eq!(other.receive(&mut scratch), None, "nobody but the other end is heard");
        drop(one);
        other.send(b"y", 1, true);
        other.send(b"y", 1, true); // an end that is gone is no error
        assert_eq!(other.receive(&mut scratch), None);
    }
}
