//! A file that a mount has while it begins: on it is found out whether the mount can do without opens, and it is the first whose open
//! is refused, so that the kernel asks for no other.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use amoeba_volume::{Attributes, Entry, Error, FileSystem, Kind, NoWriters, Node, Time, Writers};

use super::MountOptions;
use super::writers::{self, Watch};

/// Its number, which no file system gives: they count from 1.
pub(super) const NODE: Node = Node(u64::MAX - 1);
/// Its name in the root of the mount.
const NAME: &str = ".amoeba-mount-begins";
/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Probe {
    refuses: AtomicBool,
    over: OnceLock<()>,
}

impl Probe {
    /// One that is over already: the mount has opens.
    pub(super) fn over() -> Probe {
        let probe = Probe::default();
        probe.end();
        probe
    }

    /// Whether a name is that of the file, as long as there is one.
    pub(super) fn is(&self, directory: Node, name: &[u8]) -> bool {
        directory == Node::ROOT && name == NAME.as_bytes() && self.over.get().is_none()
    }

    /// What the file is, as long as somebody asks.
    pub(super) fn entry() -> Entry {
        let now = Time::default();
        let attributes = Attributes {
            node: NODE,
            kind: Kind::File,
            permissions: 0o666,
            links: 1,
            user: 0,
            group: 0,
            device: 0,
            size: 0,
            allocated: 0,
            accessed: now,
            modified: now,
            changed: now,
        };
        let (name_lifetime, attributes_lifetime) = (Duration::ZERO, Duration::ZERO);
        Entry { attributes, generation: 0, name_lifetime, attributes_lifetime }
    }

    /// What an open and a close of the file answer.
    pub(super) fn answer(&self) -> Result<(), Error> {
        if self.refuses.load(Ordering::Acquire) { Err(Error::NotImplemented) } else { Ok(()) }
    }

    /// Returns when it is known whether there are opens.
    pub(super) fn wait(&self) {
        self.over.wait();
    }

    fn end(&self) {
        // Twice is as good as once.
        let _ = self.over.set(());
    }

    /// Lets a mount do without opens, if it is to and can: then what says who writes, where something can be written.
    pub(super) fn decide(
        &self,
        files: &dyn FileSystem,
        directory: &Path,
        options: &MountOptions,
    ) -> Option<Arc<Watch>> {
        let watch = self.begin(files, directory, options);
        self.end();
        watch
    }

    fn begin(&self, files: &dyn FileSystem, directory: &Path, options: &MountOptions) -> Option<Arc<Watch>> {
        if !options.without_opens {
            return None;
        }
        let file: PathBuf = directory.join(NAME);
        let watch = if options.read_only {
            None
        } else {
            let watch = Watch::new(directory).ok()?;
            Some(writers::prove(watch, &file, NODE, TIMEOUT)?)
        };
        self.refuses.store(true, Ordering::Release);
        // The kernel opens it all the same, and has learnt never to ask again; else it has failed.
        drop(std::fs::File::open(&file).ok()?);
        let writers =
            watch.clone().map_or_else(|| Arc::new(NoWriters) as Arc<dyn Writers>, |watch| watch as _);
        files.without_opens(writers);
        watch
    }
}
