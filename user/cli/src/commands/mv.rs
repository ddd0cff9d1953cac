//! `amoeba mv`: other names.

use std::ffi::OsString;

use anyhow::bail;
use clap::Args;

use crate::Context;
use crate::graph::{Graph, Kind, same_object};
use crate::place::{self, Place};

/// Give things other names
///
/// Where one directory server keeps both directories, a name is never missing and never there twice. With several
/// SOURCEs, or when TARGET is a directory, they keep their names in it. A file that has the name already is replaced; a
/// directory never is.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Fail instead of replacing what has the name already
    #[arg(short, long)]
    no_clobber: bool,
    /// What to rename
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// A name, or a directory
    target: OsString,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(self.sources.iter().chain([&self.target]))?;
        let graph = context.graph()?;
        let target = graph.place(&self.target)?;
        for source in &self.sources {
            let from = graph.place(source)?;
            let to = graph.destination(&target, from.last_name(), self.sources.len() > 1)?;
            rename(&graph, &from, &to, !self.no_clobber)?;
        }
        Ok(())
    }
}

fn rename(graph: &Graph, from: &Place, to: &Place, replace: bool) -> anyhow::Result<()> {
    let moved = graph.lookup(from)?.capability;
    if let Some(there) = graph.lookup_if_there(to)? {
        if graph.kind(&there.capability).is_ok_and(|kind| kind == Kind::Directory) {
            bail!("{} is a directory already", to.shown());
        }
        if same_object(&there.capability, &moved) && from != to {
            // Both names of one object: the old one goes, as POSIX's does not.
            return graph.delete(from);
        }
    }
    if graph.kind(&moved).is_ok_and(|kind| kind == Kind::Directory) && leads_through(graph, to, &moved)? {
        bail!("{} cannot be moved into itself", from.shown());
    }
    graph.rename(from, to, replace)
}

/// Whether the way to `place` goes through a directory; what was moved there could never be reached again.
fn leads_through(graph: &Graph, place: &Place, directory: &amoeba_cap::Capability) -> anyhow::Result<bool> {
    for above in place.above() {
        if same_object(&graph.lookup(&above)?.capability, directory) {
            return Ok(true);
        }
    }
    Ok(false)
}
