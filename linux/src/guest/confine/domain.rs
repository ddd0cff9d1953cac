//! A guest's domain (Landlock): its signals, its traces and its sockets without a path reach nobody outside; and where it
//! cannot be given a file tree of its own, neither do its opens reach what is ours.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use nix::libc;

/// The version of Landlock whose rights on files we know; a kernel with an older one takes what it knows of them.
const FILES: ABI = ABI::V5;
/// The most entries of directories that are allowed one by one; what is more is not allowed.
const ENTRIES_MAX: usize = 8192;

/// The rules of a domain, made beforehand.
#[derive(Debug)]
pub(super) struct Domain(OwnedFd);

impl Domain {
    /// A domain whose signals and sockets stay in it. `None` where the kernel has none.
    pub(super) fn make() -> Option<Domain> {
        let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
        let rules = rules.scope(Scope::AbstractUnixSocket | Scope::Signal).ok()?;
        Option::<OwnedFd>::from(rules.create().ok()?).map(Domain)
    }

    /// The same, in which moreover everything can be opened but what lies in `hidden`, and of that `shown`.
    ///
    /// A domain can only allow, and with a directory all that is in it. So each directory that leads to a hidden one is
    /// not allowed as such, but what is in it now: a file made in it later, by whomever, cannot be opened.
    pub(super) fn make_without(hidden: &[PathBuf], shown: &[PathBuf]) -> Option<Domain> {
        let all = AccessFs::from_all(FILES);
        let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all).ok()?;
        let mut rules = rules.scope(Scope::AbstractUnixSocket | Scope::Signal).ok()?.create().ok()?;
        let allowed = allowed(hidden).into_iter().chain(shown.iter().cloned());
        for path in allowed.take(ENTRIES_MAX) {
            let Ok(opened) = PathFd::new(&path) else { continue };
            let is_directory = path.is_dir();
            let access = if is_directory { all } else { all & AccessFs::from_file(FILES) };
            rules = rules.add_rule(PathBeneath::new(opened, access)).ok()?;
        }
        Option::<OwnedFd>::from(rules).map(Domain)
    }

    /// The calling thread, and whatever it starts, is in the domain for ever. Neither allocates nor locks. Needs
    /// `no_new_privs`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: the call takes two numbers.
        let entered =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_fd().as_raw_fd(), 0) };
        if entered == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The entries of all directories that lead to hidden ones, without these and without the hidden.
fn allowed(hidden: &[PathBuf]) -> Vec<PathBuf> {
    let leads = |path: &Path| hidden.iter().any(|hidden| hidden != path && hidden.starts_with(path));
    let is_hidden = |path: &Path| hidden.iter().any(|hidden| hidden == path);
    let mut allowed = Vec::new();
    let mut pending = vec![PathBuf::from("/")];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            // Where a link leads is an entry of its own, or hidden.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link || is_hidden(&path) {
                continue;
            }
            if leads(&path) { pending.push(path) } else { allowed.push(path) }
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_the_hidden_is_allowed_piece_by_piece() {
        let directory = std::env::temp_dir().join(format!("amoeba-domain-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let (secret, open) = (directory.join("state/secret"), directory.join("open"));
        std::fs::create_dir_all(&secret).unwrap();
        std::fs::create_dir_all(secret.join("run")).unwrap();
        std::fs::create_dir_all(&open).unwrap();
        std::fs::write(secret.join("key"), "hush").unwrap();
        std::fs::write(open.join("file"), "hello").unwrap();
        std::os::unix::fs::symlink(secret.join("key"), open.join("link")).unwrap();
        let list = allowed(std::slice::from_ref(&secret));
        assert!(list.contains(&open) && !list.contains(&secret) && !list.contains(&directory));
        let Some(domain) = Domain::make_without(std::slice::from_ref(&secret), &[secret.join("run")]) else {
            return eprintln!("SKIPPED: this kernel has no Landlock");
        };
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            domain.enter().unwrap();
            assert_eq!(std::fs::read(open.join("file")).unwrap(), b"hello");
            std::fs::write(open.join("new"), "x").unwrap();
            std::fs::write(secret.join("run/new"), "x").unwrap();
            for closed in [secret.join("key"), open.join("link")] {
                let error = std::fs::read(&closed).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", closed.display());
            }
            assert!(std::fs::write(secret.join("new"), "x").is_err());
            std::fs::read_dir("/usr").unwrap();
        })
        .join()
        .unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
