//! Where the scenarios run: a mount, and a folder of a local file system beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amoeba_linux::fuse::{Mount, MountError, MountOptions};
use amoeba_volume::MemoryFileSystem;

/// Bytes that the file system in memory may hold.
const SIZE_MAX: u64 = 1 << 30;
/// How long the end of a mount is waited for.
const LONG: Duration = Duration::from_secs(30);

/// One mount, for one scenario.
pub(crate) struct Place {
    folder: PathBuf,
    /// Which list of failures of the POSIX suite holds here: a heading of `docs/conformance.md`.
    pub(crate) kind: &'static str,
    served: Option<Mount>,
}

impl Place {
    /// The file system in memory. `None`, and said so, where nothing can be mounted.
    pub(crate) fn memory() -> Option<Place> {
        let folder = folder();
        let files = Arc::new(MemoryFileSystem::new(amoeba_linux::clock(), SIZE_MAX));
        // The POSIX suite looks in as other users, too.
        let options = MountOptions { others: true, ..MountOptions::new("programs") };
        match Mount::new(files, &folder.join("mount"), &options) {
            Ok(mount) => Some(Place { folder, kind: "memory", served: Some(mount) }),
            Err(error) => {
                fs::remove_dir_all(&folder).expect("nothing is mounted there");
                skip(&error);
                None
            }
        }
    }

    /// The directory that is mounted.
    pub(crate) fn mounted(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// A folder of the local file system.
    pub(crate) fn local(&self) -> PathBuf {
        self.folder.join("local")
    }

    /// A new folder on the mount and its twin on the local file system.
    pub(crate) fn twins(&self, name: &str) -> [PathBuf; 2] {
        [self.mounted(), self.local()].map(|folder| {
            let made = folder.join(name);
            fs::create_dir(&made).expect("a new name");
            made
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let unmounted = self.served.take().map(|mount| mount.unmount(LONG));
        if !std::thread::panicking() {
            assert!(
                unmounted.is_none_or(|how| how.expect("a mount can be unmounted")),
                "somebody is still at it"
            );
            fs::remove_dir_all(&self.folder).expect("nothing is mounted there");
        }
    }
}

/// Short, so that the path of a socket below it fits its 108 bytes; open, so that other users pass through on their way.
fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("amoeba-p{}-{number}", std::process::id()));
    for part in ["mount", "local"] {
        fs::create_dir_all(folder.join(part)).expect("the temporary folder is ours");
    }
    folder
}

/// Only the lack of FUSE on this host is a reason to skip.
fn skip(error: &MountError) {
    let lacking = !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root();
    assert!(lacking, "{error:?}");
    eprintln!("SKIPPED: nothing can be mounted here: {error}");
}
