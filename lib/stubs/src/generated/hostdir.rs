// Generated from idl/hostdir.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// The owner's column: everything.
pub const COLUMN_1: rt::Rights = rt::Rights::from_bits_retain(0x01);
/// The group's column: all but what leads to the host's own files.
pub const COLUMN_2: rt::Rights = rt::Rights::from_bits_retain(0x02);
/// Bytes of a name.
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
/// The command of [`lookup()`].
pub const CMD_LOOKUP: rt::Command = rt::Command(2150);
/// The command of [`list()`].
pub const CMD_LIST: rt::Command = rt::Command(2151);

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

/// What [`lookup()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupReply {
    /// What the server of the set's object must walk; empty at the end.
    pub tail: Vec<u8>,
    /// What was found.
    pub set: rt::CapabilitySet,
    /// Null.
    pub kind: rt::Capability,
    /// 0.
    pub time: u64,
    /// None.
    pub attributes: Vec<u8>,
}

/// Walks a path as far as it stays in this directory. STD_NOTFOUND when a name is not there.
///
/// - `path`: Names with '/' between.
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
pub const REQUEST_SIZE_MAX: usize = 32768;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// Walks a path as far as it stays in this directory. STD_NOTFOUND when a name is not there.
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
            2150 => request.answer(|call, header, data| serve_lookup(server, call, header, data)),
            2151 => request.answer(|call, header, data| serve_list(server, call, header, data)),
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
