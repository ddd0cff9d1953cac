//! Which files a compilation sees elsewhere: those of its project, under the names they have here.
//!
//! The project is the directory that holds all the files which the command line names, or what is above it under the care of
//! the same version control: a header that includes `../x.h` finds it there as here. All compilations of a project see the same
//! trees, so that a host learns them once.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use amoeba_view::home::SYSTEM;

use super::line::Compilation;

/// What the top of a project has in it.
const TOPS: [&str; 4] = [".git", ".hg", ".svn", ".jj"];

/// What a compilation is to see besides the system's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where it works.
    pub(super) directory: PathBuf,
    /// One tree, in which it may write.
    pub(super) project: PathBuf,
}

/// A path as the command line has it.
pub(super) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// What `compilation` is to see when it works in `directory`, which the environment string PWD calls `named`.
///
/// # Errors
/// A clause for people: why it would not be the same elsewhere.
pub(super) fn seen(
    compilation: &Compilation,
    directory: &Path,
    named: Option<&OsStr>,
    home: Option<&Path>,
) -> Result<Seen, String> {
    // A compiler writes the name that PWD gives its directory into what it makes.
    if named.is_some_and(|named| named != directory.as_os_str()) {
        return Err("the working directory has another name (PWD)".into());
    }
    let mut project = directory.to_owned();
    let holder = |file: &Vec<u8>| path(file).parent().map_or(PathBuf::new(), Path::to_owned);
    let files = compilation.sources.iter().chain(&compilation.writes).map(holder);
    let named = compilation.reads.iter().map(|read| path(read).to_owned());
    for name in files.chain(named) {
        let Some(real) = real(directory, &name)? else { continue };
        if is_of_system(&real) {
            continue;
        }
        while !real.starts_with(&project) {
            project = project.parent().map(Path::to_owned).ok_or("a file is nowhere")?;
        }
    }
    let project = top(&project, home).unwrap_or(project);
    if is_too_much(&project, home) {
        return Err(format!("its files lie in no directory smaller than {}", project.display()));
    }
    Ok(Seen { directory: directory.to_owned(), project })
}

/// Whether every host sees it, whatever the project.
pub(super) fn is_of_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

/// Where a file or directory is, without symbolic links on the way; `None` if it is not there.
fn real(directory: &Path, name: &Path) -> Result<Option<PathBuf>, String> {
    let Ok(real) = directory.join(name).canonicalize() else { return Ok(None) };
    // Elsewhere a link would have to lead to the same place, and compilers write down the names they were given.
    if without_dots(&directory.join(name)).as_deref() != Some(&real) && !is_of_system(&real) {
        return Err(format!("a symbolic link leads to {}", real.display()));
    }
    Ok(Some(real))
}

/// The path with `.` and `..` resolved in the text alone.
fn without_dots(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop().then_some(())?;
            }
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// The nearest directory at or above `project` that is the top of a project.
fn top(project: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let above = project.ancestors().take_while(|above| !is_too_much(above, home));
    above.into_iter().find(|above| TOPS.iter().any(|name| above.join(name).exists())).map(Path::to_owned)
}

/// Whether a directory holds more than a project does: everything, a home and what is above it, a directory of the root that
/// many share.
fn is_too_much(directory: &Path, home: Option<&Path>) -> bool {
    directory.parent().is_none()
        || home.is_some_and(|home| home.starts_with(directory))
        || ["/home", "/tmp", "/var", "/var/tmp", "/mnt", "/media", "/srv", "/run", "/dev", "/proc", "/sys"]
            .iter()
            .any(|shared| directory == Path::new(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compilation(reads: &[&str], writes: &[&str]) -> Compilation {
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
        Compilation {
            sources: vec![b"a.c".to_vec()],
            reads: words(reads),
            writes: words(writes),
            ..Compilation::default()
        }
    }

    #[test]
    fn a_project_holds_all_that_is_named() {
        let top =
            std::env::temp_dir().canonicalize().unwrap().join(format!("amoeba-cc-{}", std::process::id()));
        let work = top.join("home/p/src/deep");
        std::fs::create_dir_all(&work).unwrap();
        for folder in ["include", "build", "src/.x"] {
            std::fs::create_dir_all(top.join("home/p").join(folder)).unwrap();
        }
        std::os::unix::fs::symlink("include", top.join("home/p/alias")).unwrap();
        let home = top.join("home");
        let project = |reads: &[&str], writes: &[&str]| {
            let seen = seen(&compilation(reads, writes), &work, Some(work.as_os_str()), Some(&home));
            seen.map(|seen| seen.project.strip_prefix(&home).unwrap().display().to_string())
        };
        assert_eq!(project(&[], &["a.o"]).unwrap(), "p/src/deep");
        assert_eq!(project(&["..", "/usr/include", "/no/such"], &["a.o"]).unwrap(), "p/src");
        assert_eq!(project(&["../../include"], &["../../build/a.o"]).unwrap(), "p");
        assert!(project(&["../../alias"], &[]).unwrap_err().contains("symbolic link"));
        assert!(project(&[home.to_str().unwrap()], &[]).unwrap_err().contains("no directory smaller"));
        assert!(project(&["/tmp"], &[]).is_err());
        std::fs::create_dir(top.join("home/p/.git")).unwrap();
        assert_eq!(project(&[], &["a.o"]).unwrap(), "p", "version control knows");
        std::fs::create_dir(top.join("home/.git")).unwrap();
        std::fs::remove_dir(top.join("home/p/.git")).unwrap();
        assert_eq!(project(&[], &["a.o"]).unwrap(), "p/src/deep", "a home is no project");
        let other = seen(&compilation(&[], &[]), &work, Some(OsStr::new("/elsewhere")), None);
        assert!(other.unwrap_err().contains("PWD"));
        std::fs::remove_dir_all(&top).unwrap();
    }
}
