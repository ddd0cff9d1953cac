//! `amoeba get`: a file out of the system.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use amoeba_cap::CapabilitySet;
use anyhow::{Context as _, anyhow};
use clap::Args;

use super::put::TreeOptions;
use crate::failure::Advise;
use crate::graph::{Graph, Kind};
use crate::place::Place;
use crate::progress::{Interrupt, Metered};
use crate::tree::{self, Report};
use crate::{Context, files};

/// Fetch a file
///
/// The local file appears when it is whole; one that is there is replaced then.
///
/// With -r what is fetched may be a directory, with what is in it. Modes, times and links come back as they were stored; owners with
/// --owner only. The local directory appears when all of it is there; the same command again goes on where an earlier one
/// was interrupted. With -f a directory that is there is brought up to date, file by file; what only it has stays.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Fetch directories with what is in them
    #[arg(short, long)]
    recursive: bool,
    /// With -r: bring a directory that is there up to date
    #[arg(short = 'f', long, requires = "recursive")]
    replace: bool,
    /// With -r: give files to their owners, by name, with the modes that lend an owner's rights; for root
    #[arg(long, requires = "recursive")]
    owner: bool,
    #[command(flatten)]
    tree: TreeOptions,
    /// What to fetch
    path: OsString,
    /// The local file, or a directory for it; `-` is standard output. Without it the file keeps its name here
    file: Option<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let place = graph.place(&self.path)?;
        let row = graph.lookup(&place)?;
        let found = row.set;
        if self.file.as_deref() == Some(OsStr::new("-")) {
            return files::read(&graph, &found, &mut context.out).map(drop).with_context(|| place.shown());
        }
        if self.recursive && graph.answering(&found).with_context(|| place.shown())?.1 == Kind::Directory {
            return self.fetch_tree(context, &graph, &found, &row.attributes, &place);
        }
        let target = target(self.file, place.last_name())?;
        let fetched = fetch(context, &graph, &found, &target);
        if fetched.is_err() && graph.answering(&found).is_ok_and(|(_, kind)| kind == Kind::Directory) {
            return Err(anyhow!("{} is a directory", place.shown())).hint("-r fetches it with what is in it");
        }
        fetched.with_context(|| place.shown())
    }
}

impl Arguments {
    /// Fetches a directory with what is in it: as the local name that was given, or in it when that ends with `/`.
    fn fetch_tree(
        &self,
        context: &mut Context<'_>,
        graph: &Graph,
        from: &CapabilitySet,
        attributes: &[u8],
        place: &Place,
    ) -> anyhow::Result<()> {
        let own = OsStr::from_bytes(place.last_name());
        let target = match &self.file {
            None => PathBuf::from(own),
            Some(file) if file.as_bytes().ends_with(b"/") => Path::new(file).join(own),
            Some(file) => PathBuf::from(file),
        };
        let shown = target.display().to_string();
        let name =
            target.file_name().with_context(|| format!("{shown:?} cannot be the name of a directory"))?;
        let above = target.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = amoeba_tree::Folder::open(above).with_context(|| above.display().to_string())?;
        let directory = graph.answering(from)?.0;
        let work = tree::work_name(".amoeba-get-", &[name.as_bytes(), &tree::identity(&directory)]);
        let interrupt = Interrupt::catch(context.system.console(), &graph.world().threads)?;
        let report = Report::new(context, &interrupt, &place.shown());
        let options = tree::Fetch {
            graph,
            report: &report,
            replace: self.replace,
            owner: self.owner,
            walk: self.tree.walk(),
        };
        let called = place.shown();
        let source = tree::Source { directory, attributes, shown: called.as_bytes() };
        let whole =
            tree::get(&options, &source, &folder, name.as_bytes(), &work).with_context(|| shown.clone())?;
        let rest = above.join(OsStr::from_bytes(&work)).display().to_string();
        self.tree.finish(context, report, whole, &format!("{shown} is not whole yet"), || {
            format!("the same command goes on from there; what is fetched waits in {rest}")
        })
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
        let refused = "amoeba: /home is a directory\nhint: -r fetches it with what is in it\n";
        system.run(&["get", "/home", local_text]).failed(1, refused);
        system.run(&["get", "/home", "/"]).failed(1, refused);
        let mut left: Vec<_> =
            std::fs::read_dir(&folder).expect("it is ours").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "b"]);
        assert_eq!(std::fs::read(&local).expect("a failed fetch changes nothing"), b"alpha");
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
