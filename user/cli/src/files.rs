//! Bulk data between Bullet files and whatever Rust reads and writes.

use std::io::{Read, Write};

use amoeba_cap::Capability;
use amoeba_stubs::bullet::{COMMIT, SAFETY};
use amoeba_stubs::bullet_stream::{self, StreamError};
use amoeba_stubs::standard;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::anyhow;

use crate::failure::Hint;
use crate::graph::{Graph, Kind};

/// Makes a file, committed and on disk, of everything `from` gives.
pub(crate) fn write(graph: &Graph, server: &Capability, from: &mut dyn Read) -> anyhow::Result<Capability> {
    bullet_stream::write_file(graph.world(), server, COMMIT | SAFETY, from)
        .map_err(|error| unwrapped(error, "cannot be read"))
}

/// Writes a file to `to`, and gives its size.
pub(crate) fn read(graph: &Graph, file: &Capability, to: &mut dyn Write) -> anyhow::Result<u64> {
    bullet_stream::read_file(graph.world(), file, to).map_err(|error| match error {
        StreamError::Server(Refusal::Refused(Status::STD_COMBAD)) => no_file(graph, file),
        error => unwrapped(error, "cannot be written here"),
    })
}

/// Destroys an object that nobody is to know.
pub(crate) fn discard(graph: &Graph, file: &Capability) {
    // Where it fails, ageing takes what no name leads to.
    let _ = standard::destroy(graph.world(), file);
}

/// What to say when the server of an object knows no files.
fn no_file(graph: &Graph, object: &Capability) -> anyhow::Error {
    match graph.kind(object) {
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
