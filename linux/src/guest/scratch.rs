//! The scratch directory of a guest: made for it beside its log, filled, emptied of what is wanted, removed by its keeper.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use amoeba_cap::Capability;
use amoeba_process::Scratch;
use amoeba_stubs::bullet;
use amoeba_stubs::bullet_stream;
use amoeba_world::World;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat};

use super::confine::Confinement;
use super::program::{CODE_NOT_EXECUTABLE, Refusal};
use super::remote::fetch;

const EXTENSION: &str = "scratch";

/// Where the scratch directory of a guest with this log is; `None` for a guest without a log.
fn path(log: &[u8]) -> Option<PathBuf> {
    (!log.is_empty()).then(|| Path::new(OsStr::from_bytes(log)).with_extension(EXTENSION))
}

/// The keeper's part: removes what is left of the directory, if there was one.
pub(super) fn remove(log: &[u8]) {
    if let Some(path) = path(log) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Removes `path` if it is the scratch directory of a guest whose keeper was killed.
pub(super) fn remove_left_over(path: &Path) {
    if path.extension().is_some_and(|extension| extension == EXTENSION) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// The directory at work. What is wanted of it is found through the descriptor, whatever becomes of its name.
pub(super) struct Directory {
    descriptor: OwnedFd,
    results: Vec<Vec<u8>>,
    store: Capability,
}

impl Directory {
    /// Makes the directory, brings its files, and enters it where the guest sees it.
    pub(super) fn enter(
        scratch: &Scratch,
        log: &[u8],
        world: &World,
        confinement: &mut Confinement,
    ) -> Result<Directory, Refusal> {
        let ours = |error: &dyn std::fmt::Display| Refusal::ours("scratch directory", error);
        let path = path(log).ok_or_else(|| ours(&"there is no place for it"))?;
        let _ = std::fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| ours(&error))?;
        let shown = confinement.show(&path).map_err(|error| ours(&error))?;
        std::env::set_current_dir(&shown).map_err(|error| ours(&error))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let descriptor = openat(rustix::fs::CWD, ".", flags, Mode::empty()).map_err(|error| ours(&error))?;
        for (name, file) in &scratch.files {
            bring(&descriptor, name, file, world)?;
        }
        Ok(Directory { descriptor, results: scratch.results.clone(), store: scratch.store })
    }

    /// Stores what is wanted and is there; what is no regular file is not there. Called when the guest has ended.
    pub(super) fn take(&self, world: &World) -> Vec<(Vec<u8>, Capability)> {
        let stored = |name: &Vec<u8>| {
            let mut file = self.open(name)?;
            let stored = bullet_stream::write_file(world, &self.store, bullet::COMMIT, &mut file);
            Some((name.clone(), stored.unwrap_or(Capability::NULL)))
        };
        self.results.iter().filter_map(stored).collect()
    }

    /// A regular file of the directory itself: no link is followed, no device and no pipe is opened.
    fn open(&self, name: &[u8]) -> Option<File> {
        let seen = statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if !rustix::fs::FileType::from_raw_mode(seen.st_mode).is_file() {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.descriptor, name, flags, Mode::empty()).ok()?;
        // Nobody of the guest is left to exchange it between the two, but nothing is lost by looking again.
        let is_file = rustix::fs::FileType::from_raw_mode(fstat(&file).ok()?.st_mode).is_file();
        is_file.then(|| File::from(file))
    }
}

/// Copies a Bullet file into the directory. What begins as a program does may be executed.
fn bring(directory: &OwnedFd, name: &[u8], file: &Capability, world: &World) -> Result<(), Refusal> {
    let shown = String::from_utf8_lossy(name);
    let failed = |why: &dyn std::fmt::Display| {
        Refusal::new(amoeba_process::status::NOINPUT, CODE_NOT_EXECUTABLE, format!("{shown}: {why}"))
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(directory, name, flags, Mode::from_raw_mode(0o600)).map_err(|error| failed(&error))?;
    let mut made = File::from(made);
    fetch(world, file, &mut made).map_err(|why| failed(&why.into_exit().reason))?;
    made.flush().and_then(|()| made.seek(SeekFrom::Start(0))).map_err(|error| failed(&error))?;
    let mut head = Vec::new();
    Read::by_ref(&mut made).take(4).read_to_end(&mut head).map_err(|error| failed(&error))?;
    let is_program = head.starts_with(b"#!") || head == b"\x7FELF";
    let mode = if is_program { 0o700 } else { 0o600 };
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode)).map_err(|error| failed(&error))
}
