//! `amoeba rm`: names go, and objects if asked.

use std::collections::BTreeSet;
use std::ffi::OsString;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_stubs::standard;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use crate::failure::Advise;
use crate::graph::{Graph, Kind, same_object};
use crate::place::{self, Place};
use crate::{Context, failure};

/// Remove names
///
/// A name goes; the object lives on for those who have another name or a capability for it, and one that nobody reaches
/// is reclaimed by ageing. With --destroy the object itself is destroyed first, at once and for everybody.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Remove directories too; with --destroy also everything in them
    #[arg(short, long)]
    recursive: bool,
    /// Destroy the objects themselves: every capability for them is dead
    #[arg(long)]
    destroy: bool,
    /// Say nothing of names that are not there
    #[arg(short, long)]
    force: bool,
    /// The names
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(&self.paths)?;
        let graph = context.graph()?;
        let work = graph.work_directories()?;
        let mut remover = Remover { graph: &graph, arguments: &self, work, seen: BTreeSet::new() };
        context.for_each(&self.paths, |_, path| remover.remove(&graph.place(path)?))
    }
}

struct Remover<'a> {
    graph: &'a Graph,
    arguments: &'a Arguments,
    /// The working directory and those above it.
    work: Vec<(Place, Capability)>,
    /// Directories that were entered: a graph may have circles.
    seen: BTreeSet<[u8; 9]>,
}

impl Remover<'_> {
    fn remove(&mut self, place: &Place) -> anyhow::Result<()> {
        let found = match self.graph.lookup_if_there(place) {
            Ok(Some(found)) => found.set,
            Ok(None) | Err(_) if self.arguments.force && self.is_missing(place) => return Ok(()),
            Ok(None) => return Err(anyhow!("{}: no such name", place.shown())),
            Err(error) => return Err(error),
        };
        if place.last_name().is_empty() && !self.arguments.destroy {
            return Err(anyhow!("{} has no name that could be removed", place.shown()))
                .hint("--destroy destroys the object itself");
        }
        let answer = self.graph.answering(&found);
        let kind = answer.as_ref().ok().map(|(_, kind)| *kind);
        if kind == Some(Kind::Directory) && !self.arguments.recursive {
            return Err(anyhow!("{} is a directory", place.shown())).hint("-r removes directories too");
        }
        if kind == Some(Kind::Directory) && self.leads_to_work(place, &found) {
            return Err(anyhow!("{} is the working directory, or above it", place.shown()))
                .hint("relative names start there: let AMOEBA_WORK name another directory first");
        }
        if self.arguments.destroy {
            match answer {
                Ok((directory, Kind::Directory)) => self.destroy_directory(place, &directory)?,
                Err(error) if !is_gone(&error) => return Err(error.context(place.shown())),
                // All replicas: one that was left would be an object that nobody knows.
                _ => found.current().try_for_each(|replica| self.destroy(place, replica))?,
            }
        }
        if place.last_name().is_empty() { Ok(()) } else { self.graph.delete(place) }
    }

    /// Whether without this name, or with `--destroy` without this object, relative names would lead nowhere.
    fn leads_to_work(&self, place: &Place, object: &CapabilitySet) -> bool {
        self.work.iter().any(|(above, directory)| {
            if self.arguments.destroy {
                object.current().any(|replica| same_object(replica, directory))
            } else {
                self.graph.is_same_row(place, above).unwrap_or(false)
            }
        })
    }

    fn is_missing(&self, place: &Place) -> bool {
        let status = self.graph.lookup(place).err().and_then(|error| failure::refusal(&error));
        status.is_some_and(|refusal| refusal.status() == Status::STD_NOTFOUND)
    }

    fn destroy_directory(&mut self, place: &Place, directory: &Capability) -> anyhow::Result<()> {
        if !self.seen.insert(identity(directory)) {
            // Its rows are being removed already; this name goes as they do.
            return Ok(());
        }
        for row in self.graph.list(place)?.rows {
            self.remove(&place.child(&row.name))?;
        }
        match self.graph.discard(directory) {
            Err(Refusal::Refused(Status::SP_NOTEMPTY)) => {
                bail!("{}: somebody else has put something into it meanwhile", place.shown())
            }
            discarded => discarded.with_context(|| place.shown()),
        }
    }

    fn destroy(&self, place: &Place, object: &Capability) -> anyhow::Result<()> {
        match standard::destroy(self.graph.world(), object) {
            // Destroyed already, under another name perhaps: the name is what is left.
            Err(Refusal::Refused(Status::STD_CAPBAD)) => Ok(()),
            destroyed => destroyed.with_context(|| place.shown()),
        }
    }
}

/// Whether an object was destroyed already, under another name perhaps.
fn is_gone(error: &anyhow::Error) -> bool {
    failure::refusal(error).is_some_and(|refusal| refusal == Refusal::Refused(Status::STD_CAPBAD))
}

/// Port and object number.
fn identity(capability: &Capability) -> [u8; 9] {
    let mut identity = [0; 9];
    identity.copy_from_slice(&capability.to_bytes()[..9]);
    identity
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_name_goes_and_the_object_stays_unless_it_is_destroyed() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["ln", "a", "b"]).printed("");
        system.run(&["rm", "a"]).printed("");
        system.run(&["cat", "b"]).printed("alpha");
        system.run(&["ln", "b", "a"]).printed("");
        system.run(&["rm", "--destroy", "a"]).printed("");
        let text = system.run(&["cat", "b"]);
        assert!(format!("{text:?}").contains("no such object"), "{text:?}");
        // The name that is left leads nowhere and can be removed all the same.
        system.run(&["rm", "b"]).printed("");
        system.run(&["rm", "b"]).failed(1, "amoeba: b: no such name\n");
        // With several names, each of them goes.
        system.file("/home/c", b"gamma");
        system.run(&["ln", "c", "d"]).printed("");
        system.run(&["rm", "--destroy", "c", "d"]).printed("");
        system.run(&["ls"]).printed("");
        system.run(&["rm", "-f", "b"]).printed("");
        system.run(&["rm", "-f", "no/b"]).printed("");
    }

    #[test]
    fn directories_go_with_what_is_in_them_circles_too() {
        let system = TestSystem::new();
        system.run(&["mkdir", "-p", "d/e"]).printed("");
        system.file("/home/d/e/f", b"deep");
        system.run(&["ln", "d", "d/e/circle"]).printed("");
        let refused = "amoeba: d is a directory\nhint: -r removes directories too\n";
        system.run(&["rm", "d"]).failed(1, refused);
        system.run(&["rm", "-r", "--destroy", "d"]).printed("");
        system.run(&["ls"]).printed("");
    }

    #[test]
    fn the_rest_goes_when_one_cannot() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["mkdir", "d"]).printed("");
        let refused =
            "amoeba: none: no such name\namoeba: d is a directory\nhint: -r removes directories too\n";
        system.run(&["rm", "none", "d", "a"]).failed(1, refused);
        system.run(&["ls"]).printed("d\n");
    }

    #[test]
    fn the_working_directory_stays() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        let refused = |path: &str| {
            format!(
                "amoeba: {path} is the working directory, or above it\n\
                 hint: relative names start there: let AMOEBA_WORK name another directory first\n"
            )
        };
        system.run(&["rm", "-r", "/home"]).failed(1, &refused("/home"));
        system.run(&["ln", "/home", "/bin/alias"]).printed("");
        system.run(&["rm", "-r", "--destroy", "/bin/alias"]).failed(1, &refused("/bin/alias"));
        system.run(&["rm", "-r", "--destroy", "/"]).failed(1, &refused("/"));
        // Another name for it is only a name.
        system.run(&["rm", "-r", "/bin/alias"]).printed("");
        system.run(&["cat", "a"]).printed("alpha");
    }

    #[test]
    fn a_working_directory_that_is_gone_is_named() {
        let system = TestSystem::new();
        system.names().delete(b"/home").expect("it is there");
        let hint = "hint: the working directory /home is not there: `amoeba mkdir -p /home` makes it, \
                    AMOEBA_WORK names another\n";
        system.run(&["ls"]).failed(1, &format!("amoeba: .: no such name (STD_NOTFOUND)\n{hint}"));
        system.run(&["mkdir", "a"]).failed(1, &format!("amoeba: a: no such name (STD_NOTFOUND)\n{hint}"));
        system.run(&["mkdir", "-p", "/home"]).printed("");
        system.run(&["ls"]).printed("");
    }

    #[test]
    fn the_root_has_no_name() {
        let system = TestSystem::new();
        let refused =
            "amoeba: / has no name that could be removed\nhint: --destroy destroys the object itself\n";
        system.run(&["rm", "-r", "/"]).failed(1, refused);
    }
}
