//! Who may still write a file, on a mount whose opens and closes are no operations.

use crate::Node;

/// What a host can tell of those who have files of a mount open.
///
/// A mount that does without opens is not told who opens a file, nor who closes one. All it needs of that is when the last
/// one who could write a file has closed it; that it asks here, by the number of the node.
pub trait Writers: Send + Sync {
    /// What was closed by somebody who could write it, since the last call. Whatever was closed before the program did what
    /// it asks of the file system now is in it.
    fn closed(&self) -> Closed;

    /// Whether somebody can write the node now: has it open so, or mapped. Who has just closed it may be counted for a moment.
    /// `None` where that is not known: of a node that was neither [closed](Writers::closed) nor [looked
    /// for](Writers::look_for), or with which all was [done](Writers::done) since.
    fn is_written(&self, node: Node) -> Option<bool>;

    /// Lets [`is_written`](Writers::is_written) know a node. Never from within an operation: the host may wait for the end of one.
    fn look_for(&self, node: Node);

    /// [`is_written`](Writers::is_written) is not asked of the node again until it was closed or looked for.
    fn done(&self, node: Node);

    /// Has [`look_at_writers`](crate::FileSystem::look_at_writers) called soon, by another thread.
    fn wake(&self);
}

/// See [`Writers::closed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// The nodes, in the order in which they were closed.
    pub nodes: Vec<Node>,
    /// There were more than the host can keep: any node may have been closed.
    pub any: bool,
}

/// Of a mount that nothing can be written through.
#[derive(Clone, Copy, Debug)]
pub struct NoWriters;

impl Writers for NoWriters {
    fn closed(&self) -> Closed {
        Closed::default()
    }

    fn is_written(&self, _: Node) -> Option<bool> {
        Some(false)
    }

    fn look_for(&self, _: Node) {}

    fn done(&self, _: Node) {}

    fn wake(&self) {}
}
