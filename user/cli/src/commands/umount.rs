//! `amoeba umount`: the end of a mount.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::Context;
use crate::commands::mounts;
use crate::failure::Advise;

/// How often it is looked whether the mount has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// End mounts of the directory graph
///
/// Returns when everything that was written is committed. Who still has a file open goes on with it; after the timeout
/// the mount is left to finish by itself.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How long to wait for what is not committed yet
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::duration::parse)]
    timeout: Duration,
    /// The local directories
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let timeout = self.timeout;
        context.for_each(self.directories, |context, directory| end(context, &directory, timeout))
    }
}

fn end(context: &Context<'_>, directory: &std::path::Path, timeout: Duration) -> anyhow::Result<()> {
    let mounting = context.system.mounting().context("nothing can be mounted here")?;
    let shown = directory.display().to_string();
    // Without looking into it: its server may not answer.
    let absolute = std::path::absolute(directory)?;
    let parent = absolute.parent().map(std::fs::canonicalize).transpose().with_context(|| shown.clone())?;
    let absolute = match (parent, absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute,
    };
    let running = mounts::running(mounting)?;
    let folders: Vec<_> = running.iter().filter(|(at, _)| at.directory == absolute).collect();
    if !mounting.unmount(&absolute).with_context(|| shown.clone())? && folders.is_empty() {
        bail!("nothing of ours is mounted at {shown}");
    }
    let deadline = Instant::now() + timeout;
    for (at, folder) in folders {
        while mounts::is_served(mounting, at, folder) {
            if Instant::now() > deadline {
                return Err(anyhow::anyhow!("{shown} is still used, or not everything is committed yet"))
                    .hint(format!("process {} goes on with it", at.pid));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
    Ok(())
}
