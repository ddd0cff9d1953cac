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
        if graph.is_same_row(from, to)? {
            return Ok(());
        }
        if graph.kind(&there.capability).is_ok_and(|kind| kind == Kind::Directory) {
            bail!("{} is a directory already", to.shown());
        }
        if same_object(&there.capability, &moved) {
            // Two names of one object: one is left, though POSIX would keep both.
            return graph.delete(from);
        }
    }
    // What was moved into itself could never be reached again.
    if graph.kind(&moved).is_ok_and(|kind| kind == Kind::Directory) && graph.leads_through(to, &moved)? {
        bail!("{} cannot be moved into itself", from.shown());
    }
    graph.rename(from, to, replace)
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn things_move_and_nothing_is_lost() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.file("/home/b", b"beta");
        system.run(&["mkdir", "d", "d/inner"]).printed("");
        system.run(&["mv", "a", "c"]).printed("");
        system.run(&["mv", "c", "b", "d"]).printed("");
        system.run(&["ls", "d"]).printed("b\nc\ninner\n");
        system
            .run(&["mv", "-n", "d/c", "d/b"])
            .failed(1, "amoeba: d/c to d/b: exists already (STD_EXISTS)\n");
        system.run(&["mv", "d/c", "d/b"]).printed("");
        system.run(&["cat", "d/b"]).printed("alpha");
        system.run(&["mv", "d", "d/inner/deep"]).failed(1, "amoeba: d cannot be moved into itself\n");
        system.run(&["mv", "/home", "deep"]).failed(1, "amoeba: /home cannot be moved into itself\n");
        system.run(&["mv", "d", "/bin"]).printed("");
        system.run(&["mv", "/bin/d/b", "/bin/d/b"]).printed("");
        system.run(&["cat", "/bin/d/b"]).printed("alpha");
        system.run(&["mv", "nothing", "x"]).failed(1, "amoeba: nothing: no such name (STD_NOTFOUND)\n");
    }

    #[test]
    fn two_names_of_one_object_become_one() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["ln", "a", "b"]).printed("");
        system.run(&["mv", "a", "./b"]).printed("");
        system.run(&["ls"]).printed("b\n");
        system.run(&["mv", "b", "./b"]).printed("");
        system.run(&["mv", "b", "/home/b"]).printed("");
        system.run(&["ln", "/home", "/bin/alias"]).printed("");
        system.run(&["mv", "b", "/bin/alias/b"]).printed("");
        system.run(&["cat", "b"]).printed("alpha");
    }

    #[test]
    fn a_capability_is_where_things_move_from_and_to() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["mkdir", "/bin/d"]).printed("");
        let ran = system.run(&["cap", "show", "/bin/d"]);
        let inside = format!("{}/x", ran.text());
        system.run(&["mv", "a", &inside]).printed("");
        system.run(&["mv", &inside, "back"]).printed("");
        system.run(&["cat", "back"]).printed("alpha");
    }
}
