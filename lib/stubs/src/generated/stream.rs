// Generated from idl/stream.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Take bytes.
pub const READ: rt::Rights = rt::Rights::from_bits_retain(0x01);
/// Bring bytes.
pub const WRITE: rt::Rights = rt::Rights::from_bits_retain(0x02);
/// Bytes of one piece.
pub const PIECE_SIZE_MAX: usize = 262144;
/// the other end takes no more
pub const CLOSED: rt::Status = rt::Status(-4050);
/// The command of [`read()`].
pub const CMD_READ: rt::Command = rt::Command(4070);
/// The command of [`write()`].
pub const CMD_WRITE: rt::Command = rt::Command(4071);
/// The command of [`close()`].
pub const CMD_CLOSE: rt::Command = rt::Command(4072);

/// What [`read()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadReply {
    /// Whether nothing follows.
    pub end: bool,
    /// The data.
    pub data: Vec<u8>,
}

/// Waits for bytes and takes them. The same position gives the same bytes again; an earlier one is
/// STD_ARGBAD, because its bytes are gone.
///
/// - `position`: How many bytes were taken before.
///
/// # Rights
/// `READ`.
pub fn read<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    position: u64,
    size: u32,
) -> Result<ReadReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_READ);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(position);
    writer_.put_u32(size);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 262145, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let end = reader_.get_bool()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 262144)?;
    Ok(ReadReply { end, data })
}

/// Brings bytes and waits until there is room for more. What came before is ignored, a gap is
/// STD_ARGBAD, a closed end is CLOSED.
///
/// - `position`: How many bytes were brought before.
///
/// # Rights
/// `WRITE`.
pub fn write<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    position: u64,
    data: impl Into<Vec<u8>>,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_WRITE);
    let data = data.into();
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(position);
    writer_.raw(&rt::within(data, 262144)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// There is no more to bring, or no more is wanted.
///
/// - `position`: How many bytes were brought, or taken.
///
/// # Rights
/// None.
pub fn close<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    position: u64,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CLOSE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(position);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
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
pub const REQUEST_SIZE_MAX: usize = 262152;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// Waits for bytes and takes them. The same position gives the same bytes again; an earlier one is
    /// STD_ARGBAD, because its bytes are gone.
    ///
    /// # Rights
    /// `READ`.
    fn read(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        position: u64,
        size: u32,
        pending: rt::Pending<ReadReply>,
    );
    /// Brings bytes and waits until there is room for more. What came before is ignored, a gap is
    /// STD_ARGBAD, a closed end is CLOSED.
    ///
    /// # Rights
    /// `WRITE`.
    fn write(
        &self,
        call: &rt::Call,
        object: rt::Object<{ WRITE.bits() }>,
        position: u64,
        data: Vec<u8>,
        pending: rt::Pending<()>,
    );
    /// There is no more to bring, or no more is wanted.
    ///
    /// # Rights
    /// None.
    fn close(&self, call: &rt::Call, object: rt::Object<0>, position: u64) -> Result<(), rt::Status>;
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
            4070 => request.defer(reply_read, |call, header, data| serve_read(server, call, header, data)),
            4071 => request.defer(reply_write, |call, header, data| serve_write(server, call, header, data)),
            4072 => request.answer(|call, header, data| serve_close(server, call, header, data)),
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

fn serve_read<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<ReadReply>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let position = reader_.get_u64()?;
    let size = reader_.get_u32()?;
    reader_.end()?;
    Ok(move |pending| server_.read(&call, object, position, size, pending))
}

fn reply_read(result: ReadReply) -> Result<rt::Message, rt::Failure> {
    let ReadReply { end, data } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_bool(end);
    writer_.raw(&rt::within(data, 262144)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_write<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<()>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let position = reader_.get_u64()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 262144)?;
    Ok(move |pending| server_.write(&call, object, position, data, pending))
}

fn reply_write((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_close<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let position = reader_.get_u64()?;
    reader_.end()?;
    server_.close(call, object, position)?;
    reply_close(())
}

fn reply_close((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
