//! What kernels say to each other, packet by packet: what an original would understand, and what only ours say.

use amoeba_wire::packet::{FlipHeader, PacketKind, RpcHeader, RpcKind, flip_flag, rpc_flag};

use super::*;

/// The packet without the flag by which we announce that we send and take reports.
pub(super) fn as_the_original_sends_it(transmit: &Transmit) -> Vec<u8> {
    let mut bytes = transmit.packet.to_vec();
    let skip = if bytes[1] == 4 { 4 } else { 0 }; // MULTIDATA begins with its protocol
    if flip_of(transmit).offset == 0
        && let Some(flags) = bytes.get_mut(40 + skip + 15)
    {
        *flags &= !rpc_flag::REPORTS;
    }
    bytes
}

fn flip_of(transmit: &Transmit) -> FlipHeader {
    FlipHeader::parse(&transmit.packet.to_vec()).expect("kernels send FLIP packets").0
}

fn rpc_of(transmit: &Transmit) -> Option<RpcHeader> {
    let bytes = transmit.packet.to_vec();
    let payload = &bytes[40..];
    let payload = payload.strip_prefix(&[0, 0, 0, 1]).unwrap_or(payload);
    RpcHeader::parse(payload).map(|(header, _, _)| header)
}

/// A transaction of which the fragment that is number 20 of each large message is lost once; how many fragments left,
/// how many reports, and how many fragments said that their sender keeps them.
fn with_a_lost_fragment(classic: bool) -> (usize, usize, usize) {
    let mut net = Net::new(2);
    net.classic = classic;
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    let data: Vec<u8> = (0..100_000u32).map(|byte| (byte * 5) as u8).collect();
    net.trans(0, client, port, data.clone());
    let (mut fragments, mut reports, mut kept, mut lost) = (0, 0, 0, [false; 2]);
    let mut carry = |transmit: &Transmit| {
        fragments += usize::from(transmit.bulk);
        kept += usize::from(flip_of(transmit).flags & flip_flag::KEPT != 0);
        reports += usize::from(!transmit.bulk && rpc_kind(transmit) == RpcKind::Report as u8);
        let direction = usize::from(transmit.to == Some(Location::new(&[0])));
        let lose = transmit.bulk && flip_of(transmit).offset == 20 * 1458 && !lost[direction];
        lost[direction] |= lose;
        !lose
    };
    net.run(30_000, &mut carry);
    let (request, message) = net.request(1);
    assert!(message.data == data);
    net.answer(1, server, request, data.clone());
    net.run(30_000, &mut carry);
    assert!(net.reply(0) == Ok(data));
    assert_eq!(lost, [true; 2]);
    (fragments, reports, kept)
}

const FRAGMENTS: usize = (100_000 + HEADERS_SIZE).div_ceil(1458);

#[test]
fn of_a_large_message_only_the_lost_fragment_is_sent_again() {
    let (fragments, reports, kept) = with_a_lost_fragment(false);
    assert_eq!((fragments, kept), (2 * (FRAGMENTS + 1), fragments));
    assert!(reports >= 4 && reports <= fragments / 2, "{reports} reports");
}

#[test]
fn towards_an_original_a_large_message_is_sent_again_whole_and_nothing_new_is_said() {
    let (fragments, reports, kept) = with_a_lost_fragment(true);
    assert_eq!((fragments, reports, kept), (4 * FRAGMENTS, 0, 0));
}

/// What a kernel announces: in LOCATE, HEREIS and REQUEST, and nowhere else.
#[test]
fn reports_are_announced_by_a_flag() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, b"x".to_vec());
    let mut flags = Vec::new();
    let mut carry = |transmit: &Transmit| {
        flags.extend(rpc_of(transmit).map(|header| (header.kind, header.flags)));
        true
    };
    net.run(100, &mut carry);
    let (request, _) = net.request(1);
    net.answer(1, server, request, Vec::new());
    net.run(100, &mut carry);
    let expected = [
        (RpcKind::Locate, rpc_flag::REPORTS),
        (RpcKind::Hereis, rpc_flag::REPORTS),
        (RpcKind::Request, rpc_flag::REPORTS),
        (RpcKind::Reply, 0),
        (RpcKind::Ack, rpc_flag::REPLY),
    ];
    assert_eq!(flags, expected);
}

/// An original server may send a client on; the client acknowledges that and asks there, under a new identifier.
#[test]
fn a_request_that_a_server_sends_on_is_asked_elsewhere() {
    let mut net = Net::new(3);
    let (_, port) = net.serve(1);
    let (second, client) = (net.attach(2), net.attach(0));
    net.trans(0, client, port, b"for whoever".to_vec());
    let mut asked = None;
    net.run(100, |transmit| {
        let request = rpc_of(transmit).filter(|header| header.kind == RpcKind::Request);
        asked = asked.or(request.map(|request| (request, flip_of(transmit))));
        request.is_none() // the original would take it and send a FORWARD
    });
    let (request, sent) = asked.expect("the request was sent");
    let now = net.now;
    net.kernels[2].listen(now, second, &GetPort::from_bytes(GET), 1 << 20).unwrap();
    net.kernels[2].getreq(second, port, GetreqId(1)).unwrap();
    let next = net.kernels[2].address(second).unwrap();
    let forward = RpcHeader { kind: RpcKind::Forward, flags: 0, dest: request.from, from: 0, ..request };
    let payload = [&forward.to_bytes()[..], &next.0].concat();
    let length = payload.len() as u32;
    let (from, to) = (sent.to, sent.from);
    let flip = FlipHeader { flags: 0, to, from, message_id: 9999, length, total: length, ..sent };
    let packet = [&flip.to_bytes()[..], &payload].concat();
    net.kernels[0].handle_packet(now, LinkId(0), &Location::new(&[1]), &packet);
    let mut said = Vec::new();
    net.run(1000, |transmit| {
        said.extend(rpc_of(transmit).map(|header| (header.kind, header.tid)));
        true
    });
    assert_eq!(said[0], (RpcKind::Ack, request.tid));
    assert!(said.contains(&(RpcKind::Request, request.tid.wrapping_add(1))), "{said:?}");
    assert_eq!(net.request(2).1.data, b"for whoever");
    assert!(net.events[1].is_empty());
}

/// A secure request does not cross an untrusted network, and its client hears why.
#[test]
fn a_server_that_only_untrusted_networks_lead_to_is_unsafe() {
    let mut net = Net::new(2);
    for kernel in &mut net.kernels {
        kernel.set_trusted(LinkId(0), false);
    }
    let (_, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, b"secret".to_vec());
    net.run(1000, |transmit| {
        assert_ne!(rpc_kind(transmit), RpcKind::Request as u8);
        true
    });
    assert_eq!(net.reply(0), Err(Error::NotSent(Status::RPC_UNSAFE)));
}

/// A server that refuses a request while it still leaves gets no more of it, nor does its link.
#[test]
fn no_more_of_a_refused_request_leaves() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, vec![1; 1 << 20]);
    let before = net.crawl(500);
    assert!(before > 50, "it leaves slowly: {before}");
    let now = net.now;
    net.kernels[1].detach(now, server);
    net.run(2000, |transmit| !transmit.bulk); // a question is asked, and answered: not here
    assert_eq!(net.reply(0), LOST);
    assert_eq!(net.crawl(3000), 0, "nothing of it leaves any more");
    assert!(net.kernels[0].poll_timeout().is_none_or(|next| next > now + Duration::from_secs(5)));
}

/// A copy of a request comes back from a host on the way that has lost the way; whether another copy arrived, only its
/// server knows. Taken for a refusal, this would run a request twice.
#[test]
fn a_lost_way_is_no_proof_that_a_request_was_not_executed() {
    for arrives in [true, false] {
        let mut net = Net::new(2);
        let (server, port) = net.serve(1);
        let client = net.attach(0);
        net.trans(0, client, port, b"once".to_vec());
        let mut copy = None;
        net.run(1, |transmit| {
            let request = rpc_of(transmit).is_some_and(|header| header.kind == RpcKind::Request);
            if request {
                copy = Some((flip_of(transmit), transmit.packet.to_vec()[40..].to_vec()));
            }
            arrives || !request
        });
        let (sent, payload) = copy.expect("the request was sent");
        let flags = sent.flags | flip_flag::NO_ROUTE;
        let back = FlipHeader { kind: PacketKind::Nothere, flags, hops: 0, ..sent };
        let packet = [&back.to_bytes()[..], &payload].concat();
        let now = net.now;
        net.kernels[0].handle_packet(now, LinkId(0), &Location::new(&[1]), &packet);
        let mut said = Vec::new();
        net.run(100, |transmit| {
            said.extend(rpc_of(transmit).map(|header| header.kind));
            true
        });
        let requests = said.iter().filter(|kind| **kind == RpcKind::Request).count();
        assert!(said.contains(&RpcKind::Received), "{said:?}");
        assert_eq!(requests, usize::from(!arrives), "{said:?}");
        let (request, message) = net.request(1);
        assert_eq!(message.data, b"once");
        net.answer(1, server, request, b"done".to_vec());
        net.run(100, |_| true);
        assert_eq!(net.reply(0), Ok(b"done".to_vec()));
        assert!(net.events[1].is_empty());
    }
}

/// What anybody may have put on an untrusted network is not believed about a transaction that keeps off it.
#[test]
fn nobody_on_an_untrusted_network_answers_for_a_server_or_signs_for_a_client() {
    let mut net = Net::new(2);
    let untrusted = LinkConfig { packet_size_max: 1498, weight: 3, trusted: false, repairs: false };
    for kernel in &mut net.kernels {
        kernel.add_link(at(1000), untrusted);
    }
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, b"once".to_vec());
    let mut sent = None;
    net.run(10, |transmit| {
        let request = rpc_of(transmit).filter(|header| header.kind == RpcKind::Request);
        sent = sent.or(request.map(|request| (request, flip_of(transmit))));
        transmit.link == LinkId(0) // the other network has nobody but the liar
    });
    let (rpc, flip) = sent.expect("the request was sent");
    let (request, _) = net.request(1);
    let forge = |kind, flip: FlipHeader| {
        let header = RpcHeader { kind, flags: rpc_flag::REQUEST, dest: rpc.from, from: 0, ..rpc };
        let header = if kind == RpcKind::Request {
            RpcHeader { kind, flags: 0, tid: rpc.tid + 1, ..rpc }
        } else {
            header
        };
        let mut inner = Header::request(&Capability { port, ..Capability::NULL }, Command(1));
        inner.signature = PutPort::from_bytes(*b"forged");
        let mut payload = [&header.to_bytes()[..], &inner.to_bytes(true)].concat();
        payload.truncate(if matches!(kind, RpcKind::Request | RpcKind::Reply) { 56 } else { 24 });
        let length = payload.len() as u32;
        let flip = FlipHeader { message_id: 9999, length, total: length, ..flip };
        [&flip.to_bytes()[..], &payload].concat()
    };
    let answer = FlipHeader { to: flip.from, from: flip.to, ..flip };
    let now = net.now;
    for kind in [RpcKind::Nak, RpcKind::Fail, RpcKind::Reply] {
        let packet = forge(kind, answer);
        net.kernels[0].handle_packet(now, LinkId(1), &Location::new(&[9]), &packet);
    }
    let returned = FlipHeader { kind: PacketKind::Nothere, hops: 0, ..flip };
    net.kernels[0].handle_packet(now, LinkId(1), &Location::new(&[9]), &forge(RpcKind::Request, returned));
    net.run(10, |transmit| {
        assert_ne!(rpc_kind(transmit), RpcKind::Request as u8, "nobody refused it");
        true
    });
    assert!(net.events[0].is_empty(), "{:?}", net.events[0]);
    net.answer(1, server, request, b"true".to_vec());
    net.run(100, |transmit| transmit.link == LinkId(0));
    assert_eq!(net.reply(0), Ok(b"true".to_vec()));
    // A request is served, but nobody has signed it.
    net.kernels[1].getreq(server, port, GetreqId(5)).unwrap();
    let now = net.now;
    net.kernels[1].handle_packet(now, LinkId(1), &Location::new(&[9]), &forge(RpcKind::Request, flip));
    net.run(10, |_| false);
    let Some(Event::Request { caller, .. }) = net.events[1].pop_front() else { panic!("no request") };
    assert_eq!(caller.signature, None);
}
