//! Packet sockets: whole Ethernet frames in and out of one interface. They need CAP_NET_RAW.

use std::ffi::c_int;
use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

/// Frames that cross the border to the operating system at once.
pub(crate) const BATCH: usize = 64;
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER_SIZE: usize = 14;
/// Bytes that the operating system may keep for a socket until they are read, if it allows so many.
const RECEIVE_BUFFER: c_int = 16 << 20;

// <linux/if_packet.h>
const PACKET_ADD_MEMBERSHIP: c_int = 1;
const PACKET_DROP_MEMBERSHIP: c_int = 2;
const PACKET_STATISTICS: c_int = 6;
const PACKET_IGNORE_OUTGOING: c_int = 23;
const PACKET_MR_MULTICAST: u16 = 0;
// <linux/if_arp.h>
const ARPHRD_ETHER: u16 = 1;

/// What the operating system calls an interface in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its number.
    pub(crate) index: c_int,
    /// Its address on the Ethernet.
    pub(crate) mac: [u8; 6],
    /// Bytes that a frame may have behind its Ethernet header.
    pub(crate) mtu: usize,
    /// Whether its frames are those of an Ethernet.
    pub(crate) ethernet: bool,
}

impl Interface {
    /// Looks an interface up by name.
    pub(crate) fn find(name: &str) -> io::Result<Interface> {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let mut request = request_about(name)?;
        let mut ask = |what: libc::c_ulong| {
            // SAFETY: the request is a whole `ifreq`, which these calls read and fill.
            match unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw mut request) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(request.ifr_ifru),
            }
        };
        // SAFETY: after SIOCGIFINDEX the union holds the index.
        let index = unsafe { ask(libc::SIOCGIFINDEX as _)?.ifru_ifindex };
        // SAFETY: after SIOCGIFMTU the union holds the maximum.
        let mtu = unsafe { ask(libc::SIOCGIFMTU as _)?.ifru_mtu };
        // SAFETY: after SIOCGIFHWADDR the union holds the address, its kind in the place of the family.
        let address = unsafe { ask(libc::SIOCGIFHWADDR as _)?.ifru_hwaddr };
        let mut mac = [0; 6];
        for (byte, given) in mac.iter_mut().zip(address.sa_data) {
            *byte = given.cast_unsigned();
        }
        let ethernet = address.sa_family == ARPHRD_ETHER;
        Ok(Interface { index, mac, mtu: usize::try_from(mtu).unwrap_or(0), ethernet })
    }
}

/// The question about one interface, with zeros for what is asked.
pub(crate) fn request_about(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: an `ifreq` is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// A socket bound to one interface and one protocol. It does not block.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Frames with this ethertype that arrive at the interface `index`; 3 (ETH_P_ALL) for all of them.
    pub(crate) fn open(index: c_int, ethertype: u16) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0: nothing arrives before the socket is bound.
        // SAFETY: a call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let socket = PacketSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        // What leaves by this interface has not arrived at it. Systems that do not know the option show it: then the
        // frames are told by their source.
        let _ = socket.set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1 as &c_int);
        if socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER).is_err() {
            let _ = socket.set(libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER);
        }
        // SAFETY: a `sockaddr_ll` is plain data, for which zeros are a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = index;
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is whole, and `size` is its size.
        match unsafe { libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), size) } {
            0 => Ok(socket),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lets the interface take frames for this multicast address, or no longer.
    pub(crate) fn listen_to(&self, index: c_int, mac: [u8; 6], listen: bool) -> io::Result<()> {
        // SAFETY: a `packet_mreq` is plain data, for which zeros are a value.
        let mut request: libc::packet_mreq = unsafe { std::mem::zeroed() };
        request.mr_ifindex = index;
        request.mr_type = PACKET_MR_MULTICAST;
        request.mr_alen = 6;
        request.mr_address[..6].copy_from_slice(&mac);
        let name = if listen { PACKET_ADD_MEMBERSHIP } else { PACKET_DROP_MEMBERSHIP };
        self.set(libc::SOL_PACKET, name, &request)
    }

    /// Frames that the operating system has dropped since this was last asked, because nobody read them in time.
    pub(crate) fn take_overruns(&self) -> u64 {
        let mut statistics = [0u32; 2]; // packets, drops
        let mut size = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the operating system writes at most `size` bytes, and there are as many.
        let got = unsafe {
            let value = statistics.as_mut_ptr().cast();
            libc::getsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, PACKET_STATISTICS, value, &raw mut size)
        };
        if got == 0 { statistics[1].into() } else { 0 }
    }

    /// Reads the frames that have arrived, at most [`BATCH`]. How many those were: zero when there are none.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        let size_max = batch.frame_size_max;
        let mut slices: [MaybeUninit<libc::iovec>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        for (slice, frame) in slices.iter_mut().zip(batch.bytes.chunks_exact_mut(size_max)) {
            slice.write(libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: size_max });
        }
        let mut heads = heads();
        for (head, slice) in heads.iter_mut().zip(&mut slices) {
            head.msg_hdr.msg_iov = slice.as_mut_ptr();
            head.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every head names one slice of the batch, no two the same, and all outlive the call.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            let none = std::ptr::null_mut();
            libc::recvmmsg(self.0.as_raw_fd(), heads.as_mut_ptr(), BATCH as u32, flags as _, none)
        };
        let count = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => 0,
                error if error.kind() == io::ErrorKind::Interrupted => 0,
                error => return Err(error),
            },
        };
        for (size, head) in batch.sizes.iter_mut().zip(&heads[..count]) {
            let cut = head.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            *size = if cut { 0 } else { head.msg_len as usize };
        }
        Ok(count)
    }

    /// Sends frames, at most [`BATCH`] of them, each in three parts. How many were taken: those behind it were not looked at.
    ///
    /// # Errors
    /// About the first frame.
    pub(crate) fn send(&self, frames: &[[IoSlice<'_>; 3]]) -> io::Result<usize> {
        let frames = &frames[..frames.len().min(BATCH)];
        let mut heads = heads();
        for (head, frame) in heads.iter_mut().zip(frames) {
            // An `IoSlice` has the layout of an `iovec`; sending does not write through it.
            head.msg_hdr.msg_iov = frame.as_ptr().cast_mut().cast();
            head.msg_hdr.msg_iovlen = frame.len() as _;
        }
        // SAFETY: every head in use names the parts of one frame, which outlive the call and are only read.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::sendmmsg(self.0.as_raw_fd(), heads.as_mut_ptr(), frames.len() as u32, flags as _)
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn set<T>(&self, level: c_int, name: c_int, value: &T) -> io::Result<()> {
        let size = size_of::<T>() as libc::socklen_t;
        // SAFETY: the value is whole, and `size` is its size.
        let result = unsafe {
            libc::setsockopt(self.0.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn heads() -> [libc::mmsghdr; BATCH] {
    // SAFETY: an `mmsghdr` is plain data, for which zeros are a value: no address, no parts, no control data.
    unsafe { std::mem::zeroed() }
}

/// Room for frames that arrive.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sizes: [usize; BATCH],
    frame_size_max: usize,
}

impl Batch {
    /// Room for [`BATCH`] frames of at most this size.
    pub(crate) fn new(frame_size_max: usize) -> Batch {
        Batch { bytes: vec![0; BATCH * frame_size_max], sizes: [0; BATCH], frame_size_max }
    }

    /// A frame of those that were read last; empty when it was too large.
    pub(crate) fn frame(&self, number: usize) -> &[u8] {
        &self.bytes[number * self.frame_size_max..][..self.sizes[number]]
    }
}
