// Generated from idl/owner.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Bytes of a descriptor in the original's form.
pub const CLASSIC_DESCRIPTOR_SIZE_MAX: usize = 30000;
/// The process has ended; detail is its exit status.
pub const TERM_NORMAL: u16 = 0;
/// The process was stunned; detail is the stun code.
pub const TERM_STUNNED: u16 = 1;
/// A signal has ended the process; detail is its number.
pub const TERM_EXCEPTION: u16 = 2;
/// The command of [`checkpoint()`].
pub const CMD_CHECKPOINT: rt::Command = rt::Command(2308);

/// The process has stopped. To a stun, STD_OK lets it run on, STD_NOTNOW leaves it stopped until it is
/// resumed, anything else ends it.
///
/// - `descriptor`: In the original's form, with the process itself and its owner.
///
/// # Rights
/// None.
pub fn checkpoint<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    cause: u16,
    detail: i32,
    descriptor: impl Into<Vec<u8>>,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_CHECKPOINT);
    let descriptor = descriptor.into();
    let data_ = rt::within(descriptor, 30000)?;
    header_.size = rt::header_size(&data_);
    header_.extra = cause;
    header_.offset = detail;
    let (_, data_) = t.into().trans(header_, data_, 30000, false)?;
    let descriptor = rt::rest(data_, 0, 30000)?;
    Ok(descriptor)
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
    rt::Standard { command: rt::Command(1006), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
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
    /// The process has stopped. To a stun, STD_OK lets it run on, STD_NOTNOW leaves it stopped until it is
    /// resumed, anything else ends it.
    ///
    /// # Rights
    /// None.
    fn checkpoint(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        cause: u16,
        detail: i32,
        descriptor: Vec<u8>,
        pending: rt::Pending<Vec<u8>>,
    );
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
            2308 => request
                .defer(reply_checkpoint, |call, header, data| serve_checkpoint(server, call, header, data)),
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

fn serve_checkpoint<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<Vec<u8>>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let cause = header_.extra;
    let detail = header_.offset;
    let descriptor = rt::rest(data_, 0, 30000)?;
    Ok(move |pending| server_.checkpoint(&call, object, cause, detail, descriptor, pending))
}

fn reply_checkpoint(descriptor: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(descriptor, 30000)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
