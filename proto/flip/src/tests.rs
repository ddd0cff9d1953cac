//! Two boxes on one wire, without loss; loss, duplication and reordering are the simulator's.

use super::*;

const A: Address = Address([1, 0, 0, 0, 0, 0, 0, 0]);
const B: Address = Address([2, 0, 0, 0, 0, 0, 0, 0]);
const LINK: LinkConfig = LinkConfig { packet_size_max: 1498, weight: 3, trusted: true, repairs: false };

const PLAIN: Manner = Manner { secure: false, reported: false };
const SECURE: Manner = Manner { secure: true, reported: false };

fn at(millis: u64) -> Instant {
    Instant::from_epoch(Duration::from_millis(millis))
}

/// Boxes on one wire; box number is location.
struct Wire {
    boxes: Vec<FlipBox>,
    packets: usize,
}

impl Wire {
    fn new(count: usize) -> Wire {
        let boxes = (0..count).map(|index| FlipBox::new(vec![LINK], index as u32 * 1000, at(0))).collect();
        Wire { boxes, packets: 0 }
    }

    /// Carries packets until the wire is quiet.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            for from in 0..self.boxes.len() {
                while let Some(transmit) = self.boxes[from].poll_transmit(now) {
                    idle = false;
                    self.packets += 1;
                    for to in 0..self.boxes.len() {
                        let wanted =
                            transmit.to.as_ref().is_none_or(|location| location.as_bytes() == [to as u8]);
                        if to != from && wanted {
                            let source = Location::new(&[from as u8]);
                            self.boxes[to].handle_packet(now, LinkId(0), &source, &transmit.packet.to_vec());
                        }
                    }
                }
            }
            if idle {
                return;
            }
        }
    }
}

fn pair() -> Wire {
    let mut wire = Wire::new(2);
    wire.boxes[0].register(A, 1 << 20);
    wire.boxes[1].register(B, 1 << 20);
    wire
}

#[test]
fn a_message_to_an_unknown_address_is_located_and_arrives_whole() {
    let mut wire = pair();
    let payload: Vec<u8> = (0..100_000u32).map(|byte| byte as u8).collect();
    wire.boxes[0].unicast(at(1), A, B, payload.clone(), SECURE, Duration::from_secs(1));
    wire.settle(at(1));
    let event = wire.boxes[1].poll_event();
    let total = payload.len();
    let (head, data) = (Head::new(&payload[..HEAD_SIZE_MAX]), payload[HEAD_SIZE_MAX..].to_vec());
    assert_eq!(event, Some(Event::Message { to: B, from: A, total, head, data, whole: false, safe: true }));
    assert_eq!(wire.boxes[0].routes().best(B, true).map(|route| route.hops), Some(3));
    assert_eq!(wire.packets, 2 + 100_000usize.div_ceil(1458));
}

#[test]
fn nobody_answers_and_the_message_comes_back() {
    let mut wire = pair();
    let unknown = Address([9; 8]);
    wire.boxes[0].unicast(at(1), A, unknown, b"hello".to_vec(), PLAIN, Duration::from_millis(350));
    while let Some(next) = wire.boxes[0].poll_timeout().filter(|next| *next < at(1000)) {
        wire.settle(next);
        wire.boxes[0].handle_timeout(next);
    }
    let (head, reason) = (Head::new(b"hello"), Undelivered::NotHere);
    assert_eq!(
        wire.boxes[0].poll_event(),
        Some(Event::Undelivered { from: A, to: unknown, head, reason, safe: true })
    );
    assert_eq!(wire.boxes[0].counters().locates, 4);
}

#[test]
fn an_address_that_has_left_is_not_here_once_the_box_may_say_so() {
    let mut wire = pair();
    wire.boxes[0].unicast(at(1), A, B, b"one".to_vec(), PLAIN, Duration::from_secs(1));
    wire.settle(at(1));
    wire.boxes[1].poll_event();
    wire.boxes[1].unregister(B);
    wire.boxes[0].unicast(at(2), A, B, b"two".to_vec(), PLAIN, Duration::from_secs(1));
    wire.settle(at(2));
    assert_eq!(wire.boxes[0].poll_event(), None, "a box that has just started is silent");
    wire.boxes[0].unicast(at(600), A, B, b"three".to_vec(), PLAIN, Duration::from_secs(1));
    wire.settle(at(600));
    let (head, reason) = (Head::new(b"three"), Undelivered::NotHere);
    assert_eq!(
        wire.boxes[0].poll_event(),
        Some(Event::Undelivered { from: A, to: B, head, reason, safe: true })
    );
    assert!(!wire.boxes[0].routes().knows(B));
}

#[test]
fn a_message_over_the_bound_shows_its_beginning_only() {
    let mut wire = pair();
    wire.boxes[1].register(B, 2000);
    wire.boxes[0].unicast(at(1), A, B, vec![7; 5000], PLAIN, Duration::from_secs(1));
    wire.settle(at(1));
    let Some(Event::Message { head, data, total, .. }) = wire.boxes[1].poll_event() else {
        panic!("no message")
    };
    assert_eq!((head.len() + data.len(), total), (1458, 5000));
    assert_eq!(wire.boxes[1].poll_event(), None);
}

#[test]
fn a_secure_message_does_not_leave_over_an_untrusted_link() {
    let mut flip = FlipBox::new(vec![LinkConfig { trusted: false, ..LINK }], 0, at(0));
    flip.register(A, 1000);
    let mut other = FlipBox::new(vec![LinkConfig { trusted: false, ..LINK }], 0, at(0));
    other.register(B, 1000);
    other.unicast(at(1), B, A, b"x".to_vec(), PLAIN, Duration::from_secs(1));
    let locate = other.poll_transmit(at(1)).expect("a search begins");
    flip.handle_packet(at(1), LinkId(0), &Location::new(&[1]), &locate.packet.to_vec());
    flip.poll_transmit(at(2));
    flip.unicast(at(2), A, B, b"secret".to_vec(), SECURE, Duration::from_secs(1));
    let event = flip.poll_event();
    assert!(matches!(event, Some(Event::Undelivered { reason: Undelivered::Untrusted, .. })), "{event:?}");
    flip.unicast(at(2), A, B, b"public".to_vec(), PLAIN, Duration::from_secs(1));
    assert!(flip.poll_transmit(at(2)).is_some());
}

#[test]
fn fragments_in_any_order_with_copies_make_the_message() {
    let message: Vec<u8> = (0..10_000u32).map(|byte| (byte * 7) as u8).collect();
    let mut sender = FlipBox::new(vec![LINK], 0, at(0));
    sender.register(A, 0);
    sender.routes.learn(
        at(0),
        B,
        Route { link: LinkId(0), location: Location::new(&[1]), hops: 3, trusted: true, count: 1 },
    );
    sender.unicast(at(0), A, B, message.clone(), PLAIN, Duration::ZERO);
    let mut packets: Vec<_> = std::iter::from_fn(|| sender.poll_transmit(at(0))).collect();
    packets.reverse();
    let copies = packets.clone();
    let mut receiver = FlipBox::new(vec![LINK], 0, at(0));
    receiver.register(B, 1 << 20);
    for packet in packets.iter().chain(&copies) {
        receiver.handle_packet(at(1), LinkId(0), &Location::new(&[0]), &packet.packet.to_vec());
    }
    let messages: Vec<_> = std::iter::from_fn(|| receiver.poll_event()).collect();
    assert_eq!(messages.len(), 2, "FLIP may deliver twice; the layer above tells copies apart");
    for event in messages {
        let Event::Message { head, data, .. } = event else { panic!("{event:?}") };
        assert_eq!([&head[..], &data].concat(), message);
    }
}

#[test]
fn no_packets_panic_and_memory_stays_bounded() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut flip = FlipBox::new(vec![LINK], 0, at(0));
        flip.register(A, 1 << 20);
        flip.register(B, 1 << 20);
        for (step, packet) in bytes.chunks(64).enumerate() {
            let mut packet = packet.to_vec();
            if let Some(version) = packet.first_mut() {
                *version = 1;
            }
            if packet.len() > 16 && packet[2] & 2 == 0 {
                packet[8..16].copy_from_slice(&B.0);
            }
            flip.handle_packet(at(step as u64), LinkId(0), &Location::new(&[3]), &packet);
            flip.handle_timeout(at(step as u64));
        }
        while flip.poll_event().is_some() || flip.poll_transmit(at(9)).is_some() {}
    });
}

#[test]
fn what_waits_for_addresses_is_bounded_in_bytes_over_all_of_them() {
    let mut one = FlipBox::new(vec![LINK], 1, at(0));
    one.register(A, 100);
    let large = vec![0; LOCATE_QUEUE_SIZE_MAX / 4];
    for number in 0..10 {
        one.unicast(at(1), A, Address([100 + number; 8]), large.clone(), PLAIN, Duration::from_secs(1));
        let back = one.poll_event().is_some();
        assert_eq!(back, number >= 4, "message {number}");
    }
    let mut back = 0;
    while let Some(next) = one.poll_timeout().filter(|next| *next < at(5000)) {
        one.handle_timeout(next);
        back += std::iter::from_fn(|| one.poll_event()).count();
    }
    assert_eq!((back, one.searches.size), (4, 0));
    one.unicast(at(5000), A, B, vec![0; 2 * LOCATE_QUEUE_SIZE_MAX], PLAIN, Duration::from_secs(1));
    assert_eq!(one.poll_event(), None, "a single one may be of any size");
}

mod topology;
