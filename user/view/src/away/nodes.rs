//! What a mount's kernel remembers of a caller's files: numbered nodes, each a name in a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use amoeba_stubs::view::NodeRecord;
use amoeba_volume::{Error, Node};

use super::scratch::Scratch;

/// The most names that are remembered as absent; when there are more, the kernel is not told that it may believe it.
const MISSED_MAX: usize = 4096;

/// A node that the kernel remembers.
pub(crate) struct Known {
    pub(crate) parent: u64,
    pub(crate) name: Vec<u8>,
    /// Its name was taken away or given to another: it lives until it is forgotten.
    pub(crate) gone: bool,
    pub(crate) record: NodeRecord,
    /// When the record was right, as far as is known.
    pub(crate) checked: Option<Instant>,
    /// The version that the kernel's pages are of.
    pub(crate) pages: [u8; 16],
    /// How often the kernel remembers it.
    pub(crate) count: u64,
    /// Larger, the later it was asked for.
    pub(crate) used: u64,
    pub(crate) listing: Option<Arc<Listing>>,
    /// Whether all its names are asked for because of one: not of a large directory, nor of one that is being changed here.
    pub(crate) foreseen: bool,
    /// How many opens have a file of this host behind them, and which.
    pub(crate) backed: Option<(u64, [u8; 16], Arc<std::fs::File>)>,
    /// How many opens have none.
    pub(crate) plain: u64,
    /// How many of these may write.
    pub(crate) writers: u64,
    /// What it holds while it is written here.
    pub(crate) scratch: Option<Arc<Scratch>>,
}

/// All names of a directory, as they were.
pub(crate) struct Listing {
    pub(crate) version: [u8; 16],
    pub(crate) entries: BTreeMap<Vec<u8>, NodeRecord>,
    pub(crate) fetched: Instant,
}

/// The nodes of one mount. As many as its kernel remembers.
pub(crate) struct Table {
    nodes: BTreeMap<u64, Known>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    next: u64,
    uses: u64,
    /// Names that the kernel was told are not there, by directory.
    missed: BTreeMap<u64, BTreeSet<Vec<u8>>>,
    missed_count: usize,
    /// How often some of them were given up, because they may be there now.
    given_up: u64,
}

impl Table {
    /// A table with the root, whose record is not known yet.
    pub(crate) fn new() -> Table {
        let root = Node::ROOT.0;
        let mut table = Table {
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            next: root + 1,
            uses: 0,
            missed: BTreeMap::new(),
            missed_count: 0,
            given_up: 0,
        };
        let mut known = known(0, b"", crate::home::nothing(), None);
        known.count = 1;
        table.nodes.insert(root, known);
        table
    }

    pub(crate) fn get(&self, node: Node) -> Result<&Known, Error> {
        self.nodes.get(&node.0).ok_or(Error::Stale)
    }

    pub(crate) fn get_mut(&mut self, node: Node) -> Result<&mut Known, Error> {
        self.uses += 1;
        let known = self.nodes.get_mut(&node.0).ok_or(Error::Stale)?;
        known.used = self.uses;
        Ok(known)
    }

    /// The node under a name, if the kernel remembers one.
    pub(crate) fn child(&self, directory: Node, name: &[u8]) -> Option<Node> {
        self.names.get(&(directory.0, name.to_vec())).copied().map(Node)
    }

    /// Remembers what stands under a name once more. The same name with a thing of another kind is another node.
    pub(crate) fn remember(
        &mut self,
        directory: Node,
        name: &[u8],
        record: &NodeRecord,
        checked: Option<Instant>,
    ) -> Node {
        if let Some(node) = self.child(directory, name) {
            let known = self.nodes.get_mut(&node.0).expect("a name leads to a node");
            if known.record.kind == record.kind {
                known.count += 1;
                if checked >= known.checked {
                    (known.record, known.checked) = (record.clone(), checked);
                }
                return node;
            }
            self.take_name(directory, name);
        }
        let node = self.next;
        self.next += 1;
        self.uses += 1;
        let mut made = known(directory.0, name, record.clone(), checked);
        (made.count, made.used) = (1, self.uses);
        self.nodes.insert(node, made);
        self.names.insert((directory.0, name.to_vec()), node);
        Node(node)
    }

    /// Takes back rememberings; a node that is not remembered, open or on the way to others is gone.
    pub(crate) fn forget(&mut self, node: Node, count: u64) {
        let Some(known) = self.nodes.get_mut(&node.0) else { return };
        known.count = known.count.saturating_sub(count);
        self.tidy(node);
    }

    /// Removes a node that nobody uses any more, and those above it that only led to it.
    pub(crate) fn tidy(&mut self, node: Node) {
        let mut node = node.0;
        while node != Node::ROOT.0 {
            let Some(known) = self.nodes.get(&node) else { return };
            let leads = self.names.range((node, Vec::new())..).next().is_some_and(|((of, _), _)| *of == node);
            let open = known.plain > 0 || known.backed.is_some() || known.scratch.is_some();
            if known.count > 0 || open || leads {
                return;
            }
            let (parent, name, gone) = (known.parent, known.name.clone(), known.gone);
            self.nodes.remove(&node);
            // With the directory the kernel has let go what it knew of its names.
            self.take_missed_in(node);
            if !gone {
                self.names.remove(&(parent, name));
            }
            node = parent;
        }
    }

    /// A name stands for nothing now; its node lives on without it.
    pub(crate) fn take_name(&mut self, directory: Node, name: &[u8]) {
        if let Some(node) = self.names.remove(&(directory.0, name.to_vec()))
            && let Some(known) = self.nodes.get_mut(&node)
        {
            known.gone = true;
            self.tidy(Node(node));
        }
    }

    /// A node has another name.
    pub(crate) fn rename(&mut self, from: (Node, &[u8]), to: (Node, &[u8])) {
        self.take_name(to.0, to.1);
        if let Some(node) = self.names.remove(&(from.0.0, from.1.to_vec())) {
            self.names.insert((to.0.0, to.1.to_vec()), node);
            let known = self.nodes.get_mut(&node).expect("a name leads to a node");
            (known.parent, known.name) = (to.0.0, to.1.to_vec());
        }
        for directory in [from.0, to.0] {
            self.outdate(directory);
        }
    }

    /// What is known of a directory's names is not right any more.
    pub(crate) fn outdate(&mut self, directory: Node) {
        if let Some(known) = self.nodes.get_mut(&directory.0) {
            (known.listing, known.foreseen) = (None, false);
        }
    }

    /// No names are known, and those of any directory may be asked for at once.
    pub(crate) fn foresee(&mut self) {
        for known in self.nodes.values_mut() {
            (known.listing, known.foreseen) = (None, true);
        }
    }

    /// The kernel hears that a name is not there; it is not to believe that once [there are too many](Table::misses_too_much).
    pub(crate) fn miss(&mut self, directory: Node, name: &[u8]) {
        if self.misses_too_much() || !self.nodes.contains_key(&directory.0) {
            return;
        }
        if self.missed.entry(directory.0).or_default().insert(name.to_vec()) {
            self.missed_count += 1;
        }
    }

    /// Whether no more names can be remembered as absent.
    pub(crate) fn misses_too_much(&self) -> bool {
        self.missed_count >= MISSED_MAX
    }

    /// How often names that were absent have been given up.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Gives up the names that were absent in directories of which this is not known to be so since `begun`; all of them when
    /// they are too many.
    pub(crate) fn give_up_missed(&mut self, begun: Instant) -> Vec<(Node, Vec<u8>)> {
        let all = self.misses_too_much();
        let is_old = |node: &u64| self.nodes.get(node).is_none_or(|known| known.checked < Some(begun));
        let old: Vec<u64> = self.missed.keys().copied().filter(|node| all || is_old(node)).collect();
        self.given_up += u64::from(!old.is_empty());
        let names = |node| self.take_missed_in(node).into_iter().map(move |name| (Node(node), name));
        old.into_iter().flat_map(names).collect()
    }

    fn take_missed_in(&mut self, directory: u64) -> BTreeSet<Vec<u8>> {
        let names = self.missed.remove(&directory).unwrap_or_default();
        self.missed_count -= names.len();
        names
    }

    /// The path of a node below the root of the mount.
    ///
    /// # Errors
    /// It has no name any more.
    pub(crate) fn path(&self, node: Node, base: &[u8]) -> Result<Vec<u8>, Error> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = node.0;
        while at != Node::ROOT.0 {
            let known = self.nodes.get(&at).ok_or(Error::Stale)?;
            if known.gone {
                return Err(Error::NotFound);
            }
            names.push(&known.name);
            at = known.parent;
        }
        let mut path = base.to_vec();
        for name in names.iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        Ok(path)
    }

    /// Every node, those that were asked for last first.
    pub(crate) fn by_use(&self) -> Vec<Node> {
        let mut nodes: Vec<(u64, u64)> =
            self.nodes.iter().map(|(node, known)| (u64::MAX - known.used, *node)).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node)| Node(node)).collect()
    }
}

fn known(parent: u64, name: &[u8], record: NodeRecord, checked: Option<Instant>) -> Known {
    Known {
        parent,
        name: name.to_vec(),
        gone: false,
        pages: record.version,
        record,
        checked,
        count: 0,
        used: 0,
        listing: None,
        foreseen: true,
        backed: None,
        plain: 0,
        writers: 0,
        scratch: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> NodeRecord {
        NodeRecord { kind: amoeba_stubs::view::KIND_DIRECTORY, ..crate::home::nothing() }
    }

    #[test]
    fn paths_follow_renames_and_what_is_forgotten_is_gone() {
        let now = Some(Instant::now());
        let mut table = Table::new();
        let a = table.remember(Node::ROOT, b"a", &directory(), now);
        let b = table.remember(a, b"b", &directory(), now);
        assert_eq!(table.path(b, b"usr").unwrap(), b"usr/a/b");
        table.rename((Node::ROOT, b"a"), (Node::ROOT, b"c"));
        assert_eq!(table.path(b, b"").unwrap(), b"c/b");
        table.forget(a, 1);
        assert_eq!(table.path(b, b"").unwrap(), b"c/b");
        table.forget(b, 1);
        assert!(table.get(a).is_err() && table.get(b).is_err());
        assert!(table.child(Node::ROOT, b"c").is_none());
    }

    #[test]
    fn another_thing_under_a_name_is_another_node() {
        let now = Some(Instant::now());
        let mut table = Table::new();
        let old = table.remember(Node::ROOT, b"x", &directory(), now);
        let link = NodeRecord { kind: amoeba_stubs::view::KIND_LINK, ..crate::home::nothing() };
        let new = table.remember(Node::ROOT, b"x", &link, now);
        assert_ne!(old, new);
        assert_eq!(table.path(old, b""), Err(Error::NotFound));
        assert_eq!(table.path(new, b"").unwrap(), b"x");
    }
}
