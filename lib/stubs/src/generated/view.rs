// Generated from idl/view.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Look and read.
pub const READ: rt::Rights = rt::Rights::from_bits_retain(0x01);
/// Change what is in writable trees.
pub const WRITE: rt::Rights = rt::Rights::from_bits_retain(0x02);
/// Bytes of a path, and of the text of a symbolic link.
pub const PATH_MAX: usize = 4095;
/// Bytes of a name.
pub const NAME_MAX: usize = 255;
/// Entries in one page of a list.
pub const LIST_MAX: usize = 1024;
/// Bytes of a file in one request or reply.
pub const PIECE_SIZE_MAX: usize = 1048576;
/// Nodes that are compared at once.
pub const KNOWN_MAX: usize = 4096;
/// Bytes of their answers.
pub const KNOWN_BITS_MAX: usize = 512;
/// Changes in one request.
pub const CHANGES_MAX: usize = 256;
/// Files that are brought in pieces at once by one writer.
pub const UPLOADS_MAX: usize = 16;
/// Writers of one run.
pub const WRITERS_MAX: usize = 64;
/// A regular file.
pub const KIND_FILE: u8 = 1;
/// A directory.
pub const KIND_DIRECTORY: u8 = 2;
/// A symbolic link.
pub const KIND_LINK: u8 = 3;
/// It belongs to the caller.
pub const OWNER_CALLER: u8 = 0;
/// It belongs to root.
pub const OWNER_ROOT: u8 = 1;
/// It belongs to somebody else.
pub const OWNER_OTHER: u8 = 2;
/// A new, empty file of this mode.
pub const CHANGE_CREATE: u8 = 1;
/// A new directory of this mode.
pub const CHANGE_DIRECTORY: u8 = 2;
/// A new symbolic link with the text `other`.
pub const CHANGE_LINK: u8 = 3;
/// What is no directory is removed.
pub const CHANGE_REMOVE: u8 = 4;
/// An empty directory is removed.
pub const CHANGE_REMOVE_DIRECTORY: u8 = 5;
/// It gets the name `other`, over what has that name.
pub const CHANGE_RENAME: u8 = 6;
/// A file has this mode and time, and as its contents `data`, or what was uploaded as `upload`, in one
/// step. If it is not of the version `base` any more, nothing is replaced: the new contents are kept
/// beside it.
pub const CHANGE_CONTENTS: u8 = 7;
/// It has this mode.
pub const CHANGE_MODE: u8 = 8;
/// It was last modified at this time.
pub const CHANGE_TIME: u8 = 9;
/// A file gets `other` as one more name.
pub const CHANGE_HARD_LINK: u8 = 10;
/// It gets the name `other`, which must be free.
pub const CHANGE_RENAME_NEW: u8 = 11;
/// the file is not of this version any more
pub const CHANGED: rt::Status = rt::Status(-4250);
/// a directory is needed
pub const NOTDIR: rt::Status = rt::Status(-4251);
/// anything but a directory is needed
pub const ISDIR: rt::Status = rt::Status(-4252);
/// the directory is not empty
pub const NOTEMPTY: rt::Status = rt::Status(-4253);
/// nothing may be changed there
pub const READONLY: rt::Status = rt::Status(-4254);
/// the file or the name is too large
pub const TOOLARGE: rt::Status = rt::Status(-4255);
/// the disk of the caller fails
pub const BROKEN: rt::Status = rt::Status(-4256);
/// the two names are of different file systems
pub const CROSSDEVICE: rt::Status = rt::Status(-4257);
/// The command of [`lookup()`].
pub const CMD_LOOKUP: rt::Command = rt::Command(4250);
/// The command of [`list()`].
pub const CMD_LIST: rt::Command = rt::Command(4251);
/// The command of [`read()`].
pub const CMD_READ: rt::Command = rt::Command(4252);
/// The command of [`identity()`].
pub const CMD_IDENTITY: rt::Command = rt::Command(4253);
/// The command of [`revalidate()`].
pub const CMD_REVALIDATE: rt::Command = rt::Command(4254);
/// The command of [`upload()`].
pub const CMD_UPLOAD: rt::Command = rt::Command(4255);
/// The command of [`apply()`].
pub const CMD_APPLY: rt::Command = rt::Command(4256);

/// A file, directory or symbolic link.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRecord {
    /// One of KIND_FILE to KIND_LINK.
    pub kind: u8,
    /// Permissions and the sticky bit; never a set-id bit.
    pub mode: u16,
    /// One of OWNER_CALLER to OWNER_OTHER.
    pub owner: u8,
    /// Likewise, of its group.
    pub group: u8,
    /// How many names it has.
    pub links: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes that it takes up.
    pub allocated: u64,
    /// When its contents last changed: seconds since 1970.
    pub modified_seconds: i64,
    /// And so many nanoseconds.
    pub modified_nanoseconds: u32,
    /// When contents or attributes last changed: seconds since 1970.
    pub changed_seconds: i64,
    /// And so many nanoseconds.
    pub changed_nanoseconds: u32,
    /// Another one whenever anything of it but the time of reading has changed.
    pub version: [u8; 16],
    /// The text of a symbolic link.
    pub text: Vec<u8>,
}

impl rt::Marshal for NodeRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_u8(self.kind);
        writer_.put_u16(self.mode);
        writer_.put_u8(self.owner);
        writer_.put_u8(self.group);
        writer_.put_u32(self.links);
        writer_.put_u64(self.size);
        writer_.put_u64(self.allocated);
        writer_.put_i64(self.modified_seconds);
        writer_.put_u32(self.modified_nanoseconds);
        writer_.put_i64(self.changed_seconds);
        writer_.put_u32(self.changed_nanoseconds);
        writer_.raw(&self.version);
        rt::put_string(writer_, &self.text, 4095)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let kind = reader_.get_u8()?;
        let mode = reader_.get_u16()?;
        let owner = reader_.get_u8()?;
        let group = reader_.get_u8()?;
        let links = reader_.get_u32()?;
        let size = reader_.get_u64()?;
        let allocated = reader_.get_u64()?;
        let modified_seconds = reader_.get_i64()?;
        let modified_nanoseconds = reader_.get_u32()?;
        let changed_seconds = reader_.get_i64()?;
        let changed_nanoseconds = reader_.get_u32()?;
        let version = reader_.array::<16>()?;
        let text = reader_.get_string(4095).map(<[u8]>::to_vec)?;
        Ok(NodeRecord {
            kind,
            mode,
            owner,
            group,
            links,
            size,
            allocated,
            modified_seconds,
            modified_nanoseconds,
            changed_seconds,
            changed_nanoseconds,
            version,
            text,
        })
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryRecord {
    /// The name.
    pub name: Vec<u8>,
    /// What it stands for.
    pub node: NodeRecord,
}

impl rt::Marshal for EntryRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.name, 255)?;
        rt::Marshal::put(&self.node, writer_)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let node = <NodeRecord as rt::Marshal>::get(reader_)?;
        Ok(EntryRecord { name, node })
    }
}

/// What a host believes.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownRecord {
    /// Of this node.
    pub path: Vec<u8>,
    /// That it is of this version.
    pub version: [u8; 16],
}

impl rt::Marshal for KnownRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.path, 4095)?;
        writer_.raw(&self.version);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let path = reader_.get_string(4095).map(<[u8]>::to_vec)?;
        let version = reader_.array::<16>()?;
        Ok(KnownRecord { path, version })
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeRecord {
    /// One of CHANGE_CREATE to CHANGE_RENAME_NEW.
    pub kind: u8,
    /// What is changed.
    pub path: Vec<u8>,
    /// See the kind.
    pub other: Vec<u8>,
    /// See the kind.
    pub mode: u16,
    /// When it was last modified: seconds since 1970.
    pub seconds: i64,
    /// And so many nanoseconds.
    pub nanoseconds: u32,
    /// See the kind.
    pub base: [u8; 16],
    /// The number of an upload, 0 for none.
    pub upload: u32,
    /// See the kind.
    pub data: Vec<u8>,
}

impl rt::Marshal for ChangeRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_u8(self.kind);
        rt::put_string(writer_, &self.path, 4095)?;
        rt::put_string(writer_, &self.other, 4095)?;
        writer_.put_u16(self.mode);
        writer_.put_i64(self.seconds);
        writer_.put_u32(self.nanoseconds);
        writer_.raw(&self.base);
        writer_.put_u32(self.upload);
        rt::put_bytes(writer_, &self.data, 1048576)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let kind = reader_.get_u8()?;
        let path = reader_.get_string(4095).map(<[u8]>::to_vec)?;
        let other = reader_.get_string(4095).map(<[u8]>::to_vec)?;
        let mode = reader_.get_u16()?;
        let seconds = reader_.get_i64()?;
        let nanoseconds = reader_.get_u32()?;
        let base = reader_.array::<16>()?;
        let upload = reader_.get_u32()?;
        let data = reader_.get_bytes(1048576).map(<[u8]>::to_vec)?;
        Ok(ChangeRecord { kind, path, other, mode, seconds, nanoseconds, base, upload, data })
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct OutcomeRecord {
    /// 0, or why it was not made.
    pub status: i16,
    /// What its path, or the new one, stands for now; of kind 0 when it stands for nothing.
    pub node: NodeRecord,
    /// Where new contents were kept because the file was changed by somebody else.
    pub kept: Vec<u8>,
}

impl rt::Marshal for OutcomeRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_i16(self.status);
        rt::Marshal::put(&self.node, writer_)?;
        rt::put_string(writer_, &self.kept, 4095)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let status = reader_.get_i16()?;
        let node = <NodeRecord as rt::Marshal>::get(reader_)?;
        let kept = reader_.get_string(4095).map(<[u8]>::to_vec)?;
        Ok(OutcomeRecord { status, node, kept })
    }
}

/// What a path stands for. STD_NOTFOUND when it stands for nothing, or for what must not be seen.
///
/// # Rights
/// `READ`.
pub fn lookup<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    path: &[u8],
) -> Result<NodeRecord, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LOOKUP);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, path, 4095)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 4161, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let node = <NodeRecord as rt::Marshal>::get(reader_)?;
    reader_.end()?;
    Ok(node)
}

/// What [`list()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ListReply {
    /// Of the directory.
    pub version: [u8; 16],
    /// Whether there are names after these.
    pub more: bool,
    /// The entries.
    pub entries: Vec<EntryRecord>,
}

/// The names of a directory in the order of their bytes, and what they stand for.
///
/// - `after`: The last name of the page before; empty for the first page.
///
/// # Rights
/// `READ`.
pub fn list<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    path: &[u8],
    after: &[u8],
) -> Result<ListReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LIST);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, path, 4095)?;
    rt::put_string(writer_, after, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 4523029, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let version = reader_.array::<16>()?;
    let more = reader_.get_bool()?;
    let entries = rt::get_list(reader_, 1024, <EntryRecord as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(ListReply { version, more, entries })
}

/// Part of a file; shorter than size only at its end.
///
/// - `version`: CHANGED if the file is of another one.
///
/// # Rights
/// `READ`.
pub fn read<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    version: &[u8; 16],
    offset: u64,
    size: u32,
    path: &[u8],
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_READ);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(version);
    writer_.put_u64(offset);
    writer_.put_u32(size);
    rt::put_string(writer_, path, 4095)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 1048576, true)?;
    let data = rt::rest(data_, 0, 1048576)?;
    Ok(data)
}

/// The BLAKE3 of a file's contents. CHANGED if it is of another version.
///
/// # Rights
/// `READ`.
pub fn identity<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    version: &[u8; 16],
    path: &[u8],
) -> Result<[u8; 32], rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_IDENTITY);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(version);
    rt::put_string(writer_, path, 4095)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 32, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let hash = reader_.array::<32>()?;
    reader_.end()?;
    Ok(hash)
}

/// Compares what a host believes with what is.
///
/// # Rights
/// `READ`.
pub fn revalidate<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    known: &[KnownRecord],
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_REVALIDATE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, known.len(), 4096)?;
    for item_ in known {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 516, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let changed = reader_.get_bytes(512).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(changed)
}

/// Brings part of a file that is to be the contents of another one later. STD_NOSPACE when there are
/// too many; STD_ARGBAD for a gap.
///
/// - `writer`: Chosen by the host: whoever makes changes one after the other.
/// - `number`: Chosen by the writer, not 0; with offset 0 the upload begins anew.
///
/// # Rights
/// `WRITE`.
pub fn upload<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    writer: u32,
    number: u32,
    offset: u64,
    data: impl Into<Vec<u8>>,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_UPLOAD);
    let data = data.into();
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(writer);
    writer_.put_u32(number);
    writer_.put_u64(offset);
    writer_.raw(&rt::within(data, 1048576)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Makes changes, one after the other, each as well as it can be made. A sequence number that was used
/// last gives the same answer again and changes nothing; another than the next one is STD_ARGBAD.
/// STD_NOSPACE when there are too many writers.
///
/// - `writer`: As in upload.
/// - `sequence`: One more than that of this writer's request before; 1 for its first.
///
/// # Rights
/// `WRITE`.
pub fn apply<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    writer: u32,
    sequence: u64,
    changes: &[ChangeRecord],
) -> Result<Vec<OutcomeRecord>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_APPLY);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(writer);
    writer_.put_u64(sequence);
    rt::put_count(writer_, changes.len(), 256)?;
    for item_ in changes {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 2114308, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let outcomes = rt::get_list(reader_, 256, <OutcomeRecord as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(outcomes)
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
    rt::Standard { command: rt::Command(1003), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
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
pub const REQUEST_SIZE_MAX: usize = 270542608;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// What a path stands for. STD_NOTFOUND when it stands for nothing, or for what must not be seen.
    ///
    /// # Rights
    /// `READ`.
    fn lookup(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        path: &[u8],
    ) -> Result<NodeRecord, rt::Status>;
    /// The names of a directory in the order of their bytes, and what they stand for.
    ///
    /// # Rights
    /// `READ`.
    fn list(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        path: &[u8],
        after: &[u8],
    ) -> Result<ListReply, rt::Status>;
    /// Part of a file; shorter than size only at its end.
    ///
    /// # Rights
    /// `READ`.
    fn read(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        version: [u8; 16],
        offset: u64,
        size: u32,
        path: &[u8],
    ) -> Result<Vec<u8>, rt::Status>;
    /// The BLAKE3 of a file's contents. CHANGED if it is of another version.
    ///
    /// # Rights
    /// `READ`.
    fn identity(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        version: [u8; 16],
        path: &[u8],
    ) -> Result<[u8; 32], rt::Status>;
    /// Compares what a host believes with what is.
    ///
    /// # Rights
    /// `READ`.
    fn revalidate(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        known: Vec<KnownRecord>,
    ) -> Result<Vec<u8>, rt::Status>;
    /// Brings part of a file that is to be the contents of another one later. STD_NOSPACE when there are
    /// too many; STD_ARGBAD for a gap.
    ///
    /// # Rights
    /// `WRITE`.
    fn upload(
        &self,
        call: &rt::Call,
        object: rt::Object<{ WRITE.bits() }>,
        writer: u32,
        number: u32,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<(), rt::Status>;
    /// Makes changes, one after the other, each as well as it can be made. A sequence number that was used
    /// last gives the same answer again and changes nothing; another than the next one is STD_ARGBAD.
    /// STD_NOSPACE when there are too many writers.
    ///
    /// # Rights
    /// `WRITE`.
    fn apply(
        &self,
        call: &rt::Call,
        object: rt::Object<{ WRITE.bits() }>,
        writer: u32,
        sequence: u64,
        changes: Vec<ChangeRecord>,
    ) -> Result<Vec<OutcomeRecord>, rt::Status>;
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
            4250 => request.answer(|call, header, data| serve_lookup(server, call, header, data)),
            4251 => request.answer(|call, header, data| serve_list(server, call, header, data)),
            4252 => request.answer(|call, header, data| serve_read(server, call, header, data)),
            4253 => request.answer(|call, header, data| serve_identity(server, call, header, data)),
            4254 => request.answer(|call, header, data| serve_revalidate(server, call, header, data)),
            4255 => request.answer(|call, header, data| serve_upload(server, call, header, data)),
            4256 => request.answer(|call, header, data| serve_apply(server, call, header, data)),
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

fn serve_lookup<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let path = reader_.get_string(4095)?;
    reader_.end()?;
    let result = server_.lookup(call, object, path)?;
    reply_lookup(result)
}

fn reply_lookup(node: NodeRecord) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::Marshal::put(&node, writer_)?;
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
    let path = reader_.get_string(4095)?;
    let after = reader_.get_string(255)?;
    reader_.end()?;
    let result = server_.list(call, object, path, after)?;
    reply_list(result)
}

fn reply_list(result: ListReply) -> Result<rt::Message, rt::Failure> {
    let ListReply { version, more, entries } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(&version);
    writer_.put_bool(more);
    rt::put_count(writer_, entries.len(), 1024)?;
    for item_ in &entries {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
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
    let version = reader_.array::<16>()?;
    let offset = reader_.get_u64()?;
    let size = reader_.get_u32()?;
    let path = reader_.get_string(4095)?;
    reader_.end()?;
    let result = server_.read(call, object, version, offset, size, path)?;
    reply_read(result)
}

fn reply_read(data: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(data, 1048576)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_identity<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let version = reader_.array::<16>()?;
    let path = reader_.get_string(4095)?;
    reader_.end()?;
    let result = server_.identity(call, object, version, path)?;
    reply_identity(result)
}

fn reply_identity(hash: [u8; 32]) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.raw(&hash);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_revalidate<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let known = rt::get_list(reader_, 4096, <KnownRecord as rt::Marshal>::get)?;
    reader_.end()?;
    let result = server_.revalidate(call, object, known)?;
    reply_revalidate(result)
}

fn reply_revalidate(changed: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_bytes(writer_, &changed, 512)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_upload<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let writer = reader_.get_u32()?;
    let number = reader_.get_u32()?;
    let offset = reader_.get_u64()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 1048576)?;
    server_.upload(call, object, writer, number, offset, data)?;
    reply_upload(())
}

fn reply_upload((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_apply<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let writer = reader_.get_u32()?;
    let sequence = reader_.get_u64()?;
    let changes = rt::get_list(reader_, 256, <ChangeRecord as rt::Marshal>::get)?;
    reader_.end()?;
    let result = server_.apply(call, object, writer, sequence, changes)?;
    reply_apply(result)
}

fn reply_apply(outcomes: Vec<OutcomeRecord>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, outcomes.len(), 256)?;
    for item_ in &outcomes {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
