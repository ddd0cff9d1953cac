//! What a datagram of a handshake must have before any Diffie-Hellman is spent on it.
//!
//! First a **MAC** under a key that only members of the system have, or only who has the token: strangers make none, so
//! garbage costs one hash, and strangers hear nothing at all. Then a **cookie**: a proof that the sender received, a
//! moment ago, what was sent to the address that it claims. A recorded datagram has an old one, so it costs two hashes
//! and one small answer. The cookie is a MAC over the address under a secret that the receiver draws anew every minute:
//! it keeps nothing for anybody. Last, a **memory** of what was taken lately: a copy sent again within the cookie's life
//! is known. So Diffie-Hellman is spent once for each datagram that who has the key made, and for no address faster than
//! a host that means well needs it: one that was removed still has the key. However many addresses that one has, where hosts
//! of the system are said to be there is a budget of their own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_threads::Instant;
use amoeba_world::{Entropy, random};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::identity::{derive, is_same};

/// Bytes of a MAC.
pub const MAC_SIZE: usize = 16;
/// Bytes of a cookie.
pub const COOKIE_SIZE: usize = 16;
/// A cookie is taken for at least so long, and at most twice as long.
pub const COOKIE_LIFE: Duration = Duration::from_secs(60);
/// What a datagram has that knows no cookie yet.
pub const NO_COOKIE: Cookie = [0; COOKIE_SIZE];

/// Datagrams that are remembered; past it the oldest is forgotten.
const TAKEN_MAX: usize = 1024;
/// Handshakes that may be begun at once, and how fast they may follow: each costs four Diffie-Hellmans. Sources where a host
/// is expected have as many again.
const BUDGET_MAX: u32 = 256;
const BUDGET_INTERVAL: Duration = Duration::from_millis(4);
/// Handshakes of one source (an IPv4 address, or 64 bits of an IPv6 address) in [`SOURCE_TIME`].
const SOURCE_MAX: u32 = 16;
const SOURCE_TIME: Duration = Duration::from_secs(1);
/// Sources that are counted; past it others wait for the next [`SOURCE_TIME`].
const SOURCES_MAX: usize = 1024;

/// A proof that somebody receives at an address.
pub type Cookie = [u8; COOKIE_SIZE];

/// See the module's head. One gate guards the datagrams of one key.
pub struct Gate {
    key: Key,
    secrets: [Key; 2],
    rotated: Instant,
    taken: VecDeque<[u8; MAC_SIZE]>,
    is_taken: BTreeSet<[u8; MAC_SIZE]>,
    earned: Instant,
    counted: Instant,
    /// Of sources that may be anybody's, and of those where a host is expected.
    shares: [Share; 2],
}

struct Share {
    budget: u32,
    sources: BTreeMap<[u8; 8], u32>,
}

#[derive(ZeroizeOnDrop)]
struct Key([u8; 32]);

impl Gate {
    /// The gate of a system: its hosts have the key.
    pub fn of_system(now: Instant, secret: &SystemSecret, entropy: &dyn Entropy) -> Gate {
        let mut bytes = secret.to_bytes();
        let key = Key(derive("amoeba 1 mac of handshakes between hosts", &bytes));
        bytes.zeroize();
        Gate::new(now, key, entropy)
    }

    /// The gate of a token: who was given it has the key.
    pub fn of_token(now: Instant, token: &[u8; 16], entropy: &dyn Entropy) -> Gate {
        let mut padded = [0; 32];
        padded[..16].copy_from_slice(token);
        let key = Key(derive("amoeba 1 mac of joining with a token", &padded));
        padded.zeroize();
        Gate::new(now, key, entropy)
    }

    fn new(now: Instant, key: Key, entropy: &dyn Entropy) -> Gate {
        Gate {
            key,
            secrets: [Key(random(entropy)), Key(random(entropy))],
            rotated: now,
            taken: VecDeque::new(),
            is_taken: BTreeSet::new(),
            earned: now,
            counted: now,
            shares: [(); 2].map(|()| Share { budget: BUDGET_MAX, sources: BTreeMap::new() }),
        }
    }

    /// The MAC of these bytes.
    pub fn mac(&self, bytes: &[u8]) -> [u8; MAC_SIZE] {
        mac(&self.key, bytes)
    }

    /// The bytes before the MAC that ends them, if it is right.
    pub fn verify<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (body, end) = datagram.split_last_chunk::<MAC_SIZE>()?;
        is_same(&self.mac(body), end).then_some(body)
    }

    /// The cookie for who is at `source` (the bytes of an address). From time to time `entropy` is asked for a new
    /// secret.
    pub fn cookie(&mut self, now: Instant, source: &[u8], entropy: &dyn Entropy) -> Cookie {
        self.rotate(now, entropy);
        mac(&self.secrets[0], source)
    }

    /// Whether this is a cookie that was given to `source` a short while ago.
    pub fn is_fresh(&mut self, now: Instant, source: &[u8], cookie: &Cookie, entropy: &dyn Entropy) -> bool {
        self.rotate(now, entropy);
        self.secrets.iter().any(|secret| is_same(&mac(secret, source), cookie))
    }

    /// Whether Diffie-Hellman may be spent on this datagram, whose MAC and cookie are right: not on a copy, and not
    /// faster than a host bears, in all and from one `source` (the bytes of an address, the significant ones first).
    /// `expected`: a host of the system is said to be there.
    pub fn admit(&mut self, now: Instant, source: &[u8], expected: bool, datagram: &[u8]) -> bool {
        let Some(mac) = datagram.last_chunk::<MAC_SIZE>() else { return false };
        self.earn(now);
        if self.is_taken.contains(mac) || !self.shares[usize::from(expected)].spend(source) {
            return false;
        }
        self.is_taken.insert(*mac);
        self.taken.push_back(*mac);
        if self.taken.len() > TAKEN_MAX {
            let oldest = self.taken.pop_front().expect("there are more than none");
            self.is_taken.remove(&oldest);
        }
        true
    }

    fn earn(&mut self, now: Instant) {
        let ticks = now.since(self.earned).as_nanos() / BUDGET_INTERVAL.as_nanos();
        if ticks > 0 {
            let ticks = u32::try_from(ticks).unwrap_or(BUDGET_MAX).min(BUDGET_MAX);
            for share in &mut self.shares {
                share.budget = (share.budget + ticks).min(BUDGET_MAX);
            }
            self.earned = now;
        }
        if now.since(self.counted) >= SOURCE_TIME {
            self.counted = now;
            self.shares.iter_mut().for_each(|share| share.sources.clear());
        }
    }

    fn rotate(&mut self, now: Instant, entropy: &dyn Entropy) {
        let age = now.since(self.rotated);
        if age >= COOKIE_LIFE {
            self.rotated = now;
            self.secrets.swap(0, 1);
            self.secrets[0] = Key(random(entropy));
        }
        if age >= COOKIE_LIFE * 2 {
            self.secrets[1] = Key(random(entropy)); // nobody asked for so long that the last one is too old, too
        }
    }
}

impl Share {
    /// One more handshake of this source; false when it has had its share.
    fn spend(&mut self, source: &[u8]) -> bool {
        let mut name = [0; 8];
        let size = source.len().min(8);
        name[..size].copy_from_slice(&source[..size]);
        let is_full = self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&name);
        if self.budget == 0 || is_full {
            return false;
        }
        let count = self.sources.entry(name).or_insert(0);
        *count += 1;
        let within = *count <= SOURCE_MAX;
        self.budget -= u32::from(within);
        within
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("taken", &self.taken.len()).finish_non_exhaustive()
    }
}

fn mac(key: &Key, bytes: &[u8]) -> [u8; 16] {
    let hash = blake3::keyed_hash(&key.0, bytes);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Counting, at};

    fn gate(now: Instant) -> Gate {
        Gate::of_system(now, &SystemSecret::from_bytes([7; 32]), &Counting::new(1))
    }

    #[test]
    fn a_cookie_is_of_one_address_and_ages() {
        let entropy = Counting::new(50);
        let mut gate = gate(at(0));
        let cookie = gate.cookie(at(0), b"here", &entropy);
        assert!(gate.is_fresh(at(0), b"here", &cookie, &entropy));
        assert!(!gate.is_fresh(at(0), b"there", &cookie, &entropy));
        assert!(!gate.is_fresh(at(0), b"here", &NO_COOKIE, &entropy));
        assert!(gate.is_fresh(at(70_000), b"here", &cookie, &entropy), "one secret ago");
        assert_ne!(gate.cookie(at(70_000), b"here", &entropy), cookie);
        assert!(!gate.is_fresh(at(140_000), b"here", &cookie, &entropy), "two secrets ago");
        let cookie = gate.cookie(at(140_000), b"here", &entropy);
        assert!(!gate.is_fresh(at(400_000), b"here", &cookie, &entropy), "nobody asked in between");
    }

    #[test]
    fn copies_and_floods_are_not_admitted_and_what_is_kept_is_bounded() {
        let mut gate = gate(at(0));
        let datagram = |number: u64| [&[0; 20][..], &number.to_le_bytes(), &[0; 8]].concat();
        assert!(
            gate.admit(at(0), b"first", false, &datagram(0))
                && !gate.admit(at(0), b"first", false, &datagram(0))
        );
        let mut admitted = |source: &dyn Fn(u64) -> u64, from: u64| {
            let mut admit = |number: u64| {
                gate.admit(at(from), &source(number).to_be_bytes(), false, &datagram(from + number))
            };
            (1..5000).filter(|number| admit(*number)).count()
        };
        assert_eq!(admitted(&|_| 7, 0), SOURCE_MAX as usize, "one source has its share");
        assert_eq!(admitted(&|number| number, 10_000), BUDGET_MAX as usize, "and so have all");
        for number in 20_000..30_000u64 {
            assert!(gate.admit(at(number * 100), b"slow", false, &datagram(number)), "{number}");
        }
        assert!(gate.taken.len() == TAKEN_MAX && gate.is_taken.len() == TAKEN_MAX);
        assert!(!gate.admit(at(30_000_000), b"slow", false, &datagram(29_500)), "it is remembered");
        assert!(!gate.admit(at(30_000_000), b"slow", true, &datagram(29_500)), "wherever it comes from");
        assert!(gate.shares.iter().all(|share| share.sources.len() <= SOURCES_MAX));
    }

    #[test]
    fn no_number_of_sources_keeps_an_expected_host_out() {
        let mut gate = gate(at(0));
        let datagram = |number: u64| [&[0; 20][..], &number.to_le_bytes(), &[0; 8]].concat();
        let flood = |gate: &mut Gate, from: u64| {
            (from..from + 5000)
                .filter(|number| gate.admit(at(0), &number.to_be_bytes(), false, &datagram(*number)))
                .count()
        };
        assert!(flood(&mut gate, 10_000) < 5000);
        assert!(!gate.admit(at(0), b"anybody", false, &datagram(1)), "it was one too many");
        assert!(gate.admit(at(0), b"host", true, &datagram(2)));
        let more = (20_000..30_000).filter(|number| gate.admit(at(0), b"host", true, &datagram(*number)));
        assert_eq!(more.count() + 1, SOURCE_MAX as usize, "and that one has its share, too");
    }

    #[test]
    fn only_the_key_makes_macs() {
        let (one, mut bytes) = (gate(at(0)), b"something".to_vec());
        let other = Gate::of_token(at(0), &[7; 16], &Counting::new(1));
        bytes.extend(one.mac(&bytes));
        assert_eq!(one.verify(&bytes), Some(&b"something"[..]));
        assert_eq!(other.verify(&bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(one.verify(&changed), None);
        }
        assert_eq!(one.verify(&bytes[..15]), None);
    }
}
