//! The two keyed one-way functions that protect a system: F for ports, and the check field of capabilities.
//!
//! Both are the first 48 bits of BLAKE3 under a 32-byte key. A 48-bit value under a public function could be
//! searched off line in hours; under a key it can only be guessed on line, one transaction at a time.
//!
//! # Source
//! Ours. The original's unkeyed functions are in [`crate::classic`].

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Capability, CheckField, GetPort, ObjectNumber, PORT_SIZE, Private, PutPort, Rights};

/// Bytes of a secret.
pub const SECRET_SIZE: usize = 32;

/// The key of a whole system: every kernel of the system has it, nobody else.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SystemSecret([u8; SECRET_SIZE]);

impl SystemSecret {
    /// The secret in these bytes.
    pub fn from_bytes(bytes: [u8; SECRET_SIZE]) -> SystemSecret {
        SystemSecret(bytes)
    }

    /// The bytes, to be stored with mode 0600.
    pub fn to_bytes(&self) -> [u8; SECRET_SIZE] {
        self.0
    }

    /// F: the put-port of a get-port. The null port maps to the null port, no other port does.
    pub fn put_port(&self, port: &GetPort) -> PutPort {
        if port.is_null() {
            return PutPort::NULL;
        }
        let mut image = keyed(&self.0, &[b"port", &port.to_bytes()]);
        if image == [0; PORT_SIZE] {
            image[0] = 1;
        }
        PutPort::from_bytes(image)
    }

    /// The public image of a private FLIP address: 7 bytes one-way, the space byte carried over.
    pub fn public_address(&self, private: [u8; 8]) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"flip").update(&private);
        let hash = hasher.finalize();
        let mut public = [0; 8];
        public[..7].copy_from_slice(&hash.as_bytes()[..7]);
        public[7] = private[7];
        if public[..7] == [0; 7] {
            public[0] = 1;
        }
        public
    }

    /// 128 bits over `bytes` that only who has the secret can make; tags for different purposes have nothing in common.
    pub fn tag(&self, purpose: &[u8; 8], bytes: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"tag").update(purpose).update(bytes);
        let hash = hasher.finalize();
        std::array::from_fn(|index| hash.as_bytes()[index])
    }
}

/// The key of one server: makes and verifies the check fields of its objects.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ServerSecret([u8; SECRET_SIZE]);

impl ServerSecret {
    /// The secret in these bytes.
    pub fn from_bytes(bytes: [u8; SECRET_SIZE]) -> ServerSecret {
        ServerSecret(bytes)
    }

    /// The bytes, to be stored where only the server reads them.
    pub fn to_bytes(&self) -> [u8; SECRET_SIZE] {
        self.0
    }

    /// The check field of `(object, rights)` while the object's random is `random`.
    pub fn check_field(&self, object: ObjectNumber, rights: Rights, random: CheckField) -> CheckField {
        let object = object.get().to_le_bytes();
        CheckField::from_bytes(keyed(
            &self.0,
            &[b"check", &object[..3], &[rights.bits()], &random.to_bytes()],
        ))
    }

    /// The capability for `object` with `rights` on the server at `port`.
    pub fn capability(
        &self,
        port: PutPort,
        object: ObjectNumber,
        rights: Rights,
        random: CheckField,
    ) -> Capability {
        Capability {
            port,
            private: Private { object, rights, check: self.check_field(object, rights, random) },
        }
    }

    /// Whether `private` was made by this server for its object while the object's random was `random`.
    pub fn verifies(&self, private: &Private, random: CheckField) -> bool {
        self.check_field(private.object, private.rights, random) == private.check
    }
}

fn keyed(key: &[u8; SECRET_SIZE], parts: &[&[u8]]) -> [u8; PORT_SIZE] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    let hash = hasher.finalize();
    std::array::from_fn(|index| hash.as_bytes()[index])
}

impl std::fmt::Debug for SystemSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemSecret")
    }
}

impl std::fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_null_port_maps_to_itself() {
        let secret = SystemSecret::from_bytes([1; 32]);
        assert_eq!(secret.put_port(&GetPort::from_bytes([0; 6])), PutPort::NULL);
        assert!(!secret.put_port(&GetPort::from_bytes([1; 6])).is_null());
    }

    #[test]
    fn the_key_decides_the_port() {
        let get = GetPort::from_bytes([7; 6]);
        let one = SystemSecret::from_bytes([1; 32]).put_port(&get);
        assert_ne!(one, SystemSecret::from_bytes([2; 32]).put_port(&get));
        assert_ne!(one.to_bytes(), get.to_bytes());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_spoils_a_capability(object in 0u32..=0xFF_FFFF, rights: u8, random: [u8; 6], bit in 0usize..80) {
            let secret = ServerSecret::from_bytes([3; 32]);
            let random = CheckField::from_bytes(random);
            let object = ObjectNumber::new(object).unwrap();
            let cap = secret.capability(PutPort::from_bytes([9; 6]), object, Rights::from_bits_retain(rights), random);
            prop_assert!(secret.verifies(&cap.private, random));
            let mut bytes = cap.private.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!secret.verifies(&Private::from_bytes(bytes), random));
        }
    }
}
