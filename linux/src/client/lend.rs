//! Lending and borrowing memory files, through the daemon.

use std::os::fd::{AsFd, OwnedFd};

use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{Error, Memory};

use super::{Client, Refused};
use crate::lent;
use crate::socket::{ToKernel, ToProcess};

const NO_KERNEL: Error = Error::NotSent(Status::RPC_NOTFOUND);

impl Client {
    /// Lends an opening of a sealed memory file to a process; its ticket. Who needs it most can do without, so a daemon
    /// that is not there is not waited for.
    pub(crate) fn lend(&self, to: Address, file: OwnedFd) -> Result<u64, Error> {
        match self.pass(&ToKernel::Lend { to }, &[file.as_fd()])? {
            (ToProcess::Ticket { ticket }, _) => Ok(ticket),
            (ToProcess::Error { error }, _) => Err(error),
            _ => Err(Error::BadReply),
        }
    }

    /// What was lent to this process under a ticket.
    pub(super) fn borrow(&self, ticket: u64) -> Result<Memory, Error> {
        match self.pass(&ToKernel::Borrow { ticket }, &[])? {
            (ToProcess::Borrowed, descriptors) => {
                let [file]: [OwnedFd; 1] = descriptors.try_into().map_err(|_| Error::BadReply)?;
                lent::borrowed(file)
            }
            (ToProcess::Error { error }, _) => Err(error),
            _ => Err(Error::BadReply),
        }
    }

    fn pass(
        &self,
        frame: &ToKernel,
        descriptors: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(ToProcess, Vec<OwnedFd>), Error> {
        let refused = |refused| match refused {
            Refused::Status(status) => Error::NotSent(status),
            Refused::Absent => NO_KERNEL,
        };
        let session = self.session().map_err(refused)?;
        let stream = session.take().map_err(refused)?;
        match stream.send_with(frame, descriptors).and_then(|()| stream.receive_with()) {
            Ok(answer) => {
                session.give(stream);
                Ok(answer)
            }
            Err(_) => {
                session.distrust();
                Err(NO_KERNEL)
            }
        }
    }
}
