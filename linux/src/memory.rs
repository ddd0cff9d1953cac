//! How this process keeps the memory that it gives back to itself.

/// Blocks up to this size come from the heap, so that the next one of the size finds its pages there.
#[cfg(target_env = "gnu")]
const HEAP_BLOCK_MAX: i32 = 4 << 20;
/// Bytes at the end of the heap that are kept for the next use.
#[cfg(target_env = "gnu")]
const KEPT_MAX: i32 = 16 << 20;

/// Heaps: each keeps what it once had, in pieces that the next request does not fit, and by default there are eight for a
/// processor: a server with a cache of 256 MiB grew past it by a quarter.
#[cfg(target_env = "gnu")]
const HEAPS_MAX: i32 = 2;

/// For daemons that move messages of megabytes: without it each such message has its pages made and taken away again,
/// which costs more than copying it. An idle daemon that never moved large ones keeps nothing; one that did, 16 MiB.
pub fn keep_for_messages() {
    #[cfg(target_env = "gnu")]
    {
        use nix::libc;
        // SAFETY: each call sets a number of the allocator, which is valid in every state; threads may be running.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_BLOCK_MAX);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_MAX);
            libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
        }
    }
}

/// Messages from this size on are put into large pages, where the system has them.
const LARGE_PAGES_MIN: usize = 4 << 20;

/// Zeros, for a message that arrives. To make the pages of a large one, one by one, costs more than to receive it.
pub(crate) fn zeros(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    if size >= LARGE_PAGES_MIN {
        let page = rustix::param::page_size();
        let skipped = bytes.as_ptr().align_offset(page);
        if let Some(pages) = bytes.get_mut(skipped..).filter(|pages| pages.len() >= page) {
            let length = pages.len() / page * page;
            // SAFETY: the range lies in memory of this vector, and the advice changes nothing that a program can see.
            let advised = unsafe {
                rustix::mm::madvise(pages.as_mut_ptr().cast(), length, rustix::mm::Advice::LinuxHugepage)
            };
            if let Err(errno) = advised {
                tracing::debug!("no large pages: {errno}");
            }
        }
    }
    bytes
}
