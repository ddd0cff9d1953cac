//! The trees that a caller shows, and the way to what is in them.
//!
//! A path is entered one name at a time from the directory that holds its tree, and no symbolic link is followed: whatever
//! a host asks for, and whoever changes the tree meanwhile, nothing outside is reached.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use amoeba_process::{Tree, is_tree_path};
use amoeba_stubs::view::{EntryRecord, KIND_DIRECTORY, NodeRecord, OWNER_ROOT};
use amoeba_tree::{Facts, Folder, Kind};
use amoeba_wire::Status;

use super::hidden;
use super::record::{self, status_of};

/// Directories that everybody on a host may read, of whose contents only what everybody may read is shown.
pub const SYSTEM: &[&str] =
    &["/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/usr"];

/// One tree to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its absolute path without symbolic links, but that it may be one itself.
    pub path: PathBuf,
    /// Whether hosts may change what is in it.
    pub writable: bool,
    /// Whether only what everybody on this host may read is shown.
    pub public: bool,
}

/// The trees, each by the directory that holds it.
pub(crate) struct Trees {
    held: Vec<Held>,
    /// Paths below which nothing is shown.
    closed: Vec<Vec<u8>>,
    /// Held alone by who moves a directory of whose name it depends what in it is shown, and by everybody else who changes
    /// something: nothing comes to lie in it meanwhile.
    pub(crate) moving: RwLock<()>,
}

struct Held {
    /// As in requests: without the first slash.
    path: Vec<u8>,
    parent: Folder,
    writable: bool,
    public: bool,
}

impl Trees {
    /// Opens the trees that are there; what is missing is left out.
    pub(crate) fn open(shown: &[Shown], closed: &[PathBuf]) -> Trees {
        let held = shown.iter().filter_map(|tree| {
            let path = tree.path.as_os_str().as_bytes();
            let parent = is_tree_path(path).then(|| tree.path.parent()).flatten()?;
            let parent = Folder::open(parent).ok()?;
            let name = tree.path.file_name()?.as_bytes();
            parent.facts(name).ok().flatten()?;
            Some(Held { path: path[1..].to_vec(), parent, writable: tree.writable, public: tree.public })
        });
        let closed = closed.iter().filter_map(|path| {
            // What is not there yet may come.
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            Some(path.as_os_str().as_bytes().strip_prefix(b"/")?.to_vec())
        });
        Trees { held: held.collect(), closed: closed.collect(), moving: RwLock::default() }
    }

    /// As a descriptor names them.
    pub(crate) fn for_descriptor(&self) -> Vec<Tree> {
        let tree = |held: &Held| Tree { path: [b"/", &held.path[..]].concat(), writable: held.writable };
        self.held.iter().map(tree).collect()
    }

    /// The tree that a path lies in, and whether it is its root.
    fn tree(&self, path: &[u8]) -> Option<(&Held, bool)> {
        let inside = self.held.iter().filter(|held| is_below(path, &held.path));
        inside.max_by_key(|held| held.path.len()).map(|held| (held, held.path.len() == path.len()))
    }

    /// The names below a path that only leads to trees; none if it leads to none.
    fn leading(&self, path: &[u8]) -> Vec<&[u8]> {
        let next = |held: &'_ Held| {
            let rest = match path {
                b"" => 0..held.path.len(),
                _ if is_below(&held.path, path) && held.path.len() > path.len() => {
                    path.len() + 1..held.path.len()
                }
                _ => return None,
            };
            let length = held.path[rest.clone()].iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            Some(rest.start..rest.start + length)
        };
        let mut names: Vec<&[u8]> =
            self.held.iter().filter_map(|held| next(held).map(|range| &held.path[range])).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn is_closed(&self, path: &[u8]) -> bool {
        hidden::is_hidden(path) || self.closed.iter().any(|closed| is_below(path, closed))
    }

    fn leads_to_closed(&self, path: &[u8]) -> bool {
        self.closed.iter().any(|closed| is_below(closed, path))
    }
}

/// Whether `path` is `top` or lies below it.
fn is_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Whether a path of a request is well-formed.
fn is_path(path: &[u8]) -> bool {
    path.is_empty() || path.split(|byte| *byte == b'/').all(amoeba_tree::is_component)
}

/// Whether something would not be shown because it lies in a directory of this name.
pub(crate) fn names_way(path: &[u8]) -> bool {
    hidden::hidden_below(split(path).1).next().is_some()
}

/// The directory and the name of a path that is not the root's.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A page of a directory.
pub(crate) struct Page {
    /// Of the directory.
    pub(crate) version: [u8; 16],
    pub(crate) entries: Vec<EntryRecord>,
    /// Whether there are names after these.
    pub(crate) more: bool,
}

/// Ways through the trees during one request, which remembers the directories that it has entered.
pub(crate) struct Walk<'t> {
    trees: &'t Trees,
    folders: BTreeMap<Vec<u8>, Option<Arc<Folder>>>,
}

impl<'t> Walk<'t> {
    pub(crate) fn new(trees: &'t Trees) -> Walk<'t> {
        Walk { trees, folders: BTreeMap::new() }
    }

    /// What a path stands for.
    pub(crate) fn look(&mut self, path: &[u8]) -> Result<NodeRecord, Status> {
        if !is_path(path) {
            return Err(Status::STD_ARGBAD);
        }
        if self.trees.tree(path).is_none() {
            return self.look_at_way(path);
        }
        let (folder, name) = self.holder(path)?;
        let facts = folder.facts(name).map_err(|error| status_of(&error))?.ok_or(Status::STD_NOTFOUND)?;
        self.record(path, &folder, name, &facts)
    }

    /// A page of a directory's names behind `after`, and what they stand for.
    pub(crate) fn list(&mut self, path: &[u8], after: &[u8], max: usize) -> Result<Page, Status> {
        let directory = self.look(path)?;
        if directory.kind != KIND_DIRECTORY {
            return Err(amoeba_stubs::view::NOTDIR);
        }
        let trees = self.trees;
        let mut names: Vec<Vec<u8>> = match trees.tree(path) {
            None => trees.leading(path).into_iter().map(<[u8]>::to_vec).collect(),
            Some(_) => {
                let folder = self.folder(path)?.ok_or(Status::STD_NOTFOUND)?;
                let names = folder.names().map_err(|error| status_of(&error))?;
                names.collect::<io::Result<_>>().map_err(|error| status_of(&error))?
            }
        };
        names.retain(|name| name.as_slice() > after);
        names.sort_unstable();
        let more = names.len() > max;
        names.truncate(max);
        let mut child = path.to_vec();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            child.truncate(path.len());
            if !path.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            // What has gone meanwhile, or is not shown, has no line.
            if let Ok(record) = self.look(&child) {
                entries.push(EntryRecord { name, node: record });
            }
        }
        Ok(Page { version: directory.version, entries, more })
    }

    /// An open file, if it is one that is shown.
    pub(crate) fn read(&mut self, path: &[u8]) -> Result<(std::fs::File, Facts), Status> {
        if !is_path(path) {
            return Err(Status::STD_ARGBAD);
        }
        let (folder, name) = self.holder(path)?;
        let (file, facts) = folder.read(name).map_err(|error| status_of(&error))?;
        self.check_public(path, &facts)?;
        Ok((file, facts))
    }

    /// The directory that holds a path in which changes may be made, and its name there.
    pub(crate) fn changeable<'p>(&mut self, path: &'p [u8]) -> Result<(Arc<Folder>, &'p [u8]), Status> {
        if !is_path(path) {
            return Err(Status::STD_ARGBAD);
        }
        match self.trees.tree(path) {
            Some((held, false)) if held.writable => self.holder(path),
            _ => Err(amoeba_stubs::view::READONLY),
        }
    }

    /// Whether it may be moved from one path to another: a directory may not when something in it is, or would be, not shown
    /// because of the way that leads to it.
    pub(crate) fn movable(&mut self, from: &[u8], to: &[u8]) -> Result<(), Status> {
        if [from, to].into_iter().any(|path| self.trees.leads_to_closed(path)) {
            return Err(Status::STD_DENIED);
        }
        if ![from, to].into_iter().any(names_way) {
            return Ok(());
        }
        let (folder, name) = self.holder(from)?;
        let moved = match folder.enter(name).map_err(|error| status_of(&error)) {
            Ok(moved) => moved,
            // Only directories hold something; of what is not there the attempt to move it tells.
            Err(amoeba_stubs::view::NOTDIR | Status::STD_NOTFOUND) => return Ok(()),
            Err(status) => return Err(status),
        };
        for inner in [from, to].into_iter().flat_map(|path| hidden::hidden_below(split(path).1)) {
            if moved.facts(inner).map_err(|error| status_of(&error))?.is_some() {
                return Err(Status::STD_DENIED);
            }
        }
        Ok(())
    }

    /// Forgets directories that may be others now.
    pub(crate) fn forget(&mut self) {
        self.folders.clear();
    }

    /// A directory that only leads to trees: only its names on the way are shown.
    fn look_at_way(&self, path: &[u8]) -> Result<NodeRecord, Status> {
        let names = self.trees.leading(path);
        if names.is_empty() && !path.is_empty() {
            return Err(Status::STD_NOTFOUND);
        }
        let mut version = blake3::Hasher::new();
        for name in &names {
            version.update(name).update(b"/");
        }
        let mut record = record::nothing();
        (record.kind, record.mode, record.links) = (KIND_DIRECTORY, 0o755, 2);
        (record.owner, record.group) = (OWNER_ROOT, OWNER_ROOT);
        record.version.copy_from_slice(&version.finalize().as_bytes()[..16]);
        Ok(record)
    }

    /// The directory in which a path has its last name.
    fn holder<'p>(&mut self, path: &'p [u8]) -> Result<(Arc<Folder>, &'p [u8]), Status> {
        let (above, name) = split(path);
        let (held, is_root) = self.trees.tree(path).ok_or(Status::STD_NOTFOUND)?;
        if self.trees.is_closed(path) {
            return Err(Status::STD_NOTFOUND);
        }
        let folder = if is_root {
            Arc::new(held.parent.enter_again().map_err(|error| status_of(&error))?)
        } else {
            self.folder(above)?.ok_or(Status::STD_NOTFOUND)?
        };
        Ok((folder, name))
    }

    /// A directory in a tree; `None` if it is none or not shown.
    fn folder(&mut self, path: &[u8]) -> Result<Option<Arc<Folder>>, Status> {
        if let Some(known) = self.folders.get(path) {
            return Ok(known.clone());
        }
        // Paths have a bounded length, and so has this way up.
        let (holder, name) = self.holder(path)?;
        let folder = match holder.enter(name) {
            Ok(folder) => {
                let facts = amoeba_tree::facts(&folder).map_err(|error| status_of(&error))?;
                self.check_public(path, &facts).is_ok().then(|| Arc::new(folder))
            }
            Err(_) => None,
        };
        self.folders.insert(path.to_vec(), folder.clone());
        Ok(folder)
    }

    fn record(&self, path: &[u8], folder: &Folder, name: &[u8], facts: &Facts) -> Result<NodeRecord, Status> {
        self.check_public(path, facts)?;
        let text = match facts.kind {
            Kind::Link => folder.link_text(name).map_err(|error| status_of(&error))?,
            Kind::File | Kind::Folder => Vec::new(),
            // Pipes, sockets and devices are of this host alone.
            Kind::Other(_) => return Err(Status::STD_NOTFOUND),
        };
        Ok(record::of(facts, text))
    }

    /// Of a public tree only what everybody may read is there.
    fn check_public(&self, path: &[u8], facts: &Facts) -> Result<(), Status> {
        let is_public = self.trees.tree(path).is_some_and(|(held, _)| held.public);
        let needed = match facts.kind {
            Kind::Folder => 0o005,
            Kind::File => 0o004,
            _ => 0,
        };
        if is_public && facts.mode & needed != needed { Err(Status::STD_NOTFOUND) } else { Ok(()) }
    }
}

/// The system directories of this host as trees: those that are there.
pub fn system() -> Vec<Shown> {
    let shown = |path: &&str| Shown { path: PathBuf::from(path), writable: false, public: true };
    SYSTEM.iter().map(shown).filter(|tree| std::fs::symlink_metadata(&tree.path).is_ok()).collect()
}

/// Whether an absolute path leads to or through something that no host ever sees.
pub fn is_never_shown(path: &Path) -> bool {
    hidden::is_hidden(path.as_os_str().as_bytes())
}

/// A path of this host as requests name it.
pub(crate) fn to_shown(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}
