//! Memory files that one process lends another, and ways on which it lends more: kept under a ticket until the borrower comes for them.
//!
//! The daemon holds the descriptor for that long, and so it counts as lent for whoever lent it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use amoeba_kernel::ProcessId;
use amoeba_wire::Status;
use amoeba_wire::packet::Address;

use super::super::table::{Member, Token};
use super::Switch;
use crate::client::ways::is_way;
use crate::socket::{Bad, ToProcess};

/// Tickets that a process may have; past it the oldest is void.
const TICKETS_PER_PROCESS_MAX: usize = 16;
/// Tickets that there may be; past it the oldest of all is void: whoever has not come for it by then reads in pieces, and tickets
/// that nobody ever comes for keep no others out.
const TICKETS_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Tickets {
    files: BTreeMap<(ProcessId, u64), OwnedFd>,
    /// Whose each ticket is, the oldest first.
    owners: BTreeMap<u64, ProcessId>,
    borrowers: BTreeMap<Address, ProcessId>,
    last: u64,
}

impl Tickets {
    pub(super) fn attached(&mut self, process: ProcessId, address: Address) {
        self.borrowers.insert(address, process);
    }

    /// The process is gone, and so are its tickets.
    pub(super) fn detached(&mut self, process: ProcessId, address: Option<Address>) {
        if let Some(address) = address {
            self.borrowers.remove(&address);
        }
        while let Some((&(_, ticket), _)) = self.files.range((process, 0)..=(process, u64::MAX)).next() {
            self.take(process, ticket);
        }
    }

    /// What a process comes for, if it has such a ticket.
    fn take(&mut self, process: ProcessId, ticket: u64) -> Option<OwnedFd> {
        let file = self.files.remove(&(process, ticket))?;
        self.owners.remove(&ticket);
        Some(file)
    }

    /// A new ticket for the file, if there is room and such a borrower.
    fn issue(&mut self, to: Address, file: OwnedFd) -> Result<u64, Status> {
        let &borrower = self.borrowers.get(&to).ok_or(Status::RPC_NOTFOUND)?;
        let mut own = self.files.range((borrower, 0)..=(borrower, u64::MAX));
        let oldest = own.next().map(|(&(_, ticket), _)| ticket);
        if let Some(oldest) = oldest.filter(|_| own.count() + 1 >= TICKETS_PER_PROCESS_MAX) {
            self.take(borrower, oldest);
        }
        if self.files.len() >= TICKETS_MAX
            && let Some((&ticket, &owner)) = self.owners.first_key_value()
        {
            self.take(owner, ticket);
        }
        self.last += 1;
        self.files.insert((borrower, self.last), file);
        self.owners.insert(self.last, borrower);
        Ok(self.last)
    }

    /// A line for people.
    pub(super) fn status(&self) -> String {
        format!("{:24} {} of {TICKETS_MAX}\n", "memory files lent", self.files.len())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.owners.is_empty() && self.borrowers.is_empty()
    }
}

impl Switch {
    pub(super) fn lend(&mut self, token: Token, to: Address, file: OwnedFd) -> Result<(), Bad> {
        if crate::lent::check(&file).is_none() && !is_way(&file) {
            return Err(Bad::Descriptors); // the borrower would be told to trust what can change
        }
        match self.tickets.issue(to, file) {
            Ok(ticket) => self.send(token, ToProcess::Ticket { ticket }),
            Err(status) => self.refuse(token, status),
        }
        Ok(())
    }

    pub(super) fn borrow_file(&mut self, token: Token, member: Member, ticket: u64) {
        match self.tickets.take(member.process, ticket) {
            Some(file) => self.send_with(token, ToProcess::Borrowed, vec![file]),
            None => self.refuse(token, Status::STD_NOTFOUND),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_process_has_its_newest_tickets_and_none_of_anothers() {
        let mut tickets = Tickets::default();
        let (ours, theirs) = (Address([1; 8]), Address([2; 8]));
        let mut processes = Vec::new();
        let mut kernel = amoeba_kernel::Kernel::new(
            amoeba_kernel::Config {
                secret: amoeba_cap::SystemSecret::from_bytes([1; 32]),
                entropy: crate::entropy(),
                links: Vec::new(),
            },
            amoeba_threads::Instant::default(),
        );
        for address in [ours, theirs] {
            let process = kernel.attach().unwrap();
            tickets.attached(process, address);
            processes.push(process);
        }
        let issued: Vec<u64> =
            (0..=TICKETS_PER_PROCESS_MAX).map(|_| tickets.issue(ours, file()).unwrap()).collect();
        let other = tickets.issue(theirs, file()).unwrap();
        assert!(issued.iter().all(|&ticket| ticket != 0 && ticket != other));
        assert!(!tickets.files.contains_key(&(processes[0], issued[0])), "the oldest is void");
        assert!(issued[1..].iter().all(|&ticket| tickets.files.contains_key(&(processes[0], ticket))));
        assert!(!tickets.files.contains_key(&(processes[0], other)));
        assert_eq!(tickets.issue(Address([3; 8]), file()), Err(Status::RPC_NOTFOUND));
        tickets.detached(processes[0], Some(ours));
        tickets.detached(processes[1], Some(theirs));
        assert!(tickets.is_empty());
    }

    #[test]
    fn past_the_bound_of_all_the_oldest_is_void_and_who_comes_last_has_one() {
        let mut tickets = Tickets::default();
        let mut kernel = amoeba_kernel::Kernel::new(
            amoeba_kernel::Config {
                secret: amoeba_cap::SystemSecret::from_bytes([1; 32]),
                entropy: crate::entropy(),
                links: Vec::new(),
            },
            amoeba_threads::Instant::default(),
        );
        let per_process = TICKETS_PER_PROCESS_MAX;
        let file = file();
        let mut first = None;
        for number in 0..TICKETS_MAX / per_process {
            let address = Address((number as u64 + 1).to_le_bytes());
            let process = kernel.attach().unwrap();
            tickets.attached(process, address);
            for _ in 0..per_process {
                let ticket = tickets.issue(address, file.try_clone().unwrap()).unwrap();
                first.get_or_insert((process, ticket));
            }
        }
        let (address, process) = (Address([9; 8]), kernel.attach().unwrap());
        tickets.attached(process, address);
        let last = tickets.issue(address, file.try_clone().unwrap()).unwrap();
        let (owner, oldest) = first.unwrap();
        assert_eq!(tickets.files.len(), TICKETS_MAX);
        assert!(tickets.take(owner, oldest).is_none() && tickets.take(owner, oldest + 1).is_some());
        assert!(tickets.take(process, last).is_some());
        assert_eq!(tickets.files.len(), tickets.owners.len());
    }
}
