//! Updates: what clients ask to be changed, and the rules by which each becomes the changes of an entry or is refused.
//!
//! Everything is checked here, against the tables as they will be once all that was planned before is done: the
//! capability again too, since between its first check and now it may have been retracted.

use std::collections::BTreeSet;
use std::sync::Arc;

use amoeba_cap::{Capability, CapabilitySet, CheckField, ObjectNumber, Private, PutPort, Rights};
use amoeba_wire::Status;
use amoeba_world::{Entropy, random};

use crate::draft::Draft;
use crate::entry::{CHANGES_MAX, Change};
use crate::guarded::Guarded;
use crate::row::{
    ATTRIBUTES_SIZE_MAX, COLUMNS_MAX, DELETE, Directory, LIFE_MAX, MODIFY, Masks, Name, Row,
    columns_are_good, has_column,
};
use crate::tables::{Identity, TableError};

/// Rows one install may change.
pub const INSTALL_MAX: usize = 100;
/// The root directory of a service: made at format, never removed.
pub const ROOT: ObjectNumber = match ObjectNumber::new(1) {
    Some(number) => number,
    None => unreachable!(),
};

/// One row of an install.
#[derive(Clone, Debug)]
pub struct Install {
    /// The directory.
    pub directory: Private,
    /// The row.
    pub name: Name,
    /// What it is to stand for; an empty set deletes the row.
    pub new: CapabilitySet,
    /// A member of the current set, or a member with fewer rights. `None`: there must be no such row.
    pub old: Option<Capability>,
    /// Whether a row that exists keeps its masks, type capability and attributes.
    pub keep: bool,
    /// Its masks.
    pub masks: Masks,
    /// Its type capability.
    pub kind: Capability,
    /// Its attributes.
    pub attributes: Vec<u8>,
    /// Members of the row's set as read before, each with what its server made of it for the rights of `old`.
    pub restricted: Vec<(Capability, Capability)>,
}

/// What a client asks to be changed. `directory` is the private part of the capability it showed.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the fields are those of the operations in idl/directory.class
pub enum Update {
    /// A new directory.
    Create { columns: Vec<Vec<u8>>, owner: PutPort },
    /// A new row.
    Append { directory: Private, name: Name, set: CapabilitySet, masks: Masks, attributes: Vec<u8> },
    /// Another set for a row.
    Replace { directory: Private, name: Name, set: CapabilitySet },
    /// A row goes.
    Delete { directory: Private, name: Name },
    /// Other masks for a row.
    Chmod { directory: Private, name: Name, masks: Masks },
    /// Another type capability for a row.
    PutType { directory: Private, name: Name, kind: Capability },
    /// Other attributes for a row.
    PutAttributes { directory: Private, name: Name, attributes: Vec<u8> },
    /// Several rows, all or nothing.
    Install(Vec<Install>),
    /// A row gets another name, perhaps in another directory.
    Rename { directory: Private, name: Name, to: Private, new: Name, how: Rename },
    /// A new directory and a row that names it.
    MakeDir {
        directory: Private,
        name: Name,
        columns: Vec<Vec<u8>>,
        owner: PutPort,
        masks: Masks,
        attributes: Vec<u8>,
    },
    /// An empty directory and the row that names it go.
    RemoveDir { directory: Private, name: Name },
    /// An empty directory goes.
    Discard { directory: Private },
    /// Every capability of the directory dies.
    Retract { directory: Private },
    /// These are in use.
    Touch(Vec<ObjectNumber>),
    /// Everything is one tick older.
    Tick,
    /// A directory nobody touched for [`LIFE_MAX`] ticks goes, in as many updates as it takes, unless it was used
    /// meanwhile. The first one makes its capabilities worthless, so that nobody sees half of it; the others have
    /// `begun` set.
    Expire {
        /// Which directory.
        object: ObjectNumber,
        /// Whether an earlier update has begun to remove it.
        begun: bool,
    },
}

/// What becomes of a row that has the new name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// There must be none.
    New,
    /// It is replaced.
    Over,
    /// It gets the old name.
    Exchange,
}

/// What an update did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is done: this is the new directory and its random.
    Created(ObjectNumber, CheckField),
    /// It is done: this is the directory's new random.
    Retracted(CheckField),
    /// It is done: a row was replaced that stood for this, of which the caller's columns let these rights through.
    Replaced(CapabilitySet, Rights),
    /// Some is done, more is left: ask again.
    More,
}

/// Why an update, or a lookup, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No such directory, or the capability is forged or was retracted.
    #[error("no such directory, or a forged or retracted capability")]
    BadCapability,
    /// The capability lacks a right, or every column.
    #[error("the capability lacks a right or a column")]
    Denied,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// No such name.
    #[error("no such name")]
    NotFound,
    /// Only an empty directory can be discarded.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A row is not what the installer thought.
    #[error("a row is not what the installer thought")]
    Clash,
    /// A bad name, bad columns, an empty set, a row named twice.
    #[error("bad argument")]
    BadArgument,
    /// More than a bound allows.
    #[error("too large")]
    TooLarge,
    /// No server of the object can be reached to restrict its capability.
    #[error("the object's server cannot be reached")]
    Unreachable,
    /// The disk is full, or there are as many directories as object numbers.
    #[error("no space")]
    NoSpace,
    /// The disk failed before: nothing can be changed until the server is started again. Not done.
    #[error("the disk failed: no changes until the server is restarted")]
    ReadOnly,
    /// The disk failed under this very update: a restart may find it done or not.
    #[error("the disk failed: the change may or may not have happened")]
    Unknown,
    /// The tables are damaged.
    #[error("the tables are damaged")]
    Damaged,
}

impl Update {
    /// Whether it only makes room: such an update is done as long as the log has a place for it.
    pub fn makes_room(&self) -> bool {
        match self {
            Update::Delete { .. } | Update::Discard { .. } | Update::RemoveDir { .. } => true,
            Update::Retract { .. } | Update::Touch(_) | Update::Tick | Update::Expire { .. } => true,
            Update::Install(rows) => rows.iter().all(|row| row.new.is_empty()),
            _ => false,
        }
    }

    /// The rows and directories it is planned with.
    pub(crate) fn concerns(&self) -> Vec<(ObjectNumber, Option<&Name>)> {
        match self {
            Update::Create { .. } | Update::Touch(_) | Update::Tick => Vec::new(),
            Update::Append { directory, name, .. }
            | Update::Replace { directory, name, .. }
            | Update::Delete { directory, name }
            | Update::Chmod { directory, name, .. }
            | Update::PutType { directory, name, .. }
            | Update::PutAttributes { directory, name, .. }
            | Update::MakeDir { directory, name, .. }
            | Update::RemoveDir { directory, name } => vec![(directory.object, Some(name))],
            Update::Rename { directory, name, to, new, .. } => {
                vec![(directory.object, Some(name)), (to.object, Some(new))]
            }
            Update::Install(rows) => rows.iter().map(|row| (row.directory.object, Some(&row.name))).collect(),
            Update::Discard { directory } | Update::Retract { directory } => vec![(directory.object, None)],
            Update::Expire { object, .. } => vec![(*object, None)],
        }
    }
}

impl Refusal {
    /// The status that says so on the wire.
    pub fn status(self) -> Status {
        match self {
            Refusal::BadCapability => Status::STD_CAPBAD,
            Refusal::Denied => Status::STD_DENIED,
            Refusal::Exists => Status::STD_EXISTS,
            Refusal::NotFound => Status::STD_NOTFOUND,
            Refusal::NotEmpty => Status::SP_NOTEMPTY,
            Refusal::Clash => Status::SP_CLASH,
            Refusal::BadArgument => Status::STD_ARGBAD,
            Refusal::TooLarge => Status::STD_OVERFLOW,
            Refusal::Unreachable => Status::SP_UNREACH,
            Refusal::NoSpace => Status::STD_NOSPACE,
            Refusal::ReadOnly => Status::STD_WRITEPROT,
            Refusal::Unknown | Refusal::Damaged => Status::STD_SYSERR,
        }
    }
}

/// An update is refused, or the tables failed and no more can be planned.
#[derive(Debug)]
pub enum PlanError {
    /// This update is refused.
    Refused(Refusal),
    /// The tables failed.
    Tables(TableError),
}

impl From<Refusal> for PlanError {
    fn from(refusal: Refusal) -> PlanError {
        PlanError::Refused(refusal)
    }
}

impl From<TableError> for PlanError {
    fn from(error: TableError) -> PlanError {
        PlanError::Tables(error)
    }
}

pub(crate) type Plan = Result<(Vec<Change>, Outcome), PlanError>;

/// Makes changes of updates, against the tables as they will be when it is their turn.
pub struct Planner<'a> {
    /// The tables.
    pub tables: &'a Draft,
    /// Whose check fields count.
    pub identity: &'a Identity,
    /// The put-port in capabilities of our own directories.
    pub port: PutPort,
    /// Randomness for new directories.
    pub entropy: &'a dyn Entropy,
    /// The time of the entry.
    pub time: u64,
    /// Whether a directory was used since the tables last heard of it.
    pub is_used: &'a dyn Fn(ObjectNumber) -> bool,
}

impl Planner<'_> {
    /// What `update` changes, or why it does not.
    pub fn plan(&self, update: Update) -> Plan {
        match update {
            Update::Create { columns, owner } => self.create(columns, owner),
            Update::Append { directory, name, set, masks, attributes } => {
                self.append(&directory, name, set, masks, attributes)
            }
            Update::Replace { directory, name, set } => {
                self.change_row(&directory, name, |row| row.set = set)
            }
            Update::Delete { directory, name } => {
                self.authorize(&directory, MODIFY)?;
                self.row(&directory, &name)?;
                done(Change::Delete(directory.object, name))
            }
            Update::Chmod { directory, name, masks } => {
                let columns = self.authorize(&directory, MODIFY)?.columns.len();
                self.change_row(&directory, name, |row| row.masks = clipped(masks, columns))
            }
            Update::PutType { directory, name, kind } => {
                self.change_row(&directory, name, |row| row.kind = kind)
            }
            Update::PutAttributes { directory, name, attributes } => {
                if attributes.len() > ATTRIBUTES_SIZE_MAX {
                    return Err(Refusal::TooLarge.into());
                }
                self.change_row(&directory, name, |row| row.attributes = attributes)
            }
            Update::Install(rows) => self.install(rows),
            Update::Rename { directory, name, to, new, how } => {
                self.rename((&directory, &name), (&to, &new), how)
            }
            Update::MakeDir { directory, name, columns, owner, masks, attributes } => {
                self.make_directory(&directory, name, columns, owner, masks, attributes)
            }
            Update::RemoveDir { directory, name } => self.remove_directory(&directory, name),
            Update::Discard { directory } => self.discard(&directory),
            Update::Retract { directory } => {
                self.authorize(&directory, MODIFY | DELETE)?;
                let new = CheckField::from_bytes(random(self.entropy));
                Ok((vec![Change::Random(directory.object, new)], Outcome::Retracted(new)))
            }
            Update::Touch(objects) => {
                let objects = objects.into_iter().take(CHANGES_MAX);
                Ok((objects.map(Change::Touch).collect(), Outcome::Done))
            }
            Update::Tick => done(Change::Tick),
            Update::Expire { object, begun } => self.expire(object, begun),
        }
    }

    /// The directory that `private` names, if it may be used with the rights `need`.
    pub(crate) fn authorize(&self, private: &Private, need: Rights) -> Result<Arc<Guarded>, PlanError> {
        let directory = self.tables.directory(private.object)?.ok_or(Refusal::BadCapability)?;
        if !directory.verifies(&self.identity.secret, private) {
            return Err(Refusal::BadCapability.into());
        }
        if !private.rights.contains(need) || !has_column(private.rights, directory.column_rights()) {
            return Err(Refusal::Denied.into());
        }
        Ok(directory)
    }

    pub(crate) fn row(&self, directory: &Private, name: &Name) -> Result<Row, PlanError> {
        Ok(self.tables.row(directory.object, name)?.ok_or(Refusal::NotFound)?)
    }

    fn create(&self, columns: Vec<Vec<u8>>, owner: PutPort) -> Plan {
        if !columns_are_good(&columns) {
            return Err(Refusal::BadArgument.into());
        }
        let (object, directory) = self.new_directory(columns, owner)?;
        let random = directory.random;
        Ok((vec![Change::Create(object, directory)], Outcome::Created(object, random)))
    }

    /// An empty directory with a random and an object number of its own.
    pub(crate) fn new_directory(
        &self,
        columns: Vec<Vec<u8>>,
        owner: PutPort,
    ) -> Result<(ObjectNumber, Directory), PlanError> {
        let object = self.tables.free_object()?.ok_or(Refusal::NoSpace)?;
        let random = CheckField::from_bytes(random(self.entropy));
        let touched = self.tables.state.tick;
        Ok((object, Directory { random, sequence: 0, time: self.time, rows: 0, touched, owner, columns }))
    }

    fn append(
        &self,
        private: &Private,
        name: Name,
        set: CapabilitySet,
        masks: Masks,
        attributes: Vec<u8>,
    ) -> Plan {
        let directory = self.authorize(private, MODIFY)?;
        if attributes.len() > ATTRIBUTES_SIZE_MAX {
            return Err(Refusal::TooLarge.into());
        }
        if set.is_empty() {
            return Err(Refusal::BadArgument.into());
        }
        if self.tables.row(private.object, &name)?.is_some() {
            return Err(Refusal::Exists.into());
        }
        let (kind, masks) = (Capability::NULL, clipped(masks, directory.columns.len()));
        done(Change::Put(private.object, name, Row { time: self.time, kind, masks, set, attributes }))
    }

    fn change_row(&self, directory: &Private, name: Name, change: impl FnOnce(&mut Row)) -> Plan {
        self.authorize(directory, MODIFY)?;
        let mut row = self.row(directory, &name)?;
        change(&mut row);
        if row.set.is_empty() {
            return Err(Refusal::BadArgument.into());
        }
        row.time = self.time;
        done(Change::Put(directory.object, name, row))
    }

    fn install(&self, rows: Vec<Install>) -> Plan {
        if rows.len() > INSTALL_MAX {
            return Err(Refusal::TooLarge.into());
        }
        let distinct: BTreeSet<_> = rows.iter().map(|row| (row.directory.object, &row.name)).collect();
        if rows.is_empty() || distinct.len() != rows.len() {
            return Err(Refusal::BadArgument.into());
        }
        let changes = rows.into_iter().filter_map(|row| self.install_row(row).transpose());
        Ok((changes.collect::<Result<Vec<_>, _>>()?, Outcome::Done))
    }

    fn install_row(&self, install: Install) -> Result<Option<Change>, PlanError> {
        let directory = self.authorize(&install.directory, MODIFY)?;
        if install.attributes.len() > ATTRIBUTES_SIZE_MAX {
            return Err(Refusal::TooLarge.into());
        }
        let (object, name) = (install.directory.object, install.name);
        let current = self.tables.row(object, &name)?;
        let (was_there, kept) = match (&install.old, current) {
            (None, None) => (false, None),
            (Some(old), Some(row)) => {
                if !self.is_member(&row.set, old, &install.restricted)? {
                    return Err(Refusal::Clash.into());
                }
                (true, install.keep.then_some(row))
            }
            _ => return Err(Refusal::Clash.into()),
        };
        if install.new.is_empty() {
            return Ok(was_there.then_some(Change::Delete(object, name)));
        }
        let (time, set) = (self.time, install.new);
        let row = match kept {
            Some(row) => Row { time, set, ..row },
            None => Row {
                time,
                kind: install.kind,
                masks: clipped(install.masks, directory.columns.len()),
                set,
                attributes: install.attributes,
            },
        };
        Ok(Some(Change::Put(object, name, row)))
    }

    /// Whether `old` is a current member of `set`, or one with fewer rights.
    fn is_member(
        &self,
        set: &CapabilitySet,
        old: &Capability,
        restricted: &[(Capability, Capability)],
    ) -> Result<bool, PlanError> {
        for member in set.current() {
            let same = member == old || restricted.contains(&(*member, *old));
            if same || (member.port == self.port && self.is_restriction(member, old)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `old` is our own directory's `member` with fewer rights.
    fn is_restriction(&self, member: &Capability, old: &Capability) -> Result<bool, PlanError> {
        if old.port != member.port
            || old.object() != member.object()
            || !member.rights().contains(old.rights())
        {
            return Ok(false);
        }
        let Some(directory) = self.tables.directory(member.object())? else { return Ok(false) };
        let genuine = |private| directory.verifies(&self.identity.secret, private);
        Ok(genuine(&member.private) && genuine(&old.private))
    }

    fn discard(&self, private: &Private) -> Plan {
        let directory = self.authorize(private, DELETE)?;
        if private.object == ROOT {
            return Err(Refusal::Denied.into());
        }
        if directory.rows > 0 {
            return Err(Refusal::NotEmpty.into());
        }
        done(Change::Remove(private.object))
    }

    fn expire(&self, object: ObjectNumber, begun: bool) -> Plan {
        let Some(directory) = self.tables.directory(object)? else {
            return Ok((Vec::new(), Outcome::Done));
        };
        let expired = begun || is_expired(&directory, self.tables.state.tick) && !(self.is_used)(object);
        if object == ROOT || !expired {
            return Ok((Vec::new(), Outcome::Done));
        }
        let mut changes = vec![Change::Random(object, CheckField::from_bytes(random(self.entropy)))];
        let names = self.tables.names(object, CHANGES_MAX - 1)?;
        changes.extend(names.into_iter().map(|name| Change::Delete(object, name)));
        if changes.len() < CHANGES_MAX {
            changes.push(Change::Remove(object));
            return Ok((changes, Outcome::Done));
        }
        Ok((changes, Outcome::More))
    }
}

/// Whether nobody touched a directory for [`LIFE_MAX`] ticks.
pub fn is_expired(directory: &Directory, tick: u64) -> bool {
    tick.saturating_sub(directory.touched) >= u64::from(LIFE_MAX)
}

pub(crate) fn done(change: Change) -> Plan {
    Ok((vec![change], Outcome::Done))
}

/// The masks of the columns that are there.
pub(crate) fn clipped(masks: Masks, columns: usize) -> Masks {
    let mut clipped = [Rights::NONE; COLUMNS_MAX];
    clipped[..columns].copy_from_slice(&masks[..columns]);
    clipped
}
