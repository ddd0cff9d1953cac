//! Which port a packet is about: only the first packet of a request names it, the others are known by what passed before.

use std::collections::{BTreeMap, VecDeque};

use amoeba_cap::PutPort;
use amoeba_wire::packet::{Address, FlipHeader, RpcHeader, RpcKind};
use amoeba_wire::trace::rpc_header;

/// Transactions, and messages, that are remembered; past it the oldest is forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Ports of the transactions and messages that were seen last.
#[derive(Default)]
pub(super) struct Conversations {
    /// By client process, its slot and the number of the transaction.
    transactions: Recent<(Address, u16, u32)>,
    /// By source and number of the message.
    messages: Recent<(Address, u32)>,
}

impl Conversations {
    /// The port that this packet is about, if that can be known.
    pub(super) fn port_of(&mut self, flip: &FlipHeader, payload: &[u8]) -> Option<PutPort> {
        let message = (flip.from, flip.message_id);
        if flip.offset != 0 {
            return self.messages.get(&message);
        }
        let port = match rpc_header(flip, payload)?.0 {
            rpc if matches!(rpc.kind, RpcKind::Locate | RpcKind::Hereis) => Some(rpc.port),
            rpc if rpc.kind == RpcKind::Request => {
                self.transactions.insert((flip.from, rpc.from, rpc.tid), rpc.port);
                Some(rpc.port)
            }
            rpc => self.of_client(flip, &rpc),
        };
        if let Some(port) = port
            && flip.length < flip.total
        {
            self.messages.insert(message, port);
        }
        port
    }

    /// The client of what is no request may be at either end.
    fn of_client(&self, flip: &FlipHeader, rpc: &RpcHeader) -> Option<PutPort> {
        let to = self.transactions.get(&(flip.to, rpc.dest, rpc.tid));
        to.or_else(|| self.transactions.get(&(flip.from, rpc.from, rpc.tid)))
    }
}

/// A table that forgets what came first.
struct Recent<K> {
    ports: BTreeMap<K, PutPort>,
    order: VecDeque<K>,
}

impl<K> Default for Recent<K> {
    fn default() -> Recent<K> {
        Recent { ports: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Ord + Copy> Recent<K> {
    fn insert(&mut self, key: K, port: PutPort) {
        if self.ports.insert(key, port).is_some() {
            return;
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ports.remove(&oldest);
        }
        self.order.push_back(key);
    }

    fn get(&self, key: &K) -> Option<PutPort> {
        self.ports.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use amoeba_wire::packet::PacketKind;

    use super::*;

    const CLIENT: Address = Address([1; 8]);
    const SERVER: Address = Address([2; 8]);

    fn flip(from: Address, to: Address, message_id: u32, offset: u32) -> FlipHeader {
        FlipHeader {
            kind: PacketKind::Unidata,
            flags: 0,
            hops: 0,
            hops_max: 9,
            to,
            from,
            message_id,
            length: 24,
            offset,
            total: 2000,
        }
    }

    fn rpc(kind: RpcKind, port: PutPort, tid: u32, dest: u16, from: u16) -> [u8; 24] {
        RpcHeader { kid: [0; 8], port, kind, flags: 0, tid, dest, from }.to_bytes()
    }

    #[test]
    fn everything_after_the_request_is_known_by_it() {
        let port = PutPort::from_bytes([7; 6]);
        let mut seen = Conversations::default();
        let request = rpc(RpcKind::Request, port, 5, 0, 3);
        let reply = rpc(RpcKind::Reply, PutPort::NULL, 5, 3, 0);
        assert_eq!(seen.port_of(&flip(SERVER, CLIENT, 1, 0), &reply), None);
        assert_eq!(seen.port_of(&flip(CLIENT, SERVER, 8, 0), &request), Some(port));
        assert_eq!(seen.port_of(&flip(CLIENT, SERVER, 8, 1458), b"data"), Some(port));
        assert_eq!(seen.port_of(&flip(CLIENT, SERVER, 9, 1458), b"data"), None);
        assert_eq!(seen.port_of(&flip(SERVER, CLIENT, 2, 0), &reply), Some(port));
        let enquire = rpc(RpcKind::Enquire, PutPort::NULL, 5, 0, 3);
        assert_eq!(seen.port_of(&flip(CLIENT, SERVER, 10, 0), &enquire), Some(port));
        let other = rpc(RpcKind::Ack, PutPort::NULL, 6, 3, 0);
        assert_eq!(seen.port_of(&flip(SERVER, CLIENT, 3, 0), &other), None);
    }

    #[test]
    fn it_forgets_and_does_not_grow() {
        let port = PutPort::from_bytes([7; 6]);
        let mut seen = Conversations::default();
        for tid in 0..2 * REMEMBERED_MAX as u32 {
            let request = rpc(RpcKind::Request, port, tid, 0, 3);
            assert_eq!(seen.port_of(&flip(CLIENT, SERVER, tid, 0), &request), Some(port));
        }
        assert_eq!(seen.transactions.ports.len(), REMEMBERED_MAX);
        assert_eq!((seen.messages.ports.len(), seen.messages.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
