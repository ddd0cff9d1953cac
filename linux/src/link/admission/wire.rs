//! The bytes of joining: what the datagrams are, and what is said inside once both sides know each other.
//!
//! ```text
//! JOIN    | 0x20 | "AMOE" | version 1 | attempt 8 | id 8 | tag 16 | first message of the handshake, with zeros in it
//! MEET    | 0x21 | "AMOE" | version 1 | attempt 8 | second message
//! PROVE   | 0x22 | "AMOE" | version 1 | attempt 8 | third message, with an introduction in it
//! SEALED  | 0x23 | "AMOE" | version 1 | attempt 8 | a question or an answer, sealed (`amoeba_seal::Session`)
//! REFUSED | 0x24 | "AMOE" | version 1 | attempt 8 | tag 16 | reason 1
//!
//! introduction     | name, NUL | chosen 1 | count 1 | addresses |
//! question         | 1 WELCOME | 2 MEMBERS, from 2 | 3 CONFIRM |
//! answer           | 1 | secret 32 | root capability, NUL | name of the inviter, NUL | name of the host, NUL | members 2 |
//!                  | 2 | from 2 | count 2 | members | 3 (wait) | 4 (done) | 5 | reason, NUL | 6 | why 1 |
//! member           | name, NUL | key 32 | count 1 | addresses |
//! ```
//! Integers are little-endian. `attempt` is drawn by the joining host and names one handshake. The tags are made with the
//! token's secret: without it a JOIN costs the inviter one hash, and a REFUSED is a hint and no more.
//!
//! # Source
//! Ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use amoeba_cap::SystemSecret;
use amoeba_seal::{PublicKey, STRANGER_KIND};
use amoeba_wire::{Malformed, Reader, Writer};

use super::token::{ID_SIZE, InviteId, SECRET_SIZE};

/// The version of these formats.
pub(super) const VERSION: u8 = 1;
/// Addresses of one host.
pub const ADDRESSES_MAX: usize = 8;
/// Bytes of a host's name.
pub const NAME_SIZE_MAX: usize = 64;
/// Bytes of a capability as text, and of a reason.
pub(super) const TEXT_SIZE_MAX: usize = 400;
/// Bytes of members in one answer: with the rest it is a datagram that every network carries.
pub(super) const PAGE_SIZE: usize = 1000;
/// Bytes of the first message that the joining host fills up with zeros, and how long it is with them: no answer to a
/// JOIN is longer than the JOIN.
pub(super) const JOIN_PADDING: usize = 64;
/// See [`JOIN_PADDING`].
pub(super) const JOIN_MESSAGE_MIN: usize = 32 + JOIN_PADDING;
/// Members that a system may have.
pub const MEMBERS_MAX: usize = 256;

const MAGIC: [u8; 4] = *b"AMOE";
const JOIN: u8 = STRANGER_KIND;
const MEET: u8 = STRANGER_KIND + 1;
const PROVE: u8 = STRANGER_KIND + 2;
const SEALED: u8 = STRANGER_KIND + 3;
const REFUSED: u8 = STRANGER_KIND + 4;

/// A host of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name in /system/hosts.
    pub name: String,
    /// Its public key.
    pub key: PublicKey,
    /// Where it may be reached, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

/// Why nobody is taken in with this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Why {
    Unknown = 1,
    Used = 2,
    Expired = 3,
    Revoked = 4,
    Busy = 5,
}

/// One datagram of joining.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) attempt: u64,
    pub(super) body: Body<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Join { id: InviteId, tag: [u8; 16], message: &'a [u8] },
    Meet { message: &'a [u8] },
    Prove { message: &'a [u8] },
    Sealed { sealed: &'a [u8] },
    Refused { tag: [u8; 16], why: Why },
}

impl<'a> Datagram<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Datagram<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.get_u8()?;
        if reader.array()? != MAGIC || reader.get_u8()? != VERSION {
            return Err(Malformed);
        }
        let attempt = reader.get_u64()?;
        let body = match kind {
            JOIN => Body::Join {
                id: InviteId(reader.array::<ID_SIZE>()?),
                tag: reader.array()?,
                message: reader.rest(),
            },
            MEET => Body::Meet { message: reader.rest() },
            PROVE => Body::Prove { message: reader.rest() },
            SEALED => Body::Sealed { sealed: reader.rest() },
            REFUSED => {
                let (tag, why) = (reader.array()?, Why::from_byte(reader.get_u8()?).ok_or(Malformed)?);
                reader.end()?;
                Body::Refused { tag, why }
            }
            _ => return Err(Malformed),
        };
        Ok(Datagram { attempt, body })
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let kind = match self.body {
            Body::Join { .. } => JOIN,
            Body::Meet { .. } => MEET,
            Body::Prove { .. } => PROVE,
            Body::Sealed { .. } => SEALED,
            Body::Refused { .. } => REFUSED,
        };
        writer.put_u8(kind).raw(&MAGIC).put_u8(VERSION).put_u64(self.attempt);
        match &self.body {
            Body::Join { id, tag, message } => writer.raw(&id.0).raw(tag).raw(message),
            Body::Meet { message } | Body::Prove { message } => writer.raw(message),
            Body::Sealed { sealed } => writer.raw(sealed),
            Body::Refused { tag, why } => writer.raw(tag).put_u8(*why as u8),
        };
        writer.finish()
    }
}

impl Why {
    fn from_byte(byte: u8) -> Option<Why> {
        [Why::Unknown, Why::Used, Why::Expired, Why::Revoked, Why::Busy]
            .into_iter()
            .find(|why| *why as u8 == byte)
    }
}

/// The tag of a JOIN.
pub(super) fn join_tag(secret: &[u8; SECRET_SIZE], attempt: u64, id: InviteId, message: &[u8]) -> [u8; 16] {
    tag(secret, b"join-ask", &[&attempt.to_le_bytes(), &id.0, message])
}

/// The tag of a REFUSED.
pub(super) fn refused_tag(secret: &[u8; SECRET_SIZE], attempt: u64, why: Why) -> [u8; 16] {
    tag(secret, b"join-no ", &[&attempt.to_le_bytes(), &[why as u8]])
}

fn tag(secret: &[u8; SECRET_SIZE], purpose: &[u8; 8], parts: &[&[u8]]) -> [u8; 16] {
    let mut key = [0; 32];
    key[..SECRET_SIZE].copy_from_slice(secret);
    SystemSecret::from_bytes(key).tag(purpose, &parts.concat())
}

/// What a joining host says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) name: String,
    /// Whether somebody chose the name, so that no other will do.
    pub(super) chosen: bool,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Introduction {
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put_string(self.name.as_bytes()).put_bool(self.chosen);
        put_addresses(&mut writer, &self.addresses);
        writer.finish()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Introduction, Malformed> {
        let mut reader = Reader::new(bytes);
        let (name, chosen) = (get_text(&mut reader, NAME_SIZE_MAX)?, reader.get_bool()?);
        let addresses = get_addresses(&mut reader, ADDRESSES_MAX)?;
        reader.end()?;
        Ok(Introduction { name, chosen, addresses })
    }
}

/// What a joining host asks once it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What it needs to be a host of the system.
    Welcome,
    /// The members from this one on.
    Members(u16),
    /// It has kept everything: let it be a member.
    Confirm,
}

impl Question {
    pub(super) fn emit(self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Question::Welcome => writer.put_u8(1),
            Question::Members(from) => writer.put_u8(2).put_u16(from),
            Question::Confirm => writer.put_u8(3),
        };
        writer.finish()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Question, Malformed> {
        let mut reader = Reader::new(bytes);
        let question = match reader.get_u8()? {
            1 => Question::Welcome,
            2 => Question::Members(reader.get_u16()?),
            3 => Question::Confirm,
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(question)
    }
}

/// What it is answered.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome {
        secret: [u8; 32],
        root: String,
        inviter: String,
        name: String,
        members: u16,
    },
    Members {
        from: u16,
        rows: Vec<Row>,
    },
    /// Its row is being made: ask again.
    Wait,
    /// It is a member, and the token is used.
    Done,
    Refused {
        reason: String,
    },
    /// The token is of no use, and why.
    Useless(Why),
}

impl Answer {
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Answer::Welcome { secret, root, inviter, name, members } => writer
                .put_u8(1)
                .raw(secret)
                .put_string(root.as_bytes())
                .put_string(inviter.as_bytes())
                .put_string(name.as_bytes())
                .put_u16(*members),
            Answer::Members { from, rows } => {
                writer.put_u8(2).put_u16(*from);
                put_rows(&mut writer, rows);
                &mut writer
            }
            Answer::Wait => writer.put_u8(3),
            Answer::Done => writer.put_u8(4),
            Answer::Useless(why) => writer.put_u8(6).put_u8(*why as u8),
            Answer::Refused { reason } => {
                let end = reason.floor_char_boundary(TEXT_SIZE_MAX);
                writer.put_u8(5).put_string(&reason.as_bytes()[..end])
            }
        };
        writer.finish()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Answer, Malformed> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.get_u8()? {
            1 => Answer::Welcome {
                secret: reader.array()?,
                root: get_text(&mut reader, TEXT_SIZE_MAX)?,
                inviter: get_text(&mut reader, NAME_SIZE_MAX)?,
                name: get_text(&mut reader, NAME_SIZE_MAX)?,
                members: reader.get_u16()?,
            },
            2 => Answer::Members { from: reader.get_u16()?, rows: get_rows(&mut reader)? },
            3 => Answer::Wait,
            4 => Answer::Done,
            6 => Answer::Useless(Why::from_byte(reader.get_u8()?).ok_or(Malformed)?),
            5 => Answer::Refused { reason: get_text(&mut reader, TEXT_SIZE_MAX)? },
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(answer)
    }

    /// The rows from this one on, as many as one answer holds, at least one if there is one.
    pub(super) fn page(rows: &[Row], from: u16) -> Answer {
        let mut size = 0;
        let rest = rows.iter().skip(from.into());
        let page = rest.take_while(|row| {
            let before = size;
            size += row_size(row);
            before == 0 || size <= PAGE_SIZE
        });
        Answer::Members { from, rows: page.cloned().collect() }
    }
}

fn row_size(row: &Row) -> usize {
    let mut writer = Writer::new();
    put_row(&mut writer, row);
    writer.len()
}

/// At most [`MEMBERS_MAX`] rows.
pub(crate) fn put_rows(writer: &mut Writer, rows: &[Row]) {
    let rows = &rows[..rows.len().min(MEMBERS_MAX)];
    writer.put_u16(rows.len() as u16);
    rows.iter().for_each(|row| put_row(writer, row));
}

pub(crate) fn put_row(writer: &mut Writer, row: &Row) {
    writer.put_string(row.name.as_bytes()).raw(&row.key.to_bytes());
    put_addresses(writer, &row.addresses[..row.addresses.len().min(ADDRESSES_MAX)]);
}

pub(crate) fn get_rows(reader: &mut Reader<'_>) -> Result<Vec<Row>, Malformed> {
    let count = reader.get_u16()?;
    if usize::from(count) > MEMBERS_MAX {
        return Err(Malformed);
    }
    (0..count).map(|_| get_row(reader)).collect()
}

pub(crate) fn get_row(reader: &mut Reader<'_>) -> Result<Row, Malformed> {
    let name = get_text(reader, NAME_SIZE_MAX)?;
    Ok(Row {
        name,
        key: PublicKey::from_bytes(reader.array()?),
        addresses: get_addresses(reader, ADDRESSES_MAX)?,
    })
}

pub(crate) fn get_text(reader: &mut Reader<'_>, max: usize) -> Result<String, Malformed> {
    let bytes = reader.get_string(max)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

pub(crate) fn put_addresses(writer: &mut Writer, addresses: &[SocketAddr]) {
    writer.put_u8(u8::try_from(addresses.len()).expect("callers keep to the bound of addresses"));
    addresses.iter().for_each(|address| put_address(writer, *address));
}

pub(crate) fn get_addresses(reader: &mut Reader<'_>, max: usize) -> Result<Vec<SocketAddr>, Malformed> {
    let count = reader.get_u8()?;
    if usize::from(count) > max {
        return Err(Malformed);
    }
    (0..count).map(|_| get_address(reader)).collect()
}

pub(crate) fn put_address(writer: &mut Writer, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => writer.put_u8(4).put_u16(address.port()).raw(&ip.octets()),
        IpAddr::V6(ip) => writer.put_u8(6).put_u16(address.port()).raw(&ip.octets()),
    };
}

pub(crate) fn get_address(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let (family, port) = (reader.get_u8()?, reader.get_u16()?);
    let ip = match family {
        4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?)),
        6 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?)),
        _ => return Err(Malformed),
    };
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use amoeba_seal::STRANGER_KIND_MAX;

    use super::*;

    fn row(name: &str, addresses: &[&str]) -> Row {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Row { name: name.to_owned(), key: PublicKey::from_bytes([7; 32]), addresses }
    }

    #[test]
    fn datagrams_are_what_they_were() {
        let bodies = [
            Body::Join { id: InviteId([1; 8]), tag: [2; 16], message: b"one" },
            Body::Meet { message: b"two" },
            Body::Prove { message: b"three" },
            Body::Sealed { sealed: b"four" },
            Body::Refused { tag: [5; 16], why: Why::Expired },
        ];
        for body in bodies {
            let datagram = Datagram { attempt: 77, body };
            let bytes = datagram.emit();
            assert!((STRANGER_KIND..=STRANGER_KIND_MAX).contains(&bytes[0]));
            assert_eq!(Datagram::parse(&bytes), Ok(datagram));
        }
        let golden =
            Datagram { attempt: 0x0102, body: Body::Refused { tag: [0xAA; 16], why: Why::Used } }.emit();
        assert_eq!(golden[..14], [0x24, b'A', b'M', b'O', b'E', 1, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!((golden[14], golden[30], golden.len()), (0xAA, 2, 31));
    }

    #[test]
    fn questions_and_answers_are_what_they_were() {
        for question in [Question::Welcome, Question::Members(300), Question::Confirm] {
            assert_eq!(Question::parse(&question.emit()), Ok(question));
        }
        let answers = [
            Answer::Welcome {
                secret: [3; 32],
                root: "r".into(),
                inviter: "anvil".into(),
                name: "bolt".into(),
                members: 300,
            },
            Answer::Members { from: 2, rows: vec![row("bolt", &["192.0.2.1:5321", "[2001:db8::1]:9"])] },
            Answer::Wait,
            Answer::Done,
            Answer::Useless(Why::Used),
            Answer::Refused { reason: "no".into() },
        ];
        for answer in answers {
            assert!(Answer::parse(&answer.emit()) == Ok(answer));
        }
        let long = Answer::Refused { reason: "ä".repeat(TEXT_SIZE_MAX) };
        assert!(Answer::parse(&long.emit()).is_ok(), "a long reason is cut");
        let who =
            Introduction { name: "bolt".into(), chosen: true, addresses: row("", &["10.0.0.1:1"]).addresses };
        assert_eq!(Introduction::parse(&who.emit()), Ok(who));
    }

    #[test]
    fn pages_hold_all_members_and_fit_a_datagram() {
        let rows: Vec<Row> = (0..MEMBERS_MAX)
            .map(|host| row(&format!("h{host}{}", "x".repeat(host % 60)), &["[2001:db8::1]:1"; 8]))
            .collect();
        let mut all = Vec::new();
        loop {
            let page = Answer::page(&rows, all.len() as u16);
            assert!(page.emit().len() <= PAGE_SIZE + 5);
            let Answer::Members { rows, .. } = page else { panic!("a page is a page") };
            if rows.is_empty() {
                break;
            }
            all.extend(rows);
        }
        assert!(all == rows);
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(datagram) = Datagram::parse(bytes) {
                assert_eq!(datagram.emit(), bytes);
            }
            let _ = (Introduction::parse(bytes), Question::parse(bytes));
            if let Ok(answer) = Answer::parse(bytes) {
                assert!(Answer::parse(&answer.emit()) == Ok(answer));
            }
        });
    }
}
