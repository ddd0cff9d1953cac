//! Whether what the names of a graph stand for is there.

use std::collections::BTreeSet;

use amoeba_cap::{Capability, CapabilitySet, PutPort};
use amoeba_stubs::directory::{self, RowFound, RowHead};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::graph::{Graph, Kind};
use crate::place::Place;

/// Rows that are asked for at once.
const PAGE: u32 = 500;
/// Directories of one walk at most: those that were seen are remembered, since a graph may have circles.
const DIRECTORIES_MAX: usize = 1 << 20;
/// Problems that are told one by one; all are counted.
const TOLD_MAX: usize = 1000;

/// What a walk found.
#[derive(Default, Serialize)]
pub(super) struct Checked {
    pub(super) directories: u64,
    pub(super) names: u64,
    pub(super) problem_count: u64,
    /// The first of them.
    pub(super) problems: Vec<String>,
    /// Names of which nobody can say, since a server does not answer.
    pub(super) unanswered: u64,
}

/// What became of one capability's object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    There(Kind),
    /// A file whose bytes on the disk are not what was committed, as its server has found.
    Damaged,
    Gone,
    Unknown,
}

/// Looks at every name from `from` on, once for each directory, and at what it stands for; changes nothing. Directories of the
/// hosts themselves, which make up what is in them, are not entered.
///
/// # Errors
/// The directory at `from` cannot be listed; there are more than [`DIRECTORIES_MAX`].
pub(super) fn check(graph: &Graph, from: &Place) -> anyhow::Result<Checked> {
    let mut walk =
        Walk { graph, checked: Checked::default(), seen: BTreeSet::new(), silent: BTreeSet::new() };
    let (start, kind) = graph.answering(&graph.lookup(from)?.set).with_context(|| from.shown())?;
    if kind != Kind::Directory {
        bail!("{} is no directory", from.shown());
    }
    walk.seen.insert(identity(&start));
    let mut waiting = vec![(from.clone(), start)];
    while let Some((place, directory)) = waiting.pop() {
        let is_first = walk.checked.directories == 0;
        walk.checked.directories += 1;
        match walk.rows(&place, &directory, &mut waiting) {
            Err(error) if is_first => return Err(error.context(place.shown())),
            Err(error) => walk.problem(format!("{}: cannot be listed: {error:#}", place.shown())),
            Ok(()) => {}
        }
        if walk.seen.len() > DIRECTORIES_MAX {
            bail!("there are more than {DIRECTORIES_MAX} directories: begin further down");
        }
    }
    Ok(walk.checked)
}

struct Walk<'a> {
    graph: &'a Graph,
    checked: Checked,
    /// Directories that were met.
    seen: BTreeSet<[u8; 9]>,
    /// Ports that did not answer: they are not waited for again.
    silent: BTreeSet<PutPort>,
}

impl Walk<'_> {
    /// Looks at all rows of a directory and adds the directories among them to those that are waiting.
    fn rows(
        &mut self,
        place: &Place,
        directory: &Capability,
        waiting: &mut Vec<(Place, Capability)>,
    ) -> anyhow::Result<()> {
        let mut after = Vec::new();
        loop {
            let page = directory::list(self.graph.world(), directory, &after, PAGE)?;
            let found = self.graph.look_at(directory, &page.rows)?;
            for (row, found) in page.rows.iter().zip(found) {
                self.row(place, row, &found, waiting);
            }
            match page.rows.last() {
                Some(last) if page.more => after.clone_from(&last.name),
                _ => return Ok(()),
            }
        }
    }

    fn row(
        &mut self,
        place: &Place,
        row: &RowHead,
        found: &RowFound,
        waiting: &mut Vec<(Place, Capability)>,
    ) {
        match Status(found.status) {
            Status::STD_OK => {}
            Status::STD_NOTFOUND => return, // deleted since the page was read
            Status::SP_UNREACH | Status::STD_NOTNOW => {
                (self.checked.names, self.checked.unanswered) =
                    (self.checked.names + 1, self.checked.unanswered + 1);
                return;
            }
            status => {
                self.checked.names += 1;
                return self.problem(format!("{}: {status}", place.child(&row.name).shown()));
            }
        }
        self.checked.names += 1;
        let fates: Vec<Fate> = found.set.current().map(|member| self.fate(member)).collect();
        let bad = [(Fate::Gone, "gone"), (Fate::Damaged, "damaged")];
        let bad = bad.map(|(bad, word)| (fates.iter().filter(|fate| **fate == bad).count(), word));
        for (count, word) in bad.into_iter().filter(|(count, _)| *count > 0) {
            let what = match (count, fates.len()) {
                (count, all) if count == all => format!("what it stands for is {word}"),
                (1, all) => format!("1 of {all} replicas is {word}"),
                (count, all) => format!("{count} of {all} replicas are {word}"),
            };
            self.problem(format!("{}: {what}", place.child(&row.name).shown()));
        }
        if fates.iter().all(|fate| *fate == Fate::Unknown) {
            self.checked.unanswered += 1;
        }
        if let Some(directory) = directory_of(&found.set, &fates)
            && self.seen.insert(identity(&directory))
        {
            waiting.push((place.child(&row.name), directory));
        }
    }

    fn fate(&mut self, object: &Capability) -> Fate {
        if self.silent.contains(&object.port) {
            return Fate::Unknown;
        }
        match self.graph.info(object) {
            // A host's own directory answers as one; its rows are processes and the like.
            Ok(info) if info.starts_with('%') => Fate::There(Kind::Other),
            Ok(info) if info.starts_with('-') && info.ends_with(", damaged") => Fate::Damaged,
            Ok(info) => Fate::There(Kind::of(&info)),
            Err(Refusal::Refused(Status::STD_CAPBAD)) => Fate::Gone,
            Err(Refusal::Refused(status)) if status != Status::STD_NOTNOW => Fate::There(Kind::Other),
            Err(_) => {
                self.silent.insert(object.port);
                Fate::Unknown
            }
        }
    }

    fn problem(&mut self, text: String) {
        self.checked.problem_count += 1;
        if self.checked.problems.len() < TOLD_MAX {
            self.checked.problems.push(text);
        }
    }
}

/// The first replica of a directory that is there.
fn directory_of(set: &CapabilitySet, fates: &[Fate]) -> Option<Capability> {
    let mut members = set.current().zip(fates);
    members.find(|(_, fate)| **fate == Fate::There(Kind::Directory)).map(|(member, _)| *member)
}

/// Port and object number.
fn identity(capability: &Capability) -> [u8; 9] {
    let mut identity = [0; 9];
    identity.copy_from_slice(&capability.to_bytes()[..9]);
    identity
}
