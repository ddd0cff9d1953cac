//! `amoeba ln`: a second name for the same object.

use std::ffi::OsString;

use clap::Args;

use super::put::refuse_taken;
use crate::graph::{Graph, Kind};
use crate::place::{self, Place};
use crate::{Context, masks};

/// Give an object a second name
///
/// Both names stand for the same object, with the rights that the way to it gives. A capability can be given a name too:
/// `amoeba ln @FILE NAME`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Replace what has the name already; it is not destroyed
    #[arg(short = 'f', long)]
    replace: bool,
    /// What gets another name
    source: OsString,
    /// The name, or a directory for it
    target: OsString,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input([&self.source, &self.target])?;
        let graph = context.graph()?;
        let (from, target) = (graph.place(&self.source)?, graph.place(&self.target)?);
        let found = graph.lookup(&from)?;
        let to = destination(&graph, &from, &target)?;
        refuse_taken(&graph, &to, self.replace)?;
        let is_directory = graph.kind(&found.capability).is_ok_and(|kind| kind == Kind::Directory);
        let masks = if is_directory { masks::of_directory()? } else { masks::of_object()? };
        graph.enter(&to, &found.set, masks, self.replace)
    }
}

fn destination(graph: &Graph, from: &Place, target: &Place) -> anyhow::Result<Place> {
    // A capability has no name that it could keep in a directory.
    if from.last_name().is_empty() {
        Ok(target.clone())
    } else {
        graph.destination(target, from.last_name(), false)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_second_name_is_as_good_as_the_first() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["ln", "a", "b"]).printed("");
        system.run(&["ln", "a", "/bin"]).printed("");
        system.run(&["cat", "b", "/bin/a"]).printed("alphaalpha");
        system.run(&["ln", "a", "b"]).failed(1, "amoeba: b exists already\nhint: -f replaces it\n");
        system.run(&["ln", "-f", "a", "b"]).printed("");
        system.run(&["ln", "a", "."]).failed(1, "amoeba: ./a exists already\nhint: -f replaces it\n");
    }

    #[test]
    fn a_capability_gets_a_name() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        let ran = system.run(&["cap", "restrict", "a", "read"]);
        system.run(&["ln", ran.text(), "mine"]).printed("");
        system.run(&["cat", "mine"]).printed("alpha");
        let denied = "amoeba: mine: the capability lacks a right (STD_DENIED)\n\
                      hint: permission denied: ask the owner for a capability with more rights\n";
        system.run(&["rm", "--destroy", "mine"]).failed(1, denied);
        let refused = "amoeba: . is a directory\nhint: say the new name too\n";
        system.run(&["ln", ran.text(), "."]).failed(1, "amoeba: . exists already\nhint: -f replaces it\n");
        system.run(&["ln", "/", "."]).failed(1, "amoeba: . exists already\nhint: -f replaces it\n");
        system.run(&["put", "-", "."]).failed(1, refused);
    }
}
