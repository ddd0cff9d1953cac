//! How this process keeps the memory that it gives back to itself, and how it gets large blocks.

use std::alloc::{GlobalAlloc, Layout, System};

/// Blocks up to this size come from the heap, so that the next one of the size finds its pages there.
#[cfg(target_env = "gnu")]
const HEAP_BLOCK_MAX: i32 = 4 << 20;
/// Bytes at the end of the heap that are kept for the next use.
#[cfg(target_env = "gnu")]
const KEPT_MAX: i32 = 16 << 20;

/// Heaps: each keeps what it once had in large pieces, and by default there are eight for a processor.
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

/// Blocks from this size on are put into large pages, where the system has them: to make the pages of a large block, one by one,
/// costs more than to fill it.
const LARGE_PAGES_MIN: usize = 4 << 20;

/// The system's allocator, and large pages under large blocks: files that arrive piece by piece, and what is read of them.
pub struct LargePages;

// SAFETY: every block is one of the system's allocator, whose contract this is; the advice changes nothing that a program can see.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that is asked for.
        let block = unsafe { System.alloc(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { System.alloc_zeroed(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { System.realloc(block, layout, size) };
        advise(block, size);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Asks for large pages under a block of this process, if it is large. Must not allocate.
fn advise(block: *mut u8, size: usize) {
    if size < LARGE_PAGES_MIN || block.is_null() {
        return;
    }
    let page = rustix::param::page_size();
    let skipped = block.addr().next_multiple_of(page) - block.addr();
    let length = (size - skipped) / page * page;
    // SAFETY: the pages lie in the block, and the advice changes nothing that a program can see. Where it is refused there are
    // small pages, as everywhere else.
    let _ = unsafe {
        rustix::mm::madvise(block.wrapping_add(skipped).cast(), length, rustix::mm::Advice::LinuxHugepage)
    };
}

/// Zeros, for a message that arrives, in large pages also in programs that have another allocator.
pub(crate) fn zeros(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    advise(bytes.as_mut_ptr(), size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_size_are_blocks() {
        for size in [1, 4096, LARGE_PAGES_MIN - 1, LARGE_PAGES_MIN, LARGE_PAGES_MIN + 5000, 9 << 20] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the layout is not empty; the block is used within its size and freed with the layout it then has.
            unsafe {
                let block = LargePages.alloc_zeroed(layout);
                assert_eq!((block.read(), block.add(size - 1).read()), (0, 0));
                block.add(size - 1).write(7);
                let block = LargePages.realloc(block, layout, 2 * size);
                assert_eq!(block.add(size - 1).read(), 7);
                block.add(2 * size - 1).write(8);
                LargePages.dealloc(block, Layout::from_size_align(2 * size, 8).unwrap());
            }
        }
        assert!(zeros(LARGE_PAGES_MIN + 1).iter().all(|&byte| byte == 0));
    }
}
