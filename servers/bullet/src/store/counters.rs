//! Things that are counted for the status.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $counter:ident = $name:literal,)*) => {
        /// Things that are counted for the status, in its order.
        #[derive(Clone, Copy, Debug)]
        pub enum Counter { $($(#[doc = $doc])* $counter,)* }

        /// What the status calls them.
        const NAMES: &[&str] = &[$($name,)*];
    };
}

counters! {
    /// Reads answered from memory.
    CacheHits = "cache hits",
    /// Reads that went to the disk.
    CacheMisses = "cache misses",
    /// Reads whose bytes did not verify.
    DamagedReads = "damaged reads",
    /// Uncommitted files that nobody edited any more.
    TimedOut = "timed out files",
    /// Files that nobody touched any more.
    Aged = "aged files",
    /// STD_AGE.
    StdAge = "std_age",
    /// STD_COPY of a file of this server.
    CopyLocal = "std_copy local",
    /// STD_COPY of a file of another server.
    CopyRemote = "std_copy remote",
    /// STD_DESTROY.
    Destroy = "std_destroy",
    /// STD_INFO.
    Info = "std_info",
    /// STD_RESTRICT.
    Restrict = "std_restrict",
    /// STD_TOUCH and STD_NTOUCH.
    Touch = "std_touch",
    /// sync.
    Sync = "b_sync",
    /// STD_STATUS.
    Status = "b_status",
    /// fsck.
    Fsck = "b_fsck",
    /// size.
    Size = "b_size",
    /// read and read_whole.
    Read = "b_read",
    /// create.
    Create = "b_create",
    /// modify.
    Modify = "b_modify",
    /// insert.
    Insert = "b_insert",
    /// delete.
    Delete = "b_delete",
    /// compact.
    Compact = "b_disk_compact",
    /// Files that a compaction moved.
    MovedFiles = "moved files",
}

/// What the counters stand at.
pub(super) struct Counters([AtomicU64; NAMES.len()]);

impl Default for Counters {
    fn default() -> Counters {
        Counters(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    pub(super) fn add(&self, counter: Counter) {
        self.0[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// By name, in the order of the status.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.iter().zip(&self.0).map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }
}
