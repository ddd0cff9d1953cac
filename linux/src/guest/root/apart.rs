//! Mounts that only the viewer sees, and what is different in a user name space.

use std::fs::{self, File};
use std::io;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getgid, getuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Where requests of the kernel for files come from.
const FUSE: &str = "/dev/fuse";

/// Gives this process, while it has one thread, mounts of its own: by the host's privilege, or else in a user name space of its
/// own, in which the user is who he is and nobody else is anybody. Whether it has the host's privilege.
///
/// What is mounted in such a user name space can be used in others of the same user, such as those of the wardens, and by
/// nobody else.
///
/// # Errors
/// The host allows neither; or this user may not use FUSE.
pub(super) fn part() -> io::Result<bool> {
    // SAFETY: the process has one thread and shares nothing that this takes away.
    let has_privilege = match unsafe { unshare_unsafe(UnshareFlags::NEWNS) } {
        Ok(()) => true,
        Err(Errno::PERM) => {
            let (user, group) = (getuid().as_raw(), getgid().as_raw());
            // SAFETY: as above.
            unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
            fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
            // Whoever may not use it can mount nothing there.
            File::options().read(true).write(true).open(FUSE)?;
            false
        }
        Err(error) => return Err(error.into()),
    };
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(has_privilege)
}
