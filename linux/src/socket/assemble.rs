//! Puts frames together from the pieces a stream delivers, without trusting a length.

use super::frame::{Bad, FIXED_SIZE_MAX, PREFIX_SIZE, Parts, Prefix};
use std::mem::MaybeUninit;

/// Room for data is made in steps of at least this many bytes, and never more than doubles what has arrived: a peer
/// that announces a gibibyte and sends nothing has cost this much address space.
const STEP_SIZE: usize = 1 << 20;

/// A frame in the making. Small frames are fed; large data may be read straight into [`Assembler::space`].
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    head: Vec<u8>,
    prefix: Option<Prefix>,
    data: Vec<u8>,
    /// Data bytes that arrived, kept or not.
    arrived: usize,
    discarding: bool,
}

/// A frame that is complete.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) parts: Parts,
    /// Its data were thrown away on the way, because there was no room for them.
    pub(crate) discarded: bool,
}

impl Assembler {
    /// Takes bytes off the front of `bytes`; a frame when one is complete.
    pub(crate) fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Assembled>, Bad> {
        let prefix = match self.prefix {
            Some(prefix) => prefix,
            None => {
                self.feed_head(bytes, PREFIX_SIZE);
                let Some(head) = self.head.first_chunk() else { return Ok(None) };
                *self.prefix.insert(Prefix::parse(head)?)
            }
        };
        self.feed_head(bytes, PREFIX_SIZE + prefix.kind.fixed_size());
        let (data, rest) = bytes.split_at(bytes.len().min(self.missing()));
        if !self.discarding && !data.is_empty() {
            self.reserve(prefix, data.len());
            self.data.extend_from_slice(data);
        }
        self.arrived += data.len();
        *bytes = rest;
        Ok(self.take_complete())
    }

    fn feed_head(&mut self, bytes: &mut &[u8], size: usize) {
        let wanted = size.saturating_sub(self.head.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(wanted);
        self.head.extend_from_slice(taken);
        *bytes = rest;
    }

    /// How much of the data has still to come; 0 while the head is not complete.
    pub(crate) fn missing(&self) -> usize {
        match self.prefix {
            Some(prefix) if self.head.len() == PREFIX_SIZE + prefix.kind.fixed_size() => {
                prefix.data_size - self.arrived
            }
            _ => 0,
        }
    }

    /// Where the next data bytes go: never empty when some are missing and they are not being discarded.
    pub(crate) fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        let missing = self.missing();
        if missing == 0 || self.discarding {
            return &mut [];
        }
        if let Some(prefix) = self.prefix {
            self.reserve(prefix, 1);
        }
        let space = self.data.spare_capacity_mut();
        let size = space.len().min(missing);
        &mut space[..size]
    }

    /// `count` bytes were read into [`Assembler::space`]; a frame when that completes one.
    ///
    /// # Safety
    /// The first `count` bytes of the last [`Assembler::space`] must have been initialised since.
    pub(crate) unsafe fn filled(&mut self, count: usize) -> Option<Assembled> {
        assert!(count <= self.missing() && count <= self.data.capacity() - self.data.len());
        // SAFETY: the caller has initialised `count` bytes behind the end, and they lie within the capacity.
        unsafe { self.data.set_len(self.data.len() + count) };
        self.arrived += count;
        self.take_complete()
    }

    /// From now on this frame's data are thrown away, what arrived of them included.
    pub(crate) fn discard(&mut self) {
        self.discarding = true;
        self.data = Vec::new();
    }

    /// Whether the current frame's data are thrown away.
    pub(crate) fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Bytes of data held.
    pub(crate) fn held(&self) -> usize {
        self.data.len()
    }

    /// Whether nothing of a next frame has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.head.is_empty()
    }

    fn reserve(&mut self, prefix: Prefix, count: usize) {
        if self.data.capacity() - self.data.len() < count {
            let missing = prefix.data_size - self.data.len();
            self.data.reserve_exact(missing.min(STEP_SIZE.max(self.data.len()).max(count)));
        }
    }

    fn take_complete(&mut self) -> Option<Assembled> {
        let Prefix { kind, data_size } = self.prefix?;
        if self.head.len() < PREFIX_SIZE + kind.fixed_size() || self.arrived < data_size {
            return None;
        }
        let mut fixed = [0; FIXED_SIZE_MAX];
        fixed[..kind.fixed_size()].copy_from_slice(&self.head[PREFIX_SIZE..]);
        self.head.clear();
        self.prefix = None;
        self.arrived = 0;
        let data = std::mem::take(&mut self.data);
        let discarded = std::mem::take(&mut self.discarding);
        Some(Assembled { parts: Parts { kind, fixed, data }, discarded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{Cookie, ToKernel, ToProcess, TraceFilter};
    use amoeba_cap::{GetPort, PutPort};
    use amoeba_wire::packet::Address;
    use amoeba_wire::{DATA_SIZE_MAX, Header, Status};
    use amoeba_world::{Destination, Error, Message, TransOptions};
    use std::time::Duration;

    fn bytes_of(frame: &ToKernel) -> Vec<u8> {
        [frame.head().bytes(), frame.data()].concat()
    }

    fn samples() -> Vec<ToKernel> {
        let message = Message { header: Header { size: 7, ..Header::NULL }, data: vec![5; 3000] };
        let port = GetPort::from_bytes([1, 2, 3, 4, 5, 6]);
        let trans = |signature, deadline| ToKernel::Trans {
            options: TransOptions {
                locate_timeout: Duration::from_millis(5200),
                deadline,
                reply_size_max: 77,
                signature,
            },
            message: message.clone(),
        };
        vec![
            ToKernel::Attach { version: 1 },
            ToKernel::Join { cookie: Cookie([9; 16]) },
            trans(None, None),
            trans(Some(port.clone()), Some(Duration::from_millis(1))),
            ToKernel::Listen { port: port.clone(), request_size_max: DATA_SIZE_MAX },
            ToKernel::Unlisten { port: PutPort::from_bytes([1; 6]) },
            ToKernel::Getreq { port: PutPort::from_bytes([2; 6]) },
            ToKernel::Putrep { request: u64::MAX, message: message.clone() },
            ToKernel::Fail { request: 3 },
            ToKernel::PutPort { port },
            ToKernel::Status,
            ToKernel::Open { port: None },
            ToKernel::Open { port: Some(GetPort::from_bytes([3; 6])) },
            ToKernel::Receive,
            ToKernel::Look { port: None },
            ToKernel::Look { port: Some(PutPort::from_bytes([7; 6])) },
            ToKernel::Trace { proof: [9; 16], filter: TraceFilter::default() },
            ToKernel::Trace {
                proof: [0; 16],
                filter: TraceFilter {
                    pid: Some(7),
                    port: Some(PutPort::from_bytes([8; 6])),
                    data: true,
                    all: true,
                },
            },
            ToKernel::TraceNext,
            ToKernel::Send { from: None, to: Destination::Address(Address([4; 8])), data: vec![1; 2000] },
            ToKernel::Send {
                from: Some(Address([5; 8])),
                to: Destination::Port(PutPort::from_bytes([6; 6])),
                data: Vec::new(),
            },
            ToKernel::Introduce { port: PutPort::from_bytes([7; 6]), signature: None },
            ToKernel::Introduce {
                port: PutPort::from_bytes([7; 6]),
                signature: Some(GetPort::from_bytes([8; 6])),
            },
            ToKernel::Accept { channel: 1 },
            ToKernel::Decline { channel: u64::MAX },
            ToKernel::Lend { to: Address([3; 8]) },
            ToKernel::Borrow { ticket: u64::MAX },
            ToKernel::Close { channel: 2 },
        ]
    }

    #[test]
    fn frames_come_back_however_they_are_cut() {
        let stream: Vec<u8> = samples().iter().flat_map(bytes_of).collect();
        for piece in [1, 7, 64, 4096, usize::MAX] {
            let mut assembler = Assembler::default();
            let mut found = Vec::new();
            for mut bytes in stream.chunks(piece.min(stream.len())) {
                while let Some(assembled) = assembler.feed(&mut bytes).unwrap() {
                    found.push(ToKernel::parse(assembled.parts).unwrap());
                }
            }
            assert_eq!(found, samples());
            assert!(assembler.is_idle());
        }
    }

    #[test]
    fn the_kernels_frames_come_back() {
        for error in [
            Error::NotSent(Status::RPC_NOTFOUND),
            Error::Refused(Status::STD_OVERFLOW),
            Error::MaybeExecuted(Status::RPC_FAILURE),
            Error::BadReply,
        ] {
            let (head, data) = ToProcess::Error { error }.into_frame();
            let bytes = [head.bytes(), &data].concat();
            let assembled = Assembler::default().feed(&mut &bytes[..]).unwrap().unwrap();
            assert_eq!(ToProcess::parse(assembled.parts), Ok(ToProcess::Error { error }));
        }
    }

    #[test]
    fn a_byte_over_the_bound_is_refused_before_it_is_read() {
        let prefix = |length: u32, kind| [&length.to_le_bytes()[..], &[kind, 0, 0, 0]].concat();
        let bound = (DATA_SIZE_MAX + 64) as u32;
        assert!(Assembler::default().feed(&mut &prefix(bound, 3)[..]).unwrap().is_none());
        for (length, kind, bad) in [
            (bound + 1, 3, Bad::TooLarge),
            (u32::MAX, 7, Bad::TooLarge),
            (5, 1, Bad::Malformed),
            (63, 3, Bad::Malformed),
            (0, 0, Bad::Malformed),
            (0, 200, Bad::Malformed),
        ] {
            assert_eq!(Assembler::default().feed(&mut &prefix(length, kind)[..]).unwrap_err(), bad);
        }
    }

    #[test]
    fn what_is_announced_costs_little_until_it_arrives() {
        let trans = &samples()[2];
        let mut head = trans.head().bytes().to_vec();
        head[..4].copy_from_slice(&(DATA_SIZE_MAX as u32 + 64).to_le_bytes());
        let mut assembler = Assembler::default();
        assert!(assembler.feed(&mut &head[..]).unwrap().is_none());
        assert_eq!(assembler.missing(), DATA_SIZE_MAX);
        assert_eq!(assembler.space().len(), STEP_SIZE);
        assembler.discard();
        assert!(assembler.space().is_empty());
    }

    #[test]
    fn any_bytes_give_frames_or_an_error() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut assembler = Assembler::default();
            let mut rest = bytes;
            while let Ok(Some(assembled)) = assembler.feed(&mut rest) {
                let again = assembled.parts.clone();
                match ToKernel::parse(assembled.parts) {
                    Ok(frame) => assert_eq!(frame.data(), again.data),
                    Err(_) => drop(ToProcess::parse(again)),
                }
            }
        });
    }
}
