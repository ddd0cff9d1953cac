//! What a tree of files is, so that two can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What must be the same of two files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// Types, the bit "executable" and contents: what a program that makes files decides by itself.
    Contents,
    /// Also modes, owners and times, but those of directories: a server has its own, a little later than the mount had, as
    /// long as nobody has set one.
    Kept,
    /// Also those, and which names are of one file.
    Everything,
}

/// The names below a folder, with everything of each that must be the same, in words.
pub(crate) struct Tree {
    lines: BTreeMap<PathBuf, String>,
}

impl Tree {
    /// All of it, as it is now.
    #[track_caller]
    pub(crate) fn read(root: &Path, depth: Depth) -> Tree {
        let mut lines = BTreeMap::new();
        let mut first_names = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for name in names(&root.join(&folder)) {
                let path = folder.join(name);
                let at = root.join(&path);
                let metadata =
                    fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                let mut line = contents(&at, &metadata);
                if depth >= Depth::Kept {
                    line +=
                        &format!(", mode {:o}, of {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
                }
                if depth == Depth::Everything || depth == Depth::Kept && !metadata.is_dir() {
                    line += &format!(", {}.{:09}", metadata.mtime(), metadata.mtime_nsec());
                }
                if depth == Depth::Everything && metadata.is_file() {
                    let first = first_names.entry(metadata.ino()).or_insert_with(|| path.clone());
                    line += &format!(", {} names, one {}", metadata.nlink(), first.display());
                }
                lines.insert(path, line);
            }
        }
        Tree { lines }
    }

    /// Fails, and names some, where the trees differ.
    #[track_caller]
    pub(crate) fn must_be(&self, expected: &Tree) {
        let names: BTreeSet<&PathBuf> = self.lines.keys().chain(expected.lines.keys()).collect();
        let differences = names.into_iter().filter_map(|name| {
            let (here, there) = (self.lines.get(name), expected.lines.get(name));
            (here != there).then(|| format!("{}:\n  {here:?}\n  {there:?}", name.display()))
        });
        let differences: Vec<_> = differences.collect();
        let some = &differences[..differences.len().min(10)];
        assert!(
            some.is_empty(),
            "{} of {} differ:\n{}",
            differences.len(),
            self.lines.len(),
            some.join("\n")
        );
    }
}

/// Two folders have the same in them.
#[track_caller]
pub(crate) fn same(one: &Path, other: &Path, depth: Depth) {
    Tree::read(one, depth).must_be(&Tree::read(other, depth));
}

/// In order, so that the first name of a file is the same in both trees.
fn names(folder: &Path) -> Vec<OsString> {
    let list = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<_> = list.map(|line| line.expect("a listing goes on").file_name()).collect();
    names.sort();
    names
}

fn contents(at: &Path, metadata: &fs::Metadata) -> String {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link to {:?}", fs::read_link(at).expect("it is a link"))
    } else if kind.is_file() {
        let bytes = fs::read(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        let executable = metadata.mode() & 0o100 != 0;
        format!("file {:016x} of {}, executable: {executable}", sum(&bytes), bytes.len())
    } else {
        format!("pipe: {}, socket: {}", kind.is_fifo(), kind.is_socket())
    }
}

/// FNV-1a: the trees compared are no adversaries.
fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
