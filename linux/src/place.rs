//! Where the state of a system lies on this host, one rule for everybody; and what a process was given when it started.

use std::path::{Path, PathBuf};

use amoeba_name::Environment;

/// The state directory of the host's own system, run by root.
pub const HOST_STATE: &str = "/var/lib/amoeba";

/// Where a system keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its state directory.
    pub directory: PathBuf,
    /// Whether it is the host's own system and not a user's private one.
    pub of_host: bool,
}

impl Place {
    /// `AMOEBA_STATE` if it is set; [`HOST_STATE`] for root, and for whoever may read its root capability; else
    /// `$XDG_STATE_HOME/amoeba` or `~/.local/state/amoeba`. `None` when nothing says where that is.
    pub fn find() -> Option<Place> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = rustix::process::geteuid().is_root();
        if let Some(directory) = variable("AMOEBA_STATE") {
            return Some(Place { directory: std::path::absolute(directory).ok()?, of_host: root });
        }
        let host = Path::new(HOST_STATE);
        if root || std::fs::File::open(host.join("root.cap")).is_ok() {
            return Some(Place { directory: host.to_owned(), of_host: true });
        }
        let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
        Some(Place { directory: state.join("amoeba"), of_host: false })
    }

    /// The socket of its kernel daemon.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/kernel.sock")
    }
}

/// The capabilities that whoever started this process gave it, under names like `ROOT` and `STDIN`: those in the sealed
/// memory file whose descriptor `AMOEBA_CAPS_FD` names. `None` outside the processes of a system.
pub fn given_environment() -> Option<Environment> {
    let number: u32 = std::env::var("AMOEBA_CAPS_FD").ok()?.parse().ok()?;
    Environment::from_bytes(&std::fs::read(format!("/proc/self/fd/{number}")).ok()?).ok()
}
