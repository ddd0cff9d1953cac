//! The desk: where a kernel takes hosts in. No I/O: the link gives it datagrams and sends what it gives back.
//!
//! ```text
//! joining host                                   inviter
//!   JOIN, tagged with the token's secret  ─────►  a visit begins
//!   ◄───── MEET                                   (proves the key that the token names)
//!   PROVE, with its name and addresses    ─────►  the visitor is known
//!   WELCOME?  (sealed)                    ─────►  the supervisor notes that the token is kept for this visitor
//!   ◄───── WAIT, and then secret, root
//!   MEMBERS?                              ─────►  ◄───── members
//!   … keeps everything …
//!   CONFIRM                               ─────►  the supervisor makes its row, the token is used
//!   ◄───── WAIT, and then DONE
//! ```
//! The visitor asks and asks again; every answer may be given twice. Nothing leaves the desk before it is on the disk that
//! the token is good for this visitor's identity alone, and nothing leaves it for a token that has been revoked, or whose
//! time is over, or whose host has been removed since: that is looked at with every question.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_seal::{Handshake, Identity, Psk, PublicKey, Session, Suite, is_same};
use amoeba_threads::Instant;
use amoeba_world::Entropy;

use super::invites::{Invite, Invites};
use super::is_name;
use super::token::InviteId;
use super::wire::{
    ADDRESSES_MAX, Answer, Body, Datagram, Introduction, JOIN_MESSAGE_MIN, MEMBERS_MAX, Question, Row, Why,
    join_tag, refused_tag,
};

/// Visits at a time; past it the one that said nothing for longest ends.
pub const VISITS_MAX: usize = 32;
/// A visit without a word ends after this time.
const VISIT_TIME: Duration = Duration::from_secs(120);
/// Of them those of one invitation: who has a token can only be in the way of others who have the same.
const VISITS_EACH_MAX: usize = 4;
/// A handshake for each invitation, and a refusal of a token that nobody knows, is done once in this time.
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

/// A host that waits for the token to be kept for it, or that has kept everything and waits to be a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Names the visit, for [`Desk::settle`].
    pub visit: u64,
    /// The invitation that it came with.
    pub invite: InviteId,
    /// Whether it is to be a member now; else the token is to be kept for it.
    pub confirmed: bool,
    /// The row it is to have.
    pub row: Row,
}

/// See the module.
pub struct Desk {
    config: DeskConfig,
    invites: Invites,
    members: Vec<Row>,
    visits: BTreeMap<u64, Visit>,
    /// When a handshake was last begun with each invitation, and when a token was last said to be unknown: no flood of one
    /// kind is in the way of the others, and only who has a token can ask for the first.
    began: BTreeMap<InviteId, Instant>,
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
    /// Nobody has asked yet, or the token is kept for this visitor.
    Open,
    /// The visitor has asked what a host must know; the supervisor is to keep the token for it.
    Asked,
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
        let (visits, began) = (BTreeMap::new(), BTreeMap::new());
        Desk { config, invites, members, visits, began, refused: None }
    }

    /// There are these invitations and no others.
    pub fn set_invites(&mut self, now: Instant, invites: &[Invite]) {
        self.invites.replace(now, invites);
        let known = |visit: &Visit| self.invites.secret(visit.invite).is_some();
        self.visits.retain(|_, visit| known(visit));
        self.began.retain(|id, _| self.invites.secret(*id).is_some());
    }

    /// The system has these hosts, this one among them.
    pub fn set_members(&mut self, members: &[Row]) {
        self.members = members.to_vec();
    }

    /// Whether somebody may come.
    pub fn expects(&self, now: Instant) -> bool {
        self.invites.any_open(now) || !self.visits.is_empty()
    }

    /// Hosts that the supervisor is to do something for.
    pub fn candidates(&self) -> Vec<Candidate> {
        let waiting = self.visits.iter().filter_map(|(number, visit)| {
            let Stage::Known { row, outcome, .. } = &visit.stage else { return None };
            let confirmed = match outcome {
                Outcome::Asked => false,
                Outcome::Confirmed => true,
                _ => return None,
            };
            Some(Candidate { visit: *number, invite: visit.invite, confirmed, row: row.clone() })
        });
        waiting.collect()
    }

    /// Visits that are going on.
    #[cfg(test)]
    pub(super) fn visits(&self) -> usize {
        self.visits.len()
    }

    /// What a candidate waited for is done, or cannot be done, and why.
    pub fn settle(&mut self, number: u64, result: Result<(), String>) {
        let Some(visit) = self.visits.get_mut(&number) else { return };
        let Stage::Known { row, outcome, .. } = &mut visit.stage else { return };
        *outcome = match (result, &outcome) {
            (Ok(()), Outcome::Asked) => match self.invites.take(visit.invite, row.key) {
                Ok(()) => Outcome::Open,
                Err(why) => Outcome::Refused(Refusal::Token(why)),
            },
            (Ok(()), Outcome::Confirmed) => {
                self.invites.used(visit.invite, row.key);
                if !self.members.contains(row) && self.members.len() < MEMBERS_MAX {
                    self.members.push(row.clone());
                }
                Outcome::Done
            }
            (Ok(()), _) => return, // nobody waits for anything
            (Err(reason), _) => Outcome::Refused(Refusal::Other(reason)),
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
        if message.len() < JOIN_MESSAGE_MIN {
            return None; // a recorded one may come from anywhere: no answer is larger
        }
        let Some(secret) = self.invites.secret(id).copied() else {
            rest(&mut self.refused, now)?;
            return Some(refused(attempt, [0; 16], Why::Unknown));
        };
        if !is_same(&join_tag(&secret, attempt, id, message), &tag) {
            return None;
        }
        if let Some(Visit { stage: Stage::Meeting { meet, .. }, .. }) = self.visits.get(&attempt) {
            return Some(meet.clone());
        }
        // Whether it is the host that a token is kept for is known later: that one may come again.
        if let Err(why) = usable(&self.invites, &self.members, now, id, None) {
            return Some(refused(attempt, refused_tag(&secret, attempt, why), why));
        }
        let mut began = self.began.get(&id).copied();
        rest(&mut began, now)?;
        self.began.extend(began.map(|began| (id, began)));
        let mut handshake =
            Handshake::admit(&self.config.identity, &Psk::of_token(&secret), &self.config.entropy);
        handshake.read(message).ok()?;
        let mut answer = Vec::new();
        handshake.write(&[], &mut answer).ok()?;
        let meet = Datagram { attempt, body: Body::Meet { message: &answer } }.emit();
        let stage = Stage::Meeting { handshake: Some(handshake), meet: meet.clone() };
        self.make_room(id);
        self.visits.insert(attempt, Visit { invite: id, heard: now, stage });
        Some(meet)
    }

    /// Ends the visit that said nothing for longest, of this invitation when there are enough with it.
    fn make_room(&mut self, id: InviteId) {
        let own = self.visits.values().filter(|visit| visit.invite == id).count() >= VISITS_EACH_MAX;
        if !own && self.visits.len() < VISITS_MAX {
            return;
        }
        let candidates = self.visits.iter().filter(|(_, visit)| !own || visit.invite == id);
        let silent = candidates.min_by_key(|(_, visit)| visit.heard).map(|(number, _)| *number);
        self.visits.remove(&silent.expect("a table that is full has an oldest"));
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
        let there = self.members.iter().find(|member| member.key == key).map(|member| member.name.as_str());
        let known_as = there.or(invited_as).filter(|_| !introduction.chosen);
        let name = known_as.unwrap_or(&introduction.name).to_owned();
        let mut addresses = introduction.addresses;
        note_source(&mut addresses, from);
        let row = Row { name, key, addresses };
        let usable = usable(&self.invites, &self.members, now, visit.invite, Some(key));
        let verdict = verdict.and_then(|()| usable.map_err(Refusal::Token));
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
        if let Some(member) = self.members.iter().find(|member| member.key == row.key) {
            if member.name == row.name {
                return Ok(()); // it is one already, and has not heard
            }
            return Err(format!(
                "the identity of this host is that of {0}, a host of the system; if its state was copied from there, join \
                 with an empty state directory (AMOEBA_STATE); if it is {0}, join without --name",
                member.name
            ));
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
        if let Err(why) = usable(&self.invites, &self.members, now, visit.invite, Some(row.key))
            && !matches!(outcome, Outcome::Refused(_))
        {
            *outcome = Outcome::Refused(Refusal::Token(why));
        }
        let kept = self.invites.owner(visit.invite) == Some(row.key);
        let answer = match (&*outcome, question) {
            (Outcome::Refused(refusal), _) => refusal.answer(),
            (_, Question::Members(from)) if kept => Answer::page(&self.members, from),
            (Outcome::Done, Question::Confirm) => Answer::Done,
            (_, Question::Confirm) if self.invites.joined(visit.invite) == Some(row.key) => Answer::Done,
            (Outcome::Open | Outcome::Done, Question::Welcome) if kept => Answer::Welcome {
                secret: self.config.secret.to_bytes(),
                root: self.config.root.clone(),
                inviter: self.config.name.clone(),
                name: row.name.clone(),
                members: u16::try_from(self.members.len()).unwrap_or(u16::MAX),
            },
            (Outcome::Open, question) => {
                let confirmed = kept && question == Question::Confirm;
                *outcome = if confirmed { Outcome::Confirmed } else { Outcome::Asked };
                Answer::Wait
            }
            _ => Answer::Wait,
        };
        let mut sealed = Vec::new();
        session.seal(now, &[&answer.emit()], &mut sealed).ok()?;
        Some(Datagram { attempt, body: Body::Sealed { sealed: &sealed } }.emit())
    }
}

/// Whether a token is good for anything; `who` has come with it, where that is known. One that was used is good for nothing
/// but telling its host, a member, that it is one: a host that was removed does not come back with it.
fn usable(
    invites: &Invites,
    members: &[Row],
    now: Instant,
    id: InviteId,
    who: Option<PublicKey>,
) -> Result<(), Why> {
    invites.check(now, id, who)?;
    match invites.joined(id) {
        Some(host) if members.iter().all(|member| member.key != host) => Err(Why::Used),
        _ => Ok(()),
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
