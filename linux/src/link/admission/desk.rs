//! The desk: where a kernel takes hosts in. No I/O: the link gives it datagrams and sends what it gives back.
//!
//! ```text
//! joining host                                   inviter
//!   JOIN, tagged with the token's secret  ─────►  a visit begins
//!   ◄───── MEET                                   (proves the key that the token names)
//!   PROVE, with its name and addresses    ─────►  the visitor is known
//!   WELCOME? MEMBERS?  (sealed)           ─────►  ◄───── secret, root, members
//!   … keeps everything …
//!   CONFIRM                               ─────►  the supervisor makes its row, the token is used
//!   ◄───── WAIT, and then DONE
//! ```
//! The visitor asks and asks again; every answer may be given twice. The token counts as used from the moment that the
//! supervisor begins to make the row, and is good for that visitor's identity alone from then on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_seal::{Handshake, Identity, Psk, Session, Suite};
use amoeba_threads::Instant;
use amoeba_world::Entropy;

use super::invites::{Invite, Invites};
use super::is_name;
use super::token::InviteId;
use super::wire::{
    ADDRESSES_MAX, Answer, Body, Datagram, Introduction, MEMBERS_MAX, Question, Row, Why, join_tag,
    refused_tag,
};

/// Visits at a time; past it the one that said nothing for longest ends.
pub const VISITS_MAX: usize = 32;
/// A visit without a word ends after this time.
const VISIT_TIME: Duration = Duration::from_secs(120);
/// A handshake, and a refusal of a token that nobody knows, is done once in this time.
const JOIN_INTERVAL: Duration = Duration::from_millis(10);

/// How a desk is made.
pub struct DeskConfig {
    /// The identity of this host.
    pub identity: Identity,
    /// What this host is called.
    pub name: String,
    /// The system's secret.
    pub secret: SystemSecret,
    /// The system's root capability, as text.
    pub root: String,
    /// Keys of handshakes.
    pub entropy: Arc<dyn Entropy>,
}

/// A host that has kept everything and waits to be a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Names the visit, for [`Desk::settle`].
    pub visit: u64,
    /// The invitation that it came with.
    pub invite: InviteId,
    /// The row it is to have.
    pub row: Row,
}

/// See the module.
pub struct Desk {
    config: DeskConfig,
    invites: Invites,
    members: Vec<Row>,
    visits: BTreeMap<u64, Visit>,
    /// When a handshake was last begun, and when a token was last said to be unknown: a flood of the second is not in the
    /// way of the first, which only who has a token can ask for.
    began: Option<Instant>,
    refused: Option<Instant>,
}

struct Visit {
    invite: InviteId,
    heard: Instant,
    stage: Stage,
}

enum Stage {
    /// MEET was sent; it is the same as often as it is asked for.
    Meeting {
        handshake: Option<Handshake>,
        meet: Vec<u8>,
    },
    Known {
        session: Box<Session>,
        row: Row,
        outcome: Outcome,
    },
}

enum Outcome {
    /// Nobody has asked yet.
    Open,
    /// The visitor has confirmed; the supervisor is to make its row.
    Confirmed,
    Done,
    Refused(Refusal),
}

/// Why a visitor is not taken in.
enum Refusal {
    Token(Why),
    Other(String),
}

impl Refusal {
    fn answer(&self) -> Answer {
        match self {
            Refusal::Token(why) => Answer::Useless(*why),
            Refusal::Other(reason) => Answer::Refused { reason: reason.clone() },
        }
    }
}

impl Desk {
    /// A desk that nobody is invited to.
    pub fn new(config: DeskConfig) -> Desk {
        let (invites, members) = (Invites::default(), Vec::new());
        Desk { config, invites, members, visits: BTreeMap::new(), began: None, refused: None }
    }

    /// There are these invitations and no others.
    pub fn set_invites(&mut self, now: Instant, invites: &[Invite]) {
        self.invites.replace(now, invites);
        let known = |visit: &Visit| self.invites.secret(visit.invite).is_some();
        self.visits.retain(|_, visit| known(visit));
    }

    /// The system has these hosts, this one among them.
    pub fn set_members(&mut self, members: &[Row]) {
        self.members = members.to_vec();
    }

    /// Whether somebody may come.
    pub fn expects(&self, now: Instant) -> bool {
        self.invites.any_open(now) || !self.visits.is_empty()
    }

    /// Hosts that are to become members.
    pub fn candidates(&self) -> Vec<Candidate> {
        let confirmed = self.visits.iter().filter_map(|(number, visit)| match &visit.stage {
            Stage::Known { row, outcome: Outcome::Confirmed, .. } => {
                Some(Candidate { visit: *number, invite: visit.invite, row: row.clone() })
            }
            _ => None,
        });
        confirmed.collect()
    }

    /// Visits that are going on.
    #[cfg(test)]
    pub(super) fn visits(&self) -> usize {
        self.visits.len()
    }

    /// A candidate is a member now, or cannot become one, and why.
    pub fn settle(&mut self, number: u64, result: Result<(), String>) {
        let Some(visit) = self.visits.get_mut(&number) else { return };
        let Stage::Known { row, outcome, .. } = &mut visit.stage else { return };
        *outcome = match result {
            Ok(()) => {
                self.invites.used(visit.invite, row.key);
                if !self.members.contains(row) && self.members.len() < MEMBERS_MAX {
                    self.members.push(row.clone());
                }
                Outcome::Done
            }
            Err(reason) => Outcome::Refused(Refusal::Other(reason)),
        };
    }

    /// A datagram of a stranger, of the kinds from [`amoeba_seal::STRANGER_KIND`] on; what to answer.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let Datagram { attempt, body } = Datagram::parse(bytes).ok()?;
        self.visits.retain(|_, visit| now.since(visit.heard) < VISIT_TIME);
        match body {
            Body::Join { id, tag, message } => self.join(now, attempt, id, tag, message),
            Body::Prove { message } => {
                self.prove(now, from, attempt, message);
                None
            }
            Body::Sealed { sealed } => self.sealed(now, attempt, sealed),
            Body::Meet { .. } | Body::Refused { .. } => None,
        }
    }

    fn join(
        &mut self,
        now: Instant,
        attempt: u64,
        id: InviteId,
        tag: [u8; 16],
        message: &[u8],
    ) -> Option<Vec<u8>> {
        let Some(secret) = self.invites.secret(id).copied() else {
            rest(&mut self.refused, now)?;
            return Some(refused(attempt, [0; 16], Why::Unknown));
        };
        if join_tag(&secret, attempt, id, message) != tag {
            return None;
        }
        if let Some(Visit { stage: Stage::Meeting { meet, .. }, .. }) = self.visits.get(&attempt) {
            return Some(meet.clone());
        }
        if let Err(why) = self.invites.check(now, id, None)
            && why != Why::Used
        {
            return Some(refused(attempt, refused_tag(&secret, attempt, why), why));
        }
        // Who has used it is known later: that one may come again.
        rest(&mut self.began, now)?;
        let mut handshake =
            Handshake::admit(&self.config.identity, &Psk::of_token(&secret), &self.config.entropy);
        handshake.read(message).ok()?;
        let mut answer = Vec::new();
        handshake.write(&[], &mut answer).ok()?;
        let meet = Datagram { attempt, body: Body::Meet { message: &answer } }.emit();
        let stage = Stage::Meeting { handshake: Some(handshake), meet: meet.clone() };
        if self.visits.len() >= VISITS_MAX {
            let silent = self.visits.iter().min_by_key(|(_, visit)| visit.heard).map(|(number, _)| *number);
            self.visits.remove(&silent.expect("a table that is full has an oldest"));
        }
        self.visits.insert(attempt, Visit { invite: id, heard: now, stage });
        Some(meet)
    }

    fn prove(&mut self, now: Instant, from: SocketAddr, attempt: u64, message: &[u8]) {
        let Some(visit) = self.visits.get_mut(&attempt) else { return };
        let Stage::Meeting { handshake: slot, .. } = &mut visit.stage else { return };
        let Some(mut handshake) = slot.take() else { return };
        let Ok(payload) = handshake.read(message) else {
            *slot = Some(handshake); // the right one may still come
            return;
        };
        let (Some(key), Ok(introduction)) = (handshake.peer(), Introduction::parse(&payload)) else { return };
        let Ok(keys) = handshake.finish(Suite::ChaCha20Poly1305) else { return };
        visit.heard = now;
        let invited_as = self.invites.name(visit.invite);
        let verdict = verdict(&introduction, invited_as).map_err(Refusal::Other);
        let name = invited_as.filter(|_| !introduction.chosen).unwrap_or(&introduction.name).to_owned();
        let mut addresses = introduction.addresses;
        note_source(&mut addresses, from);
        let row = Row { name, key, addresses };
        let verdict =
            verdict.and_then(|()| self.invites.check(now, visit.invite, Some(key)).map_err(Refusal::Token));
        let verdict = verdict.and_then(|()| self.room_for(&row).map_err(Refusal::Other));
        let outcome = match verdict {
            Ok(()) => Outcome::Open,
            Err(reason) => Outcome::Refused(reason),
        };
        let visit = self.visits.get_mut(&attempt).expect("it was just looked up");
        visit.stage = Stage::Known { session: Box::new(Session::new(now, &keys, 0)), row, outcome };
    }

    /// Whether a host may have this row.
    fn room_for(&self, row: &Row) -> Result<(), String> {
        if self.members.iter().any(|member| member.key == row.key) {
            return Ok(()); // it is one already, and has not heard
        }
        if self.config.name == row.name || self.members.iter().any(|member| member.name == row.name) {
            return Err(format!(
                "a host called {} is there already; choose another name with --name",
                row.name
            ));
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(format!("the system has {MEMBERS_MAX} hosts, which is as many as there can be"));
        }
        Ok(())
    }

    fn sealed(&mut self, now: Instant, attempt: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let visit = self.visits.get_mut(&attempt)?;
        let Stage::Known { session, row, outcome } = &mut visit.stage else { return None };
        let mut sealed = sealed.to_vec();
        let question = Question::parse(session.open(now, &mut sealed).ok()?.content).ok()?;
        visit.heard = now;
        let answer = match (&*outcome, question) {
            (Outcome::Refused(refusal), _) => refusal.answer(),
            (_, Question::Welcome) => Answer::Welcome {
                secret: self.config.secret.to_bytes(),
                root: self.config.root.clone(),
                inviter: self.config.name.clone(),
                name: row.name.clone(),
                members: u16::try_from(self.members.len()).unwrap_or(u16::MAX),
            },
            (_, Question::Members(from)) => Answer::page(&self.members, from),
            (Outcome::Done, Question::Confirm) => Answer::Done,
            (Outcome::Open | Outcome::Confirmed, Question::Confirm) => {
                *outcome = match self.invites.check(now, visit.invite, Some(row.key)) {
                    Ok(()) => Outcome::Confirmed,
                    Err(why) => Outcome::Refused(Refusal::Token(why)),
                };
                match outcome {
                    Outcome::Refused(refusal) => refusal.answer(),
                    _ => Answer::Wait,
                }
            }
        };
        let mut sealed = Vec::new();
        session.seal(now, &[&answer.emit()], &mut sealed).ok()?;
        Some(Datagram { attempt, body: Body::Sealed { sealed: &sealed } }.emit())
    }
}

/// Whether it was not done a moment ago; whoever is not answered asks again.
fn rest(last: &mut Option<Instant>, now: Instant) -> Option<()> {
    if last.is_some_and(|last| now.since(last) < JOIN_INTERVAL) {
        return None;
    }
    *last = Some(now);
    Some(())
}

fn refused(attempt: u64, tag: [u8; 16], why: Why) -> Vec<u8> {
    Datagram { attempt, body: Body::Refused { tag, why } }.emit()
}

/// Whether the name will do.
fn verdict(introduction: &Introduction, invited_as: Option<&str>) -> Result<(), String> {
    let name = &introduction.name;
    match invited_as {
        Some(invited) if introduction.chosen && invited != name => {
            Err(format!("the invitation is for a host called {invited}; join without --name"))
        }
        None if !is_name(name) => Err(format!("{name:?} cannot be a host's name; choose one with --name")),
        _ => Ok(()),
    }
}

/// Puts the address first that the visitor was heard from, with the port of its link: it may not know it, behind a router.
fn note_source(addresses: &mut Vec<SocketAddr>, from: SocketAddr) {
    let Some(port) = addresses.first().map(SocketAddr::port) else { return };
    let ip = from.ip().to_canonical();
    // Who came over the loopback network and listens elsewhere is reached there.
    if !addresses.iter().any(|address| address.ip() == ip) && !ip.is_loopback() {
        addresses.insert(0, SocketAddr::new(ip, port));
        addresses.truncate(ADDRESSES_MAX);
    }
}

/// A reason for people.
pub(super) fn said(why: Why) -> String {
    let why = match why {
        Why::Unknown => "the host there does not know this token",
        Why::Used => "this token was used already",
        Why::Expired => "the time of this token is over",
        Why::Revoked => "this token was revoked",
        Why::Busy => "the host there takes others in; try again",
    };
    why.to_owned()
}
