//! What the supervisor and the commands of a host ask its kernel about other hosts, and its process server about processes.
//!
//! ```text
//! ADMIN        | proof 16 | 1 | address                      open the link here
//!                         | 2 | members                      the system has these hosts
//!                         | 3 | count 1 | invitations        there are these invitations
//!                         | 4 |                              who is to become a member?
//!                         | 5 | visit 8 | refused 1 | reason, NUL
//!                         | 6 | count 4 | process 4 …           these processes of the host stand still
//! ADMINISTERED            | 1 | (done) | 2 | address (opened) | 3 | count 1 | candidates | 4 | reason, NUL (refused)
//! invitation   | id 8 | secret 16 | name, NUL | 1 | milliseconds 8 (open) ; 2 | key 32 (used) ; 3 (expired) ; 4 (revoked) ;
//!                                             | 5 | key 32 | milliseconds 8 (taken)
//! candidate    | visit 8 | id 8 | confirmed 1 | member |
//! ```
//! Members and addresses are those of joining (`linux/src/link/admission/wire.rs`). The proof follows from the system's
//! secret: a guest may use this socket, but who may join is not its business.

use std::net::SocketAddr;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_seal::PublicKey;
use amoeba_wire::{Malformed, Reader, Writer};

use crate::link::admission::{
    Candidate, INVITES_MAX, Invite, InviteId, InviteState, NAME_SIZE_MAX, Row, VISITS_MAX, get_address,
    get_row, get_rows, get_text, put_address, put_row, put_rows,
};

/// Bytes of a request or of an answer.
pub(crate) const ADMIN_SIZE_MAX: usize = 256 << 10;
/// Bytes of a proof.
pub(crate) const PROOF_SIZE: usize = 16;
const REASON_SIZE_MAX: usize = 400;
/// Processes that are named at once.
pub const STUNNED_MAX: usize = 1 << 15;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Listen for other hosts here, unless the link is open already.
    OpenLink(SocketAddr),
    /// The system has these hosts and no others.
    Members(Vec<Row>),
    /// There are these invitations and no others.
    Invites(Vec<Invite>),
    /// Which hosts are to become members?
    Candidates,
    /// What a candidate waited for is done, or cannot be done.
    Settle {
        /// Which.
        visit: u64,
        /// The reason for people where it cannot.
        result: Result<(), String>,
    },
    /// These processes, by their numbers on the host, stand still: whoever talks to one directly is told, and no longer does.
    Stunned(Vec<u32>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Administered {
    /// It is done.
    Done,
    /// The link listens here.
    Opened(SocketAddr),
    /// The hosts that are to become members.
    Candidates(Vec<Candidate>),
    /// It cannot be done, and why.
    Refused(String),
}

/// What proves that somebody may ask.
pub(crate) fn proof(secret: &SystemSecret) -> [u8; PROOF_SIZE] {
    secret.tag(b"hosts-ad", b"")
}

impl Admin {
    /// The bytes after the proof.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Admin::OpenLink(address) => put_address(writer.put_u8(1), *address),
            Admin::Members(rows) => put_rows(writer.put_u8(2), rows),
            Admin::Invites(invites) => {
                let invites = &invites[..invites.len().min(INVITES_MAX)];
                writer.put_u8(3).put_u8(invites.len() as u8);
                invites.iter().for_each(|invite| put_invite(&mut writer, invite));
            }
            Admin::Candidates => {
                writer.put_u8(4);
            }
            Admin::Settle { visit, result } => {
                writer.put_u8(5).put_u64(*visit).put_bool(result.is_err());
                put_reason(&mut writer, result.as_ref().err().map_or("", String::as_str));
            }
            Admin::Stunned(processes) => {
                let processes = &processes[..processes.len().min(STUNNED_MAX)];
                writer.put_u8(6).put_u32(processes.len() as u32);
                for process in processes {
                    writer.put_u32(*process);
                }
            }
        }
        writer.finish()
    }

    /// The meaning of these bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Admin, Malformed> {
        let mut reader = Reader::new(bytes);
        let admin = match reader.get_u8()? {
            1 => Admin::OpenLink(get_address(&mut reader)?),
            2 => Admin::Members(get_rows(&mut reader)?),
            3 => {
                let count = reader.get_u8()?;
                if usize::from(count) > INVITES_MAX {
                    return Err(Malformed);
                }
                Admin::Invites((0..count).map(|_| get_invite(&mut reader)).collect::<Result<_, _>>()?)
            }
            4 => Admin::Candidates,
            5 => {
                let (visit, refused) = (reader.get_u64()?, reader.get_bool()?);
                let reason = get_text(&mut reader, REASON_SIZE_MAX)?;
                Admin::Settle { visit, result: if refused { Err(reason) } else { Ok(()) } }
            }
            6 => {
                let count = reader.get_u32()?;
                if usize::try_from(count).is_ok_and(|count| count > STUNNED_MAX) {
                    return Err(Malformed);
                }
                Admin::Stunned((0..count).map(|_| reader.get_u32()).collect::<Result<_, _>>()?)
            }
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(admin)
    }
}

impl Administered {
    /// The bytes of an answer.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Administered::Done => {
                writer.put_u8(1);
            }
            Administered::Opened(address) => put_address(writer.put_u8(2), *address),
            Administered::Candidates(candidates) => {
                let candidates = &candidates[..candidates.len().min(VISITS_MAX)];
                writer.put_u8(3).put_u8(candidates.len() as u8);
                for candidate in candidates {
                    writer.put_u64(candidate.visit).raw(&candidate.invite.0).put_bool(candidate.confirmed);
                    put_row(&mut writer, &candidate.row);
                }
            }
            Administered::Refused(reason) => put_reason(writer.put_u8(4), reason),
        }
        writer.finish()
    }

    /// The meaning of an answer.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Administered, Malformed> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.get_u8()? {
            1 => Administered::Done,
            2 => Administered::Opened(get_address(&mut reader)?),
            3 => {
                let count = reader.get_u8()?;
                if usize::from(count) > VISITS_MAX {
                    return Err(Malformed);
                }
                let candidate = |_| {
                    let (visit, invite) = (reader.get_u64()?, InviteId(reader.array()?));
                    let confirmed = reader.get_bool()?;
                    Ok(Candidate { visit, invite, confirmed, row: get_row(&mut reader)? })
                };
                Administered::Candidates((0..count).map(candidate).collect::<Result<_, Malformed>>()?)
            }
            4 => Administered::Refused(get_text(&mut reader, REASON_SIZE_MAX)?),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(answer)
    }
}

fn put_reason(writer: &mut Writer, reason: &str) {
    let end = reason.floor_char_boundary(REASON_SIZE_MAX);
    writer.put_string(&reason.as_bytes()[..end]);
}

fn put_invite(writer: &mut Writer, invite: &Invite) {
    writer.raw(&invite.id.0).raw(&invite.secret);
    writer.put_string(invite.name.as_deref().unwrap_or_default().as_bytes());
    match &invite.state {
        InviteState::Open(time) => {
            writer.put_u8(1).put_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
        InviteState::Taken(key, time) => {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            writer.put_u8(5).raw(&key.to_bytes()).put_u64(millis);
        }
        InviteState::Used(key) => {
            writer.put_u8(2).raw(&key.to_bytes());
        }
        InviteState::Expired => {
            writer.put_u8(3);
        }
        InviteState::Revoked => {
            writer.put_u8(4);
        }
    }
}

fn get_invite(reader: &mut Reader<'_>) -> Result<Invite, Malformed> {
    let (id, secret) = (InviteId(reader.array()?), reader.array()?);
    let name = Some(get_text(reader, NAME_SIZE_MAX)?).filter(|name| !name.is_empty());
    let state = match reader.get_u8()? {
        1 => InviteState::Open(Duration::from_millis(reader.get_u64()?)),
        2 => InviteState::Used(PublicKey::from_bytes(reader.array()?)),
        3 => InviteState::Expired,
        4 => InviteState::Revoked,
        5 => InviteState::Taken(
            PublicKey::from_bytes(reader.array()?),
            Duration::from_millis(reader.get_u64()?),
        ),
        _ => return Err(Malformed),
    };
    Ok(Invite { id, secret, name, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Row {
        let addresses = vec!["192.0.2.7:5321".parse().unwrap(), "[2001:db8::7]:5321".parse().unwrap()];
        Row { name: name.into(), key: PublicKey::from_bytes([3; 32]), addresses }
    }

    #[test]
    fn what_is_said_is_heard() {
        let invite = |state, name: Option<&str>| Invite {
            id: InviteId([1; 8]),
            secret: [2; 16],
            name: name.map(str::to_owned),
            state,
        };
        let invites = vec![
            invite(InviteState::Open(Duration::from_millis(1500)), None),
            invite(InviteState::Used(PublicKey::from_bytes([4; 32])), Some("bolt")),
            invite(InviteState::Taken(PublicKey::from_bytes([6; 32]), Duration::from_millis(9)), None),
            invite(InviteState::Expired, None),
            invite(InviteState::Revoked, None),
        ];
        let rows = (0..256).map(|host| row(&format!("host{host}"))).collect();
        let questions = [
            Admin::OpenLink("[::]:5321".parse().unwrap()),
            Admin::Members(rows),
            Admin::Invites(invites),
            Admin::Candidates,
            Admin::Settle { visit: 7, result: Ok(()) },
            Admin::Settle { visit: 7, result: Err("no".into()) },
            Admin::Stunned((0..STUNNED_MAX as u32).collect()),
        ];
        for question in questions {
            let bytes = question.emit();
            assert!(bytes.len() <= ADMIN_SIZE_MAX);
            assert_eq!(Admin::parse(&bytes), Ok(question));
        }
        let candidate = Candidate { visit: 9, invite: InviteId([5; 8]), confirmed: true, row: row("bolt") };
        let answers = [
            Administered::Done,
            Administered::Opened("127.0.0.1:5322".parse().unwrap()),
            Administered::Candidates(vec![candidate; VISITS_MAX]),
            Administered::Refused("busy".into()),
        ];
        for answer in answers {
            assert_eq!(Administered::parse(&answer.emit()), Ok(answer));
        }
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = (Admin::parse(bytes), Administered::parse(bytes));
        });
    }
}
