//! `amoeba get`: a file out of the system.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use amoeba_cap::CapabilitySet;
use anyhow::{Context as _, anyhow};
use clap::Args;

use crate::failure::Advise;
use crate::graph::Graph;
use crate::progress::{Interrupt, Metered};
use crate::{Context, files};

/// Fetch a file
///
/// The local file appears when it is whole; one that is there is replaced then.
#[derive(Args)]
pub(crate) struct Arguments {
    /// What to fetch
    path: OsString,
    /// The local file, or a directory for it; `-` is standard output. Without it the file keeps its name here
    file: Option<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let place = graph.place(&self.path)?;
        let found = graph.lookup(&place)?.set;
        if self.file.as_deref() == Some(OsStr::new("-")) {
            return files::read(&graph, &found, &mut context.out).map(drop).with_context(|| place.shown());
        }
        let target = target(self.file, place.last_name())?;
        fetch(context, &graph, &found, &target).with_context(|| place.shown())
    }
}

/// The local file: `file`, or `name` in it when it is a directory.
fn target(file: Option<OsString>, name: &[u8]) -> anyhow::Result<PathBuf> {
    let file = file.map_or_else(|| PathBuf::from("."), PathBuf::from);
    if !file.is_dir() {
        return Ok(file);
    }
    if name.is_empty() {
        return Err(anyhow!("what is fetched has no name")).hint("say how the local file is to be called");
    }
    Ok(file.join(OsStr::from_bytes(name)))
}

fn fetch(context: &Context<'_>, graph: &Graph, file: &CapabilitySet, target: &Path) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch(context.system.console(), &graph.world().threads)?;
    // A size that cannot be had is only a bar that cannot be drawn.
    let size = files::size(graph, file);
    let local = target.display().to_string();
    if target.exists() && !target.is_file() {
        // A device or a pipe is written to, not replaced.
        let to = File::options().write(true).open(target).with_context(|| local.clone())?;
        return files::read(graph, file, &mut Metered::new(context, &interrupt, local, size, to)).map(drop);
    }
    let unfinished = Unfinished::beside(target)?;
    let to = File::create_new(&unfinished.0).with_context(|| local.clone())?;
    let mut to = Metered::new(context, &interrupt, local.clone(), size, to);
    files::read(graph, file, &mut to)?;
    drop(to);
    std::fs::rename(&unfinished.0, target).with_context(|| local)
}

/// A local file that is not whole yet; removed when it never becomes so.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(target: &Path) -> anyhow::Result<Unfinished> {
        let shown = || anyhow!("{} cannot be the name of a file", target.display());
        let parent = target.parent().ok_or_else(shown)?;
        target.file_name().ok_or_else(shown)?;
        // Short, whatever the length of the target's own name.
        Ok(Unfinished(parent.join(format!(".amoeba-get-{}", std::process::id()))))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestSystem;

    #[test]
    fn a_file_keeps_its_name_where_none_is_given() {
        assert_eq!(target(None, b"a").unwrap(), Path::new("./a"));
        assert_eq!(target(Some("/".into()), b"a").unwrap(), Path::new("/a"));
        assert_eq!(target(Some("/no/such/b".into()), b"a").unwrap(), Path::new("/no/such/b"));
        assert!(target(None, b"").is_err());
    }

    #[test]
    fn a_file_is_fetched_whole_or_not_at_all() {
        let system = TestSystem::new();
        let folder = std::env::temp_dir().join(format!("amoeba-cli-get-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is ours");
        let local = folder.join("b");
        let local_text = local.to_str().expect("the temporary folder is named in UTF-8");
        system.file("/home/a", b"alpha");
        system.run(&["get", "a", local_text]).printed("");
        assert_eq!(std::fs::read(&local).expect("it was fetched"), b"alpha");
        system.run(&["get", "a", "-"]).printed("alpha");
        system.run(&["get", "a", folder.to_str().expect("as above")]).printed("");
        let refused = "amoeba: /home: is a directory\nhint: `amoeba ls` lists it\n";
        system.run(&["get", "/home", local_text]).failed(1, refused);
        let mut left: Vec<_> =
            std::fs::read_dir(&folder).expect("it is ours").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "b"]);
        assert_eq!(std::fs::read(&local).expect("a failed fetch changes nothing"), b"alpha");
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
