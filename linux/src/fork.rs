//! Which process of a family something belongs to.
//!
//! A child that was forked has a copy of everything its parent had: the same connections to the kernel, and the same
//! memory shared with clients and servers. If it used them, two processes would be one client and one server, and each
//! would get what was meant for the other. So whatever talks to others remembers where it was made ([`Origin`]): in a child it
//! is void, and the child attaches for itself. An `exec` needs none of this, for it closes and unmaps everything.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// A word that holds the generation of this process, in a page that every fork finds empty.
struct Marker(NonNull<AtomicU64>);

// SAFETY: the page is never unmapped, and is reached by atomic operations alone.
unsafe impl Send for Marker {}
// SAFETY: as above.
unsafe impl Sync for Marker {}

const PAGE_SIZE: usize = 4096;

static MARKER: OnceLock<Option<Marker>> = OnceLock::new();
/// The last generation of this process and its ancestors.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// The process that something was made in, as opposed to its parent and its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(u64);

impl Origin {
    /// This process. Costs a load from memory.
    pub(crate) fn here() -> Origin {
        let Some(marker) = MARKER.get_or_init(marker) else { return Origin(0) };
        // SAFETY: the page is mapped for as long as the process lives.
        let word = unsafe { marker.0.as_ref() };
        let generation = word.load(Ordering::Acquire);
        if generation != 0 {
            return Origin(generation);
        }
        // The first use in this process: of its threads, one wins.
        let next = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
        Origin(
            word.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire)
                .map_or_else(|won| won, |_| next),
        )
    }

    /// Whether it is this process.
    pub(crate) fn is_here(self) -> bool {
        self == Origin::here()
    }
}

/// A page that is empty after a fork, however it was made.
fn marker() -> Option<Marker> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the system chooses the place, so that no memory in use is replaced.
    let page = unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE_SIZE, access, MapFlags::PRIVATE) };
    // SAFETY: what this advice changes is a page of our own.
    let wiped =
        page.and_then(|page| unsafe { madvise(page, PAGE_SIZE, Advice::LinuxWipeOnFork) }.map(|()| page));
    let page = wiped.inspect_err(|errno| tracing::warn!("forks are not noticed: {errno}")).ok()?;
    NonNull::new(page.cast()).map(Marker)
}
