//! What a server process remembers of its clients: the last transaction of every client slot, and its reply until it
//! is acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_flip::{PACKET_LIFE_MAX, Payload};
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, RpcHeader, RpcKind, rpc_flag};
use amoeba_world::Message;

use crate::message::emit;
use crate::{CLIENTS_MAX, DOUBT_AFTER, DUPLICATE_LIFE, REPLY_TIMEOUT, REPLY_TRIES_MAX};

/// How long a client that has its reply is remembered where there is no room: many times the life of a packet.
const ACKNOWLEDGED_LIFE: Duration = Duration::from_secs(10);
/// How often a full table is searched for such clients.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// A client thread: its process and its slot in it.
pub type ClientKey = (Address, u16);

/// A packet to send back to a client process.
pub type Answer = (Address, Payload);

/// What to do with a request that arrived.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It is new: accept or refuse it.
    New,
    /// It is a copy, or there is no room for new clients and it is refused: send this, if anything.
    Known(Option<Answer>),
}

#[derive(Debug)]
enum State {
    /// Answered with NAK: certainly never executed.
    Refused,
    /// Waiting for a server thread, or being executed.
    Accepted,
    /// Executed; the reply is kept until it is acknowledged.
    Replied { packet: Payload, tries: u32, next: Instant },
    /// Executed, and nothing is kept.
    Over,
}

#[derive(Debug)]
struct Record {
    tid: u32,
    state: State,
    touched: Instant,
    /// The client has its reply: it tries no more, and only copies on their way can still come.
    acknowledged: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Clients {
    records: BTreeMap<ClientKey, Record>,
    /// Replies not acknowledged yet, by when to ask for them.
    unacknowledged: BTreeSet<(Instant, ClientKey)>,
    /// Bytes of these replies.
    kept_size: usize,
    /// The table was full: requests of new clients were refused without a tombstone, and until then a copy of one may
    /// still come. New clients are refused for as long, with tombstones where there is room, so that no copy slips in.
    full_until: Option<Instant>,
    sweep: Option<Instant>,
    /// When clients were last forgotten because the table was full.
    made_room: Option<Instant>,
    /// Clients that do not say whether they have their replies.
    doubts: Vec<Address>,
}

impl Clients {
    /// A request arrived from process `from`. If it is [`Verdict::New`], [`Clients::accept`] or [`Clients::refuse`] it.
    pub fn request(&mut self, now: Instant, from: Address, header: &RpcHeader) -> Verdict {
        let key = (from, header.from);
        let Some(record) = self.records.get_mut(&key) else {
            return match self.room(now) {
                Room::Free => Verdict::New,
                Room::Soon => Verdict::Known(Some(self.refuse(now, key, header.tid))),
                Room::None => Verdict::Known(Some(nak(&key, header.tid))),
            };
        };
        if is_newer(header.tid, record.tid) {
            return Verdict::New;
        }
        if header.tid != record.tid {
            return Verdict::Known(None);
        }
        record.touched = now;
        let retransmitted = header.flags & rpc_flag::RETRANS != 0;
        let answer = match &record.state {
            State::Replied { packet, .. } => Some(packet.clone()),
            _ if !retransmitted => None,
            State::Accepted => Some(control(RpcKind::Ack, rpc_flag::REQUEST, &key, header.tid)),
            State::Refused => Some(control(RpcKind::Nak, rpc_flag::REQUEST, &key, header.tid)),
            State::Over => Some(control(RpcKind::Fail, 0, &key, header.tid)),
        };
        Verdict::Known(answer.map(|packet| (from, packet)))
    }

    /// The request will be executed. `acknowledge`: tell the client that it arrived (it came in several fragments).
    pub fn accept(&mut self, now: Instant, key: ClientKey, tid: u32, acknowledge: bool) -> Option<Answer> {
        self.put(now, key, tid, State::Accepted);
        acknowledge.then(|| (key.0, control(RpcKind::Ack, rpc_flag::REQUEST, &key, tid)))
    }

    /// The request will never be executed.
    pub fn refuse(&mut self, now: Instant, key: ClientKey, tid: u32) -> Answer {
        self.put(now, key, tid, State::Refused);
        nak(&key, tid)
    }

    /// A packet about a request or a reply arrived: RECEIVED or ENQUIRE of a client, ACK, NAK or ALIVE of a reply.
    pub fn handle_control(&mut self, now: Instant, from: Address, header: &RpcHeader) -> Option<Answer> {
        let key = (from, header.from);
        match header.kind {
            RpcKind::Received | RpcKind::Enquire => self.asked(now, key, header),
            RpcKind::Ack => {
                self.acknowledged(now, key, header.tid);
                None
            }
            RpcKind::Nak => self.send_again(now, key, header.tid),
            RpcKind::Alive => {
                self.still_leaving(now, key, header.tid);
                None
            }
            _ => None,
        }
    }

    /// The reply to an accepted request. `None` when the client has gone on to something else.
    pub fn reply(&mut self, now: Instant, key: ClientKey, tid: u32, reply: Message) -> Option<Answer> {
        let record = self.records.get_mut(&key).filter(|record| record.tid == tid)?;
        if !matches!(record.state, State::Accepted) {
            return None;
        }
        let header = RpcHeader { dest: key.1, ..blank(RpcKind::Reply, 0, tid) };
        let packet = emit(&header, Some((&reply.header, &Arc::new(reply.data))));
        let next = now + REPLY_TIMEOUT;
        self.put(now, key, tid, State::Replied { packet: packet.clone(), tries: 0, next });
        Some((key.0, packet))
    }

    /// The request was perhaps executed and will not be answered.
    pub fn fail(&mut self, now: Instant, key: ClientKey, tid: u32) -> Option<Answer> {
        let record = self.records.get(&key).filter(|record| record.tid == tid)?;
        if !matches!(record.state, State::Accepted) {
            return None;
        }
        self.put(now, key, tid, State::Over);
        Some((key.0, control(RpcKind::Fail, 0, &key, tid)))
    }

    /// The client process is gone: its replies need not be kept.
    pub fn client_gone(&mut self, key: ClientKey, tid: u32) {
        if let Some(record) = self.records.get(&key).filter(|record| record.tid == tid) {
            let touched = record.touched;
            if matches!(record.state, State::Replied { .. }) {
                self.put(touched, key, tid, State::Over);
            }
        }
    }

    /// Everything about this process is to be forgotten that only serves to reach it: its host is gone.
    pub fn host_lost(&mut self, client: Address) {
        let replied: Vec<_> = self
            .records
            .range((client, 0)..=(client, u16::MAX))
            .filter(|(_, record)| is_replied(&record.state))
            .map(|(key, record)| (*key, record.tid))
            .collect();
        for (key, tid) in replied {
            self.client_gone(key, tid);
        }
    }

    /// Whether nothing is known of this transaction of the client slot: it is later than any that came.
    pub fn is_new(&self, key: ClientKey, tid: u32) -> bool {
        self.records.get(&key).is_none_or(|record| is_newer(tid, record.tid))
    }

    /// The reply is on its way but not there yet: the client is asked for it later.
    pub fn still_leaving(&mut self, now: Instant, key: ClientKey, tid: u32) {
        let Some(record) = self.records.get_mut(&key).filter(|record| record.tid == tid) else { return };
        if let State::Replied { tries, next, .. } = &mut record.state {
            self.unacknowledged.remove(&(*next, key));
            (*tries, *next) = (0, now + REPLY_TIMEOUT);
            self.unacknowledged.insert((*next, key));
        }
    }

    /// Asks for replies that were not acknowledged in time; forgets clients that are long idle.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(&(next, key)) = self.unacknowledged.first()
            && next <= now
        {
            self.unacknowledged.pop_first();
            answers.extend(self.ask_received(now, key));
        }
        if self.sweep.is_some_and(|sweep| sweep <= now) {
            let open = |state: &State| matches!(state, State::Accepted | State::Replied { .. });
            self.records
                .retain(|_, record| open(&record.state) || now.since(record.touched) < DUPLICATE_LIFE);
            self.sweep = (!self.records.is_empty()).then_some(now + DUPLICATE_LIFE / 4);
        }
        answers
    }

    /// The clients to which another way is to be looked for, because they did not answer what [`Clients::handle_timeout`]
    /// asked.
    pub fn take_doubts(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.doubts)
    }

    /// When [`Clients::handle_timeout`] is to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let reply = self.unacknowledged.first().map(|(next, _)| *next);
        [reply, self.sweep].into_iter().flatten().min()
    }

    /// Bytes of replies that are kept until they are acknowledged.
    pub fn kept_size(&self) -> usize {
        self.kept_size
    }

    /// Drops the kept reply that would be asked for first, but for that of `spared`: should its client not have got it,
    /// it hears that its request may have been executed. False when there is none.
    pub fn drop_reply(&mut self, now: Instant, spared: Option<ClientKey>) -> bool {
        let mut keys = self.unacknowledged.iter().map(|(_, key)| *key);
        let Some(key) = keys.find(|key| Some(*key) != spared) else { return false };
        let tid = self.records[&key].tid;
        self.put(now, key, tid, State::Over);
        true
    }

    /// The process has ended: no reply is kept any longer.
    pub fn end(&mut self, now: Instant) {
        while self.drop_reply(now, None) {}
    }

    /// Client slots remembered.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no client is remembered.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether transaction `tid` of the client slot was, or may have been, executed here.
    fn was_executed(&self, key: &ClientKey, tid: u32) -> bool {
        self.records.get(key).is_some_and(|record| {
            is_newer(record.tid, tid) || record.tid == tid && !matches!(record.state, State::Refused)
        })
    }

    /// The answer to a client of a process that has ended, while copies of its packets may still be under way: FAIL if
    /// the request may have been executed, `None` if it was not.
    pub fn after_death(&self, from: Address, header: &RpcHeader) -> Option<Answer> {
        let key = (from, header.from);
        self.was_executed(&key, header.tid).then(|| (from, control(RpcKind::Fail, 0, &key, header.tid)))
    }

    fn asked(&mut self, now: Instant, key: ClientKey, header: &RpcHeader) -> Option<Answer> {
        let tid = header.tid;
        let enquiry = header.kind == RpcKind::Enquire;
        let known = self.records.get(&key).map(|record| record.tid);
        if known.is_none_or(|known| is_newer(tid, known)) {
            if known.is_none() && self.room(now) == Room::None {
                return Some(nak(&key, tid)); // the truth: should the request still come, new clients are kept out
            }
            return Some(self.refuse(now, key, tid));
        }
        let record = self.records.get_mut(&key).expect("known just now");
        if record.tid != tid {
            return Some((key.0, control(RpcKind::Fail, 0, &key, tid)));
        }
        record.touched = now;
        let packet = match &record.state {
            State::Refused => control(RpcKind::Nak, rpc_flag::REQUEST, &key, tid),
            State::Accepted if enquiry => control(RpcKind::Alive, 0, &key, tid),
            State::Accepted => control(RpcKind::Ack, rpc_flag::REQUEST, &key, tid),
            State::Replied { packet, .. } => packet.clone(),
            State::Over => control(RpcKind::Fail, 0, &key, tid),
        };
        Some((key.0, packet))
    }

    fn acknowledged(&mut self, now: Instant, key: ClientKey, tid: u32) {
        if self.records.get(&key).is_some_and(|record| record.tid == tid && is_replied(&record.state)) {
            self.put(now, key, tid, State::Over);
            if let Some(record) = self.records.get_mut(&key) {
                record.acknowledged = true;
            }
        }
    }

    fn send_again(&mut self, now: Instant, key: ClientKey, tid: u32) -> Option<Answer> {
        let record = self.records.get_mut(&key).filter(|record| record.tid == tid)?;
        record.touched = now;
        match &record.state {
            State::Replied { packet, .. } => Some((key.0, packet.clone())),
            _ => None,
        }
    }

    fn ask_received(&mut self, now: Instant, key: ClientKey) -> Option<Answer> {
        let record = self.records.get_mut(&key)?;
        let tid = record.tid;
        let State::Replied { tries, next, .. } = &mut record.state else { return None };
        if *tries >= REPLY_TRIES_MAX {
            let touched = record.touched;
            self.put(touched, key, tid, State::Over);
            return None;
        }
        *tries += 1;
        if *tries == DOUBT_AFTER {
            self.doubts.push(key.0);
        }
        *next = now + REPLY_TIMEOUT * (1 << (*tries).min(2));
        self.unacknowledged.insert((*next, key));
        let header = RpcHeader { dest: key.1, ..blank(RpcKind::Received, rpc_flag::REPLY, tid) };
        Some((key.0, emit(&header, None)))
    }

    fn put(&mut self, now: Instant, key: ClientKey, tid: u32, state: State) {
        self.sweep.get_or_insert(now + DUPLICATE_LIFE / 4);
        if let State::Replied { packet, next, .. } = &state {
            self.unacknowledged.insert((*next, key));
            self.kept_size += packet.len();
        }
        let old = self.records.insert(key, Record { tid, state, touched: now, acknowledged: false });
        if let Some(Record { state: State::Replied { packet, next, .. }, .. }) = old {
            self.unacknowledged.remove(&(next, key));
            self.kept_size -= packet.len();
        }
    }

    /// The table is full: clients that have their replies are forgotten sooner. Looked for once a second.
    fn make_room(&mut self, now: Instant) {
        if self.made_room.is_none_or(|made| now.since(made) >= ROOM_INTERVAL) {
            self.made_room = Some(now);
            self.records
                .retain(|_, record| !record.acknowledged || now.since(record.touched) < ACKNOWLEDGED_LIFE);
        }
    }

    fn room(&mut self, now: Instant) -> Room {
        if self.records.len() >= CLIENTS_MAX {
            self.make_room(now);
        }
        if self.records.len() >= CLIENTS_MAX {
            self.full_until = Some(now + PACKET_LIFE_MAX);
            return Room::None;
        }
        if self.full_until.is_some_and(|until| now >= until) {
            self.full_until = None;
        }
        if self.full_until.is_none() { Room::Free } else { Room::Soon }
    }
}

/// Whether there is room for one more client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Yes.
    Free,
    /// There is, but not for a request that may be a copy of a refused one: only for a tombstone.
    Soon,
    /// Not even for a tombstone.
    None,
}

fn is_replied(state: &State) -> bool {
    matches!(state, State::Replied { .. })
}

/// Serial arithmetic: whether `one` was drawn after `other`.
fn is_newer(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) > 0
}

fn blank(kind: RpcKind, flags: u8, tid: u32) -> RpcHeader {
    RpcHeader { kid: [0; 8], port: PutPort::NULL, kind, flags, tid, dest: 0, from: 0 }
}

fn nak(key: &ClientKey, tid: u32) -> Answer {
    (key.0, control(RpcKind::Nak, rpc_flag::REQUEST, key, tid))
}

fn control(kind: RpcKind, flags: u8, key: &ClientKey, tid: u32) -> Payload {
    emit(&RpcHeader { dest: key.1, ..blank(kind, flags, tid) }, None)
}

#[cfg(test)]
mod tests {
    use amoeba_wire::Status;

    use super::*;

    /// The answer to RECEIVED about the only transaction of client `number`.
    fn asked(clients: &mut Clients, number: u8) -> Option<RpcKind> {
        let key = (Address([number; 8]), 0);
        let answer = clients.handle_control(Instant::default(), key.0, &blank(RpcKind::Received, 0, 1));
        answer.and_then(|(_, packet)| RpcHeader::parse(packet.head()).map(|(header, _, _)| header.kind))
    }

    #[test]
    fn dropped_replies_are_the_oldest_and_what_is_not_kept_does_not_count() {
        let (mut clients, now) = (Clients::default(), Instant::default());
        for number in 1..=4 {
            let key = (Address([number; 8]), 0);
            clients.accept(now, key, 1, false);
            let reply = Message { data: vec![0; 1000], ..Message::status(Status::STD_OK) };
            assert!(clients.reply(now, key, 1, reply).is_some());
        }
        let each = 1000 + crate::HEADERS_SIZE;
        assert_eq!(clients.kept_size(), 4 * each);
        assert!(clients.drop_reply(now, None));
        assert!(clients.drop_reply(now, Some((Address([2; 8]), 0))));
        let kinds: Vec<_> = (1..=4).filter_map(|number| asked(&mut clients, number)).collect();
        assert_eq!(kinds, [RpcKind::Fail, RpcKind::Reply, RpcKind::Fail, RpcKind::Reply]);
        clients.handle_control(now, Address([2; 8]), &blank(RpcKind::Ack, rpc_flag::REPLY, 1));
        assert_eq!((clients.kept_size(), clients.unacknowledged.len()), (each, 1));
        assert!(!clients.drop_reply(now, Some((Address([4; 8]), 0))));
        clients.end(now);
        assert_eq!((clients.kept_size(), clients.unacknowledged.len()), (0, 0));
    }

    #[test]
    fn clients_that_have_their_replies_make_room_sooner_and_the_others_do_not() {
        let (mut clients, start) = (Clients::default(), Instant::default());
        for number in 1..=CLIENTS_MAX as u8 {
            assert_eq!(request(&mut clients, start, number, 1), None);
            let key = (Address([number; 8]), 7);
            clients.reply(start, key, 1, Message::status(Status::STD_OK));
            if number > 1 {
                let ack = RpcHeader { from: 7, ..blank(RpcKind::Ack, rpc_flag::REPLY, 1) };
                clients.handle_control(start, key.0, &ack);
            }
        }
        let early = start + (ACKNOWLEDGED_LIFE - ROOM_INTERVAL);
        assert_eq!(request(&mut clients, early, 99, 1), Some(RpcKind::Nak));
        assert_eq!(clients.len(), CLIENTS_MAX);
        let late = start + ACKNOWLEDGED_LIFE;
        let just_before = start + (ACKNOWLEDGED_LIFE - PACKET_LIFE_MAX / 2);
        assert_eq!(request(&mut clients, just_before, 99, 1), Some(RpcKind::Nak));
        // It was refused without a tombstone: a copy of its request must not be executed now that there is room.
        assert_eq!(request(&mut clients, late, 99, 1), Some(RpcKind::Nak));
        assert_eq!(request(&mut clients, late + PACKET_LIFE_MAX, 98, 1), None);
        assert!(!clients.is_new((Address([1; 8]), 7), 1), "whose reply is not acknowledged is remembered");
        assert!(clients.is_new((Address([2; 8]), 7), 1));
    }

    fn request(clients: &mut Clients, now: Instant, number: u8, tid: u32) -> Option<RpcKind> {
        let header = RpcHeader { from: 7, ..blank(RpcKind::Request, 0, tid) };
        match clients.request(now, Address([number; 8]), &header) {
            Verdict::New => {
                clients.accept(now, (Address([number; 8]), 7), tid, false);
                None
            }
            Verdict::Known(answer) => {
                let (_, packet) = answer.expect("whoever is refused hears it");
                RpcHeader::parse(packet.head()).map(|(header, _, _)| header.kind)
            }
        }
    }

    #[test]
    fn a_new_client_of_a_full_table_hears_it_and_no_copy_of_its_request_is_ever_executed() {
        let (mut clients, start) = (Clients::default(), Instant::default());
        for number in 1..=CLIENTS_MAX as u8 {
            assert_eq!(request(&mut clients, start, number, 1), None);
            clients.fail(start, (Address([number; 8]), 7), 1);
        }
        assert_eq!(request(&mut clients, start, 99, 1), Some(RpcKind::Nak), "no room even for a tombstone");
        assert_eq!(asked(&mut clients, 98), Some(RpcKind::Nak), "what never came was never executed");
        let late = start + DUPLICATE_LIFE;
        let full = late.since(start) - PACKET_LIFE_MAX / 4;
        assert_eq!(request(&mut clients, start + full, 99, 2), Some(RpcKind::Nak));
        clients.handle_timeout(late);
        assert_eq!(clients.len(), 0, "now there is room");
        assert_eq!(request(&mut clients, late, 99, 2), Some(RpcKind::Nak), "a copy of what was refused");
        assert_eq!(request(&mut clients, late, 99, 3), None, "tried again under a new identifier");
        assert_eq!(request(&mut clients, late + PACKET_LIFE_MAX, 97, 1), None);
    }
}
