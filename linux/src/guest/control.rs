//! What the process server and a shepherd say to each other, over a socket pair of their own, and what the process server
//! asks of the keeper, over another.
//!
//! ```text
//! 0      4      5
//! +------+------+---------------+
//! | size | kind | body          |   size = bytes of kind and body, little-endian, at most FRAME_SIZE_MAX
//! +------+------+---------------+
//! ```
//!
//! To the shepherd, for each guest: START first, then any of SIGNAL, FREEZE, THAW, RESIZE. From it: STARTED at most once, an
//! answer to every FREEZE and THAW that comes while there is a guest, OUTPUTLOST at most once, EXITED last; its flag says
//! whether another START may follow. What comes between EXITED and START is for a guest that has ended, and is ignored.
//! Either end that closes ends the guest.
//!
//! To the keeper: packets of one frame each, MAKE, with the shepherd's end of its socket pair. The keeper answers nothing:
//! a shepherd that cannot be made is a socket pair that closes.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_process::{DESCRIPTOR_SIZE_MAX, Exit, FILE_NAME_SIZE_MAX, SCRATCH_FILES_MAX, WindowSize};
use amoeba_wire::{Malformed, Reader, Status, Writer};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The most bytes of a frame's kind and body.
pub(super) const FRAME_SIZE_MAX: usize = DESCRIPTOR_SIZE_MAX + 16_384;
/// The most bytes of a path in START.
const PATH_SIZE_MAX: usize = 4096;
/// The most bytes of the sentence in EXITED and OUTPUTLOST.
const REASON_SIZE_MAX: usize = 1024;
const _: () = assert!(SCRATCH_FILES_MAX * (FILE_NAME_SIZE_MAX + 20) < DESCRIPTOR_SIZE_MAX);

/// How a shepherd keeps its guest together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// The best that the host allows.
    Best,
    /// A PID namespace inside a user namespace, as where there is no privilege.
    UserNamespace,
    /// No namespace: the tree is followed by parentage.
    Tree,
}

/// A shepherd that the keeper is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Make {
    pub(super) isolation: Isolation,
    /// Where the kernel daemon listens.
    pub(super) socket: Vec<u8>,
    /// Where the logs are.
    pub(super) logs: Vec<u8>,
    /// Directories that no guest is to see, and files of them that all may read.
    pub(super) hidden: Vec<Vec<u8>>,
    pub(super) shown: Vec<Vec<u8>>,
}

/// The most entries of [`Make::hidden`] and of [`Make::shown`].
pub(super) const HIDDEN_MAX: usize = 4;

/// The most bytes of a packet with [`Make`].
pub(super) const MAKE_SIZE_MAX: usize = (2 * HIDDEN_MAX + 2) * (PATH_SIZE_MAX + 4) + 64;

/// A guest that a shepherd is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// Where its log is, if it has one.
    pub(super) log: Vec<u8>,
    /// The process descriptor.
    pub(super) descriptor: Vec<u8>,
}

/// A frame to the shepherd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Start(Start),
    Signal(u8),
    Freeze,
    Thaw,
    Resize(WindowSize),
}

/// A frame from the shepherd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The guest runs.
    Started {
        /// The warden's number on the host.
        warden: u32,
        /// The number of the guest's first process in the warden's PID namespace.
        guest: u32,
    },
    /// Whether every process of the guest has stopped.
    Frozen(bool),
    Thawed,
    /// The rest of a detached guest's output is lost, for this reason.
    OutputLost(String),
    /// How it ended, and whether the shepherd is as good as new.
    Exited {
        exit: Exit,
        stays: bool,
    },
}

impl Make {
    pub(super) fn encode(&self) -> Vec<u8> {
        let isolation = match self.isolation {
            Isolation::Best => 0,
            Isolation::UserNamespace => 1,
            Isolation::Tree => 2,
        };
        let mut out = Writer::new();
        out.put_u8(isolation).put_bytes(&self.socket).put_bytes(&self.logs);
        for paths in [&self.hidden, &self.shown] {
            out.put_u8(u8::try_from(paths.len()).expect("at most HIDDEN_MAX"));
            for path in paths {
                out.put_bytes(path);
            }
        }
        out.finish()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Make, Malformed> {
        let mut input = Reader::new(bytes);
        let isolation = match input.get_u8()? {
            0 => Isolation::Best,
            1 => Isolation::UserNamespace,
            2 => Isolation::Tree,
            _ => return Err(Malformed),
        };
        let path = |input: &mut Reader<'_>| input.get_bytes(PATH_SIZE_MAX).map(<[u8]>::to_vec);
        let paths = |input: &mut Reader<'_>| {
            let count = usize::from(input.get_u8()?);
            if count > HIDDEN_MAX {
                return Err(Malformed);
            }
            (0..count).map(|_| path(input)).collect::<Result<Vec<_>, _>>()
        };
        let (socket, logs) = (path(&mut input)?, path(&mut input)?);
        let (hidden, shown) = (paths(&mut input)?, paths(&mut input)?);
        let make = Make { isolation, socket, logs, hidden, shown };
        input.end()?;
        Ok(make)
    }
}

impl Order {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Order::Start(Start { log, descriptor }) => {
                out.put_u8(1).put_bytes(log).put_bytes(descriptor);
            }
            Order::Signal(number) => {
                out.put_u8(2).put_u8(*number);
            }
            Order::Freeze => {
                out.put_u8(3);
            }
            Order::Thaw => {
                out.put_u8(4);
            }
            Order::Resize(window) => {
                out.put_u8(5).put_u16(window.rows).put_u16(window.columns);
            }
        }
        out.finish()
    }

    fn parse(bytes: &[u8]) -> Result<Order, Malformed> {
        let mut input = Reader::new(bytes);
        let order = match input.get_u8()? {
            1 => Order::Start(Start {
                log: input.get_bytes(PATH_SIZE_MAX)?.to_vec(),
                descriptor: input.get_bytes(DESCRIPTOR_SIZE_MAX)?.to_vec(),
            }),
            2 => Order::Signal(input.get_u8()?),
            3 => Order::Freeze,
            4 => Order::Thaw,
            5 => Order::Resize(WindowSize { rows: input.get_u16()?, columns: input.get_u16()? }),
            _ => return Err(Malformed),
        };
        input.end()?;
        Ok(order)
    }
}

impl Report {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Report::Started { warden, guest } => {
                out.put_u8(1).put_u32(*warden).put_u32(*guest);
            }
            Report::Frozen(all) => {
                out.put_u8(2).put_bool(*all);
            }
            Report::Thawed => {
                out.put_u8(3);
            }
            Report::OutputLost(reason) => {
                out.put_u8(5);
                put_reason(&mut out, reason);
            }
            Report::Exited { exit, stays } => {
                out.put_u8(4).put_bool(*stays).put_i16(exit.status.0).put_u8(exit.code).put_u8(exit.signal);
                out.put_bool(exit.core_dumped);
                for time in [exit.user_time, exit.system_time] {
                    out.put_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
                }
                put_reason(&mut out, &exit.reason);
                out.put_u32(u32::try_from(exit.results.len()).expect("at most SCRATCH_FILES_MAX"));
                for (name, file) in &exit.results {
                    out.put_bytes(name).put_cap(file);
                }
            }
        }
        out.finish()
    }

    fn parse(bytes: &[u8]) -> Result<Report, Malformed> {
        let mut input = Reader::new(bytes);
        let report = match input.get_u8()? {
            1 => Report::Started { warden: input.get_u32()?, guest: input.get_u32()? },
            2 => Report::Frozen(input.get_bool()?),
            3 => Report::Thawed,
            4 => Report::Exited { stays: input.get_bool()?, exit: parse_exit(&mut input)? },
            5 => Report::OutputLost(get_reason(&mut input)?),
            _ => return Err(Malformed),
        };
        input.end()?;
        Ok(report)
    }
}

fn parse_exit(input: &mut Reader<'_>) -> Result<Exit, Malformed> {
    Ok(Exit {
        status: Status(input.get_i16()?),
        code: input.get_u8()?,
        signal: input.get_u8()?,
        core_dumped: input.get_bool()?,
        user_time: Duration::from_micros(input.get_u64()?),
        system_time: Duration::from_micros(input.get_u64()?),
        reason: get_reason(input)?,
        results: parse_results(input)?,
    })
}

fn put_reason(out: &mut Writer, reason: &str) {
    let mut reason = reason.to_owned();
    while reason.len() > REASON_SIZE_MAX {
        reason.pop();
    }
    out.put_bytes(reason.as_bytes());
}

fn get_reason(input: &mut Reader<'_>) -> Result<String, Malformed> {
    Ok(String::from_utf8_lossy(input.get_bytes(REASON_SIZE_MAX)?).into_owned())
}

fn parse_results(input: &mut Reader<'_>) -> Result<Vec<(Vec<u8>, Capability)>, Malformed> {
    let count = input.get_u32()? as usize;
    if count > SCRATCH_FILES_MAX {
        return Err(Malformed);
    }
    (0..count).map(|_| Ok((input.get_bytes(FILE_NAME_SIZE_MAX)?.to_vec(), input.get_cap()?))).collect()
}

fn write_frame(mut socket: impl Write, body: &[u8]) -> io::Result<()> {
    let size = u32::try_from(body.len()).expect("an order is at most FRAME_SIZE_MAX");
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&size.to_le_bytes());
    frame.extend_from_slice(body);
    socket.write_all(&frame)
}

fn read_frame(mut socket: impl Read) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    socket.read_exact(&mut size)?;
    let size = u32::from_le_bytes(size) as usize;
    if size > FRAME_SIZE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; size];
    socket.read_exact(&mut body)?;
    Ok(body)
}

/// Asks the keeper for a shepherd at the other end of `control`'s pair.
pub(super) fn send_make(requests: &OwnedFd, make: &Make, control: &UnixStream) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [control.as_fd()];
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    assert!(fits, "there is room for one descriptor");
    let packet = make.encode();
    // NOSIGNAL: a keeper that was killed is an error of this call, not our death.
    sendmsg(requests, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(super) fn send_order(socket: impl Write, order: &Order) -> io::Result<()> {
    write_frame(socket, &order.encode())
}

pub(super) fn receive_order(socket: impl Read) -> io::Result<Order> {
    Order::parse(&read_frame(socket)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

pub(super) fn send_report(socket: impl Write, report: &Report) -> io::Result<()> {
    write_frame(socket, &report.encode())
}

pub(super) fn receive_report(socket: impl Read) -> io::Result<Report> {
    Report::parse(&read_frame(socket)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_come_back() {
        let orders = [
            Order::Start(Start { log: vec![], descriptor: b"d".to_vec() }),
            Order::Signal(15),
            Order::Freeze,
            Order::Thaw,
            Order::Resize(WindowSize { rows: 1, columns: 2 }),
        ];
        for order in orders {
            let mut socket = Vec::new();
            send_order(&mut socket, &order).unwrap();
            assert_eq!(receive_order(&socket[..]).unwrap(), order);
        }
        let exit = Exit {
            code: 7,
            user_time: Duration::from_micros(9),
            results: vec![(b"a.o".to_vec(), Capability::from_bytes([5; 16]))],
            ..Exit::default()
        };
        let lost = Report::OutputLost("full".into());
        let started = Report::Started { warden: 7, guest: 3 };
        let exited = Report::Exited { exit, stays: true };
        for report in [started, Report::Frozen(true), Report::Thawed, lost, exited] {
            let mut socket = Vec::new();
            send_report(&mut socket, &report).unwrap();
            assert_eq!(receive_report(&socket[..]).unwrap(), report);
        }
    }

    #[test]
    fn what_is_asked_of_the_keeper_comes_back() {
        for isolation in [Isolation::Best, Isolation::UserNamespace, Isolation::Tree] {
            let hidden = vec![b"/h".to_vec(); HIDDEN_MAX];
            let shown = vec![b"/f".to_vec()];
            let make = Make { isolation, socket: b"/s".to_vec(), logs: b"/l".to_vec(), hidden, shown };
            assert_eq!(Make::parse(&make.encode()), Ok(make));
        }
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = (Order::parse(bytes).is_ok(), Report::parse(bytes).is_ok(), read_frame(bytes).is_ok());
            let _ = Make::parse(bytes).is_ok();
        });
    }
}
