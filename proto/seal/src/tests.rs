//! Two ends, and somebody who has everything that was ever sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_threads::Instant;
use amoeba_world::Entropy;
use proptest::prelude::*;

use super::*;

/// Randomness that everybody can compute again.
pub(crate) struct Counting(AtomicU64);

impl Counting {
    pub(crate) fn new(seed: u64) -> Counting {
        Counting(AtomicU64::new(seed))
    }
}

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(bytes);
    }
}

pub(crate) fn at(millis: u64) -> Instant {
    Instant::from_epoch(Duration::from_millis(millis))
}

fn entropy(seed: u64) -> Arc<dyn Entropy> {
    Arc::new(Counting::new(seed))
}

fn secret(byte: u8) -> SystemSecret {
    SystemSecret::from_bytes([byte; 32])
}

fn identity(byte: u8) -> Identity {
    Identity::from_bytes([byte; 32])
}

/// Carries messages between the ends until both are finished; the payloads as they arrived.
fn shake(one: &mut Handshake, other: &mut Handshake) -> Result<Vec<Vec<u8>>, HandshakeError> {
    let mut payloads = Vec::new();
    for turn in 0.. {
        let (from, to) = if turn % 2 == 0 { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
        if from.is_finished() {
            break;
        }
        let mut message = Vec::new();
        from.write(format!("payload {turn}").as_bytes(), &mut message)?;
        payloads.push(to.read(&message)?);
    }
    Ok(payloads)
}

/// Two ends of a session; each finds the other by the number 7.
fn pair(suite: Suite) -> (Session, Session) {
    let (one, other) = flow_keys(&Counting::new(1), suite);
    (Session::new(at(0), &one, 7), Session::new(at(0), &other, 7))
}

fn seal(session: &mut Session, now: u64, text: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    session.seal(at(now), &[text], &mut datagram).unwrap();
    datagram
}

fn open(session: &mut Session, now: u64, datagram: &[u8]) -> Result<Vec<u8>, Unopened> {
    let mut datagram = datagram.to_vec();
    session.open(at(now), &mut datagram).map(|opened| opened.content.to_vec())
}

#[test]
fn hosts_that_know_each_other_get_the_same_keys() {
    let psk = Psk::of_system(&secret(1));
    let mut caller = Handshake::call(&identity(2), &identity(3).public(), &psk, &entropy(10));
    let mut answerer = Handshake::answer(&identity(3), &psk, &entropy(20));
    let payloads = shake(&mut caller, &mut answerer).unwrap();
    assert_eq!(payloads, [b"payload 0", b"payload 1"]);
    assert_eq!(answerer.peer(), Some(identity(2).public()));
    let keys = [caller.finish(Suite::Aes256Gcm).unwrap(), answerer.finish(Suite::Aes256Gcm).unwrap()];
    let [mut one, mut other] = keys.map(|keys| Session::new(at(0), &keys, 1));
    let there = seal(&mut one, 0, b"there");
    assert_eq!(open(&mut other, 0, &there).unwrap(), b"there");
    assert_eq!(open(&mut one, 0, &there), Err(Unopened::Forged), "the directions have keys of their own");
    let back = seal(&mut other, 0, b"back");
    assert_eq!(open(&mut one, 0, &back).unwrap(), b"back");
}

#[test]
fn a_host_joins_with_the_token_and_only_with_it() {
    let psk = Psk::of_token(&[9; 16]);
    let mut joins = Handshake::join(&identity(2), &psk, &entropy(10));
    let mut admits = Handshake::admit(&identity(3), &psk, &entropy(20));
    assert_eq!(shake(&mut joins, &mut admits).unwrap().len(), 3);
    assert_eq!((joins.peer(), admits.peer()), (Some(identity(3).public()), Some(identity(2).public())));
    let mut stranger = Handshake::join(&identity(2), &Psk::of_token(&[8; 16]), &entropy(10));
    let mut admits = Handshake::admit(&identity(3), &psk, &entropy(20));
    assert_eq!(shake(&mut stranger, &mut admits), Err(HandshakeError::Forged));
    assert!(!admits.is_finished());
}

#[test]
fn neither_another_system_nor_another_host_gets_through() {
    let psk = Psk::of_system(&secret(1));
    let mut answerer = Handshake::answer(&identity(3), &psk, &entropy(20));
    let mut caller =
        Handshake::call(&identity(2), &identity(3).public(), &Psk::of_system(&secret(2)), &entropy(1));
    assert_eq!(shake(&mut caller, &mut answerer), Err(HandshakeError::Forged));
    let mut answerer = Handshake::answer(&identity(3), &psk, &entropy(20));
    let mut caller = Handshake::call(&identity(2), &identity(4).public(), &psk, &entropy(1));
    assert_eq!(shake(&mut caller, &mut answerer), Err(HandshakeError::Forged));
}

#[test]
fn a_forged_message_changes_nothing_and_turns_are_kept() {
    let psk = Psk::of_system(&secret(1));
    let mut caller = Handshake::call(&identity(2), &identity(3).public(), &psk, &entropy(10));
    let mut answerer = Handshake::answer(&identity(3), &psk, &entropy(20));
    let mut message = Vec::new();
    assert_eq!(caller.read(&[]), Err(HandshakeError::OutOfTurn));
    assert_eq!(caller.write(&[0; HANDSHAKE_SIZE_MAX], &mut message), Err(HandshakeError::TooLarge));
    assert!(message.is_empty());
    caller.write(b"", &mut message).unwrap();
    answerer.read(&message).unwrap();
    let mut reply = Vec::new();
    answerer.write(b"", &mut reply).unwrap();
    for at in 0..reply.len() {
        let mut forged = reply.clone();
        forged[at] ^= 1;
        assert_eq!(caller.read(&forged), Err(HandshakeError::Forged));
    }
    assert_eq!(caller.read(&vec![0; HANDSHAKE_SIZE_MAX + 1]), Err(HandshakeError::TooLarge));
    caller.read(&reply).unwrap();
    assert_eq!(caller.write(b"", &mut message), Err(HandshakeError::OutOfTurn));
    let early = Handshake::answer(&identity(3), &psk, &entropy(20));
    assert!(matches!(early.finish(Suite::Aes256Gcm), Err(HandshakeError::OutOfTurn)));
}

#[test]
fn a_burst_is_opened_when_all_of_it_is_there_and_under_its_own_kind() {
    let (mut one, mut other) = pair(Suite::Aes256Gcm);
    let text = vec![9; 40_000];
    let mut burst = Vec::new();
    one.seal_burst(at(0), b"head", &[&text[..10], &text[10..]], &mut burst).unwrap();
    assert_eq!(unproven(&burst).map(|bytes| &bytes[..4]), Some(&b"head"[..]));
    assert_eq!(burst_size(&burst), Some(burst.len()));
    assert_eq!(receiver_of(&burst), None, "no link takes it");
    assert_eq!(open(&mut other, 0, &burst[..39_999]), Err(Unopened::Malformed));
    let mut out = vec![0; 40_000];
    for (place, byte) in
        [(0, SEALED_KIND), (1, 3), (1, 255), (2, burst[2] ^ 1), (17, b'x'), (5000, burst[5000] ^ 1)]
    {
        let mut changed = burst.clone();
        changed[place] = byte;
        assert!(!other.open_burst_into(&changed, &mut out));
        assert!(open(&mut other, 0, &changed).is_err());
    }
    let mut as_datagram = burst.clone();
    as_datagram[..4].copy_from_slice(&[SEALED_KIND, 0, 0, 0]);
    assert_eq!(open(&mut other, 0, &as_datagram), Err(Unopened::Forged));
    assert_eq!(open(&mut other, 0, &burst), Ok([&b"head"[..], &text].concat()));
    assert_eq!(open(&mut other, 0, &burst), Err(Unopened::Replayed));
    let mut second = Vec::new();
    one.seal_burst(at(0), b"head", &[&text], &mut second).unwrap();
    assert!(!other.open_burst_into(&second, &mut out[1..]) && !other.open_burst_into(&burst, &mut out));
    assert!(other.open_burst_into(&second, &mut out) && out == text);
    assert_eq!(open(&mut other, 0, &second), Err(Unopened::Replayed));
}

#[test]
fn many_datagrams_share_a_buffer() {
    let (mut one, mut other) = pair(Suite::Aes256Gcm);
    let mut buffer = Vec::with_capacity(64 << 10);
    let room = buffer.as_ptr();
    for number in 0..40u8 {
        one.seal(at(0), &[&[number], &[number; 1000]], &mut buffer).unwrap();
    }
    assert_eq!(buffer.as_ptr(), room, "nothing was allocated");
    for (number, datagram) in buffer.chunks_mut(1001 + SEALED_OVERHEAD).enumerate() {
        assert_eq!(receiver_of(datagram), Some(7));
        let opened = other.open(at(0), datagram).unwrap();
        assert!(opened.newest && *opened.content == [number as u8; 1001]);
    }
}

#[test]
fn every_datagram_is_opened_once_and_none_that_was_changed() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let (mut one, mut other) = pair(suite);
        let datagram = seal(&mut one, 0, b"once");
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let result = open(&mut other, 0, &changed);
            // The receiver's number is the link's business, but it is sealed all the same.
            assert!(matches!(result, Err(Unopened::Forged | Unopened::Malformed)), "{bit}: {result:?}");
        }
        assert_eq!(open(&mut other, 0, &datagram).unwrap(), b"once");
        assert_eq!(open(&mut other, 0, &datagram), Err(Unopened::Replayed));
        for size in 0..datagram.len() {
            assert!(open(&mut other, 0, &datagram[..size]).is_err());
        }
    }
}

#[test]
fn keys_roll_by_time_and_nothing_under_way_is_lost() {
    let (mut one, mut other) = pair(Suite::Aes256Gcm);
    let life = EPOCH_LIFE.as_millis() as u64;
    let late = seal(&mut one, 0, b"late");
    let first = seal(&mut one, 1, b"first");
    assert_eq!(open(&mut other, 1, &first).unwrap(), b"first");
    let second = seal(&mut one, life, b"second");
    assert_eq!(one.counter(), EPOCH_PACKETS_MAX + 1, "the rest of the epoch is left out");
    assert_eq!(open(&mut other, life, &second).unwrap(), b"second");
    assert_eq!(open(&mut other, life, &second), Err(Unopened::Replayed));
    assert_eq!(open(&mut other, life, &first), Err(Unopened::Replayed));
    assert_eq!(open(&mut other, life + 1, &late).unwrap(), b"late");
    let lost = seal(&mut one, life, b"too late");
    let later = seal(&mut one, 2 * life, b"third");
    assert_eq!(open(&mut other, 2 * life, &later).unwrap(), b"third");
    let gone = 2 * life + PREVIOUS_LIFE.as_millis() as u64;
    assert_eq!(open(&mut other, gone, &lost), Err(Unopened::Replayed));
    assert!(open(&mut other, gone, &first).is_err());
}

#[test]
fn a_receiver_that_missed_epochs_catches_up_but_not_with_any_number() {
    let (mut one, mut other) = pair(Suite::ChaCha20Poly1305);
    let life = EPOCH_LIFE.as_millis() as u64;
    let datagrams: Vec<_> = (0..8).map(|epoch| seal(&mut one, epoch * life, &[epoch as u8])).collect();
    assert_eq!(open(&mut other, 0, &datagrams[5]), Err(Unopened::Forged), "five epochs ahead is nobody");
    assert_eq!(open(&mut other, 0, &datagrams[4]).unwrap(), [4]);
    assert_eq!(open(&mut other, 0, &datagrams[7]).unwrap(), [7]);
    assert_eq!(open(&mut other, 0, &datagrams[5]), Err(Unopened::Replayed));
}

#[test]
fn keys_roll_by_datagrams_and_by_bytes() {
    let (mut one, mut other) = pair(Suite::Aes256Gcm);
    one.leave_out(EPOCH_PACKETS_MAX - 1);
    let (last, first) = (seal(&mut one, 0, b"the last"), seal(&mut one, 0, b"the first"));
    assert_eq!(one.counter(), EPOCH_PACKETS_MAX + 1, "no counter is left out");
    assert_eq!(open(&mut other, 0, &first).unwrap(), b"the first");
    assert_eq!(open(&mut other, 0, &last).unwrap(), b"the last");
    one.count_bytes(EPOCH_BYTES_MAX);
    let next = seal(&mut one, 0, b"of the next key");
    assert_eq!(one.counter(), 2 * EPOCH_PACKETS_MAX + 1);
    assert_eq!(open(&mut other, 0, &next).unwrap(), b"of the next key");
}

#[test]
fn a_session_ends_before_its_counters_do() {
    let (mut one, _) = pair(Suite::Aes256Gcm);
    one.leave_out(COUNTERS - 2);
    seal(&mut one, 0, b"the last but one");
    seal(&mut one, 0, b"the last");
    let mut nothing = Vec::new();
    assert_eq!(one.seal(at(0), &[b"one too many"], &mut nothing), Err(Exhausted));
    assert!(nothing.is_empty());
}

const COUNTERS: u64 = 1 << 62;

#[test]
fn a_forger_cannot_make_a_receiver_roll() {
    let (mut one, mut other) = pair(Suite::Aes256Gcm);
    let mut forged = seal(&mut one, 0, b"x");
    forged[8..16].copy_from_slice(&(2 * EPOCH_PACKETS_MAX).to_le_bytes());
    assert_eq!(open(&mut other, 0, &forged), Err(Unopened::Forged));
    let honest = seal(&mut one, 0, b"honest");
    assert_eq!(open(&mut other, 0, &honest).unwrap(), b"honest");
}

#[test]
fn keys_travel_as_bytes_and_are_not_printed() {
    let (keys, _) = flow_keys(&Counting::new(3), Suite::ChaCha20Poly1305);
    let bytes = keys.to_bytes();
    let again = Keys::from_bytes(&bytes).unwrap();
    assert_eq!((again.to_bytes(), again.suite()), (bytes, Suite::ChaCha20Poly1305));
    assert_eq!(format!("{keys:?}"), "Keys(ChaCha20Poly1305)");
    assert!(Keys::from_bytes(&[0; KEYS_SIZE]).is_none());
}

#[test]
fn the_suite_is_the_fast_one_of_both() {
    let (aes, none) = (Suites::AES, Suites::empty());
    assert_eq!(Suite::agreed(aes, aes), Suite::Aes256Gcm);
    assert_eq!(Suite::agreed(aes, none), Suite::ChaCha20Poly1305);
    assert_eq!(Suite::agreed(Suites::from_bits_retain(0xFF), aes), Suite::Aes256Gcm);
}

/// The formats, byte for byte: whoever changes one of these changes what other hosts understand.
#[test]
fn golden_datagrams() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let gate = Gate::of_system(at(0), &secret(1), &Counting::new(1));
    let knock = Knock {
        asker: 0x0403_0201,
        tag: Knock::tag_of(&secret(1), &identity(2).public()),
        life: 5,
        stamp: 6,
        cookie: [7; 16],
    };
    let challenge = Challenge { asker: 1, cookie: [2; 16] };
    let call = Call { caller: 1, noise: b"noise", cookie: NO_COOKIE };
    let answer = Answer { answerer: 1, caller: 2, noise: b"noise" };
    assert_eq!(hex(&knock.emit(&gate)), GOLDEN_KNOCK);
    assert_eq!(hex(&challenge.emit(&gate)), GOLDEN_COOKIE);
    assert_eq!(hex(&call.emit(&gate)), GOLDEN_CALL);
    assert_eq!(hex(&answer.emit(&gate)), GOLDEN_ANSWER);
    assert_eq!(hex(&Removed { asker: 1 }.emit(&gate)), GOLDEN_REMOVED);
    for (suite, golden) in [(Suite::Aes256Gcm, GOLDEN_AES), (Suite::ChaCha20Poly1305, GOLDEN_CHACHA)] {
        let keys = Keys::new(suite, [1; 32], [2; 32]);
        let mut session = Session::new(at(0), &keys, 0x0403_0201);
        seal(&mut session, 0, b"the first");
        assert_eq!(hex(&seal(&mut session, 0, b"sealed")), golden);
    }
    let psk = Psk::of_system(&secret(1));
    let mut caller = Handshake::call(&identity(2), &identity(3).public(), &psk, &entropy(10));
    let mut message = Vec::new();
    let hosts = Hosts { stamp: 1, life: 2, window: 3, suites: Suites::AES };
    caller.write(&hosts.emit(), &mut message).unwrap();
    assert_eq!(hex(&message), GOLDEN_NOISE);
}

const GOLDEN_KNOCK: &str = "14000000010203046ec8908e94e34c656b6927ffaedb056b0500000000000000060000000000000007070707\
    070707070707070707070707fb7a07628b3af3c385c32bc07611b133";
const GOLDEN_COOKIE: &str =
    "130000000100000002020202020202020202020202020202c60ffb276c31ba7faa5232ccdfc56f7a";
const GOLDEN_CALL: &str = "11000000010000006e6f6973650000000000000000000000000000000033361bad95e6652ad0008fd27637d7\
    66";
const GOLDEN_ANSWER: &str = "1200000001000000020000006e6f6973655429f2409051afa42bd719bcf8eb7fd9";
const GOLDEN_REMOVED: &str = "150000000100000043502af37ca93d7b225b1405c1466bb1";
const GOLDEN_AES: &str = "10000000010203040100000000000000caced27f0cf448cccc544c7f3848b0dc373e719be3ec";
const GOLDEN_CHACHA: &str = "100000000102030401000000000000002c0c1448d71b887a9cfb574493a7973331b6a87e892c";
const GOLDEN_NOISE: &str = "760654f2f988ca78df4bd44f24fd3044d4046ca2f7d86cd76eab9a0661d5be2d9306d0710b227c58da5c5951\
    e42e5926d06ae4de161fc2daa16df308377d957fff15a105322488b307dd09bd7210c3f5900ab14366213c5e\
    fac375f95660376bbd5ad7c9b4dc4e460edf22f4ec6001f65761cceaec";

#[test]
fn what_is_emitted_is_parsed_and_only_under_its_kind_and_key() {
    let gate = Gate::of_system(at(0), &secret(1), &Counting::new(1));
    let knock = Knock { asker: 1, tag: [2; 16], life: 3, stamp: 4, cookie: [5; 16] };
    let challenge = Challenge { asker: 1, cookie: [2; 16] };
    let call = Call { caller: 1, noise: b"noise", cookie: [3; 16] };
    let answer = Answer { answerer: 1, caller: 2, noise: b"noise" };
    let datagrams = [knock.emit(&gate), challenge.emit(&gate), call.emit(&gate), answer.emit(&gate)];
    assert_eq!(Knock::parse(&gate, &datagrams[0]), Ok(knock));
    assert_eq!(Challenge::parse(&gate, &datagrams[1]), Ok(challenge));
    assert_eq!(Call::parse(&gate, &datagrams[2]), Ok(call));
    assert_eq!(Answer::parse(&gate, &datagrams[3]), Ok(answer));
    assert_eq!(Removed::parse(&gate, &Removed { asker: 9 }.emit(&gate)), Ok(Removed { asker: 9 }));
    assert!(Call::parse(&gate, &datagrams[3]).is_err() && Knock::parse(&gate, &datagrams[1]).is_err());
    let other = Gate::of_system(at(0), &secret(2), &Counting::new(1));
    assert!(Call::parse(&other, &datagrams[2]).is_err());
    let hosts = Hosts { stamp: 1, life: 2, window: 3, suites: Suites::AES };
    assert_eq!(Hosts::parse(&hosts.emit()), Ok(hosts));
    assert_eq!(Hosts::parse(&[hosts.emit(), vec![1, 2, 3]].concat()), Ok(hosts), "later versions add to it");
}

#[test]
fn no_bytes_panic_whatever_they_pretend_to_be() {
    let gate = Gate::of_system(at(0), &secret(1), &Counting::new(1));
    let psk = Psk::of_system(&secret(1));
    let (mut one, mut other) = pair(Suite::Aes256Gcm);
    let honest = seal(&mut one, 0, &[3; 40]);
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut sealed = [&[SEALED_KIND, 0, 0, 0][..], bytes].concat();
        assert!(other.open(at(0), &mut sealed).is_err());
        let mut mutated = honest.clone();
        mutated.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
        assert!(mutated == honest || other.open(at(0), &mut mutated).is_err());
        let _ = (other.open(at(0), &mut bytes.to_vec()), Hosts::parse(bytes), receiver_of(bytes));
        for kind in [CALL_KIND, ANSWER_KIND, COOKIE_KIND, KNOCK_KIND, REMOVED_KIND] {
            let mut datagram = [&[kind, 0, 0, 0][..], bytes].concat();
            let mac = gate.mac(&datagram);
            datagram.extend(mac); // a member of the system may be hostile in what it says, too
            let _ = (Call::parse(&gate, &datagram), Answer::parse(&gate, &datagram));
            let _ = (Challenge::parse(&gate, &datagram), Knock::parse(&gate, &datagram));
            let _ = Removed::parse(&gate, &datagram);
            assert!(Call::parse(&gate, bytes).is_err());
        }
    });
    bolero::check!().with_iterations(300).for_each(|bytes: &[u8]| {
        let mut answerer = Handshake::answer(&identity(3), &psk, &entropy(20));
        assert!(answerer.read(bytes).is_err());
        let mut caller = Handshake::call(&identity(2), &identity(3).public(), &psk, &entropy(10));
        caller.write(bytes.get(..100).unwrap_or(bytes), &mut Vec::new()).unwrap();
        assert!(caller.read(bytes).is_err());
        let mut admits = Handshake::admit(&identity(3), &psk, &entropy(20));
        assert!(admits.read(bytes).is_err());
        let mut joins = Handshake::join(&identity(3), &psk, &entropy(20));
        joins.write(b"", &mut Vec::new()).unwrap();
        assert!(joins.read(bytes).is_err());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the network does, what is opened was sealed, and each is opened at most once; what is not overtaken by
    /// too many, or by time, is opened.
    #[test]
    fn a_network_that_loses_doubles_and_reorders(
        steps in prop::collection::vec((0u8..8, 0u64..40_000, 0usize..64), 1..400),
    ) {
        let (mut one, mut other) = pair(Suite::Aes256Gcm);
        let (mut now, mut sent, mut under_way) = (0, 0u64, Vec::new());
        let mut opened = BTreeSet::new();
        for (kind, time, which) in steps {
            match kind {
                0 => now += time,
                1..=4 => {
                    under_way.push((sent, now, seal(&mut one, now, &sent.to_le_bytes())));
                    sent += 1;
                }
                _ if under_way.is_empty() => {}
                5 => drop(under_way.remove(which % under_way.len())),
                _ => {
                    let (number, since, datagram) = under_way[which % under_way.len()].clone();
                    match open(&mut other, now, &datagram) {
                        Ok(content) => {
                            prop_assert_eq!(content, number.to_le_bytes());
                            prop_assert!(opened.insert(number), "{} was opened twice", number);
                        }
                        Err(error) => {
                            let fresh = now - since < PREVIOUS_LIFE.as_millis() as u64;
                            let behind = sent - number >= EPOCHS_ENOUGH;
                            prop_assert!(opened.contains(&number) || !fresh || behind, "{number}: {error}");
                        }
                    }
                }
            }
        }
    }
}

/// More datagrams than this may have taken the receiver further than it follows back.
const EPOCHS_ENOUGH: u64 = 400;
