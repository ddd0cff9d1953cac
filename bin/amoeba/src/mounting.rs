//! Mounts on this host, for the subcommands.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cli::{MountOptions, Mounted, Mounting};
use amoeba_linux::{fuse, host};
use amoeba_volume::FileSystem;
use anyhow::{Context, Result};

use crate::logs;
use crate::state::State;

/// Operations of a mount that can be under way at once.
const THREADS: usize = 8;

/// The role of the process that ends a mount whose own process was killed.
pub(crate) const GUARD: &str = "mount-guard";

/// Mounts of this host.
pub(crate) struct Mounts;

impl Mounting for Mounts {
    fn folder(&self) -> Result<PathBuf> {
        Ok(State::find()?.path("mounts"))
    }

    fn background(&self) -> Result<Command> {
        host::keep_descriptors().context("cannot keep descriptors from the mount")?;
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.env("AMOEBA_STATE", State::find()?.dir()).current_dir("/");
        Ok(command)
    }

    fn enter_background(&self) {
        // A process that leads a session is no further from the terminal than it was.
        drop(host::leave_session());
    }

    fn mount(
        &self,
        files: Arc<dyn FileSystem>,
        directory: &Path,
        options: &MountOptions,
    ) -> Result<Box<dyn Mounted>> {
        logs::to_standard_error();
        let mut how = fuse::MountOptions::new(&options.name);
        (how.read_only, how.others, how.threads) = (options.read_only, options.others, THREADS);
        how.without_opens = true;
        let mount = fuse::Mount::new(files, directory, &how)?;
        let mut guard = Command::new(std::env::current_exe().context("cannot find this program")?);
        guard.arg(GUARD).current_dir("/");
        if let Err(error) = mount.guard(guard) {
            tracing::warn!(
                "nobody will end the mount if this process is killed in an unlucky moment: {error}"
            );
        }
        Ok(Box::new(Live(mount)))
    }

    fn unmount(&self, directory: &Path) -> io::Result<bool> {
        fuse::place::unmount(directory)
    }

    fn is_dead(&self, directory: &Path) -> bool {
        fuse::place::is_dead(directory)
    }

    fn end_of_dying(&self, device: &str, server: u32) -> io::Result<bool> {
        fuse::connection::end_of_dying(device, server)
    }
}

/// The guard of a mount.
pub(crate) fn stand_guard() -> ExitCode {
    match fuse::connection::stand_guard() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amoeba: the mount whose process was killed: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Live(fuse::Mount);

impl Mounted for Live {
    fn directory(&self) -> &Path {
        self.0.directory()
    }

    fn device(&self) -> &str {
        self.0.device()
    }

    fn ended(&self, wait: Duration) -> io::Result<bool> {
        self.0.ended(wait)
    }

    fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}
