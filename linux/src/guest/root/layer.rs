//! What a guest has written privately in its file tree. As a rule that is nothing, or files for a while in the directories that
//! are there for it, and then the next guest that wants the same finds the very tree as it was made, but for the times of these
//! directories.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, flistxattr, fstat, open, openat, readlinkat, statat,
};
use rustix::io::Errno;

use super::PRIVATE;

/// The most names that are looked at: a tree is made with a few directories.
const NAMES_MAX: usize = 256;
/// The most bytes of the names of a directory's attributes.
const ATTRIBUTES_SIZE_MAX: usize = 1024;

/// The directory that takes what a guest writes privately, and what was in it before it came.
pub(super) struct Layer {
    directory: OwnedFd,
    before: Vec<Line>,
}

/// A name in the layer: a directory, or something else.
#[derive(PartialEq, Eq)]
struct Line {
    path: Vec<u8>,
    state: State,
    /// Names of a directory's attributes, text of a link.
    more: Vec<u8>,
}

/// All that a guest can change of a name, and `changed`, which moves with it and cannot be set. As older kernels count that in
/// milliseconds only, it alone does not say that nothing has changed.
#[derive(PartialEq, Eq)]
struct State {
    number: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Layer {
    /// The layer at `path`, as it is now.
    ///
    /// # Errors
    /// It cannot be looked at, or holds more than a tree is made with.
    pub(super) fn at(path: &Path) -> io::Result<Layer> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty())?;
        let before = lines(directory.as_fd())?;
        Ok(Layer { directory, before })
    }

    /// Whether it is as it was. Nobody is left who could change it.
    pub(super) fn is_untouched(&self) -> bool {
        lines(self.directory.as_fd()).is_ok_and(|now| now == self.before)
    }
}

/// Everything in a directory, the names of each directory in the order of their bytes.
fn lines(root: BorrowedFd<'_>) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut directories = vec![b".".to_vec()];
    while let Some(path) = directories.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(root, &path[..], flags, Mode::empty())?;
        let mut state = State::of(&fstat(&opened)?);
        // A name that was there and is gone has moved them, and left nothing else.
        if PRIVATE.iter().any(|(private, _)| path[1..] == *private.as_bytes()) {
            (state.modified, state.changed) = <_>::default();
        }
        let more = attributes(&opened)?;
        for name in names(&opened)? {
            let below = [&path[..], b"/", &name].concat();
            let stat = statat(root, &below[..], AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => directories.push(below),
                kind => {
                    let is_link = kind == FileType::Symlink;
                    let text = is_link.then(|| readlinkat(root, &below[..], Vec::new())).transpose()?;
                    let more = text.map(|text| text.into_bytes()).unwrap_or_default();
                    lines.push(Line { path: below, state: State::of(&stat), more });
                }
            }
        }
        lines.push(Line { path, state, more });
        if lines.len() + directories.len() > NAMES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    Ok(lines)
}

/// The names in a directory, in the order of their bytes.
fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == NAMES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

fn attributes(directory: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut names = [0; ATTRIBUTES_SIZE_MAX];
    match flistxattr(directory, &mut names) {
        Ok(size) => Ok(names[..size].to_vec()),
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

impl State {
    fn of(stat: &Stat) -> State {
        State {
            number: stat.st_ino,
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            links: stat.st_nlink,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    /// A directory with something in it, and what does something to that.
    type Deed = fn(&Path) -> io::Result<()>;

    fn made(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("amoeba-layer-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("var/tmp")).unwrap();
        fs::write(path.join("var/file"), "as it was").unwrap();
        symlink("file", path.join("var/link")).unwrap();
        path
    }

    #[test]
    fn whatever_is_done_to_a_layer_is_seen() {
        let deeds: [Deed; 8] = [
            |at| fs::write(at.join("var/tmp/new"), ""),
            |at| fs::write(at.join("new"), "").and_then(|()| fs::remove_file(at.join("new"))),
            |at| fs::write(at.join("var/file"), "otherwise"),
            |at| fs::set_permissions(at.join("var/tmp"), fs::Permissions::from_mode(0o700)),
            |at| fs::rename(at.join("var/tmp"), at.join("var/other")),
            |at| fs::remove_file(at.join("var/link")).and_then(|()| symlink("else", at.join("var/link"))),
            |at| fs::hard_link(at.join("var/file"), at.join("var/tmp/file")),
            |at| fs::remove_dir(at.join("var/tmp")),
        ];
        for (number, deed) in deeds.into_iter().enumerate() {
            let path = made(&number.to_string());
            let layer = Layer::at(&path).unwrap();
            assert!(layer.is_untouched() && fs::read(path.join("var/file")).is_ok() && layer.is_untouched());
            deed(&path).unwrap();
            assert!(!layer.is_untouched(), "deed {number}");
            fs::remove_dir_all(&path).unwrap();
        }
    }

    #[test]
    fn what_was_in_a_directory_for_such_things_and_is_gone_has_left_nothing() {
        let path = made("private");
        fs::set_permissions(path.join("var/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let layer = Layer::at(&path).unwrap();
        let passing = path.join("var/tmp/passing");
        fs::write(&passing, "").unwrap();
        assert!(!layer.is_untouched());
        fs::remove_file(&passing).and_then(|()| fs::create_dir(&passing)).unwrap();
        assert!(!layer.is_untouched());
        fs::remove_dir(&passing).unwrap();
        assert!(layer.is_untouched());
        fs::set_permissions(path.join("var/tmp"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!layer.is_untouched());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn much_is_not_looked_at() {
        let path = made("much");
        let layer = Layer::at(&path).unwrap();
        for number in 0..=NAMES_MAX {
            fs::write(path.join(number.to_string()), "").unwrap();
        }
        assert!(!layer.is_untouched() && Layer::at(&path).is_err());
        fs::remove_dir_all(&path).unwrap();
    }
}
