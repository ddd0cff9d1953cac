//! The keys of hosts.

use std::fmt;
use std::str::FromStr;

use amoeba_world::{Entropy, random};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

/// Bytes of a private key, and of a public one.
pub const KEY_SIZE: usize = 32;

/// A host's X25519 key pair. It is made when the host gets its state and never leaves it; it is wiped when dropped and
/// never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Identity {
    private: [u8; KEY_SIZE],
    #[zeroize(skip)]
    public: PublicKey,
}

/// What a host is known by: the public half of its identity. As text: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_SIZE]);

/// The text is not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is {} hexadecimal digits", KEY_SIZE * 2)]
pub struct ParseKeyError;

impl Identity {
    /// A new identity.
    pub fn generate(entropy: &dyn Entropy) -> Identity {
        Identity::from_bytes(random(entropy))
    }

    /// The identity with this private key, as it is kept with mode 0600.
    pub fn from_bytes(private: [u8; KEY_SIZE]) -> Identity {
        let mut curve = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("the curve is compiled in");
        curve.set(&private);
        let public =
            PublicKey(*curve.pubkey().first_chunk().expect("public keys of the curve have 32 bytes"));
        Identity { private, public }
    }

    /// The private key, to be stored with mode 0600.
    pub fn to_bytes(&self) -> [u8; KEY_SIZE] {
        self.private
    }

    /// What others know the host by.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn private(&self) -> &[u8; KEY_SIZE] {
        &self.private
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

impl PublicKey {
    /// The key in these bytes.
    pub fn from_bytes(bytes: [u8; KEY_SIZE]) -> PublicKey {
        PublicKey(bytes)
    }

    /// The key's bytes.
    pub fn to_bytes(&self) -> [u8; KEY_SIZE] {
        self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }

    /// The first 16 digits, for people to compare.
    pub fn fingerprint(&self) -> String {
        self.to_string()[..16].to_owned()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<PublicKey, ParseKeyError> {
        let digits = text.as_bytes();
        if digits.len() != KEY_SIZE * 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(ParseKeyError);
        }
        let mut key = [0; KEY_SIZE];
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            let digit =
                |digit: u8| char::from(digit).to_digit(16).expect("only digits were let through") as u8;
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Ok(PublicKey(key))
    }
}

/// Whether two secrets of the same size are equal, in a time that does not tell where they differ.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// 32 bytes that follow from `secret` for this purpose alone.
pub(crate) fn derive(purpose: &str, secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(purpose, secret)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
    const ALICE_PUBLIC: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";

    #[test]
    fn the_public_key_is_that_of_rfc_7748() {
        let private: PublicKey = ALICE.parse().unwrap();
        let identity = Identity::from_bytes(private.to_bytes());
        assert_eq!(identity.public().to_string(), ALICE_PUBLIC);
        assert_eq!(identity.to_bytes(), private.to_bytes());
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let private: PublicKey = ALICE.parse().unwrap();
        let text = format!("{:?}", Identity::from_bytes(private.to_bytes()));
        assert!(text.contains(&ALICE_PUBLIC[..16]) && !text.contains(&ALICE[..8]), "{text}");
    }

    proptest! {
        #[test]
        fn keys_are_read_as_they_are_written(bytes: [u8; KEY_SIZE]) {
            let key = PublicKey::from_bytes(bytes);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
            prop_assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<PublicKey>();
        }
    }
}
