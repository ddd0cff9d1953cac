//! What a person is told of a link and of those on it.

use std::time::Duration;

use amoeba_kernel::Location;

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkDescription {
    /// `udp` or `ethernet`.
    pub kind: &'static str,
    /// Where it listens, or its interface.
    pub address: String,
    /// Bytes of its largest packet.
    pub packet_size: usize,
    /// How packets are sealed; `None`: they are not.
    pub sealing: Option<&'static str>,
    /// Whether secure messages may cross it.
    pub trusted: bool,
}

/// Somebody on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDescription {
    /// Where the FLIP box sees it.
    pub location: Location,
    /// What it is called; empty: not known.
    pub name: String,
    /// Where it is, for people.
    pub address: String,
    /// Whether it is there.
    pub up: bool,
    /// How long ago it was heard; `None`: never.
    pub heard: Option<Duration>,
    /// Bytes of the largest packet on the way to it.
    pub packet_size: usize,
    /// There and back, as last measured.
    pub round_trip: Option<Duration>,
    /// How packets to it are sealed; `None`: they are not.
    pub sealing: Option<&'static str>,
    /// What is wrong with it, for people.
    pub trouble: Option<String>,
}
