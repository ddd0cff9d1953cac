//! Confinement: what a guest may use of its host, and what of it is out of its reach. `docs/confinement.md` says against whom.
//!
//! - [`groups`]: how much memory, processor time and how many processes; what was met of these limits.
//! - [`mounts`]: what of the host's file tree is covered, or read-only.
//! - [`network`]: a loopback interface of its own instead of the host's network.
//! - [`calls`]: system calls that it is refused. [`powers`]: what root gives up. [`domain`]: whom its signals reach.
//!
//! A warden makes its [`Confinement`] before a guest comes, and with it a thread that is confined as guests are ([`nest`]): what
//! that starts is born so. Only what a thread cannot have is left to the guest's first process, just before its program
//! ([`Confinement::take_on`]), when it shares its warden's memory: nothing of that allocates.

mod calls;
mod domain;
pub(super) mod groups;
mod mounts;
mod nest;
mod network;
mod powers;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use amoeba_process::{Exit, Limits, PROCESSES_DEFAULT};
use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use calls::{Filter, Strictness};
use domain::Domain;
use groups::{Doors, Group, Met};
use mounts::Passage;
pub(super) use nest::Nest;
use network::Network;

/// More name spaces of a warden that has name spaces at all: messages and shared memory of System V and POSIX, and the
/// host's name.
pub(super) const NAMESPACES: i32 = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Added to a guest's chance of being ended when the whole host has no memory left, where its own memory is not limited.
const FIRST_TO_GO: &[u8] = b"500";

/// What of the host is ours and no guest's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours<'a> {
    /// Directories of which a guest is to see nothing but the next.
    pub(super) hidden: &'a [PathBuf],
    /// The kernel's socket, and files that a guest may read.
    pub(super) shown: &'a [PathBuf],
    /// Where the logs are.
    pub(super) logs: &'a Path,
}

/// How far a warden is apart from its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// It has name spaces of its own.
    Fully,
    /// The same, inside a user name space.
    AsUser,
    /// Not at all.
    Not,
}

/// What holds the guests of one warden.
#[derive(Debug)]
pub(super) struct Confinement {
    apart: Apart,
    group: Group,
    doors: Arc<Doors>,
    /// For guests without the network, and for those with it; made when one is wanted.
    nests: [Option<Nest>; 2],
    passage: Option<Passage>,
    network: Option<Arc<Network>>,
    domain: Option<Arc<Domain>>,
    /// What the domain keeps from guests where nothing else does, and what of it they reach nevertheless.
    hidden: Vec<PathBuf>,
    shown: Vec<PathBuf>,
    /// The last guest's, and how many threads of ours are limited together with it.
    limits: (Limits, u32),
    /// What earlier guests have met.
    met: Met,
}

impl Confinement {
    /// Makes the confinement of a warden, of which this is the process. Where the warden is apart, what is ours is covered
    /// there; elsewhere only a domain keeps it from guests.
    ///
    /// # Errors
    /// Something could not be covered: then no guest must run.
    pub(super) fn make(ours: Ours<'_>, apart: Apart, group: Group) -> io::Result<Confinement> {
        let is_apart = apart != Apart::Not;
        let doors = Arc::new(group.doors()?);
        let limits = (Limits::default(), 1);
        group.limit(&limits.0, limits.1)?;
        let (passage, network) = match is_apart {
            true => (Some(mounts::settle(ours.hidden, ours.logs, ours.shown)?), Network::make().ok()),
            false => (None, None),
        };
        let hidden: Vec<PathBuf> = ours.hidden.iter().cloned().chain([ours.logs.to_owned()]).collect();
        let shown = ours.shown.to_vec();
        let domain = match is_apart {
            true => Domain::make(),
            false => Domain::make_without(&hidden, &shown),
        };
        Ok(Confinement {
            apart,
            met: group.met(),
            group,
            doors,
            nests: [None, None],
            passage,
            network: network.map(Arc::new),
            domain: domain.map(Arc::new),
            hidden,
            shown,
            limits,
        })
    }

    /// Limits the next guest, which has the host's `network` or not, while there are so many threads of file trees.
    ///
    /// # Errors
    /// The kernel does not take a limit, or there is no room for a thread.
    pub(super) fn expect(&mut self, limits: &Limits, network: bool, of_tree: u32) -> io::Result<()> {
        let which = usize::from(network);
        if self.nests[which].is_none() {
            self.nests[which] = Some(self.make_nest(network)?);
        }
        let limits = (*limits, self.nests.iter().flatten().map(|_| 1).sum::<u32>() + of_tree);
        if limits != self.limits {
            self.group.limit(&limits.0, limits.1)?;
            self.limits = limits;
        }
        Ok(())
    }

    /// Prepares what starts guests that have no network.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub(super) fn settle_in(&mut self) -> io::Result<()> {
        self.nests[0] = Some(self.make_nest(false)?);
        Ok(())
    }

    /// A thread that starts guests, with the host's network or without.
    fn make_nest(&self, network: bool) -> io::Result<Nest> {
        Nest::make(self.confining(network))
    }

    /// A thread that starts one guest in a mount name space of its own. There `furnish` has made ready what the guest is to
    /// find, with the warden's rights; what the thread does later, it does with the guest's.
    ///
    /// # Errors
    /// What `furnish` says; there is no room for a thread or a name space; guests cannot be confined here.
    pub(super) fn enclose<T: Send>(
        &self,
        network: bool,
        furnish: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<(Nest, T)> {
        let confine = self.confining(network);
        let nest = Nest::make(own_mounts)?;
        let confined = nest.run(move || furnish().and_then(|made| confine().map(|()| made)));
        let made = confined.unwrap_or_else(|| Err(unconfined()))?;
        Ok((nest, made))
    }

    /// The same, for a guest that comes later: what was furnished comes when the thread is ready. If it could not be made
    /// ready, it has ended, and nothing comes.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub(super) fn enclose_ahead<T: Send + 'static>(
        &self,
        network: bool,
        furnish: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Nest, mpsc::Receiver<T>)> {
        let confine = self.confining(network);
        let (tell, told) = mpsc::sync_channel(1);
        let nest = Nest::make(move || {
            own_mounts()?;
            let made = furnish()?;
            confine()?;
            // Whoever wanted it may have gone.
            drop(tell.send(made));
            Ok(())
        })?;
        Ok((nest, told))
    }

    /// What confines a thread, and whatever it starts, as guests are.
    fn confining(&self, network: bool) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let own_network = if network { None } else { self.network.clone() };
        let filter = Filter::new(Strictness {
            no_inspection: self.apart == Apart::Not,
            no_network: !network && own_network.is_none(),
        });
        let (doors, domain) = (self.doors.clone(), self.domain.clone());
        move || {
            doors.enter_as_thread()?;
            own_network.map_or(Ok(()), |own| own.enter())?;
            // SAFETY: a null name is a new ring without one. A kernel without rings of keys has none to leave.
            let _ = unsafe {
                libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>())
            };
            powers::give_up()?;
            rustix::thread::set_no_new_privs(true)?;
            domain.map_or(Ok(()), |domain| domain.enter())?;
            filter.apply()
        }
    }

    /// Does what starts a guest, where that is confined, with the host's `network` or without. The guest ends with the warden.
    ///
    /// # Errors
    /// Guests cannot be confined here.
    pub(super) fn start<T: Send>(&self, network: bool, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let nest = self.nests[usize::from(network)].as_ref();
        let done = nest.and_then(|nest| nest.run(work));
        done.ok_or_else(unconfined)
    }

    /// The calling process is a guest from now on: it enters what only processes can. Neither allocates nor locks.
    ///
    /// # Errors
    /// The kernel's; then the guest must not run.
    pub(super) fn take_on(&self) -> io::Result<()> {
        self.doors.enter_as_process()?;
        self.hold_without_groups();
        Ok(())
    }

    /// What there is where groups cannot limit: a number of processes for each user name space, and a place before all
    /// others when the host runs out of memory.
    fn hold_without_groups(&self) {
        let enforces = self.group.enforces();
        if self.apart == Apart::AsUser && !enforces.processes {
            let most = Some(PROCESSES_DEFAULT.into());
            let _ = setrlimit(Resource::Nproc, Rlimit { current: most, maximum: most });
        }
        if !enforces.memory {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
                let _ = rustix::io::write(&file, FIRST_TO_GO);
            }
        }
    }

    /// Says of a guest's end whether a limit may be why. Called once for each guest.
    pub(super) fn judge(&mut self, exit: &mut Exit) {
        let met = self.group.met();
        let before = std::mem::replace(&mut self.met, met);
        if exit.code == 0 || !exit.reason.is_empty() {
            return;
        }
        let own = |limit: u64, text: String| if limit == 0 { "the host's bound".to_owned() } else { text };
        if met.out_of_memory > before.out_of_memory {
            let memory = Limits { memory: self.limits.0.memory, ..Limits::default() };
            let limit = own(memory.memory, format!("limit {memory}"));
            exit.reason = format!("out of memory ({limit})");
        } else if met.out_of_processes > before.out_of_processes {
            let asked = self.limits.0.processes;
            let most = if asked == 0 { PROCESSES_DEFAULT } else { asked };
            exit.reason = format!("out of processes (limit {most})");
        }
    }

    /// Whether nothing is left of the guests but what a new one may find. Nobody of them is left.
    pub(super) fn is_clean(&self) -> bool {
        let lists = ["shm", "sem", "msg"].map(|name| format!("/proc/sysvipc/{name}"));
        let no_entries = |path: &str| fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
        // Each list begins with a line of headings.
        let is_short = |list: &String| {
            fs::read(list).map_or(true, |text| text.iter().filter(|b| **b == b'\n').count() <= 1)
        };
        self.passage.is_some()
            && lists.iter().all(is_short)
            && ["/dev/shm", "/dev/mqueue"].into_iter().all(no_entries)
    }

    /// The path by which the warden reaches a log, or what lies beside it.
    pub(super) fn way_to(&self, log: &[u8]) -> Vec<u8> {
        match &self.passage {
            Some(passage) if !log.is_empty() => {
                passage.to(Path::new(OsStr::from_bytes(log))).as_os_str().as_bytes().to_vec()
            }
            _ => log.to_vec(),
        }
    }

    /// Shows a guest the directory that the warden reaches at `path`: the guest's path of it.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn show(&mut self, path: &Path) -> io::Result<PathBuf> {
        match &self.passage {
            Some(passage) => passage.show(path),
            None => {
                let shown: Vec<PathBuf> = self.shown.iter().cloned().chain([path.to_owned()]).collect();
                self.domain = Domain::make_without(&self.hidden, &shown).map(Arc::new);
                // Those that are there are in the domain of before.
                self.nests = [None, None];
                Ok(path.to_owned())
            }
        }
    }

    /// Shows it no more.
    pub(super) fn take_back(&self) {
        if let Some(passage) = &self.passage {
            // The warden's working directory may be the last that holds it.
            let _ = std::env::set_current_dir("/");
            let _ = passage.take_back();
        }
    }
}

/// Gives the calling thread a copy of its mounts.
fn own_mounts() -> io::Result<()> {
    // SAFETY: what becomes the thread's own are its mounts, its root and its working directory, of which nobody else in
    // this process is to know.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?)
}

fn unconfined() -> io::Error {
    io::Error::other("guests cannot be confined on this host")
}
