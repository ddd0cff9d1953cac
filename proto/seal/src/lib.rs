//! Who a host is, and datagrams that only the other end can read.
//!
//! Every host has an [`Identity`]. Two hosts of one system shake hands by Noise `IKpsk2` ([`Handshake::call`],
//! [`Handshake::answer`]); a host that joins one does so by `XXpsk3` with a token ([`Handshake::join`],
//! [`Handshake::admit`]). What comes out are [`Keys`], and with them a [`Session`] seals datagrams and opens them: counter
//! nonces, a window against replays, keys that roll without a word being said. A flow between two processes needs no
//! handshake: their kernels draw its keys ([`flow_keys`]) and hand them over in sealed datagrams of their own.
//!
//! Sans I/O: it is told the time and bytes, and gives bytes. Randomness comes from [`amoeba_world::Entropy`] alone, that
//! of the Noise handshakes too, so `sim` can run all of it from a seed. It knows no sockets, no peers and no timers: who
//! is greeted when, and which session counts, is the link's business.
//!
//! Modules: `identity` the keys of hosts, `handshake` the two Noise patterns, `gate` what a handshake datagram must have
//! before any Diffie-Hellman is spent on it, `greeting` the datagrams of handshakes between hosts, `session` sealed
//! datagrams, `window` which of them were there already. The formats and the reasons are in `docs/sealing.md`.
//!
//! # Source
//! Ours, after Perrin: The Noise Protocol Framework; Donenfeld: WireGuard.
#![forbid(unsafe_code)]

mod gate;
mod greeting;
mod handshake;
mod identity;
mod session;
#[cfg(test)]
mod tests;
mod window;

pub use gate::{COOKIE_LIFE, COOKIE_SIZE, Cookie, Gate, MAC_SIZE, NO_COOKIE};
pub use greeting::{
    ANSWER_KIND, Answer, CALL_KIND, COOKIE_KIND, Call, Challenge, GREETING_SIZE_MAX, Hosts, KNOCK_KIND,
    Knock, Lead, REMOVED_KIND, Removed, STRANGER_KIND, STRANGER_KIND_MAX, Tag,
};
pub use handshake::{HANDSHAKE_SIZE_MAX, Handshake, HandshakeError, Psk};
pub use identity::{Identity, KEY_SIZE, ParseKeyError, PublicKey, is_same};
pub use session::{
    BURST_SIZE_MAX, EPOCH_BYTES_MAX, EPOCH_LIFE, EPOCH_PACKETS_MAX, Exhausted, HEAD_SIZE, KEYS_SIZE, Keys,
    Opened, PREVIOUS_LIFE, SEALED_KIND, SEALED_OVERHEAD, Session, Suite, Suites, TAG_SIZE, Unopened,
    burst_size, flow_keys, receiver_of, unproven,
};
pub use window::WINDOW_SIZE;
