use amoeba_cap::PutPort;
use amoeba_wire::packet::{
    Address, ETHERNET_PAYLOAD_MAX, FlipHeader, PacketKind, RpcHeader, RpcKind, flip_flag,
};
use proptest::prelude::*;

use super::*;

const ANVIL: Mac = Mac([2, 0, 0, 0, 0, 1]);
const BOLT: Mac = Mac([2, 0, 0, 0, 0, 2]);
const GROUP: Address = Address([0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0]);
const SERVER: Address = Address([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0]);
const CLIENT: Address = Address([0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0]);

/// The bytes of a file under `tests/vectors/ethernet`.
macro_rules! vector {
    ($name:literal) => {
        bytes_of(include_str!(concat!("../../../tests/vectors/ethernet/", $name)))
    };
}

fn bytes_of(text: &str) -> Vec<u8> {
    let words = text.lines().flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace());
    words.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn at(milliseconds: u64) -> Instant {
    Instant::from_epoch(Duration::from_millis(milliseconds))
}

fn machine(mac: Mac, window: u8) -> Ethernet {
    Ethernet::new(Config { mac, window, patience: CREDIT_TIMER })
}

/// A fragment of a message of `total` bytes to `to`.
fn fragment(to: Address, offset: u32, length: u32, total: u32) -> Packet {
    let header = FlipHeader {
        kind: PacketKind::Unidata,
        flags: 0,
        hops: 3,
        hops_max: 3,
        to,
        from: CLIENT,
        message_id: 1,
        length,
        offset,
        total,
    };
    let mut payload = vec![0; length as usize];
    if let Some(kind) = payload.get_mut(14).filter(|_| offset == 0) {
        *kind = RpcKind::Request as u8;
    }
    Packet::copied(&header, &payload)
}

fn large(to: Address, number: u32) -> Packet {
    fragment(to, number * 1000, 1000, 1_000_000)
}

fn small(to: Address) -> Packet {
    fragment(to, 0, 56, 56)
}

fn frames(machine: &mut Ethernet, now: Instant) -> Vec<Vec<u8>> {
    let frames = std::iter::from_fn(|| machine.poll_transmit(now)).map(|frame| frame.to_vec()).collect();
    machine.check();
    frames
}

/// Hands all frames of one machine to another; how many packets that made.
fn carry(now: Instant, from: &mut Ethernet, to: &mut Ethernet) -> usize {
    let arrived = frames(from, now).iter().filter(|frame| to.handle_frame(now, frame).is_some()).count();
    to.check();
    arrived
}

#[test]
fn control_frames_are_the_original_s() {
    let frame = |content| Frame { to: BOLT, from: ANVIL, content }.head().bytes().to_vec();
    let group = Mac([0x55, 0x55, 0xa2, 0xa3, 0xa4, 0xa5]);
    for (content, bytes) in [
        (Content::Reqcredit, vector!("reqcredit.hex")),
        (Content::Credit(6), vector!("credit.hex")),
        (Content::Abscredit(8), vector!("abscredit.hex")),
        (Content::Mcreq { group, address: GROUP }, vector!("mcreq.hex")),
        (Content::Mcack(GROUP), vector!("mcack.hex")),
        (Content::Mcnak(GROUP), vector!("mcnak.hex")),
    ] {
        assert_eq!(frame(content), bytes);
        assert_eq!(Frame::parse(&bytes), Ok(Frame { to: BOLT, from: ANVIL, content }));
        let padded = [&bytes[..], &[0; 44]].concat();
        assert_eq!(Frame::parse(&padded), Ok(Frame { to: BOLT, from: ANVIL, content }));
        assert_eq!(Frame::parse(&bytes[..bytes.len() - 1]), Err(frame::FrameError::Short));
    }
}

#[test]
fn a_null_request_has_112_bytes_and_the_original_s_layout() {
    let rpc = RpcHeader {
        kid: *b"12345678",
        port: PutPort::from_bytes(*b"ABCDEF"),
        kind: RpcKind::Request,
        flags: 0,
        tid: 7,
        dest: 10,
        from: 2,
    };
    let header = amoeba_wire::Header { port: rpc.port, command: 2000, ..amoeba_wire::Header::NULL };
    let payload = [&rpc.to_bytes()[..], &header.to_bytes(true)].concat();
    let flip = FlipHeader {
        kind: PacketKind::Unidata,
        flags: flip_flag::SECURITY,
        hops: 3,
        hops_max: 3,
        to: SERVER,
        from: CLIENT,
        message_id: 10,
        length: 56,
        offset: 0,
        total: 56,
    };
    let mut anvil = machine(ANVIL, 8);
    anvil.send(at(0), To::Station(BOLT), Packet::copied(&flip, &payload));
    let golden = vector!("request.hex");
    assert_eq!(frames(&mut anvil, at(0)), [vector!("request.hex")]);
    assert_eq!(golden.len(), 112);
    let mut bolt = machine(BOLT, 8);
    let (from, packet) = bolt.handle_frame(at(0), &golden).unwrap();
    assert_eq!((from, FlipHeader::parse(packet).unwrap().0), (ANVIL, flip));
}

#[test]
fn locate_goes_to_everybody_and_hereis_back() {
    let header = |kind, hops, length| FlipHeader {
        kind,
        flags: 0,
        hops,
        hops_max: 3,
        to: SERVER,
        from: CLIENT,
        message_id: 9,
        length,
        offset: 0,
        total: length,
    };
    let (mut anvil, mut bolt) = (machine(ANVIL, 8), machine(BOLT, 8));
    anvil.send(at(0), To::Everybody, Packet::copied(&header(PacketKind::Locate, 3, 0), &[]));
    let locate = frames(&mut anvil, at(0));
    assert_eq!(locate, [vector!("locate.hex")]);
    assert!(bolt.handle_frame(at(0), &locate[0]).is_some());
    let hereis = Packet::copied(&header(PacketKind::Hereis, 0, 4), &[0, 1, 0, 1]);
    bolt.send(at(0), To::Station(ANVIL), hereis);
    assert_eq!(frames(&mut bolt, at(0)), [vector!("hereis.hex")]);
}

#[test]
fn a_little_endian_sender_is_understood_and_padding_is_cut_off() {
    let golden = vector!("data-little.hex");
    let frame = Frame::parse(&golden).unwrap();
    let Content::Data { credits: 2, packet } = frame.content else { panic!("{frame:?}") };
    let (header, payload, big_endian) = FlipHeader::parse(packet).unwrap();
    assert_eq!((header.offset, header.total, payload, big_endian), (1458, 1460, &b"ab"[..], false));
    assert_eq!((packet.len(), golden.len()), (42, 60));
    let mut bolt = machine(BOLT, 8);
    let (_, same) = bolt.handle_frame(at(0), &golden).unwrap();
    assert_eq!(same, packet);
    // It costs a credit: its message does not fit into one frame.
    assert_eq!(bolt.locations[&ANVIL].poll_timeout(), None);
    assert_eq!(bolt.location(at(0), ANVIL).unwrap().take_owed(), 1);
}

#[test]
fn eight_large_packets_leave_and_six_credits_come_back_at_once() {
    let (mut anvil, mut bolt) = (machine(ANVIL, 8), machine(BOLT, 8));
    for number in 0..20 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    assert_eq!(carry(at(0), &mut anvil, &mut bolt), 8);
    assert_eq!(frames(&mut bolt, at(0)), [vector!("credit-back.hex")]);
    assert_eq!(carry(at(0), &mut anvil, &mut bolt), 0);
    // The two that were not given back go with the next packet.
    assert!(anvil.handle_frame(at(1), &vector!("credit-back.hex")).is_none());
    bolt.send(at(1), To::Station(ANVIL), small(CLIENT));
    let back = frames(&mut bolt, at(1));
    assert_eq!(back[0][14..16], [0, 2]);
    assert!(anvil.handle_frame(at(1), &back[0]).is_some());
    assert_eq!(carry(at(1), &mut anvil, &mut bolt), 8);
}

#[test]
fn a_receiver_with_more_room_grants_more() {
    let (mut anvil, mut bolt) = (machine(ANVIL, 8), machine(BOLT, 64));
    for number in 0..200 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    assert_eq!(carry(at(0), &mut anvil, &mut bolt), 8);
    carry(at(0), &mut bolt, &mut anvil);
    assert_eq!(carry(at(0), &mut anvil, &mut bolt), 64 - 7);
    let (mut rounds, mut arrived) = (0, 8 + 57);
    while arrived < 200 {
        carry(at(0), &mut bolt, &mut anvil);
        arrived += carry(at(0), &mut anvil, &mut bolt);
        rounds += 1;
    }
    assert!(rounds <= 4, "{rounds}");
}

#[test]
fn small_messages_and_broadcasts_cost_nothing() {
    let mut anvil = machine(ANVIL, 8);
    for _ in 0..100 {
        anvil.send(at(0), To::Station(BOLT), fragment(SERVER, 0, 1458, 1458));
        anvil.send(at(0), To::Everybody, small(Address::NULL));
    }
    assert_eq!(frames(&mut anvil, at(0)).len(), 200);
    assert_eq!(anvil.poll_timeout(), Some(at(25_000)), "nobody starves");
}

#[test]
fn a_starved_sender_asks_and_gives_up_after_five_questions() {
    let mut anvil = machine(ANVIL, 8);
    for number in 0..10 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    assert_eq!(frames(&mut anvil, at(0)).len(), 8);
    for question in 1..=5 {
        let due = at(question * 2000);
        assert_eq!(anvil.poll_timeout(), Some(due));
        anvil.handle_timeout(due);
        assert_eq!(frames(&mut anvil, due), [vector!("reqcredit.hex")]);
    }
    anvil.handle_timeout(at(12_000));
    assert_eq!(anvil.poll_event(), Some(Event::Lost(BOLT)));
    assert_eq!((anvil.counters().dropped, anvil.stations().count()), (2, 0));
    assert_eq!(frames(&mut anvil, at(12_000)).len(), 0);
}

#[test]
fn lost_credits_come_back_by_a_question() {
    let (mut anvil, mut bolt) = (machine(ANVIL, 8), machine(BOLT, 8));
    for number in 0..16 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    assert_eq!(frames(&mut anvil, at(0)).len(), 8, "and all of them are lost");
    anvil.handle_timeout(at(2000));
    carry(at(2000), &mut anvil, &mut bolt);
    let answer = frames(&mut bolt, at(2000));
    assert_eq!(answer, [swapped(vector!("abscredit.hex"))]);
    anvil.handle_frame(at(2000), &answer[0]);
    assert_eq!(carry(at(2000), &mut anvil, &mut bolt), 8);
    assert_eq!(anvil.counters().dropped, 0);
}

#[test]
fn an_impatient_sender_asks_sooner_and_still_waits_long_before_it_gives_up() {
    let mut anvil = Ethernet::new(Config { mac: ANVIL, window: 64, patience: Duration::from_millis(20) });
    for number in 0..10 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    frames(&mut anvil, at(0));
    assert_eq!(anvil.poll_timeout(), Some(at(20)));
    let mut lost = None;
    while lost.is_none() {
        let due = anvil.poll_timeout().unwrap();
        anvil.handle_timeout(due);
        frames(&mut anvil, due);
        lost = anvil.poll_event().map(|_| due);
    }
    assert!(lost.unwrap() >= at(10_000), "{lost:?}");
}

fn swapped(mut frame: Vec<u8>) -> Vec<u8> {
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    frame
}

#[test]
fn stations_and_addresses_take_turns_and_protocol_messages_go_first() {
    let mut anvil = machine(ANVIL, 8);
    let chisel = Mac([2, 0, 0, 0, 0, 3]);
    for number in 0..3 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
        anvil.send(at(0), To::Station(BOLT), large(CLIENT, number));
        anvil.send(at(0), To::Station(chisel), large(GROUP, number));
    }
    let ack = FlipHeader { length: 24, total: 24, ..FlipHeader::parse(&small(SERVER).to_vec()).unwrap().0 };
    let mut body = [0; 24];
    body[14] = RpcKind::Ack as u8;
    anvil.send(at(0), To::Station(BOLT), small(SERVER));
    anvil.send(at(0), To::Station(BOLT), Packet::copied(&ack, &body));
    let order: Vec<(u8, u8, usize)> =
        frames(&mut anvil, at(0)).iter().map(|frame| (frame[5], frame[24], frame.len())).collect();
    let (server, client, group) = (0x11, 0x21, 0xa0);
    assert_eq!(
        order,
        [
            (2, server, 80), // the ACK
            (3, group, 1056),
            (2, server, 112), // the small request before the large ones for its address
            (3, group, 1056),
            (2, client, 1056),
            (3, group, 1056),
            (2, server, 1056),
            (2, client, 1056),
            (2, server, 1056),
            (2, client, 1056),
            (2, server, 1056),
        ]
    );
}

#[test]
fn a_starved_station_lets_small_packets_pass_and_others_too() {
    let mut anvil = machine(ANVIL, 8);
    for number in 0..12 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    assert_eq!(frames(&mut anvil, at(0)).len(), 8);
    anvil.send(at(0), To::Station(BOLT), small(SERVER));
    anvil.send(at(0), To::Station(Mac([2, 0, 0, 0, 0, 3])), large(SERVER, 0));
    assert_eq!(frames(&mut anvil, at(0)).len(), 2);
    assert!(anvil.is_ready(BOLT));
    for number in 0..QUEUE_READY as u32 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    assert!(!anvil.is_ready(BOLT) && anvil.is_ready(Mac([2, 0, 0, 0, 0, 3])));
}

#[test]
fn what_waits_and_who_is_remembered_is_bounded() {
    let mut anvil = machine(ANVIL, 8);
    for number in 0..QUEUE_MAX as u32 + 100 {
        anvil.send(at(0), To::Station(BOLT), large(SERVER, number));
    }
    anvil.check();
    assert_eq!(anvil.counters().dropped, 100);
    for number in 0..2 * LOCATIONS_MAX as u32 {
        let [a, b, c, d] = number.to_be_bytes();
        let mut frame = vector!("data-little.hex");
        frame[6..12].copy_from_slice(&[2, 1, a, b, c, d]);
        assert!(anvil.handle_frame(at(1), &swapped_to(frame)).is_some());
    }
    anvil.check();
    assert_eq!(anvil.stations().count(), LOCATIONS_MAX);
    assert!(anvil.stations().any(|station| station == (BOLT, QUEUE_MAX)), "who has packets waiting stays");
    frames(&mut anvil, at(1));
    for _ in 0..2 * OTHERS_MAX {
        anvil.send(at(1), To::Everybody, small(Address::NULL));
    }
    assert_eq!(frames(&mut anvil, at(1)).len(), OTHERS_MAX);
    anvil.handle_timeout(at(301_000 + 25_000));
    assert!(anvil.stations().count() <= 1, "idle stations are forgotten");
    anvil.check();
}

/// The same frame, for [`ANVIL`].
fn swapped_to(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&ANVIL.0);
    frame
}

#[test]
fn a_station_listens_to_a_group_when_it_is_asked_and_until_nothing_comes() {
    let mut bolt = machine(BOLT, 8);
    let group = Mac::of_group(GROUP);
    let to_group = |listener: &mut Ethernet, now| {
        let mut sender = machine(ANVIL, 8);
        sender.send(now, To::Everybody, small(GROUP));
        let mut frame = frames(&mut sender, now).remove(0);
        frame[..6].copy_from_slice(&group.0);
        listener.handle_frame(now, &frame).is_some()
    };
    assert!(!to_group(&mut bolt, at(0)), "who does not listen hears nothing");
    assert!(bolt.handle_frame(at(0), &vector!("mcreq.hex")).is_none());
    assert_eq!(bolt.poll_event(), Some(Event::Listen(group)));
    assert_eq!(frames(&mut bolt, at(0)), [swapped(vector!("mcack.hex"))]);
    assert!(to_group(&mut bolt, at(500)));
    bolt.handle_timeout(at(300_499));
    assert_eq!(bolt.poll_event(), None);
    bolt.handle_timeout(at(300_500));
    assert_eq!(bolt.poll_event(), Some(Event::Ignore(group)));
    assert!(!to_group(&mut bolt, at(300_501)));
}

#[test]
fn no_station_listens_to_any_group_it_is_told() {
    let mut strange = vector!("mcreq.hex");
    strange[16] = 0x57;
    let mut bolt = machine(BOLT, 8);
    bolt.handle_frame(at(0), &strange);
    assert_eq!(frames(&mut bolt, at(0)), [swapped(vector!("mcnak.hex"))]);
    assert_eq!(bolt.poll_event(), None);
    for number in 0..=u16::MAX {
        let [high, low] = number.to_be_bytes();
        let address = Address([0, 0, high, low, 1, 1, 1, 0]);
        let request = Content::Mcreq { group: Mac::of_group(address), address };
        bolt.handle_frame(at(0), Frame { to: BOLT, from: ANVIL, content: request }.head().bytes());
        frames(&mut bolt, at(0));
    }
    assert_eq!(std::iter::from_fn(|| bolt.poll_event()).count(), GROUPS_MAX);
}

#[test]
fn frames_that_are_not_for_us_or_lie_about_their_sender_are_dropped() {
    let mut bolt = machine(BOLT, 8);
    let golden = vector!("request.hex");
    assert!(bolt.handle_frame(at(0), &golden).is_some());
    let changed = |place: usize, byte: u8| {
        let mut frame = golden.clone();
        frame[place] = byte;
        frame
    };
    for (what, frame) in [
        ("another ethertype", changed(12, 0x80)),
        ("somebody else's", changed(5, 9)),
        ("a group that sends", changed(6, 3)),
        ("from ourselves", changed(11, 2)),
        ("the user-level protocols", changed(14, 7)),
        ("longer than it is", changed(FRAME_HEAD_SIZE + 31, 0x39)),
        ("cut off", golden[..111].to_vec()),
    ] {
        assert!(bolt.handle_frame(at(0), &frame).is_none(), "{what}");
    }
    assert_eq!((bolt.counters().foreign, bolt.counters().frames_in), (7, 1));
    // Credits are not taken from a broadcast.
    let mut all = vector!("credit.hex");
    all[..6].copy_from_slice(&[0xff; 6]);
    assert!(bolt.handle_frame(at(0), &all).is_none());
    assert_eq!(bolt.counters().foreign, 8);
}

/// What a hostile network may do to two machines.
#[derive(Clone, Debug)]
enum Step {
    Send(bool, u8, u16),
    Carry(bool),
    Drop(bool),
    Double(bool),
    Time(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), 0u8..4, any::<u16>()).prop_map(|(side, to, total)| Step::Send(side, to, total)),
        3 => any::<bool>().prop_map(Step::Carry),
        1 => any::<bool>().prop_map(Step::Drop),
        1 => any::<bool>().prop_map(Step::Double),
        1 => (0u16..3000).prop_map(Step::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever was lost or doubled: once the network is whole again, everything that was sent from then on arrives.
    #[test]
    fn no_loss_stops_a_sender_for_ever(steps in prop::collection::vec(step(), 0..120), window in 1u8..80) {
        let patience = Duration::from_millis(20);
        let new = |mac| Ethernet::new(Config { mac, window, patience });
        let mut sides = [new(ANVIL), new(BOLT)];
        let macs = [ANVIL, BOLT];
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Send(side, to, total) => {
                    let address = Address([to, 1, 1, 1, 1, 1, 1, 0]);
                    let length = u32::from(total).min(ETHERNET_PAYLOAD_MAX as u32);
                    let packet = fragment(address, 0, length, total.into());
                    sides[usize::from(side)].send(now, To::Station(macs[usize::from(!side)]), packet);
                }
                Step::Carry(side) | Step::Drop(side) | Step::Double(side) => {
                    let from = usize::from(side);
                    let copies = match step { Step::Drop(_) => 0, Step::Double(_) => 2, _ => 1 };
                    for frame in frames(&mut sides[from], now) {
                        for _ in 0..copies {
                            sides[1 - from].handle_frame(now, &frame);
                        }
                    }
                }
                Step::Time(milliseconds) => {
                    now = now + Duration::from_millis(milliseconds.into());
                    sides.iter_mut().for_each(|side| side.handle_timeout(now));
                }
            }
            sides.iter().for_each(Ethernet::check);
        }
        let [anvil, bolt] = &mut sides;
        let waiting: usize = anvil.stations().map(|(_, count)| count).sum();
        for number in 0..50 {
            anvil.send(now, To::Station(BOLT), large(SERVER, number));
        }
        let mut arrived = 0;
        for _ in 0..2000 {
            arrived += carry(now, anvil, bolt);
            carry(now, bolt, anvil);
            if arrived >= waiting + 50 {
                break;
            }
            now = now + Duration::from_millis(10);
            anvil.handle_timeout(now);
            bolt.handle_timeout(now);
        }
        prop_assert!(arrived >= waiting + 50, "{} of {}", arrived, waiting + 50);
    }
}

#[test]
fn no_frames_make_the_machine_panic_or_grow() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut bolt = machine(BOLT, 16);
        bolt.send(at(0), To::Station(ANVIL), large(SERVER, 0));
        let mut now = at(0);
        for chunk in bytes.chunks(24) {
            let kind = chunk[0] % 10;
            let to = if chunk[0] & 0x80 != 0 { BOLT } else { Mac::BROADCAST };
            let head = [&to.0[..], &[2, 0, 0, 0, 0, chunk[0] >> 5], &[0x81, 0x46, kind]].concat();
            bolt.handle_frame(now, &[&head[..], chunk].concat());
            bolt.handle_frame(now, chunk);
            now = now + Duration::from_millis(chunk[0].into());
            bolt.handle_timeout(now);
            frames(&mut bolt, now);
            while bolt.poll_event().is_some() {}
        }
    });
}
