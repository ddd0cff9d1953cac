//! One file or link of the graph into a local directory: whole or not at all, and left as it is when it is there already.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_cap::CapabilitySet;
use amoeba_name::{Attributes, Content};
use amoeba_stubs::bullet_stream;
use amoeba_tree::{Facts, Folder, Kind, LINK_MAX};
use anyhow::{Context as _, bail};

use super::accounts::Accounts;
use super::get::{Fetch, OWN, Target};
use super::links::{Linked, Turn};
use super::{Carried, facts, identity};
use crate::files;

/// Bytes that are hashed at a time.
const PIECE_SIZE: usize = 1 << 20;

/// A row that is to be a local file or link.
pub(super) struct Job<'a> {
    pub(super) target: Arc<Target<'a>>,
    pub(super) name: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) set: CapabilitySet,
    pub(super) attributes: Attributes,
    pub(super) kind: Kind,
}

/// See the module.
pub(super) struct Fetcher<'a> {
    options: &'a Fetch<'a>,
    /// The top of the tree.
    root: &'a Folder,
    /// Where files lie until they are whole.
    parts: &'a Folder,
    next_part: AtomicU64,
    accounts: Accounts,
    /// Of files with several names: the way to the one that is here.
    linked: Linked<[u8; 9], Vec<Vec<u8>>>,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(
        options: &'a Fetch<'a>,
        root: &'a Folder,
        parts: &'a Folder,
        accounts: Accounts,
    ) -> Fetcher<'a> {
        Fetcher { options, root, parts, next_part: AtomicU64::new(0), accounts, linked: Linked::new() }
    }

    pub(super) fn work(&self, job: Job<'_>) {
        if self.options.report.is_interrupted() {
            return;
        }
        let key = job
            .set
            .first()
            .map(identity)
            .filter(|_| job.attributes.links.is_some() && job.kind == Kind::File);
        let Some(key) = key else {
            self.one(&job);
            return;
        };
        match self.linked.turn(key) {
            Turn::First => {
                let done = self.one(&job).then(|| way_to(&job.target.way, &job.name));
                self.linked.done(key, done);
            }
            Turn::Done(Some(first)) => {
                if self.link(&first, &job.target.folder, &job.name).is_ok() {
                    self.options.report.done(|summary| {
                        (summary.files, summary.unchanged) = (summary.files + 1, summary.unchanged + 1)
                    });
                } else {
                    // The file system makes no more links of it: a file of its own has the same contents.
                    self.one(&job);
                }
            }
            Turn::Done(None) | Turn::Alone => {
                self.one(&job);
            }
        }
    }

    /// Fetches one file or link; whether that went well.
    fn one(&self, job: &Job<'_>) -> bool {
        let done = match job.kind {
            Kind::Link => self.symbolic(job),
            _ => self.file(job),
        };
        match done {
            Ok(()) => true,
            Err(error) => {
                self.options.report.failed(&job.path, &error.context(crate::out::printable(&job.path)));
                false
            }
        }
    }

    fn file(&self, job: &Job<'_>) -> anyhow::Result<()> {
        let report = self.options.report;
        let first = job.set.first().context("the row stands for nothing")?;
        let content = facts::content(&job.attributes, first);
        // Attributes of another file say nothing about this one.
        let attributes = if content.is_some() { job.attributes.clone() } else { Attributes::default() };
        if let Some(facts) = self.kept(job, content.as_ref())? {
            report.done(|summary| {
                summary.unchanged += 1;
                (summary.files, summary.bytes) = (summary.files + 1, summary.bytes + facts.size);
            });
            return Ok(());
        }
        let part = self.part();
        let fetched = || -> anyhow::Result<u64> {
            let mut to = Carried::new(self.parts.create(&part)?, report);
            files::read(self.options.graph, &job.set, &mut to)?;
            let (size, hash) = to.sum();
            if content.is_some_and(|content| (content.size, content.hash) != (size, hash)) {
                bail!("the contents are not what its attributes say");
            }
            self.dress(to.into_inner(), &attributes, &job.path);
            self.parts.rename(&part, &job.target.folder, &job.name)?;
            Ok(size)
        };
        let size = fetched().inspect_err(|_| drop(self.parts.remove(&part)))?;
        report.done(|summary| {
            (summary.shipped, summary.shipped_bytes) = (summary.shipped + 1, summary.shipped_bytes + size);
            (summary.files, summary.bytes) = (summary.files + 1, summary.bytes + size);
        });
        Ok(())
    }

    /// The local file, if it is the same already.
    fn kept(&self, job: &Job<'_>, content: Option<&Content>) -> anyhow::Result<Option<Facts>> {
        let Some(content) = content else { return Ok(None) };
        let there = job.target.folder.facts(&job.name)?;
        let Some(facts) = there.filter(|facts| facts.kind == Kind::File && facts.size == content.size) else {
            return Ok(None);
        };
        let same_time = facts::same_time(&job.attributes, &facts);
        if same_time && !self.options.walk.checksum && !self.undressed(&facts, &job.attributes) {
            return Ok(Some(facts));
        }
        // What cannot be read is replaced.
        let Ok((mut file, facts)) = job.target.folder.read(&job.name) else { return Ok(None) };
        if (!same_time || self.options.walk.checksum) && self.sum(&mut file)? != content.hash {
            return Ok(None);
        }
        self.dress(&file, &job.attributes, &job.path);
        Ok(Some(facts))
    }

    /// Whether a file has another mode than its row says.
    fn undressed(&self, facts: &Facts, attributes: &Attributes) -> bool {
        facts::mode(attributes, self.owns()).is_some_and(|mode| mode != facts.mode & 0o7777)
    }

    fn sum(&self, file: &mut File) -> anyhow::Result<[u8; 32]> {
        let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE_SIZE]);
        loop {
            self.options.report.go_on()?;
            match file.read(&mut piece)? {
                0 => return Ok(*hasher.finalize().as_bytes()),
                count => drop(hasher.update(&piece[..count])),
            }
        }
    }

    fn symbolic(&self, job: &Job<'_>) -> anyhow::Result<()> {
        let folder = &job.target.folder;
        let text = match &job.attributes.link {
            Some(text) => text.clone(),
            None => {
                let file = job.set.first().context("the row stands for nothing")?;
                bullet_stream::read_whole(self.options.graph.world(), file, LINK_MAX)?
            }
        };
        let there = folder.facts(&job.name)?.is_some_and(|facts| facts.kind == Kind::Link);
        if !there || folder.link_text(&job.name)? != text {
            let part = self.part();
            self.parts.make_link(&part, &text)?;
            self.parts.rename(&part, folder, &job.name).inspect_err(|_| drop(self.parts.remove(&part)))?;
        }
        if self.owns() {
            let (user, group) = self.owner(&job.attributes);
            folder.set_link_owner(&job.name, user, group)?;
        }
        if let Some((accessed, modified)) = facts::times(&job.attributes) {
            folder.set_link_times(&job.name, accessed, modified)?;
        }
        self.options.report.done(|summary| summary.links += 1);
        Ok(())
    }

    /// Gives the file at `first` another name.
    fn link(&self, first: &[Vec<u8>], folder: &Folder, name: &[u8]) -> anyhow::Result<()> {
        let (first_name, way) = first.split_last().context("the top is no file")?;
        let part = self.part();
        match self.enter(way)? {
            Some(from) => from.hard_link(first_name, self.parts, &part)?,
            None => self.root.hard_link(first_name, self.parts, &part)?,
        }
        let renamed = self.parts.rename(&part, folder, name);
        // Where both are one file already, a rename does nothing.
        let _ = self.parts.remove(&part);
        Ok(renamed?)
    }

    /// The directory at the end of a way from the top; `None` for the top itself.
    fn enter(&self, way: &[Vec<u8>]) -> anyhow::Result<Option<Folder>> {
        let mut folder: Option<Folder> = None;
        for name in way {
            folder = Some(folder.as_ref().unwrap_or(self.root).enter(name)?);
        }
        Ok(folder)
    }

    /// A directory that is here, opened so that something can be put into it.
    pub(super) fn open(&self, folder: &Folder, name: &[u8], facts: &Facts) -> anyhow::Result<Folder> {
        let inner = folder.enter(name)?;
        if facts.mode & OWN != OWN {
            amoeba_tree::set_mode(&inner, facts.mode | OWN)?;
        }
        Ok(inner)
    }

    /// Gives an open file or directory what its row says of it.
    pub(super) fn dress(&self, file: impl AsFd, attributes: &Attributes, path: &[u8]) {
        let file = file.as_fd();
        let dress = || -> anyhow::Result<()> {
            if self.owns() {
                let (user, group) = self.owner(attributes);
                amoeba_tree::set_owner(file, user, group)?;
            }
            for (name, value) in &attributes.extended {
                if may_set(name, self.owns()) {
                    let text = crate::out::printable(name);
                    amoeba_tree::set_extended(file, name, value).context(text)?;
                }
            }
            if let Some(mode) = facts::mode(attributes, self.owns()) {
                amoeba_tree::set_mode(file, mode)?;
            }
            if let Some((accessed, modified)) = facts::times(attributes) {
                amoeba_tree::set_times(file, accessed, modified)?;
            }
            Ok(())
        };
        if let Err(error) = dress() {
            self.options.report.failed(path, &error.context(crate::out::printable(path)));
        }
    }

    /// Whether files go to whom their rows say.
    fn owns(&self) -> bool {
        self.options.owner
    }

    fn owner(&self, attributes: &Attributes) -> (Option<u32>, Option<u32>) {
        let user = attributes.owner.as_ref().map(|owner| self.accounts.users.number(owner));
        (user, attributes.group.as_ref().map(|group| self.accounts.groups.number(group)))
    }

    fn part(&self) -> Vec<u8> {
        self.next_part.fetch_add(1, Ordering::Relaxed).to_string().into_bytes()
    }
}

fn way_to(way: &[Vec<u8>], name: &[u8]) -> Vec<Vec<u8>> {
    way.iter().cloned().chain([name.to_vec()]).collect()
}

/// Attributes beyond the user's own give powers or belong to the file system: `security.capability` would be one of root's.
fn may_set(name: &[u8], owned: bool) -> bool {
    name.starts_with(b"user.") || owned
}
