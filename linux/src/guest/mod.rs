//! Guests on Linux: the process server's [`Guests`], where every guest has a shepherd of its own.
//!
//! - [`LinuxGuests`] is what the process server holds; [`flock`] is its end of every shepherd, with those that wait for guests.
//! - [`shepherd`] is the other end, a program: the keeper, and its forks, the [`warden`]s inside their namespaces.
//! - [`spawn`] starts a guest's first process, [`streams`] are its standard streams.
//! - [`program`] finds what is to run, [`image`] is that as execve takes it, [`pump`] and [`remote`] carry the streams, [`tree`] knows the processes.
//! - [`root`] is a file tree of its own for a guest, and [`Desk`] where the viewer of the host hands them out.
//! - [`confine`]: what a guest may use of its host, and what is out of its reach.
//! - [`scratch`] is the working directory that a guest has for itself.
//! - [`parted`]: who talks to a guest directly is told when it is stunned.
//! - [`control`] is what the two ends say to each other, [`log`] the output of detached guests.

mod confine;
mod control;
mod flock;
mod host;
mod image;
mod log;
mod parted;
mod program;
mod pump;
mod remote;
mod root;
mod scratch;
pub mod shepherd;
mod spawn;
mod streams;
pub(crate) mod tree;
mod warden;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_process::{Enforced, Events, Exit, Guest, GuestError, Guests, HostLoad, Spec};
use amoeba_world::Threads;

use confine::groups::Groups;
use control::Start;
use flock::Flock;

pub use control::Isolation;
pub use log::{LOG_CUT_MARK, LOG_SIZE_MAX};
pub use parted::Part;
pub use root::{Desk, GRAPH_PLACES, Visit};

/// How guests are started.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The program of a shepherd; [`GuestConfig::new`] says this very binary.
    pub program: PathBuf,
    /// Its arguments; it must end in a call of [`shepherd::main`].
    pub arguments: Vec<OsString>,
    /// The arguments of the same program as the viewer of this host, which must end in serving a [`Desk`]; none: no guest
    /// sees its caller's files.
    pub viewer: Vec<OsString>,
    /// More environment strings for it.
    pub environment: Vec<(OsString, OsString)>,
    /// Where the kernel daemon listens.
    pub socket: PathBuf,
    /// Where the logs of detached guests are kept.
    pub log_directory: PathBuf,
    /// Directories of ours that no guest is to see, four at most, and files of them that all may read, likewise. The logs are
    /// hidden and the socket can be reached without being named here.
    pub hidden: Vec<PathBuf>,
    /// See [`GuestConfig::hidden`].
    pub shown: Vec<PathBuf>,
    /// A file whose [shared lock](crate::lock::share) is held for as long as anything of a guest or a shepherd is left.
    pub life: Option<PathBuf>,
    /// How guests are set apart; [`Isolation::Best`] unless a test wants less.
    pub isolation: Isolation,
}

impl GuestConfig {
    /// Shepherds that are this very binary, called with `shepherd`.
    pub fn new(socket: &Path, log_directory: &Path) -> GuestConfig {
        GuestConfig {
            program: "/proc/self/exe".into(),
            arguments: vec!["shepherd".into()],
            viewer: vec!["viewer".into()],
            environment: Vec::new(),
            socket: socket.into(),
            log_directory: log_directory.into(),
            hidden: Vec::new(),
            shown: Vec::new(),
            life: None,
            isolation: Isolation::Best,
        }
    }
}

/// The guests of this host.
pub struct LinuxGuests {
    log_directory: PathBuf,
    flock: Arc<Flock>,
    viewer: root::keeper::Keeper,
    options: BTreeSet<Vec<u8>>,
    enforced: Enforced,
    lost: Lost,
    part: Option<Part>,
}

/// The guests that are known to the process server and whose output is lost from some point on, and why.
type Lost = Arc<Mutex<BTreeMap<u16, String>>>;

fn held(lost: &Lost) -> MutexGuard<'_, BTreeMap<u16, String>> {
    lost.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes lost output on its way to the process server.
struct Noting {
    events: Arc<dyn Events>,
    index: u16,
    lost: Lost,
}

impl Events for Noting {
    fn started(&self) {
        self.events.started();
    }

    fn output_lost(&self, reason: &str) {
        held(&self.lost).insert(self.index, reason.into());
        self.events.output_lost(reason);
    }

    fn exited(&self, exit: Exit) {
        self.events.exited(exit);
    }
}

impl LinuxGuests {
    /// The guests of this host. Logs that an earlier process server left are removed: nobody can name them any more.
    ///
    /// # Errors
    /// The log directory cannot be made.
    pub fn new(config: GuestConfig, threads: Threads) -> io::Result<LinuxGuests> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.log_directory)?;
        for entry in std::fs::read_dir(&config.log_directory)?.flatten() {
            scratch::remove_left_over(&entry.path());
            if Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "log") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let log_directory = config.log_directory.clone();
        let viewer =
            root::keeper::Keeper::new(&config.program, &config.viewer, &config.environment, &log_directory);
        let flock = Flock::new(config, threads);
        // The keeper makes the groups that are used; that these could be made says that it can.
        let groups = Groups::make();
        groups.remove();
        Ok(LinuxGuests {
            log_directory,
            flock,
            viewer,
            options: host::cpu_options(),
            enforced: groups.enforced(),
            lost: Lost::default(),
            part: None,
        })
    }

    /// The same; and `part` is told which processes have stopped when a guest was stunned.
    pub fn parting(self, part: Part) -> LinuxGuests {
        LinuxGuests { part: Some(part), ..self }
    }

    fn log(&self, index: u16) -> PathBuf {
        self.log_directory.join(format!("{index}.log"))
    }
}

impl Guests for LinuxGuests {
    fn architecture(&self) -> &str {
        architecture()
    }

    fn has_option(&self, option: &[u8]) -> bool {
        self.options.contains(option)
    }

    fn enforced(&self) -> Enforced {
        self.enforced
    }

    fn load(&self) -> HostLoad {
        host::load()
    }

    fn start(&self, spec: Spec, events: Arc<dyn Events>) -> Result<Arc<dyn Guest>, GuestError> {
        if !spec.descriptor.view.is_host() {
            self.viewer.ensure().map_err(|error| GuestError::NoView(error.to_string()))?;
        }
        let log = self.log(spec.index);
        self.forget(spec.index);
        let descriptor = spec.descriptor.encode().map_err(|error| GuestError::Failed(error.to_string()))?;
        let start = Start { log: log.as_os_str().as_bytes().to_vec(), descriptor };
        let noting = Noting { events, index: spec.index, lost: self.lost.clone() };
        let guest = self.flock.start(start, Arc::new(noting))?;
        Ok(match &self.part {
            Some(part) => parted::parted(guest, part.clone()),
            None => guest,
        })
    }

    fn read_log(&self, index: u16, offset: u64, size: u32) -> (Vec<u8>, bool) {
        let mark = held(&self.lost).get(&index).map(|reason| log::lost_mark(reason));
        match mark {
            Some(mark) => log::read_marked(&self.log(index), &mark, offset, size),
            None => log::read(&self.log(index), offset, size).unwrap_or((Vec::new(), true)),
        }
    }

    fn forget(&self, index: u16) {
        held(&self.lost).remove(&index);
        let _ = std::fs::remove_file(self.log(index));
    }
}

/// CPU type and system of this host, as in `x86_64-linux`.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "x86_64-linux"
    } else if cfg!(target_arch = "aarch64") {
        "aarch64-linux"
    } else if cfg!(target_arch = "riscv64") {
        "riscv64-linux"
    } else {
        std::env::consts::ARCH
    }
}
