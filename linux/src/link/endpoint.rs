//! The socket of a UDP link: batches, and datagrams that nobody on the way may cut.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

/// The largest datagram, and the most bytes that the operating system cuts into datagrams.
pub(crate) const DATAGRAM_SIZE_MAX: usize = 65_507;
/// Datagrams that the operating system is given at once.
pub(crate) const SEGMENTS_MAX: usize = 60;
/// Bytes that the operating system may keep for this socket until they are read, if it allows so many.
const RECEIVE_BUFFER: usize = 4 << 20;

/// See the module.
pub(crate) struct Endpoint {
    socket: UdpSocket,
    local: SocketAddr,
    control: Vec<u8>,
    /// Bytes that the operating system keeps until they are read.
    buffer: usize,
}

/// What was read at once: datagrams of one sender, each of `segment` bytes but the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) size: usize,
    pub(crate) segment: usize,
    pub(crate) from: SocketAddr,
}

impl Endpoint {
    /// A socket at this address; one at `[::]` takes IPv4, too.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Endpoint> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let buffer = enlarge(&socket);
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true); // without it datagrams come one by one
        // Sizes are found by the link itself, so nobody cuts, and what the system believes of a way does not count.
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
        if local.is_ipv6() {
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
        }
        Ok(Endpoint { socket, local, control: nix::cmsg_space!(i32), buffer })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn buffer(&self) -> usize {
        self.buffer
    }

    /// Whether datagrams can be sent to this address at all.
    pub(crate) fn reaches(&self, address: SocketAddr) -> bool {
        self.local.is_ipv6() || address.is_ipv4()
    }

    /// Sends `bytes`: one datagram, or as many of `segment` bytes as they make.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> nix::Result<usize> {
        let size = u16::try_from(segment).unwrap_or(u16::MAX);
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let control = if bytes.len() > segment { &control[..] } else { &[] };
        let to = SockaddrStorage::from(self.spelled(to));
        sendmsg(self.socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_DONTWAIT, Some(&to))
    }

    /// An address as this socket wants it: IPv4 is a part of IPv6 to one of IPv6.
    fn spelled(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.local.is_ipv6() => {
                let mapped: Ipv6Addr = v4.ip().to_ipv6_mapped();
                SocketAddr::V6(SocketAddrV6::new(mapped, v4.port(), 0, 0))
            }
            address => address,
        }
    }

    /// Reads once. What came from nowhere is not there.
    pub(crate) fn receive(&mut self, scratch: &mut [u8]) -> nix::Result<Option<Received>> {
        let mut slices = [IoSliceMut::new(scratch)];
        let (descriptor, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let received =
            recvmsg::<SockaddrStorage>(descriptor, &mut slices, Some(self.control.as_mut_slice()), flags)?;
        let segment = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let from = received.address.as_ref().and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
        });
        let size = received.bytes;
        Ok(from.map(|from| Received { size, segment: segment.unwrap_or(size).max(1), from: plain(from) }))
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An address in the one form in which it compares equal however it came: without flow label, and IPv4 as IPv4.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())),
        },
        v4 => v4,
    }
}

/// Lets the operating system keep more for the socket; how much it does.
fn enlarge(socket: &UdpSocket) -> usize {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER); // it does what it may
    }
    let _ = setsockopt(socket, sockopt::SndBuf, &RECEIVE_BUFFER);
    nix::sys::socket::getsockopt(socket, sockopt::RcvBuf).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(endpoint: &mut Endpoint, scratch: &mut [u8]) -> Received {
        loop {
            match endpoint.receive(scratch) {
                Ok(Some(received)) => return received,
                Ok(None) => {}
                Err(nix::errno::Errno::EAGAIN) => std::thread::yield_now(),
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    #[test]
    fn one_socket_speaks_both_families() {
        let mut both = Endpoint::bind("[::]:0".parse().unwrap()).unwrap();
        let mut scratch = vec![0; 1 << 16];
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let mut one = Endpoint::bind(local.parse().unwrap()).unwrap();
            let port = both.local().port();
            let to = SocketAddr::new(one.local().ip(), port);
            one.send(to, b"there", 5).unwrap();
            let received = receive(&mut both, &mut scratch);
            assert_eq!((received.from, &scratch[..received.size]), (one.local(), &b"there"[..]));
            both.send(received.from, b"back", 4).unwrap();
            let received = receive(&mut one, &mut scratch);
            assert_eq!(received.from, to);
        }
    }

    #[test]
    fn many_datagrams_are_one_call() {
        let mut to = Endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let from = Endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let bytes: Vec<u8> = (0..1000u32).map(|byte| byte as u8).collect();
        from.send(to.local(), &bytes, 300).unwrap();
        let (mut scratch, mut datagrams) = (vec![0; 1 << 16], Vec::new());
        while datagrams.len() < 4 {
            let received = receive(&mut to, &mut scratch);
            datagrams.extend(scratch[..received.size].chunks(received.segment).map(<[u8]>::to_vec));
        }
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [300, 300, 300, 100]);
        assert_eq!(datagrams.concat(), bytes);
    }
}
