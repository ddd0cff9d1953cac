//! Several networks joined by hosts with several links: whatever the shape, addresses are found, messages arrive, ways
//! heal, and no packet goes round for ever.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Which hosts are on each network.
type Shape = Vec<Vec<usize>>;

/// From which host, to which, over which network, what.
type Flying = (usize, usize, usize, Vec<u8>);

struct Net {
    now: Instant,
    boxes: Vec<FlipBox>,
    /// The links of each box, by number: which network, which is also what the tests know it by.
    links: Vec<Vec<usize>>,
    shape: Shape,
    up: Vec<bool>,
    flying: BTreeMap<(Instant, u64), Flying>,
    /// Of a thousand packets, how many are lost, and how many arrive twice.
    faults: (u64, u64),
    random: u64,
    count: u64,
    /// Packets that went to everybody on a network.
    broadcasts: u64,
    events: Vec<Vec<Event>>,
}

fn address(host: usize) -> Address {
    Address([host as u8 + 1, 7, 7, 7, 7, 7, 7, 0])
}

impl Net {
    fn new(shape: Shape, trusted: impl Fn(usize) -> bool) -> Net {
        let hosts = shape.iter().flatten().max().map_or(0, |last| last + 1);
        let mut net = Net {
            now: at(0),
            boxes: (0..hosts).map(|host| FlipBox::new(Vec::new(), host as u32 * 1_000_000, at(0))).collect(),
            links: vec![Vec::new(); hosts],
            up: vec![true; hosts],
            flying: BTreeMap::new(),
            faults: (0, 0),
            random: 1,
            count: 0,
            broadcasts: 0,
            events: vec![Vec::new(); hosts],
            shape,
        };
        for network in 0..net.shape.len() {
            // Networks differ in what a packet may have.
            let packet_size_max = if network % 2 == 0 { 1498 } else { 598 };
            for &host in &net.shape[network] {
                let config = LinkConfig { packet_size_max, trusted: trusted(network), ..LINK };
                net.boxes[host].add_link(at(0), config);
                net.links[host].push(network);
            }
        }
        for host in 0..hosts {
            net.boxes[host].register(address(host), 1 << 20);
        }
        net.run(600);
        net
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % below
    }

    fn collect(&mut self) {
        for host in 0..self.boxes.len() {
            while let Some(transmit) = self.boxes[host].poll_transmit(self.now) {
                let network = self.links[host][usize::from(transmit.link.0)];
                self.broadcasts += u64::from(transmit.to.is_none());
                for to in self.shape[network].clone() {
                    let wanted = transmit.to.is_none_or(|location| location.as_bytes() == [to as u8]);
                    let copies = match (self.draw(1000), self.draw(1000)) {
                        _ if to == host || !wanted || !self.up[host] => 0,
                        (loss, _) if loss < self.faults.0 => 0,
                        (_, twice) if twice < self.faults.1 => 2,
                        _ => 1,
                    };
                    for _ in 0..copies {
                        let due = self.now + Duration::from_micros(50 + self.draw(2000));
                        self.count += 1;
                        let packet = transmit.packet.to_vec();
                        self.flying.insert((due, self.count), (host, to, network, packet));
                    }
                }
            }
            while let Some(event) = self.boxes[host].poll_event() {
                match event {
                    Event::Report { from, to, report } => {
                        // As the layer above does: as a message of its own.
                        let bytes = report.to_bytes();
                        self.boxes[host].unicast(self.now, from, to, bytes, PLAIN, Duration::from_secs(1));
                    }
                    Event::Message { to, from, ref head, ref data, .. } if is_report(head, data) => {
                        let bytes = [&head[..], data].concat();
                        let report = RpcReport::parse(&bytes, true).expect("looked at just now");
                        self.boxes[host].handle_report(self.now, from, to, &report);
                    }
                    event => self.events[host].push(event),
                }
            }
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            self.collect();
            let arrival = self.flying.first_key_value().map(|((due, _), _)| *due);
            let timer = self.boxes.iter().filter_map(FlipBox::poll_timeout).min();
            let Some(next) = [arrival, timer].into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let (from, to, network, packet) = entry.remove();
                let link = self.links[to].iter().position(|other| *other == network).expect("it is on it");
                if self.up[to] {
                    let source = Location::new(&[from as u8]);
                    self.boxes[to].handle_packet(self.now, LinkId(link as u16), &source, &packet);
                }
            }
            for host in 0..self.boxes.len() {
                self.boxes[host].handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn send(&mut self, from: usize, to: usize, payload: &[u8], manner: Manner) {
        let (now, payload) = (self.now, payload.to_vec());
        self.boxes[from].unicast(now, address(from), address(to), payload, manner, Duration::from_secs(4));
    }

    /// The messages that have arrived at a host.
    fn messages(&mut self, host: usize) -> Vec<Vec<u8>> {
        let events = std::mem::take(&mut self.events[host]);
        let bytes = |event| match event {
            Event::Message { head, data, .. } => Some([&head[..], &data].concat()),
            _ => None,
        };
        events.into_iter().filter_map(bytes).collect()
    }

    /// Sends until it has arrived, as RPC would: no answer for a second means doubt.
    fn insist(&mut self, from: usize, to: usize, payload: &[u8]) -> usize {
        for tries in 1..20 {
            self.send(from, to, payload, PLAIN);
            self.run(1000);
            let arrived = self.messages(to);
            if !arrived.is_empty() {
                assert!(arrived.iter().all(|message| message == payload));
                return tries;
            }
            self.boxes[from].doubt(address(to));
        }
        panic!("host {to} is not reached from {from} in {:?}", self.shape);
    }

    /// Which hosts are reached from `from` while only these are up.
    fn reach(&self, from: usize) -> Vec<bool> {
        let mut reached = vec![false; self.boxes.len()];
        reached[from] = true;
        for _ in 0..self.boxes.len() {
            for hosts in &self.shape {
                if hosts.iter().any(|&host| reached[host] && self.up[host]) {
                    hosts.iter().for_each(|&host| reached[host] |= self.up[host]);
                }
            }
        }
        reached
    }
}

/// The messages of these tests are longer than any report, or shorter.
fn is_report(head: &Head, data: &[u8]) -> bool {
    (20..=20 + 8 * 32).contains(&(head.len() + data.len()))
}

/// Shapes in which every host is reached from every other; at most seven networks in a row.
fn shapes() -> impl Strategy<Value = Shape> {
    (2usize..8, 1usize..7, any::<u64>()).prop_map(|(hosts, networks, mut random)| {
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let mut shape: Shape = vec![Vec::new(); networks];
        for host in 0..hosts {
            // Every host joins a network that has somebody, and perhaps others.
            let first = if host == 0 { 0 } else { draw(networks) };
            let used: Vec<usize> = (0..networks).filter(|network| !shape[*network].is_empty()).collect();
            let anchor = if used.is_empty() { 0 } else { used[draw(used.len())] };
            for network in [anchor, first] {
                if !shape[network].contains(&host) {
                    shape[network].push(host);
                }
            }
        }
        shape
    })
}

const LINE: [[usize; 2]; 3] = [[0, 1], [1, 2], [2, 3]];

fn shape(networks: &[&[usize]]) -> Shape {
    networks.iter().map(|hosts| hosts.to_vec()).collect()
}

fn line() -> Shape {
    LINE.iter().map(|hosts| hosts.to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Everybody reaches everybody, once; then it is quiet.
    #[test]
    fn every_address_is_found_and_every_message_arrives_once(shape in shapes(), size in 300usize..9000) {
        let mut net = Net::new(shape, |_| true);
        let hosts = net.boxes.len();
        let payload: Vec<u8> = (0..size).map(|byte| (byte * 11) as u8).collect();
        for from in 0..hosts {
            for to in (0..hosts).filter(|to| *to != from) {
                net.send(from, to, &payload, PLAIN);
                net.run(3000);
                prop_assert_eq!(net.messages(to), [payload.clone()], "from {} to {} in {:?}", from, to, net.shape);
            }
        }
        net.run(10_000);
        prop_assert!(net.flying.is_empty());
        let locates: u64 = net.boxes.iter().map(|flip| flip.counters().locates).sum();
        let links: u64 = net.links.iter().map(|links| links.len() as u64).sum();
        prop_assert!(net.broadcasts <= locates * links, "{} for {locates} searches", net.broadcasts);
    }

    /// Hosts fail one after the other; who is still connected is still reached.
    #[test]
    fn ways_heal_while_there_are_any(shape in shapes(), order in any::<u64>(), lost in 0u64..100) {
        let mut net = Net::new(shape, |_| true);
        (net.random, net.faults) = (order | 1, (lost, 50));
        let hosts = net.boxes.len();
        for _ in 0..4 {
            let (from, to) = (net.draw(hosts as u64) as usize, net.draw(hosts as u64) as usize);
            let reached = net.reach(from);
            if from != to && net.up[from] && net.up[to] && reached[to] {
                net.insist(from, to, b"still there?");
            }
            let victim = net.draw(hosts as u64) as usize;
            net.up[victim] = !net.up[victim];
        }
        net.faults = (0, 0);
        net.run(20_000);
        prop_assert!(net.flying.is_empty(), "it is quiet in the end");
        prop_assert!(net.boxes.iter().all(|flip| flip.transmits.is_empty()));
    }

    /// What is missing is sent again, over a lossy way of three networks, and nothing is kept in the end.
    #[test]
    fn a_reported_message_arrives_whole_whatever_is_lost(size in 2000usize..400_000, loss in 0u64..150, seed in any::<u64>()) {
        let mut net = Net::new(line(), |_| true);
        (net.random, net.faults) = (seed | 1, (loss, loss / 2));
        let payload: Vec<u8> = (0..size).map(|byte| (byte * 13) as u8).collect();
        net.insist(0, 3, b"where are you?");
        net.send(0, 3, &payload, Manner { secure: true, reported: true });
        net.run(60_000);
        let arrived = net.messages(3);
        prop_assert!(arrived == [payload], "{} messages of {size} bytes, loss {loss}", arrived.len());
        prop_assert!(net.boxes.iter().all(|flip| flip.pacer.is_empty() && flip.reassembly.is_empty()));
    }
}

#[test]
fn only_what_is_missing_is_sent_again() {
    let mut net = Net::new(line(), |_| true);
    net.insist(0, 3, b"where are you?");
    let payload = &[5; 1 << 20];
    let before = net.boxes[0].counters().packets_out;
    net.faults = (20, 0);
    net.send(0, 3, payload, Manner { secure: true, reported: true });
    net.run(30_000);
    assert_eq!(net.messages(3).len(), 1);
    let (needed, sent) = (payload.len().div_ceil(1458) as u64, net.boxes[0].counters().packets_out - before);
    assert!(sent > needed, "three networks lost some of {needed}");
    assert!(sent < needed * 5 / 4, "{sent} packets for {needed} fragments of which one in sixteen was lost");
}

#[test]
fn without_loss_nothing_is_sent_again() {
    let mut net = Net::new(line(), |_| true);
    net.insist(0, 3, b"where are you?");
    net.send(0, 3, &vec![5; 1 << 20], Manner { secure: true, reported: true });
    net.run(10_000);
    assert_eq!(net.messages(3).len(), 1);
    assert_eq!(net.boxes[0].counters().sent_again, 0);
    assert_eq!(net.boxes[1].counters().dropped + net.boxes[2].counters().dropped, 0);
}

/// The second way is found when the host in the middle is gone, and again when it is back and the other has gone.
#[test]
fn a_second_way_takes_over() {
    let mut net = Net::new(shape(&[&[0, 1, 2], &[1, 2, 3]]), |_| true);
    net.insist(0, 3, b"one");
    for broken in [1, 2, 1] {
        net.up = vec![true; 4];
        net.up[broken] = false;
        assert!(net.insist(0, 3, b"two") <= 2);
    }
}

#[test]
fn a_host_that_is_gone_takes_the_ways_through_it_along_but_not_the_hosts_behind() {
    let mut net = Net::new(shape(&[&[0, 1, 2], &[1, 2, 3]]), |_| true);
    net.insist(0, 3, b"one");
    net.insist(0, 1, b"one");
    let through = *net.boxes[0].routes().best(address(3), false).expect("it was reached");
    let middle = usize::from(through.location.as_bytes()[0]);
    net.up[middle] = false;
    let lost = net.boxes[0].location_lost(net.now, through.link, &through.location);
    assert_eq!(lost.contains(&address(middle)), middle == 1);
    assert!(!lost.contains(&address(3)) && !net.boxes[0].routes().knows(address(3)));
    assert_eq!(net.insist(0, 3, b"two"), 1, "it is searched for at once");
}

#[test]
fn who_sends_a_long_way_hears_that_the_way_is_lost_and_not_that_nobody_is_there() {
    let mut net = Net::new(line(), |_| true);
    net.insist(0, 3, b"one");
    net.boxes[1].invalidate(address(3));
    net.send(0, 3, b"two", PLAIN);
    net.run(100);
    let reason = |net: &mut Net| match net.events[0].pop() {
        Some(Event::Undelivered { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&mut net), Undelivered::NoRoute);
    assert_eq!(net.insist(0, 3, b"three"), 1);
    net.boxes[3].unregister(address(3));
    net.send(0, 3, b"four", PLAIN);
    net.run(100);
    assert_eq!(reason(&mut net), Undelivered::NotHere);
}

#[test]
fn secure_messages_keep_off_untrusted_networks_and_say_so() {
    // The short way is not trusted, the long one is.
    let mut net = Net::new(shape(&[&[0, 1], &[1, 3], &[0, 2], &[2, 4], &[4, 3]]), |network| network > 1);
    net.insist(0, 3, b"public");
    net.send(0, 3, b"secret", SECURE);
    net.run(100);
    let untrusted =
        |event: &Event| matches!(event, Event::Undelivered { reason: Undelivered::Untrusted, .. });
    assert!(net.events[0].iter().any(untrusted), "{:?}", net.events[0]);
    assert!(net.messages(3).is_empty());
    // A switch that only finds out later sends it back, too; and nothing secret crosses the untrusted network.
    let mut net = Net::new(shape(&[&[0, 1], &[1, 2]]), |network| network == 0);
    net.insist(0, 2, b"public");
    let route = *net.boxes[0].routes().best(address(2), false).expect("it was reached");
    net.boxes[0].routes.learn(at(0), address(2), Route { trusted: true, ..route });
    net.send(0, 2, b"secret", SECURE);
    net.run(100);
    assert!(net.events[0].iter().any(untrusted), "{:?}", net.events[0]);
    assert!(net.messages(2).is_empty());
}

#[test]
fn broadcasts_reach_everybody_within_their_hops_once() {
    // A ring of networks.
    let mut net = Net::new(shape(&[&[0, 1], &[1, 2], &[2, 3], &[3, 0]]), |_| true);
    let heard = |net: &mut Net, host: usize| {
        let is = |event: &Event| matches!(event, Event::Broadcast { payload, .. } if payload == b"all");
        std::mem::take(&mut net.events[host]).iter().filter(|event| is(event)).count()
    };
    for (hops, expected) in [(2, [0, 0, 0]), (3, [1, 0, 1]), (6, [1, 1, 1]), (25, [1, 1, 1])] {
        net.boxes[0].broadcast(address(0), hops, b"all");
        net.run(100);
        assert_eq!([1, 2, 3].map(|host| heard(&mut net, host)), expected, "within {hops}");
        assert_eq!(heard(&mut net, 0), 0, "our own comes round and is dropped");
    }
}

#[test]
fn a_flood_of_broadcasts_is_bounded_where_it_enters() {
    let mut net = Net::new(shape(&[&[0, 1], &[1, 2]]), |_| true);
    let before = net.boxes[1].counters().forwarded;
    for _ in 0..3 * BROADCASTS_PER_SECOND_MAX {
        net.boxes[0].broadcast(address(0), 25, b"!");
    }
    net.run(500);
    assert_eq!(net.boxes[1].counters().forwarded - before, u64::from(BROADCASTS_PER_SECOND_MAX));
    net.run(1000);
    net.boxes[0].broadcast(address(0), 25, b"!");
    net.run(100);
    assert_eq!(net.boxes[1].counters().forwarded - before, u64::from(BROADCASTS_PER_SECOND_MAX) + 1);
}

/// A message of a group goes to every network that has members, and to each once.
#[test]
fn multidata_goes_wherever_the_address_is_known() {
    let group = Address([9, 9, 9, 9, 9, 9, 9, 0]);
    let mut net = Net::new(shape(&[&[0, 1], &[1, 2], &[1, 3]]), |_| true);
    for host in [2, 3] {
        net.boxes[host].register(group, 1000);
        let link = net.links[1].iter().position(|network| *network == host - 1).expect("it is on it");
        let (link, location) = (LinkId(link as u16), Location::new(&[host as u8]));
        let route = Route { link, location, hops: 3, trusted: true, count: 1 };
        net.boxes[1].routes.learn(net.now, group, route);
    }
    let header = FlipHeader {
        kind: PacketKind::Multidata,
        flags: 0,
        hops: 3,
        hops_max: 25,
        to: group,
        from: address(0),
        message_id: 77,
        length: 2,
        offset: 0,
        total: 2,
    };
    let packet = [&header.to_bytes()[..], b"hi"].concat();
    for _ in 0..2 {
        net.boxes[1].handle_packet(net.now, LinkId(0), &Location::new(&[0]), &packet);
    }
    net.run(100);
    assert_eq!((net.messages(2), net.messages(3)), (vec![b"hi".to_vec()], vec![b"hi".to_vec()]));
}

/// spec: a LOCATE arrives over Ethernet with actual 3, max 3; the answer leaves with actual 0, max 3, payload 1, 1.
#[test]
fn the_original_s_example_of_an_answer() {
    let mut flip = FlipBox::new(vec![LINK], 0, at(0));
    flip.register(B, 100);
    let locate = FlipHeader {
        kind: PacketKind::Locate,
        flags: 0,
        hops: 3,
        hops_max: 3,
        to: B,
        from: A,
        message_id: 5,
        length: 0,
        offset: 0,
        total: 0,
    };
    flip.handle_packet(at(1), LinkId(0), &Location::new(&[1]), &locate.to_bytes());
    let answer = flip.poll_transmit(at(1)).expect("an owner always answers");
    let bytes = answer.packet.to_vec();
    let (header, payload, _) = FlipHeader::parse(&bytes).expect("it is a packet");
    let expected = FlipHeader { kind: PacketKind::Hereis, hops: 0, length: 4, total: 4, ..locate };
    assert_eq!((header, payload), (expected, &[0, 1, 0, 1][..]));
    assert_eq!(answer.to, Some(Location::new(&[1])));
    flip.handle_packet(at(1), LinkId(0), &Location::new(&[1]), &locate.to_bytes());
    assert_eq!(flip.poll_transmit(at(1)), None, "a copy is not answered again");
}

#[test]
fn no_reports_panic_and_none_makes_more_than_its_message_leave() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut flip = FlipBox::new(vec![LINK], 0, at(0));
        flip.register(A, 100);
        let route =
            Route { link: LinkId(0), location: Location::new(&[1]), hops: 3, trusted: true, count: 1 };
        flip.routes.learn(at(0), B, route);
        let manner = Manner { secure: false, reported: true };
        flip.unicast(at(0), A, B, vec![1; 20_000], manner, Duration::ZERO);
        for (step, chunk) in bytes.chunks(24).enumerate() {
            let now = at(step as u64);
            if let Some(mut report) = RpcReport::parse(&chunk[..chunk.len() / 4 * 4], true) {
                (report.message_id, report.total) = (1, 20_000);
                flip.handle_report(now, B, A, &report);
            }
            let mut packets = 0;
            while flip.poll_transmit(now).is_some() {
                packets += 1;
            }
            assert!(packets <= 200, "{packets} packets at once for a message of fourteen");
            flip.handle_timeout(now);
        }
    });
}

/// Once all gaps but the first thirty-two were taken for packets under way, and nothing was sent any more.
#[test]
fn many_gaps_do_not_close_the_window() {
    let mut net = Net::new(line(), |_| true);
    (net.random, net.faults) = (6350203122859315029, (138, 69));
    net.insist(0, 3, b"where are you?");
    net.send(0, 3, &vec![5; 337_357], Manner { secure: true, reported: true });
    net.run(60_000);
    assert_eq!(net.messages(3).len(), 1);
}
