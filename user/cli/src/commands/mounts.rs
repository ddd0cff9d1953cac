//! The mounts of a user on this host, as the folders tell in which they keep what is not committed yet.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::mounting::Mounting;

/// What a mount has in its folder: a lock as long as it runs, and where it is.
pub(super) const LOCK: &str = "lock";
pub(super) const WHERE: &str = "where";

/// How long a process whose connection was ended may take for the rest of its end, and how often it is looked at.
const DEATH_TIME: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Where a mount is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountedAt {
    /// The local directory.
    pub(crate) directory: PathBuf,
    /// The process that serves it.
    pub(crate) pid: u32,
    /// The directory of the graph that it shows, as it was asked for; a capability without its check field.
    #[serde(default)]
    pub(crate) shows: String,
    /// Whether nothing can be changed through it.
    #[serde(default)]
    pub(crate) read_only: bool,
    /// The number of its file system, by which it can be ended when its process cannot end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) device: String,
}

/// A mount that is there, or was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mounted {
    #[serde(flatten)]
    pub(super) at: MountedAt,
    /// Whether it is served: who uses one that is not has an error.
    pub(super) alive: bool,
}

impl Mounted {
    /// What somebody should do about it.
    pub(super) fn attention(&self) -> Option<String> {
        let directory = self.at.directory.display();
        let advice = "`amoeba umount` takes it away, `amoeba mount` serves it again";
        (!self.alive).then(|| format!("the mount at {directory} is dead: its process was killed; {advice}"))
    }
}

/// The mounts of this user that run, each with its folder.
pub(crate) fn running(mounting: &dyn Mounting) -> anyhow::Result<Vec<(MountedAt, PathBuf)>> {
    Ok(in_folders(mounting)?.into_iter().filter(|(at, folder)| is_served(mounting, at, folder)).collect())
}

/// The mounts of this user that run, and those that were killed and lie there still, in the order of their directories. None of
/// those that run is asked anything.
pub(super) fn all(mounting: &dyn Mounting) -> anyhow::Result<Vec<Mounted>> {
    let mut all = Vec::new();
    for (at, folder) in in_folders(mounting)? {
        let alive = is_served(mounting, &at, &folder);
        if alive || mounting.is_dead(&at.directory) {
            all.push(Mounted { at, alive });
        }
    }
    all.sort_by(|a, b| (&a.at.directory, !a.alive).cmp(&(&b.at.directory, !b.alive)));
    // What a killed mount has left tells of a directory where another one of them lies.
    all.dedup_by(|later, first| later.at.directory == first.at.directory && !later.alive);
    Ok(all)
}

fn in_folders(mounting: &dyn Mounting) -> anyhow::Result<Vec<(MountedAt, PathBuf)>> {
    let mut all = Vec::new();
    let Ok(folders) = fs::read_dir(mounting.folder()?) else { return Ok(all) };
    for folder in folders {
        let folder = folder?.path();
        let Ok(text) = fs::read(folder.join(WHERE)) else { continue };
        if let Ok(at) = serde_json::from_slice::<MountedAt>(&text) {
            all.push((at, folder));
        }
    }
    Ok(all)
}

/// Whether a mount is served. One whose process was killed and cannot end is ended first, with those who wait for it, and what it had
/// in its folder can be taken by another one.
pub(super) fn is_served(mounting: &dyn Mounting, at: &MountedAt, folder: &Path) -> bool {
    if !is_locked(folder) {
        return false;
    }
    if !mounting.end_of_dying(&at.device, at.pid).unwrap_or(false) {
        return true;
    }
    let start = Instant::now();
    while is_locked(folder) {
        if start.elapsed() > DEATH_TIME {
            return true;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    false
}

/// Whether the mount of a folder runs.
fn is_locked(folder: &Path) -> bool {
    let lock = File::open(folder.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_older_mounts_have_written_is_read() {
        let at: MountedAt = serde_json::from_str(r#"{"directory":"/mnt","pid":7}"#).unwrap();
        assert_eq!((at.directory, at.shows.as_str(), at.read_only), ("/mnt".into(), "", false));
    }

    #[test]
    fn a_dead_mount_says_what_to_do() {
        let at = MountedAt {
            directory: "/mnt".into(),
            pid: 7,
            shows: "/".into(),
            read_only: true,
            device: String::new(),
        };
        let mounted = |alive| Mounted { at: at.clone(), alive };
        assert_eq!(mounted(true).attention(), None);
        assert!(mounted(false).attention().unwrap().starts_with("the mount at /mnt is dead"));
        let value = serde_json::to_value(mounted(true)).unwrap();
        assert_eq!(value["directory"], "/mnt");
        assert_eq!((&value["shows"], &value["alive"]), (&"/".into(), &true.into()));
    }
}
