//! Bulk data between Bullet files and whatever Rust reads and writes.

use std::io::{Read, Write};

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_stubs::bullet::{self, COMMIT, SAFETY};
use amoeba_stubs::bullet_stream::{self, StreamError};
use amoeba_stubs::{Client, standard};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::anyhow;

use crate::failure::Hint;
use crate::graph::{Graph, Kind};
use crate::out::counted;

/// Makes a file, committed and on disk, of everything `from` gives.
pub(crate) fn write(graph: &Graph, server: &Capability, from: &mut dyn Read) -> anyhow::Result<Capability> {
    bullet_stream::write_file(graph.world(), server, COMMIT | SAFETY, from)
        .map_err(|error| unwrapped(error, "cannot be read"))
}

/// Makes a file as [`write()`] does, and copies of it on other file servers until there are `copies` of it.
pub(crate) fn write_copies(
    graph: &Graph,
    copies: usize,
    from: &mut dyn Read,
) -> anyhow::Result<CapabilitySet> {
    if copies == 1 {
        return Ok(write(graph, &graph.file_server()?, from)?.into());
    }
    // Before anything is transferred in vain.
    let servers = graph.file_servers()?;
    let mut servers = servers.iter().filter(|server| graph.info(server).is_ok());
    let answering: Vec<_> = servers.by_ref().take(copies).collect();
    let [first, others @ ..] = &answering[..] else { return Err(too_few(0, copies)) };
    if answering.len() < copies {
        return Err(too_few(answering.len(), copies));
    }
    let mut made = CapabilitySet::singleton(write(graph, first, from)?);
    let mut failure = None;
    for server in others.iter().copied().chain(servers) {
        match copy(graph, server, &made) {
            Ok(copy) => made.push(copy)?,
            Err(error) => failure = Some(error),
        }
        if made.current().count() == copies {
            return Ok(made);
        }
    }
    discard(graph, &made);
    let error = too_few(made.current().count(), copies);
    Err(failure.map_or(error, |failure| failure.into()).context(format!("{copies} copies cannot be made")))
}

fn too_few(there: usize, wanted: usize) -> anyhow::Error {
    let there = counted(there as u64, "file server takes", "file servers take");
    let error = anyhow!("{wanted} copies are not possible: {there} one");
    error.context(Hint(
        "`amoeba ls /profile/cap/bulletsvr` lists them, `amoeba status` tells who answers".into(),
    ))
}

/// A copy of a file on another file server, which reads it itself; it is on disk there.
pub(crate) fn copy(graph: &Graph, server: &Capability, file: &CapabilitySet) -> Result<Capability, Refusal> {
    let mut failure = Refusal::NotSent(Status::RPC_NOTFOUND);
    for original in file.current() {
        match standard::copy(graph.world(), server, original) {
            Err(error @ (Refusal::Refused(_) | Refusal::NotSent(_))) => failure = error,
            copied => return copied,
        }
    }
    Err(failure)
}

/// Writes a file to `to` from any of its copies, and gives its size.
pub(crate) fn read(graph: &Graph, file: &CapabilitySet, to: &mut dyn Write) -> anyhow::Result<u64> {
    bullet_stream::read_set(&*graph.world().transactions, file, to).map_err(|error| match error {
        StreamError::Server(Refusal::Refused(Status::STD_COMBAD)) => no_file(graph, file),
        error => unwrapped(error, "cannot be written here"),
    })
}

/// The size of a file, if one of its copies tells it soon.
pub(crate) fn size(graph: &Graph, file: &CapabilitySet) -> Option<u64> {
    let options = graph.look_options();
    let client = Client::new(&*graph.world().transactions, &options);
    file.current().find_map(|copy| bullet::size(client, copy).ok())
}

/// Destroys all copies of an object that nobody is to know.
pub(crate) fn discard(graph: &Graph, file: &CapabilitySet) {
    for copy in file.current() {
        // Where it fails, ageing takes what no name leads to.
        let _ = standard::destroy(graph.world(), copy);
    }
}

/// What to say when the server of an object knows no files.
fn no_file(graph: &Graph, object: &CapabilitySet) -> anyhow::Error {
    match graph.answering(object).map(|(_, kind)| kind) {
        Ok(Kind::Directory) => anyhow!("is a directory").context(Hint("`amoeba ls` lists it".into())),
        Ok(kind) => anyhow!("is no file but a {}", kind.name()),
        Err(error) => error,
    }
}

/// The error inside, so that what it is can be told; `local` says what failed on this side.
fn unwrapped(error: StreamError, local: &'static str) -> anyhow::Error {
    match error {
        StreamError::Server(refusal) => refusal.into(),
        StreamError::Local(error) => anyhow::Error::from(error).context(local),
        error => error.into(),
    }
}
