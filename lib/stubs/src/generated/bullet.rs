// Generated from idl/bullet.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Make files.
pub const CREATE: rt::Rights = rt::Rights::from_bits_retain(0x01);
/// Read a file, learn its size; of the server itself, look at its status.
pub const READ: rt::Rights = rt::Rights::from_bits_retain(0x02);
/// With READ: edit a file, or a copy of it if it is committed.
pub const MODIFY: rt::Rights = rt::Rights::from_bits_retain(0x04);
/// Destroy a file.
pub const DESTROY: rt::Rights = rt::Rights::from_bits_retain(0x08);
/// Administer the server.
pub const ADMIN: rt::Rights = rt::Rights::from_bits_retain(0x80);
/// Bytes of a file in one request.
pub const REQUEST_DATA_MAX: usize = 8388608;
/// Bytes of a file in one reply.
pub const READ_SIZE_MAX: usize = 8388608;
/// Bytes of a file in one request or reply of the original's form.
pub const CLASSIC_SIZE_MAX: usize = 29768;
/// Problems that fsck describes.
pub const PROBLEMS_MAX: usize = 1000;
/// Bytes of the description of a problem.
pub const PROBLEM_SIZE_MAX: usize = 255;
/// Files in one page of a list.
pub const LIST_MAX: usize = 4096;
/// Bytes of a file that read_whole gives with its reply; of a larger one it lends the memory.
pub const WHOLE_SIZE_MAX: usize = 131072;
/// Files made with one request.
pub const MANY_MAX: usize = 128;
/// Bytes of each of them.
pub const MANY_SIZE_MAX: usize = 32768;
/// The file is complete: make it visible and immutable. Without SAFETY it is written to disk within a
/// minute, whole, or a crash forgets it.
pub const COMMIT: u16 = 1;
/// With COMMIT: answer when the file is on disk.
pub const SAFETY: u16 = 2;
/// The command of [`classic_create()`].
pub const CMD_CLASSIC_CREATE: rt::Command = rt::Command(2001);
/// The command of [`classic_delete()`].
pub const CMD_CLASSIC_DELETE: rt::Command = rt::Command(2002);
/// The command of [`classic_fsck()`].
pub const CMD_CLASSIC_FSCK: rt::Command = rt::Command(2003);
/// The command of [`classic_insert()`].
pub const CMD_CLASSIC_INSERT: rt::Command = rt::Command(2004);
/// The command of [`classic_modify()`].
pub const CMD_CLASSIC_MODIFY: rt::Command = rt::Command(2005);
/// The command of [`classic_read()`].
pub const CMD_CLASSIC_READ: rt::Command = rt::Command(2006);
/// The command of [`classic_size()`].
pub const CMD_CLASSIC_SIZE: rt::Command = rt::Command(2007);
/// The command of [`classic_compact()`].
pub const CMD_CLASSIC_COMPACT: rt::Command = rt::Command(2008);
/// The command of [`sync()`].
pub const CMD_SYNC: rt::Command = rt::Command(2009);
/// The command of [`create()`].
pub const CMD_CREATE: rt::Command = rt::Command(2051);
/// The command of [`delete()`].
pub const CMD_DELETE: rt::Command = rt::Command(2052);
/// The command of [`fsck()`].
pub const CMD_FSCK: rt::Command = rt::Command(2053);
/// The command of [`insert()`].
pub const CMD_INSERT: rt::Command = rt::Command(2054);
/// The command of [`modify()`].
pub const CMD_MODIFY: rt::Command = rt::Command(2055);
/// The command of [`read()`].
pub const CMD_READ: rt::Command = rt::Command(2056);
/// The command of [`size()`].
pub const CMD_SIZE: rt::Command = rt::Command(2057);
/// The command of [`compact()`].
pub const CMD_COMPACT: rt::Command = rt::Command(2058);
/// The command of [`usage()`].
pub const CMD_USAGE: rt::Command = rt::Command(2060);
/// The command of [`list()`].
pub const CMD_LIST: rt::Command = rt::Command(2061);
/// The command of [`identity()`].
pub const CMD_IDENTITY: rt::Command = rt::Command(2062);
/// The command of [`adopt()`].
pub const CMD_ADOPT: rt::Command = rt::Command(2063);
/// The command of [`restore()`].
pub const CMD_RESTORE: rt::Command = rt::Command(2064);
/// The command of [`read_whole()`].
pub const CMD_READ_WHOLE: rt::Command = rt::Command(2065);
/// The command of [`read_small()`].
pub const CMD_READ_SMALL: rt::Command = rt::Command(2066);
/// The command of [`create_many()`].
pub const CMD_CREATE_MANY: rt::Command = rt::Command(2067);

/// What the volume knows of a committed file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRecord {
    /// Its object number.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// The number of its commit; no two commits of a volume share one. 0: not on disk yet.
    pub sequence: u64,
    /// The account it belongs to; 0 for none.
    pub owner: u64,
    /// What its check fields are made from: whoever has it and the identity's secret has every right.
    pub random: [u8; 6],
}

impl rt::Marshal for FileRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_u32(self.number);
        writer_.put_u64(self.size);
        writer_.put_u64(self.sequence);
        writer_.put_u64(self.owner);
        writer_.raw(&self.random);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let number = reader_.get_u32()?;
        let size = reader_.get_u64()?;
        let sequence = reader_.get_u64()?;
        let owner = reader_.get_u64()?;
        let random = reader_.array::<6>()?;
        Ok(FileRecord { number, size, sequence, owner, random })
    }
}

/// A new file, in the original's form.
///
/// - `flags`: COMMIT and SAFETY.
///
/// # Rights
/// `CREATE`.
pub fn classic_create<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    flags: u16,
    data: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_CREATE);
    let data = data.into();
    let data_ = rt::within(data, 29768)?;
    header_.size = rt::header_size(&data_);
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// Deletes bytes, in the original's form.
///
/// - `flags`: COMMIT and SAFETY.
/// - `size`: Not 0.
///
/// # Rights
/// `READ` and `MODIFY`.
pub fn classic_delete<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    offset: i32,
    flags: u16,
    size: i32,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_DELETE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_i32(size);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.offset = offset;
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// Checks the volume, and clears records that are no records. What was found is for fsck and status to
/// tell.
///
/// # Rights
/// `ALL`.
pub fn classic_fsck<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_FSCK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Inserts bytes, in the original's form.
///
/// - `flags`: COMMIT and SAFETY.
/// - `data`: Not empty.
///
/// # Rights
/// `READ` and `MODIFY`.
pub fn classic_insert<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    offset: i32,
    flags: u16,
    data: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_INSERT);
    let data = data.into();
    let data_ = rt::within(data, 29768)?;
    header_.size = rt::header_size(&data_);
    header_.offset = offset;
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// Overwrites bytes, in the original's form.
///
/// - `flags`: COMMIT and SAFETY.
///
/// # Rights
/// `READ` and `MODIFY`.
pub fn classic_modify<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    offset: i32,
    flags: u16,
    data: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_MODIFY);
    let data = data.into();
    let data_ = rt::within(data, 29768)?;
    header_.size = rt::header_size(&data_);
    header_.offset = offset;
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// Bytes of a committed file, in the original's form.
///
/// - `wanted`: Bytes, at most CLASSIC_SIZE_MAX.
///
/// # Rights
/// `READ`.
pub fn classic_read<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    offset: i32,
    wanted: u16,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_READ);
    let data_ = Vec::new();
    header_.offset = offset;
    header_.size = wanted;
    let (_, data_) = t.into().trans(header_, data_, 29768, true)?;
    let data = rt::rest(data_, 0, 29768)?;
    Ok(data)
}

/// The size of a committed file, in the original's form: STD_OVERFLOW from 2 GiB on.
///
/// # Rights
/// `READ`.
pub fn classic_size<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<i32, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_SIZE);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let size = header_.offset;
    rt::Reader::new(&data_).end()?;
    Ok(size)
}

/// As compact, in the original's form.
///
/// # Rights
/// `ALL`.
pub fn classic_compact<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLASSIC_COMPACT);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Writes every committed file to disk.
///
/// # Rights
/// None.
pub fn sync<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SYNC);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// A new file; the capability has all rights. Made through a committed file's capability with READ, it
/// is compared with that file when it is committed: if they are equal, the new file is gone and the old
/// capability, with the rights it had, is the result. STD_NOSPACE: no blocks or no inode; STD_NOMEM:
/// too many uncommitted files; STD_WRITEPROT: the disk has failed before.
///
/// - `flags`: COMMIT and SAFETY.
///
/// # Rights
/// `CREATE`.
pub fn create<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    flags: u16,
    data: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CREATE);
    let data = data.into();
    let data_ = rt::within(data, 8388608)?;
    header_.size = rt::header_size(&data_);
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// Takes bytes out; what lies behind them moves down. An uncommitted file stays the same object, a
/// committed one is cloned first and the clone's capability is the result. After an error the file is
/// as before.
///
/// - `flags`: COMMIT and SAFETY.
/// - `offset`: At most the size of the file.
/// - `size`: Not 0; cut at the end of the file.
///
/// # Rights
/// `READ` and `MODIFY`.
pub fn delete<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    flags: u16,
    offset: u64,
    size: u64,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_DELETE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(offset);
    writer_.put_u64(size);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// What [`fsck()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct FsckReply {
    /// Files looked at.
    pub file_count: u64,
    /// Their bytes.
    pub size: u64,
    /// The problem count.
    pub problem_count: u64,
    /// The first of them, a sentence each.
    pub problems: Vec<Vec<u8>>,
}

/// Compares every record and every byte on disk with what they should be. Changes no file.
///
/// - `repair`: Clear records that are no records, so that their numbers can be used again.
///
/// # Rights
/// `ALL`.
pub fn fsck<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    repair: bool,
) -> Result<FsckReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_FSCK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.extra = u16::from(repair);
    let (_, data_) = t.into().trans(header_, data_, 256028, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let file_count = reader_.get_u64()?;
    let size = reader_.get_u64()?;
    let problem_count = reader_.get_u64()?;
    let problems = rt::get_list(reader_, 1000, |reader_| reader_.get_string(255).map(<[u8]>::to_vec))?;
    reader_.end()?;
    Ok(FsckReply { file_count, size, problem_count, problems })
}

/// Puts bytes in; what lies behind them moves up. Otherwise as delete.
///
/// - `flags`: COMMIT and SAFETY.
/// - `offset`: At most the size of the file.
/// - `data`: Not empty.
///
/// # Rights
/// `READ` and `MODIFY`.
pub fn insert<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    flags: u16,
    offset: u64,
    data: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_INSERT);
    let data = data.into();
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(offset);
    writer_.raw(&rt::within(data, 8388608)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// Overwrites bytes, and lengthens the file where it must. Otherwise as delete.
///
/// - `flags`: COMMIT and SAFETY.
/// - `offset`: At most the size of the file.
/// - `data`: May be empty: to commit, or to be remembered.
///
/// # Rights
/// `READ` and `MODIFY`.
pub fn modify<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    flags: u16,
    offset: u64,
    data: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_MODIFY);
    let data = data.into();
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(offset);
    writer_.raw(&rt::within(data, 8388608)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.extra = flags;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// Bytes of a committed file; fewer than wanted only at its end. STD_SYSERR: what lies on the disk is
/// not what was committed.
///
/// - `offset`: At most the size of the file.
/// - `size`: Bytes wanted; more than READ_SIZE_MAX counts as that.
///
/// # Rights
/// `READ`.
pub fn read<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    offset: u64,
    size: u32,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_READ);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(offset);
    writer_.put_u32(size);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 8388608, true)?;
    let data = rt::rest(data_, 0, 8388608)?;
    Ok(data)
}

/// The size of a committed file, in bytes.
///
/// # Rights
/// `READ`.
pub fn size<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<u64, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SIZE);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 8, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let size = reader_.get_u64()?;
    reader_.end()?;
    Ok(size)
}

/// What [`compact()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactReply {
    /// Files that were moved.
    pub moved_files: u64,
    /// Their bytes.
    pub moved_size: u64,
    /// Holes that are left.
    pub hole_count: u64,
    /// Bytes of the largest.
    pub hole_size_max: u64,
}

/// Moves files down into holes while other requests go on, and answers when no move is worth its cost
/// any more; usage tells how far it is. A crash leaves every file whole. STD_NOTNOW: a compaction runs
/// already; STD_WRITEPROT: the disk has failed before.
///
/// # Rights
/// `ALL`.
pub fn compact<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<CompactReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_COMPACT);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 32, false)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let moved_files = reader_.get_u64()?;
    let moved_size = reader_.get_u64()?;
    let hole_count = reader_.get_u64()?;
    let hole_size_max = reader_.get_u64()?;
    reader_.end()?;
    Ok(CompactReply { moved_files, moved_size, hole_count, hole_size_max })
}

/// What [`usage()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageReply {
    /// Bytes of a block.
    pub block_size: u32,
    /// That files can use.
    pub blocks: u64,
    /// The blocks free.
    pub blocks_free: u64,
    /// Pieces that the free blocks are in.
    pub hole_count: u64,
    /// Bytes of the largest.
    pub hole_size_max: u64,
    /// Inodes in use.
    pub files: u64,
    /// Inodes there are.
    pub files_max: u64,
    /// Bytes of memory for files.
    pub cache_size: u64,
    /// Of it: committed files.
    pub cached: u64,
    /// Of it: committed files that are not on disk yet.
    pub unwritten: u64,
    /// Of it: uncommitted files.
    pub uncommitted: u64,
    /// The uncommitted files.
    pub uncommitted_files: u64,
    /// Files whose bytes on disk are not what was committed, and records that are none.
    pub damaged_files: u64,
    /// The disk has failed, or is truncated.
    pub write_protected: bool,
    /// A compaction runs.
    pub compacting: bool,
    /// Blocks it has passed.
    pub compact_done: u64,
    /// Blocks it has to pass.
    pub compact_all: u64,
}

/// What of the volume and of the memory is in use.
///
/// # Rights
/// `READ`.
pub fn usage<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<UsageReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_USAGE);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 118, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let block_size = reader_.get_u32()?;
    let blocks = reader_.get_u64()?;
    let blocks_free = reader_.get_u64()?;
    let hole_count = reader_.get_u64()?;
    let hole_size_max = reader_.get_u64()?;
    let files = reader_.get_u64()?;
    let files_max = reader_.get_u64()?;
    let cache_size = reader_.get_u64()?;
    let cached = reader_.get_u64()?;
    let unwritten = reader_.get_u64()?;
    let uncommitted = reader_.get_u64()?;
    let uncommitted_files = reader_.get_u64()?;
    let damaged_files = reader_.get_u64()?;
    let write_protected = reader_.get_bool()?;
    let compacting = reader_.get_bool()?;
    let compact_done = reader_.get_u64()?;
    let compact_all = reader_.get_u64()?;
    reader_.end()?;
    Ok(UsageReply {
        block_size,
        blocks,
        blocks_free,
        hole_count,
        hole_size_max,
        files,
        files_max,
        cache_size,
        cached,
        unwritten,
        uncommitted,
        uncommitted_files,
        damaged_files,
        write_protected,
        compacting,
        compact_done,
        compact_all,
    })
}

/// What [`list()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ListReply {
    /// The files.
    pub files: Vec<FileRecord>,
    /// Where to go on; 0 at the end.
    pub next: u32,
}

/// Committed files by object number, for a backup. With the identity and a file's random anybody can
/// make a capability of it.
///
/// - `after`: The object number after which to go on; 0 to begin.
///
/// # Rights
/// `ALL`.
pub fn list<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    after: u32,
) -> Result<ListReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LIST);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(after);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 139272, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let files = rt::get_list(reader_, 4096, <FileRecord as rt::Marshal>::get)?;
    let next = reader_.get_u32()?;
    reader_.end()?;
    Ok(ListReply { files, next })
}

/// What [`identity()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityReply {
    /// The secret port the server listens on.
    pub get_port: [u8; 6],
    /// Of object 0, the server itself.
    pub random: [u8; 6],
    /// The key of its check fields.
    pub secret: [u8; 32],
}

/// What makes the service's capabilities: for a backup. Whoever has it has every right to every file.
///
/// # Rights
/// `ALL`.
pub fn identity<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<IdentityReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_IDENTITY);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 44, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let get_port = reader_.array::<6>()?;
    let random = reader_.array::<6>()?;
    let secret = reader_.array::<32>()?;
    reader_.end()?;
    Ok(IdentityReply { get_port, random, secret })
}

/// Takes the identity of another service, so that its capabilities become this one's: for a restore,
/// into a volume without files (else STD_EXISTS). Durable with the answer; the server takes it at its
/// next start, and until then makes no files.
///
/// - `get_port`: The secret port to listen on.
/// - `random`: Of object 0.
/// - `secret`: The key of check fields.
///
/// # Rights
/// `ALL`.
pub fn adopt<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    get_port: &[u8; 6],
    random: &[u8; 6],
    secret: &[u8; 32],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_ADOPT);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(get_port);
    writer_.raw(random);
    writer_.raw(secret);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Makes an uncommitted file with the number and the random that a backed-up one had; modify adds the
/// rest and commits. So the capabilities that were given out for it are good again. STD_EXISTS: the
/// number is taken.
///
/// - `number`: The object number it had.
/// - `owner`: The account it belongs to.
/// - `data`: Its first bytes.
///
/// # Rights
/// `ALL`.
pub fn restore<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    number: u32,
    random: &[u8; 6],
    owner: u64,
    data: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RESTORE);
    let data = data.into();
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(random);
    writer_.put_u64(owner);
    writer_.raw(&rt::within(data, 8388608)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.offset = number as i32;
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let file = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(file)
}

/// What [`read_whole()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadWholeReply {
    /// Bytes of the file.
    pub size: u64,
    /// Where the file is lent: the ticket with which the process that asked gets it from its kernel as a
    /// sealed memory file; else 0.
    pub ticket: u64,
    /// All of a file that is not larger than this; else empty.
    pub data: Vec<u8>,
}

/// A committed file for whom wants all of it: a small one as it is, a large one, on the server's own
/// host, as the memory it is cached in. With neither data nor ticket the file is to be read in pieces:
/// nothing was to be lent, the reader is elsewhere, so much is lent already, or the file is larger than
/// a quarter of the server's memory or not on disk yet.
///
/// - `lend`: Whether the process that asks wants memory of its host to be lent to it.
///
/// # Rights
/// `READ`.
pub fn read_whole<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    lend: bool,
) -> Result<ReadWholeReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_READ_WHOLE);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.extra = u16::from(lend);
    let (_, data_) = t.into().trans(header_, data_, 131088, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let size = reader_.get_u64()?;
    let ticket = reader_.get_u64()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 131072)?;
    Ok(ReadWholeReply { size, ticket, data })
}

/// All of a committed file, for whoever does not know how large it is and is on another host.
/// STD_OVERFLOW: it is larger than size_max, and to be read in pieces. STD_SYSERR: as read.
///
/// - `size_max`: The largest file that is wanted; more than READ_SIZE_MAX counts as that.
///
/// # Rights
/// `READ`.
pub fn read_small<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    size_max: u32,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_READ_SMALL);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(size_max);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 8388608, true)?;
    let data = rt::rest(data_, 0, 8388608)?;
    Ok(data)
}

/// A new committed file of each, in this order; the capabilities have all rights. All or none.
/// STD_NOSPACE, STD_WRITEPROT: as create.
///
/// - `flags`: COMMIT, which must be there, and SAFETY: with it they are brought to the disk together.
///
/// # Rights
/// `CREATE`.
pub fn create_many<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    flags: u16,
    files: &[Vec<u8>],
) -> Result<Vec<rt::Capability>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CREATE_MANY);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, files.len(), 128)?;
    for item_ in files {
        rt::put_bytes(writer_, item_, 32768)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.extra = flags;
    let (_, data_) = t.into().trans(header_, data_, 2052, false)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let files = rt::get_list(reader_, 128, |reader_| reader_.get_cap())?;
    reader_.end()?;
    Ok(files)
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
    rt::Standard { command: rt::Command(1002), rights: rt::Rights::from_bits_retain(0x01), on: rt::On::Any },
    // destroy
    rt::Standard { command: rt::Command(1003), rights: rt::Rights::from_bits_retain(0x08), on: rt::On::Any },
    // info
    rt::Standard { command: rt::Command(1004), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // restrict
    rt::Standard { command: rt::Command(1005), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // status
    rt::Standard { command: rt::Command(1006), rights: rt::Rights::from_bits_retain(0x02), on: rt::On::Any },
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
pub const REQUEST_SIZE_MAX: usize = 8388622;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// A new file, in the original's form.
    ///
    /// # Rights
    /// `CREATE`.
    fn classic_create(
        &self,
        call: &rt::Call,
        object: rt::Object<{ CREATE.bits() }>,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<rt::Capability, rt::Status>;
    /// Deletes bytes, in the original's form.
    ///
    /// # Rights
    /// `READ` and `MODIFY`.
    fn classic_delete(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() | MODIFY.bits() }>,
        offset: i32,
        flags: u16,
        size: i32,
    ) -> Result<rt::Capability, rt::Status>;
    /// Checks the volume, and clears records that are no records. What was found is for fsck and status to
    /// tell.
    ///
    /// # Rights
    /// `ALL`.
    fn classic_fsck(&self, call: &rt::Call, object: rt::Object<255>) -> Result<(), rt::Status>;
    /// Inserts bytes, in the original's form.
    ///
    /// # Rights
    /// `READ` and `MODIFY`.
    fn classic_insert(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() | MODIFY.bits() }>,
        offset: i32,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<rt::Capability, rt::Status>;
    /// Overwrites bytes, in the original's form.
    ///
    /// # Rights
    /// `READ` and `MODIFY`.
    fn classic_modify(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() | MODIFY.bits() }>,
        offset: i32,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<rt::Capability, rt::Status>;
    /// Bytes of a committed file, in the original's form.
    ///
    /// # Rights
    /// `READ`.
    fn classic_read(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        offset: i32,
        wanted: u16,
    ) -> Result<Vec<u8>, rt::Status>;
    /// The size of a committed file, in the original's form: STD_OVERFLOW from 2 GiB on.
    ///
    /// # Rights
    /// `READ`.
    fn classic_size(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>) -> Result<i32, rt::Status>;
    /// As compact, in the original's form.
    ///
    /// # Rights
    /// `ALL`.
    fn classic_compact(&self, call: &rt::Call, object: rt::Object<255>) -> Result<(), rt::Status>;
    /// Writes every committed file to disk.
    ///
    /// # Rights
    /// None.
    fn sync(&self, call: &rt::Call, object: rt::Object<0>) -> Result<(), rt::Status>;
    /// A new file; the capability has all rights. Made through a committed file's capability with READ, it
    /// is compared with that file when it is committed: if they are equal, the new file is gone and the old
    /// capability, with the rights it had, is the result. STD_NOSPACE: no blocks or no inode; STD_NOMEM:
    /// too many uncommitted files; STD_WRITEPROT: the disk has failed before.
    ///
    /// # Rights
    /// `CREATE`.
    fn create(
        &self,
        call: &rt::Call,
        object: rt::Object<{ CREATE.bits() }>,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<rt::Capability, rt::Status>;
    /// Takes bytes out; what lies behind them moves down. An uncommitted file stays the same object, a
    /// committed one is cloned first and the clone's capability is the result. After an error the file is
    /// as before.
    ///
    /// # Rights
    /// `READ` and `MODIFY`.
    fn delete(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() | MODIFY.bits() }>,
        flags: u16,
        offset: u64,
        size: u64,
    ) -> Result<rt::Capability, rt::Status>;
    /// Compares every record and every byte on disk with what they should be. Changes no file.
    ///
    /// # Rights
    /// `ALL`.
    fn fsck(&self, call: &rt::Call, object: rt::Object<255>, repair: bool) -> Result<FsckReply, rt::Status>;
    /// Puts bytes in; what lies behind them moves up. Otherwise as delete.
    ///
    /// # Rights
    /// `READ` and `MODIFY`.
    fn insert(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() | MODIFY.bits() }>,
        flags: u16,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<rt::Capability, rt::Status>;
    /// Overwrites bytes, and lengthens the file where it must. Otherwise as delete.
    ///
    /// # Rights
    /// `READ` and `MODIFY`.
    fn modify(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() | MODIFY.bits() }>,
        flags: u16,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<rt::Capability, rt::Status>;
    /// Bytes of a committed file; fewer than wanted only at its end. STD_SYSERR: what lies on the disk is
    /// not what was committed.
    ///
    /// # Rights
    /// `READ`.
    fn read(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        offset: u64,
        size: u32,
    ) -> Result<rt::Bulk, rt::Status>;
    /// The size of a committed file, in bytes.
    ///
    /// # Rights
    /// `READ`.
    fn size(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>) -> Result<u64, rt::Status>;
    /// Moves files down into holes while other requests go on, and answers when no move is worth its cost
    /// any more; usage tells how far it is. A crash leaves every file whole. STD_NOTNOW: a compaction runs
    /// already; STD_WRITEPROT: the disk has failed before.
    ///
    /// # Rights
    /// `ALL`.
    fn compact(&self, call: &rt::Call, object: rt::Object<255>) -> Result<CompactReply, rt::Status>;
    /// What of the volume and of the memory is in use.
    ///
    /// # Rights
    /// `READ`.
    fn usage(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>) -> Result<UsageReply, rt::Status>;
    /// Committed files by object number, for a backup. With the identity and a file's random anybody can
    /// make a capability of it.
    ///
    /// # Rights
    /// `ALL`.
    fn list(&self, call: &rt::Call, object: rt::Object<255>, after: u32) -> Result<ListReply, rt::Status>;
    /// What makes the service's capabilities: for a backup. Whoever has it has every right to every file.
    ///
    /// # Rights
    /// `ALL`.
    fn identity(&self, call: &rt::Call, object: rt::Object<255>) -> Result<IdentityReply, rt::Status>;
    /// Takes the identity of another service, so that its capabilities become this one's: for a restore,
    /// into a volume without files (else STD_EXISTS). Durable with the answer; the server takes it at its
    /// next start, and until then makes no files.
    ///
    /// # Rights
    /// `ALL`.
    fn adopt(
        &self,
        call: &rt::Call,
        object: rt::Object<255>,
        get_port: [u8; 6],
        random: [u8; 6],
        secret: [u8; 32],
    ) -> Result<(), rt::Status>;
    /// Makes an uncommitted file with the number and the random that a backed-up one had; modify adds the
    /// rest and commits. So the capabilities that were given out for it are good again. STD_EXISTS: the
    /// number is taken.
    ///
    /// # Rights
    /// `ALL`.
    fn restore(
        &self,
        call: &rt::Call,
        object: rt::Object<255>,
        number: u32,
        random: [u8; 6],
        owner: u64,
        data: Vec<u8>,
    ) -> Result<rt::Capability, rt::Status>;
    /// A committed file for whom wants all of it: a small one as it is, a large one, on the server's own
    /// host, as the memory it is cached in. With neither data nor ticket the file is to be read in pieces:
    /// nothing was to be lent, the reader is elsewhere, so much is lent already, or the file is larger than
    /// a quarter of the server's memory or not on disk yet.
    ///
    /// # Rights
    /// `READ`.
    fn read_whole(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        lend: bool,
    ) -> Result<ReadWholeReply, rt::Status>;
    /// All of a committed file, for whoever does not know how large it is and is on another host.
    /// STD_OVERFLOW: it is larger than size_max, and to be read in pieces. STD_SYSERR: as read.
    ///
    /// # Rights
    /// `READ`.
    fn read_small(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        size_max: u32,
    ) -> Result<rt::Bulk, rt::Status>;
    /// A new committed file of each, in this order; the capabilities have all rights. All or none.
    /// STD_NOSPACE, STD_WRITEPROT: as create.
    ///
    /// # Rights
    /// `CREATE`.
    fn create_many(
        &self,
        call: &rt::Call,
        object: rt::Object<{ CREATE.bits() }>,
        flags: u16,
        files: Vec<Vec<u8>>,
    ) -> Result<Vec<rt::Capability>, rt::Status>;
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
            2001 => request.answer(|call, header, data| serve_classic_create(server, call, header, data)),
            2002 => request.answer(|call, header, data| serve_classic_delete(server, call, header, data)),
            2003 => request.answer(|call, header, data| serve_classic_fsck(server, call, header, data)),
            2004 => request.answer(|call, header, data| serve_classic_insert(server, call, header, data)),
            2005 => request.answer(|call, header, data| serve_classic_modify(server, call, header, data)),
            2006 => request.answer(|call, header, data| serve_classic_read(server, call, header, data)),
            2007 => request.answer(|call, header, data| serve_classic_size(server, call, header, data)),
            2008 => request.answer(|call, header, data| serve_classic_compact(server, call, header, data)),
            2009 => request.answer(|call, header, data| serve_sync(server, call, header, data)),
            2051 => request.answer(|call, header, data| serve_create(server, call, header, data)),
            2052 => request.answer(|call, header, data| serve_delete(server, call, header, data)),
            2053 => request.answer(|call, header, data| serve_fsck(server, call, header, data)),
            2054 => request.answer(|call, header, data| serve_insert(server, call, header, data)),
            2055 => request.answer(|call, header, data| serve_modify(server, call, header, data)),
            2056 => request.answer_bulk(|call, header, data| serve_read(server, call, header, data)),
            2057 => request.answer(|call, header, data| serve_size(server, call, header, data)),
            2058 => request.answer(|call, header, data| serve_compact(server, call, header, data)),
            2060 => request.answer(|call, header, data| serve_usage(server, call, header, data)),
            2061 => request.answer(|call, header, data| serve_list(server, call, header, data)),
            2062 => request.answer(|call, header, data| serve_identity(server, call, header, data)),
            2063 => request.answer(|call, header, data| serve_adopt(server, call, header, data)),
            2064 => request.answer(|call, header, data| serve_restore(server, call, header, data)),
            2065 => request.answer(|call, header, data| serve_read_whole(server, call, header, data)),
            2066 => request.answer_bulk(|call, header, data| serve_read_small(server, call, header, data)),
            2067 => request.answer(|call, header, data| serve_create_many(server, call, header, data)),
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

fn serve_classic_create<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let flags = header_.extra;
    let data = rt::rest(data_, 0, 29768)?;
    let result = server_.classic_create(call, object, flags, data)?;
    reply_classic_create(result)
}

fn reply_classic_create(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_delete<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let offset = header_.offset;
    let flags = header_.extra;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let size = reader_.get_i32()?;
    reader_.end()?;
    let result = server_.classic_delete(call, object, offset, flags, size)?;
    reply_classic_delete(result)
}

fn reply_classic_delete(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_fsck<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    server_.classic_fsck(call, object)?;
    reply_classic_fsck(())
}

fn reply_classic_fsck((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_insert<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let offset = header_.offset;
    let flags = header_.extra;
    let data = rt::rest(data_, 0, 29768)?;
    let result = server_.classic_insert(call, object, offset, flags, data)?;
    reply_classic_insert(result)
}

fn reply_classic_insert(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_modify<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let offset = header_.offset;
    let flags = header_.extra;
    let data = rt::rest(data_, 0, 29768)?;
    let result = server_.classic_modify(call, object, offset, flags, data)?;
    reply_classic_modify(result)
}

fn reply_classic_modify(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_read<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let offset = header_.offset;
    let wanted = header_.size;
    rt::Reader::new(&data_).end()?;
    let result = server_.classic_read(call, object, offset, wanted)?;
    reply_classic_read(result)
}

fn reply_classic_read(data: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(data, 29768)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_size<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.classic_size(call, object)?;
    reply_classic_size(result)
}

fn reply_classic_size(size: i32) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.offset = size;
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_classic_compact<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    server_.classic_compact(call, object)?;
    reply_classic_compact(())
}

fn reply_classic_compact((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_sync<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    server_.sync(call, object)?;
    reply_sync(())
}

fn reply_sync((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_create<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let flags = header_.extra;
    let data = rt::rest(data_, 0, 8388608)?;
    let result = server_.create(call, object, flags, data)?;
    reply_create(result)
}

fn reply_create(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_delete<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let flags = header_.extra;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let offset = reader_.get_u64()?;
    let size = reader_.get_u64()?;
    reader_.end()?;
    let result = server_.delete(call, object, flags, offset, size)?;
    reply_delete(result)
}

fn reply_delete(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_fsck<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let repair = header_.extra != 0;
    rt::Reader::new(&data_).end()?;
    let result = server_.fsck(call, object, repair)?;
    reply_fsck(result)
}

fn reply_fsck(result: FsckReply) -> Result<rt::Message, rt::Failure> {
    let FsckReply { file_count, size, problem_count, problems } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(file_count);
    writer_.put_u64(size);
    writer_.put_u64(problem_count);
    rt::put_count(writer_, problems.len(), 1000)?;
    for item_ in &problems {
        rt::put_string(writer_, item_, 255)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_insert<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let flags = header_.extra;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let offset = reader_.get_u64()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 8388608)?;
    let result = server_.insert(call, object, flags, offset, data)?;
    reply_insert(result)
}

fn reply_insert(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_modify<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let flags = header_.extra;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let offset = reader_.get_u64()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 8388608)?;
    let result = server_.modify(call, object, flags, offset, data)?;
    reply_modify(result)
}

fn reply_modify(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_read<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<(rt::Header, rt::Bulk), rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let offset = reader_.get_u64()?;
    let size = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.read(call, object, offset, size)?;
    reply_read(result)
}

fn reply_read(data: rt::Bulk) -> Result<(rt::Header, rt::Bulk), rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(data, 8388608)?;
    header_.size = rt::header_size(&data_);
    Ok((header_, data_))
}

fn serve_size<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.size(call, object)?;
    reply_size(result)
}

fn reply_size(size: u64) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(size);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_compact<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.compact(call, object)?;
    reply_compact(result)
}

fn reply_compact(result: CompactReply) -> Result<rt::Message, rt::Failure> {
    let CompactReply { moved_files, moved_size, hole_count, hole_size_max } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(moved_files);
    writer_.put_u64(moved_size);
    writer_.put_u64(hole_count);
    writer_.put_u64(hole_size_max);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_usage<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.usage(call, object)?;
    reply_usage(result)
}

fn reply_usage(result: UsageReply) -> Result<rt::Message, rt::Failure> {
    let UsageReply {
        block_size,
        blocks,
        blocks_free,
        hole_count,
        hole_size_max,
        files,
        files_max,
        cache_size,
        cached,
        unwritten,
        uncommitted,
        uncommitted_files,
        damaged_files,
        write_protected,
        compacting,
        compact_done,
        compact_all,
    } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(block_size);
    writer_.put_u64(blocks);
    writer_.put_u64(blocks_free);
    writer_.put_u64(hole_count);
    writer_.put_u64(hole_size_max);
    writer_.put_u64(files);
    writer_.put_u64(files_max);
    writer_.put_u64(cache_size);
    writer_.put_u64(cached);
    writer_.put_u64(unwritten);
    writer_.put_u64(uncommitted);
    writer_.put_u64(uncommitted_files);
    writer_.put_u64(damaged_files);
    writer_.put_bool(write_protected);
    writer_.put_bool(compacting);
    writer_.put_u64(compact_done);
    writer_.put_u64(compact_all);
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
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let after = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.list(call, object, after)?;
    reply_list(result)
}

fn reply_list(result: ListReply) -> Result<rt::Message, rt::Failure> {
    let ListReply { files, next } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, files.len(), 4096)?;
    for item_ in &files {
        rt::Marshal::put(item_, writer_)?;
    }
    writer_.put_u32(next);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_identity<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.identity(call, object)?;
    reply_identity(result)
}

fn reply_identity(result: IdentityReply) -> Result<rt::Message, rt::Failure> {
    let IdentityReply { get_port, random, secret } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(&get_port);
    writer_.raw(&random);
    writer_.raw(&secret);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_adopt<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let get_port = reader_.array::<6>()?;
    let random = reader_.array::<6>()?;
    let secret = reader_.array::<32>()?;
    reader_.end()?;
    server_.adopt(call, object, get_port, random, secret)?;
    reply_adopt(())
}

fn reply_adopt((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_restore<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let number = header_.offset as u32;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let random = reader_.array::<6>()?;
    let owner = reader_.get_u64()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 8388608)?;
    let result = server_.restore(call, object, number, random, owner, data)?;
    reply_restore(result)
}

fn reply_restore(file: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&file);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_read_whole<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let lend = header_.extra != 0;
    rt::Reader::new(&data_).end()?;
    let result = server_.read_whole(call, object, lend)?;
    reply_read_whole(result)
}

fn reply_read_whole(result: ReadWholeReply) -> Result<rt::Message, rt::Failure> {
    let ReadWholeReply { size, ticket, data } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(size);
    writer_.put_u64(ticket);
    writer_.raw(&rt::within(data, 131072)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_read_small<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<(rt::Header, rt::Bulk), rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let size_max = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.read_small(call, object, size_max)?;
    reply_read_small(result)
}

fn reply_read_small(data: rt::Bulk) -> Result<(rt::Header, rt::Bulk), rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(data, 8388608)?;
    header_.size = rt::header_size(&data_);
    Ok((header_, data_))
}

fn serve_create_many<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let flags = header_.extra;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let files = rt::get_list(reader_, 128, |reader_| reader_.get_bytes(32768).map(<[u8]>::to_vec))?;
    reader_.end()?;
    let result = server_.create_many(call, object, flags, files)?;
    reply_create_many(result)
}

fn reply_create_many(files: Vec<rt::Capability>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, files.len(), 128)?;
    for item_ in &files {
        writer_.put_cap(item_);
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
