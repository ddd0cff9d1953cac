//! ADMIN: the hosts of the system, invitations, and opening the link while the kernel runs.

use std::net::SocketAddr;

use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_world::Error;

use super::super::table::Token;
use super::Switch;
use crate::kernel::{LINKS_MAX, OpenLink};
use crate::link::BindError;
use crate::link::admission::{Desk, Row};
use crate::socket::{Admin, Administered, ToProcess, proof};

/// Datagrams of strangers that are looked at in one turn of a link, and the largest. Garbage costs a hash each; a host that
/// joins asks again when there was no room for it.
const STRANGERS_PER_TURN: usize = 256;
const STRANGER_SIZE_MAX: usize = 1400;

/// The other hosts of the system, as this kernel knows them.
pub(super) struct Hosts {
    /// What an ADMIN must begin with.
    proof: [u8; 16],
    /// How the link to other hosts is opened, where it may be.
    open: Option<OpenLink>,
    /// Where the link to other hosts listens.
    listening: Option<SocketAddr>,
    /// Where hosts are taken in.
    desk: Option<Desk>,
    members: Vec<Row>,
}

impl Hosts {
    pub(super) fn new(config: &mut super::Config) -> Hosts {
        let (open, desk) = (config.open_link.take(), config.desk.take());
        let members = std::mem::take(&mut config.members);
        Hosts { proof: proof(&config.secret), open, listening: config.listening, desk, members }
    }

    /// Whether only somebody with the system's secret can have said this.
    pub(super) fn proves(&self, proved: &[u8; 16]) -> bool {
        self.proof.iter().zip(proved).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
    }
}

impl Switch {
    /// ADMIN. Whoever has not the system's secret has no business with it.
    pub(super) fn admin(&mut self, now: Instant, token: Token, proved: &[u8; 16], request: &[u8]) {
        if !self.hosts.proves(proved) {
            tracing::warn!("refused a process that wants to say which hosts there are");
            return self.send(token, ToProcess::Error { error: Error::Refused(Status::STD_DENIED) });
        }
        let answer = match Admin::parse(request) {
            Ok(admin) => self.administer(now, admin).emit(),
            Err(_) => {
                return self.send(token, ToProcess::Error { error: Error::Refused(Status::STD_ARGBAD) });
            }
        };
        self.send(token, ToProcess::Administered { answer });
    }

    fn administer(&mut self, now: Instant, admin: Admin) -> Administered {
        match admin {
            Admin::OpenLink(listen) => self.open_link(now, listen),
            Admin::Members(rows) => {
                self.set_members(now, rows);
                Administered::Done
            }
            Admin::Invites(invites) => {
                let Some(desk) = &mut self.hosts.desk else { return no_desk() };
                desk.set_invites(now, &invites);
                Administered::Done
            }
            Admin::Candidates => {
                let candidates = self.hosts.desk.as_ref().map(Desk::candidates);
                Administered::Candidates(candidates.unwrap_or_default())
            }
            Admin::Settle { visit, result } => {
                let Some(desk) = &mut self.hosts.desk else { return no_desk() };
                desk.settle(visit, result);
                Administered::Done
            }
            Admin::Stunned(processes) => {
                self.stunned(now, &processes);
                Administered::Done
            }
        }
    }

    /// Opens the link as this kernel was made to.
    ///
    /// # Errors
    /// Why it cannot be opened, for people.
    fn open_link(&mut self, now: Instant, listen: SocketAddr) -> Administered {
        if let Some(listening) = self.hosts.listening {
            return Administered::Opened(listening);
        }
        let Some(open) = self.hosts.open.as_mut().filter(|_| self.links.len() < LINKS_MAX) else {
            return Administered::Refused("this kernel was made without a way to other hosts".to_owned());
        };
        match open(listen) {
            Ok((link, listening)) => {
                let id = self.kernel.add_link(now, link.config());
                assert_eq!(
                    usize::from(id.0),
                    self.links.len(),
                    "links of switch and kernel have the same numbers"
                );
                self.links.push(link);
                self.hosts.listening = Some(listening);
                self.tell_members(now);
                Administered::Opened(listening)
            }
            Err(BindError::Io { address, source }) => {
                Administered::Refused(format!("cannot listen on {address}: {source}"))
            }
        }
    }

    fn set_members(&mut self, now: Instant, rows: Vec<Row>) {
        if let Some(desk) = &mut self.hosts.desk {
            desk.set_members(&rows);
        }
        self.hosts.members = rows;
        self.tell_members(now);
    }

    /// Tells the desk and the links which hosts there are.
    pub(in crate::kernel) fn tell_members(&mut self, now: Instant) {
        let members = std::mem::take(&mut self.hosts.members);
        if let Some(desk) = &mut self.hosts.desk {
            desk.set_members(&members);
        }
        for index in 0..self.links.len() {
            self.link_work(now, index, |link, events| link.set_members(now, &members, events));
        }
        self.hosts.members = members;
    }

    /// Hands the desk what strangers said to this link, and the link what the desk answers.
    pub(super) fn strangers(&mut self, now: Instant, link: usize, said: Said) {
        let Some(desk) = &mut self.hosts.desk else { return };
        for (from, datagram) in said {
            if let Some(answer) = desk.handle(now, from, &datagram) {
                self.links[link].send_to_stranger(from, answer);
            }
        }
    }
}

fn no_desk() -> Administered {
    Administered::Refused("this kernel cannot take hosts in".to_owned())
}

/// What strangers have said, and where from.
pub(super) type Said = Vec<(SocketAddr, Vec<u8>)>;

/// Keeps a stranger's datagram until the link has done its work; past the bounds it asks again.
pub(super) fn keep(said: &mut Said, from: SocketAddr, datagram: &[u8]) {
    if said.len() < STRANGERS_PER_TURN && datagram.len() <= STRANGER_SIZE_MAX {
        said.push((from, datagram.to_vec()));
    }
}
