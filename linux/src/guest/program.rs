//! Finding what a guest runs: a file of this host along PATH, or bytes that become a sealed memory file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use amoeba_process::Exit;
use amoeba_process::status::{BADARCH, NOPROG, NOTEXEC, PDREAD};
use amoeba_wire::Status;
use rustix::fs::{Access, MemfdFlags, SealFlags, access, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Where a program is searched when the environment strings hold no PATH.
const PATH_DEFAULT: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Bytes at the beginning of a file that say whether it may be a shell's.
const SHELL_TEXT_HEAD_SIZE: usize = 128;

/// The exit code of a shell that found no such program.
pub(super) const CODE_NOT_FOUND: u8 = 127;
/// The exit code of a shell that could not execute what it found.
pub(super) const CODE_NOT_EXECUTABLE: u8 = 126;
/// The exit code when it is our fault.
pub(super) const CODE_OUR_FAULT: u8 = 125;

/// Why a program cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: Status,
    code: u8,
    reason: String,
}

impl Refusal {
    pub(super) fn new(status: Status, code: u8, reason: impl Into<String>) -> Refusal {
        Refusal { status, code, reason: reason.into() }
    }

    /// Our own fault, not the program's.
    pub(super) fn ours(what: &str, error: impl std::fmt::Display) -> Refusal {
        Refusal::new(Status::STD_SYSERR, CODE_OUR_FAULT, format!("{what}: {error}"))
    }

    pub(super) fn into_exit(self) -> Exit {
        Exit::not_started(self.status, self.code, self.reason)
    }
}

/// A program that can be given to execve.
#[derive(Debug)]
pub(super) struct Executable {
    /// What execve is told.
    pub(super) path: PathBuf,
    /// The memory file behind `path`, which must stay open until then.
    pub(super) _memory: Option<OwnedFd>,
}

/// Finds `name` as a shell does: as a path if it holds a slash, else along `search_path`. Relative paths are
/// relative to the current directory.
pub(super) fn find(name: &[u8], search_path: Option<&[u8]>) -> Result<Executable, Refusal> {
    let shown = String::from_utf8_lossy(name);
    if name.is_empty() {
        return Err(Refusal::new(NOPROG, CODE_NOT_FOUND, "the program's name is empty"));
    }
    if name.contains(&b'/') {
        let path = PathBuf::from(OsStr::from_bytes(name));
        return match check(&path) {
            Ok(()) => Ok(Executable { path, _memory: None }),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                Err(Refusal::new(NOPROG, CODE_NOT_FOUND, format!("{shown}: no such file")))
            }
            Err(error) => Err(Refusal::new(NOTEXEC, CODE_NOT_EXECUTABLE, format!("{shown}: {error}"))),
        };
    }
    let mut refused = None;
    for directory in search_path.unwrap_or(PATH_DEFAULT).split(|&byte| byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let path = Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(name));
        match check(&path) {
            Ok(()) => return Ok(Executable { path, _memory: None }),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => {}
            Err(error) => refused = Some(format!("{}: {error}", path.display())),
        }
    }
    Err(match refused {
        Some(reason) => Refusal::new(NOTEXEC, CODE_NOT_EXECUTABLE, reason),
        None => Refusal::new(NOPROG, CODE_NOT_FOUND, format!("{shown}: not found along PATH")),
    })
}

fn check(path: &Path) -> Result<(), Errno> {
    let metadata =
        std::fs::metadata(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if metadata.is_dir() {
        return Err(Errno::ISDIR);
    }
    access(path, Access::EXEC_OK)
}

/// Makes an executable of bytes that `fill` writes.
///
/// A script is opened again by its interpreter, by name, so the descriptor survives execve; a binary's does not.
pub(super) fn from_bytes(
    name: &[u8],
    fill: impl FnOnce(&mut File) -> Result<(), Refusal>,
) -> Result<Executable, Refusal> {
    let mut file = memory_file(name, true).map_err(|error| Refusal::ours("memory file", error))?;
    fill(&mut file)?;
    let sealed = seal(&file).map_err(|error| Refusal::ours("sealing the program", error))?;
    let mut head = [0; 20];
    let mut read = File::open(format!("/proc/self/fd/{}", sealed.as_raw_fd()))
        .map_err(|error| Refusal::ours("reading the program", error))?;
    let size =
        read_some(&mut read, &mut head).map_err(|error| Refusal::ours("reading the program", error))?;
    match kind(&head[..size]) {
        Kind::Script => fcntl_setfd(&sealed, FdFlags::empty())
            .map_err(|error| Refusal::ours("passing the program", error))?,
        Kind::Binary => {}
        Kind::OtherCpu => {
            return Err(Refusal::new(BADARCH, CODE_NOT_EXECUTABLE, "the program is for another CPU type"));
        }
        Kind::Unknown => {
            return Err(Refusal::new(
                NOTEXEC,
                CODE_NOT_EXECUTABLE,
                "the program is neither an executable nor a script that begins with #!",
            ));
        }
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
    Ok(Executable { path, _memory: Some(sealed) })
}

/// A program that could not be read whole.
pub(super) fn unreadable(reason: impl std::fmt::Display) -> Refusal {
    Refusal::new(PDREAD, CODE_NOT_EXECUTABLE, format!("the program cannot be read: {reason}"))
}

/// Says why execve refused `path`.
pub(super) fn exec_refused(path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => {
            let reason = format!("{shown}: the interpreter it names does not exist");
            Refusal::new(NOTEXEC, CODE_NOT_EXECUTABLE, reason)
        }
        Some(Errno::NOEXEC) => {
            let mut head = [0; 20];
            let size = File::open(path).and_then(|mut file| read_some(&mut file, &mut head)).unwrap_or(0);
            if kind(&head[..size]) == Kind::OtherCpu {
                return Refusal::new(BADARCH, CODE_NOT_EXECUTABLE, format!("{shown}: for another CPU type"));
            }
            Refusal::new(NOTEXEC, CODE_NOT_EXECUTABLE, format!("{shown}: {error}"))
        }
        Some(Errno::NOMEM | Errno::AGAIN) => Refusal::ours("starting the program", error),
        _ => Refusal::new(NOTEXEC, CODE_NOT_EXECUTABLE, format!("{shown}: {error}")),
    }
}

/// Whether the file at `path`, which the kernel does not know how to execute, is text for a shell: no ELF file, and
/// without a NUL in what of its first line the first bytes hold. Interactive shells decide it so.
pub(super) fn is_shell_text(path: &Path) -> bool {
    let mut head = [0; SHELL_TEXT_HEAD_SIZE];
    let size = File::open(path).and_then(|mut file| read_some(&mut file, &mut head));
    size.is_ok_and(|size| is_shell_head(&head[..size]))
}

fn is_shell_head(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    !head.starts_with(b"\x7FELF") && !line.contains(&0)
}

/// A memory file that holds these bytes and can never be changed, inherited by what is executed.
pub(super) fn sealed_memory(name: &[u8], bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = memory_file(name, false)?;
    file.write_all(bytes)?;
    let sealed = seal(&file)?;
    fcntl_setfd(&sealed, FdFlags::empty())?;
    Ok(sealed)
}

fn memory_file(name: &[u8], executable: bool) -> io::Result<File> {
    // The name is only for people who look into /proc; the kernel takes 249 bytes of it.
    let name: Vec<u8> = name.iter().copied().filter(|&byte| byte != 0 && byte != b'/').take(200).collect();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if executable {
        match memfd_create(name.as_slice(), flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => {} // kernels before 6.3: every memory file may be executed
            other => return Ok(File::from(other?)),
        }
    }
    Ok(File::from(memfd_create(name.as_slice(), flags)?))
}

/// Seals a memory file. The descriptor that comes back is open for reading only: a file open for writing cannot be
/// executed.
fn seal(file: &File) -> io::Result<OwnedFd> {
    fcntl_add_seals(file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

fn read_some(file: &mut File, head: &mut [u8]) -> io::Result<usize> {
    let mut size = 0;
    while size < head.len() {
        match file.read(&mut head[size..]) {
            Ok(0) => break,
            Ok(count) => size += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Script,
    Binary,
    OtherCpu,
    Unknown,
}

/// What the first twenty bytes of a program say it is.
fn kind(head: &[u8]) -> Kind {
    if head.starts_with(b"#!") {
        return Kind::Script;
    }
    if !head.starts_with(b"\x7FELF") || head.len() < 20 {
        return Kind::Unknown;
    }
    let little = head[5] == 1;
    let machine = [head[18], head[19]];
    let machine = if little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    let ours = little == cfg!(target_endian = "little") && MACHINES.contains(&machine);
    if ours { Kind::Binary } else { Kind::OtherCpu }
}

/// The ELF machine numbers that this CPU executes; a kernel built without the older one says so itself.
const MACHINES: &[u16] = if cfg!(target_arch = "x86_64") {
    &[62, 3]
} else if cfg!(target_arch = "aarch64") {
    &[183]
} else if cfg!(target_arch = "riscv64") {
    &[243]
} else {
    &[]
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn names_are_searched_and_paths_are_not() {
        assert!(find(b"sh", None).is_ok());
        assert!(find(b"/bin/sh", Some(b"")).is_ok());
        assert_eq!(find(b"sh", Some(b"/nonexistent")).unwrap_err().code, CODE_NOT_FOUND);
        assert_eq!(find(b"", None).unwrap_err().code, CODE_NOT_FOUND);
        assert_eq!(find(b"/bin/sh/x", None).unwrap_err().status, NOPROG);
        assert_eq!(find(b"/etc/passwd", None).unwrap_err().code, CODE_NOT_EXECUTABLE);
        assert_eq!(find(b"passwd", Some(b"/etc")).unwrap_err().status, NOTEXEC);
        assert_eq!(find(b"/", None).unwrap_err().code, CODE_NOT_EXECUTABLE);
    }

    #[test]
    fn binaries_and_scripts_run_from_memory_and_nothing_else_does() {
        let run = |bytes: Vec<u8>| {
            let found = from_bytes(b"a/b", |file| file.write_all(&bytes).map_err(unreadable))?;
            let output = Command::new(&found.path).arg("out of memory").output().unwrap();
            Ok::<_, Refusal>(output.stdout)
        };
        assert_eq!(run(std::fs::read("/bin/echo").unwrap()).unwrap(), b"out of memory\n");
        assert_eq!(run(b"#!/bin/sh\necho \"<$1>\"\n".to_vec()).unwrap(), b"<out of memory>\n");
        assert_eq!(run(b"text".to_vec()).unwrap_err().status, NOTEXEC);
        let mut other = std::fs::read("/bin/echo").unwrap();
        other[18] = 22; // IBM S/390
        assert_eq!(run(other).unwrap_err().status, BADARCH);
    }

    #[test]
    fn only_text_is_for_the_shell() {
        for text in [&b"echo hello\n"[..], b"", b"# one line\n\0\0 an archive"] {
            assert!(is_shell_head(text));
        }
        for binary in [&b"\x7FELF"[..], b"\0asm", b"MZ\x90\0\n"] {
            assert!(!is_shell_head(binary));
        }
        assert!(!is_shell_text(Path::new("/bin/sh")) && !is_shell_text(Path::new("/no/such/file")));
    }

    #[test]
    fn sealed_memory_cannot_be_changed() {
        let sealed = sealed_memory(b"caps", b"secret").unwrap();
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        let error = File::options().write(true).open(&path).map(|mut file| file.write_all(b"x").is_err());
        assert!(error.unwrap_or(true));
    }

    #[test]
    fn no_head_panics() {
        bolero::check!().for_each(|head: &[u8]| {
            let _ = (kind(head), is_shell_head(head));
        });
    }
}
