//! The hosts that belong to the system, as /system/hosts says them: a row for each, and each row a file.

use std::collections::BTreeSet;

use amoeba_name::Names;
use amoeba_stubs::{Client, bullet_stream, system};
use amoeba_world::TransOptions;
use serde::Deserialize;

use crate::graph::Graph;
use crate::launch::pool::HOST_LOCATE_TIMEOUT;
use crate::out::printable;

/// The directory of hosts.
pub(crate) const HOSTS: &[u8] = b"/system/hosts";
/// Bytes of a host's file.
const FILE_SIZE_MAX: usize = 8192;
/// Digits of a key that people compare.
const FINGERPRINT_SIZE: usize = 16;

/// A host that belongs to the system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Its public key.
    pub(crate) key: String,
    /// Where others reach it, the best first.
    pub(crate) addresses: Vec<String>,
    /// The servers that it runs beside its kernel.
    #[serde(default)]
    pub(crate) services: Vec<String>,
    /// When it joined, by the clock of the host that invited it: seconds since 1970.
    #[serde(default)]
    pub(crate) joined: u64,
    /// The host that invited it.
    #[serde(default)]
    pub(crate) inviter: Option<String>,
}

impl Member {
    /// The part of its key that people compare.
    pub(crate) fn fingerprint(&self) -> &str {
        self.key.get(..FINGERPRINT_SIZE).unwrap_or(&self.key)
    }
}

/// The way from this host to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) up: bool,
    /// The kind of link, and how it is sealed.
    pub(crate) link: String,
    /// What is wrong with it.
    pub(crate) trouble: Option<String>,
}

/// The hosts that belong to the system. A row that cannot be read is left out.
///
/// # Errors
/// The directory of hosts cannot be read.
pub(crate) fn members(graph: &Graph) -> anyhow::Result<Vec<Member>> {
    let world = amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT);
    let names = Names::new(&world, graph.session().root);
    let rows = names.list(HOSTS)?.rows;
    let member = |name: &[u8]| {
        let file = names.resolve(&[HOSTS, b"/", name].concat()).ok()?;
        let bytes = bullet_stream::read_whole(&world, &file, FILE_SIZE_MAX).ok()?;
        let member: Member = serde_json::from_slice(&bytes).ok()?;
        (member.name.as_bytes() == name).then_some(member)
    };
    Ok(rows.iter().filter_map(|row| member(&row.name)).collect())
}

/// The hosts that run a directory server.
pub(crate) fn with_directory(members: &[Member]) -> BTreeSet<&str> {
    let run = members.iter().filter(|member| member.services.iter().any(|service| service == "directory"));
    run.map(|member| member.name.as_str()).collect()
}

/// The ways from this host to others, as its kernel sees them; none where it does not tell.
pub(crate) fn ways(graph: &Graph) -> Vec<Way> {
    let options = TransOptions { locate_timeout: HOST_LOCATE_TIMEOUT, ..TransOptions::default() };
    let network = graph
        .at_host("sys")
        .ok()
        .and_then(|sys| system::network(Client::new(&*graph.world().transactions, &options), &sys).ok());
    let Some(network) = network else { return Vec::new() };
    let text = |bytes: &[u8]| printable(bytes);
    let way = |peer: &system::PeerState| {
        let kind =
            network.links.get(usize::from(peer.link)).map_or_else(|| "?".to_owned(), |link| text(&link.kind));
        let link = match peer.sealing.is_empty() {
            true => kind,
            false => format!("{kind}, {}", text(&peer.sealing)),
        };
        let trouble = Some(text(&peer.trouble)).filter(|trouble| !trouble.is_empty());
        Way { name: text(&peer.name), up: peer.up, link, trouble }
    };
    network.peers.iter().map(way).collect()
}
