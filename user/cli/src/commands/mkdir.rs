//! `amoeba mkdir`: new directories.

use std::ffi::OsString;

use anyhow::anyhow;
use clap::Args;

use crate::Context;
use crate::failure::Advise;
use crate::graph::{Graph, Kind};
use crate::place::{self, Place};

/// Make directories
#[derive(Args)]
pub(crate) struct Arguments {
    /// Make what is missing on the way too, and leave alone what is there
    #[arg(short, long)]
    parents: bool,
    /// The directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(&self.paths)?;
        let graph = context.graph()?;
        for path in &self.paths {
            let place = graph.place(path)?;
            if self.parents {
                for above in place.above() {
                    make_if_missing(&graph, &above)?;
                }
                make_if_missing(&graph, &place)?;
            } else if graph.lookup_if_there(&place)?.is_some() {
                return Err(anyhow!("{} exists already", place.shown()))
                    .hint("-p leaves alone what is there");
            } else {
                graph.make_directory(&place)?;
            }
        }
        Ok(())
    }
}

fn make_if_missing(graph: &Graph, place: &Place) -> anyhow::Result<()> {
    match graph.lookup_if_there(place)? {
        None => graph.make_directory(place).map(drop),
        Some(found) if graph.kind(&found.capability)? == Kind::Directory => Ok(()),
        Some(_) => Err(anyhow!("{}: not a directory", place.shown())),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn directories_are_made_once() {
        let system = TestSystem::new();
        system.run(&["mkdir", "a"]).printed("");
        system.run(&["mkdir", ""]).failed(1, "amoeba: the name is empty\n");
        system.run(&["mkdir", "-p", ""]).failed(1, "amoeba: the name is empty\n");
        system
            .run(&["mkdir", "a"])
            .failed(1, "amoeba: a exists already\nhint: -p leaves alone what is there\n");
        system.run(&["mkdir", "-p", "a", "b/c/d/"]).printed("");
        system.run(&["ls", "b/c"]).printed("d\n");
        system.run(&["mkdir", "x/y"]).failed(1, "amoeba: x/y: no such name (STD_NOTFOUND)\n");
        system.file("/home/f", b"");
        system.run(&["mkdir", "-p", "f/g"]).failed(1, "amoeba: f: not a directory\n");
        system.run(&["mkdir", "f/g"]).failed(1, "amoeba: f/g: not a directory\n");
        system
            .run(&["mkdir", "/"])
            .failed(1, "amoeba: / exists already\nhint: -p leaves alone what is there\n");
    }
}
