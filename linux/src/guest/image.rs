//! A program with its strings as execve takes them, made before the fork, because nothing may be allocated after it.

use std::collections::BTreeMap;
use std::ffi::{CString, NulError, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

/// See the module.
pub(super) struct Image {
    path: CString,
    arguments: Strings,
    environment: Strings,
}

impl Image {
    /// The program at `path` with these arguments and environment strings.
    ///
    /// # Errors
    /// A string holds a NUL.
    pub(super) fn new(
        path: &Path,
        arguments: &[Vec<u8>],
        environment: &BTreeMap<&[u8], &[u8]>,
    ) -> Result<Image, NulError> {
        let environment = environment.iter().map(|(name, value)| [name, &b"="[..], value].concat());
        Ok(Image {
            path: CString::new(path.as_os_str().as_bytes())?,
            arguments: Strings::new(arguments.iter().cloned())?,
            environment: Strings::new(environment)?,
        })
    }

    /// Becomes the program; returns only when the kernel refuses.
    pub(super) fn execute(&self) -> io::Error {
        let (arguments, environment) = (self.arguments.pointers.as_ptr(), self.environment.pointers.as_ptr());
        // SAFETY: the path ends with a NUL; both arrays end with a null pointer, and what they point to lives in self.
        unsafe { libc::execve(self.path.as_ptr(), arguments, environment) };
        io::Error::last_os_error()
    }
}

/// Strings, and the array of pointers to them that a null pointer ends.
struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    fn new(strings: impl Iterator<Item = Vec<u8>>) -> Result<Strings, NulError> {
        let owned = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Strings { pointers, _owned: owned })
    }
}

// SAFETY: the pointers lead to the heap memory of `_owned`, which moves with them and is never changed.
unsafe impl Send for Strings {}
// SAFETY: as above; through a shared reference nothing is written.
unsafe impl Sync for Strings {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_with_a_null_pointer_and_hold_no_nul() {
        let strings = Strings::new([b"a".to_vec(), Vec::new()].into_iter()).unwrap();
        assert_eq!(strings.pointers.len(), 3);
        assert!(strings.pointers[2].is_null() && !strings.pointers[1].is_null());
        assert!(Strings::new([b"a\0b".to_vec()].into_iter()).is_err());
    }

    #[test]
    fn what_cannot_be_executed_says_why() {
        let image = Image::new(Path::new("/no/such/program"), &[b"x".to_vec()], &BTreeMap::new()).unwrap();
        assert_eq!(image.execute().raw_os_error(), Some(libc::ENOENT));
    }
}
