//! Which files a process sees: `--view`, `--with`, `--home`, `--changes`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amoeba_process::{Mine, ProcessDescriptor, VIEW_TREES_MAX, View};
use amoeba_view::home::{self, Done, Shown};
use amoeba_world::World;
use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::failure::Advise;

/// Whose files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Whose {
    /// This host's system directories, to be read, and the working directory, also to be written
    Mine,
    /// Those of the host where it runs
    Host,
    /// The directory graph, from the root of your directories on, and no host's files
    Graph,
}

/// What a person may say about it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ViewOptions {
    /// Which files it sees
    #[arg(long, value_enum, default_value = "host")]
    view: Whose,
    /// With `--view mine`: also this file or directory, only to be read with `:ro` behind it; may be given several times
    #[arg(long, value_name = "DIR[:ro]")]
    with: Vec<PathBuf>,
    /// With `--view mine`: also the home directory, but not the keys in it
    #[arg(long)]
    home: bool,
    /// With `--view mine`: list on standard error which files it has changed here
    #[arg(long)]
    changes: bool,
}

/// The files of this host that processes see, while this program serves them.
pub(crate) struct Sight {
    server: Arc<home::Server>,
    identity: [u8; 32],
    changes: bool,
}

/// A change of a file, as `--json` prints it.
#[derive(Serialize)]
struct ChangeShown {
    path: String,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ViewOptions {
    /// Whether processes are to see the directory graph.
    pub(crate) fn is_graph(&self) -> bool {
        self.view == Whose::Graph
    }

    /// Begins to serve the files that processes in `directory` are to see; `None` where those are their host's.
    pub(crate) fn serve(&self, world: &World, directory: &Path) -> anyhow::Result<Option<Sight>> {
        if self.view != Whose::Mine {
            if self.home || self.changes || !self.with.is_empty() {
                return Err(anyhow!("--with, --home and --changes are for files of this host"))
                    .hint("`--view mine` shows them");
            }
            return Ok(None);
        }
        let shown = self.shown(directory)?;
        let server = home::Server::start(world, &shown, &closed())?;
        let identity = of_this_host(identity(world));
        Ok(Some(Sight { server, identity, changes: self.changes }))
    }

    /// The trees that are to be shown.
    fn shown(&self, directory: &Path) -> anyhow::Result<Vec<Shown>> {
        let mut shown = home::system();
        let mut add = |path: &Path, writable| {
            shown.retain(|tree: &Shown| tree.path != path);
            shown.push(Shown { path: path.to_owned(), writable, public: false });
        };
        let user_home = std::env::var_os("HOME").and_then(|home| std::fs::canonicalize(home).ok());
        let user_home = user_home.filter(|home| home.parent().is_some());
        if self.home {
            add(user_home.as_deref().context("there is no home directory")?, true);
        }
        for with in &self.with {
            let (path, writable) = match with.as_os_str().as_bytes().strip_suffix(b":ro") {
                Some(path) => (Path::new(OsStr::from_bytes(path)), false),
                None => (with.as_path(), true),
            };
            let path = std::fs::canonicalize(path).with_context(|| path.display().to_string())?;
            if path.parent().is_none() {
                return Err(anyhow!("--with /: not the whole host"))
                    .hint("name the directories that are needed");
            }
            add(&path, writable);
        }
        let directory = std::fs::canonicalize(directory)
            .with_context(|| format!("the working directory {}", directory.display()))?;
        // Whoever stands in his home, or above it, has not asked for it to be shown.
        let shows_home = !self.home && user_home.is_some_and(|home| home.starts_with(&directory));
        let inside = |tree: &Shown| tree.writable && directory.starts_with(&tree.path);
        if !shows_home && directory.parent().is_some() && !shown.iter().any(inside) {
            shown.push(Shown { path: directory, writable: true, public: false });
        }
        if shown.len() > VIEW_TREES_MAX {
            return Err(anyhow!("more than {VIEW_TREES_MAX} trees of files"));
        }
        Ok(shown)
    }
}

impl Sight {
    /// Begins to serve the system's directories, and one in which processes may write.
    pub(crate) fn of_project(world: &World, project: &Path) -> anyhow::Result<Sight> {
        let mut shown = home::system();
        shown.push(Shown { path: project.to_owned(), writable: true, public: false });
        let server = home::Server::start(world, &shown, &closed())?;
        Ok(Sight { server, identity: identity(world), changes: false })
    }

    /// Whether all that processes have changed was changed here as they meant it.
    pub(crate) fn is_fine(&self) -> bool {
        let (changes, _) = self.server.changes();
        !changes.iter().any(|change| matches!(change.done, Done::Conflict(_) | Done::Failed(_)))
    }

    /// Lets the process of a descriptor see them, in `directory`.
    pub(crate) fn describe(&self, descriptor: &mut ProcessDescriptor) -> anyhow::Result<()> {
        let (files, trees) = (self.server.admit()?, self.server.trees());
        descriptor.view = View::Mine(Mine { files, identity: self.identity, trees });
        let directory = Path::new(OsStr::from_bytes(&descriptor.working_directory));
        if let Ok(directory) = std::fs::canonicalize(directory) {
            descriptor.working_directory = directory.into_os_string().into_encoded_bytes();
        }
        Ok(())
    }

    /// The process of a descriptor has ended.
    pub(crate) fn dismiss(&self, descriptor: &ProcessDescriptor) {
        if let View::Mine(mine) = &descriptor.view {
            self.server.dismiss(&mine.files);
        }
    }

    /// Says what was changed: always what went wrong, and everything if that was asked for. Whether nothing went wrong.
    pub(crate) fn tell(&self, json: bool) -> bool {
        let (changes, left_out) = self.server.changes();
        let mut fine = true;
        for change in &changes {
            let wrong = matches!(change.done, Done::Conflict(_) | Done::Failed(_));
            fine &= !wrong;
            if wrong || self.changes {
                let shown = ChangeShown::of(change);
                if json {
                    eprintln!("{}", serde_json::to_string(&shown).expect("text is always written"));
                } else {
                    eprintln!("{}", shown.line());
                }
            }
        }
        if self.changes && left_out > 0 {
            eprintln!("amoeba: {left_out} more changes");
        }
        fine
    }
}

impl ChangeShown {
    fn of(changed: &home::Changed) -> ChangeShown {
        let path = changed.path.display().to_string();
        let (change, kept, error) = match &changed.done {
            Done::Made => ("made", None, None),
            Done::Changed => ("changed", None, None),
            Done::Removed => ("removed", None, None),
            Done::Conflict(kept) => ("conflict", Some(format!("/{}", String::from_utf8_lossy(kept))), None),
            Done::Failed(status) => ("failed", None, Some(status.to_string())),
            _ => ("unknown", None, None),
        };
        ChangeShown { path, change, kept, error }
    }

    fn line(&self) -> String {
        let path = &self.path;
        match (&self.kept, &self.error) {
            (Some(kept), _) => {
                format!(
                    "amoeba: {path} was changed here meanwhile; what the process has written is in {kept}"
                )
            }
            (_, Some(error)) => format!("amoeba: {path} could not be changed: {error}"),
            _ => format!("{} {path}", self.change),
        }
    }
}

/// Directories of ours, of which nobody sees anything.
fn closed() -> Vec<PathBuf> {
    std::env::var_os("AMOEBA_STATE").map(PathBuf::from).into_iter().collect()
}

/// The same user's files on two hosts that share his home are not the same.
fn of_this_host(secret: [u8; 32]) -> [u8; 32] {
    let mut identity = blake3::Hasher::new_keyed(&secret);
    for name in ["/etc/machine-id", "/proc/sys/kernel/hostname"] {
        // What cannot be read tells no hosts apart.
        identity.update(&std::fs::read(name).unwrap_or_default()).update(&[0]);
    }
    *identity.finalize().as_bytes()
}

/// A secret of this user, by which hosts know what they have fetched for him before. Where it cannot be kept it is another
/// one each time, and hosts fetch again.
fn identity(world: &World) -> [u8; 32] {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let Some(directory) = state.or_else(home).map(|state| state.join("amoeba")) else {
        return amoeba_world::random(&*world.entropy);
    };
    let path = directory.join("view.secret");
    let read = || std::fs::read(&path).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if let Some(identity) = read() {
        return identity;
    }
    let identity: [u8; 32] = amoeba_world::random(&*world.entropy);
    let new = directory.join(format!("view.secret.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        std::io::Write::write_all(&mut file, &identity)?;
        // Of several that begin at the same time the first makes it.
        std::fs::hard_link(&new, &path)
    };
    let written = write();
    let _ = std::fs::remove_file(&new);
    match written {
        Ok(()) => identity,
        Err(_) => read().unwrap_or(identity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_told_in_words_and_the_rest_by_name() {
        let shown = |done| ChangeShown::of(&home::Changed { path: "/p/a".into(), done }).line();
        assert_eq!(shown(Done::Made), "made /p/a");
        assert_eq!(shown(Done::Removed), "removed /p/a");
        assert!(shown(Done::Conflict(b"p/a.conflict-1".to_vec())).ends_with("is in /p/a.conflict-1"));
    }

    #[test]
    fn the_home_is_shown_only_when_it_is_asked_for() {
        let home = PathBuf::from(std::env::var_os("HOME").expect("tests have a home"));
        let options = ViewOptions { view: Whose::Mine, with: Vec::new(), home: false, changes: false };
        let paths = |options: &ViewOptions| {
            let shown = options.shown(&home).expect("it can be shown");
            shown.into_iter().filter(|tree| tree.writable).map(|tree| tree.path).collect::<Vec<_>>()
        };
        assert_eq!(paths(&options), Vec::<PathBuf>::new());
        let real = std::fs::canonicalize(&home).expect("the home is there");
        assert_eq!(paths(&ViewOptions { home: true, ..options }), [real]);
    }
}
