//! What programs see of a file system of ours, through a real mount. Skipped, and said so, where nothing can be mounted.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use amoeba_linux::fuse::{Mount, MountError, MountOptions, connection, place};
use amoeba_volume::MemoryFileSystem;
use rustix::fs::{Access, FallocateFlags, FlockOperation, RenameFlags, XattrFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Where [`serve_until_killed`] mounts.
const PLACE: &str = "AMOEBA_TEST_MOUNT";
const SIZE_MAX: u64 = 256 << 20;
const LONG: Duration = Duration::from_secs(30);

/// A mount of an empty file system, for one test.
struct Scene {
    mount: Option<Mount>,
    directory: PathBuf,
}

impl Scene {
    fn with(name: &str, change: impl FnOnce(&mut MountOptions)) -> Option<Scene> {
        let directory = directory(name);
        let files = Arc::new(MemoryFileSystem::new(amoeba_linux::clock(), SIZE_MAX));
        let mut options = MountOptions::new("test");
        change(&mut options);
        match Mount::new(files, &directory, &options) {
            Ok(mount) => Some(Scene { mount: Some(mount), directory }),
            Err(error) => skip(&error),
        }
    }

    fn new(name: &str) -> Option<Scene> {
        Scene::with(name, |_| {})
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mount) = self.mount.take() {
            mount.unmount(LONG).unwrap();
        }
        fs::remove_dir(&self.directory).unwrap();
    }
}

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("amoeba-fuse-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Only the lack of FUSE on this host is a reason to skip.
fn skip<T>(error: &MountError) -> Option<T> {
    let lacking = !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root();
    assert!(lacking, "{error:?}");
    eprintln!("SKIPPED: nothing can be mounted here: {error}");
    None
}

#[test]
fn files_are_written_and_read() {
    let Some(scene) = Scene::new("files") else { return };
    let path = scene.at("a");
    fs::write(&path, b"hello").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"J", 0).unwrap();
    file.set_len(3).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"Jel");
    file.set_len(6).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"Jel\0\0\0");
    fs::write(&path, b"").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(
        OpenOptions::new().write(true).create_new(true).open(&path).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(File::open(scene.at("b")).unwrap_err().kind(), ErrorKind::NotFound);
    // A name that was looked for in vain is found as soon as it is there.
    fs::write(scene.at("b"), b"x").unwrap();
    assert_eq!(fs::read(scene.at("b")).unwrap(), b"x");
}

#[test]
fn large_files_are_whole() {
    let Some(scene) = Scene::new("large") else { return };
    let bytes: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(scene.at("a"), &bytes).unwrap();
    assert!(fs::read(scene.at("a")).unwrap() == bytes);
    let mut file = File::open(scene.at("a")).unwrap();
    file.seek(SeekFrom::Start(12_345_678)).unwrap();
    let mut part = vec![0; 100_000];
    file.read_exact(&mut part).unwrap();
    assert!(part == bytes[12_345_678..][..100_000]);
}

#[test]
fn names_are_replaced_and_linked() {
    let Some(scene) = Scene::new("names") else { return };
    fs::write(scene.at("old"), b"old").unwrap();
    fs::write(scene.at("new"), b"new").unwrap();
    let open = File::open(scene.at("old")).unwrap();
    fs::rename(scene.at("new"), scene.at("old")).unwrap();
    assert_eq!(fs::read(scene.at("old")).unwrap(), b"new");
    let mut kept = String::new();
    (&open).read_to_string(&mut kept).unwrap();
    assert_eq!((kept.as_str(), open.metadata().unwrap().nlink()), ("old", 0));

    fs::hard_link(scene.at("old"), scene.at("link")).unwrap();
    let (one, other) = (fs::metadata(scene.at("old")).unwrap(), fs::metadata(scene.at("link")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
    symlink("old", scene.at("symbolic")).unwrap();
    assert_eq!(fs::read_link(scene.at("symbolic")).unwrap(), Path::new("old"));
    assert_eq!(fs::read(scene.at("symbolic")).unwrap(), b"new");

    fs::create_dir(scene.at("d")).unwrap();
    fs::rename(scene.at("old"), scene.at("d/old")).unwrap();
    assert_eq!(fs::remove_dir(scene.at("d")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    let exchange = |flags| {
        let here = rustix::fs::CWD;
        rustix::fs::renameat_with(here, scene.at("d/old"), here, scene.at("link"), flags)
    };
    assert_eq!(exchange(RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    exchange(RenameFlags::EXCHANGE).unwrap();
}

#[test]
fn an_unlinked_file_can_be_used() {
    let Some(scene) = Scene::new("unlinked") else { return };
    let path = scene.at("a");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"one", 0).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all_at(b"two", 3).unwrap();
    let mut bytes = [0; 6];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"onetwo");
}

#[test]
fn attributes_are_kept() {
    let Some(scene) = Scene::new("attributes") else { return };
    let path = scene.at("a");
    fs::write(&path, b"x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o751)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.modified().unwrap()), (0o751, time));
    assert_eq!(metadata.accessed().unwrap(), time);

    rustix::fs::setxattr(&path, "user.colour", b"red", XattrFlags::CREATE).unwrap();
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&path, "user.colour", &mut value), Ok(3));
    let mut list = [0; 64];
    let size = rustix::fs::listxattr(&path, &mut list).unwrap();
    assert_eq!(&list[..size], b"user.colour\0");
    assert_eq!(rustix::fs::getxattr(&path, "user.taste", &mut value), Err(rustix::io::Errno::NODATA));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    file.write_all_at(b"y", 0).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755, "a written program has no privileges");
    let space = rustix::fs::statvfs(&path).unwrap();
    assert_eq!(space.f_blocks * space.f_frsize, SIZE_MAX);
}

/// Also between two seconds before 1970, where the kernel and the standard library round to different sides.
#[test]
fn times_come_back() {
    let Some(scene) = Scene::new("times") else { return };
    let path = scene.at("a");
    let file = File::create_new(&path).unwrap();
    for (seconds, nanoseconds) in [(0, 0), (1, 1), (-1, 0), (-1, 999_999_999), (-77, 5), (1 << 33, 7)] {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let both = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &both).unwrap();
        // What the kernel has kept, and what the file system says.
        for _ in 0..2 {
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, nanoseconds));
            assert_eq!((metadata.atime(), metadata.atime_nsec()), (seconds, nanoseconds));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// `cp -a` sets a list of access control in place of a mode, and would lose the mode if that were kept as any attribute.
#[test]
fn access_control_lists_are_refused() {
    let Some(scene) = Scene::new("lists") else { return };
    let path = scene.at("a");
    fs::write(&path, b"x").unwrap();
    // Version 2; owner rw-, group r--, others r--.
    let list = [
        2_u8, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255,
        255, 255,
    ];
    let name = "system.posix_acl_access";
    assert_eq!(
        rustix::fs::setxattr(&path, name, &list, XattrFlags::empty()),
        Err(rustix::io::Errno::OPNOTSUPP)
    );
    assert_eq!(rustix::fs::getxattr(&path, name, &mut [0; 64]), Err(rustix::io::Errno::OPNOTSUPP));
}

#[test]
fn holes_and_room() {
    let Some(scene) = Scene::new("holes") else { return };
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(scene.at("a")).unwrap();
    file.write_all_at(b"far", 8 << 20).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(8 << 20));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(0));
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 10 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10 << 20);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 8 << 20, 1 << 20).unwrap();
    let mut bytes = [9; 3];
    file.read_exact_at(&mut bytes, 8 << 20).unwrap();
    assert_eq!(bytes, [0; 3]);
    assert_eq!(file.metadata().unwrap().blocks(), 0);
}

#[test]
fn a_directory_of_many_is_listed_once_each() {
    let Some(scene) = Scene::new("many") else { return };
    const MANY: usize = 20_000;
    for index in 0..MANY {
        File::create_new(scene.at(&format!("file {index}"))).unwrap();
    }
    let list =
        || fs::read_dir(&scene.directory).unwrap().map(|line| line.unwrap().file_name()).collect::<Vec<_>>();
    let first = list();
    assert_eq!(first.len(), MANY);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), MANY);
    // With what each is, as `ls -l` asks.
    assert!(fs::read_dir(&scene.directory).unwrap().all(|line| line.unwrap().metadata().unwrap().is_file()));
    for line in fs::read_dir(&scene.directory).unwrap() {
        fs::remove_file(line.unwrap().path()).unwrap();
    }
    assert_eq!(list().len(), 0);
}

#[test]
fn appends_of_many_do_not_mix() {
    let Some(scene) = Scene::new("appends") else { return };
    let path = scene.at("log");
    std::thread::scope(|scope| {
        for who in 0..4_u8 {
            let path = &path;
            scope.spawn(move || {
                let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
                for _ in 0..500 {
                    file.write_all(&[b'a' + who; 100]).unwrap();
                }
            });
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 4 * 500 * 100);
    assert!(bytes.chunks(100).all(|line| line.iter().all(|byte| *byte == line[0])));
}

#[test]
fn locks_hold_within_the_mount() {
    let Some(scene) = Scene::new("locks") else { return };
    let (one, other) = (File::create(scene.at("a")).unwrap(), File::open(scene.at("a")).unwrap());
    rustix::fs::flock(&one, FlockOperation::LockExclusive).unwrap();
    let take = || rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(take(), Err(rustix::io::Errno::WOULDBLOCK));
    drop(one);
    take().unwrap();
    let posix = OpenOptions::new().write(true).open(scene.at("a")).unwrap();
    rustix::fs::fcntl_lock(&posix, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn a_mapping_is_the_file() {
    for write_back in [false, true] {
        let Some(scene) = Scene::with("mapping", |options| options.write_back = write_back) else { return };
        let path = scene.at("a");
        fs::write(&path, vec![b'.'; 8192]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        // SAFETY: a mapping where the kernel likes it, of a file that keeps its size while it is there.
        let map = unsafe {
            let both = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), 8192, both, MapFlags::SHARED, &file, 0).unwrap()
        };
        // SAFETY: within the mapping of 8192 bytes, which only this thread touches.
        unsafe { map.cast::<u8>().add(5000).write_volatile(b'm') };
        assert_eq!(fs::read(&path).unwrap()[5000], b'm');
        file.write_all_at(b"w", 10).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { map.cast::<u8>().add(10).read_volatile() }, b'w');
        // SAFETY: exactly what was mapped, and not used any more.
        unsafe { rustix::mm::munmap(map, 8192).unwrap() };
    }
}

#[test]
fn written_back_files_are_whole() {
    let Some(scene) = Scene::with("back", |options| options.write_back = true) else { return };
    let path = scene.at("a");
    let mut file = File::create(&path).unwrap();
    for index in 0..100_000_u32 {
        file.write_all(&index.to_le_bytes()).unwrap();
    }
    drop(file);
    let expected: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    assert!(fs::read(&path).unwrap() == expected);
    assert_eq!(fs::metadata(&path).unwrap().len(), 400_000);
}

#[test]
fn pipes_and_sockets_have_names() {
    let Some(scene) = Scene::new("pipes") else { return };
    let listener = std::os::unix::net::UnixListener::bind(scene.at("socket")).unwrap();
    assert!(fs::metadata(scene.at("socket")).unwrap().file_type().is_socket());
    let caller = std::os::unix::net::UnixStream::connect(scene.at("socket")).unwrap();
    drop((caller, listener));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, scene.at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(fs::metadata(scene.at("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn nothing_changes_on_a_mount_to_read() {
    let Some(scene) = Scene::with("read", |options| options.read_only = true) else { return };
    assert_eq!(fs::write(scene.at("a"), b"x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn without_opens_files_are_what_they_are_with_them() {
    let Some(scene) = Scene::with("without-opens", |options| options.without_opens = true) else { return };
    let path = scene.at("a");
    fs::write(&path, b"first").unwrap();
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b" and more").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first and more");
    fs::write(&path, b"cut").unwrap();
    log.write_all(b"!").unwrap();
    fs::rename(&path, scene.at("b")).unwrap();
    let reader = File::open(scene.at("b")).unwrap();
    fs::remove_file(scene.at("b")).unwrap();
    log.write_all(b"!").unwrap();
    let mut bytes = [0; 5];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"cut!!");
    let names: Vec<_> = fs::read_dir(&scene.directory).unwrap().collect();
    assert!(names.is_empty(), "what the mount began with is gone: {names:?}");
    drop((log, reader));
}

/// Whoever mounts: as root, the kernel asks us.
#[test]
fn nobody_executes_what_nobody_may_execute() {
    let Some(scene) = Scene::new("access") else { return };
    let (program, closed) = (scene.at("program"), scene.at("closed"));
    for (path, mode) in [(&program, 0o644), (&closed, 0o400)] {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let may = |path: &Path, access| rustix::fs::access(path, access);
    assert_eq!(may(&program, Access::EXEC_OK), Err(rustix::io::Errno::ACCESS));
    assert_eq!(Command::new(&program).spawn().unwrap_err().kind(), ErrorKind::PermissionDenied);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(may(&program, Access::EXEC_OK | Access::READ_OK), Ok(()));
    assert_eq!(may(&scene.directory, Access::EXEC_OK | Access::WRITE_OK), Ok(()));
    assert_eq!(may(&scene.at("none"), Access::EXISTS), Err(rustix::io::Errno::NOENT));
    // What a mode forbids, root may.
    let forbidden =
        if rustix::process::geteuid().is_root() { Ok(()) } else { Err(rustix::io::Errno::ACCESS) };
    assert_eq!(may(&closed, Access::WRITE_OK), forbidden);
}

#[test]
fn who_is_at_it_goes_on_after_an_unmount() {
    let Some(mut scene) = Scene::new("busy") else { return };
    let file = File::create_new(scene.at("a")).unwrap();
    let mount = scene.mount.take().unwrap();
    assert!(!mount.unmount(Duration::from_millis(50)).unwrap());
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(fs::read_dir(&scene.directory).unwrap().count(), 0, "what is under the mount is seen again");
}

/// The other process of the tests below.
#[test]
#[ignore = "started by the tests of a server that is killed"]
fn serve_until_killed() {
    let (directory, mount) = mounted_in_place();
    fs::write(directory.join("ready"), b"").unwrap();
    mount.ended(LONG).unwrap();
}

/// What such a process serves, and where it was told to.
fn mounted_in_place() -> (PathBuf, Mount) {
    let directory = PathBuf::from(std::env::var_os(PLACE).expect("where to mount"));
    let files = Arc::new(MemoryFileSystem::new(amoeba_linux::clock(), SIZE_MAX));
    let mount = Mount::new(files, &directory, &MountOptions::new("killed")).unwrap();
    (directory, mount)
}

fn server(directory: &Path, test: &str) -> Option<Child> {
    // Here it is found out whether anything can be mounted at all.
    drop(Scene::new("probe")?);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let child = command.args(["--exact", test, "--ignored"]).env(PLACE, directory).spawn().unwrap();
    while !directory.join("ready").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(child)
}

#[test]
fn a_killed_server_leaves_errors_and_a_place_to_mount_again() {
    let directory = directory("killed");
    let Some(mut child) = server(&directory, "serve_until_killed") else { return };
    let file = File::create_new(directory.join("a")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let not_connected = Some(rustix::io::Errno::NOTCONN.raw_os_error());
    assert_eq!(file.write_all_at(b"x", 0).unwrap_err().raw_os_error(), not_connected);
    assert_eq!(fs::read_dir(&directory).unwrap_err().raw_os_error(), not_connected);
    drop(file);
    // A new mount clears the dead one away.
    let files = Arc::new(MemoryFileSystem::new(amoeba_linux::clock(), SIZE_MAX));
    let mount = Mount::new(files, &directory, &MountOptions::new("again")).unwrap();
    fs::write(directory.join("b"), b"x").unwrap();
    assert!(mount.unmount(LONG).unwrap());
    assert!(!place::clear_dead(&directory).unwrap());
    fs::remove_dir(&directory).unwrap();
}

#[test]
fn a_mount_whose_server_says_nothing_can_be_unmounted() {
    let directory = directory("silent");
    let Some(mut child) = server(&directory, "serve_until_killed") else { return };
    fs::write(directory.join("a"), b"late").unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let path = directory.join("not asked for yet");
    let asking = std::thread::spawn(move || fs::metadata(path).map(drop));
    assert!(place::unmount(&directory).unwrap());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    assert!(!place::unmount(&directory).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    // Whether it was asked before the unmount or after, it is told.
    asking.join().unwrap().unwrap_err();
    fs::remove_dir(&directory).unwrap();
}

/// The other process of the test below: it has a file of its own mount open, and its end is to tell itself that it is closed.
#[test]
#[ignore = "started by the test of a server that waits for itself"]
fn serve_itself_until_killed() {
    let (directory, mount) = mounted_in_place();
    fs::write(directory.join("device"), mount.device()).unwrap();
    let _own = File::create(directory.join("ready")).unwrap();
    mount.ended(LONG).unwrap();
}

#[test]
fn a_killed_server_that_waits_for_itself_is_ended_by_somebody_else() {
    let directory = directory("itself");
    let Some(mut child) = server(&directory, "serve_itself_until_killed") else { return };
    fs::metadata(&directory).unwrap();
    let device = fs::read_to_string(directory.join("device")).unwrap();
    assert!(!connection::end_of_dying(&device, child.id()).unwrap());
    child.kill().unwrap();
    assert!(connection::end_of_dying(&device, child.id()).unwrap());
    child.wait().unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap_err().kind(), ErrorKind::NotConnected);
    // Also where the kernel still knows what its root was.
    fs::metadata(&directory).unwrap();
    assert!(place::clear_dead(&directory).unwrap());
    fs::remove_dir(&directory).unwrap();
}
