//! A tree of the graph into local files: `amoeba get -r`.
//!
//! A tree that is not here yet grows in a working directory beside its place and is moved there when it is whole; an
//! interrupted one is taken up where it stopped. With `-f` a directory that is here gets what it lacks, file by
//! file. Whatever the names, links and attributes of the graph say, nothing is written outside: every entry is named in an open directory,
//! and no link is followed.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::Attributes;
use amoeba_stubs::directory::{self, RowFull};
use amoeba_tree::{Folder, Kind};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow, bail};

use super::accounts::Accounts;
use super::fetch::{Fetcher, Job};
use super::put::read;
use super::{DEPTH_MAX, Report, Walk, below, facts, identity, in_parallel};
use crate::failure::Advise;
use crate::graph::{Graph, Kind as Object};

/// Rows that are asked for at once.
const PAGE: u32 = 500;
/// In a working directory: the tree, and files that are not whole yet.
const TREE: &[u8] = b"tree";
const PARTS: &[u8] = b"parts";
/// What the owner must be allowed to do with a directory, to put something into it.
pub(super) const OWN: u32 = 0o700;

/// How a tree is fetched.
pub(crate) struct Fetch<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) report: &'a Report,
    /// Bring a directory that is here up to date.
    pub(crate) replace: bool,
    /// Give files to whom their rows say, as far as this user may.
    pub(crate) owner: bool,
    pub(crate) walk: Walk,
}

/// A local directory that is being filled. When nothing fills it any more, it gets its mode and its times.
pub(super) struct Target<'a> {
    pub(super) folder: Folder,
    /// Ends after this one.
    _parent: Option<Arc<Target<'a>>>,
    /// The way to it from the top.
    pub(super) way: Vec<Vec<u8>>,
    path: Vec<u8>,
    /// `None`: as it is.
    attributes: Option<Attributes>,
    fetcher: &'a Fetcher<'a>,
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if let Some(attributes) = &self.attributes {
            self.fetcher.dress(&self.folder, attributes, &self.path);
        }
    }
}

/// A directory of the graph that is to be fetched.
pub(crate) struct Source<'a> {
    pub(crate) directory: Capability,
    /// The attributes of the row it was found by.
    pub(crate) attributes: &'a [u8],
    /// What people call it.
    pub(crate) shown: &'a [u8],
}

/// Fetches `from` as `name` in `folder`. Whether all of it is there now. `work` is the name of the working directory.
///
/// # Errors
/// The name is taken, or something that all files need does not work. What fails of single files is in the report.
pub(crate) fn get(
    options: &Fetch<'_>,
    from: &Source<'_>,
    folder: &Folder,
    name: &[u8],
    work: &[u8],
) -> anyhow::Result<bool> {
    let there = folder.facts(name)?;
    match there.map(|facts| facts.kind) {
        None => {}
        Some(Kind::Folder) if options.replace => {
            return into(options, from, folder.enter(name)?, work);
        }
        Some(Kind::Folder) => {
            return Err(anyhow!("exists already")).hint("-f brings it up to date");
        }
        Some(_) => bail!("is not a directory"),
    }
    let working = enter_or_make(folder, work)?;
    let parts = enter_or_make(&working, PARTS)?;
    remove_all(&parts)?;
    let tree = enter_or_make(&working, TREE)?;
    let whole = fill(options, from, tree.enter_again()?, &parts, None)?;
    if whole {
        working.rename_new(TREE, folder, name)?;
        working.remove_folder(PARTS)?;
        folder.remove_folder(work)?;
        // Only now: what may not be written cannot be moved.
        let attributes = of_directory(read(from.attributes));
        Fetcher::new(options, &tree, &parts, Accounts::read()).dress(&tree, &attributes, from.shown);
    }
    Ok(whole)
}

/// Brings a directory that is here up to date. What only it has stays.
fn into(options: &Fetch<'_>, from: &Source<'_>, tree: Folder, work: &[u8]) -> anyhow::Result<bool> {
    let root = tree.enter_again()?;
    let mode = amoeba_tree::facts(&root)?.mode;
    amoeba_tree::set_mode(&root, mode | OWN)?;
    let parts = enter_or_make(&root, work)?;
    remove_all(&parts)?;
    let whole = fill(options, from, tree, &parts, Some(work));
    remove_all(&parts)?;
    root.remove_folder(work)?;
    let attributes = read(from.attributes);
    let attributes = Attributes { mode: attributes.mode.or(Some(mode)), ..attributes };
    Fetcher::new(options, &root, &parts, Accounts::read()).dress(&root, &attributes, from.shown);
    whole
}

fn fill(
    options: &Fetch<'_>,
    from: &Source<'_>,
    tree: Folder,
    parts: &Folder,
    reserved: Option<&[u8]>,
) -> anyhow::Result<bool> {
    let root = tree.enter_again()?;
    let fetcher = Fetcher::new(options, &root, parts, Accounts::read());
    let top = Arc::new(Target {
        folder: tree,
        _parent: None,
        way: Vec::new(),
        path: from.shown.to_vec(),
        attributes: None,
        fetcher: &fetcher,
    });
    let walker = Walker { options, fetcher: &fetcher, reserved };
    in_parallel(options.walk.parallel, &|job| fetcher.work(job), |jobs| {
        walker.walk(&from.directory, top, jobs, &mut Vec::new());
    });
    Ok(!options.report.is_interrupted() && (options.walk.partial || !options.report.has_failures()))
}

fn enter_or_make(folder: &Folder, name: &[u8]) -> anyhow::Result<Folder> {
    let made = match folder.facts(name)? {
        Some(_) => folder.enter(name),
        None => folder.make(name),
    };
    made.with_context(|| crate::out::printable(name))
}

/// Removes the files that an earlier run has left half-written.
fn remove_all(parts: &Folder) -> anyhow::Result<()> {
    parts.names()?.try_for_each(|name| Ok(parts.remove(&name?)?))
}

struct Walker<'a> {
    options: &'a Fetch<'a>,
    fetcher: &'a Fetcher<'a>,
    /// A name at the top that no row may have.
    reserved: Option<&'a [u8]>,
}

impl<'a> Walker<'a> {
    /// Fetches the rows of a directory; `above` are those on the way to it.
    fn walk(
        &self,
        directory: &Capability,
        target: Arc<Target<'a>>,
        jobs: &SyncSender<Job<'a>>,
        above: &mut Vec<[u8; 9]>,
    ) {
        self.options.report.done(|summary| summary.directories += 1);
        above.push(identity(directory));
        let mut after = Vec::new();
        loop {
            if self.options.report.is_interrupted() {
                break;
            }
            let (rows, more) = match page(self.options.graph, directory, &after) {
                Ok(page) => page,
                Err(error) => {
                    let error = error.context(crate::out::printable(&target.path));
                    self.options.report.failed(&target.path, &error);
                    break;
                }
            };
            match rows.last() {
                Some(last) if more => after.clone_from(&last.name),
                _ => after.clear(),
            }
            for row in rows {
                let path = below(&target.path, &row.name);
                if let Err(error) = self.row(row, &target, jobs, above) {
                    self.options.report.failed(&path, &error.context(crate::out::printable(&path)));
                }
            }
            if after.is_empty() {
                break;
            }
        }
        above.pop();
    }

    fn row(
        &self,
        row: RowFull,
        target: &Arc<Target<'a>>,
        jobs: &SyncSender<Job<'a>>,
        above: &mut Vec<[u8; 9]>,
    ) -> anyhow::Result<()> {
        if self.options.report.is_interrupted() {
            return Ok(());
        }
        let path = below(&target.path, &row.name);
        if !amoeba_tree::is_component(&row.name) {
            bail!("no local file can have this name");
        }
        if target.way.is_empty() && self.reserved == Some(&row.name) {
            bail!("this is the name of the working directory here");
        }
        if Status(row.status).is_error() {
            return Err(Refusal::Refused(Status(row.status)).into());
        }
        let attributes = read(&row.attributes);
        match self.kind(&row.set, &attributes)? {
            Kind::Folder => self.directory(&row.set, row.name, attributes, target, jobs, above),
            Kind::Other(what) => {
                self.options.report.skipped(&path, &format!("a {what} is left out"));
                Ok(())
            }
            kind => {
                let job =
                    Job { target: target.clone(), name: row.name, path, set: row.set, attributes, kind };
                // Whoever works ends only after this.
                let _ = jobs.send(job);
                Ok(())
            }
        }
    }

    /// What a row is to be here: what its attributes say, unless the row has got something else since.
    fn kind(&self, set: &CapabilitySet, attributes: &Attributes) -> anyhow::Result<Kind> {
        let first = set.first().ok_or(Refusal::NotSent(Status::RPC_NOTFOUND))?;
        let known = facts::kind(attributes);
        let is_about_it = known == Some(Kind::Folder) || facts::content(attributes, first).is_some();
        if let Some(kind) = known.filter(|kind| is_about_it || matches!(kind, Kind::Other(_))) {
            return Ok(kind);
        }
        Ok(match self.options.graph.answering(set)?.1 {
            Object::File => Kind::File,
            Object::Directory => Kind::Folder,
            Object::Process => Kind::Other("process"),
            Object::Other => Kind::Other("object that is no file"),
        })
    }

    fn directory(
        &self,
        set: &CapabilitySet,
        name: Vec<u8>,
        attributes: Attributes,
        target: &Arc<Target<'a>>,
        jobs: &SyncSender<Job<'a>>,
        above: &mut Vec<[u8; 9]>,
    ) -> anyhow::Result<()> {
        let directory = *set.first().ok_or(Refusal::NotSent(Status::RPC_NOTFOUND))?;
        if above.contains(&identity(&directory)) {
            bail!("is a directory above itself: a circle cannot be fetched");
        }
        if above.len() == DEPTH_MAX {
            bail!("more than {DEPTH_MAX} directories deep");
        }
        let folder = match target.folder.facts(&name)? {
            Some(facts) if facts.kind == Kind::Folder => self.fetcher.open(&target.folder, &name, &facts)?,
            Some(_) => {
                target.folder.remove(&name)?;
                target.folder.make(&name)?
            }
            None => target.folder.make(&name)?,
        };
        let path = below(&target.path, &name);
        let mut way = target.way.clone();
        way.push(name);
        let inner = Target {
            folder,
            _parent: Some(target.clone()),
            way,
            path,
            attributes: Some(of_directory(attributes)),
            fetcher: self.fetcher,
        };
        self.walk(&directory, Arc::new(inner), jobs, above);
        Ok(())
    }
}

/// A directory of which nothing is known is as a new one would be.
fn of_directory(attributes: Attributes) -> Attributes {
    Attributes { mode: attributes.mode.or(Some(0o040_755)), ..attributes }
}

/// Rows of a directory after a name, and whether there are more.
fn page(graph: &Graph, directory: &Capability, after: &[u8]) -> anyhow::Result<(Vec<RowFull>, bool)> {
    match directory::list_full(graph.world(), directory, after, PAGE) {
        Ok(page) => Ok((page.rows, page.more)),
        // A host's own directory only has the classic half.
        Err(Refusal::Refused(Status::STD_COMBAD)) => {
            let page = directory::list(graph.world(), directory, after, PAGE)?;
            let found = graph.look_at(directory, &page.rows)?;
            let full = page.rows.into_iter().zip(found).map(|(head, found)| RowFull {
                name: head.name,
                status: found.status,
                kind: found.kind,
                time: head.time,
                masks: head.masks,
                set: found.set,
                attributes: found.attributes,
            });
            Ok((full.collect(), page.more))
        }
        Err(error) => Err(error.into()),
    }
}
