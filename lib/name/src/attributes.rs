//! The attributes of a row as programs that keep files of Linux in the graph write them: mode, owner, times, the text of
//! a symbolic link, what the contents were. The directory server keeps the bytes and does not read them.
//!
//! ```text
//! blob    empty: nothing is known | version u8 = 1, then fields with ascending tags
//! field   tag u8 | length u16 | value
//! ```
//! Integers are little-endian. The layout of a tag never changes; what is new gets a new tag, and tags that a program does
//! not know survive it. `docs/attributes.md` has the tags.

use std::collections::BTreeMap;

use amoeba_cap::{Capability, ObjectNumber, PutPort};
use amoeba_stubs::directory::ATTRIBUTES_MAX;
use amoeba_wire::{Malformed, Reader, Writer};

/// The version of the blobs that this module writes.
pub const ATTRIBUTES_VERSION: u8 = 1;
/// Bytes of the name of an account, or of an extended attribute.
pub const ATTRIBUTE_NAME_MAX: usize = 255;

const MODE: u8 = 1;
const OWNER: u8 = 2;
const GROUP: u8 = 3;
const MODIFIED: u8 = 4;
const ACCESSED: u8 = 5;
const CHANGED: u8 = 6;
const LINK: u8 = 7;
const LINKS: u8 = 8;
const CONTENT: u8 = 9;
const EXTENDED: u8 = 10;
const LAST_KNOWN: u8 = EXTENDED;

const NANOSECONDS: u32 = 1_000_000_000;

/// Why bytes are no attributes, or attributes do not fit into a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttributesError {
    /// The bytes do not follow the layout.
    #[error("the attributes of the row are malformed")]
    Malformed,
    /// The bytes begin with a version that this program does not know.
    #[error("the attributes of the row are of version {0}, this program knows {ATTRIBUTES_VERSION}")]
    Version(u8),
    /// The bytes would be more than a row may have.
    #[error("the attributes are {0} bytes, a row has at most {ATTRIBUTES_MAX}")]
    TooLarge(usize),
}

impl From<Malformed> for AttributesError {
    fn from(_: Malformed) -> AttributesError {
        AttributesError::Malformed
    }
}

/// A moment, in seconds since 1970-01-01 00:00 UTC, and nanoseconds below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// What comes on top.
    pub nanoseconds: u32,
}

/// A user or a group: another host may have the same name under another number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The number on the host that wrote the row.
    pub number: u32,
    /// The name there, at most [`ATTRIBUTE_NAME_MAX`] bytes; empty where it had none.
    pub name: Vec<u8>,
}

/// What a file's contents are. It holds for one object only: a row may be given another file by who knows nothing of
/// attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The server of the file.
    pub port: PutPort,
    /// Its number there.
    pub object: ObjectNumber,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of all of them.
    pub hash: [u8; 32],
}

impl Content {
    /// Whether this is said of the object of `capability`.
    pub fn is_of(&self, capability: &Capability) -> bool {
        self.port == capability.port && self.object == capability.object()
    }
}

/// See the module. What is `None` is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Type and permissions, as `st_mode` of Linux has them.
    pub mode: Option<u32>,
    /// Whose it is.
    pub owner: Option<Account>,
    /// Whose group's it is.
    pub group: Option<Account>,
    /// When the contents last changed.
    pub modified: Option<Time>,
    /// When it was last read.
    pub accessed: Option<Time>,
    /// When contents or attributes last changed.
    pub changed: Option<Time>,
    /// The text of a symbolic link. A link without it has its text as contents.
    pub link: Option<Vec<u8>>,
    /// How many names the file had, where there were more than one: rows with the same object are one file then.
    pub links: Option<u32>,
    /// What the contents are.
    pub content: Option<Content>,
    /// Extended attributes by name; names are 1 to 255 bytes.
    pub extended: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Fields that this program does not know, by their tags; tags that it knows are ignored here.
    pub other: BTreeMap<u8, Vec<u8>>,
}

impl Attributes {
    /// The bytes for a row.
    ///
    /// # Errors
    /// [`AttributesError::TooLarge`]: more than a row may have, or a name is longer than [`ATTRIBUTE_NAME_MAX`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, AttributesError> {
        let mut fields = self.other.clone();
        fields.retain(|tag, _| *tag > LAST_KNOWN);
        let mut put = |tag, value: Option<Vec<u8>>| value.and_then(|value| fields.insert(tag, value));
        put(MODE, self.mode.map(|mode| mode.to_le_bytes().into()));
        put(OWNER, self.owner.as_ref().map(account_bytes));
        put(GROUP, self.group.as_ref().map(account_bytes));
        put(MODIFIED, self.modified.map(time_bytes));
        put(ACCESSED, self.accessed.map(time_bytes));
        put(CHANGED, self.changed.map(time_bytes));
        put(LINK, self.link.clone());
        put(LINKS, self.links.map(|links| links.to_le_bytes().into()));
        put(CONTENT, self.content.as_ref().map(content_bytes));
        put(EXTENDED, self.extended_bytes()?);
        let mut writer = Writer::new();
        for (tag, value) in &fields {
            if writer.is_empty() {
                writer.put_u8(ATTRIBUTES_VERSION);
            }
            let size = u16::try_from(value.len()).map_err(|_| AttributesError::TooLarge(value.len()))?;
            writer.put_u8(*tag).put_u16(size).raw(value);
        }
        if writer.len() > ATTRIBUTES_MAX {
            Err(AttributesError::TooLarge(writer.len()))
        } else {
            Ok(writer.finish())
        }
    }

    /// The attributes in the bytes of a row.
    ///
    /// # Errors
    /// [`AttributesError::Malformed`], [`AttributesError::Version`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Attributes, AttributesError> {
        let mut attributes = Attributes::default();
        if bytes.is_empty() {
            return Ok(attributes);
        }
        let mut reader = Reader::new(bytes);
        match reader.get_u8()? {
            ATTRIBUTES_VERSION => {}
            version => return Err(AttributesError::Version(version)),
        }
        let mut last = 0;
        while reader.remaining() > 0 {
            let tag = reader.get_u8()?;
            let size = reader.get_u16()?;
            if tag <= last {
                return Err(AttributesError::Malformed);
            }
            attributes.take(tag, reader.take(size.into())?)?;
            last = tag;
        }
        Ok(attributes)
    }

    fn take(&mut self, tag: u8, value: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(value);
        match tag {
            MODE => self.mode = Some(reader.get_u32()?),
            OWNER => self.owner = Some(account(&mut reader)?),
            GROUP => self.group = Some(account(&mut reader)?),
            MODIFIED => self.modified = Some(time(&mut reader)?),
            ACCESSED => self.accessed = Some(time(&mut reader)?),
            CHANGED => self.changed = Some(time(&mut reader)?),
            LINK => self.link = Some(reader.rest().into()),
            LINKS => self.links = Some(reader.get_u32()?),
            CONTENT => self.content = Some(content(&mut reader)?),
            EXTENDED => self.extended = extended(&mut reader)?,
            _ => drop(self.other.insert(tag, reader.rest().into())),
        }
        reader.end()
    }

    fn extended_bytes(&self) -> Result<Option<Vec<u8>>, AttributesError> {
        let mut writer = Writer::new();
        for (name, value) in &self.extended {
            let name_size = u8::try_from(name.len()).map_err(|_| AttributesError::TooLarge(name.len()))?;
            let size = u16::try_from(value.len()).map_err(|_| AttributesError::TooLarge(value.len()))?;
            writer.put_u8(name_size).raw(name).put_u16(size).raw(value);
        }
        Ok(Some(writer.finish()).filter(|bytes| !bytes.is_empty()))
    }
}

fn account_bytes(account: &Account) -> Vec<u8> {
    let name = &account.name[..account.name.len().min(ATTRIBUTE_NAME_MAX)];
    [&account.number.to_le_bytes(), name].concat()
}

fn account(reader: &mut Reader<'_>) -> Result<Account, Malformed> {
    let number = reader.get_u32()?;
    let name = reader.rest();
    if name.len() > ATTRIBUTE_NAME_MAX { Err(Malformed) } else { Ok(Account { number, name: name.into() }) }
}

fn time_bytes(time: Time) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put_i64(time.seconds).put_u32(time.nanoseconds.min(NANOSECONDS - 1));
    writer.finish()
}

fn time(reader: &mut Reader<'_>) -> Result<Time, Malformed> {
    let time = Time { seconds: reader.get_i64()?, nanoseconds: reader.get_u32()? };
    if time.nanoseconds < NANOSECONDS { Ok(time) } else { Err(Malformed) }
}

fn content_bytes(content: &Content) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put_port(&content.port).put_u32(content.object.get()).put_u64(content.size).raw(&content.hash);
    writer.finish()
}

fn content(reader: &mut Reader<'_>) -> Result<Content, Malformed> {
    Ok(Content {
        port: reader.get_port()?,
        object: ObjectNumber::new(reader.get_u32()?).ok_or(Malformed)?,
        size: reader.get_u64()?,
        hash: reader.array()?,
    })
}

/// A list without entries is no field, and names ascend: so that the same attributes are always the same bytes.
fn extended(reader: &mut Reader<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Malformed> {
    let mut found = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    loop {
        let name_size = reader.get_u8()?;
        let name = reader.take(name_size.into())?;
        let size = reader.get_u16()?;
        let value = reader.take(size.into())?;
        if name.is_empty() || found.last_key_value().is_some_and(|(last, _)| last.as_slice() >= name) {
            return Err(Malformed);
        }
        found.insert(name.into(), value.into());
        if reader.remaining() == 0 {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes that a vector describes.
    fn bytes_of(text: &str) -> Vec<u8> {
        let data = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("a vector is hexadecimal");
        data.flat_map(str::split_whitespace).map(byte).collect()
    }

    fn full() -> Attributes {
        Attributes {
            mode: Some(0o100_644),
            owner: Some(Account { number: 1000, name: b"ann".into() }),
            group: Some(Account { number: 100, name: b"users".into() }),
            modified: Some(Time { seconds: 1_795_301_057, nanoseconds: 123_456_789 }),
            accessed: Some(Time { seconds: 0, nanoseconds: 1 }),
            changed: Some(Time { seconds: -2, nanoseconds: 999_999_999 }),
            link: None,
            links: Some(2),
            content: Some(Content {
                port: PutPort::from_bytes([1, 2, 3, 4, 5, 6]),
                object: ObjectNumber::new(0x00_0A_0B).expect("it has 24 bits"),
                size: 5,
                hash: std::array::from_fn(|index| index as u8),
            }),
            extended: [(b"user.mime".to_vec(), b"text".to_vec()), (b"user.x".to_vec(), Vec::new())].into(),
            other: BTreeMap::new(),
        }
    }

    #[test]
    fn the_layout_is_that_of_the_vectors() {
        let file = bytes_of(include_str!("../../../tests/vectors/attributes/file.hex"));
        assert_eq!(Attributes::from_bytes(&file), Ok(full()));
        assert_eq!(full().to_bytes(), Ok(file));
        let link =
            Attributes { mode: Some(0o120_777), link: Some(b"../a b".into()), ..Attributes::default() };
        let bytes = bytes_of(include_str!("../../../tests/vectors/attributes/link.hex"));
        assert_eq!(Attributes::from_bytes(&bytes), Ok(link.clone()));
        assert_eq!(link.to_bytes(), Ok(bytes));
        assert_eq!(Attributes::default().to_bytes(), Ok(Vec::new()));
        assert_eq!(Attributes::from_bytes(&[]), Ok(Attributes::default()));
    }

    #[test]
    fn fields_of_later_programs_survive_a_change() {
        let bytes = bytes_of(include_str!("../../../tests/vectors/attributes/later.hex"));
        let mut attributes = Attributes::from_bytes(&bytes).expect("later programs follow the layout");
        assert_eq!(attributes.to_bytes(), Ok(bytes));
        attributes.modified = Some(Time::default());
        let changed = attributes.to_bytes().expect("there is room");
        assert_eq!(Attributes::from_bytes(&changed), Ok(attributes.clone()));
        assert_eq!(attributes.other[&200], b"later");
    }

    #[test]
    fn what_breaks_the_layout_is_refused() {
        let malformed: [&[u8]; 9] = [
            &[1, 1],
            &[1, 1, 4, 0, 0, 0, 0],             // shorter than it says
            &[1, 1, 3, 0, 0, 0, 0],             // no mode
            &[1, 1, 5, 0, 0, 0, 0, 0, 0],       // a mode and something
            &[1, 7, 0, 0, 7, 0, 0],             // a tag twice
            &[1, 7, 0, 0, 1, 4, 0, 0, 0, 0, 0], // tags descend
            &[1, 0, 0, 0],                      // tag 0
            &[1, 4, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 202, 154, 59], // 10^9 nanoseconds
            &[1, 10, 0, 0],                     // no entry
        ];
        for bytes in malformed {
            assert_eq!(Attributes::from_bytes(bytes), Err(AttributesError::Malformed), "{bytes:?}");
        }
        assert_eq!(Attributes::from_bytes(&[2]), Err(AttributesError::Version(2)));
    }

    #[test]
    fn a_row_has_its_bound() {
        let link = |size| Attributes { link: Some(vec![b'x'; size]), ..Attributes::default() };
        assert_eq!(link(ATTRIBUTES_MAX - 4).to_bytes().map(|bytes| bytes.len()), Ok(ATTRIBUTES_MAX));
        assert_eq!(link(ATTRIBUTES_MAX - 3).to_bytes(), Err(AttributesError::TooLarge(ATTRIBUTES_MAX + 1)));
        assert!(link(1 << 17).to_bytes().is_err());
    }

    #[test]
    fn no_bytes_panic_and_what_reads_writes_the_same() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(attributes) = Attributes::from_bytes(bytes)
                && bytes.len() <= ATTRIBUTES_MAX
                && bytes.len() != 1
            {
                assert_eq!(attributes.to_bytes().as_deref(), Ok(bytes));
            }
        });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            mode: Option<u32>,
            seconds: Option<i64>,
            nanoseconds in 0..NANOSECONDS,
            name in proptest::collection::vec(any::<u8>(), 0..=ATTRIBUTE_NAME_MAX),
            link: Option<Vec<u8>>,
            links: Option<u32>,
            extended in proptest::collection::btree_map(
                proptest::collection::vec(any::<u8>(), 1..20), proptest::collection::vec(any::<u8>(), 0..40), 0..5),
        ) {
            let attributes = Attributes {
                mode,
                owner: mode.map(|number| Account { number, name: name.clone() }),
                modified: seconds.map(|seconds| Time { seconds, nanoseconds }),
                link,
                links,
                extended,
                ..Attributes::default()
            };
            let bytes = attributes.to_bytes().expect("it is small");
            prop_assert_eq!(Attributes::from_bytes(&bytes), Ok(attributes));
        }
    }
}
