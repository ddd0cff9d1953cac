//! Reading: buffers for it, and committed files that are kept open at their server while they are read, where nothing says
//! who has them open: a few, and none for long.

use std::sync::{Mutex, PoisonError};

use amoeba_stubs::bullet_file::OpenFile;
use amoeba_volume::Node;

use crate::tree::Tree;

/// Files that are kept so; past it those that were not read lately are closed, and then any.
const READING_MAX: usize = 64;
/// Buffers that are kept for the next reads, and bytes of each; others are given back at once.
const BUFFERS_MAX: usize = 16;
const BUFFER_SIZE_MAX: usize = 1 << 20;

/// Room for what is read: to get new pages from the host takes as long as to fill them.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// Does something with a buffer of `size` bytes, in which anything may be.
    pub(crate) fn with<T>(&self, size: usize, how: impl FnOnce(&mut [u8]) -> T) -> T {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = kept.unwrap_or_default();
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let result = how(&mut buffer[..size]);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_MAX && buffer.len() <= BUFFER_SIZE_MAX {
            kept.push(buffer);
        }
        result
    }
}

impl Tree {
    /// Keeps a file that is to be read on.
    pub(crate) fn keep_opened(&mut self, node: Node, opened: &OpenFile) {
        if self.reading.len() >= READING_MAX {
            self.close_unread();
        }
        if self.reading.len() >= READING_MAX
            && let Some((other, _)) = self.reading.pop_first()
        {
            self.close_at_server(other);
        }
        if let Ok(file) = self.file_mut(node) {
            file.opened = Some(opened.clone());
            self.reading.insert(node, true);
        }
    }

    /// A file was read up to `end`.
    pub(crate) fn read_on(&mut self, node: Node, end: u64) {
        let Some(is_read) = self.reading.get_mut(&node) else { return };
        *is_read = true;
        if self.file(node).is_ok_and(|file| file.size <= end) {
            self.reading.remove(&node);
            self.close_at_server(node);
        }
    }

    /// Closes what was not read since the last time.
    pub(crate) fn close_unread(&mut self) {
        let unread: Vec<Node> =
            self.reading.iter().filter(|(_, is_read)| !**is_read).map(|(node, _)| *node).collect();
        for node in unread {
            self.reading.remove(&node);
            self.close_at_server(node);
        }
        self.reading.values_mut().for_each(|is_read| *is_read = false);
    }

    fn close_at_server(&mut self, node: Node) {
        if let Ok(file) = self.file_mut(node) {
            file.opened = None;
        }
    }
}
