//! Where requests for a port go, as far as it is known: for people who look for a fault.

use amoeba_cap::PutPort;
use amoeba_flip::{LinkId, Location};
use amoeba_wire::packet::Address;

use crate::{Kernel, ProcessId};

/// The way to a port. Nothing was searched for, and nothing changed, to tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Nobody here listens, and nobody elsewhere has answered.
    Unknown,
    /// Processes of this host listen.
    Here {
        /// Which.
        processes: Vec<ProcessId>,
    },
    /// Processes of other hosts have answered.
    Elsewhere {
        /// How many.
        processes: usize,
        /// The nearest of them.
        server: Address,
        /// The way there; `None` when it would have to be searched for.
        route: Option<Hop>,
    },
}

/// The first step of the way to another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Over which link.
    pub link: LinkId,
    /// To whom on it.
    pub location: Location,
    /// Weight of all networks on the way.
    pub hops: u16,
    /// Whether all of them are trusted.
    pub trusted: bool,
}

impl Kernel {
    /// The way that a request for this port would take now.
    pub fn path(&self, port: PutPort) -> Path {
        if let Some(here) = self.ports.get(&port) {
            return Path::Here { processes: here.listening.keys().copied().collect() };
        }
        let servers = self.cache.servers(port);
        let Some(nearest) = servers.iter().min_by_key(|server| server.round_trip) else {
            return Path::Unknown;
        };
        let route = self.flip.routes().best(nearest.address, false).map(|route| Hop {
            link: route.link,
            location: route.location,
            hops: route.hops,
            trusted: route.trusted,
        });
        Path::Elsewhere { processes: servers.len(), server: nearest.address, route }
    }
}
