//! Servers on disks in memory, and mounts of what they keep.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amoeba_cap::{Capability, ObjectNumber, Rights};
use amoeba_mount::{Accounts, GraphFileSystem, Options};
use amoeba_name::Account;
use amoeba_volume::{Caller, FileSystem, Handle, Node, OpenMode};
use amoeba_world::{Disk, DiskError, World};

/// Whoever does something.
pub(crate) const ME: Caller = Caller { user: 1000, group: 1000, process: 1 };

const THREADS: usize = 4;
const LONG: Duration = Duration::from_secs(60);

/// The servers.
pub(crate) struct System {
    pub(crate) world: World,
    pub(crate) root: Capability,
    pub(crate) bullet: Capability,
}

impl System {
    pub(crate) fn new() -> System {
        let world = amoeba_loopback::world();
        let disk = MemoryDisk::new(64 << 20);
        let made = amoeba_bullet::format(&*disk, &*world.entropy, &Default::default()).unwrap();
        let port = world.transactions.put_port(&made.get_port).unwrap();
        // They serve until the test's process ends.
        std::mem::forget(amoeba_bullet::start(&world, disk, Default::default(), THREADS).unwrap());
        let bullet = made.secret.capability(port, ObjectNumber::SUPER, Rights::ALL, made.super_random);
        let (tables, log) = (MemoryDisk::new(0), MemoryDisk::new(0));
        let format = amoeba_directory::Format { log_size: 4 << 20, ..Default::default() };
        let made = amoeba_directory::format(tables.clone(), &*log, &*world.entropy, 0, &format).unwrap();
        let port = world.transactions.put_port(&made.identity.get_port).unwrap();
        let options = amoeba_directory::Options { cache_size: 1 << 20, ..Default::default() };
        std::mem::forget(amoeba_directory::start(&world, tables, log, options, THREADS).unwrap());
        System { root: made.root_capability(port), bullet, world }
    }
}

struct NoNames;

impl Accounts for NoNames {
    fn own(&self) -> (u32, u32) {
        (ME.user, ME.group)
    }
    fn user_name(&self, _: u32) -> Vec<u8> {
        Vec::new()
    }
    fn group_name(&self, _: u32) -> Vec<u8> {
        Vec::new()
    }
    fn user_number(&self, account: &Account) -> u32 {
        account.number
    }
    fn group_number(&self, account: &Account) -> u32 {
        account.number
    }
}

/// A mount, asked as the kernel would ask it.
pub(crate) struct Scene {
    pub(crate) files: GraphFileSystem,
    folder: Option<PathBuf>,
}

impl Scene {
    pub(crate) fn new(system: &System) -> Scene {
        Scene::of(system, system.root)
    }

    pub(crate) fn of(system: &System, root: Capability) -> Scene {
        Scene::made(system, root, fresh(), Duration::from_millis(20)).0
    }

    /// One that does not look what others have changed.
    pub(crate) fn quiet(system: &System) -> Scene {
        Scene::made(system, system.root, fresh(), LONG).0
    }

    /// One with the folder of another, and what it has redone.
    pub(crate) fn again(system: &System, folder: PathBuf) -> (Scene, Vec<String>) {
        Scene::made(system, system.root, folder, LONG)
    }

    fn made(
        system: &System,
        root: Capability,
        folder: PathBuf,
        look_interval: Duration,
    ) -> (Scene, Vec<String>) {
        let accounts = Arc::new(NoNames);
        let (file_server, show_capabilities) = (system.bullet, false);
        let options =
            Options { root, file_server, folder: folder.clone(), accounts, show_capabilities, look_interval };
        let (files, said) = GraphFileSystem::new(&system.world, options).unwrap();
        (Scene { files, folder: Some(folder) }, said)
    }

    /// Ends it without anything being brought to an end.
    pub(crate) fn kill(mut self) -> PathBuf {
        self.folder.take().expect("it is taken once")
    }

    /// Ends it as it should.
    #[track_caller]
    pub(crate) fn end(mut self) -> PathBuf {
        self.files.end(LONG).unwrap();
        self.folder.take().expect("it is taken once")
    }

    /// The folder as a kill at this moment would leave it.
    pub(crate) fn copy_of_the_folder(&self) -> PathBuf {
        let (from, to) = (self.folder.as_ref().expect("it is taken at the end"), fresh());
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    }

    /// Waits until everything is at the servers.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let opened = self.files.opendir(Node::ROOT).unwrap();
        self.files.fsyncdir(Node::ROOT, opened.handle).unwrap();
        self.files.releasedir(Node::ROOT, opened.handle);
    }

    #[track_caller]
    pub(crate) fn until(&self, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < LONG, "waited in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn find(&self, directory: Node, name: &[u8]) -> Option<Node> {
        self.files.lookup(&ME, directory, name).ok().map(|entry| entry.attributes.node)
    }

    #[track_caller]
    pub(crate) fn mkdir(&self, directory: Node, name: &[u8]) -> Node {
        self.files.mkdir(&ME, directory, name, 0o755).unwrap().attributes.node
    }

    #[track_caller]
    pub(crate) fn create(&self, directory: Node, name: &[u8]) -> (Node, Handle) {
        let mode = OpenMode::READ | OpenMode::WRITE;
        let (entry, opened) = self.files.create(&ME, directory, name, 0o644, mode).unwrap();
        (entry.attributes.node, opened.handle)
    }

    #[track_caller]
    pub(crate) fn open(&self, directory: Node, name: &[u8], mode: OpenMode) -> (Node, Handle) {
        let node = self.find(directory, name).expect("it is there");
        (node, self.files.open(&ME, node, mode).unwrap().handle)
    }

    #[track_caller]
    pub(crate) fn close(&self, node: Node, handle: Handle) {
        self.files.flush(node, handle).unwrap();
        self.files.release(node, handle);
    }

    #[track_caller]
    pub(crate) fn write(&self, directory: Node, name: &[u8], bytes: &[u8]) {
        let (node, handle) = self.create(directory, name);
        for (index, piece) in bytes.chunks(1 << 17).enumerate() {
            self.files.write(node, handle, (index << 17) as u64, piece).unwrap();
        }
        self.close(node, handle);
    }

    #[track_caller]
    pub(crate) fn read(&self, directory: Node, name: &[u8]) -> Vec<u8> {
        let (node, handle) = self.open(directory, name, OpenMode::READ);
        let bytes = self.read_node(node);
        self.close(node, handle);
        self.files.forget(node, 1);
        bytes
    }

    #[track_caller]
    pub(crate) fn read_node(&self, node: Node) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            let mut give = |piece: &[u8]| bytes.extend_from_slice(piece);
            self.files.read(node, Handle(0), before as u64, 1 << 20, &mut give).unwrap();
            if bytes.len() == before {
                return bytes;
            }
        }
    }

    #[track_caller]
    pub(crate) fn names(&self, directory: Node) -> Vec<Vec<u8>> {
        let opened = self.files.opendir(directory).unwrap();
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let before = offset;
            let mut room = 7;
            self.files
                .readdir(directory, opened.handle, before, false, &mut |line| {
                    room -= 1;
                    if room == 0 {
                        return false;
                    }
                    names.push(line.name.to_vec());
                    offset = line.next;
                    true
                })
                .unwrap();
            if offset == before {
                break;
            }
        }
        self.files.releasedir(directory, opened.handle);
        assert_eq!(names[..2], [b".".to_vec(), b"..".to_vec()]);
        names.split_off(2)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let ended = self.files.end(LONG);
        if !std::thread::panicking() {
            ended.unwrap();
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

fn fresh() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("amoeba-mount-{}-{number}", std::process::id()))
}

/// A disk that is as durable as the test needs.
struct MemoryDisk(Mutex<Vec<u8>>);

impl MemoryDisk {
    fn new(size: u64) -> Arc<MemoryDisk> {
        Arc::new(MemoryDisk(Mutex::new(vec![0; size as usize])))
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.0.lock().unwrap().resize(size as usize, 0);
        Ok(())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let bytes = self.0.lock().unwrap();
        let from = bytes.get(offset as usize..).and_then(|bytes| bytes.get(..into.len()));
        into.copy_from_slice(from.ok_or(DiskError::Full)?);
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        let mut bytes = self.0.lock().unwrap();
        let into = bytes.get_mut(offset as usize..).and_then(|bytes| bytes.get_mut(..from.len()));
        into.ok_or(DiskError::Full)?.copy_from_slice(from);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }
}
