//! Operations on paths: the part of the path that the text cannot resolve is walked by the directory servers.

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_stubs::Client;
use amoeba_stubs::directory::{self, InstallRow};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

use crate::environment::Environment;
use crate::masks::{MASKS_OPEN, Masks};
use crate::path::{self, PathError, normalise};

/// Services that one lookup may pass through.
pub const HOPS_MAX: usize = 10;
/// How often a row that others make and delete at the same time is put.
const PUTS_MAX: usize = 8;

/// Why an operation on a path did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is no path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No member of the directory's set can be reached. Nothing was done.
    #[error("no directory server answers")]
    Unavailable,
    /// The path goes through something that is no directory.
    #[error("not a directory")]
    NotADirectory,
    /// The path goes through more than [`HOPS_MAX`] services.
    #[error("the path goes through too many directory services")]
    TooManyHops,
    /// A directory server refused, or failed; the inner error tells whether anything was done.
    #[error(transparent)]
    Transaction(Error),
}

impl NameError {
    /// The status that says this on the wire.
    pub fn status(&self) -> Status {
        match self {
            NameError::Path(PathError::PathTooLong | PathError::NameTooLong) | NameError::TooManyHops => {
                Status::STD_OVERFLOW
            }
            NameError::Path(_) => Status::STD_ARGBAD,
            NameError::Unavailable => Status::SP_UNAVAIL,
            NameError::NotADirectory => Status::STD_NOTFOUND,
            NameError::Transaction(error) => error.status(),
        }
    }
}

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The object's capabilities, with the rights that the path lets through.
    pub set: CapabilitySet,
    /// The row's type capability, usually null.
    pub kind: Capability,
    /// When the row changed: nanoseconds since 1970; 0 for the root and the working directory themselves.
    pub time: u64,
    /// The row's attributes.
    pub attributes: Vec<u8>,
}

/// The rows of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// The names of its columns.
    pub columns: Vec<Vec<u8>>,
    /// Its rows, in the order of their names.
    pub rows: Vec<directory::RowHead>,
}

/// The name space of a program. Cheap to clone.
#[derive(Clone)]
pub struct Names {
    world: World,
    root: CapabilitySet,
    work: CapabilitySet,
    work_path: Option<Vec<u8>>,
    masks: Masks,
}

impl Names {
    /// Absolute paths start at `root`; so do relative ones, until [`Names::with_work`] says otherwise.
    pub fn new(world: &World, root: impl Into<CapabilitySet>) -> Names {
        let root = root.into();
        let work_path = Some(b"/".to_vec());
        Names { world: world.clone(), work: root.clone(), root, work_path, masks: MASKS_OPEN }
    }

    /// From the entries ROOT and WORK; `None` without ROOT.
    pub fn from_environment(world: &World, environment: &Environment) -> Option<Names> {
        let names = Names::new(world, *environment.get(Environment::ROOT)?);
        Some(match environment.get(Environment::WORK) {
            Some(work) => names.with_work(*work, None),
            None => names,
        })
    }

    /// Relative paths start at `work`. `path` is its own absolute path, if it has one; without it no path can go above
    /// the working directory.
    pub fn with_work(self, work: impl Into<CapabilitySet>, path: Option<&[u8]>) -> Names {
        Names { work: work.into(), work_path: path.map(<[u8]>::to_vec), ..self }
    }

    /// New rows get these masks.
    pub fn with_masks(self, masks: Masks) -> Names {
        Names { masks, ..self }
    }

    /// The root directory.
    pub fn root(&self) -> &CapabilitySet {
        &self.root
    }

    /// The working directory.
    pub fn work(&self) -> &CapabilitySet {
        &self.work
    }

    /// The working directory's own absolute path, if it is known.
    pub fn work_path(&self) -> Option<&[u8]> {
        self.work_path.as_deref()
    }

    /// What `path` stands for. A path that names the start itself gives it unverified.
    ///
    /// # Errors
    /// STD_NOTFOUND when a name is not there; [`NameError`] for the rest.
    pub fn lookup(&self, path: &[u8]) -> Result<CapabilitySet, NameError> {
        Ok(self.find(path)?.set)
    }

    /// As [`Names::lookup`], with all that the last row says.
    pub fn find(&self, path: &[u8]) -> Result<Found, NameError> {
        let (start, rest) = self.start(path)?;
        if rest.is_empty() {
            return Ok(Found { set: start, kind: Capability::NULL, time: 0, attributes: Vec::new() });
        }
        self.walk(start, rest)
    }

    /// As [`Names::lookup`], the first current member.
    pub fn resolve(&self, path: &[u8]) -> Result<Capability, NameError> {
        self.lookup(path)?.first().copied().ok_or(NameError::Unavailable)
    }

    /// The directory that holds the last name of `path`, and that name.
    ///
    /// # Errors
    /// [`PathError::NoName`] when the path names its start.
    pub fn traverse(&self, path: &[u8]) -> Result<(CapabilitySet, Vec<u8>), NameError> {
        let (start, mut rest) = self.start(path)?;
        let split = rest.iter().rposition(|&byte| byte == b'/');
        let last = rest.split_off(split.map_or(0, |at| at + 1));
        if last.is_empty() {
            return Err(PathError::NoName.into());
        }
        rest.pop();
        let directory = if rest.is_empty() { start } else { self.walk(start, rest)?.set };
        Ok((directory, last))
    }

    /// Makes a row with the masks of this name space. STD_EXISTS when there is one.
    pub fn append(&self, path: &[u8], set: impl Into<CapabilitySet>) -> Result<(), NameError> {
        self.append_with(path, &set.into(), self.masks, &[])
    }

    /// As [`Names::append`], with these masks and attributes.
    pub fn append_with(
        &self,
        path: &[u8],
        set: &CapabilitySet,
        masks: Masks,
        attributes: &[u8],
    ) -> Result<(), NameError> {
        let (directory, name) = self.traverse(path)?;
        self.change(&directory, |t, member| directory::append(t, member, &name, set, &masks, attributes))
    }

    /// Lets a row stand for something else. STD_NOTFOUND when there is none.
    pub fn replace(&self, path: &[u8], set: impl Into<CapabilitySet>) -> Result<(), NameError> {
        let ((directory, name), set) = (self.traverse(path)?, set.into());
        self.change(&directory, |t, member| directory::replace(t, member, &name, &set))
    }

    /// Makes a row or lets the one that is there stand for something else. Of several that do so at the same time, each
    /// succeeds, and the last one counts.
    pub fn put(&self, path: &[u8], set: impl Into<CapabilitySet>) -> Result<(), NameError> {
        let set = set.into();
        let mut attempt = 1;
        loop {
            match self.replace(path, set.clone()) {
                Err(NameError::Transaction(Error::Refused(Status::STD_NOTFOUND))) => {}
                done => return done,
            }
            match self.append(path, set.clone()) {
                // Somebody else has made it meanwhile.
                Err(NameError::Transaction(Error::Refused(Status::STD_EXISTS))) if attempt < PUTS_MAX => {
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// Deletes a row; the object it stood for lives on.
    pub fn delete(&self, path: &[u8]) -> Result<(), NameError> {
        let (directory, name) = self.traverse(path)?;
        self.change(&directory, |t, member| directory::delete(t, member, &name))
    }

    /// Gives a row other masks.
    pub fn chmod(&self, path: &[u8], masks: Masks) -> Result<(), NameError> {
        let (directory, name) = self.traverse(path)?;
        self.change(&directory, |t, member| directory::chmod(t, member, &name, &masks))
    }

    /// The masks of a row.
    pub fn getmasks(&self, path: &[u8]) -> Result<Masks, NameError> {
        let (directory, name) = self.traverse(path)?;
        self.ask(&directory, |t, member| directory::getmasks(t, member, &name))
    }

    /// Gives a row other attributes.
    pub fn put_attributes(&self, path: &[u8], attributes: &[u8]) -> Result<(), NameError> {
        let (directory, name) = self.traverse(path)?;
        self.change(&directory, |t, member| directory::put_attributes(t, member, &name, attributes))
    }

    /// Makes a directory, by the service of the directory it is named in and with that one's columns, and names it: both
    /// or none.
    pub fn mkdir(&self, path: &[u8]) -> Result<Capability, NameError> {
        self.mkdir_with(path, &[])
    }

    /// As [`Names::mkdir`], with these attributes.
    pub fn mkdir_with(&self, path: &[u8], attributes: &[u8]) -> Result<Capability, NameError> {
        let (parent, name) = self.traverse(path)?;
        self.change(&parent, |t, member| directory::makedir(t, member, &name, &[], &self.masks, attributes))
    }

    /// Deletes an empty directory and its row. SP_NOTEMPTY when it is not empty.
    pub fn rmdir(&self, path: &[u8]) -> Result<(), NameError> {
        let (parent, name) = self.traverse(path)?;
        match self.change(&parent, |t, member| directory::removedir(t, member, &name)) {
            // It is none of this service.
            Err(NameError::Transaction(Error::Refused(Status::STD_ARGBAD))) => {}
            done => return done,
        }
        let target = self.walk(parent.clone(), name.clone())?.set;
        self.change(&target, |t, member| directory::discard(t, member))?;
        self.change(&parent, |t, member| directory::delete(t, member, &name))
    }

    /// Gives a row another path: atomically where both directories are of one service, else as a new row and then the
    /// end of the old one. STD_EXISTS when the new name is taken.
    pub fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), NameError> {
        self.rename_row(from, to, false)
    }

    /// As [`Names::rename`], but a row that has the new name already is replaced.
    pub fn rename_over(&self, from: &[u8], to: &[u8]) -> Result<(), NameError> {
        self.rename_row(from, to, true)
    }

    fn rename_row(&self, from: &[u8], to: &[u8], over: bool) -> Result<(), NameError> {
        let ((from, from_name), (to, to_name)) = (self.traverse(from)?, self.traverse(to)?);
        let members = of_one_service(&from, &to);
        if let Some((from, to)) = members.filter(|_| !over && (from != to || from_name != to_name)) {
            let whole = self.change(&CapabilitySet::singleton(from), |t, member| {
                directory::rename(t, member, &from_name, &to.private, &to_name, directory::RENAME_NEW)
            });
            match whole {
                // It does not see all of the row; what it sees it may move.
                Err(NameError::Transaction(Error::Refused(Status::STD_DENIED))) => {}
                done => return done.map(drop),
            }
        }
        let moved = self.walk(from.clone(), from_name.clone())?;
        if from == to && from_name == to_name {
            return Ok(());
        }
        let target = match self.walk(to.clone(), to_name.clone()) {
            Ok(_) if !over => return Err(NameError::Transaction(Error::Refused(Status::STD_EXISTS))),
            Ok(target) => Some(target),
            Err(NameError::Transaction(Error::Refused(Status::STD_NOTFOUND))) => None,
            Err(error) => return Err(error),
        };
        let masks = self.ask(&from, |t, member| directory::getmasks(t, member, &from_name))?;
        let old = target.as_ref().and_then(|target| target.set.first()).copied().unwrap_or(Capability::NULL);
        let Some((from_member, to_member)) = members else {
            match target {
                Some(_) => {
                    self.change(&to, |t, member| directory::replace(t, member, &to_name, &moved.set))?
                }
                None => self.change(&to, |t, member| {
                    directory::append(t, member, &to_name, &moved.set, &masks, &moved.attributes)
                })?,
            }
            return self.change(&from, |t, member| directory::delete(t, member, &from_name));
        };
        let Found { set, kind, attributes, .. } = moved;
        let gone = InstallRow {
            directory: from_member.private,
            name: from_name,
            set: CapabilitySet::default(),
            old: set.first().copied().unwrap_or(Capability::NULL),
            keep: true,
            masks,
            kind: Capability::NULL,
            attributes: Vec::new(),
        };
        let come = InstallRow {
            directory: to_member.private,
            name: to_name,
            set,
            old,
            keep: false,
            masks,
            kind,
            attributes,
        };
        let rows = [gone, come];
        self.change(&CapabilitySet::singleton(from_member), |t, member| directory::install(t, member, &rows))
    }

    /// All rows of a directory.
    pub fn list(&self, path: &[u8]) -> Result<Listing, NameError> {
        let mut rows = Vec::new();
        let columns = self.list_pages(path, |page| rows.extend(page))?;
        Ok(Listing { columns, rows })
    }

    /// The rows of a directory a page at a time, at most [`directory::LIST_MAX`] rows each; gives its columns. Rows that
    /// others make or delete meanwhile may or may not be seen, all others are seen once.
    pub fn list_pages(
        &self,
        path: &[u8],
        mut each: impl FnMut(Vec<directory::RowHead>),
    ) -> Result<Vec<Vec<u8>>, NameError> {
        let set = self.lookup(path)?;
        let count = directory::LIST_MAX as u32;
        let mut after = Vec::new();
        loop {
            let page = self.ask(&set, |t, member| directory::list(t, member, &after, count))?;
            let last = page.rows.last().map(|row| row.name.clone());
            each(page.rows);
            match last {
                Some(last) if page.more => after = last,
                _ => return Ok(page.columns),
            }
        }
    }

    /// Where a path starts, and the rest of it without `.` and `..`.
    fn start(&self, path: &[u8]) -> Result<(CapabilitySet, Vec<u8>), NameError> {
        let normal = normalise(path)?;
        if !normal.absolute && normal.up > 0 {
            let work = self.work_path.as_ref().ok_or(PathError::AboveWork)?;
            let absolute = path::join(work, path)?;
            return Ok((self.root.clone(), normalise(&absolute)?.names.join(&b'/')));
        }
        let start = if normal.absolute { &self.root } else { &self.work };
        Ok((start.clone(), normal.names.join(&b'/')))
    }

    /// Follows `rest` from service to service.
    fn walk(&self, start: CapabilitySet, mut rest: Vec<u8>) -> Result<Found, NameError> {
        let mut at = start;
        for _ in 0..HOPS_MAX {
            let reply = self.ask(&at, |t, member| directory::lookup(t, member, &rest))?;
            let tail = reply.tail.iter().position(|&byte| byte != b'/').map(|start| &reply.tail[start..]);
            let Some(tail) = tail else {
                let directory::LookupReply { set, kind, time, attributes, .. } = reply;
                return Ok(Found { set, kind, time, attributes });
            };
            if tail.len() >= rest.len() {
                return Err(NameError::Transaction(Error::BadReply)); // it would go on for ever
            }
            (at, rest) = (reply.set, tail.to_vec());
        }
        Err(NameError::TooManyHops)
    }

    /// An operation that changes nothing, on the first member that answers.
    fn ask<T>(
        &self,
        set: &CapabilitySet,
        operation: impl FnMut(Client<'_>, &Capability) -> Result<T, Error>,
    ) -> Result<T, NameError> {
        self.on_members(set, |error| !matches!(error, Error::Refused(_) | Error::BadReply), operation)
    }

    /// An operation that changes something, on the first member that gets it.
    fn change<T>(
        &self,
        set: &CapabilitySet,
        operation: impl FnMut(Client<'_>, &Capability) -> Result<T, Error>,
    ) -> Result<T, NameError> {
        self.on_members(set, Error::not_executed, operation)
    }

    /// Tries the current members in turn for as long as `next` says that another one may be tried.
    fn on_members<T>(
        &self,
        set: &CapabilitySet,
        next: impl Fn(&Error) -> bool,
        mut operation: impl FnMut(Client<'_>, &Capability) -> Result<T, Error>,
    ) -> Result<T, NameError> {
        let mut failure = NameError::Unavailable;
        for member in set.current() {
            match operation(Client::from(&self.world), member) {
                Ok(done) => return Ok(done),
                Err(Error::Refused(Status::STD_COMBAD)) => return Err(NameError::NotADirectory),
                Err(Error::NotSent(status)) if is_fault_of_request(status) => {
                    return Err(NameError::Transaction(Error::NotSent(status)));
                }
                Err(error) if next(&error) => failure = unreachable_member(error),
                Err(error) => return Err(NameError::Transaction(error)),
            }
        }
        Err(failure)
    }
}

/// Whether another member would say the same.
fn is_fault_of_request(status: Status) -> bool {
    !status.is_rpc() || matches!(status, Status::RPC_BADADDRESS | Status::RPC_COMBAD)
}

fn unreachable_member(error: Error) -> NameError {
    if error.not_executed() { NameError::Unavailable } else { NameError::Transaction(error) }
}

/// Members of two directories' sets that one service has.
fn of_one_service(one: &CapabilitySet, other: &CapabilitySet) -> Option<(Capability, Capability)> {
    one.current().find_map(|member| {
        let same = other.current().find(|other| other.port == member.port)?;
        Some((*member, *same))
    })
}
