//! What both ends of a flow have in common: sealing, small datagrams that wait to be sent, one large message that leaves
//! and one that arrives.

use std::collections::VecDeque;

use amoeba_rpc::HEADERS_SIZE;
use amoeba_seal::{SEALED_OVERHEAD, Session, unproven};
use amoeba_threads::Instant;
use amoeba_wire::Header;
use amoeba_wire::packet::RpcHeader;

use crate::bulk::{Ack, Inward, Outward};
use crate::bursts::{BURST_MIN, BURST_SIZE_MAX, Bursts};
use crate::datagram::{
    Datagram, PACKET_KIND, PIECE_HEAD_SIZE, Pieces, ack_head, burst_head, headers, is_small, parse_headers,
    piece_head, ping,
};
use crate::{DATAGRAM_SIZE_MIN, Memory, SMALL_MAX, Way};

/// A small datagram that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Small {
    /// An RPC packet without a message.
    Control(RpcHeader),
    /// The message of this end, which is whole in one datagram.
    Message(RpcHeader),
    Ping(u64),
    Pong(u64),
}

/// Where in its message a piece is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    offset: usize,
    size: usize,
    /// It was first sent in a burst.
    in_burst: bool,
}

/// A message that leaves: its header and its data.
pub(crate) type Outgoing<'a> = (&'a Header, &'a [u8]);

/// A large message that leaves.
struct Leaving {
    tid: u32,
    headers: [u8; HEADERS_SIZE],
    total: usize,
    /// What was never sent begins here.
    next: usize,
}

/// A large message that arrives.
struct Arriving {
    headers: [u8; HEADERS_SIZE],
    size: usize,
    /// Where it is put; `None`: into the buffer that was posted for it.
    data: Option<Vec<u8>>,
    /// Bytes that have arrived, headers included.
    arrived: usize,
    /// Every piece that has arrived is where its number says, if all have the size that this end's would have.
    is_regular: bool,
}

/// What became of a piece.
pub(crate) enum Pieced {
    /// The message is not whole yet, or was before.
    Part,
    /// Its headers, its data where that is not in the posted buffer, and the size of its data.
    Whole(RpcHeader, Header, Option<Vec<u8>>, usize),
    /// Its message is larger than this end takes, or is no message.
    Unwanted,
}

/// See the module.
pub(crate) struct Half {
    session: Session,
    /// Bytes that one datagram can seal.
    size_max: usize,
    outward: Outward<Piece>,
    bursts: Bursts,
    leaving: Option<Leaving>,
    /// Part of the last message was never sent.
    has_unsent: bool,
    inward: Inward,
    /// The transaction whose pieces `inward` counts.
    inward_tid: Option<u32>,
    arriving: Option<Arriving>,
    small: VecDeque<Small>,
    memory: Memory,
    scratch: Vec<u8>,
}

impl Half {
    pub(crate) fn new(now: Instant, session: Session, way: Way, memory: Memory) -> Half {
        Half {
            session,
            size_max: way.datagram_size.max(DATAGRAM_SIZE_MIN) - SEALED_OVERHEAD,
            outward: Outward::new(now, way.window),
            bursts: Bursts::new(now),
            leaving: None,
            has_unsent: false,
            inward: Inward::default(),
            inward_tid: None,
            arriving: None,
            small: VecDeque::with_capacity(SMALL_MAX),
            memory,
            scratch: Vec::new(),
        }
    }

    /// Bytes that one datagram can seal.
    pub(crate) fn size_max(&self) -> usize {
        self.size_max
    }

    /// Opens a datagram in its place.
    pub(crate) fn open<'a>(&mut self, now: Instant, datagram: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.session.open(now, datagram).ok().map(|opened| opened.content)
    }

    /// Has a small datagram sent; when too many wait, the other end asks for too much and the oldest is dropped.
    pub(crate) fn send(&mut self, small: Small) {
        if self.small.len() >= SMALL_MAX {
            self.small.pop_front();
        }
        self.small.push_back(small);
    }

    /// Has the message of transaction `header.tid` sent, in one datagram or in pieces.
    pub(crate) fn send_message(&mut self, header: RpcHeader, (inner, data): Outgoing<'_>) {
        self.stop_sending();
        self.has_unsent = true;
        if is_small(data.len(), self.size_max) {
            return self.send(Small::Message(header));
        }
        let headers = headers(&header, inner);
        let total = HEADERS_SIZE + data.len();
        self.leaving = Some(Leaving { tid: header.tid, headers, total, next: 0 });
    }

    /// The message need not be sent any more.
    pub(crate) fn stop_sending(&mut self) {
        self.outward.restart();
        self.bursts.forget();
        self.leaving = None;
        self.small.retain(|small| !matches!(small, Small::Message(_)));
    }

    /// Whether pieces of a message were not acknowledged yet.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether part of the last message was never sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.has_unsent
    }

    /// Timeouts in a row without an acknowledgement of anything new.
    pub(crate) fn silent(&self) -> u32 {
        self.outward.silent()
    }

    /// Some pieces have arrived there; whether these were the last.
    pub(crate) fn handle_ack(&mut self, now: Instant, tid: u32, ack: &Ack<'_>) -> bool {
        if self.leaving.as_ref().is_none_or(|leaving| leaving.tid != tid) {
            return false;
        }
        let bursts = &mut self.bursts;
        self.outward.handle_ack_with(now, ack, |piece| {
            if piece.in_burst {
                bursts.arrived(piece.offset);
            }
        });
        let over = !self.has_unsent && self.outward.is_empty();
        if over {
            self.leaving = None;
        }
        over
    }

    /// Whether pieces of this transaction have arrived.
    pub(crate) fn is_arriving(&self, tid: u32) -> bool {
        self.inward_tid == Some(tid) && self.arriving.is_some()
    }

    /// As [`Half::handle_piece`], for those that have come together.
    pub(crate) fn handle_pieces(
        &mut self,
        now: Instant,
        pieces: &Pieces<'_>,
        data_size_max: usize,
        mut posted: Option<&mut [u8]>,
    ) -> Pieced {
        for (index, bytes) in pieces.bytes.chunks(pieces.size).enumerate() {
            let (number, offset) = (pieces.number + index as u64, pieces.offset + index * pieces.size);
            let piece = Pieces { number, offset, bytes, ..*pieces };
            match self.handle_piece(now, &piece, data_size_max, posted.as_deref_mut()) {
                Pieced::Part => {}
                over => return over,
            }
        }
        Pieced::Part
    }

    /// A piece of a message of transaction `tid`, which this end wants, of at most `data_size_max` bytes of data. It is
    /// put where `posted` says, if that is said from its first piece on.
    fn handle_piece(
        &mut self,
        now: Instant,
        piece: &Pieces<'_>,
        data_size_max: usize,
        posted: Option<&mut [u8]>,
    ) -> Pieced {
        if self.inward_tid.is_some_and(|tid| (piece.tid.wrapping_sub(tid) as i32) < 0) {
            return Pieced::Part; // late: what has been acknowledged of a newer message must not be forgotten for it
        }
        if self.inward_tid != Some(piece.tid) {
            self.inward = Inward::default();
            self.inward_tid = Some(piece.tid);
            self.arriving = self.arriving(piece, data_size_max, posted.as_deref());
            if self.arriving.is_none() {
                return Pieced::Unwanted;
            }
        }
        if !self.inward.arrived(now, piece.number) {
            return Pieced::Part;
        }
        let size = self.size_max - PIECE_HEAD_SIZE;
        let Some(arriving) = &mut self.arriving else { return Pieced::Part };
        arriving.is_regular &= is_regular(piece, size) && piece.bytes.len() <= size;
        let place = match &mut arriving.data {
            Some(data) => Some(&mut data[..]),
            None => posted.and_then(|posted| posted.get_mut(..arriving.size)),
        };
        let Some(place) = place.filter(|_| arriving.size + HEADERS_SIZE == piece.total) else {
            self.arriving = None; // no honest end changes its mind
            return Pieced::Unwanted;
        };
        let bytes_left = match piece.bytes.split_first_chunk::<HEADERS_SIZE>() {
            Some((headers, rest)) if piece.offset == 0 => {
                arriving.headers = *headers;
                rest
            }
            _ => piece.bytes,
        };
        let at = piece.offset.saturating_sub(HEADERS_SIZE);
        place[at..at + bytes_left.len()].copy_from_slice(bytes_left);
        self.put(piece.bytes.len())
    }

    /// Opens a burst of the message that arrives straight into its place, where nothing of it is there yet; which transaction
    /// it is of, and what has come of it. `None`: it is to be opened as any datagram.
    ///
    /// What the burst says of its place is not proven before it is opened. So nothing is changed before that but its place,
    /// and that is where its numbers say, none of which has arrived.
    pub(crate) fn open_into_place(
        &mut self,
        now: Instant,
        datagram: &[u8],
        posted: Option<&mut [u8]>,
    ) -> Option<(u32, Pieced)> {
        let Ok(Datagram::Pieces(pieces)) = Datagram::parse(unproven(datagram)?) else { return None };
        let arriving = self.arriving.as_mut().filter(|_| self.inward_tid == Some(pieces.tid))?;
        let place = match &mut arriving.data {
            Some(data) => &mut data[..],
            None => posted?.get_mut(..arriving.size)?,
        };
        let begin = pieces.offset.checked_sub(HEADERS_SIZE)?;
        let numbers = pieces.number..pieces.number + pieces.bytes.len().div_ceil(pieces.size) as u64;
        let is_new = numbers.clone().all(|number| self.inward.is_new(number));
        let size = self.size_max - PIECE_HEAD_SIZE;
        if !arriving.is_regular || !is_regular(&pieces, size) || pieces.size != size {
            return None;
        }
        if !is_new || arriving.size + HEADERS_SIZE != pieces.total {
            return None;
        }
        let place = place.get_mut(begin..begin + pieces.bytes.len())?;
        if !self.session.open_burst_into(datagram, place) {
            return None;
        }
        for number in numbers {
            self.inward.arrived(now, number);
        }
        Some((pieces.tid, self.put(pieces.bytes.len())))
    }

    /// So many bytes of the message that arrives have been put into their place.
    fn put(&mut self, size: usize) -> Pieced {
        let Some(arriving) = &mut self.arriving else { return Pieced::Part };
        arriving.arrived += size;
        if arriving.arrived < arriving.size + HEADERS_SIZE {
            return Pieced::Part;
        }
        let arrived = self.arriving.take().expect("it was there just now");
        match parse_headers(&arrived.headers) {
            Some((header, inner)) => Pieced::Whole(header, inner, arrived.data, arrived.size),
            None => Pieced::Unwanted,
        }
    }

    /// What the message of a first piece is put into, unless it is too large.
    fn arriving(&self, piece: &Pieces<'_>, data_size_max: usize, posted: Option<&[u8]>) -> Option<Arriving> {
        let bound = posted.map_or(data_size_max, |posted| posted.len().min(data_size_max));
        let size = piece.total.checked_sub(HEADERS_SIZE).filter(|size| *size <= bound)?;
        let data = posted.is_none().then(|| (self.memory)(size));
        Some(Arriving { headers: [0; HEADERS_SIZE], size, data, arrived: 0, is_regular: true })
    }

    /// What arrives is not wanted any more.
    pub(crate) fn stop_receiving(&mut self) {
        self.arriving = None;
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.outward.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.outward.poll_timeout().filter(|_| self.is_leaving())
    }

    /// Bytes that are under way, and that may be.
    pub(crate) fn flight(&self) -> (usize, usize) {
        (self.outward.flying_size(), self.outward.window())
    }

    /// Pieces sent again so far.
    pub(crate) fn sent_again(&self) -> u64 {
        self.outward.sent_again()
    }

    /// Appends sealed datagrams to `out`, at most `count_max`, all of the returned size but the last, which may be
    /// smaller. `message` is what leaves.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        message: Option<Outgoing<'_>>,
        count_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        while let Some(small) = self.small.pop_front() {
            if self.seal_small(now, small, message, out).is_some() {
                return Some(out.len());
            }
        }
        if let Some(tid) = self.inward_tid.filter(|_| self.inward.owed() > 0) {
            self.scratch.clear();
            self.scratch.extend_from_slice(&ack_head(tid));
            self.inward.ack(now, &mut self.scratch);
            self.session.seal(now, &[&self.scratch], out).ok()?;
            return Some(out.len());
        }
        self.seal_pieces(now, message?.1, count_max, out)
    }

    fn seal_small(
        &mut self,
        now: Instant,
        small: Small,
        message: Option<Outgoing<'_>>,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        match small {
            Small::Control(header) => self.session.seal(now, &[&PACKET_KIND, &header.to_bytes()], out),
            Small::Message(header) => {
                let (inner, data) = message?;
                self.has_unsent = false;
                self.session.seal(now, &[&PACKET_KIND, &headers(&header, inner), data], out)
            }
            Small::Ping(nonce) => self.session.seal(now, &[&ping(nonce, false)], out),
            Small::Pong(nonce) => self.session.seal(now, &[&ping(nonce, true)], out),
        }
        .ok()
    }

    fn seal_pieces(
        &mut self,
        now: Instant,
        data: &[u8],
        count_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        if let Some(segment) = self.seal_burst(now, data, count_max, out) {
            return Some(segment);
        }
        let leaving = self.leaving.as_mut()?;
        let piece_size = self.size_max - PIECE_HEAD_SIZE;
        let mut first = None;
        for _ in 0..count_max {
            let again = self.outward.send_again(now).map(|(number, piece)| (number, *piece));
            let (number, piece) = match again {
                Some((number, piece)) => {
                    if piece.in_burst {
                        self.bursts.lost(now);
                    }
                    (number, piece)
                }
                None if leaving.next < leaving.total && self.outward.is_open() => {
                    let size = piece_size.min(leaving.total - leaving.next);
                    let piece = Piece { offset: leaving.next, size, in_burst: false };
                    leaving.next += piece.size;
                    self.has_unsent = leaving.next < leaving.total;
                    (self.outward.send(now, piece.size, piece), piece)
                }
                None => break,
            };
            let head = piece_head(number, leaving.tid, piece.offset, leaving.total);
            let part = |from: usize, to: usize| &data[from - HEADERS_SIZE..to - HEADERS_SIZE];
            let end = piece.offset + piece.size;
            let parts = match piece.offset {
                0 => [&head[..], &leaving.headers[..], part(HEADERS_SIZE, end)],
                offset => [&head[..], &[], part(offset, end)],
            };
            let before = out.len();
            self.session.seal(now, &parts, out).ok()?;
            first.get_or_insert(out.len() - before);
            if piece.size < piece_size {
                break; // a shorter one ends the batch
            }
        }
        first
    }

    /// Appends a burst of pieces that were never sent, where there are enough and bursts arrive; the size of the datagrams
    /// that it is to be cut into.
    fn seal_burst(
        &mut self,
        now: Instant,
        data: &[u8],
        count_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let leaving = self.leaving.as_mut()?;
        let (piece_size, segment) = (self.size_max - PIECE_HEAD_SIZE, self.size_max + SEALED_OVERHEAD);
        let count_max = count_max.min(BURST_SIZE_MAX / segment);
        let (window, flying) = (self.outward.window(), self.outward.flying_size());
        let room = window.saturating_sub(flying).min(leaving.total - leaving.next);
        let worth_it = count_max >= BURST_MIN && room >= BURST_MIN * piece_size;
        if !worth_it || !self.outward.is_open() || !self.bursts.may(now) {
            return None;
        }
        let (begin, mut first) = (leaving.next, None);
        for _ in 0..count_max {
            let size = piece_size.min(leaving.total - leaving.next);
            if size == 0 || !self.outward.is_open() {
                break;
            }
            let piece = Piece { offset: leaving.next, size, in_burst: true };
            let number = self.outward.send(now, size, piece);
            first.get_or_insert(number);
            leaving.next += size;
        }
        self.has_unsent = leaving.next < leaving.total;
        self.bursts.sent(begin);
        let head = burst_head(first?, leaving.tid, begin, leaving.total, piece_size);
        let headers = if begin == 0 { &leaving.headers[..] } else { &[] };
        let part = &data[begin.saturating_sub(HEADERS_SIZE)..leaving.next - HEADERS_SIZE];
        self.session.seal_burst(now, &head, &[headers, part], out).ok()?;
        Some(segment)
    }
}

/// Whether these pieces are where their number says, if all of the message have `size` bytes but the last.
fn is_regular(pieces: &Pieces<'_>, size: usize) -> bool {
    let end = pieces.offset + pieces.bytes.len();
    pieces.offset as u64 == pieces.number.saturating_mul(size as u64)
        && (pieces.bytes.len().is_multiple_of(size) || end == pieces.total)
}

/// The header of an RPC packet of a flow.
pub(crate) fn rpc(
    kind: amoeba_wire::packet::RpcKind,
    flags: u8,
    tid: u32,
    message: Option<&Header>,
) -> RpcHeader {
    let port = message.map_or(amoeba_cap::PutPort::NULL, |header| header.port);
    RpcHeader { kid: [0; 8], port, kind, flags, tid, dest: 0, from: 0 }
}
