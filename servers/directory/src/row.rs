//! What a directory consists of, and its bytes in the tables and in the log.

use std::fmt;

use amoeba_cap::{CAPABILITY_SIZE, Capability, CapabilitySet, CheckField, PORT_SIZE, PutPort, Rights};
use amoeba_wire::{Malformed, Reader, Writer};

/// Bytes a name may have.
pub const NAME_SIZE_MAX: usize = 255;
/// Columns a directory may have.
pub const COLUMNS_MAX: usize = 4;
/// Bytes the name of a column may have.
pub const COLUMN_NAME_SIZE_MAX: usize = 64;
/// Bytes the attributes of a row may have.
pub const ATTRIBUTES_SIZE_MAX: usize = 4096;
/// Ticks of ageing that a directory outlives without being touched.
pub const LIFE_MAX: u8 = 48;

/// The rights bits that stand for columns.
pub const COLUMN_RIGHTS: Rights = Rights::from_bits_retain(0x0F);
/// The right to change rows.
pub const MODIFY: Rights = Rights::from_bits_retain(0x40);
/// The right to delete the directory.
pub const DELETE: Rights = Rights::from_bits_retain(0x80);

/// A name that a row can have: 1 to 255 bytes, no NUL, no '/', not "." and not "..". Need not be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

/// These bytes cannot name a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadName {
    /// More than 255 bytes.
    #[error("a name has at most {NAME_SIZE_MAX} bytes")]
    TooLong,
    /// Empty, "." or "..", or with a NUL or a '/' in it.
    #[error("a name is not empty, not \".\" or \"..\" and holds no NUL and no '/'")]
    Forbidden,
}

impl Name {
    /// The name in these bytes.
    pub fn new(bytes: &[u8]) -> Result<Name, BadName> {
        Name::check(bytes).map(|()| Name(bytes.to_vec()))
    }

    /// As [`Name::new`], of bytes that are at hand.
    pub fn from_vec(bytes: Vec<u8>) -> Result<Name, BadName> {
        Name::check(&bytes).map(|()| Name(bytes))
    }

    /// Whether these bytes can name a row.
    pub fn check(bytes: &[u8]) -> Result<(), BadName> {
        if bytes.len() > NAME_SIZE_MAX {
            return Err(BadName::TooLong);
        }
        let forbidden = matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|&b| b == 0 || b == b'/');
        if forbidden { Err(BadName::Forbidden) } else { Ok(()) }
    }

    /// Whether the original would have taken it: every byte between '!' and '~'.
    pub fn is_classic(&self) -> bool {
        self.0.iter().all(|byte| (b'!'..=b'~').contains(byte))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// One mask a column; a directory with fewer columns leaves the last ones empty.
pub type Masks = [Rights; COLUMNS_MAX];

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it last changed: nanoseconds since 1970.
    pub time: u64,
    /// Its type capability, usually null.
    pub kind: Capability,
    /// What each column lets through.
    pub masks: Masks,
    /// Capabilities of the replicas of one object.
    pub set: CapabilitySet,
    /// Bytes that the server keeps and does not read, at most [`ATTRIBUTES_SIZE_MAX`].
    pub attributes: Vec<u8>,
}

impl Row {
    /// What a directory capability with `rights` lets through of this row: the masks of its columns, joined.
    pub fn mask(&self, rights: Rights) -> Rights {
        let columns = self.masks.iter().enumerate();
        columns
            .filter(|(index, _)| rights.bits() & (1 << index) != 0)
            .fold(Rights::NONE, |all, (_, &mask)| all | mask)
    }

    /// The bytes of this row.
    pub fn to_bytes(&self) -> Vec<u8> {
        let fixed = 8 + CAPABILITY_SIZE + COLUMNS_MAX + 4;
        let mut writer = Writer::with_room(fixed + self.set.encoded_size() + self.attributes.len());
        self.emit(&mut writer);
        writer.finish()
    }

    /// The row in these bytes, all of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Row, Malformed> {
        let mut reader = Reader::new(bytes);
        let row = Row::parse(&mut reader)?;
        reader.end()?;
        Ok(row)
    }

    /// Appends the bytes of this row.
    pub fn emit(&self, writer: &mut Writer) {
        writer.put_u64(self.time).put_cap(&self.kind);
        self.masks.iter().for_each(|mask| {
            writer.put_u8(mask.bits());
        });
        writer.put_capset(&self.set).put_bytes(&self.attributes);
    }

    /// Takes a row.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Row, Malformed> {
        Ok(Row {
            time: reader.get_u64()?,
            kind: reader.get_cap()?,
            masks: reader.array::<COLUMNS_MAX>()?.map(Rights::from_bits_retain),
            set: reader.get_capset()?,
            attributes: reader.get_bytes(ATTRIBUTES_SIZE_MAX)?.to_vec(),
        })
    }
}

/// The bytes of a row, of which only a part is wanted. They are known to be a row.
#[derive(Clone, Copy, Debug)]
pub struct RowBytes<'a>(pub &'a [u8]);

/// Where the masks lie in the bytes of a row: behind time and type capability.
const MASKS_OFFSET: usize = 8 + 16;

impl RowBytes<'_> {
    /// What a directory capability with `rights` lets through of this row: the masks of its columns, joined.
    pub fn mask(self, rights: Rights) -> Rights {
        let masks = &self.0[MASKS_OFFSET..MASKS_OFFSET + COLUMNS_MAX];
        let columns = masks.iter().enumerate().filter(|(index, _)| rights.bits() & (1 << index) != 0);
        Rights::from_bits_retain(columns.fold(0, |all, (_, mask)| all | mask))
    }

    /// The first current member of its set that has the port `port`.
    pub fn member(self, port: PutPort) -> Option<Capability> {
        let set = &self.0[MASKS_OFFSET + COLUMNS_MAX..];
        let count = usize::from(u16::from_le_bytes([set[2], set[3]]));
        let (members, _) = set[4..].as_chunks::<{ CAPABILITY_SIZE + 2 }>();
        for member in members.iter().take(count) {
            let (capability, current) = member.split_first_chunk().expect("a member has a capability");
            if capability[..PORT_SIZE] == port.to_bytes() && *current != [0; 2] {
                return Some(Capability::from_bytes(*capability));
            }
        }
        None
    }
}

/// A directory without its rows.
#[derive(Clone, PartialEq, Eq)]
pub struct Directory {
    /// What its check fields are made of. A new one kills every capability given out.
    pub random: CheckField,
    /// The sequence number of the entry that last changed it or its rows.
    pub sequence: u64,
    /// When that was: nanoseconds since 1970.
    pub time: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The tick of ageing at which it was last touched.
    pub touched: u64,
    /// The account it is kept for; null for none.
    pub owner: PutPort,
    /// The names of its columns, one to four.
    pub columns: Vec<Vec<u8>>,
}

impl Directory {
    /// The rights bits of the columns it has.
    pub fn column_rights(&self) -> Rights {
        Rights::from_bits_retain((1u8 << self.columns.len()) - 1)
    }

    /// Appends the bytes of this directory.
    pub fn emit(&self, writer: &mut Writer) {
        writer.raw(&self.random.to_bytes());
        writer.put_u64(self.sequence).put_u64(self.time).put_u64(self.rows).put_u64(self.touched);
        writer.put_port(&self.owner);
        emit_columns(&self.columns, writer);
    }

    /// Takes a directory.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Directory, Malformed> {
        Ok(Directory {
            random: CheckField::from_bytes(reader.array()?),
            sequence: reader.get_u64()?,
            time: reader.get_u64()?,
            rows: reader.get_u64()?,
            touched: reader.get_u64()?,
            owner: reader.get_port()?,
            columns: parse_columns(reader)?,
        })
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({} rows, sequence {})", self.rows, self.sequence)
    }
}

/// Whether these can be the names of a directory's columns: one to four, each of 1 to 64 bytes without NUL.
pub fn columns_are_good(columns: &[Vec<u8>]) -> bool {
    let good = |name: &Vec<u8>| (1..=COLUMN_NAME_SIZE_MAX).contains(&name.len()) && !name.contains(&0);
    (1..=COLUMNS_MAX).contains(&columns.len()) && columns.iter().all(good)
}

/// Appends names of columns.
pub fn emit_columns(columns: &[Vec<u8>], writer: &mut Writer) {
    writer.put_u8(u8::try_from(columns.len()).expect("a directory has at most four columns"));
    columns.iter().for_each(|name| {
        writer.put_bytes(name);
    });
}

/// Takes names of columns.
pub fn parse_columns(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let count = reader.get_u8()?;
    if usize::from(count) > COLUMNS_MAX {
        return Err(Malformed);
    }
    let columns = (0..count)
        .map(|_| Ok(reader.get_bytes(COLUMN_NAME_SIZE_MAX)?.to_vec()))
        .collect::<Result<Vec<_>, Malformed>>()?;
    if columns_are_good(&columns) { Ok(columns) } else { Err(Malformed) }
}

/// Appends a name.
pub fn emit_name(name: &Name, writer: &mut Writer) {
    writer.put_bytes(name.as_bytes());
}

/// Takes a name.
pub fn parse_name(reader: &mut Reader<'_>) -> Result<Name, Malformed> {
    Name::new(reader.get_bytes(NAME_SIZE_MAX)?).map_err(|_| Malformed)
}

/// Whether `rights` hold one of the columns of a directory with column rights `columns`.
pub fn has_column(rights: Rights, columns: Rights) -> bool {
    rights.intersects(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_any_bytes_but_few() {
        assert!(Name::new(b"a").is_ok() && Name::new("über alles".as_bytes()).is_ok());
        assert!(Name::new(&[0xFF; 255]).is_ok());
        assert_eq!(Name::new(&[b'a'; 256]), Err(BadName::TooLong));
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(Name::new(bad), Err(BadName::Forbidden));
        }
        assert!(Name::new(b"...").is_ok());
        assert!(Name::new(b"!~").unwrap().is_classic());
        assert!(!Name::new(b"a b").unwrap().is_classic());
    }

    #[test]
    fn a_mask_joins_the_columns_that_the_rights_hold() {
        let masks = [0xFF, 0x0F, 0x02, 0].map(Rights::from_bits_retain);
        let row =
            Row { time: 1, kind: Capability::NULL, masks, set: CapabilitySet::default(), attributes: vec![] };
        let mask = |rights| row.mask(Rights::from_bits_retain(rights)).bits();
        assert_eq!((mask(0xFF), mask(0x06), mask(0x04), mask(0xC0)), (0xFF, 0x0F, 0x02, 0));
    }

    #[test]
    fn no_bytes_panic_and_what_reads_writes_the_same() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(row) = Row::parse(&mut Reader::new(bytes)) {
                let written = row.to_bytes();
                let part = RowBytes(&written);
                assert!((0..=255).map(Rights::from_bits_retain).all(|all| part.mask(all) == row.mask(all)));
                for member in row.set.suites().iter().map(|suite| suite.capability) {
                    let first = row.set.current().find(|other| other.port == member.port);
                    assert_eq!(part.member(member.port).as_ref(), first);
                }
                assert_eq!(Row::from_bytes(&written), Ok(row));
            }
            if let Ok(directory) = Directory::parse(&mut Reader::new(bytes)) {
                let mut writer = Writer::new();
                directory.emit(&mut writer);
                assert_eq!(Directory::parse(&mut Reader::new(&writer.finish())), Ok(directory));
            }
        });
    }
}
