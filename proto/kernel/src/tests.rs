//! Kernels on a wire that the test holds in its hand: each test loses what it wants to lose.

use std::sync::Mutex;

use amoeba_cap::Capability;
use amoeba_wire::Header;
use amoeba_world::TransOptions;

use super::*;

struct Counting(Mutex<u64>);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        for byte in bytes {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (*state >> 40) as u8;
        }
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_epoch(Duration::from_millis(millis))
}

/// Kernels on one wire, with a clock and a filter for packets.
struct Net {
    now: Instant,
    kernels: Vec<Kernel>,
    events: Vec<VecDeque<Event>>,
    /// Nobody hears what the original's kernels would not say.
    classic: bool,
}

const GET: [u8; 6] = *b"secret";

impl Net {
    fn new(count: usize) -> Net {
        let links = if count > 1 {
            vec![LinkConfig { packet_size_max: 1498, weight: 3, trusted: true, repairs: false }]
        } else {
            Vec::new()
        };
        let kernel = |seed| Net::kernel(seed, links.clone(), at(0));
        let kernels = (0..count as u64).map(kernel).collect();
        let mut net = Net {
            now: at(0),
            kernels,
            events: (0..count).map(|_| VecDeque::new()).collect(),
            classic: false,
        };
        net.run(1000, |_| true);
        net
    }

    fn kernel(seed: u64, links: Vec<LinkConfig>, now: Instant) -> Kernel {
        let secret = SystemSecret::from_bytes([5; 32]);
        Kernel::new(Config { secret, entropy: Arc::new(Counting(Mutex::new(seed + 1))), links }, now)
    }

    /// Lets `millis` pass; `carry` says of each packet whether it arrives.
    fn run(&mut self, millis: u64, mut carry: impl FnMut(&Transmit) -> bool) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            self.settle(&mut carry);
            let next = self.kernels.iter().filter_map(Kernel::poll_timeout).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for kernel in &mut self.kernels {
                kernel.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn settle(&mut self, carry: &mut impl FnMut(&Transmit) -> bool) {
        loop {
            let mut idle = true;
            for from in 0..self.kernels.len() {
                while let Some(transmit) = self.kernels[from].poll_transmit(self.now) {
                    idle = false;
                    if !carry(&transmit) {
                        continue;
                    }
                    for to in 0..self.kernels.len() {
                        let wanted =
                            transmit.to.as_ref().is_none_or(|location| location.as_bytes() == [to as u8]);
                        if to != from && wanted {
                            let source = Location::new(&[from as u8]);
                            let packet = match self.classic {
                                true => wire::as_the_original_sends_it(&transmit),
                                false => transmit.packet.to_vec(),
                            };
                            self.kernels[to].handle_packet(self.now, LinkId(0), &source, &packet);
                        }
                    }
                }
                while let Some(event) = self.kernels[from].poll_event() {
                    self.events[from].push_back(event);
                }
            }
            if idle {
                return;
            }
        }
    }

    /// Lets `millis` pass on a network that takes one bulk packet of each host every 5 ms; how many those were.
    fn crawl(&mut self, millis: u64) -> usize {
        let mut bulk = 0;
        for step in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            for kernel in &mut self.kernels {
                kernel.handle_timeout(self.now);
            }
            let mut idle = false;
            let mut left = vec![usize::from(step % 5 == 0); self.kernels.len()];
            while !idle {
                idle = true;
                for (from, left) in left.iter_mut().enumerate() {
                    let now = self.now;
                    while let Some(transmit) =
                        self.kernels[from].poll_transmit_where(now, |_, _| (*left > 0).then_some(1498))
                    {
                        idle = false;
                        *left -= usize::from(transmit.bulk);
                        bulk += usize::from(transmit.bulk);
                        let to = 1 - from;
                        let source = Location::new(&[from as u8]);
                        self.kernels[to].handle_packet(now, LinkId(0), &source, &transmit.packet.to_vec());
                    }
                    while let Some(event) = self.kernels[from].poll_event() {
                        self.events[from].push_back(event);
                    }
                }
            }
        }
        bulk
    }

    fn attach(&mut self, host: usize) -> ProcessId {
        self.kernels[host].attach().unwrap()
    }

    fn serve(&mut self, host: usize) -> (ProcessId, PutPort) {
        let server = self.attach(host);
        let now = self.now;
        let port = self.kernels[host].listen(now, server, &GetPort::from_bytes(GET), 1 << 20).unwrap();
        self.kernels[host].getreq(server, port, GetreqId(1)).unwrap();
        (server, port)
    }

    fn trans(&mut self, host: usize, client: ProcessId, port: PutPort, data: Vec<u8>) {
        let capability = Capability { port, ..Capability::NULL };
        let request = Message { header: Header::request(&capability, Command(1004)), data };
        let now = self.now;
        self.kernels[host].trans(now, client, Slot(0), request, &TransOptions::default());
    }

    fn request(&mut self, host: usize) -> (RequestId, Message) {
        match self.events[host].pop_front() {
            Some(Event::Request { request, message, .. }) => (request, message),
            other => panic!("expected a request, not {other:?}"),
        }
    }

    fn answer(&mut self, host: usize, server: ProcessId, request: RequestId, data: Vec<u8>) {
        let reply = Message { header: Header::reply(Status::STD_OK), data };
        let now = self.now;
        self.kernels[host].putrep(now, server, request, reply);
    }

    fn reply_status(&mut self, host: usize) -> Status {
        match self.events[host].pop_front() {
            Some(Event::Reply { result: Ok(reply), .. }) => reply.header.status(),
            other => panic!("expected a reply, not {other:?}"),
        }
    }

    fn reply(&mut self, host: usize) -> Result<Vec<u8>, Error> {
        match self.events[host].pop_front() {
            Some(Event::Reply { result, .. }) => result.map(|reply| reply.data),
            other => panic!("expected a reply, not {other:?}"),
        }
    }
}

/// The type byte of the RPC header in a FLIP packet.
fn rpc_kind(transmit: &Transmit) -> u8 {
    transmit.packet.front().get(40 + 14).copied().unwrap_or(0)
}

const LOST: Result<Vec<u8>, Error> = Err(Error::MaybeExecuted(Status::RPC_FAILURE));
const NOBODY: Result<Vec<u8>, Error> = Err(Error::NotSent(Status::RPC_NOTFOUND));

#[test]
fn a_transaction_on_one_host_needs_no_packet() {
    let mut net = Net::new(1);
    let (server, port) = net.serve(0);
    let client = net.attach(0);
    net.trans(0, client, port, b"ping".to_vec());
    net.run(0, |_| panic!("no links"));
    let (request, message) = net.request(0);
    assert_eq!(message.data, b"ping");
    net.answer(0, server, request, b"pong".to_vec());
    net.run(0, |_| true);
    assert_eq!(net.reply(0), Ok(b"pong".to_vec()));
}

#[test]
fn a_transaction_waits_for_its_server_as_long_as_it_was_told() {
    let mut net = Net::new(1);
    let client = net.attach(0);
    let port = net.kernels[0].put_port(&GetPort::from_bytes(GET));
    net.trans(0, client, port, Vec::new());
    net.run(5100, |_| true);
    assert!(net.events[0].is_empty());
    net.run(200, |_| true);
    assert_eq!(net.reply(0), NOBODY);
    net.trans(0, client, port, Vec::new());
    net.run(1000, |_| true);
    net.serve(0);
    net.run(0, |_| true);
    net.request(0);
}

#[test]
fn bad_requests_are_told_at_once() {
    let mut net = Net::new(1);
    let client = net.attach(0);
    net.trans(0, client, PutPort::NULL, Vec::new());
    net.run(0, |_| true);
    assert_eq!(net.reply(0), Err(Error::NotSent(Status::RPC_BADPORT)));
    let null = GetPort::from_bytes([0; 6]);
    assert_eq!(net.kernels[0].listen(at(0), client, &null, 0), Err(Status::RPC_BADPORT));
    let (_, port) = net.serve(0);
    net.trans(0, client, port, vec![0; (1 << 20) + 1]);
    net.run(0, |_| true);
    assert_eq!(net.reply_status(0), Status::STD_OVERFLOW);
}

#[test]
fn a_server_that_dies_fails_what_it_executes_and_returns_what_it_does_not() {
    let mut net = Net::new(1);
    let (server, port) = net.serve(0);
    let (one, two) = (net.attach(0), net.attach(0));
    net.trans(0, one, port, b"executing".to_vec());
    net.trans(0, two, port, b"queued".to_vec());
    net.run(0, |_| true);
    net.request(0);
    let now = net.now;
    net.kernels[0].detach(now, server);
    net.run(0, |_| true);
    assert_eq!(net.reply(0), LOST);
    net.serve(0);
    net.run(0, |_| true);
    assert_eq!(net.request(0).1.data, b"queued");
}

#[test]
fn a_request_that_only_a_server_that_left_would_take_does_not_wait_for_ever() {
    let mut net = Net::new(1);
    let (large, port) = net.serve(0);
    let (small, client) = (net.attach(0), net.attach(0));
    let now = net.now;
    net.kernels[0].cancel_getreq(large, GetreqId(1));
    net.kernels[0].listen(now, small, &GetPort::from_bytes(GET), 10).unwrap();
    net.kernels[0].getreq(small, port, GetreqId(2)).unwrap();
    net.trans(0, client, port, vec![0; 100]);
    net.run(1000, |_| true);
    assert!(net.events[0].is_empty());
    let now = net.now;
    net.kernels[0].unlisten(now, large, port);
    net.run(0, |_| true);
    assert_eq!(net.reply_status(0), Status::STD_OVERFLOW);
}

#[test]
fn nobody_can_answer_for_another_process_or_with_a_kernels_status() {
    let mut net = Net::new(1);
    let (server, port) = net.serve(0);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    net.run(0, |_| true);
    let (request, _) = net.request(0);
    net.answer(0, client, request, b"forged".to_vec());
    net.run(0, |_| true);
    assert!(net.events[0].is_empty());
    let now = net.now;
    net.kernels[0].putrep(now, server, request, Message::status(Status::RPC_NOTFOUND));
    net.run(0, |_| true);
    let Some(Event::Reply { result: Ok(reply), .. }) = net.events[0].pop_front() else { panic!("no reply") };
    assert_eq!(reply.header.status(), Status::RPC_REMOTERPC);
}

#[test]
fn a_signature_is_proven_by_the_kernel() {
    let mut net = Net::new(1);
    let (_, port) = net.serve(0);
    let client = net.attach(0);
    let get = GetPort::from_bytes(*b"signed");
    let options = TransOptions { signature: Some(get.clone()), ..TransOptions::default() };
    let mut header = Header::request(&Capability { port, ..Capability::NULL }, Command(1));
    header.signature = PutPort::from_bytes(*b"forged");
    let now = net.now;
    net.kernels[0].trans(now, client, Slot(3), Message { header, data: Vec::new() }, &options);
    net.run(0, |_| true);
    let expected = Some(net.kernels[0].put_port(&get));
    let Some(Event::Request { caller, .. }) = net.events[0].pop_front() else { panic!("no request") };
    assert_eq!(caller.signature, expected);
    assert_eq!(Some(caller.process), net.kernels[0].address(client));
}

/// Two hosts; one large transaction without loss.
#[test]
fn a_transaction_with_another_host_finds_its_server_and_carries_large_data() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    let data: Vec<u8> = (0..50_000u32).map(|byte| (byte * 3) as u8).collect();
    net.trans(0, client, port, data.clone());
    net.run(1000, |_| true);
    let (request, message) = net.request(1);
    assert_eq!(message.data, data);
    net.answer(1, server, request, data.clone());
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(data));
    assert_eq!(net.kernels[1].counters().served, 1);
}

#[test]
fn a_lost_request_is_sent_again_under_a_new_identifier() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, b"once".to_vec());
    let mut requests = 0;
    net.run(2000, |transmit| {
        requests += u32::from(rpc_kind(transmit) == 3);
        requests != 1 || rpc_kind(transmit) != 3
    });
    assert_eq!(requests, 2);
    let (request, _) = net.request(1);
    net.answer(1, server, request, Vec::new());
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(Vec::new()));
}

#[test]
fn a_lost_reply_is_sent_again_and_the_request_is_not_executed_again() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    net.run(100, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, server, request, b"kept".to_vec());
    let mut replies = 0;
    net.run(3000, |transmit| {
        replies += u32::from(rpc_kind(transmit) == 4);
        replies > 2 || rpc_kind(transmit) != 4
    });
    assert_eq!(net.reply(0), Ok(b"kept".to_vec()));
    assert!(net.events[1].is_empty());
}

#[test]
fn a_refused_request_is_refused_for_ever() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, b"x".to_vec());
    let mut copies = Vec::new();
    net.run(250, |transmit| {
        let request = rpc_kind(transmit) == 3;
        if request && copies.is_empty() {
            copies.push(transmit.packet.to_vec());
            return false; // this copy is late, the questions about it are not
        }
        !request
    });
    let now = net.now;
    net.kernels[1].handle_packet(now, LinkId(0), &Location::new(&[0]), &copies[0]);
    net.run(0, |_| true);
    assert!(net.events[1].is_empty(), "the server had said that it would never execute it");
    net.run(2000, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, server, request, Vec::new());
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(Vec::new()));
}

#[test]
fn a_server_that_moved_is_found_again_without_the_client_noticing() {
    let mut net = Net::new(3);
    let (first, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    net.run(100, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, first, request, Vec::new());
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(Vec::new()));
    let now = net.now;
    net.kernels[1].detach(now, first);
    let (second, _) = net.serve(2);
    for wait in [10, 2000] {
        net.trans(0, client, port, b"again".to_vec());
        net.run(1000, |_| true);
        let (request, _) = net.request(2);
        net.answer(2, second, request, b"here".to_vec());
        net.run(10, |_| true);
        assert_eq!(net.reply(0), Ok(b"here".to_vec()));
        net.kernels[2].getreq(second, port, GetreqId(9)).unwrap();
        net.run(wait, |_| true);
    }
}

/// The route to the old server is forgotten before the port is: while the address is searched for, nothing was sent.
#[test]
fn a_server_that_moved_long_ago_is_found_again_too() {
    let mut net = Net::new(3);
    let (first, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    net.run(100, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, first, request, Vec::new());
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(Vec::new()));
    let now = net.now;
    net.kernels[1].detach(now, first);
    let (second, _) = net.serve(2);
    net.run(300_000, |_| true);
    net.trans(0, client, port, b"again".to_vec());
    net.run(4000, |_| true);
    let (request, _) = net.request(2);
    net.answer(2, second, request, b"here".to_vec());
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(b"here".to_vec()));
}

#[test]
fn a_dead_host_fails_its_transactions_within_five_seconds() {
    let mut net = Net::new(2);
    let (_, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    net.run(2000, |_| true);
    net.request(1);
    net.run(5000, |_| false);
    assert_eq!(net.reply(0), LOST);
}

#[test]
fn a_host_that_dies_before_its_first_word_fails_the_transaction_within_five_seconds() {
    let mut net = Net::new(2);
    let (_, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    let mut requested = false;
    net.run(5000, |transmit| {
        requested |= rpc_kind(transmit) == 3;
        !requested
    });
    assert_eq!(net.reply(0), LOST);
}

#[test]
fn a_copy_that_comes_after_the_servers_death_does_not_make_it_never_executed() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    let mut copy = Vec::new();
    net.run(1, |transmit| {
        if rpc_kind(transmit) == 3 {
            copy = transmit.packet.to_vec();
        }
        true
    });
    net.request(1);
    let now = net.now;
    net.kernels[1].detach(now, server);
    net.run(0, |_| false); // the word of its death is lost
    net.kernels[1].handle_packet(now, LinkId(0), &Location::new(&[0]), &copy);
    net.run(10, |_| true);
    assert_eq!(net.reply(0), LOST);
}

#[test]
fn a_kernel_that_has_just_started_keeps_silent_about_its_earlier_life() {
    let mut net = Net::new(2);
    let (_, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    let mut copy = Vec::new();
    net.run(1, |transmit| {
        if rpc_kind(transmit) == 3 {
            copy = transmit.packet.to_vec();
        }
        true
    });
    net.request(1);
    let links = vec![LinkConfig { packet_size_max: 1498, weight: 3, trusted: true, repairs: false }];
    net.kernels[1] = Net::kernel(77, links, net.now);
    let now = net.now;
    net.kernels[1].handle_packet(now, LinkId(0), &Location::new(&[0]), &copy);
    net.run(20_000, |_| true);
    assert_eq!(net.reply(0), LOST);
}

#[test]
fn identifiers_wrap_around() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.kernels[0].processes.get_mut(&client).unwrap().tid = u32::MAX - 2;
    for round in 0..6 {
        net.trans(0, client, port, vec![round]);
        net.run(400, |_| true);
        let (request, message) = net.request(1);
        assert_eq!(message.data, [round]);
        net.answer(1, server, request, vec![round]);
        net.kernels[1].getreq(server, port, GetreqId(10 + u64::from(round))).unwrap();
        net.run(10, |_| true);
        assert_eq!(net.reply(0), Ok(vec![round]));
    }
}

#[test]
fn a_busy_server_is_waited_for_and_then_named_busy() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let now = net.now;
    net.kernels[1].cancel_getreq(server, GetreqId(1));
    for _ in 0..QUEUE_MAX {
        let client = net.attach(0);
        net.trans(0, client, port, Vec::new());
        net.run(0, |_| true);
    }
    net.run(1000, |_| true);
    let late = net.attach(0);
    net.trans(0, late, port, Vec::new());
    net.run(6000, |_| true);
    assert_eq!(net.reply(0), Err(Error::NotSent(Status::RPC_TRYAGAIN)));
    let _ = now;
}

/// A search that one transaction after another keeps alive once fell asleep for ever longer.
#[test]
fn a_search_that_is_kept_alive_goes_on_at_its_pace() {
    let mut net = Net::new(2);
    let client = net.attach(0);
    let port = net.kernels[0].put_port(&GetPort::from_bytes(GET));
    net.trans(0, client, port, Vec::new());
    let other = net.attach(0);
    for round in 0..40 {
        let slot = if round % 2 == 0 { other } else { client };
        net.run(3000, |_| false);
        net.trans(0, slot, port, Vec::new());
    }
    let mut locates = 0;
    net.run(3000, |_| {
        locates += 1;
        true
    });
    assert!(locates >= 3, "{locates} packets in three seconds");
}

#[test]
fn the_loss_of_a_host_ends_at_once_what_is_under_way_there_and_nothing_else() {
    let mut net = Net::new(3);
    let (first, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, b"lost".to_vec());
    net.run(100, |_| true);
    net.request(1);
    let searching = net.attach(0);
    let elsewhere = net.kernels[0].put_port(&GetPort::from_bytes(*b"nobody"));
    net.trans(0, searching, elsewhere, b"searches".to_vec());
    let now = net.now;
    net.kernels[0].peer_lost(now, LinkId(0), &Location::new(&[2]));
    assert!(net.kernels[0].poll_event().is_none(), "nothing was under way there");
    net.kernels[0].peer_lost(now, LinkId(0), &Location::new(&[1]));
    net.run(0, |_| true);
    assert_eq!(net.reply(0), LOST);
    assert!(net.events[0].is_empty(), "who still searches goes on");
    assert!(net.kernels[0].cache.is_empty() && net.kernels[0].flip.routes().is_empty());
    net.kernels[1].detach(now, first);
    net.run(0, |_| false); // it is dead: what it says is not heard
    let (second, _) = net.serve(2);
    net.trans(0, client, port, b"again".to_vec());
    net.run(100, |_| true);
    let (request, _) = net.request(2);
    net.answer(2, second, request, Vec::new());
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(Vec::new()));
}

#[test]
fn a_client_whose_host_was_lost_only_for_a_while_hears_the_truth() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, Vec::new());
    net.run(100, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, server, request, b"kept".to_vec());
    net.run(0, |_| false); // the reply is lost
    let now = net.now;
    net.kernels[1].peer_lost(now, LinkId(0), &Location::new(&[0]));
    net.run(5000, |_| true);
    assert_eq!(net.reply(0), LOST, "executed, and the reply was not kept");
}

#[test]
fn servers_of_a_port_on_several_hosts_take_turns_and_refusals_lead_to_the_next() {
    let mut net = Net::new(3);
    let servers = [net.serve(1), net.serve(2)];
    let port = servers[0].1;
    let client = net.attach(0);
    let mut served = [0; 3];
    let mut number = 1;
    let mut round = |net: &mut Net, served: &mut [usize; 3]| {
        net.trans(0, client, port, Vec::new());
        net.run(400, |_| true);
        let host = (1..3).find(|host| !net.events[*host].is_empty()).expect("somebody serves");
        let (request, _) = net.request(host);
        net.answer(host, servers[host - 1].0, request, Vec::new());
        number += 1;
        // A server that no longer listens cannot take another request.
        let _ = net.kernels[host].getreq(servers[host - 1].0, port, GetreqId(number));
        net.run(10, |_| true);
        assert_eq!(net.reply(0), Ok(Vec::new()));
        served[host] += 1;
    };
    for _ in 0..20 {
        round(&mut net, &mut served);
    }
    assert_eq!(served, [0, 10, 10]);
    let now = net.now;
    net.kernels[1].unlisten(now, servers[0].0, port);
    for _ in 0..4 {
        round(&mut net, &mut served);
    }
    assert_eq!(served, [0, 10, 14]);
}

/// A megabyte each way over a link that takes a packet every 5 ms: far longer than any timer of RPC.
#[test]
fn a_large_message_that_takes_long_is_neither_lost_nor_sent_twice() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    let data: Vec<u8> = (0..1_000_000u32).map(|byte| (byte % 253) as u8).collect();
    net.trans(0, client, port, data.clone());
    let mut fragments = net.crawl(20_000);
    let (request, message) = net.request(1);
    assert!(message.data == data);
    net.answer(1, server, request, data.clone());
    fragments += net.crawl(20_000);
    assert!(net.reply(0) == Ok(data.clone()));
    assert_eq!(fragments, 2 * (data.len() + HEADERS_SIZE).div_ceil(1458), "nothing was sent twice");
    assert_eq!(net.kernels[1].counters().duplicates, 0);
}

#[test]
fn small_transactions_pass_a_large_one() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let large = net.attach(0);
    net.trans(0, large, port, vec![1; 1_000_000]);
    net.crawl(200);
    let small = net.attach(0);
    net.trans(0, small, port, vec![2]);
    net.crawl(20);
    let (request, message) = net.request(1);
    assert_eq!(message.data, [2]);
    net.answer(1, server, request, vec![3]);
    net.crawl(20);
    assert_eq!(net.reply(0), Ok(vec![3]));
}

#[test]
fn no_packets_panic() {
    bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
        let mut net = Net::new(2);
        let (server, port) = net.serve(1);
        let client = net.attach(0);
        net.trans(0, client, port, b"honest".to_vec());
        let (to, from) = (net.kernels[1].address(server).unwrap(), net.kernels[0].address(client).unwrap());
        for chunk in bytes.chunks(80) {
            let mut packet = vec![1, 3, 1, 0, 0, 3, 0, 3];
            packet.extend_from_slice(&to.0);
            packet.extend_from_slice(&from.0);
            packet.extend_from_slice(&[0, 0, 0, chunk[0], 0, 0, 0, chunk.len() as u8, 0, 0, 0, 0]);
            packet.extend_from_slice(&[0, 0, 0, chunk.len() as u8]);
            packet.extend_from_slice(chunk);
            if let Some(kind) = packet.get_mut(40 + 14) {
                *kind = 1 + *kind % 11;
            }
            let now = net.now;
            net.kernels[1].handle_packet(now, LinkId(0), &Location::new(&[0]), &packet);
        }
        net.run(300, |_| true);
    });
}

#[test]
fn a_deadline_ends_a_transaction_as_what_it_is_then() {
    let trans = |net: &mut Net, client, port| {
        let header = Header::request(&Capability { port, ..Capability::NULL }, Command(1004));
        let deadline = Some(Duration::from_millis(700));
        let options = TransOptions { deadline, ..TransOptions::default() };
        let now = net.now;
        net.kernels[0].trans(now, client, Slot(0), Message { header, data: vec![1] }, &options);
        net.run(699, |_| true);
    };
    for host in [0, 1] {
        let mut net = Net::new(2);
        let (server, port) = net.serve(host);
        let client = net.attach(0);
        trans(&mut net, client, port);
        let (request, _) = net.request(host);
        assert!(net.events[0].is_empty(), "not before the deadline");
        net.run(1, |_| true);
        assert_eq!(net.reply(0), LOST);
        net.answer(host, server, request, vec![2]);
        net.run(1000, |_| true);
        assert!(net.events[0].is_empty(), "too late");
        trans(&mut net, client, port); // queued, for nobody is in getreq
        net.run(1, |_| true);
        let queued = if host == 0 { Err(Error::NotSent(Status::RPC_TRYAGAIN)) } else { LOST };
        assert_eq!(net.reply(0), queued);
        let elsewhere = PutPort::from_bytes([7; 6]);
        trans(&mut net, client, elsewhere);
        net.run(1, |_| true);
        assert_eq!(net.reply(0), NOBODY);
        assert!(net.kernels[0].processes.values().all(|process| process.deadlines.is_empty()));
    }
}

#[test]
fn the_replies_that_all_processes_keep_are_bounded_together() {
    let mut net = Net::new(2);
    let size = KEPT_REPLIES_SIZE_MAX / 4;
    for number in 0..8 {
        let (server, client) = (net.attach(1), net.attach(0));
        let now = net.now;
        let get = GetPort::from_bytes([number + 1; 6]);
        let port = net.kernels[1].listen(now, server, &get, 100).unwrap();
        net.kernels[1].getreq(server, port, GetreqId(1)).unwrap();
        net.trans(0, client, port, vec![1]);
        net.run(10, |_| true);
        let (request, _) = net.request(1);
        net.answer(1, server, request, vec![0; size]);
        net.settle(&mut |_| false); // no reply ever leaves, so none is acknowledged
        let kept: usize = net.kernels[1].processes.values().map(|process| process.clients.kept_size()).sum();
        assert_eq!(kept, net.kernels[1].kept_size);
        assert!(kept <= KEPT_REPLIES_SIZE_MAX && kept >= size.min(KEPT_REPLIES_SIZE_MAX));
    }
    assert!(net.kernels[1].kept_size > KEPT_REPLIES_SIZE_MAX / 2);
    let now = net.now;
    for id in net.kernels[1].processes.keys().copied().collect::<Vec<_>>() {
        net.kernels[1].detach(now, id);
    }
    assert_eq!(net.kernels[1].kept_size, 0);
}

mod datagrams;
mod introductions;
mod owed;
mod shared_port;
mod wire;

#[test]
fn requests_of_this_host_and_of_others_take_turns() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(0);
    let first = net.attach(0);
    net.trans(0, first, port, vec![9]);
    net.run(10, |_| true);
    net.request(0);
    for number in 0..4 {
        for host in [1, 0] {
            let client = net.attach(host);
            net.trans(host, client, port, vec![number, host as u8]);
            net.run(10, |_| true);
        }
    }
    let mut hosts = Vec::new();
    for number in 0..8 {
        net.kernels[0].getreq(server, port, GetreqId(10 + number)).unwrap();
        net.run(0, |_| true);
        hosts.push(net.request(0).1.data[1]);
    }
    assert_eq!(hosts, [1, 0, 1, 0, 1, 0, 1, 0]);
}

#[test]
fn a_request_that_is_too_large_ends_in_the_same_way_on_one_host_and_between_two() {
    for host in [0, 1] {
        let mut net = Net::new(2);
        let (_, port) = net.serve(host);
        let client = net.attach(0);
        net.trans(0, client, port, vec![0; (1 << 20) + 1]);
        net.run(100, |_| true);
        assert_eq!(net.reply_status(0), Status::STD_OVERFLOW);
        assert!(net.events[host].is_empty());
    }
}

#[test]
fn who_was_refused_by_a_server_that_then_nobody_finds_hears_that_there_is_none() {
    let mut net = Net::new(2);
    let (server, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, vec![1]);
    net.run(10, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, server, request, vec![2]);
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(vec![2]));
    let now = net.now;
    net.kernels[1].unlisten(now, server, port);
    net.trans(0, client, port, vec![1]);
    net.run(6000, |_| true);
    assert_eq!(net.reply(0), NOBODY);
}
