//! Frames: bytes and what they mean. See the module above for the picture.

use std::time::Duration;

use amoeba_cap::{GetPort, PORT_SIZE, PutPort};
use amoeba_wire::packet::Address;
use amoeba_wire::{DATA_SIZE_MAX, HEADER_SIZE, Header, Malformed, Reader, Status};
use amoeba_world::{Caller, DATAGRAM_SIZE_MAX, Datagram, Destination, Error, Message, TransOptions};

use super::admin::{ADMIN_SIZE_MAX, PROOF_SIZE};

/// The version of this protocol, said in ATTACH.
pub(crate) const VERSION: u32 = 5;
/// Bytes before the fixed part.
pub(crate) const PREFIX_SIZE: usize = 8;
/// Bytes of the largest fixed part.
pub(crate) const FIXED_SIZE_MAX: usize = 64;
/// Bytes of the longest TEXT.
pub(crate) const TEXT_SIZE_MAX: usize = 1 << 20;

/// What names a process to the kernel on its further connections. A secret of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cookie(pub [u8; 16]);

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookie(secret)")
    }
}

/// A frame that no well-behaved peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bad {
    /// Unknown kind, a length that its kind cannot have, or a field with an illegal value.
    #[error("malformed frame")]
    Malformed,
    /// More data than a transaction may carry.
    #[error("data over the bound of a transaction")]
    TooLarge,
    /// A frame that the state of its connection does not allow.
    #[error("frame out of turn")]
    OutOfTurn,
    /// Descriptors with a frame that carries none, too many, or none where one belongs.
    #[error("descriptors out of place")]
    Descriptors,
}

impl From<Malformed> for Bad {
    fn from(_: Malformed) -> Bad {
        Bad::Malformed
    }
}

/// A whole frame, not yet interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub(crate) kind: Kind,
    pub(crate) fixed: [u8; FIXED_SIZE_MAX],
    pub(crate) data: Vec<u8>,
}

macro_rules! kinds {
    ($($kind:ident = $number:literal, $fixed:expr, $data:expr;)*) => {
        /// The kind of a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Kind { $($kind = $number,)* }

        impl Kind {
            fn from_byte(byte: u8) -> Option<Kind> {
                match byte { $($number => Some(Kind::$kind),)* _ => None }
            }

            pub(crate) const fn fixed_size(self) -> usize {
                match self { $(Kind::$kind => $fixed,)* }
            }

            const fn data_size_max(self) -> usize {
                match self { $(Kind::$kind => $data,)* }
            }
        }

        $(const _: () = assert!($fixed < FIXED_SIZE_MAX + 1);)*
    };
}

kinds! {
    Attach = 1, 4, 0;
    Join = 2, 16, 0;
    Trans = 3, 32 + HEADER_SIZE, DATA_SIZE_MAX;
    Listen = 4, 16, 0;
    Unlisten = 5, PORT_SIZE, 0;
    Getreq = 6, PORT_SIZE, 0;
    Putrep = 7, 8 + HEADER_SIZE, DATA_SIZE_MAX;
    Fail = 8, 8, 0;
    PutPort = 9, PORT_SIZE, 0;
    Status = 10, 0, 0;
    Open = 11, 8, 0;
    Receive = 12, 0, 0;
    Send = 13, 24, DATAGRAM_SIZE_MAX;
    Introduce = 14, 16, 0;
    Accept = 15, 8, 0;
    Decline = 16, 8, 0;
    Close = 17, 8, 0;
    Ready = 18, 0, 0;
    Lend = 19, 8, 0;
    Borrow = 20, 8, 0;
    Look = 40, 8, 0;
    Trace = 41, PROOF_SIZE + 16, 0;
    TraceNext = 42, 0, 0;
    Admin = 50, PROOF_SIZE, ADMIN_SIZE_MAX;
    Attached = 65, 24, 0;
    Done = 66, 0, 0;
    Reply = 67, HEADER_SIZE, DATA_SIZE_MAX;
    Error = 68, 4, 0;
    Port = 69, PORT_SIZE, 0;
    Request = 70, 24 + HEADER_SIZE, DATA_SIZE_MAX;
    Text = 71, 0, TEXT_SIZE_MAX;
    Opened = 72, 16, 0;
    Datagram = 73, 8, DATAGRAM_SIZE_MAX;
    Introduced = 74, 24, 0;
    Channel = 75, 8, 0;
    Flow = 76, 0, FLOW_SIZE_MAX;
    FlowIntroduced = 77, 16, FLOW_SIZE_MAX;
    Knock = 78, 0, 0;
    Ticket = 79, 8, 0;
    Borrowed = 80, 0, 0;
    Facts = 90, 0, TEXT_SIZE_MAX;
    Traced = 91, 8, TEXT_SIZE_MAX;
    Administered = 100, 0, ADMIN_SIZE_MAX;
}

/// Bytes of what a process is told of its flow.
const FLOW_SIZE_MAX: usize = 128;
/// The descriptors of a flow: its socket and an ear.
pub(crate) const DESCRIPTORS_OF_FLOW: usize = 2;
/// The most descriptors that travel with a frame to the kernel.
pub(crate) const DESCRIPTORS_TO_KERNEL: usize = 1;
/// The most descriptors that travel with a frame to a process.
pub(crate) const DESCRIPTORS_TO_PROCESS: usize = 3;

impl Kind {
    /// How many descriptors travel with a frame of this kind.
    pub(crate) fn descriptors(self) -> usize {
        match self {
            Kind::Introduce | Kind::Accept | Kind::Lend => DESCRIPTORS_TO_KERNEL,
            Kind::Borrowed => 1,
            Kind::Introduced | Kind::Channel => DESCRIPTORS_TO_PROCESS,
            Kind::Flow | Kind::FlowIntroduced => DESCRIPTORS_OF_FLOW,
            _ => 0,
        }
    }
}

/// The first eight bytes of a frame, checked: what is to come, and no more than may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) kind: Kind,
    pub(crate) data_size: usize,
}

impl Prefix {
    pub(crate) fn parse(bytes: &[u8; PREFIX_SIZE]) -> Result<Prefix, Bad> {
        let [l0, l1, l2, l3, kind, reserved @ ..] = *bytes;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(|_| Bad::Malformed)?;
        let kind = Kind::from_byte(kind).ok_or(Bad::Malformed)?;
        if reserved != [0; 3] {
            return Err(Bad::Malformed);
        }
        let data_size = length.checked_sub(kind.fixed_size()).ok_or(Bad::Malformed)?;
        match data_size <= kind.data_size_max() {
            true => Ok(Prefix { kind, data_size }),
            false if kind.data_size_max() == DATA_SIZE_MAX => Err(Bad::TooLarge),
            false => Err(Bad::Malformed),
        }
    }
}

/// Everything of a frame but its data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHead {
    bytes: [u8; PREFIX_SIZE + FIXED_SIZE_MAX],
    size: usize,
}

impl FrameHead {
    fn new(kind: Kind, fixed: &[&[u8]], data_size: usize) -> FrameHead {
        let length = u32::try_from(kind.fixed_size() + data_size).expect("callers keep to DATA_SIZE_MAX");
        let mut head = FrameHead { bytes: [0; PREFIX_SIZE + FIXED_SIZE_MAX], size: 0 };
        for part in [&length.to_le_bytes()[..], &[kind as u8, 0, 0, 0]].iter().chain(fixed) {
            head.bytes[head.size..head.size + part.len()].copy_from_slice(part);
            head.size += part.len();
        }
        assert_eq!(head.size, PREFIX_SIZE + kind.fixed_size(), "the parts fill the fixed part of their kind");
        head
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// What whoever traces wants to see; nothing said: everything, without data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// Only what this process does, by its number in the operating system.
    pub pid: Option<u32>,
    /// Only transactions with this port.
    pub port: Option<PutPort>,
    /// The beginning of data too, in which there may be secrets.
    pub data: bool,
    /// Channels and flows that are there are ended first.
    pub all: bool,
}

impl TraceFilter {
    fn get(fixed: &mut Reader) -> Result<TraceFilter, Bad> {
        let pid = Some(fixed.get_u32()?).filter(|pid| *pid != 0);
        let data = fixed.get_bool()?;
        let all = fixed.get_bool()?;
        zeros::<2>(fixed)?;
        Ok(TraceFilter { pid, port: flagged(fixed)?.map(PutPort::from_bytes), data, all })
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.pid.unwrap_or(0).to_le_bytes());
        bytes[4] = u8::from(self.data);
        bytes[5] = u8::from(self.all);
        bytes[8..].copy_from_slice(&flag(self.port.map(PutPort::to_bytes)));
        bytes
    }
}

/// What a process says to its kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the table of the module says what each field is
pub enum ToKernel {
    Attach { version: u32 },
    Join { cookie: Cookie },
    Trans { options: TransOptions, message: Message },
    Listen { port: GetPort, request_size_max: usize },
    Unlisten { port: PutPort },
    Getreq { port: PutPort },
    Putrep { request: u64, message: Message },
    Fail { request: u64 },
    PutPort { port: GetPort },
    Status,
    Open { port: Option<GetPort> },
    Receive,
    Send { from: Option<Address>, to: Destination, data: Vec<u8> },
    Admin { proof: [u8; PROOF_SIZE], request: Vec<u8> },
    Introduce { port: PutPort, signature: Option<GetPort> },
    Accept { channel: u64 },
    Decline { channel: u64 },
    Lend { to: Address },
    Borrow { ticket: u64 },
    Close { channel: u64 },
    Ready,
    Look { port: Option<PutPort> },
    Trace { proof: [u8; PROOF_SIZE], filter: TraceFilter },
    TraceNext,
}

impl ToKernel {
    /// Interprets a frame.
    pub fn parse(parts: Parts) -> Result<ToKernel, Bad> {
        let mut fixed = Reader::new(&parts.fixed[..parts.kind.fixed_size()]);
        Ok(match parts.kind {
            Kind::Attach => ToKernel::Attach { version: fixed.get_u32()? },
            Kind::Join => ToKernel::Join { cookie: Cookie(fixed.array()?) },
            Kind::Trans => ToKernel::Trans {
                options: TransOptions {
                    locate_timeout: Duration::from_nanos(fixed.get_u64()?),
                    deadline: Some(fixed.get_u64()?)
                        .filter(|time| *time != u64::MAX)
                        .map(Duration::from_nanos),
                    reply_size_max: size(fixed.get_u64()?),
                    signature: flagged(&mut fixed)?.map(GetPort::from_bytes),
                },
                message: message(&mut fixed, parts.data)?,
            },
            Kind::Listen => {
                let port = GetPort::from_bytes(fixed.array()?);
                zeros::<2>(&mut fixed)?;
                ToKernel::Listen { port, request_size_max: size(fixed.get_u64()?) }
            }
            Kind::Unlisten => ToKernel::Unlisten { port: fixed.get_port()? },
            Kind::Getreq => ToKernel::Getreq { port: fixed.get_port()? },
            Kind::Putrep => {
                ToKernel::Putrep { request: fixed.get_u64()?, message: message(&mut fixed, parts.data)? }
            }
            Kind::Fail => ToKernel::Fail { request: fixed.get_u64()? },
            Kind::PutPort => ToKernel::PutPort { port: GetPort::from_bytes(fixed.array()?) },
            Kind::Status => ToKernel::Status,
            Kind::Open => ToKernel::Open { port: flagged(&mut fixed)?.map(GetPort::from_bytes) },
            Kind::Receive => ToKernel::Receive,
            Kind::Send => {
                let from = Some(Address(fixed.array()?)).filter(|from| !from.is_null());
                let to = destination(&mut fixed)?;
                ToKernel::Send { from, to, data: parts.data }
            }
            Kind::Admin => ToKernel::Admin { proof: fixed.array()?, request: parts.data },
            Kind::Introduce => {
                let signature = flagged(&mut fixed)?.map(GetPort::from_bytes);
                let port = fixed.get_port()?;
                zeros::<2>(&mut fixed)?;
                ToKernel::Introduce { port, signature }
            }
            Kind::Accept => ToKernel::Accept { channel: fixed.get_u64()? },
            Kind::Decline => ToKernel::Decline { channel: fixed.get_u64()? },
            Kind::Lend => ToKernel::Lend { to: Address(fixed.array()?) },
            Kind::Borrow => ToKernel::Borrow { ticket: fixed.get_u64()? },
            Kind::Close => ToKernel::Close { channel: fixed.get_u64()? },
            Kind::Ready => ToKernel::Ready,
            Kind::Look => ToKernel::Look { port: flagged(&mut fixed)?.map(PutPort::from_bytes) },
            Kind::Trace => ToKernel::Trace { proof: fixed.array()?, filter: TraceFilter::get(&mut fixed)? },
            Kind::TraceNext => ToKernel::TraceNext,
            _ => return Err(Bad::OutOfTurn),
        })
    }

    /// Everything of the frame but its data.
    pub(crate) fn head(&self) -> FrameHead {
        match self {
            ToKernel::Attach { version } => FrameHead::new(Kind::Attach, &[&version.to_le_bytes()], 0),
            ToKernel::Join { cookie } => FrameHead::new(Kind::Join, &[&cookie.0], 0),
            ToKernel::Trans { options, message } => {
                let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let signature = options.signature.as_ref().map(GetPort::to_bytes);
                FrameHead::new(
                    Kind::Trans,
                    &[
                        &nanos(options.locate_timeout).to_le_bytes(),
                        &options.deadline.map_or(u64::MAX, nanos).to_le_bytes(),
                        &(options.reply_size_max as u64).to_le_bytes(),
                        &flag(signature),
                        &message.header.to_bytes(false),
                    ],
                    message.data.len(),
                )
            }
            ToKernel::Listen { port, request_size_max } => FrameHead::new(
                Kind::Listen,
                &[&port.to_bytes(), &[0; 2], &(*request_size_max as u64).to_le_bytes()],
                0,
            ),
            ToKernel::Unlisten { port } => FrameHead::new(Kind::Unlisten, &[&port.to_bytes()], 0),
            ToKernel::Getreq { port } => FrameHead::new(Kind::Getreq, &[&port.to_bytes()], 0),
            ToKernel::Putrep { request, message } => FrameHead::new(
                Kind::Putrep,
                &[&request.to_le_bytes(), &message.header.to_bytes(false)],
                message.data.len(),
            ),
            ToKernel::Fail { request } => FrameHead::new(Kind::Fail, &[&request.to_le_bytes()], 0),
            ToKernel::PutPort { port } => FrameHead::new(Kind::PutPort, &[&port.to_bytes()], 0),
            ToKernel::Status => FrameHead::new(Kind::Status, &[], 0),
            ToKernel::Open { port } => {
                FrameHead::new(Kind::Open, &[&flag(port.as_ref().map(GetPort::to_bytes))], 0)
            }
            ToKernel::Receive => FrameHead::new(Kind::Receive, &[], 0),
            ToKernel::Send { from, to, data } => {
                let (port, address) = match *to {
                    Destination::Port(port) => (flag(Some(port.to_bytes())), Address::NULL),
                    Destination::Address(address) => (flag(None), address),
                };
                let from = from.unwrap_or(Address::NULL);
                FrameHead::new(Kind::Send, &[&from.0, &port, &address.0], data.len())
            }
            ToKernel::Admin { proof, request } => FrameHead::new(Kind::Admin, &[proof], request.len()),
            ToKernel::Introduce { port, signature } => {
                let signature = flag(signature.as_ref().map(GetPort::to_bytes));
                FrameHead::new(Kind::Introduce, &[&signature, &port.to_bytes(), &[0; 2]], 0)
            }
            ToKernel::Accept { channel } => FrameHead::new(Kind::Accept, &[&channel.to_le_bytes()], 0),
            ToKernel::Decline { channel } => FrameHead::new(Kind::Decline, &[&channel.to_le_bytes()], 0),
            ToKernel::Lend { to } => FrameHead::new(Kind::Lend, &[&to.0], 0),
            ToKernel::Borrow { ticket } => FrameHead::new(Kind::Borrow, &[&ticket.to_le_bytes()], 0),
            ToKernel::Close { channel } => FrameHead::new(Kind::Close, &[&channel.to_le_bytes()], 0),
            ToKernel::Look { port } => FrameHead::new(Kind::Look, &[&flag(port.map(PutPort::to_bytes))], 0),
            ToKernel::Trace { proof, filter } => FrameHead::new(Kind::Trace, &[proof, &filter.to_bytes()], 0),
            ToKernel::Ready => FrameHead::new(Kind::Ready, &[], 0),
            ToKernel::TraceNext => FrameHead::new(Kind::TraceNext, &[], 0),
        }
    }

    /// The data of the frame.
    pub(crate) fn data(&self) -> &[u8] {
        match self {
            ToKernel::Trans { message, .. } | ToKernel::Putrep { message, .. } => &message.data,
            ToKernel::Send { data, .. } => data,
            ToKernel::Admin { request, .. } => request,
            _ => &[],
        }
    }
}

/// What the kernel says to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the table of the module says what each field is
pub enum ToProcess {
    Attached { cookie: Cookie, address: Address },
    Done,
    Reply { message: Message },
    Error { error: Error },
    Port { port: PutPort },
    Request { request: u64, caller: Caller, message: Message },
    Text { text: Vec<u8> },
    Opened { address: Address, port: Option<PutPort> },
    Datagram { datagram: Datagram },
    Administered { answer: Vec<u8> },
    Introduced { channel: u64, caller: Caller },
    Channel { channel: u64 },
    Flow { flow: Vec<u8> },
    FlowIntroduced { caller: Caller, flow: Vec<u8> },
    Knock,
    Ticket { ticket: u64 },
    Borrowed,
    Facts { facts: Vec<u8> },
    Traced { dropped: u64, records: Vec<u8> },
}

impl ToProcess {
    /// Interprets a frame.
    pub fn parse(parts: Parts) -> Result<ToProcess, Bad> {
        let mut fixed = Reader::new(&parts.fixed[..parts.kind.fixed_size()]);
        Ok(match parts.kind {
            Kind::Attached => {
                ToProcess::Attached { cookie: Cookie(fixed.array()?), address: Address(fixed.array()?) }
            }
            Kind::Done => ToProcess::Done,
            Kind::Reply => ToProcess::Reply { message: message(&mut fixed, parts.data)? },
            Kind::Error => ToProcess::Error { error: error(&mut fixed)? },
            Kind::Port => ToProcess::Port { port: fixed.get_port()? },
            Kind::Request => ToProcess::Request {
                request: fixed.get_u64()?,
                caller: caller(&mut fixed)?,
                message: message(&mut fixed, parts.data)?,
            },
            Kind::Text => ToProcess::Text { text: parts.data },
            Kind::Administered => ToProcess::Administered { answer: parts.data },
            Kind::Opened => ToProcess::Opened {
                address: Address(fixed.array()?),
                port: flagged(&mut fixed)?.map(PutPort::from_bytes),
            },
            Kind::Datagram => {
                ToProcess::Datagram { datagram: Datagram { from: Address(fixed.array()?), data: parts.data } }
            }
            Kind::Introduced => {
                ToProcess::Introduced { channel: fixed.get_u64()?, caller: caller(&mut fixed)? }
            }
            Kind::Channel => ToProcess::Channel { channel: fixed.get_u64()? },
            Kind::Flow => ToProcess::Flow { flow: parts.data },
            Kind::FlowIntroduced => {
                ToProcess::FlowIntroduced { caller: caller(&mut fixed)?, flow: parts.data }
            }
            Kind::Knock => ToProcess::Knock,
            Kind::Ticket => ToProcess::Ticket { ticket: fixed.get_u64()? },
            Kind::Borrowed => ToProcess::Borrowed,
            Kind::Facts => ToProcess::Facts { facts: parts.data },
            Kind::Traced => ToProcess::Traced { dropped: fixed.get_u64()?, records: parts.data },
            _ => return Err(Bad::OutOfTurn),
        })
    }

    /// The frame in two parts: the head, and the data moved out.
    pub(crate) fn into_frame(self) -> (FrameHead, Vec<u8>) {
        match self {
            ToProcess::Attached { cookie, address } => {
                (FrameHead::new(Kind::Attached, &[&cookie.0, &address.0], 0), Vec::new())
            }
            ToProcess::Done => (FrameHead::new(Kind::Done, &[], 0), Vec::new()),
            ToProcess::Reply { message: Message { header, data } } => {
                (FrameHead::new(Kind::Reply, &[&header.to_bytes(false)], data.len()), data)
            }
            ToProcess::Error { error } => {
                let [s0, s1] = error.status().0.to_le_bytes();
                (FrameHead::new(Kind::Error, &[&[class(&error), 0, s0, s1]], 0), Vec::new())
            }
            ToProcess::Port { port } => (FrameHead::new(Kind::Port, &[&port.to_bytes()], 0), Vec::new()),
            ToProcess::Request { request, caller, message: Message { header, data } } => {
                let fixed: [&[u8]; 4] = [
                    &request.to_le_bytes(),
                    &caller.process.0,
                    &flag(caller.signature.map(PutPort::to_bytes)),
                    &header.to_bytes(false),
                ];
                (FrameHead::new(Kind::Request, &fixed, data.len()), data)
            }
            ToProcess::Text { text } => (FrameHead::new(Kind::Text, &[], text.len()), text),
            ToProcess::Administered { answer } => {
                (FrameHead::new(Kind::Administered, &[], answer.len()), answer)
            }
            ToProcess::Opened { address, port } => {
                let port = flag(port.map(PutPort::to_bytes));
                (FrameHead::new(Kind::Opened, &[&address.0, &port], 0), Vec::new())
            }
            ToProcess::Datagram { datagram: Datagram { from, data } } => {
                (FrameHead::new(Kind::Datagram, &[&from.0], data.len()), data)
            }
            ToProcess::Introduced { channel, caller } => {
                let signature = flag(caller.signature.map(PutPort::to_bytes));
                let fixed: [&[u8]; 3] = [&channel.to_le_bytes(), &caller.process.0, &signature];
                (FrameHead::new(Kind::Introduced, &fixed, 0), Vec::new())
            }
            ToProcess::Flow { flow } => (FrameHead::new(Kind::Flow, &[], flow.len()), flow),
            ToProcess::FlowIntroduced { caller, flow } => {
                let signature = flag(caller.signature.map(PutPort::to_bytes));
                let fixed: [&[u8]; 2] = [&caller.process.0, &signature];
                (FrameHead::new(Kind::FlowIntroduced, &fixed, flow.len()), flow)
            }
            ToProcess::Channel { channel } => {
                (FrameHead::new(Kind::Channel, &[&channel.to_le_bytes()], 0), Vec::new())
            }
            ToProcess::Knock => (FrameHead::new(Kind::Knock, &[], 0), Vec::new()),
            ToProcess::Ticket { ticket } => {
                (FrameHead::new(Kind::Ticket, &[&ticket.to_le_bytes()], 0), Vec::new())
            }
            ToProcess::Borrowed => (FrameHead::new(Kind::Borrowed, &[], 0), Vec::new()),
            ToProcess::Facts { facts } => (FrameHead::new(Kind::Facts, &[], facts.len()), facts),
            ToProcess::Traced { dropped, records } => {
                (FrameHead::new(Kind::Traced, &[&dropped.to_le_bytes()], records.len()), records)
            }
        }
    }
}

/// An optional port: a flag, six bytes that are zero without it, a reserved byte.
fn flag(port: Option<[u8; PORT_SIZE]>) -> [u8; 8] {
    let mut bytes = [0; 8];
    if let Some(port) = port {
        bytes[0] = 1;
        bytes[1..7].copy_from_slice(&port);
    }
    bytes
}

fn flagged(fixed: &mut Reader) -> Result<Option<[u8; PORT_SIZE]>, Bad> {
    let flag = fixed.get_bool()?;
    let port = fixed.array()?;
    zeros::<1>(fixed)?;
    match flag {
        true => Ok(Some(port)),
        false if port == [0; PORT_SIZE] => Ok(None),
        false => Err(Bad::Malformed),
    }
}

/// A port or an address, and zeros for the other.
fn destination(fixed: &mut Reader) -> Result<Destination, Bad> {
    let (port, address) = (flagged(fixed)?, Address(fixed.array()?));
    match port {
        None => Ok(Destination::Address(address)),
        Some(port) if address.is_null() => Ok(Destination::Port(PutPort::from_bytes(port))),
        Some(_) => Err(Bad::Malformed),
    }
}

fn caller(fixed: &mut Reader) -> Result<Caller, Bad> {
    let process = Address(fixed.array()?);
    Ok(Caller { process, signature: flagged(fixed)?.map(PutPort::from_bytes) })
}

fn zeros<const N: usize>(fixed: &mut Reader) -> Result<(), Bad> {
    if fixed.array::<N>()? == [0; N] { Ok(()) } else { Err(Bad::Malformed) }
}

fn message(fixed: &mut Reader, data: Vec<u8>) -> Result<Message, Bad> {
    Ok(Message { header: Header::from_bytes(&fixed.array()?, false), data })
}

/// A bound that a peer asks for: more than the bound of all is that bound.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(DATA_SIZE_MAX)
}

fn class(error: &Error) -> u8 {
    match error {
        Error::NotSent(_) => 1,
        Error::Refused(_) => 2,
        Error::BadReply => 4,
        _ => 3, // when in doubt, it may have been executed
    }
}

fn error(fixed: &mut Reader) -> Result<Error, Bad> {
    let class = fixed.get_u8()?;
    zeros::<1>(fixed)?;
    let status = Status(fixed.get_i16()?);
    Ok(match class {
        1 => Error::NotSent(status),
        2 => Error::Refused(status),
        3 => Error::MaybeExecuted(status),
        4 => Error::BadReply,
        _ => return Err(Bad::Malformed),
    })
}
