//! What a host's own servers are made from, so that their capabilities outlive the daemon.

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, Rights, ServerSecret, SystemSecret};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a seed.
pub const SEED_SIZE: usize = 32;

/// The secret of one host. From it come the get-port and the check-field key of each of its own servers.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HostSeed([u8; SEED_SIZE]);

/// A server of the host: where it listens and what protects its objects.
pub struct Keys {
    /// Where it listens.
    pub get_port: GetPort,
    /// What makes and verifies its check fields.
    pub secret: ServerSecret,
}

impl HostSeed {
    /// The seed in these random bytes.
    pub fn from_bytes(bytes: [u8; SEED_SIZE]) -> HostSeed {
        HostSeed(bytes)
    }

    /// The keys of the server called `name` (`proc`, `tod` …).
    pub fn keys(&self, name: &str) -> Keys {
        let derive = |purpose: &str| {
            let mut hasher = blake3::Hasher::new_keyed(&self.0);
            hasher.update(purpose.as_bytes()).update(&[0]).update(name.as_bytes());
            *hasher.finalize().as_bytes()
        };
        let port = derive("port");
        let get_port = GetPort::from_bytes(std::array::from_fn(|index| port[index]));
        Keys { get_port, secret: ServerSecret::from_bytes(derive("check")) }
    }

    /// The capability with all rights for the server called `name` itself.
    pub fn capability(&self, system: &SystemSecret, name: &str) -> Capability {
        self.keys(name).capability(system.put_port(&self.keys(name).get_port), ObjectNumber::SUPER)
    }
}

impl Keys {
    /// The capability with all rights for an object that is there for ever.
    pub fn capability(&self, port: amoeba_cap::PutPort, object: ObjectNumber) -> Capability {
        self.secret.capability(port, object, Rights::ALL, PERMANENT)
    }
}

/// The random of objects that are never destroyed: the key alone protects them.
pub const PERMANENT: CheckField = CheckField::NULL;

impl std::fmt::Debug for HostSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostSeed")
    }
}
