//! The packets of `tests/vectors/rpc`: what we take them for, and that we would send the same.

use amoeba_cap::Private;
use amoeba_wire::packet::{FLIP_HEADER_SIZE, FlipHeader, PacketKind, RpcReport, flip_flag};

use super::*;

/// The bytes of a packet as a big-endian and as a little-endian sender writes it.
macro_rules! vectors {
    ($name:literal) => {
        [
            (true, bytes_of(include_str!(concat!("../../../../tests/vectors/rpc/", $name, "-big.hex")))),
            (false, bytes_of(include_str!(concat!("../../../../tests/vectors/rpc/", $name, "-little.hex")))),
        ]
    };
}

fn bytes_of(text: &str) -> Vec<u8> {
    let code = text.lines().flat_map(|line| line.split('#').next().unwrap_or("").split_ascii_whitespace());
    code.map(|byte| u8::from_str_radix(byte, 16).expect("vectors are hexadecimal")).collect()
}

const CLIENT: Address = Address([0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0]);
const SERVER: Address = Address([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0]);
const KID: [u8; 8] = [0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38];
const PORT: [u8; 6] = [0x41, 0x42, 0x43, 0x44, 0x45, 0x46];
const TIME: u32 = 0x01020304;
const TID: u32 = 0x0a0b0c0d;

fn blank(kind: RpcKind, tid: u32) -> RpcHeader {
    RpcHeader { kid: [0; 8], port: PutPort::NULL, kind, flags: 0, tid, dest: 0, from: 0 }
}

fn flip(message_id: u32, to: Address, from: Address, length: u32) -> FlipHeader {
    FlipHeader {
        kind: PacketKind::Unidata,
        flags: 0,
        hops: 3,
        hops_max: 3,
        to,
        from,
        message_id,
        length,
        offset: 0,
        total: length,
    }
}

/// Both vectors are this packet, and the big-endian one is what we would send.
fn same(vectors: [(bool, Vec<u8>); 2], flip: FlipHeader, payload: &Payload) {
    for (big, bytes) in vectors {
        let (header, body, big_endian) = FlipHeader::parse(&bytes).expect("a vector is a FLIP packet");
        assert_eq!((header, big_endian), (flip, big));
        let split = body.len().min(amoeba_flip::HEAD_SIZE_MAX);
        if big {
            assert_eq!(bytes, [&flip.to_bytes()[..], &payload.to_vec()].concat());
        } else if flip.kind == PacketKind::Unidata {
            let ours = payload.to_vec();
            let parse = |bytes: &[u8]| Packet::parse(&Head::new(&bytes[..split]), bytes[split..].to_vec());
            assert_eq!(parse(body), parse(&ours), "either order means the same");
            assert!(parse(body).is_some());
        }
    }
}

#[test]
fn who_listens_and_who_answers() {
    let header = RpcHeader { port: PutPort::from_bytes(PORT), from: 5, ..blank(RpcKind::Locate, TIME) };
    let payload = [&LOCATE_HEADER[..], &header.to_bytes()].concat();
    let broadcast = FlipHeader { kind: PacketKind::Multidata, ..flip(9, Address::NULL, CLIENT, 28) };
    same(vectors!("locate"), broadcast, &payload.clone().into());
    for (_, bytes) in vectors!("locate") {
        let packet = bytes[FLIP_HEADER_SIZE..].strip_prefix(&LOCATE_HEADER).expect("it is for RPC");
        assert_eq!(RpcHeader::parse(packet).map(|parsed| parsed.0), Some(header));
    }
    let ours = locate(PutPort::from_bytes(PORT), TIME);
    let announced = RpcHeader { flags: rpc_flag::REPORTS, from: 0, ..header };
    assert_eq!(ours, [&LOCATE_HEADER[..], &announced.to_bytes()].concat());
    let hereis = RpcHeader { kind: RpcKind::Hereis, dest: 5, from: 10, ..header };
    same(vectors!("hereis"), flip(7, CLIENT, SERVER, 24), &emit(&hereis, None));
}

#[test]
fn a_request_and_its_reply() {
    let port = PutPort::from_bytes(PORT);
    let header = RpcHeader { kid: KID, port, dest: 12, from: 5, ..blank(RpcKind::Request, TID) };
    let private = Private::from_bytes(std::array::from_fn(|index| 0x51 + index as u8));
    let inner =
        Header { port, private, command: 1004, offset: -2, size: 0x0102, extra: 0x0304, ..Header::NULL };
    let secure = |flip| FlipHeader { flags: flip_flag::SECURITY, ..flip };
    let payload = emit(&header, Some((&inner, &Arc::new(b"ab".to_vec()))));
    same(vectors!("request"), secure(flip(10, SERVER, CLIENT, 58)), &payload);
    let inner = Header { command: -1000i16 as u16, offset: 0x10203040, extra: 7, ..Header::NULL };
    let header = RpcHeader { dest: 5, ..blank(RpcKind::Reply, TID) };
    same(
        vectors!("reply"),
        secure(flip(8, CLIENT, SERVER, 56)),
        &emit(&header, Some((&inner, &Arc::default()))),
    );
}

#[test]
fn what_is_said_about_them() {
    let about = |kind, flags| RpcHeader { kid: KID, flags, from: 5, ..blank(kind, TID) };
    same(vectors!("ack"), flip(11, SERVER, CLIENT, 24), &emit(&about(RpcKind::Ack, rpc_flag::REPLY), None));
    let received = about(RpcKind::Received, rpc_flag::REQUEST);
    same(vectors!("received"), flip(12, SERVER, CLIENT, 24), &emit(&received, None));
    let next = Address([0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0]);
    let forward = RpcHeader { dest: 5, ..blank(RpcKind::Forward, TID) };
    let payload = [&forward.to_bytes()[..], &next.0].concat();
    same(vectors!("forward"), flip(13, CLIENT, SERVER, 32), &payload.clone().into());
    let parsed = Packet::parse(&Head::new(&payload), Vec::new()).expect("it is a packet");
    assert_eq!((parsed.header, parsed.next), (forward, Some(next)));
    assert_eq!(Packet::parse(&Head::new(&payload[..30]), Vec::new()), None);
}

#[test]
fn what_of_a_large_message_has_arrived() {
    let report = RpcReport {
        message_id: 10,
        total: 5000,
        front: 1458,
        arrived: 3542,
        lost: 1458,
        missing: vec![(1458, 2916)],
    };
    let payload = [&blank(RpcKind::Report, 0).to_bytes()[..], &report.to_bytes()].concat();
    same(vectors!("report"), flip(14, CLIENT, SERVER, 52), &payload.into());
    for (big, bytes) in vectors!("report") {
        let body = &bytes[FLIP_HEADER_SIZE + RPC_HEADER_SIZE..];
        assert_eq!(RpcReport::parse(body, big).as_ref(), Some(&report));
    }
}
