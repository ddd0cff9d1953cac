// Generated from idl/directory.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// The first column, usually the owner's.
pub const COLUMN_1: rt::Rights = rt::Rights::from_bits_retain(0x01);
/// The second column, usually the group's.
pub const COLUMN_2: rt::Rights = rt::Rights::from_bits_retain(0x02);
/// The third column, usually everybody's.
pub const COLUMN_3: rt::Rights = rt::Rights::from_bits_retain(0x04);
/// The fourth column.
pub const COLUMN_4: rt::Rights = rt::Rights::from_bits_retain(0x08);
/// Change rows.
pub const MODIFY: rt::Rights = rt::Rights::from_bits_retain(0x40);
/// Delete the directory.
pub const DELETE: rt::Rights = rt::Rights::from_bits_retain(0x80);
/// Bytes of a name: any but NUL and '/', not "." and not "..".
pub const NAME_MAX: usize = 255;
/// Bytes of a path in one lookup.
pub const PATH_MAX: usize = 4096;
/// Bytes of a column's name.
pub const COLUMN_NAME_MAX: usize = 64;
/// Columns of a directory.
pub const COLUMNS_MAX: usize = 4;
/// Bytes of a row's attributes.
pub const ATTRIBUTES_MAX: usize = 4096;
/// Rows in one page of a list.
pub const LIST_MAX: usize = 4096;
/// Rows looked up at once.
pub const SETLOOKUP_MAX: usize = 1000;
/// Rows installed at once.
pub const INSTALL_MAX: usize = 100;
/// Directories in one page of a recovery.
pub const RECOVER_MAX: usize = 1000;
/// Rows in one page of a full list.
pub const LIST_FULL_MAX: usize = 1024;
/// Directories whose changes are asked for at once.
pub const CHANGES_MAX: usize = 1000;
/// Bytes of a place in an export.
pub const POSITION_MAX: usize = 264;
/// Bytes of one page of an export.
pub const EXPORT_PAGE_MAX: usize = 1048576;
/// Rows looked up at once in the original's form.
pub const CLASSIC_SETLOOKUP_MAX: usize = 100;
/// Bytes of a request or a reply in the original's form.
pub const CLASSIC_SIZE_MAX: usize = 8192;
/// The new name must be free: else STD_EXISTS.
pub const RENAME_NEW: u8 = 0;
/// A row that has the new name is replaced, unless it stands for a directory of this service that is
/// not empty: then NOTEMPTY.
pub const RENAME_OVER: u8 = 1;
/// The two rows change places.
pub const RENAME_EXCHANGE: u8 = 2;
/// No directory server answers.
pub const UNAVAIL: rt::Status = rt::Status(-2101);
/// The directory is not empty.
pub const NOTEMPTY: rt::Status = rt::Status(-2102);
/// The object's server cannot be reached to restrict its capability.
pub const UNREACH: rt::Status = rt::Status(-2103);
/// A row is not what the installer thought.
pub const CLASH: rt::Status = rt::Status(-2104);
/// The command of [`classic_create()`].
pub const CMD_CLASSIC_CREATE: rt::Command = rt::Command(2100);
/// The command of [`classic_discard()`].
pub const CMD_CLASSIC_DISCARD: rt::Command = rt::Command(2101);
/// The command of [`classic_list()`].
pub const CMD_CLASSIC_LIST: rt::Command = rt::Command(2102);
/// The command of [`classic_append()`].
pub const CMD_CLASSIC_APPEND: rt::Command = rt::Command(2103);
/// The command of [`classic_chmod()`].
pub const CMD_CLASSIC_CHMOD: rt::Command = rt::Command(2104);
/// The command of [`classic_delete()`].
pub const CMD_CLASSIC_DELETE: rt::Command = rt::Command(2105);
/// The command of [`classic_lookup()`].
pub const CMD_CLASSIC_LOOKUP: rt::Command = rt::Command(2106);
/// The command of [`classic_setlookup()`].
pub const CMD_CLASSIC_SETLOOKUP: rt::Command = rt::Command(2107);
/// The command of [`classic_install()`].
pub const CMD_CLASSIC_INSTALL: rt::Command = rt::Command(2108);
/// The command of [`classic_puttype()`].
pub const CMD_CLASSIC_PUTTYPE: rt::Command = rt::Command(2109);
/// The command of [`classic_replace()`].
pub const CMD_CLASSIC_REPLACE: rt::Command = rt::Command(2110);
/// The command of [`classic_getmasks()`].
pub const CMD_CLASSIC_GETMASKS: rt::Command = rt::Command(2111);
/// The command of [`classic_getseqnr()`].
pub const CMD_CLASSIC_GETSEQNR: rt::Command = rt::Command(2112);
/// The command of [`lookup()`].
pub const CMD_LOOKUP: rt::Command = rt::Command(2150);
/// The command of [`list()`].
pub const CMD_LIST: rt::Command = rt::Command(2151);
/// The command of [`append()`].
pub const CMD_APPEND: rt::Command = rt::Command(2152);
/// The command of [`replace()`].
pub const CMD_REPLACE: rt::Command = rt::Command(2153);
/// The command of [`delete()`].
pub const CMD_DELETE: rt::Command = rt::Command(2154);
/// The command of [`chmod()`].
pub const CMD_CHMOD: rt::Command = rt::Command(2155);
/// The command of [`getmasks()`].
pub const CMD_GETMASKS: rt::Command = rt::Command(2156);
/// The command of [`setlookup()`].
pub const CMD_SETLOOKUP: rt::Command = rt::Command(2157);
/// The command of [`install()`].
pub const CMD_INSTALL: rt::Command = rt::Command(2158);
/// The command of [`create()`].
pub const CMD_CREATE: rt::Command = rt::Command(2159);
/// The command of [`discard()`].
pub const CMD_DISCARD: rt::Command = rt::Command(2160);
/// The command of [`puttype()`].
pub const CMD_PUTTYPE: rt::Command = rt::Command(2161);
/// The command of [`getseqnr()`].
pub const CMD_GETSEQNR: rt::Command = rt::Command(2162);
/// The command of [`get_attributes()`].
pub const CMD_GET_ATTRIBUTES: rt::Command = rt::Command(2163);
/// The command of [`put_attributes()`].
pub const CMD_PUT_ATTRIBUTES: rt::Command = rt::Command(2164);
/// The command of [`describe()`].
pub const CMD_DESCRIBE: rt::Command = rt::Command(2165);
/// The command of [`retract()`].
pub const CMD_RETRACT: rt::Command = rt::Command(2166);
/// The command of [`recover()`].
pub const CMD_RECOVER: rt::Command = rt::Command(2167);
/// The command of [`list_full()`].
pub const CMD_LIST_FULL: rt::Command = rt::Command(2168);
/// The command of [`rename()`].
pub const CMD_RENAME: rt::Command = rt::Command(2169);
/// The command of [`makedir()`].
pub const CMD_MAKEDIR: rt::Command = rt::Command(2170);
/// The command of [`removedir()`].
pub const CMD_REMOVEDIR: rt::Command = rt::Command(2171);
/// The command of [`changes()`].
pub const CMD_CHANGES: rt::Command = rt::Command(2172);
/// The command of [`export()`].
pub const CMD_EXPORT: rt::Command = rt::Command(2173);
/// The command of [`export_end()`].
pub const CMD_EXPORT_END: rt::Command = rt::Command(2174);
/// The command of [`usage()`].
pub const CMD_USAGE: rt::Command = rt::Command(2175);

/// A row of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct RowHead {
    /// Its name.
    pub name: Vec<u8>,
    /// When it last changed: nanoseconds since 1970.
    pub time: u64,
    /// What each column lets through.
    pub masks: [u8; 4],
}

impl rt::Marshal for RowHead {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.name, 255)?;
        writer_.put_u64(self.time);
        writer_.raw(&self.masks);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let time = reader_.get_u64()?;
        let masks = reader_.array::<4>()?;
        Ok(RowHead { name, time, masks })
    }
}

/// A row of some directory of this service.
#[derive(Clone, Debug, PartialEq)]
pub struct RowName {
    /// The private part of the directory's capability.
    pub directory: rt::Private,
    /// Its name.
    pub name: Vec<u8>,
}

impl rt::Marshal for RowName {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_private(&self.directory);
        rt::put_string(writer_, &self.name, 255)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let directory = reader_.get_private()?;
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        Ok(RowName { directory, name })
    }
}

/// What a row stands for, or why that cannot be told.
#[derive(Clone, Debug, PartialEq)]
pub struct RowFound {
    /// 0, or an error; then the rest means nothing.
    pub status: i16,
    /// Its type capability.
    pub kind: rt::Capability,
    /// When it last changed: nanoseconds since 1970.
    pub time: u64,
    /// What it stands for, with the rights that the columns let through.
    pub set: rt::CapabilitySet,
    /// Its attributes.
    pub attributes: Vec<u8>,
}

impl rt::Marshal for RowFound {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_i16(self.status);
        writer_.put_cap(&self.kind);
        writer_.put_u64(self.time);
        writer_.put_capset(&self.set);
        rt::put_bytes(writer_, &self.attributes, 4096)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let status = reader_.get_i16()?;
        let kind = reader_.get_cap()?;
        let time = reader_.get_u64()?;
        let set = reader_.get_capset()?;
        let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
        Ok(RowFound { status, kind, time, set, attributes })
    }
}

/// A row of a full list.
#[derive(Clone, Debug, PartialEq)]
pub struct RowFull {
    /// Its name.
    pub name: Vec<u8>,
    /// 0; UNREACH when no server of its object answers and rights had to be taken, STD_NOTNOW when too many
    /// others had to be asked for this page: then the set is empty, and a lookup may have it.
    pub status: i16,
    /// Its type capability.
    pub kind: rt::Capability,
    /// When it last changed: nanoseconds since 1970.
    pub time: u64,
    /// What each column lets through.
    pub masks: [u8; 4],
    /// What it stands for, with the rights that the columns let through.
    pub set: rt::CapabilitySet,
    /// Its attributes.
    pub attributes: Vec<u8>,
}

impl rt::Marshal for RowFull {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.name, 255)?;
        writer_.put_i16(self.status);
        writer_.put_cap(&self.kind);
        writer_.put_u64(self.time);
        writer_.raw(&self.masks);
        writer_.put_capset(&self.set);
        rt::put_bytes(writer_, &self.attributes, 4096)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let status = reader_.get_i16()?;
        let kind = reader_.get_cap()?;
        let time = reader_.get_u64()?;
        let masks = reader_.array::<4>()?;
        let set = reader_.get_capset()?;
        let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
        Ok(RowFull { name, status, kind, time, masks, set, attributes })
    }
}

/// A row to install.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallRow {
    /// The private part of the directory's capability; MODIFY is needed.
    pub directory: rt::Private,
    /// Its name.
    pub name: Vec<u8>,
    /// What it is to stand for; an empty set deletes it.
    pub set: rt::CapabilitySet,
    /// A member of its set now, or one restricted; null when there must be no such row.
    pub old: rt::Capability,
    /// Whether a row that exists keeps its masks, type capability and attributes.
    pub keep: bool,
    /// Its masks.
    pub masks: [u8; 4],
    /// Its type capability.
    pub kind: rt::Capability,
    /// Its attributes.
    pub attributes: Vec<u8>,
}

impl rt::Marshal for InstallRow {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_private(&self.directory);
        rt::put_string(writer_, &self.name, 255)?;
        writer_.put_capset(&self.set);
        writer_.put_cap(&self.old);
        writer_.put_bool(self.keep);
        writer_.raw(&self.masks);
        writer_.put_cap(&self.kind);
        rt::put_bytes(writer_, &self.attributes, 4096)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let directory = reader_.get_private()?;
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let set = reader_.get_capset()?;
        let old = reader_.get_cap()?;
        let keep = reader_.get_bool()?;
        let masks = reader_.array::<4>()?;
        let kind = reader_.get_cap()?;
        let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
        Ok(InstallRow { directory, name, set, old, keep, masks, kind, attributes })
    }
}

/// A row of some directory of this service.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicRowName {
    /// The directory.
    pub directory: rt::CapabilitySet,
    /// Its name.
    pub name: Vec<u8>,
}

impl rt::Marshal for ClassicRowName {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_capset(&self.directory);
        rt::put_string(writer_, &self.name, 255)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let directory = reader_.get_capset()?;
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        Ok(ClassicRowName { directory, name })
    }
}

/// A row to install.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicInstallRow {
    /// The directory; MODIFY is needed.
    pub directory: rt::CapabilitySet,
    /// Its name.
    pub name: Vec<u8>,
    /// What it is to stand for; an empty set deletes it.
    pub set: rt::CapabilitySet,
    /// A member of its set now, or one restricted; null when there must be no such row.
    pub old: rt::Capability,
}

impl rt::Marshal for ClassicInstallRow {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_capset(&self.directory);
        rt::put_string(writer_, &self.name, 255)?;
        writer_.put_capset(&self.set);
        writer_.put_cap(&self.old);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let directory = reader_.get_capset()?;
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let set = reader_.get_capset()?;
        let old = reader_.get_cap()?;
        Ok(ClassicInstallRow { directory, name, set, old })
    }
}

/// Makes an empty directory that no row names yet.
///
/// # Rights
/// None.
pub fn classic_create<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    columns: &[Vec<u8>],
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_CREATE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::check_count(columns.len(), 4)?;
    for item_ in columns {
        rt::put_string(writer_, item_, 64)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let directory = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(directory)
}

/// Deletes an empty directory.
///
/// # Rights
/// `DELETE`.
pub fn classic_discard<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_DISCARD);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`classic_list()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicListReply {
    /// The first row not in this page; 65535 after the last page.
    pub next: u16,
    /// Counts of columns and rows (i16 each), names of columns, then name and masks (i32 each) of each row.
    pub page: Vec<u8>,
}

/// Rows from a number on. Rows whose names the original forbids, and those from number 65535 on, are
/// left out.
///
/// - `first`: The first row wanted.
///
/// # Rights
/// None.
pub fn classic_list<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    first: u16,
) -> Result<ClassicListReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_LIST);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.extra = first;
    let (header_, data_) = t.into().trans(header_, data_, 8192, true)?;
    let next = header_.extra;
    let page = rt::rest(data_, 0, 8192)?;
    Ok(ClassicListReply { next, page })
}

/// Makes a row. STD_EXISTS when there is one with this name.
///
/// - `masks`: Missing ones are 0.
///
/// # Rights
/// `MODIFY`.
pub fn classic_append<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    set: &rt::CapabilitySet,
    masks: &[i32],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_APPEND);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.put_capset(set);
    rt::check_count(masks.len(), 4)?;
    for item_ in masks {
        writer_.put_i32(*item_);
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Gives a row other masks.
///
/// - `masks`: Missing ones are 0.
///
/// # Rights
/// `MODIFY`.
pub fn classic_chmod<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    masks: &[i32],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_CHMOD);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    rt::check_count(masks.len(), 4)?;
    for item_ in masks {
        writer_.put_i32(*item_);
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Deletes a row. The object it stood for lives on.
///
/// # Rights
/// `MODIFY`.
pub fn classic_delete<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_DELETE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`classic_lookup()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicLookupReply {
    /// What another server must walk; empty at the end.
    pub tail: Vec<u8>,
    /// The set.
    pub set: rt::CapabilitySet,
}

/// Walks a path as far as it stays in this service.
///
/// # Rights
/// None.
pub fn classic_lookup<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    path: &[u8],
) -> Result<ClassicLookupReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_LOOKUP);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, path, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 404, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let tail = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let set = reader_.get_capset()?;
    reader_.end()?;
    Ok(ClassicLookupReply { tail, set })
}

/// Looks up several rows at one moment.
///
/// # Rights
/// None.
pub fn classic_setlookup<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    rows: &[ClassicRowName],
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_SETLOOKUP);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::check_count(rows.len(), 100)?;
    for item_ in rows {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 65536, true)?;
    let found = rt::rest(data_, 0, 65536)?;
    Ok(found)
}

/// Changes several rows at once, all or none. CLASH when one is not what the installer thought.
///
/// # Rights
/// None.
pub fn classic_install<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    rows: &[ClassicInstallRow],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_INSTALL);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::check_count(rows.len(), 100)?;
    for item_ in rows {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Gives a row another type capability.
///
/// # Rights
/// `MODIFY`.
pub fn classic_puttype<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    kind: &rt::Capability,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_PUTTYPE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.put_cap(kind);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Lets a row stand for something else; its masks stay.
///
/// # Rights
/// `MODIFY`.
pub fn classic_replace<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    set: &rt::CapabilitySet,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_REPLACE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.put_capset(set);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// The masks of a row.
///
/// # Rights
/// None.
pub fn classic_getmasks<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
) -> Result<Vec<i32>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_GETMASKS);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 16, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let masks = rt::get_until_end(reader_, 4, |reader_| reader_.get_i32())?;
    reader_.end()?;
    Ok(masks)
}

/// What [`classic_getseqnr()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicGetseqnrReply {
    /// The high.
    pub high: u32,
    /// The low.
    pub low: u32,
}

/// The number of the last change of the directory, in two halves.
///
/// # Rights
/// None.
pub fn classic_getseqnr<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<ClassicGetseqnrReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_GETSEQNR);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 8, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let high = reader_.get_u32()?;
    let low = reader_.get_u32()?;
    reader_.end()?;
    Ok(ClassicGetseqnrReply { high, low })
}

/// What [`lookup()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupReply {
    /// What the server of the set's object must walk; empty at the end.
    pub tail: Vec<u8>,
    /// What was found, with the rights that the columns let through.
    pub set: rt::CapabilitySet,
    /// The last row's type capability.
    pub kind: rt::Capability,
    /// When the last row changed: nanoseconds since 1970.
    pub time: u64,
    /// The last row's attributes.
    pub attributes: Vec<u8>,
}

/// Walks a path as far as it stays in this service; the rights obtained on each directory choose the
/// columns in it. STD_NOTFOUND when a name is not there, UNREACH when no server of the object answers
/// and rights had to be taken.
///
/// - `path`: Names with '/' between; "." and ".." are the client's business.
///
/// # Rights
/// None.
pub fn lookup<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    path: &[u8],
) -> Result<LookupReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LOOKUP);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, path, 4096)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 8369, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let tail = reader_.get_string(4096).map(<[u8]>::to_vec)?;
    let set = reader_.get_capset()?;
    let kind = reader_.get_cap()?;
    let time = reader_.get_u64()?;
    let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(LookupReply { tail, set, kind, time, attributes })
}

/// What [`list()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ListReply {
    /// The columns.
    pub columns: Vec<Vec<u8>>,
    /// The rows.
    pub rows: Vec<RowHead>,
    /// Whether there are rows after these.
    pub more: bool,
}

/// Rows in the order of their names, as bytes.
///
/// - `after`: The name after which to go on; empty to begin.
/// - `count`: Rows wanted at most.
///
/// # Rights
/// None.
pub fn list<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    after: &[u8],
    count: u32,
) -> Result<ListReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LIST);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, after, 255)?;
    writer_.put_u32(count);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 1097997, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let columns = rt::get_list(reader_, 4, |reader_| reader_.get_string(64).map(<[u8]>::to_vec))?;
    let rows = rt::get_list(reader_, 4096, <RowHead as rt::Marshal>::get)?;
    let more = reader_.get_bool()?;
    reader_.end()?;
    Ok(ListReply { columns, rows, more })
}

/// Makes a row. STD_EXISTS when there is one with this name.
///
/// - `masks`: What each column lets through; those of columns that are not there are ignored.
///
/// # Rights
/// `MODIFY`.
pub fn append<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    set: &rt::CapabilitySet,
    masks: &[u8; 4],
    attributes: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_APPEND);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.put_capset(set);
    writer_.raw(masks);
    rt::put_bytes(writer_, attributes, 4096)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Lets a row stand for something else; its masks and attributes stay. STD_NOTFOUND when there is no
/// such row.
///
/// # Rights
/// `MODIFY`.
pub fn replace<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    set: &rt::CapabilitySet,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_REPLACE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.put_capset(set);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Deletes a row. The object it stood for lives on.
///
/// # Rights
/// `MODIFY`.
pub fn delete<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_DELETE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Gives a row other masks.
///
/// # Rights
/// `MODIFY`.
pub fn chmod<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    masks: &[u8; 4],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CHMOD);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.raw(masks);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// The masks of a row; 0 for columns that are not there.
///
/// # Rights
/// None.
pub fn getmasks<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
) -> Result<[u8; 4], rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETMASKS);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 4, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let masks = reader_.array::<4>()?;
    reader_.end()?;
    Ok(masks)
}

/// Looks up several rows, perhaps of several directories of this service, at one moment. Each has a
/// status of its own.
///
/// # Rights
/// None.
pub fn setlookup<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    rows: &[RowName],
) -> Result<Vec<RowFound>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SETLOOKUP);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, rows.len(), 1000)?;
    for item_ in rows {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 4274004, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let found = rt::get_list(reader_, 1000, <RowFound as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(found)
}

/// Changes several rows, perhaps of several directories of this service, at once: all or none. CLASH
/// when one is not what the installer thought.
///
/// # Rights
/// None.
pub fn install<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    rows: &[InstallRow],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_INSTALL);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, rows.len(), 100)?;
    for item_ in rows {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Makes an empty directory that no row names yet; it belongs to the account the caller signed with, if
/// it signed.
///
/// - `columns`: One to four names.
///
/// # Rights
/// None.
pub fn create<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    columns: &[Vec<u8>],
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CREATE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, columns.len(), 4)?;
    for item_ in columns {
        rt::put_string(writer_, item_, 64)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 16, false)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let directory = reader_.get_cap()?;
    reader_.end()?;
    Ok(directory)
}

/// Deletes an empty directory: NOTEMPTY when it is not, STD_DENIED for the root directory.
///
/// # Rights
/// `DELETE`.
pub fn discard<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_DISCARD);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Gives a row another type capability.
///
/// # Rights
/// `MODIFY`.
pub fn puttype<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    kind: &rt::Capability,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_PUTTYPE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.put_cap(kind);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// The number of the last change of the directory. Every change of the service has a larger number than
/// the one before.
///
/// # Rights
/// None.
pub fn getseqnr<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<u64, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETSEQNR);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 8, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let sequence = reader_.get_u64()?;
    reader_.end()?;
    Ok(sequence)
}

/// The attributes of a row: bytes that the server keeps and does not read.
///
/// # Rights
/// None.
pub fn get_attributes<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GET_ATTRIBUTES);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 4100, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(attributes)
}

/// Gives a row other attributes.
///
/// # Rights
/// `MODIFY`.
pub fn put_attributes<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    attributes: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_PUT_ATTRIBUTES);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    rt::put_bytes(writer_, attributes, 4096)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`describe()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribeReply {
    /// The columns.
    pub columns: Vec<Vec<u8>>,
    /// How many rows there are.
    pub rows: u64,
    /// When the directory last changed: nanoseconds since 1970.
    pub time: u64,
    /// The number of that change.
    pub sequence: u64,
    /// The account it belongs to; null for none.
    pub owner: rt::PutPort,
}

/// What there is to know of a directory without its rows.
///
/// # Rights
/// None.
pub fn describe<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<DescribeReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_DESCRIBE);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 294, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let columns = rt::get_list(reader_, 4, |reader_| reader_.get_string(64).map(<[u8]>::to_vec))?;
    let rows = reader_.get_u64()?;
    let time = reader_.get_u64()?;
    let sequence = reader_.get_u64()?;
    let owner = reader_.get_port()?;
    reader_.end()?;
    Ok(DescribeReply { columns, rows, time, sequence, owner })
}

/// Kills every capability of the directory that was ever given out and gives the only one that is left,
/// with the rights of this one that are in the mask. Rows that named the directory are dead too.
///
/// - `mask`: The rights to keep.
///
/// # Rights
/// `MODIFY` and `DELETE`.
pub fn retract<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    mask: u8,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RETRACT);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u8(mask);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 16, false)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let directory = reader_.get_cap()?;
    reader_.end()?;
    Ok(directory)
}

/// What [`recover()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoverReply {
    /// The directories.
    pub directories: Vec<rt::Capability>,
    /// Where to go on; 0 at the end.
    pub next: u32,
}

/// Capabilities, with all rights, of directories that belong to the account the caller signed with.
/// STD_DENIED without a signature.
///
/// - `after`: The object number after which to go on; 0 to begin.
///
/// # Rights
/// None.
pub fn recover<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    after: u32,
) -> Result<RecoverReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RECOVER);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(after);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 16008, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let directories = rt::get_list(reader_, 1000, |reader_| reader_.get_cap())?;
    let next = reader_.get_u32()?;
    reader_.end()?;
    Ok(RecoverReply { directories, next })
}

/// What [`list_full()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ListFullReply {
    /// The rows.
    pub rows: Vec<RowFull>,
    /// Whether there are rows after these.
    pub more: bool,
    /// The number of the directory's last change before the page was read.
    pub sequence: u64,
}

/// Rows in the order of their names, with all that a lookup of each would give. Other servers are asked
/// to take rights for a few rows of a page only.
///
/// - `after`: The name after which to go on; empty to begin.
/// - `count`: Rows wanted at most.
///
/// # Rights
/// None.
pub fn list_full<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    after: &[u8],
    count: u32,
) -> Result<ListFullReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LIST_FULL);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, after, 255)?;
    writer_.put_u32(count);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 4642829, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let rows = rt::get_list(reader_, 1024, <RowFull as rt::Marshal>::get)?;
    let more = reader_.get_bool()?;
    let sequence = reader_.get_u64()?;
    reader_.end()?;
    Ok(ListFullReply { rows, more, sequence })
}

/// Gives a row another name, perhaps in another directory, with all that it has. Into another directory
/// only a capability may move it that sees as much of it as any column lets through: else STD_DENIED.
///
/// - `to`: The directory of the new name, of this service; MODIFY is needed.
/// - `how`: RENAME_NEW, RENAME_OVER or RENAME_EXCHANGE.
///
/// # Rights
/// `MODIFY`.
pub fn rename<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    to: &rt::Private,
    new: &[u8],
    how: u8,
) -> Result<rt::CapabilitySet, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RENAME);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    writer_.put_private(to);
    rt::put_string(writer_, new, 255)?;
    writer_.put_u8(how);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 148, false)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let replaced = reader_.get_capset()?;
    reader_.end()?;
    Ok(replaced)
}

/// Makes an empty directory and a row that names it, both or none. STD_EXISTS when there is a row with
/// this name. It belongs to the account the caller signed with, else to that of this directory.
///
/// - `columns`: None: as those of this directory.
///
/// # Rights
/// `MODIFY`.
pub fn makedir<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
    columns: &[Vec<u8>],
    masks: &[u8; 4],
    attributes: &[u8],
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_MAKEDIR);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    rt::put_count(writer_, columns.len(), 4)?;
    for item_ in columns {
        rt::put_string(writer_, item_, 64)?;
    }
    writer_.raw(masks);
    rt::put_bytes(writer_, attributes, 4096)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 16, false)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let directory = reader_.get_cap()?;
    reader_.end()?;
    Ok(directory)
}

/// Deletes an empty directory of this service and the row that names it, both or none. The row must let
/// the right to delete it through. NOTEMPTY when it is not empty, STD_ARGBAD when the row stands for
/// something else.
///
/// # Rights
/// `MODIFY`.
pub fn removedir<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    name: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_REMOVEDIR);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, name, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`changes()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangesReply {
    /// For each the number of its last change; 0 when the capability is not good.
    pub sequences: Vec<u64>,
    /// The number of the service's last change.
    pub now: u64,
}

/// Which of many directories have changed: whoever remembers a number sees that it has grown. When
/// `now` has not grown, none has.
///
/// # Rights
/// None.
pub fn changes<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    directories: &[rt::Private],
) -> Result<ChangesReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CHANGES);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, directories.len(), 1000)?;
    for item_ in directories {
        writer_.put_private(item_);
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 8012, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let sequences = rt::get_list(reader_, 1000, |reader_| reader_.get_u64())?;
    let now = reader_.get_u64()?;
    reader_.end()?;
    Ok(ChangesReply { sequences, now })
}

/// What [`export()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportReply {
    /// The number of the last change in the export.
    pub snapshot: u64,
    /// Where to go on; empty after the last page.
    pub next: Vec<u8>,
    /// The page.
    pub page: Vec<u8>,
}

/// A page of everything the service has, secrets included, as of one moment: see docs/directory.md. One
/// export runs at a time; STD_NOTFOUND when another has begun, or this one rested for too long: then
/// begin again.
///
/// - `snapshot`: What the first page gave; 0 to begin.
/// - `after`: Where to go on; empty to begin.
///
/// # Rights
/// `ALL`.
pub fn export<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    snapshot: u64,
    after: &[u8],
) -> Result<ExportReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_EXPORT);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(snapshot);
    rt::put_bytes(writer_, after, 264)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 1048852, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let snapshot = reader_.get_u64()?;
    let next = reader_.get_bytes(264).map(<[u8]>::to_vec)?;
    let taken_ = data_.len() - reader_.remaining();
    let page = rt::rest(data_, taken_, 1048576)?;
    Ok(ExportReply { snapshot, next, page })
}

/// The export is over: what it kept of the past can go.
///
/// # Rights
/// `ALL`.
pub fn export_end<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    snapshot: u64,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_EXPORT_END);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(snapshot);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`usage()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageReply {
    /// How many there are.
    pub directories: u64,
    /// The number of the last change.
    pub sequence: u64,
    /// Bytes of the tables.
    pub tables: u64,
    /// Bytes of the log.
    pub log: u64,
    /// Bytes of it that the next start would read.
    pub log_used: u64,
    /// Bytes the caches may have.
    pub cache: u64,
    /// Bytes of rows and directories in memory.
    pub cache_used: u64,
    /// Bytes that wait in memory until they are brought to the tables.
    pub waiting: u64,
}

/// How much room the service takes. Any capability of the service will do.
///
/// # Rights
/// None.
pub fn usage<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<UsageReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_USAGE);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 64, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let directories = reader_.get_u64()?;
    let sequence = reader_.get_u64()?;
    let tables = reader_.get_u64()?;
    let log = reader_.get_u64()?;
    let log_used = reader_.get_u64()?;
    let cache = reader_.get_u64()?;
    let cache_used = reader_.get_u64()?;
    let waiting = reader_.get_u64()?;
    reader_.end()?;
    Ok(UsageReply { directories, sequence, tables, log, log_used, cache, cache_used, waiting })
}

/// The standard operations this class offers.
pub const STANDARD: &[rt::Standard] = &[
    // age
    rt::Standard {
        command: rt::Command(1001),
        rights: rt::Rights::from_bits_retain(0xff),
        on: rt::On::Super,
    },
    // copy
    rt::Standard { command: rt::Command(1002), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // destroy
    rt::Standard { command: rt::Command(1003), rights: rt::Rights::from_bits_retain(0x80), on: rt::On::Any },
    // info
    rt::Standard { command: rt::Command(1004), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // restrict
    rt::Standard { command: rt::Command(1005), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // status
    rt::Standard { command: rt::Command(1006), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // touch
    rt::Standard { command: rt::Command(1007), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // getparams
    rt::Standard { command: rt::Command(1008), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // setparams
    rt::Standard { command: rt::Command(1009), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // ntouch
    rt::Standard { command: rt::Command(1010), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
];

/// The most bytes of data in any request: what to listen with.
pub const REQUEST_SIZE_MAX: usize = 455104;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// Makes an empty directory that no row names yet.
    ///
    /// # Rights
    /// None.
    fn classic_create(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        columns: Vec<Vec<u8>>,
        pending: rt::Pending<rt::Capability>,
    );
    /// Deletes an empty directory.
    ///
    /// # Rights
    /// `DELETE`.
    fn classic_discard(
        &self,
        call: &rt::Call,
        object: rt::Object<{ DELETE.bits() }>,
        pending: rt::Pending<()>,
    );
    /// Rows from a number on. Rows whose names the original forbids, and those from number 65535 on, are
    /// left out.
    ///
    /// # Rights
    /// None.
    fn classic_list(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        first: u16,
    ) -> Result<ClassicListReply, rt::Status>;
    /// Makes a row. STD_EXISTS when there is one with this name.
    ///
    /// # Rights
    /// `MODIFY`.
    fn classic_append(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        set: rt::CapabilitySet,
        masks: Vec<i32>,
        pending: rt::Pending<()>,
    );
    /// Gives a row other masks.
    ///
    /// # Rights
    /// `MODIFY`.
    fn classic_chmod(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        masks: Vec<i32>,
        pending: rt::Pending<()>,
    );
    /// Deletes a row. The object it stood for lives on.
    ///
    /// # Rights
    /// `MODIFY`.
    fn classic_delete(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        pending: rt::Pending<()>,
    );
    /// Walks a path as far as it stays in this service.
    ///
    /// # Rights
    /// None.
    fn classic_lookup(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        path: &[u8],
    ) -> Result<ClassicLookupReply, rt::Status>;
    /// Looks up several rows at one moment.
    ///
    /// # Rights
    /// None.
    fn classic_setlookup(&self, call: &rt::Call, rows: Vec<ClassicRowName>) -> Result<Vec<u8>, rt::Status>;
    /// Changes several rows at once, all or none. CLASH when one is not what the installer thought.
    ///
    /// # Rights
    /// None.
    fn classic_install(&self, call: &rt::Call, rows: Vec<ClassicInstallRow>, pending: rt::Pending<()>);
    /// Gives a row another type capability.
    ///
    /// # Rights
    /// `MODIFY`.
    fn classic_puttype(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        kind: rt::Capability,
        pending: rt::Pending<()>,
    );
    /// Lets a row stand for something else; its masks stay.
    ///
    /// # Rights
    /// `MODIFY`.
    fn classic_replace(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        set: rt::CapabilitySet,
        pending: rt::Pending<()>,
    );
    /// The masks of a row.
    ///
    /// # Rights
    /// None.
    fn classic_getmasks(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        name: &[u8],
    ) -> Result<Vec<i32>, rt::Status>;
    /// The number of the last change of the directory, in two halves.
    ///
    /// # Rights
    /// None.
    fn classic_getseqnr(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
    ) -> Result<ClassicGetseqnrReply, rt::Status>;
    /// Walks a path as far as it stays in this service; the rights obtained on each directory choose the
    /// columns in it. STD_NOTFOUND when a name is not there, UNREACH when no server of the object answers
    /// and rights had to be taken.
    ///
    /// # Rights
    /// None.
    fn lookup(&self, call: &rt::Call, object: rt::Object<0>, path: &[u8]) -> Result<LookupReply, rt::Status>;
    /// Rows in the order of their names, as bytes.
    ///
    /// # Rights
    /// None.
    fn list(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        after: &[u8],
        count: u32,
    ) -> Result<ListReply, rt::Status>;
    /// Makes a row. STD_EXISTS when there is one with this name.
    ///
    /// # Rights
    /// `MODIFY`.
    #[allow(clippy::too_many_arguments)]
    fn append(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        set: rt::CapabilitySet,
        masks: [u8; 4],
        attributes: &[u8],
        pending: rt::Pending<()>,
    );
    /// Lets a row stand for something else; its masks and attributes stay. STD_NOTFOUND when there is no
    /// such row.
    ///
    /// # Rights
    /// `MODIFY`.
    fn replace(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        set: rt::CapabilitySet,
        pending: rt::Pending<()>,
    );
    /// Deletes a row. The object it stood for lives on.
    ///
    /// # Rights
    /// `MODIFY`.
    fn delete(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        pending: rt::Pending<()>,
    );
    /// Gives a row other masks.
    ///
    /// # Rights
    /// `MODIFY`.
    fn chmod(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        masks: [u8; 4],
        pending: rt::Pending<()>,
    );
    /// The masks of a row; 0 for columns that are not there.
    ///
    /// # Rights
    /// None.
    fn getmasks(&self, call: &rt::Call, object: rt::Object<0>, name: &[u8]) -> Result<[u8; 4], rt::Status>;
    /// Looks up several rows, perhaps of several directories of this service, at one moment. Each has a
    /// status of its own.
    ///
    /// # Rights
    /// None.
    fn setlookup(&self, call: &rt::Call, rows: Vec<RowName>) -> Result<Vec<RowFound>, rt::Status>;
    /// Changes several rows, perhaps of several directories of this service, at once: all or none. CLASH
    /// when one is not what the installer thought.
    ///
    /// # Rights
    /// None.
    fn install(&self, call: &rt::Call, rows: Vec<InstallRow>, pending: rt::Pending<()>);
    /// Makes an empty directory that no row names yet; it belongs to the account the caller signed with, if
    /// it signed.
    ///
    /// # Rights
    /// None.
    fn create(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        columns: Vec<Vec<u8>>,
        pending: rt::Pending<rt::Capability>,
    );
    /// Deletes an empty directory: NOTEMPTY when it is not, STD_DENIED for the root directory.
    ///
    /// # Rights
    /// `DELETE`.
    fn discard(&self, call: &rt::Call, object: rt::Object<{ DELETE.bits() }>, pending: rt::Pending<()>);
    /// Gives a row another type capability.
    ///
    /// # Rights
    /// `MODIFY`.
    fn puttype(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        kind: rt::Capability,
        pending: rt::Pending<()>,
    );
    /// The number of the last change of the directory. Every change of the service has a larger number than
    /// the one before.
    ///
    /// # Rights
    /// None.
    fn getseqnr(&self, call: &rt::Call, object: rt::Object<0>) -> Result<u64, rt::Status>;
    /// The attributes of a row: bytes that the server keeps and does not read.
    ///
    /// # Rights
    /// None.
    fn get_attributes(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        name: &[u8],
    ) -> Result<Vec<u8>, rt::Status>;
    /// Gives a row other attributes.
    ///
    /// # Rights
    /// `MODIFY`.
    fn put_attributes(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        attributes: &[u8],
        pending: rt::Pending<()>,
    );
    /// What there is to know of a directory without its rows.
    ///
    /// # Rights
    /// None.
    fn describe(&self, call: &rt::Call, object: rt::Object<0>) -> Result<DescribeReply, rt::Status>;
    /// Kills every capability of the directory that was ever given out and gives the only one that is left,
    /// with the rights of this one that are in the mask. Rows that named the directory are dead too.
    ///
    /// # Rights
    /// `MODIFY` and `DELETE`.
    fn retract(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() | DELETE.bits() }>,
        mask: u8,
        pending: rt::Pending<rt::Capability>,
    );
    /// Capabilities, with all rights, of directories that belong to the account the caller signed with.
    /// STD_DENIED without a signature.
    ///
    /// # Rights
    /// None.
    fn recover(&self, call: &rt::Call, after: u32) -> Result<RecoverReply, rt::Status>;
    /// Rows in the order of their names, with all that a lookup of each would give. Other servers are asked
    /// to take rights for a few rows of a page only.
    ///
    /// # Rights
    /// None.
    fn list_full(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        after: &[u8],
        count: u32,
    ) -> Result<ListFullReply, rt::Status>;
    /// Gives a row another name, perhaps in another directory, with all that it has. Into another directory
    /// only a capability may move it that sees as much of it as any column lets through: else STD_DENIED.
    ///
    /// # Rights
    /// `MODIFY`.
    #[allow(clippy::too_many_arguments)]
    fn rename(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        to: rt::Private,
        new: &[u8],
        how: u8,
        pending: rt::Pending<rt::CapabilitySet>,
    );
    /// Makes an empty directory and a row that names it, both or none. STD_EXISTS when there is a row with
    /// this name. It belongs to the account the caller signed with, else to that of this directory.
    ///
    /// # Rights
    /// `MODIFY`.
    #[allow(clippy::too_many_arguments)]
    fn makedir(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        columns: Vec<Vec<u8>>,
        masks: [u8; 4],
        attributes: &[u8],
        pending: rt::Pending<rt::Capability>,
    );
    /// Deletes an empty directory of this service and the row that names it, both or none. The row must let
    /// the right to delete it through. NOTEMPTY when it is not empty, STD_ARGBAD when the row stands for
    /// something else.
    ///
    /// # Rights
    /// `MODIFY`.
    fn removedir(
        &self,
        call: &rt::Call,
        object: rt::Object<{ MODIFY.bits() }>,
        name: &[u8],
        pending: rt::Pending<()>,
    );
    /// Which of many directories have changed: whoever remembers a number sees that it has grown. When
    /// `now` has not grown, none has.
    ///
    /// # Rights
    /// None.
    fn changes(&self, call: &rt::Call, directories: Vec<rt::Private>) -> Result<ChangesReply, rt::Status>;
    /// A page of everything the service has, secrets included, as of one moment: see docs/directory.md. One
    /// export runs at a time; STD_NOTFOUND when another has begun, or this one rested for too long: then
    /// begin again.
    ///
    /// # Rights
    /// `ALL`.
    fn export(
        &self,
        call: &rt::Call,
        object: rt::Object<255>,
        snapshot: u64,
        after: &[u8],
    ) -> Result<ExportReply, rt::Status>;
    /// The export is over: what it kept of the past can go.
    ///
    /// # Rights
    /// `ALL`.
    fn export_end(&self, call: &rt::Call, object: rt::Object<255>, snapshot: u64) -> Result<(), rt::Status>;
    /// How much room the service takes. Any capability of the service will do.
    ///
    /// # Rights
    /// None.
    fn usage(&self, call: &rt::Call, object: rt::Object<0>) -> Result<UsageReply, rt::Status>;
}

/// A server of this class as the skeleton sees it.
pub struct Service<S>(pub std::sync::Arc<S>);

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Service(self.0.clone())
    }
}

impl<S: Serve> rt::Service for Service<S> {
    fn objects(&self) -> &dyn rt::Objects {
        &*self.0
    }

    fn standard(&self, command: rt::Command) -> Option<rt::Standard> {
        rt::Standard::find(STANDARD, command)
    }

    fn dispatch(&self, request: rt::Request) -> Option<rt::Request> {
        let server = &*self.0;
        match request.command().0 {
            2100 => request.defer(reply_classic_create, |call, header, data| {
                serve_classic_create(server, call, header, data)
            }),
            2101 => request.defer(reply_classic_discard, |call, header, data| {
                serve_classic_discard(server, call, header, data)
            }),
            2102 => request.answer(|call, header, data| serve_classic_list(server, call, header, data)),
            2103 => request.defer(reply_classic_append, |call, header, data| {
                serve_classic_append(server, call, header, data)
            }),
            2104 => request.defer(reply_classic_chmod, |call, header, data| {
                serve_classic_chmod(server, call, header, data)
            }),
            2105 => request.defer(reply_classic_delete, |call, header, data| {
                serve_classic_delete(server, call, header, data)
            }),
            2106 => request.answer(|call, header, data| serve_classic_lookup(server, call, header, data)),
            2107 => request.answer(|call, header, data| serve_classic_setlookup(server, call, header, data)),
            2108 => request.defer(reply_classic_install, |call, header, data| {
                serve_classic_install(server, call, header, data)
            }),
            2109 => request.defer(reply_classic_puttype, |call, header, data| {
                serve_classic_puttype(server, call, header, data)
            }),
            2110 => request.defer(reply_classic_replace, |call, header, data| {
                serve_classic_replace(server, call, header, data)
            }),
            2111 => request.answer(|call, header, data| serve_classic_getmasks(server, call, header, data)),
            2112 => request.answer(|call, header, data| serve_classic_getseqnr(server, call, header, data)),
            2150 => request.answer(|call, header, data| serve_lookup(server, call, header, data)),
            2151 => request.answer(|call, header, data| serve_list(server, call, header, data)),
            2152 => {
                request.defer(reply_append, |call, header, data| serve_append(server, call, header, data))
            }
            2153 => {
                request.defer(reply_replace, |call, header, data| serve_replace(server, call, header, data))
            }
            2154 => {
                request.defer(reply_delete, |call, header, data| serve_delete(server, call, header, data))
            }
            2155 => request.defer(reply_chmod, |call, header, data| serve_chmod(server, call, header, data)),
            2156 => request.answer(|call, header, data| serve_getmasks(server, call, header, data)),
            2157 => request.answer(|call, header, data| serve_setlookup(server, call, header, data)),
            2158 => {
                request.defer(reply_install, |call, header, data| serve_install(server, call, header, data))
            }
            2159 => {
                request.defer(reply_create, |call, header, data| serve_create(server, call, header, data))
            }
            2160 => {
                request.defer(reply_discard, |call, header, data| serve_discard(server, call, header, data))
            }
            2161 => {
                request.defer(reply_puttype, |call, header, data| serve_puttype(server, call, header, data))
            }
            2162 => request.answer(|call, header, data| serve_getseqnr(server, call, header, data)),
            2163 => request.answer(|call, header, data| serve_get_attributes(server, call, header, data)),
            2164 => request.defer(reply_put_attributes, |call, header, data| {
                serve_put_attributes(server, call, header, data)
            }),
            2165 => request.answer(|call, header, data| serve_describe(server, call, header, data)),
            2166 => {
                request.defer(reply_retract, |call, header, data| serve_retract(server, call, header, data))
            }
            2167 => request.answer(|call, header, data| serve_recover(server, call, header, data)),
            2168 => request.answer(|call, header, data| serve_list_full(server, call, header, data)),
            2169 => {
                request.defer(reply_rename, |call, header, data| serve_rename(server, call, header, data))
            }
            2170 => {
                request.defer(reply_makedir, |call, header, data| serve_makedir(server, call, header, data))
            }
            2171 => request
                .defer(reply_removedir, |call, header, data| serve_removedir(server, call, header, data)),
            2172 => request.answer(|call, header, data| serve_changes(server, call, header, data)),
            2173 => request.answer(|call, header, data| serve_export(server, call, header, data)),
            2174 => request.answer(|call, header, data| serve_export_end(server, call, header, data)),
            2175 => request.answer(|call, header, data| serve_usage(server, call, header, data)),
            _ => return Some(request),
        }
        None
    }
}

/// Serves requests for `server` on `threads` threads until the listener is closed.
///
/// # Errors
/// The world has no room for the threads; nothing is served.
pub fn serve<S: Serve + 'static>(
    world: &rt::World,
    listener: rt::Listener,
    server: std::sync::Arc<S>,
    threads: usize,
) -> Result<(), rt::SpawnError> {
    start(world, listener, server, threads).map(rt::Running::join)
}

/// As [`serve`], but returns at once.
///
/// # Errors
/// As [`serve`].
pub fn start<S: Serve + 'static>(
    world: &rt::World,
    listener: rt::Listener,
    server: std::sync::Arc<S>,
    threads: usize,
) -> Result<rt::Running, rt::SpawnError> {
    rt::start(world, listener, std::sync::Arc::new(Service(server)), threads)
}

fn serve_classic_create<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<rt::Capability>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let columns = rt::get_until_end(reader_, 4, |reader_| reader_.get_string(64).map(<[u8]>::to_vec))?;
    reader_.end()?;
    Ok(move |pending| server_.classic_create(&call, object, columns, pending))
}

fn reply_classic_create(directory: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&directory);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_discard<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    Ok(move |pending| server_.classic_discard(&call, object, pending))
}

fn reply_classic_discard((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_list<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let first = header_.extra;
    rt::Reader::new(&data_).end()?;
    let result = server_.classic_list(call, object, first)?;
    reply_classic_list(result)
}

fn reply_classic_list(result: ClassicListReply) -> Result<rt::Message, rt::Failure> {
    let ClassicListReply { next, page } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(page, 8192)?;
    header_.size = rt::header_size(&data_);
    header_.extra = next;
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_append<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let set = reader_.get_capset()?;
    let masks = rt::get_until_end(reader_, 4, |reader_| reader_.get_i32())?;
    reader_.end()?;
    Ok(move |pending| server_.classic_append(&call, object, &name, set, masks, pending))
}

fn reply_classic_append((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_chmod<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let masks = rt::get_until_end(reader_, 4, |reader_| reader_.get_i32())?;
    reader_.end()?;
    Ok(move |pending| server_.classic_chmod(&call, object, &name, masks, pending))
}

fn reply_classic_chmod((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_delete<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(move |pending| server_.classic_delete(&call, object, &name, pending))
}

fn reply_classic_delete((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_lookup<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let path = reader_.get_string(255)?;
    reader_.end()?;
    let result = server_.classic_lookup(call, object, path)?;
    reply_classic_lookup(result)
}

fn reply_classic_lookup(result: ClassicLookupReply) -> Result<rt::Message, rt::Failure> {
    let ClassicLookupReply { tail, set } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, &tail, 255)?;
    writer_.put_capset(&set);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_setlookup<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let rows = rt::get_until_end(reader_, 100, <ClassicRowName as rt::Marshal>::get)?;
    reader_.end()?;
    let result = server_.classic_setlookup(call, rows)?;
    reply_classic_setlookup(result)
}

fn reply_classic_setlookup(found: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(found, 65536)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_install<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let rows = rt::get_until_end(reader_, 100, <ClassicInstallRow as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(move |pending| server_.classic_install(&call, rows, pending))
}

fn reply_classic_install((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_puttype<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let kind = reader_.get_cap()?;
    reader_.end()?;
    Ok(move |pending| server_.classic_puttype(&call, object, &name, kind, pending))
}

fn reply_classic_puttype((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_replace<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let set = reader_.get_capset()?;
    reader_.end()?;
    Ok(move |pending| server_.classic_replace(&call, object, &name, set, pending))
}

fn reply_classic_replace((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_getmasks<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255)?;
    reader_.end()?;
    let result = server_.classic_getmasks(call, object, name)?;
    reply_classic_getmasks(result)
}

fn reply_classic_getmasks(masks: Vec<i32>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::check_count(masks.len(), 4)?;
    for item_ in &masks {
        writer_.put_i32(*item_);
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_getseqnr<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.classic_getseqnr(call, object)?;
    reply_classic_getseqnr(result)
}

fn reply_classic_getseqnr(result: ClassicGetseqnrReply) -> Result<rt::Message, rt::Failure> {
    let ClassicGetseqnrReply { high, low } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(high);
    writer_.put_u32(low);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_lookup<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let path = reader_.get_string(4096)?;
    reader_.end()?;
    let result = server_.lookup(call, object, path)?;
    reply_lookup(result)
}

fn reply_lookup(result: LookupReply) -> Result<rt::Message, rt::Failure> {
    let LookupReply { tail, set, kind, time, attributes } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, &tail, 4096)?;
    writer_.put_capset(&set);
    writer_.put_cap(&kind);
    writer_.put_u64(time);
    rt::put_bytes(writer_, &attributes, 4096)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_list<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let after = reader_.get_string(255)?;
    let count = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.list(call, object, after, count)?;
    reply_list(result)
}

fn reply_list(result: ListReply) -> Result<rt::Message, rt::Failure> {
    let ListReply { columns, rows, more } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, columns.len(), 4)?;
    for item_ in &columns {
        rt::put_string(writer_, item_, 64)?;
    }
    rt::put_count(writer_, rows.len(), 4096)?;
    for item_ in &rows {
        rt::Marshal::put(item_, writer_)?;
    }
    writer_.put_bool(more);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_append<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let set = reader_.get_capset()?;
    let masks = reader_.array::<4>()?;
    let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(move |pending| server_.append(&call, object, &name, set, masks, &attributes, pending))
}

fn reply_append((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_replace<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let set = reader_.get_capset()?;
    reader_.end()?;
    Ok(move |pending| server_.replace(&call, object, &name, set, pending))
}

fn reply_replace((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_delete<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(move |pending| server_.delete(&call, object, &name, pending))
}

fn reply_delete((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_chmod<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let masks = reader_.array::<4>()?;
    reader_.end()?;
    Ok(move |pending| server_.chmod(&call, object, &name, masks, pending))
}

fn reply_chmod((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_getmasks<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255)?;
    reader_.end()?;
    let result = server_.getmasks(call, object, name)?;
    reply_getmasks(result)
}

fn reply_getmasks(masks: [u8; 4]) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(&masks);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_setlookup<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let rows = rt::get_list(reader_, 1000, <RowName as rt::Marshal>::get)?;
    reader_.end()?;
    let result = server_.setlookup(call, rows)?;
    reply_setlookup(result)
}

fn reply_setlookup(found: Vec<RowFound>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, found.len(), 1000)?;
    for item_ in &found {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_install<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let rows = rt::get_list(reader_, 100, <InstallRow as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(move |pending| server_.install(&call, rows, pending))
}

fn reply_install((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_create<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<rt::Capability>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let columns = rt::get_list(reader_, 4, |reader_| reader_.get_string(64).map(<[u8]>::to_vec))?;
    reader_.end()?;
    Ok(move |pending| server_.create(&call, object, columns, pending))
}

fn reply_create(directory: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_cap(&directory);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_discard<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    Ok(move |pending| server_.discard(&call, object, pending))
}

fn reply_discard((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_puttype<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let kind = reader_.get_cap()?;
    reader_.end()?;
    Ok(move |pending| server_.puttype(&call, object, &name, kind, pending))
}

fn reply_puttype((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_getseqnr<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.getseqnr(call, object)?;
    reply_getseqnr(result)
}

fn reply_getseqnr(sequence: u64) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(sequence);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_get_attributes<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255)?;
    reader_.end()?;
    let result = server_.get_attributes(call, object, name)?;
    reply_get_attributes(result)
}

fn reply_get_attributes(attributes: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_bytes(writer_, &attributes, 4096)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_put_attributes<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(move |pending| server_.put_attributes(&call, object, &name, &attributes, pending))
}

fn reply_put_attributes((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_describe<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.describe(call, object)?;
    reply_describe(result)
}

fn reply_describe(result: DescribeReply) -> Result<rt::Message, rt::Failure> {
    let DescribeReply { columns, rows, time, sequence, owner } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, columns.len(), 4)?;
    for item_ in &columns {
        rt::put_string(writer_, item_, 64)?;
    }
    writer_.put_u64(rows);
    writer_.put_u64(time);
    writer_.put_u64(sequence);
    writer_.put_port(&owner);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_retract<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<rt::Capability>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let mask = reader_.get_u8()?;
    reader_.end()?;
    Ok(move |pending| server_.retract(&call, object, mask, pending))
}

fn reply_retract(directory: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_cap(&directory);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_recover<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let after = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.recover(call, after)?;
    reply_recover(result)
}

fn reply_recover(result: RecoverReply) -> Result<rt::Message, rt::Failure> {
    let RecoverReply { directories, next } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, directories.len(), 1000)?;
    for item_ in &directories {
        writer_.put_cap(item_);
    }
    writer_.put_u32(next);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_list_full<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let after = reader_.get_string(255)?;
    let count = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.list_full(call, object, after, count)?;
    reply_list_full(result)
}

fn reply_list_full(result: ListFullReply) -> Result<rt::Message, rt::Failure> {
    let ListFullReply { rows, more, sequence } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, rows.len(), 1024)?;
    for item_ in &rows {
        rt::Marshal::put(item_, writer_)?;
    }
    writer_.put_bool(more);
    writer_.put_u64(sequence);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_rename<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<rt::CapabilitySet>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let to = reader_.get_private()?;
    let new = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let how = reader_.get_u8()?;
    reader_.end()?;
    Ok(move |pending| server_.rename(&call, object, &name, to, &new, how, pending))
}

fn reply_rename(replaced: rt::CapabilitySet) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_capset(&replaced);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_makedir<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<rt::Capability>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let columns = rt::get_list(reader_, 4, |reader_| reader_.get_string(64).map(<[u8]>::to_vec))?;
    let masks = reader_.array::<4>()?;
    let attributes = reader_.get_bytes(4096).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(move |pending| server_.makedir(&call, object, &name, columns, masks, &attributes, pending))
}

fn reply_makedir(directory: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_cap(&directory);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_removedir<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(move |pending| server_.removedir(&call, object, &name, pending))
}

fn reply_removedir((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_changes<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let directories = rt::get_list(reader_, 1000, |reader_| reader_.get_private())?;
    reader_.end()?;
    let result = server_.changes(call, directories)?;
    reply_changes(result)
}

fn reply_changes(result: ChangesReply) -> Result<rt::Message, rt::Failure> {
    let ChangesReply { sequences, now } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, sequences.len(), 1000)?;
    for item_ in &sequences {
        writer_.put_u64(*item_);
    }
    writer_.put_u64(now);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_export<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let snapshot = reader_.get_u64()?;
    let after = reader_.get_bytes(264)?;
    reader_.end()?;
    let result = server_.export(call, object, snapshot, after)?;
    reply_export(result)
}

fn reply_export(result: ExportReply) -> Result<rt::Message, rt::Failure> {
    let ExportReply { snapshot, next, page } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(snapshot);
    rt::put_bytes(writer_, &next, 264)?;
    writer_.raw(&rt::within(page, 1048576)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_export_end<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let snapshot = reader_.get_u64()?;
    reader_.end()?;
    server_.export_end(call, object, snapshot)?;
    reply_export_end(())
}

fn reply_export_end((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_usage<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.usage(call, object)?;
    reply_usage(result)
}

fn reply_usage(result: UsageReply) -> Result<rt::Message, rt::Failure> {
    let UsageReply { directories, sequence, tables, log, log_used, cache, cache_used, waiting } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(directories);
    writer_.put_u64(sequence);
    writer_.put_u64(tables);
    writer_.put_u64(log);
    writer_.put_u64(log_used);
    writer_.put_u64(cache);
    writer_.put_u64(cache_used);
    writer_.put_u64(waiting);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
