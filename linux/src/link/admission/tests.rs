//! A desk and a visitor, over a loopback socket or by hand.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_seal::{Handshake, Identity, Psk, Session, Suite};
use amoeba_threads::Instant;
use amoeba_world::{Entropy, random};

use super::desk::{Desk, DeskConfig};
use super::wire::{Answer, Body, Datagram, Introduction, JOIN_PADDING, Question, Why, join_tag, refused_tag};
use super::*;
use crate::threads::now;

const SECRET: [u8; 32] = [42; 32];

fn entropy() -> Arc<dyn Entropy> {
    crate::entropy()
}

fn desk(identity: &Identity, invites: &[Invite]) -> Desk {
    let mut desk = Desk::new(DeskConfig {
        identity: identity.clone(),
        name: "anvil".into(),
        secret: SystemSecret::from_bytes(SECRET),
        root: "root".into(),
        entropy: entropy(),
    });
    desk.set_invites(now(), invites);
    desk.set_members(&[row("anvil", identity)]);
    desk
}

fn row(name: &str, identity: &Identity) -> Row {
    Row { name: name.into(), key: identity.public(), addresses: vec!["192.0.2.9:5321".parse().unwrap()] }
}

fn invite(state: InviteState) -> Invite {
    Invite { id: InviteId([1; 8]), secret: random(&*entropy()), name: None, state }
}

fn open() -> InviteState {
    InviteState::Open(Duration::from_secs(60))
}

/// A desk at a socket of its own; candidates become members at once.
struct Inviter {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Desk>>,
}

impl Inviter {
    /// `lossy`: two of five datagrams are lost on the way here, and one of seven answers.
    fn start(mut desk: Desk, lossy: bool) -> Inviter {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                for candidate in desk.candidates() {
                    desk.settle(candidate.visit, Ok(()));
                }
                let Ok((size, from)) = socket.recv_from(&mut bytes) else { continue };
                count += 1;
                if lossy && count * 7 % 5 < 2 {
                    continue;
                }
                if let Some(answer) = desk.handle(now(), from, &bytes[..size])
                    && !(lossy && count % 7 == 0)
                {
                    let _ = socket.send_to(&answer, from);
                }
            }
            desk
        });
        Inviter { address, stop, thread: Some(thread) }
    }

    fn stop(mut self) -> Desk {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    fn token(&self, invite: &Invite, inviter: &Identity) -> Token {
        Token { id: invite.id, secret: invite.secret, key: inviter.public(), addresses: vec![self.address] }
    }
}

fn ask_as(name: &str, token: &Token, identity: &Identity) -> Result<(Joined, Pending), JoinError> {
    let addresses = ["127.0.0.1:7777".parse().unwrap()];
    ask(&AskConfig { token, identity, name, chosen: true, addresses: &addresses, entropy: entropy() })
}

#[test]
fn a_host_with_a_token_is_taken_in_once() {
    let (anvil, bolt, chisel) = (identity(), identity(), identity());
    let invite = invite(open());
    let inviter = Inviter::start(desk(&anvil, std::slice::from_ref(&invite)), false);
    let token = inviter.token(&invite, &anvil);
    let (joined, pending) = ask_as("bolt", &token, &bolt).unwrap();
    assert_eq!(joined.secret.to_bytes(), SECRET);
    assert_eq!((joined.name.as_str(), joined.inviter.as_str()), ("bolt", "anvil"));
    assert_eq!(joined.members, [row("anvil", &anvil)]);
    pending.confirm().unwrap();
    // It may not have heard that; another host may not have what it has.
    ask_as("bolt", &token, &bolt).unwrap().1.confirm().unwrap();
    let refused = ask_as("chisel", &token, &chisel).map(drop).unwrap_err();
    assert!(refused.to_string().contains("used already"), "{refused}");
    drop(inviter.stop());
}

#[test]
fn who_did_not_confirm_is_no_member_and_may_come_again() {
    let (anvil, bolt) = (identity(), identity());
    let invite = invite(open());
    let inviter = Inviter::start(desk(&anvil, std::slice::from_ref(&invite)), false);
    let token = inviter.token(&invite, &anvil);
    drop(ask_as("bolt", &token, &bolt).unwrap());
    drop(ask_as("bolt", &token, &bolt).unwrap());
    let desk = inviter.stop();
    assert!(desk.candidates().is_empty());
    let inviter = Inviter::start(desk, false);
    let token = inviter.token(&invite, &anvil);
    ask_as("bolt", &token, &bolt).unwrap().1.confirm().unwrap();
    drop(inviter.stop());
}

#[test]
fn lost_datagrams_only_take_time() {
    let (anvil, bolt) = (identity(), identity());
    let invite = invite(open());
    let inviter = Inviter::start(desk(&anvil, std::slice::from_ref(&invite)), true);
    let token = inviter.token(&invite, &anvil);
    ask_as("bolt", &token, &bolt).unwrap().1.confirm().unwrap();
    drop(inviter.stop());
}

#[test]
fn what_cannot_join_is_told_why() {
    let (anvil, bolt) = (identity(), identity());
    let why = |state: InviteState, name: &str| {
        let invite = invite(state);
        let inviter = Inviter::start(desk(&anvil, std::slice::from_ref(&invite)), false);
        let token = inviter.token(&invite, &anvil);
        let refused = ask_as(name, &token, &bolt).map(drop).unwrap_err();
        drop(inviter.stop());
        refused.to_string()
    };
    assert!(why(InviteState::Expired, "bolt").contains("time of this token is over"));
    assert!(why(InviteState::Revoked, "bolt").contains("revoked"));
    assert!(why(InviteState::Used(identity().public()), "bolt").contains("used already"));
    assert!(why(open(), "anvil").contains("a host called anvil is there already"));
    assert!(why(open(), "a/b").contains("cannot be a host's name"));
}

#[test]
fn an_invitation_may_say_the_name() {
    let (anvil, bolt) = (identity(), identity());
    let invite = Invite { name: Some("bolt".into()), ..invite(open()) };
    let inviter = Inviter::start(desk(&anvil, std::slice::from_ref(&invite)), false);
    let token = inviter.token(&invite, &anvil);
    let refused = ask_as("chisel", &token, &bolt).map(drop).unwrap_err().to_string();
    assert!(refused.contains("for a host called bolt"), "{refused}");
    let addresses = ["127.0.0.1:7777".parse().unwrap()];
    let config = AskConfig {
        token: &token,
        identity: &bolt,
        name: "machine",
        chosen: false,
        addresses: &addresses,
        entropy: entropy(),
    };
    let (joined, pending) = ask(&config).unwrap();
    assert_eq!(joined.name, "bolt");
    pending.confirm().unwrap();
    drop(inviter.stop());
}

#[test]
fn only_the_host_that_made_the_token_is_believed() {
    let (anvil, liar, bolt) = (identity(), identity(), identity());
    let invite = invite(open());
    // The liar has seen the token, but is not the host that it names.
    let inviter = Inviter::start(desk(&liar, std::slice::from_ref(&invite)), false);
    let token = inviter.token(&invite, &anvil);
    assert!(matches!(ask_as("bolt", &token, &bolt).map(drop), Err(JoinError::Stranger(_))));
    assert!(inviter.stop().candidates().is_empty());
}

#[test]
fn a_stranger_without_the_token_gets_nothing() {
    let (anvil, mallory) = (identity(), identity());
    let invite = invite(open());
    let mut desk = desk(&anvil, std::slice::from_ref(&invite));
    let from = "192.0.2.66:1000".parse().unwrap();
    let join = |secret: &[u8; 16], id| {
        let mut handshake =
            amoeba_seal::Handshake::join(&mallory, &amoeba_seal::Psk::of_token(secret), &entropy());
        let mut message = Vec::new();
        handshake.write(&[0; JOIN_PADDING], &mut message).unwrap();
        let tag = join_tag(secret, 5, id, &message);
        Datagram { attempt: 5, body: Body::Join { id, tag, message: &message } }.emit()
    };
    // The number of an invitation is no secret, and of no use.
    assert_eq!(desk.handle(now(), from, &join(&[0; 16], invite.id)), None);
    assert!(desk.expects(now()) && desk.visits() == 0);
    let unknown = desk.handle(now(), from, &join(&[0; 16], InviteId([9; 8]))).unwrap();
    let expected = Datagram { attempt: 5, body: Body::Refused { tag: [0; 16], why: Why::Unknown } };
    assert_eq!(Datagram::parse(&unknown), Ok(expected));
    assert_ne!(refused_tag(&[0; 16], 5, Why::Unknown), [0; 16]);
}

#[test]
fn a_flood_of_tokens_that_nobody_knows_keeps_nobody_out() {
    let (anvil, bolt) = (identity(), identity());
    let invite = invite(open());
    let mut desk = desk(&anvil, std::slice::from_ref(&invite));
    let from = "192.0.2.66:1000".parse().unwrap();
    let join = |secret: &[u8; 16], id, attempt| {
        let mut handshake =
            amoeba_seal::Handshake::join(&bolt, &amoeba_seal::Psk::of_token(secret), &entropy());
        let mut message = Vec::new();
        handshake.write(&[0; JOIN_PADDING], &mut message).unwrap();
        let tag = join_tag(secret, attempt, id, &message);
        Datagram { attempt, body: Body::Join { id, tag, message: &message } }.emit()
    };
    let (flood, honest) = (join(&[0; 16], InviteId([9; 8]), 1), join(&invite.secret, invite.id, 2));
    let forged = join(&[0; 16], invite.id, 3);
    let time = now();
    let answers = (0..1000).filter(|_| desk.handle(time, from, &flood).is_some()).count();
    assert_eq!(answers, 1, "it is not worth a second answer");
    assert!((0..1000).all(|_| desk.handle(time, from, &forged).is_none()) && desk.visits() == 0);
    assert!(desk.handle(time, from, &honest).is_some());
}

/// Somebody who comes to a desk by hand.
struct Visitor {
    attempt: u64,
    session: Session,
}

const FROM: &str = "192.0.2.66:1000";

fn join(invite: &Invite, identity: &Identity, attempt: u64) -> (Handshake, Vec<u8>) {
    let mut handshake = Handshake::join(identity, &Psk::of_token(&invite.secret), &entropy());
    let mut message = Vec::new();
    handshake.write(&[0; JOIN_PADDING], &mut message).unwrap();
    let tag = join_tag(&invite.secret, attempt, invite.id, &message);
    let datagram = Datagram { attempt, body: Body::Join { id: invite.id, tag, message: &message } }.emit();
    (handshake, datagram)
}

impl Visitor {
    /// Comes with a token and proves that it has it; `None` when the desk does not meet it.
    fn come(
        desk: &mut Desk,
        at: Instant,
        invite: &Invite,
        identity: &Identity,
        name: &str,
    ) -> Option<Visitor> {
        let attempt = u64::from_le_bytes(random(&*entropy()));
        let (mut handshake, datagram) = join(invite, identity, attempt);
        let meet = desk.handle(at, FROM.parse().unwrap(), &datagram)?;
        assert!(meet.len() <= datagram.len(), "who records a JOIN cannot make more of it");
        let Body::Meet { message } = Datagram::parse(&meet).unwrap().body else { return None };
        handshake.read(message).unwrap();
        let introduction = Introduction {
            name: name.into(),
            chosen: true,
            addresses: vec!["192.0.2.66:1".parse().unwrap()],
        };
        let mut message = Vec::new();
        handshake.write(&introduction.emit(), &mut message).unwrap();
        let prove = Datagram { attempt, body: Body::Prove { message: &message } }.emit();
        assert_eq!(desk.handle(at, FROM.parse().unwrap(), &prove), None);
        let keys = handshake.finish(Suite::ChaCha20Poly1305).unwrap();
        Some(Visitor { attempt, session: Session::new(at, &keys, 0) })
    }

    fn asks(&mut self, desk: &mut Desk, at: Instant, question: Question) -> Option<Answer> {
        let mut sealed = Vec::new();
        self.session.seal(at, &[&question.emit()], &mut sealed).unwrap();
        let datagram = Datagram { attempt: self.attempt, body: Body::Sealed { sealed: &sealed } }.emit();
        let answer = desk.handle(at, FROM.parse().unwrap(), &datagram)?;
        let Body::Sealed { sealed } = Datagram::parse(&answer).unwrap().body else { return None };
        let mut sealed = sealed.to_vec();
        Some(Answer::parse(self.session.open(at, &mut sealed).unwrap().content).unwrap())
    }

    fn is_told(&mut self, desk: &mut Desk, at: Instant) -> bool {
        matches!(self.asks(desk, at, Question::Welcome), Some(Answer::Welcome { .. }))
    }

    fn is_refused(&mut self, desk: &mut Desk, at: Instant, why: Why) -> bool {
        self.asks(desk, at, Question::Welcome) == Some(Answer::Useless(why))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an answer")
    }
}

fn settle_all(desk: &mut Desk) {
    desk.candidates().into_iter().for_each(|candidate| desk.settle(candidate.visit, Ok(())));
}

#[test]
fn two_hosts_with_one_token_are_not_both_told_the_secret() {
    let (anvil, bolt, chisel) = (identity(), identity(), identity());
    let (invite, time) = (invite(open()), now());
    let mut desk = desk(&anvil, std::slice::from_ref(&invite));
    let mut first = Visitor::come(&mut desk, time, &invite, &bolt, "bolt").unwrap();
    let mut second =
        Visitor::come(&mut desk, time + Duration::from_millis(20), &invite, &chisel, "chisel").unwrap();
    assert!(!first.is_told(&mut desk, time), "nobody is before it is noted that the token is his");
    assert!(!second.is_told(&mut desk, time));
    let confirmed: Vec<bool> = desk.candidates().iter().map(|candidate| candidate.confirmed).collect();
    assert_eq!(confirmed, [false, false]);
    settle_all(&mut desk);
    let told = [first.is_told(&mut desk, time), second.is_told(&mut desk, time)];
    assert_eq!(told.iter().filter(|told| **told).count(), 1);
    let other = if told[0] { &mut second } else { &mut first };
    assert!(other.is_refused(&mut desk, time, Why::Used));
    // A third one does not get what the first has not completed.
    let later = time + Duration::from_secs(1);
    let mut third = Visitor::come(&mut desk, later, &invite, &identity(), "drill").unwrap();
    assert!(third.is_refused(&mut desk, later, Why::Used) && desk.candidates().is_empty());
}

#[test]
fn who_came_in_time_is_told_nothing_when_the_token_is_over() {
    let (anvil, bolt) = (identity(), identity());
    let time = now();
    for (state, why) in [
        (InviteState::Revoked, Why::Revoked),
        (InviteState::Expired, Why::Expired),
        (InviteState::Taken(identity().public(), Duration::from_secs(60)), Why::Used),
        (InviteState::Used(identity().public()), Why::Used),
    ] {
        let invite = invite(open());
        let mut desk = desk(&anvil, std::slice::from_ref(&invite));
        let mut visitor = Visitor::come(&mut desk, time, &invite, &bolt, "bolt").unwrap();
        desk.set_invites(time, &[Invite { state, ..invite.clone() }]);
        assert!(visitor.is_refused(&mut desk, time, why));
        // The same when it was noted already, and when only the time has passed.
        desk.set_invites(time, std::slice::from_ref(&invite));
        let later = time + Duration::from_secs(1);
        let mut visitor = Visitor::come(&mut desk, later, &invite, &bolt, "bolt").unwrap();
        visitor.is_told(&mut desk, later);
        settle_all(&mut desk);
        assert!(visitor.is_told(&mut desk, later));
        let over = time + Duration::from_secs(61);
        assert!(visitor.is_refused(&mut desk, over, Why::Expired));
    }
}

#[test]
fn a_host_that_was_removed_does_not_come_back_with_its_token() {
    let (anvil, bolt) = (identity(), identity());
    let (invite, time) = (invite(open()), now());
    let mut desk = desk(&anvil, std::slice::from_ref(&invite));
    let mut visitor = Visitor::come(&mut desk, time, &invite, &bolt, "bolt").unwrap();
    visitor.is_told(&mut desk, time);
    settle_all(&mut desk);
    assert!(visitor.is_told(&mut desk, time));
    assert!(visitor.asks(&mut desk, time, Question::Confirm) == Some(Answer::Wait));
    settle_all(&mut desk);
    assert!(visitor.asks(&mut desk, time, Question::Confirm) == Some(Answer::Done));
    // It may not have heard that, and come again; nobody has to do anything for it.
    let later = time + Duration::from_secs(1);
    let mut again = Visitor::come(&mut desk, later, &invite, &bolt, "bolt").unwrap();
    assert!(again.is_told(&mut desk, later) && desk.candidates().is_empty());
    assert!(again.asks(&mut desk, later, Question::Confirm) == Some(Answer::Done));
    // The system removes it.
    desk.set_members(&[row("anvil", &anvil)]);
    assert!(again.is_refused(&mut desk, later, Why::Used));
    assert!(visitor.asks(&mut desk, later, Question::Members(0)) == Some(Answer::Useless(Why::Used)));
    let much_later = later + Duration::from_secs(1);
    assert!(Visitor::come(&mut desk, much_later, &invite, &bolt, "bolt").is_none(), "it is refused at once");
}

#[test]
fn a_copied_identity_does_not_get_a_name_of_its_own() {
    let (anvil, bolt) = (identity(), identity());
    let invite = invite(open());
    let mut desk = desk(&anvil, std::slice::from_ref(&invite));
    desk.set_members(&[row("anvil", &anvil), row("bolt", &bolt)]);
    let inviter = Inviter::start(desk, false);
    let token = inviter.token(&invite, &anvil);
    for (copied, name) in [(&bolt, "chisel"), (&anvil, "chisel")] {
        let refused = ask_as(name, &token, copied).map(drop).unwrap_err().to_string();
        assert!(refused.contains("the identity of this host is that of"), "{refused}");
    }
    drop(inviter.stop());
}

#[test]
fn who_floods_with_one_token_is_not_in_the_way_of_another() {
    let (anvil, mallory, bolt) = (identity(), identity(), identity());
    let leaked = invite(open());
    let good = Invite { id: InviteId([2; 8]), ..invite(open()) };
    let mut desk = desk(&anvil, &[leaked.clone(), good.clone()]);
    let mut time = now();
    let flood = |desk: &mut Desk, time: Instant, attempt: u64| {
        desk.handle(time, FROM.parse().unwrap(), &join(&leaked, &mallory, attempt).1);
    };
    flood(&mut desk, time, 0);
    let mut visitor = Visitor::come(&mut desk, time, &good, &bolt, "bolt").expect("it is met at once");
    for attempt in 1..100 {
        time = time + Duration::from_millis(11);
        flood(&mut desk, time, attempt);
    }
    visitor.is_told(&mut desk, time);
    settle_all(&mut desk);
    assert!(visitor.is_told(&mut desk, time), "its visit goes on");
    assert!(desk.visits() < VISITS_MAX);
}

#[test]
fn visits_are_bounded() {
    let anvil = identity();
    let invites: Vec<Invite> =
        (0..INVITES_MAX as u8).map(|id| Invite { id: InviteId([id; 8]), ..invite(open()) }).collect();
    let mut desk = desk(&anvil, &invites);
    let mut time = Instant::from_epoch(Duration::from_secs(1000));
    desk.set_invites(time, &invites);
    for attempt in 0..200 {
        let invite = &invites[attempt as usize % invites.len()];
        time = time + Duration::from_millis(11);
        let bytes = join(invite, &anvil, attempt).1;
        assert!(desk.handle(time, FROM.parse().unwrap(), &bytes).is_some());
        assert!(desk.visits() <= VISITS_MAX);
    }
    assert_eq!(desk.visits(), VISITS_MAX);
    time = time + Duration::from_secs(3600);
    assert_eq!(desk.handle(time, FROM.parse().unwrap(), b""), None);
}

#[test]
fn no_datagram_panics_at_the_desk() {
    let anvil = identity();
    let desk = std::sync::Mutex::new(std::panic::AssertUnwindSafe(desk(&anvil, &[invite(open())])));
    let from = "192.0.2.66:1000".parse().unwrap();
    bolero::check!().for_each(|bytes: &[u8]| {
        desk.lock().unwrap().handle(now(), from, bytes);
    });
}

fn identity() -> Identity {
    Identity::generate(&*entropy())
}
