//! What the kernel's own server asks: links, peers, and the way to a port.

use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_kernel::{Hop, Path};
use amoeba_stubs::rt::Marshal;
use amoeba_stubs::system::{self, LinkState, Network, PeerState, Way};
use amoeba_threads::Instant;

use super::super::table::Token;
use super::Switch;
use crate::link::{LinkDescription, PeerDescription};
use crate::socket::ToProcess;

impl Switch {
    /// LOOK: the way to a port, or all links and peers.
    pub(super) fn look(&mut self, now: Instant, token: Token, port: Option<PutPort>) {
        let facts = match port {
            Some(port) => self.way(now, port).to_bytes(),
            None => self.network(now).to_bytes(),
        };
        let facts = facts.expect("texts are cut to their bounds, and lists too");
        self.send(token, ToProcess::Facts { facts });
    }

    fn network(&self, now: Instant) -> Network {
        let links = self.links.iter().map(|link| link_state(&link.describe())).collect();
        let peers = self.links.iter().zip(0..).flat_map(|(link, number)| {
            link.describe_peers(now).into_iter().map(move |peer| peer_state(number, &peer))
        });
        Network { links, peers: peers.take(system::PEERS_MAX).collect() }
    }

    fn way(&self, now: Instant, port: PutPort) -> Way {
        let way = |reach, processes: usize| Way {
            reach,
            processes: u32::try_from(processes).unwrap_or(u32::MAX),
            hops: 0,
            trusted: true,
            link: Vec::new(),
            peer: Vec::new(),
        };
        match self.kernel.path(port) {
            Path::Unknown => way(system::UNKNOWN, 0),
            Path::Here { processes } => way(system::HERE, processes.len()),
            Path::Elsewhere { processes, route: None, .. } => way(system::ELSEWHERE, processes),
            Path::Elsewhere { processes, route: Some(hop), .. } => {
                let (link, peer) = self.step(now, &hop);
                let (hops, trusted) = (hop.hops, hop.trusted);
                Way { hops, trusted, link, peer, ..way(system::ELSEWHERE, processes) }
            }
        }
    }

    fn step(&self, now: Instant, hop: &Hop) -> (Vec<LinkState>, Vec<PeerState>) {
        let Some(link) = self.links.get(usize::from(hop.link.0)) else { return (Vec::new(), Vec::new()) };
        let peers = link.describe_peers(now);
        let peer = peers.iter().find(|peer| peer.location == hop.location);
        let peer = peer.map(|peer| peer_state(hop.link.0, peer)).into_iter().collect();
        (vec![link_state(&link.describe())], peer)
    }
}

fn link_state(link: &LinkDescription) -> LinkState {
    LinkState {
        kind: text(link.kind),
        address: text(&link.address),
        packet_size: u32::try_from(link.packet_size).unwrap_or(u32::MAX),
        sealing: text(link.sealing.unwrap_or_default()),
        trusted: link.trusted,
    }
}

fn peer_state(link: u16, peer: &PeerDescription) -> PeerState {
    PeerState {
        link,
        name: text(&peer.name),
        address: text(&peer.address),
        up: peer.up,
        heard: nanoseconds(peer.heard),
        packet_size: u32::try_from(peer.packet_size).unwrap_or(u32::MAX),
        round_trip: nanoseconds(peer.round_trip),
        sealing: text(peer.sealing.unwrap_or_default()),
        trouble: text(peer.trouble.as_deref().unwrap_or_default()),
    }
}

fn nanoseconds(time: Option<Duration>) -> u64 {
    time.map_or(system::NEVER, |time| u64::try_from(time.as_nanos()).unwrap_or(system::NEVER))
}

/// As much of a text as a record takes.
fn text(text: &str) -> Vec<u8> {
    let text = &text[..text.floor_char_boundary(system::NAME_SIZE_MAX)];
    text.bytes().filter(|byte| *byte != 0).collect()
}
