//! Both state machines against anything that a peer may say, in any order: harnesses with an oracle beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_flip::PACKET_LIFE_MAX;
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_wire::packet::{Address, RpcHeader, RpcKind, rpc_flag};
use amoeba_world::{Error, Message};

use crate::{Action, Answer, CLIENTS_MAX, ClientKey, Clients, DUPLICATE_LIFE, RemoteTrans, Server, Verdict};

/// Steps of a run: at most [`STEP_MAX`] each, so that all of it is shorter than a duplicate may come late.
const STEPS_MAX: usize = 100;
const STEP_MAX: Duration = Duration::from_millis(2550);
const _: () = assert!(STEPS_MAX as u128 * STEP_MAX.as_millis() < DUPLICATE_LIFE.as_millis());

const KINDS: [RpcKind; 7] = [
    RpcKind::Received,
    RpcKind::Enquire,
    RpcKind::Ack,
    RpcKind::Nak,
    RpcKind::Alive,
    RpcKind::Reply,
    RpcKind::Fail,
];

fn header(kind: RpcKind, flags: u8, tid: u32, slot: u16) -> RpcHeader {
    RpcHeader { kid: [0; 8], port: PutPort::NULL, kind, flags, tid, dest: slot, from: slot }
}

/// What was said about each request.
#[derive(Default)]
struct Oracle {
    accepted: BTreeSet<(ClientKey, u32)>,
    refused: BTreeMap<(ClientKey, u32), Instant>,
}

impl Oracle {
    fn hears(&mut self, now: Instant, answer: Option<Answer>) {
        let Some((to, packet)) = answer else { return };
        let (header, _, _) = RpcHeader::parse(packet.head()).expect("what is sent is a packet");
        let request = ((to, header.dest), header.tid);
        if header.kind == RpcKind::Nak {
            assert!(!self.accepted.contains(&request), "{request:?} was accepted and is denied");
            self.refused.insert(request, now);
        }
    }

    fn accepts(&mut self, now: Instant, request: (ClientKey, u32)) {
        assert!(self.accepted.insert(request), "{request:?} is executed twice");
        let refused = self.refused.get(&request);
        assert!(refused.is_none_or(|at| now.since(*at) >= PACKET_LIFE_MAX), "{request:?} was refused");
    }
}

#[test]
fn whatever_clients_say_nothing_is_executed_twice_or_denied() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (mut clients, mut now, mut oracle) = (Clients::default(), Instant::default(), Oracle::default());
        for step in bytes.chunks_exact(3).take(STEPS_MAX) {
            let (what, flag) = (step[0] % 10, step[0] >= 128);
            let key = (Address([1 + step[1] % 20; 8]), 3);
            let tid = (u32::MAX - 3).wrapping_add((step[2] % 8).into());
            let answer = match what {
                0..3 => {
                    let flags = if flag { rpc_flag::RETRANS } else { 0 };
                    match clients.request(now, key.0, &header(RpcKind::Request, flags, tid, key.1)) {
                        Verdict::New if step[0] & 64 == 0 => {
                            oracle.accepts(now, (key, tid));
                            clients.accept(now, key, tid, flag)
                        }
                        Verdict::New => Some(clients.refuse(now, key, tid)),
                        Verdict::Known(answer) => answer,
                    }
                }
                3 => {
                    let data = vec![0; step[2].into()];
                    clients.reply(now, key, tid, Message { data, ..Message::status(Status::STD_OK) })
                }
                4 => clients.fail(now, key, tid),
                5 | 6 => {
                    let kind = KINDS[usize::from(step[2] / 8) % KINDS.len()];
                    clients.handle_control(now, key.0, &header(kind, 0, tid, key.1))
                }
                7 => {
                    now = now + STEP_MAX * u32::from(step[2]) / 255;
                    clients.handle_timeout(now).into_iter().for_each(|one| oracle.hears(now, Some(one)));
                    None
                }
                8 if flag => {
                    clients.client_gone(key, tid);
                    None
                }
                8 => {
                    clients.drop_reply(now, Some(key));
                    None
                }
                _ => {
                    let answer = clients.after_death(key.0, &header(RpcKind::Received, 0, tid, key.1));
                    assert!(answer.is_some() || !oracle.accepted.contains(&(key, tid)));
                    answer
                }
            };
            oracle.hears(now, answer);
            assert!(clients.len() <= CLIENTS_MAX);
        }
        clients.end(now);
        assert_eq!(clients.kept_size(), 0);
    });
}

#[test]
fn whatever_servers_say_a_client_hears_once_and_only_of_its_own_request() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (mut now, mut tid, slot) = (Instant::default(), u32::MAX - 2, 3);
        let deadline = now + Duration::from_secs(5);
        let mut trans = RemoteTrans::new(Message::status(Status::STD_OK), [0; 8], slot, now, deadline, 100);
        let mut taken = false;
        for step in bytes.chunks_exact(3).take(STEPS_MAX) {
            let from = Address([1 + step[1] % 3; 8]);
            let about = tid.wrapping_sub((step[2] % 3 / 2).into());
            let own = trans.server() == Some((from, about));
            let is_heard = !matches!((step[0] % 9, trans.is_locating()), (0, true) | (8, _));
            let mut denied = false;
            let actions = match step[0] % 9 {
                0 if trans.is_locating() => {
                    (tid, taken) = (tid.wrapping_add(1), false);
                    vec![trans.found(
                        now,
                        Server { address: from, round_trip: Duration::from_millis(step[2].into()) },
                        tid,
                    )]
                }
                0..4 => {
                    let kind = KINDS[usize::from(step[2]) % KINDS.len()];
                    let message = (kind == RpcKind::Reply).then(|| Message {
                        data: vec![7; step[0].into()],
                        ..Message::status(Status::STD_OK)
                    });
                    taken |= own && matches!(kind, RpcKind::Ack | RpcKind::Alive);
                    denied = own && kind == RpcKind::Nak;
                    trans.handle_packet(now, from, &header(kind, 0, about, slot), message)
                }
                4 => {
                    let kind = if step[0] >= 128 { RpcKind::Request } else { RpcKind::Received };
                    trans.not_here(now, from, kind, about)
                }
                5 => trans.no_route(now, from, about),
                6 if step[0] >= 128 => trans.untrusted(from, about),
                6 => {
                    denied = own;
                    trans.forwarded(from, &header(RpcKind::Forward, 0, about, slot), Address([9; 8]))
                }
                7 => trans.reply_too_large(from, &header(RpcKind::Reply, 0, about, slot)),
                _ => {
                    now = now + STEP_MAX * u32::from(step[2]) / 255;
                    denied = trans.is_locating();
                    trans.handle_timeout(now)
                }
            };
            assert!(own || !is_heard || actions.is_empty(), "{actions:?} about a transaction of another");
            let mut ends = actions.iter().filter_map(|action| match action {
                Action::Done(result) => Some(result),
                _ => None,
            });
            if let Some(result) = ends.next() {
                assert!(ends.next().is_none(), "it ends once");
                match result {
                    Ok(_) => assert!(own, "somebody else's reply"),
                    Err(Error::NotSent(_)) => assert!(!taken || denied, "it was taken, and is denied"),
                    Err(_) => assert!(trans.server().is_some(), "nobody had it"),
                }
                return;
            }
            taken &= !trans.is_locating();
        }
    });
}
