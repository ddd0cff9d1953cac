//! Which files a process sees: `--view`, `--with`, `--home`, `--changes`.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amoeba_cap::Capability;
use amoeba_name::Environment;
use amoeba_process::{Mine, ProcessDescriptor, Program, VIEW_TREES_MAX, View};
use amoeba_view::home::{self, Done, Shown};
use amoeba_world::World;
use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::program;
use crate::failure::Advise;

/// The environment string that says which files processes see where the command line does not. A process that sees its
/// caller's has it too: what it starts never sees the host's own instead.
const VARIABLE: &str = "AMOEBA_VIEW";
const VARIABLE_MINE: &[u8] = b"AMOEBA_VIEW=mine";

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
    /// Which files it sees; without it `mine`, unless AMOEBA_VIEW says another, or files go along (--in, --out)
    #[arg(long, value_enum)]
    view: Option<Whose>,
    /// With `--view mine`: also this file or directory, only to be read with `:ro` behind it; may be given several times
    #[arg(long, value_name = "DIR[:ro]")]
    with: Vec<PathBuf>,
    /// With `--view mine`: also the home directory, but not the keys in it
    #[arg(long)]
    home: bool,
    /// With `--view mine`: list on standard error which files it has changed here
    #[arg(long)]
    changes: bool,
    /// It gets none of your capabilities but those of its own streams: it can start nothing and reach no directory in your name
    #[arg(long)]
    alone: bool,
}

/// What the processes of one command see, before any of it is served.
pub(crate) struct Chosen {
    pub(crate) whose: Whose,
    /// Whether the person said so. Otherwise a process on this host sees this host's files, where no others can be shown.
    is_said: bool,
    changes: bool,
    shown: Vec<Shown>,
    /// Whether the working directory is not shown, because it is the home directory or lies above it.
    is_home_hidden: bool,
}

/// The files of this host that processes see, while this program serves them.
pub(crate) struct Sight {
    server: Arc<home::Server>,
    identity: [u8; 32],
    /// Whether a process on this host may see this host's own files instead.
    pub(crate) falls_back: bool,
    changes: bool,
    is_home_hidden: bool,
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
    /// Whether a process gets no directory of its caller's.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whose files processes are to see, and whether somebody said so; `files_go_along`: they have a scratch directory.
    ///
    /// # Errors
    /// Options that contradict each other; AMOEBA_VIEW is none of the words.
    pub(crate) fn whose(&self, files_go_along: bool) -> anyhow::Result<(Whose, bool)> {
        let names_mine = self.home || self.changes || !self.with.is_empty();
        let (whose, is_said) = match (self.view, names_mine, files_go_along) {
            (Some(said), ..) => (said, true),
            // They are for a directory of the host where the process runs.
            (None, false, true) => (Whose::Host, false),
            (None, true, _) => (Whose::Mine, true),
            (None, false, false) => from_variable(std::env::var_os(VARIABLE))?,
        };
        if whose != Whose::Mine && names_mine {
            return Err(anyhow!("--with, --home and --changes are for files of this host"))
                .hint("`--view mine` shows them");
        }
        if whose != Whose::Host && files_go_along {
            return Err(anyhow!("--in and --out bring files to a host whose own files the command sees"))
                .hint("leave them out: the command sees the working directory. Or `--view host`");
        }
        Ok((whose, is_said))
    }

    /// What processes in `directory` are to see.
    ///
    /// # Errors
    /// As [`ViewOptions::whose`]; a directory that is to be shown cannot be found.
    pub(crate) fn choose(&self, directory: &Path, files_go_along: bool) -> anyhow::Result<Chosen> {
        let (whose, is_said) = self.whose(files_go_along)?;
        let (shown, is_home_hidden) = match whose {
            Whose::Mine => self.shown(directory)?,
            Whose::Host | Whose::Graph => (Vec::new(), false),
        };
        Ok(Chosen { whose, is_said, changes: self.changes, shown, is_home_hidden })
    }

    /// The trees that are to be shown, and whether the working directory is not among them because it is the home.
    fn shown(&self, directory: &Path) -> anyhow::Result<(Vec<Shown>, bool)> {
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
            if home::is_never_shown(&path) {
                return Err(never_shown(&path));
            }
            add(&path, writable);
        }
        let directory = std::fs::canonicalize(directory)
            .with_context(|| format!("the working directory {}", directory.display()))
            .code(super::CANNOT_EXECUTE)?;
        if home::is_never_shown(&directory) {
            return Err(never_shown(&directory))
                .hint("run the command elsewhere")
                .code(super::CANNOT_EXECUTE);
        }
        // Whoever stands in his home, or above it, has not asked for it to be shown.
        let shows_home = !self.home && user_home.is_some_and(|home| home.starts_with(&directory));
        let inside = |tree: &Shown| tree.writable && directory.starts_with(&tree.path);
        if !shows_home && directory.parent().is_some() && !shown.iter().any(inside) {
            shown.push(Shown { path: directory, writable: true, public: false });
        }
        Ok((shown, shows_home))
    }
}

impl Chosen {
    /// Lets the programs of descriptors be seen wherever on this host they lie, and begins to serve all of it; `None` where
    /// processes see other files. `is_own`: processes of this host run as the user of this program.
    ///
    /// # Errors
    /// Too many trees; there is no port to serve them on.
    pub(crate) fn serve<'p>(
        mut self,
        world: &World,
        is_own: bool,
        descriptors: impl Iterator<Item = &'p mut ProcessDescriptor>,
    ) -> anyhow::Result<Option<Sight>> {
        if self.whose != Whose::Mine {
            return Ok(None);
        }
        descriptors.for_each(|descriptor| self.show_program(descriptor));
        if self.shown.len() > VIEW_TREES_MAX {
            return Err(anyhow!("more than {VIEW_TREES_MAX} trees of files"));
        }
        let server = home::Server::start(world, &self.shown, &closed())?;
        let identity = of_this_host(identity(world));
        let falls_back = is_own && !self.is_said;
        let Chosen { changes, is_home_hidden, .. } = self;
        Ok(Some(Sight { server, identity, falls_back, changes, is_home_hidden }))
    }

    /// A program that lies outside of what is shown is shown alone, and named by the file that it is. One of the same name
    /// along PATH that is shown comes before it, as it does for everything that the process starts.
    fn show_program(&mut self, descriptor: &mut ProcessDescriptor) {
        let files = program::on_this_host(descriptor);
        let is_shown = |path: &Path| self.shown.iter().any(|tree| path.starts_with(&tree.path));
        let is_found = |path: &PathBuf| {
            let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
            let file = std::fs::canonicalize(path);
            parent.is_some_and(|parent| is_shown(&parent)) && file.is_ok_and(|file| is_shown(&file))
        };
        if files.iter().any(is_found) {
            return;
        }
        let Some(file) = files.first().and_then(|file| std::fs::canonicalize(file).ok()) else { return };
        if !is_shown(&file) {
            self.shown.push(Shown { path: file.clone(), writable: false, public: false });
        }
        descriptor.program = Program::HostPath(file.into_os_string().into_encoded_bytes());
    }
}

/// Takes out of a descriptor what its environment says of views.
fn forget_view(descriptor: &mut ProcessDescriptor) {
    let name = VARIABLE.as_bytes();
    descriptor
        .environment
        .retain(|string| string.strip_prefix(name).is_none_or(|rest| rest.first() != Some(&b'=')));
}

/// The same process with the files of the host where it runs, and with its caller's own `root`, if it was to have one.
pub(crate) fn with_hosts_files(descriptor: &ProcessDescriptor, root: Capability) -> ProcessDescriptor {
    let mut descriptor = ProcessDescriptor { view: View::Host, ..descriptor.clone() };
    forget_view(&mut descriptor);
    let roots = descriptor.capabilities.iter_mut().filter(|(name, _)| name == Environment::ROOT.as_bytes());
    roots.for_each(|(_, given)| *given = root);
    descriptor
}

/// What the environment says, if it says anything.
fn from_variable(value: Option<OsString>) -> anyhow::Result<(Whose, bool)> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok((Whose::Mine, false)) };
    let known = value.to_str().and_then(|text| Whose::from_str(text, false).ok());
    known
        .map(|whose| (whose, true))
        .ok_or_else(|| anyhow!("{VARIABLE} is {value:?}"))
        .hint("it may be `mine`, `host` or `graph`")
}

impl Sight {
    /// Begins to serve the system's directories, and one in which processes may write.
    pub(crate) fn of_project(world: &World, project: &Path) -> anyhow::Result<Sight> {
        let mut shown = home::system();
        shown.push(Shown { path: project.to_owned(), writable: true, public: false });
        let server = home::Server::start(world, &shown, &closed())?;
        let identity = identity(world);
        Ok(Sight { server, identity, falls_back: false, changes: false, is_home_hidden: false })
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
        forget_view(descriptor);
        descriptor.environment.push(VARIABLE_MINE.to_vec());
        Ok(())
    }

    /// The process of a descriptor has ended.
    pub(crate) fn dismiss(&self, descriptor: &ProcessDescriptor) {
        if let View::Mine(mine) = &descriptor.view {
            self.server.dismiss(&mine.files);
        }
    }

    /// Says why a command may have failed that should not have: it stood in the home directory and saw nothing of it.
    pub(crate) fn advise(&self) {
        if self.is_home_hidden {
            // Standard error may be closed; it is no more than a hint.
            let hint = "hint: the command saw nothing of the home directory; `--home` shows it";
            let _ = writeln!(std::io::stderr(), "{hint}");
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
                let line = if json {
                    serde_json::to_string(&shown).expect("text is always written")
                } else {
                    shown.line()
                };
                // Standard error may be closed; the exit code still tells.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
        if self.changes && left_out > 0 {
            let _ = writeln!(std::io::stderr(), "amoeba: {left_out} more changes");
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

/// Of these nobody sees anything: a state directory that lies elsewhere, and the hashes of this host's passwords.
fn closed() -> Vec<PathBuf> {
    let state = std::env::var_os("AMOEBA_STATE").map(PathBuf::from);
    let passwords = ["/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/gshadow-"].map(PathBuf::from);
    state.into_iter().chain(passwords).collect()
}

fn never_shown(path: &Path) -> anyhow::Error {
    anyhow!("{} is never shown to a process: keys and passwords are kept there", path.display())
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

    fn options(view: Option<Whose>) -> ViewOptions {
        ViewOptions { view, with: Vec::new(), home: false, changes: false, alone: false }
    }

    #[test]
    fn the_home_is_shown_only_when_it_is_asked_for() {
        let home = PathBuf::from(std::env::var_os("HOME").expect("tests have a home"));
        let paths = |options: &ViewOptions| {
            let (shown, is_home_hidden) = options.shown(&home).expect("it can be shown");
            let writable = shown.into_iter().filter(|tree| tree.writable);
            (writable.map(|tree| tree.path).collect::<Vec<_>>(), is_home_hidden)
        };
        assert_eq!(paths(&options(None)), (Vec::new(), true));
        let real = std::fs::canonicalize(&home).expect("the home is there");
        assert_eq!(paths(&ViewOptions { home: true, ..options(None) }), (vec![real], false));
    }

    #[test]
    fn where_keys_are_kept_is_refused_and_not_left_out_in_silence() {
        let keys = std::env::temp_dir().join(format!("amoeba-cli-keys-{}/.ssh", std::process::id()));
        std::fs::create_dir_all(&keys).expect("the temporary folder is ours");
        let with = ViewOptions { with: vec![keys.clone()], ..options(None) };
        for refused in [with.shown(Path::new("/usr")), options(None).shown(&keys)] {
            let error = refused.expect_err("it is refused");
            assert!(format!("{error:#}").contains("never shown"), "{error:#}");
        }
        std::fs::remove_dir_all(keys.parent().expect("it has one")).expect("it is ours");
    }

    #[test]
    fn files_are_the_callers_unless_something_says_otherwise() {
        assert_eq!(options(None).whose(true).expect("it is no contradiction"), (Whose::Host, false));
        assert_eq!(options(Some(Whose::Host)).whose(false).expect("it was said"), (Whose::Host, true));
        assert!(options(Some(Whose::Mine)).whose(true).is_err());
        let with = ViewOptions { with: vec!["/srv".into()], ..options(None) };
        assert_eq!(with.whose(false).expect("it is no contradiction"), (Whose::Mine, true));
        assert!(with.whose(true).is_err());
        assert!(ViewOptions { view: Some(Whose::Host), ..with }.whose(false).is_err());
        let variable = |value: &str| from_variable(Some(value.into())).ok();
        let known = [Some((Whose::Mine, false)), Some((Whose::Mine, true)), Some((Whose::Host, true)), None];
        assert_eq!(["", "mine", "host", "hosts"].map(variable), known);
        assert_eq!(from_variable(None).ok(), Some((Whose::Mine, false)));
    }

    #[test]
    fn a_program_that_lies_elsewhere_is_shown_alone() {
        let folder = std::env::temp_dir().join(format!("amoeba-cli-view-{}", std::process::id()));
        let (bin, work) = (folder.join("bin"), folder.join("work"));
        for directory in [&bin, &work] {
            std::fs::create_dir_all(directory).expect("the temporary folder is ours");
        }
        let folder = std::fs::canonicalize(&folder).expect("it was just made");
        let (bin, work) = (folder.join("bin"), folder.join("work"));
        std::fs::copy("/bin/true", bin.join("tool")).expect("every host has it");
        std::os::unix::fs::symlink(bin.join("tool"), work.join("link")).expect("the folder is ours");
        std::os::unix::fs::symlink(&bin, folder.join("way")).expect("the folder is ours");
        let shown = |program: &Path| {
            let path = [b"PATH=", folder.as_os_str().as_bytes(), b"/way:/bin"].concat();
            let mut chosen = options(None).choose(&work, false).expect("the folder can be shown");
            let before = chosen.shown.len();
            let program = Program::HostPath(program.as_os_str().as_bytes().to_vec());
            let mut descriptor = ProcessDescriptor::new("", program, vec![b"tool".to_vec()]);
            descriptor.environment = vec![path];
            descriptor.working_directory = work.as_os_str().as_bytes().to_vec();
            chosen.show_program(&mut descriptor);
            let Program::HostPath(path) = descriptor.program else { panic!("it is still a file") };
            let more = chosen.shown.split_off(before);
            (
                PathBuf::from(OsStr::from_bytes(&path)),
                more.into_iter().map(|tree| tree.path).collect::<Vec<_>>(),
            )
        };
        let tool = bin.join("tool");
        let alone = (tool.clone(), vec![tool.clone()]);
        for program in [&tool, &work.join("link"), &folder.join("way/tool"), Path::new("tool")] {
            assert_eq!(shown(program), alone, "{}", program.display());
        }
        std::fs::copy("/bin/true", bin.join("sh")).expect("every host has it");
        for program in ["sh", "/bin/sh", "no-such-program", "/no/such/program"].map(Path::new) {
            assert_eq!(shown(program), (program.to_owned(), Vec::new()));
        }
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
