//! A network of a guest's own: one loopback interface, and no way out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network name space. It is there as long as somebody holds this or is in it.
#[derive(Debug)]
pub(super) struct Network(OwnedFd);

impl Network {
    /// Makes one, whose loopback interface is up. The caller stays where it is.
    ///
    /// # Errors
    /// It takes privilege over this user namespace, and a kernel that has network name spaces.
    pub(super) fn make() -> io::Result<Network> {
        // A thread that goes there and ends: the way back takes privilege that this process may not have.
        let thread = std::thread::Builder::new().name("network".into()).spawn(|| {
            // SAFETY: what becomes the thread's own are its interfaces and addresses; it shares memory and files as before.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            raise_loopback()?;
            File::open("/proc/thread-self/ns/net").map(|file| Network(file.into()))
        })?;
        thread.join().map_err(|_| io::Error::other("the thread that made a network died"))?
    }

    /// The calling thread goes there. Neither allocates nor locks.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// Gives the loopback interface of the calling thread's network its addresses.
fn raise_loopback() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_flags(socket.as_fd(), libc::IFF_UP | libc::IFF_RUNNING)
}

fn set_flags(socket: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: zeros are a valid request: an empty name, no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("these flags are in the lower half");
    // SAFETY: the request is as this ioctl takes it, and lives until it returns.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ones_own_is_a_loopback_interface_and_nothing_else() {
        let Ok(network) = Network::make() else {
            return eprintln!("SKIPPED: no network name space can be made here");
        };
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        std::thread::spawn(move || {
            network.enter().unwrap();
            assert_ne!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), ours);
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let interfaces = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let names = interfaces.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
            // Kernels with old tunnels built in have them everywhere, all of them down.
            assert!(names.clone().any(|name| name == "lo"));
            let away = std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "192.0.2.1:9");
            assert_eq!(away.unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
        })
        .join()
        .unwrap();
    }
}
