//! Acknowledgements that wait for the next request.

use super::*;
use crate::owed::OWED_TIME;

const ACK: u8 = 5;

impl Net {
    /// One transaction of the client on the first host with the server on the second, whose reply has so many bytes; what
    /// was sent meanwhile, by kind.
    fn exchange(&mut self, client: ProcessId, server: ProcessId, port: PutPort, size: usize) -> Vec<u8> {
        let mut kinds = Vec::new();
        self.trans(0, client, port, vec![1; 10]);
        self.run(1, |transmit| {
            kinds.push(rpc_kind(transmit));
            true
        });
        let (request, _) = self.request(1);
        self.answer(1, server, request, vec![2; size]);
        self.kernels[1].getreq(server, port, GetreqId(2)).unwrap();
        self.run(1, |transmit| {
            kinds.push(rpc_kind(transmit));
            true
        });
        assert_eq!(self.reply(0).map(|data| data.len()), Ok(size));
        kinds
    }

    /// How many replies the second host keeps.
    fn kept(&self) -> usize {
        self.kernels[1].kept_size
    }
}

fn ack_count(kinds: &[u8]) -> usize {
    kinds.iter().filter(|kind| **kind == ACK).count()
}

/// A client and a server that have found each other, and owe each other nothing.
fn pair() -> (Net, ProcessId, ProcessId, PutPort) {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.exchange(client, server, port, 10);
    net.run(100, |_| true);
    (net, client, server, port)
}

#[test]
fn the_next_request_acknowledges_a_small_reply_and_otherwise_time_does() {
    let (mut net, client, server, port) = pair();
    for _ in 0..5 {
        assert_eq!(net.exchange(client, server, port, 10).len(), 2, "a request and a reply");
        assert!(net.kept() > 0);
    }
    let mut acks = 0;
    net.run(OWED_TIME.as_millis() as u64, |transmit| {
        acks += usize::from(rpc_kind(transmit) == ACK);
        true
    });
    assert_eq!((acks, net.kept()), (1, 0), "one for all");
    net.run(5000, |_| panic!("nobody asks for what was said"));
}

#[test]
fn a_large_reply_and_one_to_an_original_are_acknowledged_at_once() {
    let (mut net, client, server, port) = pair();
    let kinds = net.exchange(client, server, port, 5000);
    assert_eq!((ack_count(&kinds), net.kept()), (1, 0));
    net.kernels[0].reporting.clear(); // as if it had never announced anything
    let kinds = net.exchange(client, server, port, 10);
    assert_eq!((ack_count(&kinds), net.kept()), (1, 0));
}

#[test]
fn a_client_that_goes_elsewhere_or_ends_pays_what_it_owes() {
    let (mut net, client, server, port) = pair();
    net.exchange(client, server, port, 10);
    let here = net.attach(0);
    let now = net.now;
    let other = net.kernels[0].listen(now, here, &GetPort::from_bytes(*b"others"), 100).unwrap();
    net.trans(0, client, other, Vec::new());
    net.kernels[0].detach(now, client);
    net.run(1, |_| true);
    assert_eq!(net.kept(), 0, "it was said before the process was forgotten");
    assert!(net.kernels[0].owed.is_empty());
}

#[test]
fn a_reply_whose_acknowledgement_and_next_request_are_lost_is_asked_for_and_executed_once() {
    let (mut net, client, server, port) = pair();
    net.exchange(client, server, port, 10);
    net.trans(0, client, port, vec![1; 10]);
    net.run(1, |transmit| transmit.to.as_ref().is_none_or(|to| to.as_bytes() != [1]));
    assert!(net.kept() > 0 && net.events[1].is_empty());
    net.run(2000, |_| true);
    assert_eq!(net.kept(), 0, "the server has asked");
    let (request, _) = net.request(1);
    net.answer(1, server, request, Vec::new());
    net.run(1, |_| true);
    assert_eq!(net.reply(0), Ok(Vec::new()));
    assert!(net.events[1].is_empty(), "no request was given twice");
}
