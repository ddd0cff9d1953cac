//! The two Noise patterns: between hosts that know each other, and of a host that joins.
//!
//! Noise's own cipher and hash are ChaCha20-Poly1305 and BLAKE2s; which suite seals the datagrams afterwards is agreed
//! inside. The prologue names this version and the purpose, so no message of one handshake means anything in another.

use std::sync::Arc;

use amoeba_cap::SystemSecret;
use amoeba_world::Entropy;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::identity::{Identity, PublicKey, derive};
use crate::session::{Keys, Suite};

/// Bytes of one Noise message, payload included.
pub const HANDSHAKE_SIZE_MAX: usize = 1024;

const HOSTS: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const JOINING: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
const HOSTS_PROLOGUE: &[u8] = b"amoeba 1 hosts";
const JOINING_PROLOGUE: &[u8] = b"amoeba 1 joining";

/// A secret that both ends of a handshake have besides their identities.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

/// The handshake failed: the message was not made for it by somebody who has the keys, or it came out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The message cannot be read: forged, damaged, or of another handshake.
    #[error("the message is not of this handshake")]
    Forged,
    /// More than [`HANDSHAKE_SIZE_MAX`] bytes.
    #[error("a message of a handshake has at most {HANDSHAKE_SIZE_MAX} bytes")]
    TooLarge,
    /// It is the other end's turn, or the handshake is over, or not over yet.
    #[error("out of turn")]
    OutOfTurn,
}

/// One end of a handshake: messages are written and read in turn, the caller's or joiner's first.
pub struct Handshake {
    state: Box<HandshakeState>,
}

impl Psk {
    /// What all hosts of a system have.
    pub fn of_system(secret: &SystemSecret) -> Psk {
        let mut bytes = secret.to_bytes();
        let psk = Psk(derive("amoeba 1 handshake between hosts of a system", &bytes));
        bytes.zeroize();
        psk
    }

    /// What a token gives: its 128 bits are all the secret there is.
    pub fn of_token(token: &[u8; 16]) -> Psk {
        let mut padded = [0; 32];
        padded[..16].copy_from_slice(token);
        let psk = Psk(derive("amoeba 1 handshake of a host that joins with a token", &padded));
        padded.zeroize();
        psk
    }
}

impl Handshake {
    /// `IKpsk2`, the end that begins: it knows the other's key. Two messages: [`Handshake::write`], then
    /// [`Handshake::read`].
    pub fn call(own: &Identity, peer: &PublicKey, psk: &Psk, entropy: &Arc<dyn Entropy>) -> Handshake {
        Handshake::new(HOSTS, HOSTS_PROLOGUE, own, Some(peer), psk, entropy, true)
    }

    /// `IKpsk2`, the end that is called: it hears who calls from the first message.
    pub fn answer(own: &Identity, psk: &Psk, entropy: &Arc<dyn Entropy>) -> Handshake {
        Handshake::new(HOSTS, HOSTS_PROLOGUE, own, None, psk, entropy, false)
    }

    /// `XXpsk3`, the host that joins. Three messages: write, read, write. After the read it must compare
    /// [`Handshake::peer`] with the key that its token names.
    pub fn join(own: &Identity, psk: &Psk, entropy: &Arc<dyn Entropy>) -> Handshake {
        Handshake::new(JOINING, JOINING_PROLOGUE, own, None, psk, entropy, true)
    }

    /// `XXpsk3`, the host that takes it in: read, write, read. Only the third message proves that the other has the
    /// token; its payload may be believed, those before it may not.
    pub fn admit(own: &Identity, psk: &Psk, entropy: &Arc<dyn Entropy>) -> Handshake {
        Handshake::new(JOINING, JOINING_PROLOGUE, own, None, psk, entropy, false)
    }

    fn new(
        pattern: &str,
        prologue: &[u8],
        own: &Identity,
        peer: Option<&PublicKey>,
        psk: &Psk,
        entropy: &Arc<dyn Entropy>,
        begins: bool,
    ) -> Handshake {
        let pattern = pattern.parse().expect("the pattern is one that snow knows");
        let builder = Builder::with_resolver(pattern, Box::new(Resolver(entropy.clone())));
        let position = if prologue == HOSTS_PROLOGUE { 2 } else { 3 };
        let build = || {
            let mut builder =
                builder.prologue(prologue)?.local_private_key(own.private())?.psk(position, &psk.0)?;
            if let Some(peer) = peer {
                builder = builder.remote_public_key(peer.as_bytes())?;
            }
            if begins { builder.build_initiator() } else { builder.build_responder() }
        };
        let state = build().expect("everything that the pattern needs was given");
        Handshake { state: Box::new(state) }
    }

    /// Appends the next message, with `payload` inside it, to `out`.
    ///
    /// # Errors
    /// `OutOfTurn`, `TooLarge`. Nothing is appended then.
    pub fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        if !self.state.is_my_turn() || self.state.is_handshake_finished() {
            return Err(HandshakeError::OutOfTurn);
        }
        let start = out.len();
        out.resize(start + HANDSHAKE_SIZE_MAX, 0);
        let written = self.state.write_message(payload, &mut out[start..]);
        out.truncate(start + *written.as_ref().unwrap_or(&0));
        written.map(|_| ()).map_err(|_| HandshakeError::TooLarge)
    }

    /// The payload of the other's next message. A message that cannot be read changes nothing: the right one may still
    /// come.
    ///
    /// # Errors
    /// `Forged`, `OutOfTurn`, `TooLarge`.
    pub fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        if self.state.is_my_turn() || self.state.is_handshake_finished() {
            return Err(HandshakeError::OutOfTurn);
        }
        if message.len() > HANDSHAKE_SIZE_MAX {
            return Err(HandshakeError::TooLarge);
        }
        let mut payload = vec![0; HANDSHAKE_SIZE_MAX];
        let size = self.state.read_message(message, &mut payload).map_err(|_| HandshakeError::Forged)?;
        payload.truncate(size);
        Ok(payload)
    }

    /// The other's identity, as soon as a message has told it.
    pub fn peer(&self) -> Option<PublicKey> {
        let key = self.state.get_remote_static()?;
        Some(PublicKey::from_bytes(*key.first_chunk()?))
    }

    /// Whether every message was written and read.
    pub fn is_finished(&self) -> bool {
        self.state.is_handshake_finished()
    }

    /// The keys that both ends have now, for datagrams of this suite.
    ///
    /// # Errors
    /// `OutOfTurn` when the handshake is not finished.
    pub fn finish(mut self, suite: Suite) -> Result<Keys, HandshakeError> {
        if !self.is_finished() {
            return Err(HandshakeError::OutOfTurn);
        }
        let (mut first, mut second) = self.state.dangerously_get_raw_split();
        let keys = match self.state.is_initiator() {
            true => Keys::new(suite, first, second),
            false => Keys::new(suite, second, first),
        };
        first.zeroize();
        second.zeroize();
        Ok(keys)
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

/// What snow computes with: its own functions, and our randomness.
struct Resolver(Arc<dyn Entropy>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Randomness(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Randomness(Arc<dyn Entropy>);

impl Random for Randomness {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}
