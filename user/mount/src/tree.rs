//! What the mount knows: nodes, and which name stands for which of them.
//!
//! Of each name there are two truths: what its server has ([`Slot::server`]), and what the mount shows
//! ([`Slot::local`]). They differ while updates wait in the [queue](crate::queue). No transaction is done here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use amoeba_cap::{Capability, CapabilitySet, ObjectNumber, PutPort};
use amoeba_name::{Account, Attributes, Masks, Time};
use amoeba_stubs::bullet_file::OpenFile;
use amoeba_stubs::directory;
use amoeba_threads::{Mutex, Threads};
use amoeba_volume as volume;
use amoeba_volume::{Error, Kind, Node};

use crate::Accounts;
use crate::batches::Batches;
use crate::queue::{Change, Object, Target, Update, Version};
use crate::rows::{Row, mode_of_kind};
use crate::scratch::Scratch;
use crate::spares::Columns;

/// Permissions of what nothing is said of.
const FILE_PERMISSIONS: u32 = 0o644;
const DIRECTORY_PERMISSIONS: u32 = 0o755;
const OBJECT_PERMISSIONS: u32 = 0o444;
/// The lower twelve bits of a mode.
const PERMISSIONS: u32 = 0o7777;
const WRITABLE: u32 = 0o222;
/// Masks of a new file and of a new directory, as the command line gives them.
pub(crate) const FILE_MASKS: Masks = [0xFF, 0x0F, 0x02, 0];
pub(crate) const DIRECTORY_MASKS: Masks = [0xFF, 0x06, 0x04, 0];

/// An object without its rights: two capabilities of it may differ in them.
pub(crate) type Identity = (PutPort, ObjectNumber);

pub(crate) fn identity(capability: &Capability) -> Identity {
    (capability.port, capability.object())
}

/// All nodes that the mount was told of, and all updates that wait.
pub(crate) struct Tree {
    threads: Threads,
    accounts: Arc<dyn Accounts>,
    members: BTreeMap<Node, Box<Member>>,
    /// Those that are directories.
    folders: BTreeSet<Node>,
    next_node: u64,
    /// Files with several names, by their object.
    linked: HashMap<Identity, Node>,
    /// Rows of such files that are not nodes yet.
    unmet: HashMap<Identity, Vec<(Node, Vec<u8>)>>,
    /// Files that are kept open at their server, and whether they were read since it was last looked: see [`reading`].
    ///
    /// [`reading`]: crate::reading
    pub(crate) reading: BTreeMap<Node, bool>,
    /// Files that somebody writes, where opens are not told: see [`closed`](crate::closed).
    pub(crate) writing: BTreeSet<Node>,
    /// Names of which the kernel is still to be told.
    pub(crate) untold: Vec<(Node, Vec<u8>)>,
    pub(crate) queue: VecDeque<Update>,
    /// What was taken from the queue, and is on its way.
    pub(crate) batches: Batches,
    /// Bytes of scratches that wait.
    pub(crate) queue_bytes: u64,
    /// The number of the last update that was queued.
    pub(crate) queued: u64,
    /// And of the last one that is at the servers, or was given up.
    pub(crate) done: u64,
    /// And of the last one that somebody waits for.
    pub(crate) awaited: u64,
}

/// A node.
pub(crate) struct Member {
    pub(crate) kind: Kind,
    pub(crate) remembered: u64,
    /// Where it stands.
    pub(crate) names: Vec<(Node, Vec<u8>)>,
    /// Where it stood until another mount has replaced it: who has it open, and is not known to, may still write it.
    pub(crate) former: Vec<(Node, Vec<u8>)>,
    pub(crate) attributes: Attributes,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// What it is at the servers; empty as long as it was never committed.
    pub(crate) set: CapabilitySet,
    /// Contents that are to be committed, and are not yet.
    pub(crate) version: Option<Arc<Version>>,
    /// The last update of it.
    pub(crate) pending: u64,
    masks: Masks,
    row_kind: Capability,
    row_time: Time,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Directory(Folder),
    File(FileState),
    /// A symbolic link, with its text.
    Link(Vec<u8>),
    /// A pipe or a socket: an empty file at the servers.
    Special,
    /// An object that is none of these: what it says of itself.
    Object(Vec<u8>),
}

/// A directory.
#[derive(Default)]
pub(crate) struct Folder {
    pub(crate) entries: BTreeMap<Vec<u8>, Slot>,
    /// Whether a name that is not in `entries` is not there.
    pub(crate) complete: bool,
    /// Whether its server was asked for the first page.
    pub(crate) asked: bool,
    /// The number of its last change that is in `entries`; 0: not known.
    pub(crate) sequence: u64,
    /// The names of its columns, once they were asked for.
    pub(crate) columns: Option<Columns>,
    /// How often something in it was brought to its server.
    pub(crate) commits: u64,
    /// The last update of the last batch that was gathered with rows of it: it is under way until that is done.
    pub(crate) in_flight: u64,
}

/// A name in a directory.
pub(crate) struct Slot {
    pub(crate) server: Option<Row>,
    pub(crate) local: Local,
    /// The last update of it; 0: none waits.
    pub(crate) pending: u64,
}

/// What the mount shows under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// What the server has, of which the kernel was told nothing yet.
    Same,
    /// This.
    Node(Node),
    /// Nothing, whatever the server has.
    Absent,
}

/// A file as it is used here.
pub(crate) struct FileState {
    /// Bytes of the committed file.
    pub(crate) size: u64,
    /// The committed file, once it was read.
    pub(crate) opened: Option<OpenFile>,
    /// What is written, shared by all.
    pub(crate) scratch: Option<Arc<Scratch>>,
    pub(crate) openers: u32,
    pub(crate) writers: u32,
    /// Written since the last commit was queued.
    pub(crate) changed: bool,
    /// What the next one who closes or syncs it hears.
    pub(crate) failure: Option<Error>,
    /// It was made by somebody who would not have another's.
    pub(crate) exclusive: bool,
    /// Held by who changes the contents.
    pub(crate) gate: Arc<Mutex<()>>,
}

/// What a node is made of.
pub(crate) struct Born {
    pub(crate) kind: Kind,
    pub(crate) permissions: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) now: Time,
    pub(crate) set: CapabilitySet,
    pub(crate) version: Option<Arc<Version>>,
    pub(crate) content: Content,
}

impl Tree {
    pub(crate) fn new(threads: &Threads, accounts: Arc<dyn Accounts>, root: Capability, now: Time) -> Tree {
        let (user, group) = accounts.own();
        let mut tree = Tree {
            threads: threads.clone(),
            accounts,
            members: BTreeMap::new(),
            folders: BTreeSet::new(),
            next_node: Node::ROOT.0,
            linked: HashMap::new(),
            unmet: HashMap::new(),
            reading: BTreeMap::new(),
            writing: BTreeSet::new(),
            untold: Vec::new(),
            queue: VecDeque::new(),
            batches: Batches::default(),
            queue_bytes: 0,
            queued: 0,
            done: 0,
            awaited: 0,
        };
        let (set, content) = (CapabilitySet::singleton(root), Content::Directory(Folder::default()));
        let (kind, permissions) = (Kind::Directory, DIRECTORY_PERMISSIONS);
        let node = tree.add(Born { kind, permissions, user, group, now, set, version: None, content });
        tree.remember(node);
        tree
    }

    pub(crate) fn member(&self, node: Node) -> Result<&Member, Error> {
        self.members.get(&node).map(|member| &**member).ok_or(Error::NotFound)
    }

    pub(crate) fn member_mut(&mut self, node: Node) -> Result<&mut Member, Error> {
        self.members.get_mut(&node).map(|member| &mut **member).ok_or(Error::NotFound)
    }

    pub(crate) fn folder(&self, node: Node) -> Result<&Folder, Error> {
        match &self.member(node)?.content {
            Content::Directory(folder) => Ok(folder),
            _ => Err(Error::NotDirectory),
        }
    }

    pub(crate) fn folder_mut(&mut self, node: Node) -> Result<&mut Folder, Error> {
        match &mut self.member_mut(node)?.content {
            Content::Directory(folder) => Ok(folder),
            _ => Err(Error::NotDirectory),
        }
    }

    pub(crate) fn file(&self, node: Node) -> Result<&FileState, Error> {
        match &self.member(node)?.content {
            Content::File(file) => Ok(file),
            Content::Directory(_) => Err(Error::IsDirectory),
            _ => Err(Error::Invalid),
        }
    }

    pub(crate) fn file_mut(&mut self, node: Node) -> Result<&mut FileState, Error> {
        match &mut self.member_mut(node)?.content {
            Content::File(file) => Ok(file),
            Content::Directory(_) => Err(Error::IsDirectory),
            _ => Err(Error::Invalid),
        }
    }

    /// All directories of which something is known, with their capabilities.
    pub(crate) fn directories(&self) -> Vec<(Node, Capability)> {
        let known = |node: &Node| {
            let member = self.members.get(node)?;
            let is_known = matches!(&member.content, Content::Directory(folder) if folder.asked || !folder.entries.is_empty());
            member.set.first().filter(|_| is_known).map(|directory| (*node, *directory))
        };
        self.folders.iter().filter_map(known).collect()
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.members.keys().copied().collect()
    }

    /// The capability of a directory in which something may be changed.
    pub(crate) fn writable(&self, directory: Node) -> Result<Capability, Error> {
        let member = self.member(directory)?;
        if !matches!(member.content, Content::Directory(_)) {
            return Err(Error::NotDirectory);
        }
        if member.names.is_empty() && directory != Node::ROOT {
            return Err(Error::NotFound);
        }
        let capability = member.set.first().ok_or(Error::Io)?;
        if capability.rights().contains(directory::MODIFY) {
            Ok(*capability)
        } else {
            Err(Error::AccessDenied)
        }
    }

    pub(crate) fn new_file(&self, size: u64, scratch: Option<Arc<Scratch>>) -> FileState {
        FileState {
            size,
            opened: None,
            scratch,
            openers: 0,
            writers: 0,
            changed: false,
            failure: None,
            exclusive: false,
            gate: Arc::new(Mutex::new(&self.threads, ())),
        }
    }

    fn account(&self, number: u32, name: fn(&dyn Accounts, u32) -> Vec<u8>) -> Option<Account> {
        Some(Account { number, name: name(&*self.accounts, number) })
    }

    /// A new node, which no name stands for yet.
    pub(crate) fn add(&mut self, born: Born) -> Node {
        let Born { kind, permissions, user, group, now, set, version, content } = born;
        let attributes = Attributes {
            mode: Some(mode_of_kind(kind) | permissions),
            owner: self.account(user, |accounts, number| accounts.user_name(number)),
            group: self.account(group, |accounts, number| accounts.group_name(number)),
            modified: Some(now),
            accessed: Some(now),
            changed: Some(now),
            ..Attributes::default()
        };
        let masks = if kind == Kind::Directory { DIRECTORY_MASKS } else { FILE_MASKS };
        self.put(Member {
            kind,
            remembered: 0,
            names: Vec::new(),
            former: Vec::new(),
            attributes,
            user,
            group,
            set,
            version,
            pending: 0,
            masks,
            row_kind: Capability::NULL,
            row_time: now,
            content,
        })
    }

    fn put(&mut self, member: Member) -> Node {
        let node = Node(self.next_node);
        self.next_node += 1;
        if member.kind == Kind::Directory {
            self.folders.insert(node);
        }
        self.members.insert(node, Box::new(member));
        node
    }

    /// The node of a row that the kernel is told of for the first time; `None` if the name stands for something else by now.
    pub(crate) fn meet(
        &mut self,
        directory: Node,
        name: &[u8],
        row: &Row,
        kind: Kind,
        content: Content,
    ) -> Result<Option<Node>, Error> {
        let folder = self.folder(directory)?;
        let slot = folder.entries.get(name);
        if !slot.is_some_and(|slot| slot.local == Local::Same && slot.server.as_ref() == Some(row)) {
            return Ok(None);
        }
        let several = kind == Kind::File && row.attributes.links.is_some();
        let key = row.object().map(identity).filter(|_| several);
        let node = match key.and_then(|key| self.linked.get(&key).copied()) {
            Some(node) => node,
            None => {
                let node = self.put(self.member_of(row.clone(), kind, content));
                self.linked.extend(key.map(|key| (key, node)));
                node
            }
        };
        self.attach(directory, name, node);
        // What is done to it is done to all its names.
        let others = key.and_then(|key| self.unmet.remove(&key)).unwrap_or_default();
        for (directory, name) in others {
            let same = |row: &Row| row.object().map(identity) == key && row.attributes.links.is_some();
            let slot = self.slot(directory, &name).ok();
            if slot.is_some_and(|slot| slot.local == Local::Same && slot.server.as_ref().is_some_and(same)) {
                self.attach(directory, &name, node);
            }
        }
        Ok(Some(node))
    }

    fn attach(&mut self, directory: Node, name: &[u8], node: Node) {
        if let Some(member) = self.members.get_mut(&node) {
            member.names.push((directory, name.to_vec()));
        }
        if let Ok(slot) = self.slot(directory, name) {
            slot.local = Local::Node(node);
        }
    }

    /// A row was read, of which the kernel knows nothing: one of a file with several names is found when that is used.
    pub(crate) fn note_row(&mut self, directory: Node, name: &[u8]) {
        let Some(slot) = self.folder(directory).ok().and_then(|folder| folder.entries.get(name)) else {
            return;
        };
        let row =
            slot.server.as_ref().filter(|row| slot.local == Local::Same && row.attributes.links.is_some());
        let Some(key) = row.and_then(|row| row.object()).map(identity) else { return };
        match self.linked.get(&key) {
            Some(node) => self.attach(directory, name, *node),
            None => {
                let unmet = self.unmet.entry(key).or_default();
                if !unmet.iter().any(|(at, known)| (*at, known.as_slice()) == (directory, name)) {
                    unmet.push((directory, name.to_vec()));
                }
            }
        }
    }

    fn member_of(&self, row: Row, kind: Kind, content: Content) -> Member {
        let (own_user, own_group) = self.accounts.own();
        let is_about_it = matches!(kind, Kind::Directory)
            || row
                .object()
                .zip(row.attributes.content)
                .is_some_and(|(object, content)| content.is_of(object));
        let mut attributes = row.attributes;
        if !is_about_it {
            (attributes.content, attributes.modified, attributes.link) = (None, None, None);
        }
        let user = attributes.owner.as_ref().map_or(own_user, |owner| self.accounts.user_number(owner));
        let group = attributes.group.as_ref().map_or(own_group, |group| self.accounts.group_number(group));
        let nanoseconds = (row.time % 1_000_000_000) as u32;
        Member {
            kind,
            remembered: 0,
            names: Vec::new(),
            former: Vec::new(),
            attributes,
            user,
            group,
            set: row.set,
            version: None,
            pending: 0,
            masks: row.masks,
            row_kind: row.kind,
            row_time: Time { seconds: (row.time / 1_000_000_000) as i64, nanoseconds },
            content,
        }
    }

    /// Somebody else has changed the attributes of a row, and nothing else.
    pub(crate) fn take_attributes(&mut self, node: Node, row: &Row) {
        let Ok(member) = self.member(node) else { return };
        let kind = member.kind;
        let fresh = self.member_of(row.clone(), kind, Content::Special);
        if let Some(member) = self.members.get_mut(&node) {
            (member.attributes, member.user, member.group) = (fresh.attributes, fresh.user, fresh.group);
            (member.masks, member.row_kind, member.row_time) = (fresh.masks, fresh.row_kind, fresh.row_time);
        }
    }

    pub(crate) fn slot(&mut self, directory: Node, name: &[u8]) -> Result<&mut Slot, Error> {
        self.folder_mut(directory)?.entries.get_mut(name).ok_or(Error::NotFound)
    }

    /// What the mount shows under a name; `None` where the server must be asked first.
    pub(crate) fn shown(&self, directory: Node, name: &[u8]) -> Result<Option<Shown>, Error> {
        let folder = self.folder(directory)?;
        Ok(match folder.entries.get(name) {
            None if folder.complete => Some(Shown::Nothing),
            None => None,
            Some(slot) => Some(match (slot.local, &slot.server) {
                (Local::Node(node), _) => Shown::Node(node),
                (Local::Absent, _) | (Local::Same, None) => Shown::Nothing,
                (Local::Same, Some(row)) => Shown::Row(Box::new(row.clone())),
            }),
        })
    }

    pub(crate) fn remember(&mut self, node: Node) {
        if let Some(member) = self.members.get_mut(&node) {
            member.remembered += 1;
        }
    }

    /// Lets a name stand for a node, here.
    pub(crate) fn name(&mut self, directory: Node, name: &[u8], node: Node) -> Result<(), Error> {
        let folder = self.folder_mut(directory)?;
        let new = || Slot { server: None, local: Local::Absent, pending: 0 };
        folder.entries.entry(name.to_vec()).or_insert_with(new).local = Local::Node(node);
        self.member_mut(node)?.names.push((directory, name.to_vec()));
        Ok(())
    }

    /// Takes a name away, here; what it stood for.
    pub(crate) fn unname(&mut self, directory: Node, name: &[u8]) -> Result<Node, Error> {
        let slot = self.slot(directory, name)?;
        let Local::Node(node) = std::mem::replace(&mut slot.local, Local::Absent) else {
            return Err(Error::NotFound);
        };
        let member = self.member_mut(node)?;
        member.names.retain(|(at, called)| (*at, called.as_slice()) != (directory, name));
        Ok(node)
    }

    /// The name is gone, and its server is to be told.
    pub(crate) fn gone(&self, directory: Node, name: &[u8]) -> Change {
        Change { directory, name: name.to_vec(), to: None }
    }

    /// What the rows of a node are to say now; nothing as long as it was never committed.
    pub(crate) fn rows_of(&self, node: Node) -> Vec<Change> {
        let Ok(member) = self.member(node) else { return Vec::new() };
        let object = match &member.version {
            Some(version) => Object::Version(Arc::clone(version)),
            None if member.set.is_empty() => return Vec::new(),
            None => Object::Set(member.set.clone()),
        };
        let exclusive = matches!(&member.content, Content::File(file) if file.exclusive);
        let links = u32::try_from(member.names.len()).ok().filter(|links| *links > 1);
        let links = links.max(member.attributes.links);
        let attributes = Attributes { links, ..member.attributes.clone() };
        let (masks, kind) = (member.masks, member.row_kind);
        let target = Target { node, object, attributes, masks, kind, exclusive };
        let change = |(directory, name): &(Node, Vec<u8>)| Change {
            directory: *directory,
            name: name.clone(),
            to: Some(target.clone()),
        };
        member.names.iter().map(change).collect()
    }

    /// What was written to a file that another mount has replaced gets its names again, for the last to close counts; but not those
    /// with which something is being done here.
    pub(crate) fn take_names_back(&mut self, node: Node) {
        let Ok(member) = self.member_mut(node) else { return };
        let former = std::mem::take(&mut member.former);
        if !member.names.is_empty() {
            return;
        }
        for (directory, name) in former {
            let now = match self.slot(directory, &name) {
                Ok(Slot { local: Local::Node(now), pending: 0, .. }) => Some(*now),
                Ok(Slot { local: Local::Same, server: Some(_), pending: 0 }) => None,
                _ => continue,
            };
            if let Some(now) = now {
                let is_idle = self.file(now).is_ok_and(|file| file.writers == 0 && !file.changed);
                if !is_idle || self.unname(directory, &name).is_err() {
                    continue;
                }
            }
            if self.name(directory, &name, node).is_ok() {
                self.untold.push((directory, name));
            }
            now.into_iter().for_each(|now| self.drop_if_idle(now));
        }
    }

    /// What was written of a file that nobody has open is not needed any more once it is committed.
    pub(crate) fn drop_scratch(&mut self, node: Node) {
        let Ok(member) = self.member_mut(node) else { return };
        let waits = member.version.is_some();
        if let Content::File(file) = &mut member.content
            && file.openers == 0
        {
            file.opened = None;
            if !waits && !file.changed && !member.set.is_empty() {
                file.scratch = None;
            }
        }
    }

    /// Files that somebody writes, as far as is known where opens are not told.
    pub(crate) fn written(&self) -> Vec<Node> {
        self.writing.iter().copied().collect()
    }

    /// The names in the root of which the kernel was told.
    pub(crate) fn names_of_root(&self) -> Vec<Vec<u8>> {
        let Ok(root) = self.folder(Node::ROOT) else { return Vec::new() };
        let told = root.entries.iter().filter(|(_, slot)| matches!(slot.local, Local::Node(_)));
        told.map(|(name, _)| name.clone()).collect()
    }

    /// Queues changes as one update, all of which are made at the servers, or none.
    pub(crate) fn enqueue(&mut self, changes: Vec<Change>, removed: Vec<Capability>) {
        if changes.is_empty() {
            return;
        }
        self.queued += 1;
        let number = self.queued;
        for change in &changes {
            if let Ok(slot) = self.slot(change.directory, &change.name) {
                slot.pending = number;
            }
            if let Some(member) = change.to.as_ref().and_then(|to| self.members.get_mut(&to.node)) {
                member.pending = number;
            }
        }
        let bytes = changes.iter().find_map(Change::bytes).unwrap_or(0);
        self.queue_bytes += bytes;
        self.queue.push_back(Update { number, changes, removed, bytes });
    }

    /// Contents or attributes of a node have changed: so its rows do.
    pub(crate) fn publish(&mut self, node: Node) {
        let changes = self.rows_of(node);
        self.enqueue(changes, Vec::new());
    }

    /// Whether something of a scratch is to be committed, and is not yet.
    pub(crate) fn waits(&self, node: Node, scratch: &Arc<Scratch>) -> bool {
        let Ok(member) = self.member(node) else { return false };
        let changed = matches!(&member.content, Content::File(file)
            if file.changed && file.scratch.as_ref().is_some_and(|now| Arc::ptr_eq(now, scratch)));
        let version = member.version.as_ref().is_some_and(|version| Arc::ptr_eq(&version.scratch, scratch));
        !member.names.is_empty() && (changed || version)
    }

    /// Something was made or taken away in a directory.
    pub(crate) fn touch(&mut self, directory: Node, now: Time) {
        if let Some(member) = self.members.get_mut(&directory) {
            (member.attributes.modified, member.attributes.changed) = (Some(now), Some(now));
        }
    }

    /// Drops a node that neither the kernel nor an update knows, and the directories it was the last in.
    pub(crate) fn drop_if_idle(&mut self, node: Node) {
        let mut next = Some(node);
        while let Some(node) = next.take() {
            let Some(member) = self.members.get(&node) else { return };
            if member.remembered > 0 || member.pending > self.done || node == Node::ROOT {
                return;
            }
            // To look through a whole directory takes time: only at the end of its use.
            let used = match &member.content {
                Content::Directory(folder) => folder.in_flight > self.done || !folder.is_idle(),
                Content::File(file) => file.openers > 0 || (file.changed && !member.names.is_empty()),
                _ => false,
            };
            if used {
                return;
            }
            self.forget_object(node);
            let member = self.members.remove(&node).expect("it was just found");
            self.reading.remove(&node);
            self.writing.remove(&node);
            if let Content::Directory(folder) = &member.content {
                self.folders.remove(&node);
                self.forget_rows(node, folder);
            }
            for (directory, name) in &member.names {
                if let Ok(slot) = self.slot(*directory, name) {
                    slot.local = Local::Same;
                }
                self.note_row(*directory, name);
                next = Some(*directory);
            }
        }
    }

    /// A file does not stand for its object any more.
    pub(crate) fn forget_object(&mut self, node: Node) {
        let object = self.members.get(&node).and_then(|member| member.set.first()).map(identity);
        if let Some(key) = object.filter(|key| self.linked.get(key) == Some(&node)) {
            self.linked.remove(&key);
        }
    }

    /// The rows of a directory are not known any more.
    fn forget_rows(&mut self, directory: Node, folder: &Folder) {
        let rows = folder.entries.values().filter_map(|slot| slot.server.as_ref());
        for key in rows.filter(|row| row.attributes.links.is_some()).filter_map(Row::object).map(identity) {
            if let Some(unmet) = self.unmet.get_mut(&key) {
                unmet.retain(|(at, _)| *at != directory);
                if unmet.is_empty() {
                    self.unmet.remove(&key);
                }
            }
        }
    }

    /// A file has an object now: rows that say that it has several names are found by it.
    pub(crate) fn note_object(&mut self, node: Node) {
        let Some(member) = self.members.get(&node) else { return };
        let several = member.names.len() > 1 || member.attributes.links.is_some();
        if let Some(object) = member.set.first().filter(|_| several && member.kind == Kind::File) {
            self.linked.insert(identity(object), node);
        }
    }

    /// What `stat` tells of a node.
    pub(crate) fn attributes(&self, node: Node) -> Result<volume::Attributes, Error> {
        let member = self.member(node)?;
        Ok(member.describe(node))
    }
}

impl Folder {
    fn is_idle(&self) -> bool {
        self.entries.values().all(|slot| slot.local == Local::Same && slot.pending == 0)
    }
}

/// See [`Tree::shown`].
pub(crate) enum Shown {
    Node(Node),
    Row(Box<Row>),
    Nothing,
}

impl Member {
    /// Masks and type capability of its rows.
    pub(crate) fn masks(&self) -> (Masks, Capability) {
        (self.masks, self.row_kind)
    }

    /// What it is to be read from, where that is not the file's server.
    pub(crate) fn size(&self) -> u64 {
        match &self.content {
            Content::File(file) => file.scratch.as_ref().map_or(file.size, |scratch| scratch.size()),
            Content::Directory(folder) => folder.entries.len() as u64,
            Content::Link(text) => text.len() as u64,
            Content::Special => 0,
            Content::Object(text) => text.len() as u64,
        }
    }

    fn permissions(&self) -> u32 {
        let (default, mask) = match &self.content {
            Content::Directory(_) => {
                let modify = self.set.first().is_some_and(|set| set.rights().contains(directory::MODIFY));
                (DIRECTORY_PERMISSIONS, if modify { PERMISSIONS } else { PERMISSIONS & !WRITABLE })
            }
            Content::Object(_) => return OBJECT_PERMISSIONS,
            Content::Link(_) => return 0o777,
            _ => (FILE_PERMISSIONS, PERMISSIONS),
        };
        self.attributes.mode.map_or(default, |mode| mode & PERMISSIONS) & mask
    }

    fn describe(&self, node: Node) -> volume::Attributes {
        let size = self.size();
        let modified = self.attributes.modified.unwrap_or(self.row_time);
        let links = match &self.content {
            // Nobody counts them: that there may be any number is said by 1.
            Content::Directory(_) => u32::from(!self.names.is_empty() || node == Node::ROOT),
            _ if self.names.is_empty() => 0,
            _ => self.attributes.links.unwrap_or(1).max(self.names.len() as u32),
        };
        volume::Attributes {
            node,
            kind: self.kind,
            permissions: self.permissions() as u16,
            links,
            user: self.user,
            group: self.group,
            device: 0,
            size,
            allocated: size.next_multiple_of(512),
            accessed: shown_time(self.attributes.accessed.unwrap_or(modified)),
            modified: shown_time(modified),
            changed: shown_time(self.attributes.changed.unwrap_or(modified)),
        }
    }
}

fn shown_time(time: Time) -> volume::Time {
    volume::Time { seconds: time.seconds, nanoseconds: time.nanoseconds }
}
