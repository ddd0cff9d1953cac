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
pub const REQUEST_SIZE_MAX: usize = 8388616;

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
    ) -> Result<Vec<u8>, rt::Status>;
    /// The size of a committed file, in bytes.
    ///
    /// # Rights
    /// `READ`.
    fn size(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>) -> Result<u64, rt::Status>;
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
            2009 => request.answer(|call, header, data| serve_sync(server, call, header, data)),
            2051 => request.answer(|call, header, data| serve_create(server, call, header, data)),
            2052 => request.answer(|call, header, data| serve_delete(server, call, header, data)),
            2053 => request.answer(|call, header, data| serve_fsck(server, call, header, data)),
            2054 => request.answer(|call, header, data| serve_insert(server, call, header, data)),
            2055 => request.answer(|call, header, data| serve_modify(server, call, header, data)),
            2056 => request.answer(|call, header, data| serve_read(server, call, header, data)),
            2057 => request.answer(|call, header, data| serve_size(server, call, header, data)),
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
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let offset = reader_.get_u64()?;
    let size = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.read(call, object, offset, size)?;
    reply_read(result)
}

fn reply_read(data: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(data, 8388608)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
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
