//! `/system/hosts`: a row for each host, and each row a file.

use std::collections::BTreeMap;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{Masks, NameError, Names};
use amoeba_stubs::bullet;
use amoeba_stubs::directory::{self, InstallRow};
use amoeba_wire::Status;
use amoeba_world::World;
use anyhow::{Context, Result};

use super::members::{Member, Members};
use crate::state::State;

/// The directory.
pub(crate) const HOSTS: &str = "/system/hosts";
/// Where new files are made.
const FILE_SERVER: &[u8] = b"/profile/cap/bulletsvr/default";
/// Bytes of a host's file that are looked at.
const FILE_SIZE_MAX: u32 = 8192;
/// What the columns let through: all to the owner, looking to others.
const MASKS: Masks = [0xFF, 0x02, 0x04, 0];

/// The directory of hosts, and what was read of it.
pub(crate) struct Table {
    world: World,
    names: Names,
    known: BTreeMap<Vec<u8>, (u64, Member)>,
}

impl Table {
    /// The directory of this host's system; nothing is read yet.
    pub(crate) fn new(world: &World, state: &State) -> Result<Table> {
        let names = Names::new(world, state.capability("root.cap")?).with_masks(MASKS);
        Ok(Table { world: world.clone(), names, known: BTreeMap::new() })
    }

    /// Makes the directory and a row for each of these hosts, unless it is there.
    pub(crate) fn ensure(&mut self, members: &Members) -> Result<()> {
        for path in ["/system", HOSTS] {
            match self.names.resolve(path.as_bytes()) {
                Ok(_) => {}
                Err(error) if error.status() == Status::STD_NOTFOUND => {
                    self.names
                        .mkdir(path.as_bytes())
                        .with_context(|| format!("cannot make the directory {path}"))?;
                }
                Err(error) => return Err(error).with_context(|| path.to_owned()),
            }
        }
        // A directory without rows is one that was just made: no system is without hosts.
        if self.names.list(HOSTS.as_bytes())?.rows.is_empty() {
            self.fill(members)?;
        }
        Ok(())
    }

    /// Makes the rows of all these hosts at once: a host that finds others in the directory and not itself was removed.
    fn fill(&self, members: &Members) -> Result<()> {
        let directory = self.names.resolve(HOSTS.as_bytes())?;
        let row = |member: &Member| {
            Ok(InstallRow {
                directory: directory.private,
                name: member.name.clone().into_bytes(),
                set: CapabilitySet::singleton(self.file(member)?),
                old: Capability::NULL, // there must be no such row
                keep: false,
                masks: MASKS,
                kind: Capability::NULL,
                attributes: Vec::new(),
            })
        };
        let rows: Vec<InstallRow> = members.iter().map(row).collect::<Result<_>>()?;
        directory::install(&self.world, &directory, &rows).context("the rows of the hosts cannot be made")
    }

    /// The hosts as they are now. Reads only what has changed.
    ///
    /// # Errors
    /// The directory, or a file that is new, cannot be read.
    pub(crate) fn read(&mut self) -> Result<Members> {
        let rows = self.names.list(HOSTS.as_bytes()).context(HOSTS)?.rows;
        self.known.retain(|name, _| rows.iter().any(|row| row.name == *name));
        for row in rows {
            if self.known.get(&row.name).is_some_and(|(time, _)| *time == row.time) {
                continue;
            }
            match self.member(&row.name) {
                Ok(Some(member)) => drop(self.known.insert(row.name, (row.time, member))),
                Ok(None) => drop(self.known.remove(&row.name)),
                // What cannot be read now is as it was; a file server may be gone for a moment.
                Err(error) if self.known.contains_key(&row.name) => {
                    tracing::debug!(host = %row.name.escape_ascii(), "its file cannot be read: {error:#}");
                }
                Err(error) => return Err(error).with_context(|| row.name.escape_ascii().to_string()),
            }
        }
        Ok(Members::new(self.known.values().map(|(_, member)| member.clone())))
    }

    /// The host of this name; `None` when the row has gone, or what it stands for is no host.
    fn member(&self, name: &[u8]) -> Result<Option<Member>> {
        let file = match self.names.resolve(&path_of(name)) {
            Err(error) if error.status() == Status::STD_NOTFOUND => return Ok(None),
            file => file?,
        };
        let bytes = bullet::read(&self.world, &file, 0, FILE_SIZE_MAX)?;
        match Member::from_file(name, &bytes) {
            Ok(member) => Ok(Some(member)),
            Err(error) => {
                tracing::warn!("{HOSTS}/{} is no host: {error:#}", name.escape_ascii());
                Ok(None)
            }
        }
    }

    /// Makes the row of a host that has joined. One that is there already is its own; false: another host has this name.
    pub(crate) fn enter(&self, member: &Member) -> Result<bool> {
        let name = member.name.as_bytes();
        if let Some(there) = self.member(name)? {
            return Ok(there.key == member.key);
        }
        match self.names.append(&path_of(name), self.file(member)?) {
            Ok(()) => Ok(true),
            Err(error) if error.status() == Status::STD_EXISTS => {
                Ok(self.member(name)?.is_some_and(|there| there.key == member.key))
            }
            Err(error) => Err(error).context("its row cannot be made"),
        }
    }

    /// Lets the row of a host that is there say something else of it.
    pub(crate) fn change(&self, member: &Member) -> Result<(), anyhow::Error> {
        let file = self.file(member)?;
        let changed: Result<(), NameError> = self.names.replace(&path_of(member.name.as_bytes()), file);
        changed.context("its row cannot be changed")
    }

    fn file(&self, member: &Member) -> Result<Capability> {
        let server = self.names.resolve(FILE_SERVER).context("no file server")?;
        bullet::create(&self.world, &server, bullet::COMMIT | bullet::SAFETY, member.to_file())
            .context("its file cannot be made")
    }
}

fn path_of(name: &[u8]) -> Vec<u8> {
    [HOSTS.as_bytes(), b"/", name].concat()
}
