//! Ways: sockets on which memory files go from process to process, past the daemon.
//!
//! The first file that a process lends to another is put on a new way, and the daemon passes on the way, under a ticket. From
//! then on the ticket names the way and the file's number on it: the file is on the way before its ticket is in a
//! reply, so whoever comes for it finds it there, and neither waits for the daemon.
//!
//! ```text
//!  63        48 47                            0
//! ┌────────────┬──────────────────────────────┐
//! │ number     │ the daemon's ticket          │   number 0: the daemon's ticket itself, and the first file on a way
//! └────────────┴──────────────────────────────┘
//! ```
//! What is on a way and was not taken is lent, so a way holds few files: a borrower that does not come is lent no more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use amoeba_wire::packet::Address;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair, sockopt,
};

use super::lock;
use crate::socket::receive_some;

/// Ways to others, and from others, that a process keeps; past it the one that was unused for longest goes.
pub(super) const WAYS_MAX: usize = 64;
/// What the system may keep of what is on one way, in bytes: some twenty files.
const WAY_SIZE: usize = 8 << 10;
/// Files that were taken off a way for others who have not come for them yet; past it the oldest goes back.
const EARLY_MAX: usize = 16;
/// Bits of the daemon's ticket.
const ID_BITS: u32 = 48;
const ID_MAX: u64 = (1 << ID_BITS) - 1;

/// A new way: the lender's end, and the borrower's.
pub(super) fn way() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_send_buffer_size(&ours, WAY_SIZE)?;
    Ok((ours, theirs))
}

/// Whether a descriptor may be a way.
pub(crate) fn is_way(socket: impl AsFd) -> bool {
    sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(&socket) == Ok(SocketType::SEQPACKET)
}

/// The daemon's ticket in a ticket, and the number of the file.
pub(super) fn parts(ticket: u64) -> (u64, u16) {
    (ticket & ID_MAX, (ticket >> ID_BITS) as u16)
}

/// Puts a file on a way.
pub(super) fn put(way: &OwnedFd, number: u16, file: &OwnedFd) -> Result<(), Errno> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [file.as_fd()];
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    assert!(fits, "there is room for one");
    let bytes = number.to_le_bytes();
    // A borrower that is gone is an error of this call, and one that does not come is not waited for.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(way, &[io::IoSlice::new(&bytes)], &mut ancillary, flags).map(drop)
}

/// What came of putting a file on the way to a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// Its ticket.
    Ticket(u64),
    /// The process does not come for what is there.
    Full,
    /// There is no way.
    NoWay,
}

struct Outward {
    to: Address,
    id: u64,
    socket: OwnedFd,
    last: u16,
}

/// The ways to those who borrow.
#[derive(Default)]
pub(super) struct Outwards(Mutex<Vec<Outward>>);

impl Outwards {
    /// Puts a file on the way to a process.
    pub(super) fn put(&self, to: Address, file: &OwnedFd) -> Put {
        let mut ways = lock(&self.0);
        let Some(index) = ways.iter().position(|way| way.to == to) else { return Put::NoWay };
        let mut way = ways.remove(index);
        let number = way.last.checked_add(1).unwrap_or(1);
        match put(&way.socket, number, file) {
            Ok(()) => way.last = number,
            Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS) => {
                ways.push(way);
                return Put::Full;
            }
            Err(_) => return Put::NoWay,
        }
        let ticket = u64::from(number) << ID_BITS | way.id;
        ways.push(way);
        Put::Ticket(ticket)
    }

    /// Keeps a way on which its first file is, and which the daemon passes on under this ticket.
    pub(super) fn keep(&self, to: Address, ticket: u64, socket: OwnedFd) {
        let (id, 0) = parts(ticket) else { return }; // the daemon's tickets do not get there in a lifetime
        let mut ways = lock(&self.0);
        // Another thread may have made one too; what is on that one can still be taken off it.
        ways.retain(|way| way.to != to);
        if ways.len() >= WAYS_MAX {
            ways.remove(0);
        }
        ways.push(Outward { to, id, socket, last: 0 });
    }
}

struct Inward {
    id: u64,
    socket: OwnedFd,
    /// Taken off it for others.
    early: Vec<(u16, OwnedFd)>,
}

/// What came of taking a file off a way.
#[derive(Debug)]
pub(super) enum Taken {
    File(OwnedFd),
    /// It is not there, or its lender is gone.
    Nothing,
    /// There is no such way.
    NoWay,
}

/// The ways from those who lend.
#[derive(Default)]
pub(super) struct Inwards {
    ways: Mutex<Vec<Inward>>,
    /// Held while the daemon is asked for one, so that of all who want it one asks.
    pub(super) asking: Mutex<()>,
}

impl Inwards {
    /// Keeps a way that the daemon has passed on under this ticket.
    pub(super) fn keep(&self, id: u64, socket: OwnedFd) {
        let mut ways = lock(&self.ways);
        let oldest = (ways.len() >= WAYS_MAX).then(|| ways.remove(0));
        ways.push(Inward { id, socket, early: Vec::new() });
        drop((ways, oldest));
    }

    /// Takes a file off a way.
    pub(super) fn take(&self, id: u64, number: u16) -> Taken {
        let mut ways = lock(&self.ways);
        let Some(index) = ways.iter().position(|way| way.id == id) else { return Taken::NoWay };
        let mut way = ways.remove(index);
        let mut unwanted = Vec::new();
        let taken = way.take(number, &mut unwanted);
        if let Ok(file) = taken {
            ways.push(way);
            drop((ways, unwanted)); // whatever a lender has sent is closed without the lock
            return file.map_or(Taken::Nothing, Taken::File);
        }
        drop((ways, way, unwanted));
        Taken::Nothing
    }
}

impl Inward {
    /// The file of this number, if it is there; an error when the way is over.
    fn take(&mut self, number: u16, unwanted: &mut Vec<OwnedFd>) -> Result<Option<OwnedFd>, Errno> {
        if let Some(index) = self.early.iter().position(|(early, _)| *early == number) {
            return Ok(Some(self.early.remove(index).1));
        }
        // A lender that sends without end is read no further than this.
        for _ in 0..2 * EARLY_MAX {
            let mut bytes = [0; 3];
            let mut files = Vec::new();
            let received = receive_some(&self.socket, &mut bytes, &mut files, RecvFlags::DONTWAIT);
            let file = files.pop();
            unwanted.extend(files);
            let (size, file) = match (received, file) {
                (Ok(size), Some(file)) => (size, file),
                (Err(Errno::AGAIN), None) => return Ok(None),
                (received, file) => {
                    unwanted.extend(file);
                    return Err(received.err().unwrap_or(Errno::BADMSG));
                }
            };
            let ([low, high, _], 2) = (bytes, size) else {
                unwanted.push(file);
                return Err(Errno::BADMSG);
            };
            match u16::from_le_bytes([low, high]) {
                this if this == number => return Ok(Some(file)),
                other => self.early.push((other, file)),
            }
            if self.early.len() > EARLY_MAX {
                unwanted.push(self.early.remove(0).1);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: Address = Address([1; 8]);

    fn file(text: &[u8]) -> OwnedFd {
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, text, 0).unwrap();
        file
    }

    fn text(taken: Taken) -> Vec<u8> {
        let Taken::File(file) = taken else { panic!("{taken:?}") };
        let mut bytes = [0; 8];
        let size = rustix::io::pread(&file, &mut bytes, 0).unwrap();
        bytes[..size].to_vec()
    }

    fn ticket(put: Put) -> (u64, u16) {
        let Put::Ticket(ticket) = put else { panic!("{put:?}") };
        parts(ticket)
    }

    fn system() -> (Outwards, Inwards) {
        let (out, back) = (Outwards::default(), Inwards::default());
        let (ours, theirs) = way().unwrap();
        assert!(is_way(&theirs) && !is_way(file(b"")));
        put(&ours, 0, &file(b"first")).unwrap();
        out.keep(ANNA, 77, ours);
        back.keep(77, theirs);
        (out, back)
    }

    #[test]
    fn files_are_taken_in_any_order_and_once() {
        let (out, back) = system();
        let tickets: Vec<_> = (0..3).map(|_| ticket(out.put(ANNA, &file(b"more")))).collect();
        assert_eq!(tickets, [(77, 1), (77, 2), (77, 3)]);
        assert_eq!(text(back.take(77, 2)), b"more");
        assert_eq!(text(back.take(77, 0)), b"first");
        assert_eq!(text(back.take(77, 3)), b"more");
        assert!(matches!(back.take(77, 3), Taken::Nothing));
        assert_eq!(text(back.take(77, 1)), b"more");
        assert!(matches!(back.take(78, 1), Taken::NoWay));
        assert_eq!(out.put(Address([2; 8]), &file(b"")), Put::NoWay);
    }

    #[test]
    fn numbers_begin_anew_and_never_with_that_of_the_daemons_tickets() {
        let (out, back) = system();
        let thing = file(b"x");
        back.take(77, 0);
        for turn in 0..u32::from(u16::MAX) + 2 {
            let (id, number) = ticket(out.put(ANNA, &thing));
            assert_eq!((id, u32::from(number)), (77, turn % u32::from(u16::MAX) + 1));
            assert_eq!(text(back.take(id, number)), b"x");
        }
    }

    #[test]
    fn a_borrower_that_does_not_come_is_lent_few() {
        let (out, back) = system();
        let lent = (0..1000).take_while(|_| matches!(out.put(ANNA, &file(b"x")), Put::Ticket(_))).count();
        assert!((EARLY_MAX..40).contains(&lent), "{lent}");
        assert_eq!(out.put(ANNA, &file(b"x")), Put::Full);
        assert_eq!(text(back.take(77, 0)), b"first");
        assert_eq!(
            ticket(out.put(ANNA, &file(b"x"))),
            (77, lent as u16 + 1),
            "as soon as it comes it is lent more"
        );
    }

    #[test]
    fn an_end_that_is_gone_ends_the_way() {
        let (out, back) = system();
        drop(back);
        assert_eq!(out.put(ANNA, &file(b"x")), Put::NoWay);
        let (out, back) = system();
        drop(out);
        assert_eq!(text(back.take(77, 0)), b"first", "what is on it can still be taken");
        assert!(matches!(back.take(77, 1), Taken::Nothing));
        assert!(matches!(back.take(77, 1), Taken::NoWay));
    }

    #[test]
    fn what_no_lender_sends_ends_the_way_and_nothing_else() {
        let garbage: [&[u8]; 4] = [b"", b"1", b"123", b"1234567"];
        for bytes in garbage {
            let back = Inwards::default();
            let (ours, theirs) = way().unwrap();
            back.keep(5, theirs);
            rustix::net::send(&ours, bytes, SendFlags::empty()).unwrap();
            assert!(matches!(back.take(5, 0), Taken::Nothing));
            assert!(matches!(back.take(5, 0), Taken::NoWay));
        }
        let back = Inwards::default();
        let (ours, theirs) = way().unwrap();
        back.keep(5, theirs);
        let thing = file(b"x");
        for turn in 0..100 {
            if put(&ours, 9, &thing).is_err() {
                assert!(matches!(back.take(5, 1), Taken::Nothing), "{turn}");
            }
        }
        let kept = back.ways.lock().unwrap()[0].early.len();
        assert!(kept <= EARLY_MAX, "{kept}");
    }

    #[test]
    fn a_process_keeps_so_many_ways() {
        let (out, back) = system();
        let mut others = Vec::new();
        for id in 0..WAYS_MAX as u64 {
            let (ours, theirs) = way().unwrap();
            out.keep(Address((id + 1000).to_le_bytes()), id, ours);
            others.push(theirs);
            let (ours, theirs) = way().unwrap();
            back.keep(id, theirs);
            put(&ours, 0, &file(b"x")).unwrap();
        }
        assert_eq!(out.put(ANNA, &file(b"x")), Put::NoWay, "unused for longest");
        assert!(matches!(back.take(77, 0), Taken::NoWay));
        assert_eq!(text(back.take(0, 0)), b"x");
    }
}
