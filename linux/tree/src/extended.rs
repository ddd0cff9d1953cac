//! Extended attributes of files and directories, by their descriptors.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

/// Bytes of all names, and of one value, that are read.
pub const EXTENDED_SIZE_MAX: usize = 65_536;

/// The extended attributes that this user may see, by name. A file system without any has none; one that vanishes
/// meanwhile is left out.
///
/// # Errors
/// They cannot be read, or are more than [`EXTENDED_SIZE_MAX`].
pub fn extended(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let file = file.as_fd();
    let mut names = vec![0; EXTENDED_SIZE_MAX];
    let size = match fs::flistxattr(file, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut value = vec![0; EXTENDED_SIZE_MAX];
    let mut found = Vec::new();
    for name in names[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match fs::fgetxattr(file, name, value.as_mut_slice()) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            read => found.push((name.to_vec(), value[..read?].to_vec())),
        }
    }
    Ok(found)
}

/// Sets one extended attribute.
///
/// # Errors
/// The file system keeps none, or this user may not set it.
pub fn set_extended(file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(file, name, value, XattrFlags::empty())?)
}
