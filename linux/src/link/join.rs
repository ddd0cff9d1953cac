//! Asking a host to be taken into its system.
//!
//! Unsealed: whoever gets the answer has everything. So only hosts answer whose link is bound to a loopback address, and
//! these only sockets of their own user or of root, or that are throw-away hosts; and only the same are asked.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_world::{Entropy, random};

use super::datagram::{Datagram, Join, NAME_SIZE_MAX, is_name};
use crate::threads::now;

/// How long a host is asked before it counts as not there.
pub const JOIN_TIME: Duration = Duration::from_secs(5);
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// What a host needs that was taken in.
pub struct Joined {
    /// The system's secret.
    pub secret: SystemSecret,
    /// The root capability, as text.
    pub root_capability: String,
    /// The host that was asked, and the others it knows.
    pub peers: Vec<SocketAddr>,
}

/// The host was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The secret of the system would cross a network in the clear.
    #[error(
        "joining is not sealed yet, and {0} is not a loopback address: the system's secret would cross the network in \
         the clear. Join on a loopback address, or say that both are throw-away hosts (`dev`)"
    )]
    Unsealed(SocketAddr),
    /// Not a name for a host.
    #[error(
        "{0:?} cannot be a host's name: it has 1 to {NAME_SIZE_MAX} bytes, without '/' or control characters"
    )]
    Name(String),
    /// Nobody answered.
    #[error(
        "nobody answers at {0}: is the system up there, and does its configuration have a [link] that listens on this \
         address?"
    )]
    Silent(SocketAddr),
    /// The host said no.
    #[error("{address} refuses: {reason}")]
    Refused {
        /// Who.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot ask {address}: {source}")]
    Io {
        /// Whom.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Asks the host at `address` to take in a host called `name`. Blocks for at most [`JOIN_TIME`]. `dev`: both are
/// throw-away hosts, and the network between them too.
///
/// # Errors
/// See [`JoinError`].
pub fn join(address: SocketAddr, name: &str, dev: bool, entropy: &dyn Entropy) -> Result<Joined, JoinError> {
    if !address.ip().is_loopback() && !dev {
        return Err(JoinError::Unsealed(address));
    }
    if !is_name(name) {
        return Err(JoinError::Name(name.to_owned()));
    }
    let failed = |source| JoinError::Io { address, source };
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    socket.set_read_timeout(Some(ASK_INTERVAL)).map_err(failed)?;
    let nonce = u64::from_le_bytes(random(entropy));
    let question = Join { nonce, name: name.to_owned() }.emit();
    let deadline = now() + JOIN_TIME;
    let mut scratch = [0; 2048];
    while now() < deadline {
        // A host that is just starting refuses at first.
        let asked = socket.send(&question).and_then(|_| socket.recv(&mut scratch));
        match asked {
            Ok(size) => {
                if let Some(answer) = answer_in(&scratch[..size], nonce, address) {
                    return answer;
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::thread::sleep(ASK_INTERVAL),
            Err(error) if is_patience(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(JoinError::Silent(address))
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The answer to our question in these bytes, if it is there.
fn answer_in(bytes: &[u8], expected: u64, address: SocketAddr) -> Option<Result<Joined, JoinError>> {
    match Datagram::parse(bytes).ok()? {
        Datagram::Joined(welcome) if welcome.nonce == expected => {
            let mut peers = vec![address];
            peers.extend(welcome.peers.iter().filter(|peer| **peer != address));
            let secret = SystemSecret::from_bytes(welcome.secret);
            Some(Ok(Joined { secret, root_capability: welcome.root.clone(), peers }))
        }
        Datagram::Refused { nonce, reason } if nonce == expected => {
            Some(Err(JoinError::Refused { address, reason }))
        }
        _ => None,
    }
}
