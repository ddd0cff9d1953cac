//! Brings updates to the servers: the files first, then the rows of a batch in one step.
//!
//! A batch is a number of updates from the head of the queue, so that at every moment the servers have what the mount
//! had at some earlier one: nothing is seen before what was done earlier. Of several changes of a row in a batch only the
//! last is made. How its files are made is said in [`files`](crate::files), and how a batch is gathered in [`batches`](crate::batches).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::Attributes;
use amoeba_stubs::directory::{self, INSTALL_MAX, InstallRow};
use amoeba_volume::{Error, Node};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;

use crate::queue::{Change, Object, Target, Update, Version};
use crate::rows::{self, Row, error_of};
use crate::scratch::Scratch;
use crate::tree::{Content, Local, Tree};
use crate::{Shared, text};

/// How long the committer waits for a server that does not answer, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often rows that others change at the same time are tried.
const CLASHES_MAX: usize = 50;

/// Rows of a batch, as they are to be after it.
pub(crate) type Rows = BTreeMap<(Node, Vec<u8>), Option<Target>>;

/// Why a batch was not brought to the servers.
pub(crate) enum Stopped {
    /// A server does not answer, or is not able to now.
    Later(Refusal),
    /// Somebody else has changed one of the rows, or may have.
    Clash,
    /// A server will not do it.
    Never(Refusal),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Stopped {
        match refusal {
            Refusal::NotSent(Status::STD_ARGBAD) => Stopped::Never(refusal),
            Refusal::NotSent(_) | Refusal::Refused(Status::STD_NOTNOW) => Stopped::Later(refusal),
            Refusal::MaybeExecuted(_) | Refusal::Refused(Status::SP_CLASH) => Stopped::Clash,
            refusal => Stopped::Never(refusal),
        }
    }
}

/// Installs batches until the mount ends.
pub(crate) fn run(shared: &Arc<Shared>) {
    while let Some(batch) = shared.next_batch() {
        shared.bring(batch);
    }
}

impl Shared {
    /// Brings a batch to the servers, or gives up what they refuse.
    fn bring(&self, batch: Vec<Update>) {
        let mut pause = PAUSE_FIRST;
        let mut clashes = 0;
        loop {
            let mut rows = net(&batch);
            self.move_away(&mut rows);
            let start = self.world.threads.now();
            match self.try_bring(&rows, &batch) {
                Ok(()) => {
                    let took = self.world.threads.now().since(start);
                    tracing::debug!("{} updates of {} rows took {took:?}", batch.len(), rows.len());
                    return self.finish(&batch, &rows);
                }
                Err(Stopped::Later(refusal)) => {
                    if pause == PAUSE_FIRST {
                        tracing::warn!("updates wait: {refusal}");
                    }
                    if self.gives_up() {
                        return self.give_up(&batch, refusal);
                    }
                    self.world.threads.sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(Stopped::Clash) if clashes < CLASHES_MAX => {
                    clashes += 1;
                    self.look_again(&rows);
                }
                Err(Stopped::Clash) => {
                    return self.give_up(&batch, Refusal::Refused(Status::SP_CLASH));
                }
                Err(Stopped::Never(refusal)) if batch.len() == 1 => return self.give_up(&batch, refusal),
                Err(Stopped::Never(_)) => {
                    // One of them cannot be done; the others can.
                    return batch.into_iter().for_each(|update| self.bring(vec![update]));
                }
            }
        }
    }

    fn try_bring(&self, rows: &Rows, batch: &[Update]) -> Result<(), Stopped> {
        self.make_files(rows)?;
        self.note_coming(rows);
        let mut install = self.installation(rows);
        self.add_times(&self.tree.lock(), rows, &mut install);
        let Some(service) = install.first().map(|(service, _)| *service) else {
            self.discard(batch);
            return Ok(());
        };
        let rows: Vec<InstallRow> = install.drain(..).map(|(_, row)| row).collect();
        directory::install(self.client(), &service, &rows)?;
        self.discard(batch);
        Ok(())
    }

    /// What was made under a name that was to be free, and that somebody else was first to take, gets another.
    fn move_away(&self, rows: &mut Rows) {
        let exclusive = |target: &Option<Target>| target.as_ref().is_some_and(|target| target.exclusive);
        if !rows.values().any(exclusive) {
            return;
        }
        let mut moved = Vec::new();
        let mut tree = self.tree.lock();
        let keys: Vec<_> =
            rows.iter().filter(|(_, target)| exclusive(target)).map(|(key, _)| key.clone()).collect();
        for (directory, name) in keys {
            let key = (directory, name);
            let target = rows.get(&key).cloned().flatten().expect("it was just seen to be exclusive");
            let taken = tree.slot(directory, &key.1).ok().and_then(|slot| slot.server.clone());
            // Once it is there, it is ours to change.
            let first = tree.file(target.node).is_ok_and(|file| file.exclusive);
            if !first || taken.is_none_or(|row| row.says_the_same(&row_of(&target))) {
                continue;
            }
            let other = self.other_name(&key.1);
            tracing::warn!("{} was made elsewhere first: ours is {} now", text(&key.1), text(&other));
            if let Ok(node) = tree.unname(directory, &key.1)
                && tree.name(directory, &other, node).is_ok()
                && let Ok(slot) = tree.slot(directory, &key.1)
            {
                (slot.local, slot.pending) = (Local::Same, 0);
            }
            rows.remove(&key);
            rows.insert((directory, other), Some(Target { exclusive: false, ..target }));
            moved.push(key);
        }
        drop(tree);
        for (directory, name) in moved {
            self.tell_name(directory, &name);
        }
    }

    /// The rows to install, those left out that are as they are to be.
    fn installation(&self, rows: &Rows) -> Vec<(Capability, InstallRow)> {
        let known: Vec<(Option<Capability>, Option<Row>)> = {
            let tree = self.tree.lock();
            let known = |(directory, name): &(Node, Vec<u8>)| {
                let Ok(member) = tree.member(*directory) else { return (None, None) };
                let slot = tree.folder(*directory).ok().and_then(|folder| folder.entries.get(name));
                (member.set.first().copied(), slot.and_then(|slot| slot.server.clone()))
            };
            rows.keys().map(known).collect()
        };
        let mut install = Vec::new();
        // Without the lock, which programs wait for.
        for (((_, name), target), (service, server)) in rows.iter().zip(known) {
            let Some(service) = service else { continue };
            let target = target.as_ref().map(|target| (target, row_of(target)));
            let same = match (&server, &target) {
                (None, None) => true,
                (Some(server), Some((_, row))) => server.says_the_same(row),
                _ => false,
            };
            if same {
                continue;
            }
            let old = server.as_ref().and_then(|row| row.object().copied()).unwrap_or(Capability::NULL);
            install.push((service, install_row(&service, name.clone(), target.map(|(_, row)| row), old)));
        }
        install
    }

    /// A directory's row says when something was made in it; it is told with what was made.
    fn add_times(&self, tree: &Tree, rows: &Rows, install: &mut Vec<(Capability, InstallRow)>) {
        let directories: std::collections::BTreeSet<Node> = rows.keys().map(|(node, _)| *node).collect();
        let Some(port) = install.first().map(|(service, _)| service.port) else { return };
        for node in directories {
            if install.len() == INSTALL_MAX {
                return;
            }
            let Ok(member) = tree.member(node) else { continue };
            let [(parent, name)] = &member.names[..] else { continue };
            if rows.contains_key(&(*parent, name.clone())) {
                continue;
            }
            let Ok(service) = tree.writable(*parent) else { continue };
            let server =
                tree.folder(*parent).ok().and_then(|folder| folder.entries.get(name)?.server.clone());
            let Some(server) = server.filter(|server| server.set == member.set && service.port == port)
            else {
                continue;
            };
            let row = Row { attributes: member.attributes.clone(), ..server };
            let old = row.object().copied().unwrap_or(Capability::NULL);
            install.push((service, install_row(&service, name.clone(), Some(row), old)));
        }
    }

    /// Deletes directories whose name is gone. One into which somebody else has put something gets a name again.
    fn discard(&self, batch: &[Update]) {
        for update in batch {
            for removed in &update.removed {
                match directory::discard(self.client(), removed) {
                    Err(Refusal::Refused(Status::SP_NOTEMPTY)) => self.name_again(update, removed),
                    Err(error) => tracing::debug!("a directory without a name: {error}"),
                    Ok(()) => {}
                }
            }
        }
    }

    fn name_again(&self, update: &Update, removed: &Capability) {
        let Some(change) = update.changes.first() else { return };
        let parent = {
            let tree = self.tree.lock();
            tree.member(change.directory).ok().and_then(|member| member.set.first().copied())
        };
        let name = self.other_name(&change.name);
        let set = CapabilitySet::singleton(*removed);
        let masks = crate::tree::DIRECTORY_MASKS;
        let Some(parent) = parent else { return };
        match directory::append(self.client(), &parent, &name, &set, &masks, &[]) {
            Ok(()) => tracing::warn!(
                "{} was removed while another made something in it: it is {} now",
                text(&change.name),
                text(&name)
            ),
            Err(error) => tracing::error!("{} was removed and is not empty: {error}", text(&change.name)),
        }
    }

    /// A name that nobody has, for what would otherwise replace something.
    pub(crate) fn other_name(&self, name: &[u8]) -> Vec<u8> {
        let now = self.world.clock.unix_time();
        let end = format!(".conflict-{:x}", now.as_micros());
        let kept = name.len().min(amoeba_volume::NAME_SIZE_MAX - end.len());
        [&name[..kept], end.as_bytes()].concat()
    }

    /// Asks the server how rows are now.
    fn look_again(&self, rows: &Rows) {
        for (directory, name) in rows.keys() {
            let capability = {
                let tree = self.tree.lock();
                tree.member(*directory).ok().and_then(|member| member.set.first().copied())
            };
            let Some(capability) = capability else { continue };
            // What cannot be seen now is seen at the next clash.
            let Ok(row) = rows::row(self.client(), &capability, name) else { continue };
            if let Ok(slot) = self.tree.lock().slot(*directory, name) {
                slot.server = row;
            }
        }
    }

    /// A batch is at the servers.
    fn finish(&self, batch: &[Update], rows: &Rows) {
        let last = batch.last().map_or(0, |update| update.number);
        let fresh: Vec<Option<Row>> = rows.values().map(|target| target.as_ref().map(row_of)).collect();
        let mut tree = self.tree.lock();
        for (((directory, name), _), fresh) in rows.iter().zip(fresh) {
            if let Ok(slot) = tree.slot(*directory, name) {
                slot.server = fresh;
                if slot.pending <= last {
                    slot.pending = 0;
                    // Not before: what was made under the name and taken away again may still be on its way there.
                    if slot.local == Local::Absent && slot.server.is_none() {
                        slot.local = Local::Same;
                    }
                }
            }
            if let Ok(folder) = tree.folder_mut(*directory) {
                folder.commits += 1;
            }
        }
        for target in rows.values().flatten() {
            settle(&mut tree, target);
            if let Ok(file) = tree.file_mut(target.node) {
                file.exclusive = false;
            }
        }
        drop(tree);
        let noted = batch.iter().flat_map(scratches).filter(|(_, scratch)| scratch.has_note());
        for (node, scratch) in noted {
            self.forget_committed(node, &scratch);
        }
        for target in rows.values().flatten() {
            // What was synced since is to replace what has just been committed.
            self.note_again(target.node);
        }
        self.say_done(batch, last);
    }

    /// Whoever waits for a batch can go on: it is at the servers, and the journal knows that.
    fn say_done(&self, batch: &[Update], last: u64) {
        let mut tree = self.tree.lock();
        tree.done = tree.done.max(last);
        tree.queue_bytes -= batch.iter().map(|update| update.bytes).sum::<u64>();
        let changes = batch.iter().flat_map(|update| &update.changes);
        for change in changes {
            if let Some(target) = &change.to {
                tree.drop_if_idle(target.node);
            }
            tree.drop_if_idle(change.directory);
        }
        drop(tree);
        self.progress.notify_all();
    }

    /// The servers will not make an update: the mount shows what they have, and keeps what was written.
    fn give_up(&self, batch: &[Update], refusal: Refusal) {
        let error = error_of(refusal);
        let mut changed = Vec::new();
        let mut tree = self.tree.lock();
        for update in batch {
            for change in &update.changes {
                tracing::error!("{} cannot be committed: {refusal}", text(&change.name));
                self.refused.fetch_add(1, Ordering::Relaxed);
                changed.extend(self.revert(&mut tree, update.number, change, error));
            }
            tree.done = tree.done.max(update.number);
            tree.queue_bytes -= update.bytes;
        }
        drop(tree);
        self.progress.notify_all();
        for (directory, name) in changed {
            self.tell_name(directory, &name);
        }
    }

    fn revert(&self, tree: &mut Tree, number: u64, change: &Change, error: Error) -> Option<(Node, Vec<u8>)> {
        if let Ok(folder) = tree.folder_mut(change.directory) {
            folder.commits += 1;
        }
        if let Some(target) = &change.to {
            if let Object::Version(version) = &target.object {
                self.journal.lose(&version.scratch, &change.name);
            }
            if let Ok(member) = tree.member_mut(target.node) {
                member.version = None;
            }
            if let Ok(file) = tree.file_mut(target.node) {
                file.failure = Some(error);
            }
        }
        let slot = tree.slot(change.directory, &change.name).ok()?;
        if slot.pending > number {
            return None; // something newer waits
        }
        slot.pending = 0;
        match slot.local {
            Local::Node(node) => {
                // Whoever has it open goes on with it, without a name.
                tree.unname(change.directory, &change.name).ok()?;
                tree.slot(change.directory, &change.name).ok()?.local = Local::Same;
                tree.drop_if_idle(node);
            }
            _ => slot.local = Local::Same,
        }
        Some((change.directory, change.name.clone()))
    }
}

/// An error of a server of files, of which nothing is known to be there yet.
pub(crate) fn again(refusal: Refusal) -> Stopped {
    match Stopped::from(refusal) {
        Stopped::Clash => Stopped::Later(refusal),
        stopped => stopped,
    }
}

/// The last change of each row.
fn net(batch: &[Update]) -> Rows {
    let mut rows = Rows::new();
    for change in batch.iter().flat_map(|update| &update.changes) {
        rows.insert((change.directory, change.name.clone()), change.to.clone());
    }
    rows
}

/// The row that a target says, once its file is made.
fn row_of(target: &Target) -> Row {
    let (set, attributes) = match &target.object {
        Object::Set(set) => (set.clone(), target.attributes.clone()),
        Object::Version(version) => match version.made() {
            Some(made) => {
                let content = Some(made.content);
                (made.file.into(), Attributes { content, ..target.attributes.clone() })
            }
            None => (CapabilitySet::default(), target.attributes.clone()),
        },
    };
    Row { set, kind: target.kind, masks: target.masks, attributes, time: 0 }
}

fn install_row(directory: &Capability, name: Vec<u8>, row: Option<Row>, old: Capability) -> InstallRow {
    let (set, masks, kind, attributes) = match row {
        Some(row) => (row.set, row.masks, row.kind, row.attributes),
        None => (CapabilitySet::default(), [0; 4], Capability::NULL, Attributes::default()),
    };
    // What has no room was refused when it was set.
    let attributes = attributes.to_bytes().unwrap_or_default();
    InstallRow { directory: directory.private, name, set, old, keep: false, masks, kind, attributes }
}

/// The file of a version is committed: what was written for it is not needed any more.
fn settle(tree: &mut Tree, target: &Target) {
    let Object::Version(version) = &target.object else { return };
    let Some(made) = version.made() else { return };
    let is_current = |current: &Arc<Version>| Arc::ptr_eq(current, version);
    if !tree.member(target.node).is_ok_and(|member| member.version.as_ref().is_some_and(is_current)) {
        return;
    }
    tree.forget_object(target.node);
    let Ok(member) = tree.member_mut(target.node) else { return };
    (member.set, member.version) = (made.file.into(), None);
    member.attributes.content = Some(made.content);
    if let Content::File(file) = &mut member.content {
        (file.size, file.opened) = (made.content.size, None);
        if file.writers == 0 && !file.changed {
            file.scratch = None;
        }
    }
    tree.note_object(target.node);
}

/// What the files of an update were made of.
fn scratches(update: &Update) -> impl Iterator<Item = (Node, Arc<Scratch>)> {
    update.changes.iter().filter_map(|change| match change.to.as_ref()? {
        Target { node, object: Object::Version(version), .. } => Some((*node, Arc::clone(&version.scratch))),
        _ => None,
    })
}
