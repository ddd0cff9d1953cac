//! An export: everything the service has as of one moment, in pages, so that a backup can be made while it runs.
//!
//! ```text
//! page   magic u32 "ADX1" | size of items u32 | snapshot u64 | number u32 | zero u32 | check 32 | items
//! item   1 service    get-port 6 | server secret 32 | super random 6 | applied u64 | next object u32 | tick u64
//!        2 directory  object u32 | directory
//!        3 row        object u32 | name | row
//!        4 end        directories u64 | rows u64
//! ```
//! The first item of page 0 is the service, the last one of the last page the end, which says how many of the others
//! there must have been: a stream that lacks a page is noticed. Directories come first, in the order of their numbers,
//! then rows by number and name. The check is BLAKE3 over the head's other fields and the items.

use amoeba_cap::{CheckField, GetPort, ObjectNumber, ServerSecret};
use amoeba_wire::{Malformed, Reader, Writer};

use crate::row::{Directory, Name, Row, emit_name, parse_name};
use crate::store::Identity;
use crate::tables::{State, TableError, View, row_key};

/// Bytes of a page's head.
pub const PAGE_HEAD_SIZE: usize = 56;
/// Bytes of items after which a page takes no more.
pub const PAGE_SIZE: usize = 768 << 10;

/// Directories or rows that are read at once.
const CHUNK: usize = 256;
/// Behind the key of every row: object numbers have 24 bits.
const KEYS_END: &[u8] = &[1];
const MAGIC: u32 = 0x3158_4441; // "ADX1"
const CHECK_SIZE: usize = 32;

/// What an export consists of.
#[derive(Clone)]
pub enum Item {
    /// Who the service is, and its state.
    Service(Service),
    /// A directory.
    Directory(ObjectNumber, Directory),
    /// A row of a directory.
    Row(ObjectNumber, Name, Row),
    /// That was all: so many directories and rows.
    End(u64, u64),
}

/// Who a service is, and what its state was.
#[derive(Clone)]
pub struct Service {
    /// The port it listens on.
    pub get_port: GetPort,
    /// Makes its check fields.
    pub secret: ServerSecret,
    /// The random of object 0.
    pub super_random: CheckField,
    /// The number of the last entry.
    pub applied: u64,
    /// Where to look for a free object number.
    pub next_object: u32,
    /// Ticks of ageing so far.
    pub tick: u64,
}

/// Where an export is: after which item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The page that comes next.
    pub number: u32,
    directories: u64,
    rows: u64,
    at: At,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Directories(Option<ObjectNumber>),
    Rows(Option<(ObjectNumber, Name)>),
}

impl Position {
    /// The beginning.
    pub fn start() -> Position {
        Position { number: 0, directories: 0, rows: 0, at: At::Directories(None) }
    }

    /// As its bytes, which a client keeps from page to page.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put_u32(self.number).put_u64(self.directories).put_u64(self.rows);
        match &self.at {
            At::Directories(last) => writer.put_u8(1).put_u32(last.map_or(0, |last| last.get())),
            At::Rows(None) => writer.put_u8(2),
            At::Rows(Some((object, name))) => writer.put_u8(3).put_u32(object.get()).raw(name.as_bytes()),
        };
        writer.finish()
    }

    /// The position in these bytes; no bytes are the beginning.
    pub fn parse(bytes: &[u8]) -> Result<Position, Malformed> {
        if bytes.is_empty() {
            return Ok(Position::start());
        }
        let mut reader = Reader::new(bytes);
        let (number, directories, rows) = (reader.get_u32()?, reader.get_u64()?, reader.get_u64()?);
        let object = |reader: &mut Reader<'_>| ObjectNumber::new(reader.get_u32()?).ok_or(Malformed);
        let at = match reader.get_u8()? {
            1 => At::Directories(Some(object(&mut reader)?).filter(|last| *last != ObjectNumber::SUPER)),
            2 => At::Rows(None),
            3 => {
                let object = object(&mut reader)?;
                At::Rows(Some((object, Name::new(reader.rest()).map_err(|_| Malformed)?)))
            }
            _ => return Err(Malformed),
        };
        Ok(Position { number, directories, rows, at })
    }
}

/// The page at `position` of what `view` shows, and the position of the next; `None` after the last page.
pub fn page(
    identity: &Identity,
    state: &State,
    view: &View,
    position: &Position,
) -> Result<(Vec<u8>, Option<Position>), TableError> {
    let mut items = Writer::new();
    let mut next = Position { number: position.number.wrapping_add(1), ..position.clone() };
    if *position == Position::start() {
        Item::Service(Service::of(identity, state)).emit(&mut items);
    }
    if let At::Directories(last) = next.at.clone() {
        directories(view, last, &mut next, &mut items)?;
    }
    let mut more = true;
    if let At::Rows(last) = next.at.clone() {
        more = rows(view, last, &mut next, &mut items)?;
    }
    if !more {
        Item::End(next.directories, next.rows).emit(&mut items);
    }
    let page = sealed_page(state.applied, position.number, &items.finish());
    Ok((page, more.then_some(next)))
}

fn directories(
    view: &View,
    last: Option<ObjectNumber>,
    next: &mut Position,
    items: &mut Writer,
) -> Result<(), TableError> {
    let mut start = last.map_or(1, |last| last.get() + 1);
    next.at = At::Rows(None);
    while let Some(first) = ObjectNumber::new(start) {
        let directories = view.directories_between(first, CHUNK)?;
        let Some((end, _)) = directories.last() else { break };
        start = end.get() + 1;
        for (object, directory) in directories {
            Item::Directory(object, directory).emit(items);
            next.directories += 1;
            if items.len() >= PAGE_SIZE {
                next.at = At::Directories(Some(object));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether there may be more.
fn rows(
    view: &View,
    last: Option<(ObjectNumber, Name)>,
    next: &mut Position,
    items: &mut Writer,
) -> Result<bool, TableError> {
    let mut start = last.map_or_else(Vec::new, |(object, name)| [&*row_key(object, &name), &[0]].concat());
    while items.len() < PAGE_SIZE {
        let rows = view.rows_between(&start, KEYS_END, CHUNK)?;
        let Some(end) = rows.last() else { return Ok(false) };
        start = [end.key(), &[0]].concat();
        for row in rows {
            let (object, name) = parse_key(row.key())?;
            let value = row.value().expect("the tables give what is there");
            Item::Row(object, name.clone(), Row::from_bytes(value)?).emit(items);
            next.rows += 1;
            if items.len() >= PAGE_SIZE {
                next.at = At::Rows(Some((object, name)));
                break;
            }
        }
    }
    Ok(true)
}

fn parse_key(key: &[u8]) -> Result<(ObjectNumber, Name), TableError> {
    let (object, name) = key.split_first_chunk().ok_or(TableError::Damaged)?;
    let object = ObjectNumber::new(u32::from_be_bytes(*object)).ok_or(TableError::Damaged)?;
    Ok((object, Name::new(name).map_err(|_| TableError::Damaged)?))
}

/// A page of these items, which [`Item::emit`] made.
pub fn sealed_page(snapshot: u64, number: u32, items: &[u8]) -> Vec<u8> {
    let size = u32::try_from(items.len()).expect("a page is smaller than 4 GiB");
    let mut writer = Writer::new();
    writer.put_u32(MAGIC).put_u32(size).put_u64(snapshot).put_u32(number).put_u32(0);
    let mut page = writer.finish();
    let check = check(&page, items);
    page.extend_from_slice(&check);
    page.extend_from_slice(items);
    page
}

fn check(head: &[u8], items: &[u8]) -> [u8; CHECK_SIZE] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(items);
    *hasher.finalize().as_bytes()
}

/// What a page begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHead {
    /// Bytes of items that follow the head.
    pub size: usize,
    /// The export it belongs to: the number of the last change in it.
    pub snapshot: u64,
    /// Its number, from 0.
    pub number: u32,
}

impl PageHead {
    /// The head in the first [`PAGE_HEAD_SIZE`] bytes of a page.
    pub fn parse(page: &[u8]) -> Result<PageHead, Malformed> {
        let mut reader = Reader::new(page);
        if reader.get_u32()? != MAGIC {
            return Err(Malformed);
        }
        let size = reader.get_u32()? as usize;
        let head = PageHead { size, snapshot: reader.get_u64()?, number: reader.get_u32()? };
        if reader.get_u32()? != 0 || head.size > 2 * PAGE_SIZE { Err(Malformed) } else { Ok(head) }
    }
}

/// The head and the items of a page, whose check must be good.
pub fn parse_page(page: &[u8]) -> Result<(PageHead, Vec<Item>), Malformed> {
    let head = PageHead::parse(page)?;
    let (bytes, items) = page.split_at_checked(PAGE_HEAD_SIZE).ok_or(Malformed)?;
    let (fields, found) = bytes.split_at(PAGE_HEAD_SIZE - CHECK_SIZE);
    if items.len() != head.size || check(fields, items) != found {
        return Err(Malformed);
    }
    let (mut reader, mut list) = (Reader::new(items), Vec::new());
    while reader.remaining() > 0 {
        list.push(Item::parse(&mut reader)?);
    }
    Ok((head, list))
}

impl Service {
    fn of(identity: &Identity, state: &State) -> Service {
        Service {
            get_port: identity.get_port.clone(),
            secret: identity.secret.clone(),
            super_random: identity.super_random,
            applied: state.applied,
            next_object: state.next_object,
            tick: state.tick,
        }
    }
}

impl Item {
    /// Appends it.
    pub fn emit(&self, writer: &mut Writer) {
        match self {
            Item::Service(service) => {
                writer.put_u8(1).raw(&service.get_port.to_bytes()).raw(&service.secret.to_bytes());
                writer.raw(&service.super_random.to_bytes());
                writer.put_u64(service.applied).put_u32(service.next_object).put_u64(service.tick);
            }
            Item::Directory(object, directory) => {
                writer.put_u8(2).put_u32(object.get());
                directory.emit(writer);
            }
            Item::Row(object, name, row) => {
                writer.put_u8(3).put_u32(object.get());
                emit_name(name, writer);
                row.emit(writer);
            }
            Item::End(directories, rows) => {
                writer.put_u8(4).put_u64(*directories).put_u64(*rows);
            }
        }
    }

    /// Takes one.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Item, Malformed> {
        let object = |reader: &mut Reader<'_>| ObjectNumber::new(reader.get_u32()?).ok_or(Malformed);
        match reader.get_u8()? {
            1 => Ok(Item::Service(Service {
                get_port: GetPort::from_bytes(reader.array()?),
                secret: ServerSecret::from_bytes(reader.array()?),
                super_random: CheckField::from_bytes(reader.array()?),
                applied: reader.get_u64()?,
                next_object: reader.get_u32()?,
                tick: reader.get_u64()?,
            })),
            2 => Ok(Item::Directory(object(reader)?, Directory::parse(reader)?)),
            3 => Ok(Item::Row(object(reader)?, parse_name(reader)?, Row::parse(reader)?)),
            4 => Ok(Item::End(reader.get_u64()?, reader.get_u64()?)),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_panic_and_a_position_comes_back() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = parse_page(bytes).is_ok();
            let _ = Item::parse(&mut Reader::new(bytes)).is_ok();
            if let Ok(position) = Position::parse(bytes) {
                assert_eq!(Position::parse(&position.to_bytes()), Ok(position));
            }
        });
    }

    #[test]
    fn a_changed_page_is_refused() {
        let mut items = Writer::new();
        Item::End(3, 4).emit(&mut items);
        let page = sealed_page(7, 2, &items.finish());
        let (head, items) = parse_page(&page).expect("it was just made");
        assert_eq!((head.snapshot, head.number, items.len()), (7, 2, 1));
        for index in 0..page.len() {
            let mut changed = page.clone();
            changed[index] ^= 1;
            assert!(parse_page(&changed).is_err(), "byte {index}");
        }
        assert!(parse_page(&page[..page.len() - 1]).is_err());
    }
}
