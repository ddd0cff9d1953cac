//! Large messages over this link: the machine of `amoeba-flow`, with packets kept as bytes.

use std::sync::Arc;

use amoeba_flow::bulk;
use amoeba_threads::Instant;

use super::datagram::Ack;

/// A BULK to be sent: its number and its packet.
pub(crate) type Numbered = (u64, Arc<Vec<u8>>);

/// What goes to one peer.
pub(crate) struct Outward(bulk::Outward<Arc<Vec<u8>>>);

impl Outward {
    pub(crate) fn new(now: Instant, window_max: usize) -> Outward {
        Outward(bulk::Outward::new(now, window_max))
    }

    /// Whether another BULK may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Numbers a packet that is sent now.
    pub(crate) fn send(&mut self, now: Instant, packet: Vec<u8>) -> Numbered {
        let packet = Arc::new(packet);
        (self.0.send(now, packet.len(), packet.clone()), packet)
    }

    /// Some have arrived; what is to be sent again is put into `out`.
    pub(crate) fn handle_ack(&mut self, now: Instant, ack: &Ack, out: &mut Vec<Numbered>) {
        self.0.handle_ack(now, &bulk::Ack { next: ack.next, bits: &ack.bits });
        self.send_lost(now, out);
    }

    /// Nothing was heard for too long: everything under way is lost.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Numbered>) {
        self.0.handle_timeout(now);
        self.send_lost(now, out);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    /// Bytes that may be under way now.
    pub(crate) fn window(&self) -> usize {
        self.0.window()
    }

    /// BULKs sent again so far.
    pub(crate) fn sent_again(&self) -> u64 {
        self.0.sent_again()
    }

    fn send_lost(&mut self, now: Instant, out: &mut Vec<Numbered>) {
        while let Some((number, packet)) = self.0.send_again(now) {
            out.push((number, packet.clone()));
        }
    }
}

/// What comes from one peer.
#[derive(Default)]
pub(crate) struct Inward(bulk::Inward);

impl Inward {
    /// A BULK has arrived; false for a copy, and for one too far ahead.
    pub(crate) fn arrived(&mut self, number: u64) -> bool {
        self.0.arrived(number)
    }

    /// Whether something arrived that was not acknowledged yet.
    pub(crate) fn owes(&self) -> bool {
        self.0.owed() > 0
    }

    /// What has arrived.
    pub(crate) fn ack(&mut self) -> Ack {
        let mut bytes = Vec::new();
        self.0.ack(&mut bytes);
        let ack = bulk::Ack::parse(&bytes).expect("what is emitted parses");
        Ack { next: ack.next, bits: ack.bits.to_vec() }
    }
}
