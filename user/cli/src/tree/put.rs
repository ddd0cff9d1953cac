//! A tree of local files into the graph: `amoeba put -r`.
//!
//! The tree grows under a name of its own beside the one it is to have, and gets that in one step when all of it is there: nobody
//! ever sees half of it. The same command run again finds what an interrupted one has left, and carries only what
//! is missing or differs; so it does with `-f` and the files of the tree that has the name already.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{Attributes, Masks};
use amoeba_stubs::directory::{self, InstallRow, RowFound};
use amoeba_tree::{Facts, Folder, Kind};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow, bail};

use super::accounts::Accounts;
use super::rows::{Row, Rows, look};
use super::ship::{Carrier, Job};
use super::{DEPTH_MAX, Report, Walk, below, facts, in_parallel};
use crate::failure::Advise;
use crate::graph::{Graph, Kind as Object};
use crate::masks;
use crate::place::Place;

/// Entries of a local directory that are looked up at once.
const ENTRIES: usize = 100;

/// How a tree is stored.
pub(crate) struct Store<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) report: &'a Report,
    /// Let the name stand for this tree where it stands for another.
    pub(crate) replace: bool,
    pub(crate) copies: usize,
    pub(crate) walk: Walk,
}

/// A directory of the graph that takes the entries of a local one.
struct Target {
    directory: Capability,
    /// The directory that has the name now, which may have some of the files.
    earlier: Option<Capability>,
    /// Whether somebody may have put something into it before.
    is_new: bool,
    path: Vec<u8>,
}

/// Stores the local directory `folder`, which people call `shown`, under the name `to`. Whether the tree has its name now.
/// `work` is the name it grows under, beside `to`.
///
/// # Errors
/// The name is taken, or something that all files need does not work. What fails of single files is in the report.
pub(crate) fn put(
    options: &Store<'_>,
    folder: Folder,
    shown: &[u8],
    to: &Place,
    work: &[u8],
) -> anyhow::Result<bool> {
    let graph = options.graph;
    let (parent_place, parent) = parent(graph, to)?;
    let earlier = there_already(options, to)?;
    let growing = parent_place.child(work);
    let (root, is_new) = match graph.lookup_if_there(&growing)? {
        Some(found) => (found.capability, false),
        None => (graph.make_directory(&growing)?, true),
    };
    let accounts = Accounts::read();
    let rows = Rows::new(graph, parent, options.report);
    let masks = Both { file: masks::of_object()?, directory: masks::of_directory()? };
    let carrier = Carrier::new(options, &rows, &accounts, graph.file_server()?);
    let walker = Walker { options, rows: &rows, accounts: &accounts, masks };
    let own = facts::attributes(
        &amoeba_tree::facts(&folder).with_context(|| crate::out::printable(shown))?,
        &accounts,
    );
    let target = Target { directory: root, earlier, is_new, path: shown.to_vec() };
    in_parallel(options.walk.parallel, &|job| carrier.work(job), |jobs| {
        walker.walk(Arc::new(folder), &target, jobs, 0)
    });
    rows.flush();
    let whole = !options.report.is_interrupted() && (options.walk.partial || !options.report.has_failures());
    if whole {
        options.report.done(|summary| summary.directories += 1);
        directory::put_attributes(graph.world(), &parent, work, &own.to_bytes()?)?;
        graph.rename(&growing, to, earlier.is_some())?;
    }
    Ok(whole)
}

/// The directory that `to` is to be a name in.
fn parent(graph: &Graph, to: &Place) -> anyhow::Result<(Place, Capability)> {
    let parent = to.parent().with_context(|| format!("{} is no name", to.shown()))?;
    let found = graph.lookup(&parent)?.capability;
    match graph.kind(&found).with_context(|| parent.shown())? {
        Object::Directory => Ok((parent, found)),
        _ => bail!("{}: not a directory", parent.shown()),
    }
}

/// The directory that has the name already, if it may be replaced.
fn there_already(options: &Store<'_>, to: &Place) -> anyhow::Result<Option<Capability>> {
    let Some(found) = options.graph.lookup_if_there(to)? else { return Ok(None) };
    if !options.replace {
        return Err(anyhow!("{} exists already", to.shown())).hint("-f lets the name stand for the new tree");
    }
    match options.graph.kind(&found.capability).with_context(|| to.shown())? {
        Object::Directory => Ok(Some(found.capability)),
        _ => bail!("{} is not a directory", to.shown()),
    }
}

#[derive(Clone, Copy)]
struct Both {
    file: Masks,
    directory: Masks,
}

struct Walker<'a> {
    options: &'a Store<'a>,
    rows: &'a Rows<'a>,
    accounts: &'a Accounts,
    masks: Both,
}

impl Walker<'_> {
    fn walk(&self, folder: Arc<Folder>, target: &Target, jobs: &SyncSender<Job>, depth: usize) {
        let failed = |error: anyhow::Error| {
            self.options.report.failed(&target.path, &error.context(crate::out::printable(&target.path)));
        };
        if depth == DEPTH_MAX {
            return failed(anyhow!("more than {DEPTH_MAX} directories deep"));
        }
        let names = match folder.names() {
            Ok(names) => names,
            Err(error) => return failed(error.into()),
        };
        let mut some = Vec::with_capacity(ENTRIES);
        for name in names {
            if self.options.report.is_interrupted() {
                return;
            }
            match name {
                Ok(name) => some.push(name),
                Err(error) => failed(error.into()),
            }
            if some.len() == ENTRIES {
                self.entries(&folder, target, std::mem::take(&mut some), jobs, depth);
            }
        }
        self.entries(&folder, target, some, jobs, depth);
        if !target.is_new
            && !self.options.report.is_interrupted()
            && let Err(error) = self.remove_others(&folder, target)
        {
            failed(error);
        }
    }

    fn entries(
        &self,
        folder: &Arc<Folder>,
        target: &Target,
        names: Vec<Vec<u8>>,
        jobs: &SyncSender<Job>,
        depth: usize,
    ) {
        let graph = self.options.graph;
        let none = || vec![None; names.len()];
        let look = || -> Result<_, Refusal> {
            let there = if target.is_new { none() } else { look(graph, &target.directory, &names)? };
            let earlier =
                target.earlier.map_or_else(|| Ok(none()), |earlier| look(graph, &earlier, &names))?;
            Ok((there, earlier))
        };
        let (there, earlier) = match look() {
            Ok(found) => found,
            Err(error) => {
                let error = anyhow::Error::from(error).context(crate::out::printable(&target.path));
                return self.options.report.failed(&target.path, &error);
            }
        };
        for ((name, there), earlier) in names.into_iter().zip(there).zip(earlier) {
            let path = below(&target.path, &name);
            let entered = self.entry(folder, target, name, there, earlier, jobs, depth);
            if let Err(error) = entered {
                self.options.report.failed(&path, &error.context(crate::out::printable(&path)));
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known of one entry")]
    fn entry(
        &self,
        folder: &Arc<Folder>,
        target: &Target,
        name: Vec<u8>,
        there: Option<RowFound>,
        earlier: Option<RowFound>,
        jobs: &SyncSender<Job>,
        depth: usize,
    ) -> anyhow::Result<()> {
        let path = below(&target.path, &name);
        // What has vanished since it was listed is not of the tree.
        let Some(facts) = folder.facts(&name)? else { return Ok(()) };
        match facts.kind {
            Kind::Other(kind) => self.options.report.skipped(&path, &format!("a {kind} is left out")),
            Kind::Folder => {
                let inner = Arc::new(folder.enter(&name)?);
                let attributes = self.attributes(&facts, Some(&inner), &path);
                let (made, is_new) = self.directory(target, &name, there, &attributes, &path)?;
                self.options.report.done(|summary| summary.directories += 1);
                let earlier = earlier.filter(|row| facts::kind(&read(&row.attributes)) == Some(Kind::Folder));
                let earlier = earlier.and_then(|row| row.set.first().copied());
                let below = Target { directory: made, earlier, is_new, path };
                self.walk(inner, &below, jobs, depth + 1);
            }
            Kind::File | Kind::Link => {
                let attributes = self.attributes(&facts, None, &path);
                let row = new_row(target, name, there.as_ref(), self.masks.file);
                let job = Job { folder: folder.clone(), facts, row, path, attributes, there, earlier };
                // Whoever works ends only after this.
                let _ = jobs.send(job);
            }
        }
        Ok(())
    }

    fn attributes(&self, facts: &Facts, folder: Option<&Folder>, path: &[u8]) -> Attributes {
        let mut attributes = facts::attributes(facts, self.accounts);
        if let Some(folder) = folder {
            super::ship::add_extended(&mut attributes, folder, self.options.report, path);
        }
        attributes
    }

    /// The directory of a local one: one that an earlier run has made, or a new one; and whether it is new.
    fn directory(
        &self,
        target: &Target,
        name: &[u8],
        there: Option<RowFound>,
        attributes: &Attributes,
        path: &[u8],
    ) -> anyhow::Result<(Capability, bool)> {
        let world = self.options.graph.world();
        let bytes = attributes.to_bytes()?;
        if let Some(there) = there {
            let known = read(&there.attributes);
            if let (Some(Kind::Folder), Some(made)) = (facts::kind(&known), there.set.first().copied()) {
                if !facts::say_the_same(&known, attributes) {
                    let mut row = new_row(target, name.to_vec(), Some(&there), self.masks.directory);
                    (row.set, row.attributes) = (there.set.clone(), bytes);
                    self.rows.add(Row { row, path: path.to_vec() });
                }
                return Ok((made, false));
            }
            // It was a file when the earlier run came by.
            directory::delete(world, &target.directory, name)?;
        }
        let made = directory::makedir(world, &target.directory, name, &[], &self.masks.directory, &bytes)?;
        Ok((made, true))
    }

    /// Deletes rows of an earlier run whose files are not here any more.
    fn remove_others(&self, folder: &Folder, target: &Target) -> anyhow::Result<()> {
        let world = self.options.graph.world();
        let mut after = Vec::new();
        loop {
            let page = directory::list(world, &target.directory, &after, directory::LIST_MAX as u32)?;
            for row in &page.rows {
                let is_here = amoeba_tree::is_component(&row.name)
                    && folder.facts(&row.name)?.is_some_and(|facts| !matches!(facts.kind, Kind::Other(_)));
                if !is_here {
                    match directory::delete(world, &target.directory, &row.name) {
                        Err(Refusal::Refused(Status::STD_NOTFOUND)) => {}
                        deleted => deleted?,
                    }
                }
            }
            match page.rows.last() {
                Some(last) if page.more => after = last.name.clone(),
                _ => return Ok(()),
            }
        }
    }
}

/// A row of `target` without what it is to stand for.
fn new_row(target: &Target, name: Vec<u8>, there: Option<&RowFound>, masks: Masks) -> InstallRow {
    InstallRow {
        directory: target.directory.private,
        name,
        set: CapabilitySet::default(),
        old: there.and_then(|row| row.set.first().copied()).unwrap_or(Capability::NULL),
        keep: false,
        masks,
        kind: Capability::NULL,
        attributes: Vec::new(),
    }
}

/// What attributes say; nothing, where they are none of ours.
pub(super) fn read(attributes: &[u8]) -> Attributes {
    Attributes::from_bytes(attributes).unwrap_or_default()
}
