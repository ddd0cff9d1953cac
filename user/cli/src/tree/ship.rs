//! One local file, or link, into the graph: left where it is when it is there already, carried when not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::sync::Arc;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{ATTRIBUTE_NAME_MAX, Attributes, Content};
use amoeba_stubs::bullet;
use amoeba_stubs::directory::{ATTRIBUTES_MAX, InstallRow, RowFound};
use amoeba_tree::{Facts, Folder, Kind};
use anyhow::{Context as _, anyhow};

use super::accounts::Accounts;
use super::facts::{self, LINK_KEPT_MAX};
use super::links::{Linked, Turn};
use super::put::{Store, read};
use super::rows::{Row, Rows, same};
use super::{Carried, Report};
use crate::files;

/// How often a file is carried that changes meanwhile.
const ATTEMPTS: usize = 3;
/// Bytes of extended attributes that a row keeps; the rest of its attributes needs room too.
const EXTENDED_KEPT_MAX: usize = 2048;
/// Bytes that are hashed at a time.
const PIECE_SIZE: usize = 1 << 20;

/// A local file or symbolic link that is to have a row.
pub(super) struct Job {
    pub(super) folder: Arc<Folder>,
    pub(super) facts: Facts,
    /// The row, without what it stands for.
    pub(super) row: InstallRow,
    pub(super) path: Vec<u8>,
    pub(super) attributes: Attributes,
    /// The row that an earlier run has left, and that of the tree that has the name.
    pub(super) there: Option<RowFound>,
    pub(super) earlier: Option<RowFound>,
}

/// A file that is on the file server.
type Stored = (CapabilitySet, Content, Extended);
type Extended = BTreeMap<Vec<u8>, Vec<u8>>;

/// See the module.
pub(super) struct Carrier<'a> {
    options: &'a Store<'a>,
    rows: &'a Rows<'a>,
    accounts: &'a Accounts,
    server: Capability,
    linked: Linked<(u64, u64), Stored>,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(
        options: &'a Store<'a>,
        rows: &'a Rows<'a>,
        accounts: &'a Accounts,
        server: Capability,
    ) -> Carrier<'a> {
        Carrier { options, rows, accounts, server, linked: Linked::new() }
    }

    pub(super) fn work(&self, job: Job) {
        if self.options.report.is_interrupted() {
            return;
        }
        if job.attributes.links.is_none() {
            return drop(self.one(job));
        }
        let file = (job.facts.device, job.facts.inode);
        match self.linked.turn(file) {
            Turn::First => {
                let stored = self.one(job);
                self.linked.done(file, stored);
            }
            Turn::Done(stored) => self.link(job, stored),
            Turn::Alone => drop(self.one(job)),
        }
    }

    /// Another name of a file that is there.
    fn link(&self, job: Job, stored: Option<Stored>) {
        let report = self.options.report;
        match stored {
            Some((set, content, extended)) => {
                report.done(|summary| {
                    (summary.files, summary.unchanged) = (summary.files + 1, summary.unchanged + 1)
                });
                let attributes = Attributes { extended, ..job.attributes.clone() };
                self.enter(Job { attributes, ..job }, set, content);
            }
            None => report.failed(&job.path, &anyhow!("{}: another name of it failed", shown(&job.path))),
        }
    }

    /// A file with one name, or the first name of one with several.
    fn one(&self, job: Job) -> Option<Stored> {
        let path = job.path.clone();
        let done = match job.facts.kind {
            Kind::Link => self.symbolic(job).map(|()| None),
            _ => self.file(job).map(Some),
        };
        done.unwrap_or_else(|error| {
            self.options.report.failed(&path, &error.context(shown(&path)));
            None
        })
    }

    fn symbolic(&self, mut job: Job) -> anyhow::Result<()> {
        let text = job.folder.link_text(&job.row.name)?;
        job.attributes.link = Some(text.clone()).filter(|text| text.len() <= LINK_KEPT_MAX);
        let is_same = |row: &&RowFound| {
            let known = read(&row.attributes);
            facts::kind(&known) == Some(Kind::Link) && known.link.as_ref() == Some(&text)
        };
        let kept = job.there.iter().chain(&job.earlier).find(is_same).map(|row| row.set.clone());
        let set = match kept {
            Some(set) => set,
            None => self.write(&mut &text[..])?,
        };
        self.options.report.done(|summary| summary.links += 1);
        let content =
            Content { hash: *blake3::hash(&text).as_bytes(), ..content_of(&set, text.len() as u64)? };
        self.enter(job, set, content);
        Ok(())
    }

    fn file(&self, mut job: Job) -> anyhow::Result<Stored> {
        let report = self.options.report;
        let (file, facts) = job.folder.read(&job.row.name)?;
        (job.facts, job.attributes) = (facts, self.attributes(&file, &facts, &job.path));
        let (set, content) = match self.kept(&job, &file)? {
            Some(kept) => {
                report.done(|summary| summary.unchanged += 1);
                kept
            }
            None => self.carry(&mut job, file)?,
        };
        report.done(|summary| {
            (summary.files, summary.bytes) = (summary.files + 1, summary.bytes + content.size)
        });
        let extended = job.attributes.extended.clone();
        self.enter(job, set.clone(), content);
        Ok((set, content, extended))
    }

    fn attributes(&self, file: &File, facts: &Facts, path: &[u8]) -> Attributes {
        let mut attributes = facts::attributes(facts, self.accounts);
        add_extended(&mut attributes, file, self.options.report, path);
        attributes
    }

    /// The file of an earlier run, or of the tree that has the name, if it is the same.
    fn kept(&self, job: &Job, file: &File) -> anyhow::Result<Option<(CapabilitySet, Content)>> {
        let mut sum = None;
        for row in job.there.iter().chain(&job.earlier) {
            let known = read(&row.attributes);
            let Some(first) = row.set.first() else { continue };
            let Some(content) =
                facts::content(&known, first).filter(|content| content.size == job.facts.size)
            else {
                continue;
            };
            if self.options.walk.checksum || !facts::same_time(&known, &job.facts) {
                let sum = match sum {
                    Some(sum) => sum,
                    None => *sum.insert(self.sum(file)?),
                };
                if sum != (content.size, content.hash) {
                    continue;
                }
            }
            // A row may outlive its file.
            if row.set.current().all(|copy| {
                bullet::size(self.options.graph.world(), copy).is_ok_and(|size| size == content.size)
            }) {
                return Ok(Some((row.set.clone(), content)));
            }
        }
        Ok(None)
    }

    /// Size and BLAKE3 of a local file, which is at its beginning before and after.
    fn sum(&self, mut file: &File) -> anyhow::Result<(u64, [u8; 32])> {
        let (mut hasher, mut size, mut piece) = (blake3::Hasher::new(), 0, vec![0; PIECE_SIZE]);
        loop {
            self.options.report.go_on()?;
            match file.read(&mut piece)? {
                0 => break,
                count => {
                    hasher.update(&piece[..count]);
                    size += count as u64;
                }
            }
        }
        file.rewind()?;
        Ok((size, *hasher.finalize().as_bytes()))
    }

    /// Carries a file; one that changes meanwhile once more, so that what is stored is what it was at one moment.
    fn carry(&self, job: &mut Job, mut file: File) -> anyhow::Result<(CapabilitySet, Content)> {
        let report = self.options.report;
        for _ in 0..ATTEMPTS {
            let before = amoeba_tree::facts(&file)?;
            let mut from = Carried::new(&mut file, report);
            let set = self.write(&mut from)?;
            let (size, hash) = from.sum();
            let after = amoeba_tree::facts(&file)?;
            if (before.modified, before.size) == (after.modified, after.size) && size == after.size {
                job.attributes = self.attributes(&file, &after, &job.path);
                report.done(|summary| {
                    (summary.shipped, summary.shipped_bytes) =
                        (summary.shipped + 1, summary.shipped_bytes + size);
                });
                let content = Content { hash, ..content_of(&set, size)? };
                return Ok((set, content));
            }
            files::discard(self.options.graph, &set);
            file.rewind()?;
        }
        Err(anyhow!("it changes while it is read"))
    }

    fn write(&self, from: &mut dyn Read) -> anyhow::Result<CapabilitySet> {
        match self.options.copies {
            1 => Ok(files::write(self.options.graph, &self.server, from)?.into()),
            copies => files::write_copies(self.options.graph, copies, from),
        }
    }

    /// Gives a file its row, unless the row says all of it already.
    fn enter(&self, job: Job, set: CapabilitySet, content: Content) {
        let Job { mut row, path, mut attributes, there, .. } = job;
        attributes.content = Some(content);
        let is_same = |there: &RowFound| {
            facts::say_the_same(&read(&there.attributes), &attributes) && same(&there.set, &set)
        };
        if there.as_ref().is_some_and(is_same) {
            return;
        }
        match attributes.to_bytes() {
            Ok(bytes) => {
                (row.set, row.attributes) = (set, bytes);
                self.rows.add(Row { row, path });
            }
            Err(error) => {
                self.options.report.failed(&path, &anyhow::Error::from(error).context(shown(&path)))
            }
        }
    }
}

fn shown(path: &[u8]) -> String {
    crate::out::printable(path)
}

fn content_of(set: &CapabilitySet, size: u64) -> anyhow::Result<Content> {
    let file = set.first().context("the file server gave no file")?;
    Ok(Content { port: file.port, object: file.object(), size, hash: [0; 32] })
}

/// Adds the extended attributes of an open file or directory, as many as a row has room for.
pub(super) fn add_extended(attributes: &mut Attributes, file: impl AsFd, report: &Report, path: &[u8]) {
    attributes.extended.clear();
    let found = match amoeba_tree::extended(file) {
        Ok(found) => found,
        Err(error) => return report.failed(path, &anyhow::Error::from(error).context(shown(path))),
    };
    let mut size = 0;
    for (name, value) in found {
        size += name.len() + value.len() + 3;
        if size > EXTENDED_KEPT_MAX.min(ATTRIBUTES_MAX) || name.len() > ATTRIBUTE_NAME_MAX {
            return report.skipped(path, "some extended attributes are left out: a row has no room for them");
        }
        attributes.extended.insert(name, value);
    }
}
