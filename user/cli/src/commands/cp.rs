//! `amoeba cp`: copies of files, and with `-r` of directories.

use std::ffi::OsString;
use std::io::{Seek, SeekFrom};

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::put::enter;
use crate::failure::Advise;
use crate::graph::{Graph, Kind, same_object};
use crate::place::{self, Place};
use crate::{Context, files};

/// Directories inside each other that a recursive copy follows.
const DEPTH_MAX: usize = 100;

/// Copy files
///
/// The file server makes the copies; nothing travels through this command where it can read the original itself. With
/// several SOURCEs, or when TARGET is a directory, they keep their names in it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Copy directories with what is in them
    #[arg(short, long)]
    recursive: bool,
    /// Leave files alone that have the name already
    #[arg(short, long)]
    no_clobber: bool,
    /// What to copy
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// A name, or a directory
    target: OsString,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(self.sources.iter().chain([&self.target]))?;
        let graph = context.graph()?;
        let copier = Copier { server: graph.file_server()?, graph: &graph, arguments: &self };
        let target = graph.place(&self.target)?;
        context.for_each(&self.sources, |_, source| {
            let from = graph.place(source)?;
            let to = graph.destination(&target, from.last_name(), self.sources.len() > 1)?;
            copier.copy(&from, &to, 0)
        })
    }
}

struct Copier<'a> {
    graph: &'a Graph,
    server: Capability,
    arguments: &'a Arguments,
}

impl Copier<'_> {
    fn copy(&self, from: &Place, to: &Place, depth: usize) -> anyhow::Result<()> {
        let found = self.graph.lookup(from)?.set;
        let (original, kind) = self.graph.answering(&found).with_context(|| from.shown())?;
        match kind {
            Kind::Directory if self.arguments.recursive => self.copy_directory(from, &original, to, depth),
            Kind::Directory => {
                Err(anyhow!("{} is a directory", from.shown())).hint("-r copies it with what is in it")
            }
            Kind::File => self.copy_file(from, &found, to),
            kind => bail!("{} cannot be copied: it is a {}", from.shown(), kind.name()),
        }
    }

    fn copy_file(&self, from: &Place, original: &CapabilitySet, to: &Place) -> anyhow::Result<()> {
        if let Some(there) = self.graph.lookup_if_there(to)? {
            if self.arguments.no_clobber {
                return Ok(());
            }
            if original.current().any(|copy| same_object(&there.capability, copy)) {
                bail!("{} and {} are the same file", from.shown(), to.shown());
            }
            if self.graph.kind(&there.capability).is_ok_and(|kind| kind == Kind::Directory) {
                bail!("{} is a directory", to.shown());
            }
        }
        let copy = match files::copy(self.graph, &self.server, original) {
            // A server that cannot read the original itself, or does not copy: the bytes go through here.
            Err(Refusal::Refused(Status::STD_COMBAD | Status::RPC_REMOTERPC)) => self.carry(original),
            copy => copy.map_err(Into::into),
        };
        enter(self.graph, to, copy.with_context(|| from.shown())?.into(), true, &[])
    }

    fn carry(&self, original: &CapabilitySet) -> anyhow::Result<Capability> {
        let path = std::env::temp_dir().join(format!("amoeba-cp-{}", std::process::id()));
        let mut between = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
        // Without a name from the start, so that nothing is left of it whatever happens.
        std::fs::remove_file(&path)?;
        files::read(self.graph, original, &mut between)?;
        between.seek(SeekFrom::Start(0))?;
        files::write(self.graph, &self.server, &mut between)
    }

    fn copy_directory(
        &self,
        from: &Place,
        original: &Capability,
        to: &Place,
        depth: usize,
    ) -> anyhow::Result<()> {
        if depth == DEPTH_MAX {
            bail!("{}: more than {DEPTH_MAX} directories deep, perhaps in a circle", from.shown());
        }
        // It would copy the copy too.
        if self.graph.leads_through(to, original)? {
            bail!("{} cannot be copied into itself", from.shown());
        }
        let rows = self.graph.list(from)?.rows;
        match self.graph.lookup_if_there(to)? {
            None => drop(self.graph.make_directory(to)?),
            Some(there) if same_object(&there.capability, original) => {
                bail!("{} is copied onto itself", from.shown())
            }
            Some(there) if self.graph.kind(&there.capability)? == Kind::Directory => {}
            Some(_) => bail!("{} is not a directory", to.shown()),
        }
        rows.iter().try_for_each(|row| self.copy(&from.child(&row.name), &to.child(&row.name), depth + 1))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn copies_are_files_of_their_own() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["cp", "a", "b"]).printed("");
        system.run(&["rm", "--destroy", "a"]).printed("");
        system.run(&["cat", "b"]).printed("alpha");
        let missing = "amoeba: none: no such name (STD_NOTFOUND)\n";
        system.run(&["cp", "none", "b", "/bin"]).failed(1, missing);
        system.run(&["cat", "/bin/b"]).printed("alpha");
        system.run(&["cp", "b", "./b"]).failed(1, "amoeba: b and ./b are the same file\n");
        let refused = "amoeba: /home is a directory\nhint: -r copies it with what is in it\n";
        system.run(&["cp", "/home", "/bin"]).failed(1, refused);
    }

    #[test]
    fn a_directory_is_copied_with_what_is_in_it_once() {
        let system = TestSystem::new();
        system.run(&["mkdir", "-p", "d/e"]).printed("");
        system.file("/home/d/e/f", b"deep");
        system.run(&["cp", "-r", "d", "/bin/d2"]).printed("");
        system.run(&["cat", "/bin/d2/e/f"]).printed("deep");
        system.run(&["ln", "d", "/bin/alias"]).printed("");
        for inside in ["d/copy", "d/e", "d/e/copy", "/bin/alias/copy"] {
            let refused = "amoeba: d cannot be copied into itself\n";
            system.run(&["cp", "-r", "d", inside]).failed(1, refused);
        }
        system.run(&["cp", "-r", ".", "copy"]).failed(1, "amoeba: . cannot be copied into itself\n");
        system.run(&["ls", "d", "d/e"]).printed("d:\ne\n\nd/e:\nf\n");
        system.run(&["cp", "-r", "d", "d"]).failed(1, "amoeba: d cannot be copied into itself\n");
        system.run(&["ln", "d", "d/circle"]).printed("");
        let ran = system.run(&["cp", "-r", "d/circle", "again"]);
        assert!(format!("{ran:?}").contains("perhaps in a circle"), "{ran:?}");
    }
}
