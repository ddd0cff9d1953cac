// Generated from idl/tod.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// The command of [`get_time_classic()`].
pub const CMD_GET_TIME_CLASSIC: rt::Command = rt::Command(2400);
/// The command of [`get_time()`].
pub const CMD_GET_TIME: rt::Command = rt::Command(2450);

/// What [`get_time_classic()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct GetTimeClassicReply {
    /// Since 1970-01-01 00:00 UTC, modulo 2^32.
    pub seconds: u32,
    /// The milliseconds.
    pub milliseconds: u16,
    /// The daylight saving.
    pub daylight_saving: u16,
}

/// The time of day in the original's form: good until 2038 for clients that read a signed number.
///
/// # Rights
/// None.
pub fn get_time_classic<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<GetTimeClassicReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GET_TIME_CLASSIC);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let seconds = header_.offset as u32;
    let milliseconds = header_.size;
    let daylight_saving = header_.extra;
    rt::Reader::new(&data_).end()?;
    Ok(GetTimeClassicReply { seconds, milliseconds, daylight_saving })
}

/// What [`get_time()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct GetTimeReply {
    /// Since 1970-01-01 00:00 UTC.
    pub seconds: u64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// The time of day.
///
/// # Rights
/// None.
pub fn get_time<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<GetTimeReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GET_TIME);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 12, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let seconds = reader_.get_u64()?;
    let nanoseconds = reader_.get_u32()?;
    reader_.end()?;
    Ok(GetTimeReply { seconds, nanoseconds })
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
    /// The time of day in the original's form: good until 2038 for clients that read a signed number.
    ///
    /// # Rights
    /// None.
    fn get_time_classic(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
    ) -> Result<GetTimeClassicReply, rt::Status>;
    /// The time of day.
    ///
    /// # Rights
    /// None.
    fn get_time(&self, call: &rt::Call, object: rt::Object<0>) -> Result<GetTimeReply, rt::Status>;
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
            2400 => request.answer(|call, header, data| serve_get_time_classic(server, call, header, data)),
            2450 => request.answer(|call, header, data| serve_get_time(server, call, header, data)),
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

fn serve_get_time_classic<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.get_time_classic(call, object)?;
    reply_get_time_classic(result)
}

fn reply_get_time_classic(result: GetTimeClassicReply) -> Result<rt::Message, rt::Failure> {
    let GetTimeClassicReply { seconds, milliseconds, daylight_saving } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.offset = seconds as i32;
    header_.size = milliseconds;
    header_.extra = daylight_saving;
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_get_time<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.get_time(call, object)?;
    reply_get_time(result)
}

fn reply_get_time(result: GetTimeReply) -> Result<rt::Message, rt::Failure> {
    let GetTimeReply { seconds, nanoseconds } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(seconds);
    writer_.put_u32(nanoseconds);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
