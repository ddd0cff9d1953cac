//! Lending and borrowing memory files: the first between two processes through the daemon, the others on the [`ways`] that it passed on.

use std::os::fd::{AsFd, OwnedFd};

use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{Error, Memory};

use super::session::Session;
use super::ways::{self, Put, Taken};
use super::{Client, Refused, lock};
use crate::lent;
use crate::socket::{ToKernel, ToProcess};

impl Client {
    /// Lends an opening of a sealed memory file to a process; its ticket. Who needs it most can do without, so a daemon
    /// that is not there, or a process that does not come for what it was lent, is not waited for.
    pub(crate) fn lend(&self, to: Address, file: OwnedFd) -> Result<u64, Error> {
        let session = self.session()?;
        match session.outwards.put(to, &file) {
            Put::Ticket(ticket) => return Ok(ticket),
            Put::Full => return Err(Error::NotSent(Status::RPC_TRYAGAIN)),
            Put::NoWay => {}
        }
        let Ok((ours, theirs)) = ways::way() else { return lend_through_kernel(&session, to, &file) };
        ways::put(&ours, 0, &file).map_err(|_| Error::NotSent(Status::RPC_TRYAGAIN))?;
        drop(file);
        let ticket = lend_through_kernel(&session, to, &theirs)?;
        session.outwards.keep(to, ticket, ours);
        Ok(ticket)
    }

    /// What was lent to this process under a ticket.
    pub(super) fn borrow(&self, ticket: u64) -> Result<Memory, Error> {
        let session = self.session()?;
        let (id, number) = ways::parts(ticket);
        let file = match session.inwards.take(id, number) {
            Taken::File(file) => file,
            Taken::Nothing => return Err(Error::NotSent(Status::STD_NOTFOUND)),
            Taken::NoWay => borrow_from_kernel(&session, id, number)?,
        };
        lent::borrowed(file)
    }
}

fn lend_through_kernel(session: &Session, to: Address, lent: &OwnedFd) -> Result<u64, Error> {
    match pass(session, &ToKernel::Lend { to }, &[lent.as_fd()])? {
        (ToProcess::Ticket { ticket }, _) => Ok(ticket),
        (ToProcess::Error { error }, _) => Err(error),
        _ => Err(Error::BadReply),
    }
}

/// What the kernel keeps for this process: the file, or the way on which it is.
fn borrow_from_kernel(session: &Session, id: u64, number: u16) -> Result<OwnedFd, Error> {
    let _asking = lock(&session.inwards.asking);
    let nothing = Error::NotSent(Status::STD_NOTFOUND);
    match session.inwards.take(id, number) {
        Taken::File(file) => return Ok(file), // another thread has asked for the way meanwhile
        Taken::Nothing => return Err(nothing),
        Taken::NoWay => {}
    }
    let lent = match pass(session, &ToKernel::Borrow { ticket: id }, &[])? {
        (ToProcess::Borrowed, descriptors) => {
            let [lent]: [OwnedFd; 1] = descriptors.try_into().map_err(|_| Error::BadReply)?;
            lent
        }
        (ToProcess::Error { error }, _) => return Err(error),
        _ => return Err(Error::BadReply),
    };
    if !ways::is_way(&lent) {
        return if number == 0 { Ok(lent) } else { Err(nothing) };
    }
    session.inwards.keep(id, lent);
    match session.inwards.take(id, number) {
        Taken::File(file) => Ok(file),
        Taken::Nothing | Taken::NoWay => Err(nothing),
    }
}

fn pass(
    session: &Session,
    frame: &ToKernel,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(ToProcess, Vec<OwnedFd>), Error> {
    let stream = session.take()?;
    match stream.send_with(frame, descriptors).and_then(|()| stream.receive_with()) {
        Ok(answer) => {
            session.give(stream);
            Ok(answer)
        }
        Err(_) => {
            session.distrust();
            Err(Refused::Absent.into())
        }
    }
}
