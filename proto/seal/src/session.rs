//! Sealed datagrams between two ends that have the same keys.
//!
//! ```text
//! | 0x10 | 0 | 0 | 0 | receiver 4 | counter 8 | ciphertext | tag 16 |     a datagram
//! | 0x18 | clear 1 | size 2 | receiver 4 | counter 8 | clear bytes | ciphertext | tag 16 |     a burst
//! ```
//!
//! Integers are little-endian. `receiver` is a number that the receiving end chose: it finds the session by it. The 16
//! bytes of the head are authenticated, all that follows is encrypted. A *burst* is one seal for what travels as many datagrams:
//! `size` is that of the whole burst, which is cut after it was sealed, so it is opened when all of it is there, or never. So
//! many bytes as `clear` says are authenticated but not encrypted: they say where the rest belongs, so that it can be
//! decrypted there. The nonce is the counter; no counter is ever used
//! twice with a key.
//!
//! **Keys roll without a word.** The counter's upper bits are the *epoch*: each has a key of its own, which follows from
//! the secret of its epoch, as does the secret of the next; the way back does not exist. The sender goes to the next
//! epoch when it has sealed enough or long enough with a key; the receiver follows as soon as a datagram of that epoch
//! proves itself, and takes those of the epoch before for a while longer.

use std::fmt;
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_world::{Entropy, random};
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::identity::derive;
use crate::window::Window;

/// The first byte of a sealed datagram.
pub const SEALED_KIND: u8 = 0x10;
/// The first byte of a sealed burst.
const BURST_KIND: u8 = 0x18;
/// Bytes of the largest sealed burst.
pub const BURST_SIZE_MAX: usize = u16::MAX as usize;
/// Bytes before the ciphertext.
pub const HEAD_SIZE: usize = 16;
/// Bytes of the proof at the end.
pub const TAG_SIZE: usize = 16;
/// What sealing adds to the bytes that are sealed.
pub const SEALED_OVERHEAD: usize = HEAD_SIZE + TAG_SIZE;
/// Bytes of [`Keys`].
pub const KEYS_SIZE: usize = 65;

/// Datagrams that one key seals.
pub const EPOCH_PACKETS_MAX: u64 = 1 << EPOCH_BITS;
/// Bytes that one key seals, up to the last datagram.
pub const EPOCH_BYTES_MAX: u64 = 1 << 36;
/// How long one key seals.
pub const EPOCH_LIFE: Duration = Duration::from_secs(120);
/// How long datagrams of the epoch before are still opened.
pub const PREVIOUS_LIFE: Duration = Duration::from_secs(10);

/// The lower bits of a counter.
const EPOCH_BITS: u32 = 22;
/// Epochs that the receiver may have missed; each costs two hashes to follow.
const EPOCHS_AHEAD_MAX: u64 = 4;
/// The last part of what has none.
const NOTHING: &[u8] = &[];
/// Counters end here, long before they would wrap.
const COUNTER_MAX: u64 = 1 << 62;

const KEY: &str = "amoeba 1 key of an epoch";
const NEXT: &str = "amoeba 1 secret of the next epoch";

/// What seals datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-256-GCM: where the processor has instructions for it.
    Aes256Gcm,
    /// ChaCha20-Poly1305: everywhere else.
    ChaCha20Poly1305,
}

bitflags::bitflags! {
    /// The suites that a host is fast with; every host can do both.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Suites: u8 {
        /// It has instructions for AES.
        const AES = 1;
        const _ = !0;
    }
}

impl Suite {
    /// The suite for two ends that are fast with these.
    pub fn agreed(one: Suites, other: Suites) -> Suite {
        match (one & other).contains(Suites::AES) {
            true => Suite::Aes256Gcm,
            false => Suite::ChaCha20Poly1305,
        }
    }

    fn number(self) -> u8 {
        match self {
            Suite::Aes256Gcm => 1,
            Suite::ChaCha20Poly1305 => 2,
        }
    }

    fn from_number(number: u8) -> Option<Suite> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().find(|suite| suite.number() == number)
    }
}

/// The secrets of one end of a session; wiped when dropped, never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Keys {
    #[zeroize(skip)]
    suite: Suite,
    outward: [u8; 32],
    inward: [u8; 32],
}

impl Keys {
    pub(crate) fn new(suite: Suite, outward: [u8; 32], inward: [u8; 32]) -> Keys {
        Keys { suite, outward, inward }
    }

    /// The secrets as bytes, to be carried in a sealed datagram or over a kernel's socket: suite, outward, inward.
    pub fn to_bytes(&self) -> [u8; KEYS_SIZE] {
        let mut bytes = [0; KEYS_SIZE];
        bytes[0] = self.suite.number();
        bytes[1..33].copy_from_slice(&self.outward);
        bytes[33..].copy_from_slice(&self.inward);
        bytes
    }

    /// The secrets in these bytes; `None` for a suite that is not known.
    pub fn from_bytes(bytes: &[u8; KEYS_SIZE]) -> Option<Keys> {
        let half = |at: usize| *bytes[at..].first_chunk().expect("the size is that of both");
        Some(Keys { suite: Suite::from_number(bytes[0])?, outward: half(1), inward: half(33) })
    }

    /// What seals with them.
    pub fn suite(&self) -> Suite {
        self.suite
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.suite)
    }
}

/// Fresh keys for both ends of a flow between two processes.
pub fn flow_keys(entropy: &dyn Entropy, suite: Suite) -> (Keys, Keys) {
    let (one, other): ([u8; 32], [u8; 32]) = (random(entropy), random(entropy));
    (Keys::new(suite, one, other), Keys::new(suite, other, one))
}

/// The session has sealed all it may, which is more than anybody sends: it must be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has no more counters")]
pub struct Exhausted;

/// The datagram is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unopened {
    /// Not a sealed datagram.
    #[error("not a sealed datagram")]
    Malformed,
    /// It was here already, or is too old to say.
    #[error("a datagram that was here already")]
    Replayed,
    /// Not sealed by the other end, or changed on the way.
    #[error("a datagram that the other end did not seal")]
    Forged,
}

/// A datagram that was opened.
#[derive(Debug)]
pub struct Opened<'a> {
    /// What was sealed; of a burst, behind the bytes that are clear.
    pub content: &'a mut [u8],
    /// Whether no later one was opened before: then where it came from is where the other end is.
    pub newest: bool,
}

/// The number that names the receiver's session, if these are the bytes of a sealed datagram.
pub fn receiver_of(datagram: &[u8]) -> Option<u32> {
    if datagram.len() < SEALED_OVERHEAD || datagram[..4] != [SEALED_KIND, 0, 0, 0] {
        return None;
    }
    datagram[4..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Bytes of the sealed burst that these bytes begin, which may be more than are here.
pub fn burst_size(bytes: &[u8]) -> Option<usize> {
    match bytes.first_chunk::<HEAD_SIZE>()? {
        [BURST_KIND, _, low, high, ..] => Some(u16::from_le_bytes([*low, *high]).into()),
        _ => None,
    }
}

/// The bytes of a whole burst between its head and its tag: those that are clear, and behind them what is encrypted. Nobody has
/// proven them.
pub fn unproven(burst: &[u8]) -> Option<&[u8]> {
    let size = burst_size(burst).filter(|size| *size == burst.len())?;
    burst.get(HEAD_SIZE..size.checked_sub(TAG_SIZE)?)
}

/// One end of a session.
pub struct Session {
    suite: Suite,
    receiver: u32,
    outward: Outward,
    current: Inward,
    previous: Option<(Inward, Instant)>,
}

struct Outward {
    secret: EpochSecret,
    key: LessSafeKey,
    counter: u64,
    since: Instant,
    bytes: u64,
}

struct Inward {
    epoch: u64,
    secret: EpochSecret,
    key: LessSafeKey,
    window: Window,
}

/// What the key of an epoch and the secret of the next follow from.
#[derive(ZeroizeOnDrop)]
struct EpochSecret([u8; 32]);

impl EpochSecret {
    fn key(&self, suite: Suite) -> LessSafeKey {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let mut bytes = derive(KEY, &self.0);
        let key = UnboundKey::new(algorithm, &bytes).expect("keys of both suites have 32 bytes");
        bytes.zeroize();
        LessSafeKey::new(key)
    }

    fn next(&self) -> EpochSecret {
        EpochSecret(derive(NEXT, &self.0))
    }
}

impl Session {
    /// A session with these keys; `receiver` is the number by which the other end finds it.
    pub fn new(now: Instant, keys: &Keys, receiver: u32) -> Session {
        let suite = keys.suite;
        let outward = EpochSecret(keys.outward);
        let outward = Outward { key: outward.key(suite), secret: outward, counter: 0, since: now, bytes: 0 };
        let current = Inward::new(suite, 0, EpochSecret(keys.inward));
        Session { suite, receiver, outward, current, previous: None }
    }

    /// What seals.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Datagrams that were sealed, or would have been had no key rolled early.
    pub fn counter(&self) -> u64 {
        self.outward.counter
    }

    /// Goes on at this counter, as if all before it had been sealed.
    #[cfg(test)]
    pub(crate) fn leave_out(&mut self, counter: u64) {
        self.outward.counter = counter;
    }

    /// Counts bytes as if they had been sealed.
    #[cfg(test)]
    pub(crate) fn count_bytes(&mut self, count: u64) {
        self.outward.bytes += count;
    }

    /// The bytes of `parts` one after the other, sealed: [`SEALED_OVERHEAD`] more, appended to `out`. Many datagrams may
    /// follow each other in one buffer; where it has room, nothing is allocated. The last part is read once, while it is
    /// encrypted: it may be long, and cold.
    ///
    /// # Errors
    /// [`Exhausted`]; nothing is appended then.
    pub fn seal(&mut self, now: Instant, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.seal_as([SEALED_KIND, 0, 0, 0], now, &[], parts, out)
    }

    /// As [`Session::seal`], for a burst of at most [`BURST_SIZE_MAX`] bytes when it is sealed. The bytes of `clear`, at most
    /// 255, come first, and can be read by anybody.
    ///
    /// # Errors
    /// [`Exhausted`]; nothing is appended then.
    pub fn seal_burst(
        &mut self,
        now: Instant,
        clear: &[u8],
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        let size = SEALED_OVERHEAD + clear.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        let [low, high] =
            u16::try_from(size).expect("a burst has at most BURST_SIZE_MAX bytes").to_le_bytes();
        let clear_size = u8::try_from(clear.len()).expect("at most 255 bytes of a burst are clear");
        self.seal_as([BURST_KIND, clear_size, low, high], now, clear, parts, out)
    }

    fn seal_as(
        &mut self,
        kind: [u8; 4],
        now: Instant,
        clear: &[u8],
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let counter = self.outward.next(now, self.suite, size)?;
        let mut head = [0; HEAD_SIZE];
        head[..4].copy_from_slice(&kind);
        head[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        head[8..].copy_from_slice(&counter.to_le_bytes());
        out.reserve(size + clear.len() + SEALED_OVERHEAD);
        let begin = out.len();
        out.extend_from_slice(&head);
        out.extend_from_slice(clear);
        let (last, first) = parts.split_last().unwrap_or((&NOTHING, &[]));
        let start = out.len();
        for part in first {
            out.extend_from_slice(part);
        }
        let encrypted = out.len();
        out.resize(encrypted + last.len() + TAG_SIZE, 0);
        let (proven, rest) = out[begin..].split_at_mut(start - begin);
        let (first, rest) = rest.split_at_mut(encrypted - start);
        let key = &self.outward.key;
        let sealed = key.seal_in_place_scatter(nonce(counter), Aad::from(&*proven), first, last, rest);
        sealed.expect("a datagram is far smaller than what the suites can seal");
        Ok(())
    }

    /// Opens a burst into `out`, which has as many bytes as were encrypted; false where it is not that simple, and then
    /// [`Session::open`] says what it is. What `out` was is lost in any case.
    pub fn open_burst_into(&mut self, burst: &[u8], out: &mut [u8]) -> bool {
        let Some(unproven) = unproven(burst) else { return false };
        let clear_size = usize::from(burst[1]);
        if unproven.len() != clear_size + out.len() {
            return false;
        }
        let counter = u64::from_le_bytes(*burst[8..].first_chunk().expect("the head has 16 bytes"));
        let inward = &mut self.current;
        if counter >> EPOCH_BITS != inward.epoch || inward.window.has(counter) {
            return false;
        }
        let (proven, sealed) = burst.split_at(HEAD_SIZE + clear_size);
        let (text, tag) = sealed.split_at(out.len());
        let opened = inward.key.open_separate_gather(nonce(counter), Aad::from(proven), text, tag, out);
        if opened.is_ok() {
            inward.window.insert(counter);
        }
        opened.is_ok()
    }

    /// Opens a datagram or a burst in its place. What is refused has changed nothing but the bytes of the datagram.
    ///
    /// # Errors
    /// See [`Unopened`].
    pub fn open<'a>(&mut self, now: Instant, datagram: &'a mut [u8]) -> Result<Opened<'a>, Unopened> {
        let is_burst = datagram.len() >= SEALED_OVERHEAD && burst_size(datagram) == Some(datagram.len());
        if receiver_of(datagram).is_none() && !is_burst {
            return Err(Unopened::Malformed);
        }
        let clear_size = if is_burst { usize::from(datagram[1]) } else { 0 };
        let counter = u64::from_le_bytes(*datagram[8..].first_chunk().expect("the head has 16 bytes"));
        let sealed = Sealed { counter, clear_size, datagram };
        let epoch = counter >> EPOCH_BITS;
        if self.previous.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.previous = None;
        }
        if epoch == self.current.epoch {
            return self.current.open(sealed);
        }
        if let Some((previous, _)) = self.previous.as_mut().filter(|(previous, _)| previous.epoch == epoch) {
            let mut opened = previous.open(sealed)?;
            opened.newest = false;
            return Ok(opened);
        }
        if epoch < self.current.epoch {
            return Err(Unopened::Replayed);
        }
        let mut ahead = self.current.ahead(self.suite, epoch).ok_or(Unopened::Forged)?;
        let opened = ahead.open(sealed)?;
        let last = std::mem::replace(&mut self.current, ahead);
        self.previous = Some((last, now + PREVIOUS_LIFE));
        Ok(opened)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Outward {
    /// The counter for a datagram of `size` bytes, after the key has rolled if it was its time.
    fn next(&mut self, now: Instant, suite: Suite, size: usize) -> Result<u64, Exhausted> {
        let used = !self.counter.is_multiple_of(EPOCH_PACKETS_MAX);
        let worn = self.bytes >= EPOCH_BYTES_MAX || now.since(self.since) >= EPOCH_LIFE;
        let first = if used && worn {
            (self.counter | (EPOCH_PACKETS_MAX - 1)) + 1 // the rest of the epoch's counters is left out
        } else {
            self.counter
        };
        if first >= COUNTER_MAX {
            return Err(Exhausted);
        }
        if first.is_multiple_of(EPOCH_PACKETS_MAX) {
            if first != 0 {
                self.secret = self.secret.next();
                self.key = self.secret.key(suite);
            }
            (self.since, self.bytes) = (now, 0);
        }
        self.counter = first + 1;
        self.bytes += size as u64;
        Ok(first)
    }
}

impl Inward {
    fn new(suite: Suite, epoch: u64, secret: EpochSecret) -> Inward {
        Inward { epoch, key: secret.key(suite), secret, window: Window::new(epoch << EPOCH_BITS) }
    }

    /// This direction in a later epoch, unless that is too far ahead.
    fn ahead(&self, suite: Suite, epoch: u64) -> Option<Inward> {
        let steps = epoch - self.epoch;
        if steps > EPOCHS_AHEAD_MAX {
            return None;
        }
        let secret = (1..steps).fold(self.secret.next(), |secret, _| secret.next());
        Some(Inward::new(suite, epoch, secret))
    }

    fn open<'a>(&mut self, sealed: Sealed<'a>) -> Result<Opened<'a>, Unopened> {
        let Sealed { counter, clear_size, datagram } = sealed;
        if self.window.has(counter) {
            return Err(Unopened::Replayed);
        }
        let parts = datagram.split_at_mut_checked(HEAD_SIZE + clear_size);
        let (proven, sealed) = parts.ok_or(Unopened::Malformed)?;
        let opened = self.key.open_in_place(nonce(counter), Aad::from(&*proven), sealed);
        opened.map_err(|_| Unopened::Forged)?;
        let newest = self.window.is_newest(counter);
        self.window.insert(counter);
        let end = datagram.len() - TAG_SIZE;
        Ok(Opened { content: &mut datagram[HEAD_SIZE..end], newest })
    }
}

/// A datagram or a burst that is to be opened.
struct Sealed<'a> {
    counter: u64,
    /// Bytes behind the head that are not encrypted.
    clear_size: usize,
    datagram: &'a mut [u8],
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
