//! The directory graph as the subcommands use it: places to objects, rows of directories, and what an object is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{CONFINED_ROOT, Listing, Masks, NameError, Names};
use amoeba_stubs::directory::{self, RowFound, RowHead, RowName};
use amoeba_stubs::{Client, standard};
use amoeba_wire::Status;
use amoeba_world::{Error as Refusal, TransOptions, World};
use anyhow::{Context, anyhow};

use crate::failure::{Advise, Hint, refusal};
use crate::masks;
use crate::place::Place;
use crate::{Session, commands};

/// Where relative paths start, unless the environment string [`WORK_VARIABLE`] names another directory.
pub(crate) const HOME: &[u8] = b"/home";
/// The environment string that moves the start of relative paths.
const WORK_VARIABLE: &str = "AMOEBA_WORK";
/// The file server that new files are made on.
pub const FILE_SERVER: &[u8] = b"/profile/cap/bulletsvr/default";
/// The name of the server that new files are made on.
const DEFAULT: &str = "default";
/// Names all file servers, each by its host, and one of them `default`.
const FILE_SERVERS: &[u8] = b"/profile/cap/bulletsvr";
/// How long a command that only looks waits for an object's server.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Rows whose capabilities are asked for at once.
const LOOK_ROWS: usize = 500;

/// The graph as seen from a user's root.
pub(crate) struct Graph {
    session: Session,
}

/// What a place leads to.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Capabilities of the object's replicas, at least one.
    pub(crate) set: CapabilitySet,
    /// The first of them.
    pub(crate) capability: Capability,
    /// When the row last changed, nanoseconds since 1970; 0 where no row was looked at.
    pub(crate) time: u64,
    /// The attributes of the row.
    pub(crate) attributes: Vec<u8>,
}

/// What an object is, by the first character of its information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Process,
    Other,
}

impl Kind {
    pub(crate) fn of(info: &str) -> Kind {
        match info.bytes().next() {
            Some(b'-') => Kind::File,
            Some(b'/' | b'%') => Kind::Directory,
            Some(b'!') => Kind::Process,
            _ => Kind::Other,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Process => "process",
            Kind::Other => "object",
        }
    }
}

impl Graph {
    pub(crate) fn new(session: Session) -> Graph {
        Graph { session }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn world(&self) -> &World {
        &self.session.world
    }

    /// The root directory for a process that sees no host's files: it leads to none.
    ///
    /// # Errors
    /// The directory server does not answer.
    pub(crate) fn confined_root(&self) -> anyhow::Result<Capability> {
        let Session { root, confined_root, .. } = &self.session;
        if CONFINED_ROOT.contains(root.rights()) {
            return Ok(*root);
        }
        match confined_root.filter(|kept| same_object(kept, root)) {
            Some(kept) => Ok(kept),
            None => Ok(standard::restrict(self.world(), root, CONFINED_ROOT.bits().into())?),
        }
    }

    /// The place that an argument says. `ps:` and the number of a process is the process.
    pub(crate) fn place(&self, argument: &OsStr) -> anyhow::Result<Place> {
        let Some(number) = argument.as_bytes().strip_prefix(b"ps:") else { return Place::parse(argument) };
        let process = commands::process(self, OsStr::from_bytes(number))?;
        Ok(Place::Capability(process, Vec::new(), Some(crate::out::printable(argument.as_bytes()))))
    }

    /// What `place` leads to.
    pub(crate) fn lookup(&self, place: &Place) -> anyhow::Result<Found> {
        self.on(place, |names, path| {
            let found = names.find(path)?;
            let capability = found.set.first().copied().ok_or(NameError::Unavailable)?;
            Ok(Found { set: found.set, capability, time: found.time, attributes: found.attributes })
        })
    }

    /// The directory that `place` leads to.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn directory(&self, place: &Place) -> anyhow::Result<Capability> {
        let found = self.lookup(place)?;
        match self.answering(&found.set)? {
            (directory, Kind::Directory) => Ok(directory),
            (_, kind) => Err(anyhow!("{} is a {}, not a directory", place.shown(), kind.name())),
        }
    }

    /// What `place` leads to, or `None` when its last name is not there.
    pub(crate) fn lookup_if_there(&self, place: &Place) -> anyhow::Result<Option<Found>> {
        match self.lookup(place) {
            Ok(found) => Ok(Some(found)),
            Err(error) if status_of(&error) == Some(Status::STD_NOTFOUND) => {
                // A directory on the way that is missing is an error, not an absence.
                self.on(place, |names, path| names.traverse(path))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What `place` leads to, or `None` when any name on the way is not there.
    pub(crate) fn find(&self, place: &Place) -> anyhow::Result<Option<Found>> {
        match self.lookup(place) {
            Ok(found) => Ok(Some(found)),
            Err(error) if status_of(&error) == Some(Status::STD_NOTFOUND) => Ok(None),
            Err(error)
                if error
                    .chain()
                    .any(|cause| matches!(cause.downcast_ref(), Some(NameError::NotADirectory))) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where `name` is to be made when `place` is where a person wants it: in the directory that `place` leads to, or
    /// under `place` itself when nothing is there yet, or something that is no directory.
    pub(crate) fn destination(&self, place: &Place, name: &[u8], several: bool) -> anyhow::Result<Place> {
        match self.lookup_if_there(place)? {
            Some(found) if self.kind(&found.capability)? == Kind::Directory => {
                if matches!(name, b"" | b"." | b"..") {
                    return Err(anyhow!("{} is a directory", place.shown())).hint("say the new name too");
                }
                Ok(place.child(name))
            }
            _ if several || place.is_directory() => {
                Err(anyhow!("{}: not a directory", place.shown())).hint("make it first: `amoeba mkdir`")
            }
            _ => Ok(place.clone()),
        }
    }

    /// The capability under a path from the user's root.
    pub(crate) fn at_root(&self, path: &[u8]) -> anyhow::Result<Capability> {
        Ok(self.lookup(&Place::Path(path.to_vec()))?.capability)
    }

    /// A capability of this host's own directory.
    pub(crate) fn at_host(&self, name: &str) -> anyhow::Result<Capability> {
        Ok(self.lookup(&Place::Capability(self.session.host, name.into(), None))?.capability)
    }

    /// Where relative paths start, as a path from the root.
    pub(crate) fn work_path() -> anyhow::Result<Vec<u8>> {
        let work = std::env::var_os(WORK_VARIABLE).unwrap_or_default();
        amoeba_name::path::join(HOME, work.as_bytes()).context(WORK_VARIABLE)
    }

    /// The working directory and those above it, the root first, as far as they are there.
    pub(crate) fn work_directories(&self) -> anyhow::Result<Vec<(Place, Capability)>> {
        let work = Graph::work_path()?;
        let ends = (1..=work.len()).filter(|&end| end == work.len() || work[end] == b'/');
        let root = (Place::Path(b"/".to_vec()), self.session.root);
        let below = ends.map(|end| Place::Path(work[..end].to_vec())).filter_map(|place| {
            let directory = self.lookup(&place).ok()?.capability;
            Some((place, directory))
        });
        Ok(std::iter::once(root).chain(below).collect())
    }

    /// The server that new files are made on.
    pub(crate) fn file_server(&self) -> anyhow::Result<Capability> {
        self.at_root(FILE_SERVER).context("no file server").hint("see `amoeba status`")
    }

    /// All servers that files can be made on, that of new files first.
    pub(crate) fn file_servers(&self) -> anyhow::Result<Vec<Capability>> {
        let mut servers = vec![self.file_server()?];
        let directory = Place::Path(FILE_SERVERS.to_vec());
        for row in self.list(&directory)?.rows {
            // A name that has vanished since, or is closed to this user.
            let Ok(found) = self.lookup(&directory.child(&row.name)) else { continue };
            if servers.iter().all(|server| server.port != found.capability.port) {
                servers.push(found.capability);
            }
        }
        Ok(servers)
    }

    /// All file servers that have a name, each once, by the name of its host where it has that too.
    pub(crate) fn named_file_servers(&self) -> anyhow::Result<Vec<(String, Capability)>> {
        let directory = Place::Path(FILE_SERVERS.to_vec());
        let mut servers: Vec<(String, Capability)> = Vec::new();
        for row in self.list(&directory)?.rows {
            // A name that has vanished since, or is closed to this user.
            let Ok(found) = self.lookup(&directory.child(&row.name)) else { continue };
            let name = crate::out::printable(&row.name);
            match servers.iter_mut().find(|(_, server)| same_object(server, &found.capability)) {
                Some((known, _)) if known == DEFAULT => *known = name,
                Some(_) => {}
                None => servers.push((name, found.capability)),
            }
        }
        Ok(servers)
    }

    /// How a command that only looks does its transactions.
    pub(crate) fn look_options(&self) -> TransOptions {
        TransOptions { locate_timeout: LOOK_TIMEOUT, ..TransOptions::default() }
    }

    /// The information line of an object.
    pub(crate) fn info(&self, object: &Capability) -> Result<String, Refusal> {
        standard::info_text(Client::new(&*self.world().transactions, &self.look_options()), object)
    }

    /// The first replica of an object that answers, and what it is.
    pub(crate) fn answering(&self, replicas: &CapabilitySet) -> anyhow::Result<(Capability, Kind)> {
        let mut failure = anyhow::Error::from(NameError::Unavailable);
        for replica in replicas.current() {
            match self.kind(replica) {
                Ok(kind) => return Ok((*replica, kind)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// What an object is.
    pub(crate) fn kind(&self, object: &Capability) -> anyhow::Result<Kind> {
        match self.info(object) {
            Ok(info) => Ok(Kind::of(&info)),
            Err(Refusal::Refused(Status::STD_COMBAD)) => Ok(Kind::Other),
            Err(error) => Err(error.into()),
        }
    }

    /// All rows of the directory at `place`, in the order of their names, and the names of its columns.
    pub(crate) fn list(&self, place: &Place) -> anyhow::Result<Listing> {
        self.on(place, Names::list)
    }

    /// What each row of a directory stands for, in the order of `rows`; a status where that cannot be told.
    pub(crate) fn look_at(&self, directory: &Capability, rows: &[RowHead]) -> anyhow::Result<Vec<RowFound>> {
        let mut found = Vec::with_capacity(rows.len());
        for rows in rows.chunks(LOOK_ROWS) {
            let name = |row: &RowHead| RowName { directory: directory.private, name: row.name.clone() };
            let names: Vec<RowName> = rows.iter().map(name).collect();
            match directory::setlookup(self.world(), directory, &names) {
                Ok(some) => found.extend(some),
                // A host's own directory looks one name up at a time.
                Err(Refusal::Refused(Status::STD_COMBAD)) => {
                    found.extend(rows.iter().map(|row| self.look_at_one(directory, &row.name)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    fn look_at_one(&self, directory: &Capability, name: &[u8]) -> RowFound {
        let (status, reply) = match directory::lookup(self.world(), directory, name) {
            Ok(reply) => (Status::STD_OK, Some(reply)),
            Err(error) => (error.status(), None),
        };
        let set = reply.map(|reply| reply.set).unwrap_or_default();
        RowFound { status: status.0, kind: Capability::NULL, time: 0, set, attributes: Vec::new() }
    }

    /// The masks of the row at `place`, and how many of them mean something: the columns of its directory.
    pub(crate) fn masks(&self, place: &Place) -> anyhow::Result<(Masks, usize)> {
        self.on(place, |names, path| {
            let masks = names.getmasks(path)?;
            let (directory, _) = names.traverse(path)?;
            let described = directory.first().map(|directory| directory::describe(self.world(), directory));
            // A server that does not describe its directories has all the columns there can be.
            Ok((
                masks,
                described.and_then(Result::ok).map_or(masks.len(), |described| described.columns.len()),
            ))
        })
    }

    /// Makes the row at `place`, or with `replace` lets one that is there stand for `set`.
    pub(crate) fn enter(
        &self,
        place: &Place,
        set: &CapabilitySet,
        masks: Masks,
        replace: bool,
    ) -> anyhow::Result<()> {
        self.enter_with(place, set, masks, replace, &[])
    }

    /// As [`Graph::enter`], with these attributes; with `replace` and none, those that are there stay.
    pub(crate) fn enter_with(
        &self,
        place: &Place,
        set: &CapabilitySet,
        masks: Masks,
        replace: bool,
        attributes: &[u8],
    ) -> anyhow::Result<()> {
        let entered = self.on(place, |names, path| {
            let names = names.clone().with_masks(masks);
            match replace {
                false => names.append_with(path, set, masks, attributes),
                true if attributes.is_empty() => names.put(path, set.clone()),
                true => names.put(path, set.clone()).and_then(|()| names.put_attributes(path, attributes)),
            }
        });
        match entered {
            // The server may have done it before it failed: the row tells.
            Err(error) if may_have_run(&error) && self.stands_for(place, set) => Ok(()),
            entered => entered,
        }
    }

    /// Whether two places are one row, by whatever way they lead to it.
    pub(crate) fn is_same_row(&self, one: &Place, other: &Place) -> anyhow::Result<bool> {
        let (directory, name) = self.on(one, |names, path| names.traverse(path))?;
        let (other_directory, other_name) = self.on(other, |names, path| names.traverse(path))?;
        let same = directory
            .first()
            .zip(other_directory.first())
            .is_some_and(|(one, other)| same_object(one, other));
        Ok(same && name == other_name)
    }

    /// Whether the way to `place` goes through a directory, whatever it is called there.
    pub(crate) fn leads_through(&self, place: &Place, directory: &Capability) -> anyhow::Result<bool> {
        let (start, path) = self.start(place)?;
        if same_object(&start, directory) {
            return Ok(true);
        }
        let names = Names::new(self.world(), start);
        for end in (1..path.len()).filter(|&end| path[end] == b'/') {
            let found = names.find(&path[..end]).with_context(|| place.shown())?;
            if found.set.first().is_some_and(|above| same_object(above, directory)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves a row to another place, at once where one server keeps both directories.
    pub(crate) fn rename(&self, from: &Place, to: &Place, replace: bool) -> anyhow::Result<()> {
        let (start, from_path) = self.start(from)?;
        let (other_start, to_path) = self.start(to)?;
        let names = Names::new(self.world(), start).with_work(other_start, None);
        let to_path = to_path.strip_prefix(b"/").unwrap_or(&to_path);
        let moved =
            if replace { names.rename_over(&from_path, to_path) } else { names.rename(&from_path, to_path) };
        moved.with_context(|| format!("{} to {}", from.shown(), to.shown()))
    }

    /// Deletes the row at `place`; the object lives on.
    pub(crate) fn delete(&self, place: &Place) -> anyhow::Result<()> {
        self.on(place, Names::delete)
    }

    /// Makes an empty directory under a name.
    pub(crate) fn make_directory(&self, place: &Place) -> anyhow::Result<Capability> {
        let masks = masks::of_directory()?;
        self.on(place, |names, path| names.clone().with_masks(masks).mkdir(path))
    }

    /// Deletes an empty directory itself; no row is looked at.
    pub(crate) fn discard(&self, directory: &Capability) -> Result<(), Refusal> {
        directory::discard(self.world(), directory)
    }

    /// Whether `place` stands for `set` now; asked when nobody knows whether a change was done.
    fn stands_for(&self, place: &Place, set: &CapabilitySet) -> bool {
        let Some(wanted) = set.first() else { return false };
        self.lookup(place).is_ok_and(|found| same_object(&found.capability, wanted))
    }

    /// Does something with the name space that `place` is in, and its path there, which is absolute.
    fn on<T>(
        &self,
        place: &Place,
        operation: impl FnOnce(&Names, &[u8]) -> Result<T, NameError>,
    ) -> anyhow::Result<T> {
        let (start, path) = self.start(place)?;
        operation(&Names::new(self.world(), start), &path)
            .map_err(|error| self.without_work(place, error))
            .with_context(|| place.shown())
    }

    /// Adds what to do when nothing is found because the working directory itself is not there.
    fn without_work(&self, place: &Place, error: NameError) -> anyhow::Error {
        let is_missing = |error: &NameError| error.status() == Status::STD_NOTFOUND;
        let is_relative = matches!(place, Place::Path(path) if !path.starts_with(b"/"));
        match Graph::work_path() {
            Ok(work) if is_relative && is_missing(&error) => {
                match Names::new(self.world(), self.session.root).find(&work) {
                    Err(no_work) if is_missing(&no_work) => {
                        let work = crate::out::printable(&work);
                        anyhow::Error::from(error).context(Hint(format!(
                            "the working directory {work} is not there: `amoeba mkdir -p {work}` makes it, \
                             {WORK_VARIABLE} names another"
                        )))
                    }
                    _ => error.into(),
                }
            }
            _ => error.into(),
        }
    }

    /// The directory that a place starts from, and the path from there as if that were the root.
    fn start(&self, place: &Place) -> anyhow::Result<(Capability, Vec<u8>)> {
        let (start, base, path) = match place {
            Place::Path(path) => (self.session.root, Graph::work_path()?, path),
            Place::Capability(capability, path, _) => (*capability, b"/".to_vec(), path),
        };
        let path = amoeba_name::path::join(&base, path).with_context(|| place.shown())?;
        Ok((start, path))
    }
}

/// Whether two capabilities name the same object, with whatever rights.
pub(crate) fn same_object(one: &Capability, other: &Capability) -> bool {
    one.port == other.port && one.object() == other.object()
}

fn status_of(error: &anyhow::Error) -> Option<Status> {
    refusal(error).map(|refusal| refusal.status())
}

fn may_have_run(error: &anyhow::Error) -> bool {
    matches!(refusal(error), Some(Refusal::MaybeExecuted(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_character_tells_the_kind() {
        assert_eq!(Kind::of("-       12 bytes"), Kind::File);
        assert_eq!(Kind::of("%--1---"), Kind::Directory);
        assert_eq!(Kind::of("/dw123-"), Kind::Directory);
        assert_eq!(Kind::of(""), Kind::Other);
    }
}
