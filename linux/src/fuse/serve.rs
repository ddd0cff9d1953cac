//! The requests of the kernel as operations of a file system.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use amoeba_volume::{
    Attributes, Change, Entry, Error, FileSystem, Handle, Kind, NAME_SIZE_MAX, Node, Notifier, Opened,
};
use fuser::{
    AccessFlags, BackgroundSession, BackingId, BsdFileFlags, Config, Errno, FileHandle, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow, WriteFlags,
};

use super::MountOptions;
use super::convert::{self, caller, errno};
use super::crew::{Crew, Turn};
use super::probe::{self, Probe};

/// The most that is read or written in one request.
pub(super) const REQUEST_SIZE_MAX: usize = 1 << 20;
/// Requests under way that nobody waits for, as reading ahead.
const BACKGROUND_MAX: u16 = 64;
/// File systems that may lie below one another, with ours.
const STACK_DEPTH: u32 = 1;

/// Serves `files` to the kernel behind `device`, on threads of its own.
pub(super) fn session(
    device: OwnedFd,
    files: Arc<dyn FileSystem>,
    options: &MountOptions,
    probe: Arc<Probe>,
) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let crew = if files.says_when_it_waits() {
        Some(Arc::new(Crew::new(device.try_clone()?, options.threads.max(1))))
    } else {
        None
    };
    let (files_of, options) = (Arc::clone(&files), options.clone());
    let server = Server { files: files_of, options, backings: Mutex::default(), probe, crew: crew.clone() };
    // The kernel itself keeps strangers out, by what it was mounted with.
    let session = fuser::Session::from_fd(server, device, SessionACL::All, config)?;
    files.mounted(Arc::new(Told { kernel: session.notifier(), crew }));
    session.spawn()
}

/// How the kernel is told.
struct Told {
    kernel: fuser::Notifier,
    crew: Option<Arc<Crew>>,
}

impl Notifier for Told {
    fn name_changed(&self, directory: Node, name: &[u8]) {
        // A kernel that cannot be told has unmounted us, or knows nothing of it.
        drop(self.kernel.inval_entry(INodeNo(directory.0), OsStr::from_bytes(name)));
    }

    fn node_changed(&self, node: Node) {
        drop(self.kernel.inval_inode(INodeNo(node.0), 0, 0));
    }

    fn waits(&self) {
        self.crew.as_ref().inspect(|crew| crew.waits());
    }
}

struct Server {
    files: Arc<dyn FileSystem>,
    options: MountOptions,
    /// Files that the kernel reads and writes by itself, one per open node, and how many opens share it. No more than
    /// there are open files.
    backings: Mutex<BTreeMap<Node, Backing>>,
    probe: Arc<Probe>,
    /// Who waits for requests, where the file system says when its operations wait.
    crew: Option<Arc<Crew>>,
}

struct Backing {
    opens: usize,
    id: Arc<BackingId>,
}

impl Server {
    /// To be held until a request is answered.
    fn turn(&self) -> Option<Turn<'_>> {
        self.crew.as_deref().map(Crew::begin)
    }

    fn backings(&self) -> MutexGuard<'_, BTreeMap<Node, Backing>> {
        self.backings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel is to use in place of `opened`, if it is to use anything and can.
    fn backing(
        &self,
        node: Node,
        opened: &Opened,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let file = opened.backing.as_ref().filter(|_| self.options.backing)?;
        let mut backings = self.backings();
        if let Some(known) = backings.get_mut(&node) {
            known.opens += 1;
            return Some(Arc::clone(&known.id));
        }
        // Only root may; for the others the file system answers.
        let id = Arc::new(register(file).ok()?);
        backings.insert(node, Backing { opens: 1, id: Arc::clone(&id) });
        Some(id)
    }

    fn release_backing(&self, node: Node) {
        let mut backings = self.backings();
        if let Some(backing) = backings.get_mut(&node) {
            backing.opens -= 1;
            if backing.opens == 0 {
                backings.remove(&node);
            }
        }
    }

    fn answer_attributes(&self, found: Result<Attributes, Error>, reply: ReplyAttr) {
        match found {
            Ok(attributes) => reply
                .attr(&self.files.attributes_lifetime(attributes.node), &convert::attributes(&attributes)),
            Err(error) => reply.error(errno(error)),
        }
    }

    /// What one request may write of an extended attribute's bytes.
    fn answer_bytes(found: Result<Vec<u8>, Error>, size: u32, reply: ReplyXattr) {
        match found {
            Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
            Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }
}

fn node(number: INodeNo) -> Node {
    Node(number.0)
}

fn handle(number: FileHandle) -> Handle {
    Handle(number.0)
}

fn answer_entry(found: Result<Entry, Error>, reply: ReplyEntry) {
    match found {
        Ok(entry) => reply.entry_with_ttls(
            &entry.attributes_lifetime,
            &entry.name_lifetime,
            &convert::attributes(&entry.attributes),
            Generation(entry.generation),
        ),
        Err(error) => reply.error(errno(error)),
    }
}

fn answer(done: Result<(), Error>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, kernel: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        if self.options.write_back {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        if self.options.backing {
            wanted |= InitFlags::FUSE_PASSTHROUGH;
        }
        // What an older kernel lacks only makes it slower.
        let known = wanted & kernel.capabilities();
        kernel.add_capabilities(known).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        // Each of these answers with what it took instead.
        let _ = kernel.set_max_write(REQUEST_SIZE_MAX as u32);
        let _ = kernel.set_max_background(BACKGROUND_MAX);
        if known.contains(InitFlags::FUSE_PASSTHROUGH) {
            let _ = kernel.set_max_stack_depth(STACK_DEPTH);
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.turn();
        if self.probe.is(node(parent), name.as_bytes()) {
            return answer_entry(Ok(Probe::entry()), reply);
        }
        match self.files.lookup(&caller(request), node(parent), name.as_bytes()) {
            Err(Error::NotFound) if self.files.absent_lifetime() > Duration::ZERO => {
                let lifetime = self.files.absent_lifetime();
                reply.entry_with_ttls(
                    &lifetime,
                    &lifetime,
                    &convert::untold(Node(0), Kind::File),
                    Generation(0),
                );
            }
            found => answer_entry(found, reply),
        }
    }

    fn forget(&self, _: &Request, of: INodeNo, count: u64) {
        // No turn: it comes with others in one request, is not answered, and waits for nothing.
        if node(of) == probe::NODE {
            return;
        }
        self.files.forget(node(of), count);
    }

    fn getattr(&self, _: &Request, of: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.turn();
        if node(of) == probe::NODE {
            return reply.attr(&Duration::ZERO, &convert::attributes(&Probe::entry().attributes));
        }
        self.answer_attributes(self.files.getattr(node(of)), reply);
    }

    /// Asked only where the kernel checks nothing itself: on root's behalf, who may do all but execute what nobody may.
    fn access(&self, _: &Request, of: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let _turn = self.turn();
        if node(of) == probe::NODE {
            return reply.ok();
        }
        let executed = mask.contains(AccessFlags::X_OK);
        match self.files.getattr(node(of)) {
            Ok(of) if executed && of.kind == Kind::File && of.permissions & 0o111 == 0 => {
                reply.error(Errno::EACCES)
            }
            Ok(_) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        of: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        open: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _turn = self.turn();
        let change = Change {
            permissions: mode.map(convert::permissions),
            user,
            group,
            size,
            accessed: accessed.map(convert::change_time),
            modified: modified.map(convert::change_time),
        };
        self.answer_attributes(self.files.setattr(node(of), open.map(handle), &change), reply);
    }

    fn readlink(&self, _: &Request, of: INodeNo, reply: ReplyData) {
        let _turn = self.turn();
        match self.files.readlink(node(of)) {
            Ok(text) => reply.data(&text),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.turn();
        let made = self.files.mknod(&caller(request), node(parent), name.as_bytes(), mode, device);
        answer_entry(made, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let _turn = self.turn();
        let permissions = convert::permissions(mode);
        answer_entry(self.files.mkdir(&caller(request), node(parent), name.as_bytes(), permissions), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turn();
        answer(self.files.unlink(node(parent), name.as_bytes()), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turn();
        answer(self.files.rmdir(node(parent), name.as_bytes()), reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, text: &Path, reply: ReplyEntry) {
        let _turn = self.turn();
        let text = text.as_os_str().as_bytes();
        answer_entry(self.files.symlink(&caller(request), node(parent), name.as_bytes(), text), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn();
        let Some(how) = convert::rename(flags) else { return reply.error(Errno::EINVAL) };
        let (from, to) = (node(parent), node(new_parent));
        answer(self.files.rename(from, name.as_bytes(), to, new_name.as_bytes(), how), reply);
    }

    fn link(&self, _: &Request, of: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.turn();
        answer_entry(self.files.link(node(of), node(parent), name.as_bytes()), reply);
    }

    fn open(&self, request: &Request, of: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turn();
        if node(of) == probe::NODE {
            return match self.probe.answer() {
                Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
                Err(error) => reply.error(errno(error)),
            };
        }
        self.probe.wait();
        match self.files.open(&caller(request), node(of), convert::open_mode(flags.0)) {
            Ok(opened) => {
                let number = FileHandle(opened.handle.0);
                match self.backing(node(of), &opened, |file| reply.open_backing(file)) {
                    Some(id) => reply.opened_passthrough(number, FopenFlags::empty(), &id),
                    None => reply.opened(number, convert::open_flags(opened.cached)),
                }
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _turn = self.turn();
        self.probe.wait();
        let (permissions, mode) = (convert::permissions(mode), convert::open_mode(flags));
        match self.files.create(&caller(request), node(parent), name.as_bytes(), permissions, mode) {
            Ok((entry, opened)) => {
                let (lifetime, generation) =
                    (entry.name_lifetime.min(entry.attributes_lifetime), Generation(entry.generation));
                let attributes = convert::attributes(&entry.attributes);
                let number = FileHandle(opened.handle.0);
                match self.backing(entry.attributes.node, &opened, |file| reply.open_backing(file)) {
                    Some(id) => reply.created_passthrough(
                        &lifetime,
                        &attributes,
                        generation,
                        number,
                        FopenFlags::empty(),
                        &id,
                    ),
                    None => {
                        let flags = convert::open_flags(opened.cached);
                        reply.created(&lifetime, &attributes, generation, number, flags);
                    }
                }
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        of: INodeNo,
        open: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = self.turn();
        let mut reply = Some(reply);
        let mut give = |bytes: &[u8]| {
            let reply = reply.take().expect("a file system gives bytes once");
            reply.data(bytes);
        };
        let read = self.files.read(node(of), handle(open), offset, size as usize, &mut give);
        match (read, reply) {
            (_, None) => {}
            (Ok(()), Some(reply)) => reply.data(&[]),
            (Err(error), Some(reply)) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        of: INodeNo,
        open: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _turn = self.turn();
        match self.files.write(node(of), handle(open), offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, of: INodeNo, open: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let _turn = self.turn();
        if node(of) == probe::NODE {
            return answer(self.probe.answer(), reply);
        }
        answer(self.files.flush(node(of), handle(open)), reply);
    }

    fn release(
        &self,
        _: &Request,
        of: INodeNo,
        open: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn();
        if node(of) == probe::NODE {
            return reply.ok();
        }
        self.release_backing(node(of));
        self.files.release(node(of), handle(open));
        reply.ok();
    }

    fn fsync(&self, _: &Request, of: INodeNo, open: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let _turn = self.turn();
        answer(self.files.fsync(node(of), handle(open), data_only), reply);
    }

    fn opendir(&self, _: &Request, of: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turn();
        match self.files.opendir(node(of)) {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), convert::open_flags(opened.cached)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(&self, _: &Request, of: INodeNo, open: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _turn = self.turn();
        let listed = self.files.readdir(node(of), handle(open), offset, false, &mut |line| {
            let (number, kind) = (INodeNo(line.node.0), convert::file_type(line.kind));
            !reply.add(number, line.next, kind, OsStr::from_bytes(line.name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        of: INodeNo,
        open: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.turn();
        let listed = self.files.readdir(node(of), handle(open), offset, true, &mut |line| {
            // `.` and `..` are no lookups: the kernel takes number 0 for "not told".
            let (number, lifetime, attributes, generation) = match line.entry {
                Some(entry) => {
                    let lifetime = entry.name_lifetime.min(entry.attributes_lifetime);
                    (line.node.0, lifetime, convert::attributes(&entry.attributes), entry.generation)
                }
                None => (0, Duration::ZERO, convert::untold(line.node, line.kind), 0),
            };
            let number = INodeNo(number);
            let name = OsStr::from_bytes(line.name);
            !reply.add(number, line.next, name, &lifetime, &attributes, Generation(generation))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn releasedir(&self, _: &Request, of: INodeNo, open: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        let _turn = self.turn();
        self.files.releasedir(node(of), handle(open));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, of: INodeNo, open: FileHandle, _: bool, reply: ReplyEmpty) {
        let _turn = self.turn();
        answer(self.files.fsyncdir(node(of), handle(open)), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let _turn = self.turn();
        match self.files.statfs() {
            Ok(space) => {
                let (free, block, name_max) = (space.blocks_free, space.block_size, NAME_SIZE_MAX as u32);
                reply.statfs(space.blocks, free, free, space.nodes, space.nodes_free, block, name_max, block);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        of: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn();
        let how = convert::set_attribute(flags);
        let set = |name| self.files.setxattr(node(of), name, value, how);
        answer(convert::attribute_name(name).and_then(set), reply);
    }

    fn getxattr(&self, _: &Request, of: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = self.turn();
        let value = convert::attribute_name(name).and_then(|name| self.files.getxattr(node(of), name));
        Server::answer_bytes(value, size, reply);
    }

    fn listxattr(&self, _: &Request, of: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.turn();
        let names = self.files.listxattr(node(of));
        let list =
            |names: Vec<Vec<u8>>| names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect();
        Server::answer_bytes(names.map(list), size, reply);
    }

    fn removexattr(&self, _: &Request, of: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turn();
        answer(self.files.removexattr(node(of), name.as_bytes()), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        of: INodeNo,
        open: FileHandle,
        offset: u64,
        size: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn();
        let how = convert::allocation(mode).ok_or(Error::NotSupported);
        answer(how.and_then(|how| self.files.fallocate(node(of), handle(open), offset, size, how)), reply);
    }

    fn lseek(&self, _: &Request, of: INodeNo, open: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let _turn = self.turn();
        let Some(what) = convert::seek(whence) else { return reply.error(Errno::EINVAL) };
        let from = u64::try_from(offset).map_err(|_| Error::NothingThere);
        match from.and_then(|from| self.files.lseek(node(of), handle(open), from, what)) {
            Ok(found) => reply.offset(found as i64),
            Err(error) => reply.error(errno(error)),
        }
    }
}
