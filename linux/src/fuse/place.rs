//! Mounting and unmounting, and what lies at a path.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{MountError, MountOptions};
use crate::host;

/// The program that mounts for who is not root.
const HELPER: &str = "fusermount3";
/// How mounts of ours are named in the tables of the kernel.
const FILE_SYSTEM_TYPE: &str = "fuse.amoeba";

/// A mount of ours, by which it is found again.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    /// The number of its file system, as `major:minor`.
    device: String,
}

impl Place {
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number of its file system, as `major:minor`.
    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// Whether it is in the tree of this process's mount namespace, perhaps below another one.
    pub(super) fn is_mounted(&self) -> io::Result<bool> {
        Ok(mounts(&self.directory)?.any(|mounted| mounted.device == self.device))
    }

    /// Takes the mount out of the tree, unless it is out already or another lies above it.
    pub(super) fn detach(&self) -> io::Result<()> {
        match topmost(&self.directory)? {
            Some(top) if top.device == self.device => detach(&self.directory),
            _ => Ok(()),
        }
    }

    /// Asks the kernel to read so far ahead. Only root may, and without it reading is slower.
    pub(super) fn read_ahead(&self, size: usize) {
        let setting = format!("/sys/class/bdi/{}/read_ahead_kb", self.device);
        drop(fs::write(setting, (size / 1024).to_string()));
    }
}

/// Mounts at `directory`; also gives the descriptor that the requests come from.
pub(super) fn mount(directory: &Path, options: &MountOptions) -> Result<(Place, OwnedFd), MountError> {
    let at = |source: io::Error| MountError::Place { place: directory.to_owned(), source };
    let directory = fs::canonicalize(directory).map_err(at)?;
    if !directory.is_dir() {
        return Err(at(Errno::NOTDIR.into()));
    }
    let device = match mount_directly(&directory, options) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            mount_by_helper(&directory, options)?
        }
        mounted => mounted.map_err(at)?,
    };
    let top = topmost(&directory).map_err(at)?;
    let place =
        top.filter(|top| top.kind == FILE_SYSTEM_TYPE).map(|top| Place { directory, device: top.device });
    // Somebody unmounted it in this very moment.
    Ok((place.ok_or_else(|| at(Errno::NOTCONN.into()))?, device))
}

/// Whether a mount of ours whose server is gone lies at `directory`; and takes it away.
///
/// # Errors
/// It cannot be taken away.
pub fn clear_dead(directory: &Path) -> io::Result<bool> {
    if is_dead(directory) { unmount(directory) } else { Ok(false) }
}

/// Whether a mount whose server is gone lies at `directory`, or one whose server is just going: its descriptors are closed one after
/// the other, and what was asked through the first is aborted. It is asked, for the kernel may know all about its root still.
pub fn is_dead(directory: &Path) -> bool {
    let asked = rustix::fs::statx(CWD, directory, AtFlags::STATX_FORCE_SYNC, StatxFlags::TYPE);
    matches!(asked, Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Takes a mount of ours at `directory` out of the tree, whoever is at it, and without asking its server anything: whether
/// there was one.
///
/// # Errors
/// It is not this user's.
pub fn unmount(directory: &Path) -> io::Result<bool> {
    let directory = absolute(directory)?;
    match topmost(&directory)? {
        Some(top) if top.kind == FILE_SYSTEM_TYPE => detach(&directory).map(|()| true),
        _ => Ok(false),
    }
}

/// The path without symbolic links, of what cannot be looked into itself.
fn absolute(directory: &Path) -> io::Result<PathBuf> {
    let directory = std::path::absolute(directory)?;
    match (directory.parent(), directory.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => Ok(directory),
    }
}

fn mount_directly(directory: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let user = rustix::process::geteuid();
    // Where nobody but root looks in there is nothing to check; and before each check the kernel asks for the attributes of a
    // directory in which anything was made, renamed or removed.
    let is_roots = user.is_root() && !host::is_in_user_name_space() && !options.others;
    let checks = if is_roots { "" } else { ",default_permissions" };
    let others = if options.others { ",allow_other" } else { "" };
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}{checks}{others}",
        device.as_raw_fd(),
        user.as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let data = CString::new(data).expect("numbers and words have no NUL");
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    rustix::mount::mount(options.name.as_str(), directory, FILE_SYSTEM_TYPE, flags, data.as_c_str())?;
    Ok(device.into())
}

/// The helper mounts, and sends the descriptor over a socket, which it has as its standard input.
fn mount_by_helper(directory: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let said = |said: String| MountError::Helper { said };
    let (ours, its) = UnixStream::pair().map_err(|error| said(error.to_string()))?;
    let mut words =
        format!("fsname={},subtype=amoeba,nosuid,nodev,default_permissions", escaped(&options.name));
    if options.read_only {
        words.push_str(",ro");
    }
    if options.others {
        words.push_str(",allow_other");
    }
    let mut helper = Command::new(HELPER);
    helper.args(["-o", &words, "--"]).arg(directory).env("_FUSE_COMMFD", "0");
    helper.stdin(OwnedFd::from(its)).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = helper.spawn().map_err(|error| said(error.to_string()))?;
    // With it goes our copy of its end of the socket.
    drop(helper);
    let received = receive_descriptor(&ours);
    let output = started.wait_with_output().map_err(|error| said(error.to_string()))?;
    match received {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(said(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(said(error.to_string())),
    }
}

/// Commas and backslashes as the helper takes them.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace(',', "\\,")
}

/// The descriptor that the other end sends before it closes the socket, if it does.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let sent = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(sent)
}

/// Takes the topmost mount at `directory` out of the tree, whoever is still at it.
fn detach(directory: &Path) -> io::Result<()> {
    match rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(Errno::PERM) => {
            let output = Command::new(HELPER).args(["-u", "-z", "--"]).arg(directory).output()?;
            let said = || io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            if output.status.success() { Ok(()) } else { Err(said()) }
        }
        Err(error) => Err(error.into()),
    }
}

/// A line of the kernel's table of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    device: String,
    directory: PathBuf,
    kind: String,
}

/// What was mounted last at `directory`.
fn topmost(directory: &Path) -> io::Result<Option<Mounted>> {
    Ok(mounts(directory)?.last())
}

/// What is mounted at `directory`, in the order in which it was.
fn mounts(directory: &Path) -> io::Result<impl Iterator<Item = Mounted>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let all: Vec<Mounted> = table.split(|byte| *byte == b'\n').filter_map(parse).collect();
    let directory = directory.to_owned();
    Ok(all.into_iter().filter(move |mounted| mounted.directory == directory))
}

/// `36 35 98:0 /of/it /where options ... - type source options`, where `/where` has octal escapes.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let device = text(words.nth(2)?);
    let directory = PathBuf::from(OsString::from_vec(unescaped(words.nth(1)?)));
    let kind = text(words.skip_while(|word| *word != b"-").nth(1)?);
    Some(Mounted { device, directory, kind })
}

fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped =
            digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_mounts_is_read() {
        let line = br"36 35 0:98 / /mnt/a\040b rw,noatime master:1 - fuse.amoeba some\054name rw,user_id=0";
        let mounted = parse(line).unwrap();
        assert_eq!(mounted.device, "0:98");
        assert_eq!(mounted.directory, Path::new("/mnt/a b"));
        assert_eq!(mounted.kind, "fuse.amoeba");
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn any_line_is_read_or_left() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(mounted) = parse(bytes) {
                assert!(mounted.directory.as_os_str().len() <= bytes.len());
            }
        });
    }

    #[test]
    fn the_root_of_this_process_is_mounted() {
        assert!(topmost(Path::new("/")).unwrap().is_some());
        assert!(!clear_dead(Path::new("/")).unwrap());
    }
}
