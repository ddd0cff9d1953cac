//! How an operation of a file system refuses.

use thiserror::Error as ThisError;

/// Why an operation was not done. Each stands for one number of Linux, which the mount answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// No such name, or no such node any more (`ENOENT`).
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken (`EEXIST`).
    #[error("file exists")]
    Exists,
    /// A directory was needed (`ENOTDIR`).
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed (`EISDIR`).
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries (`ENOTEMPTY`).
    #[error("directory not empty")]
    NotEmpty,
    /// Nobody may do this to that (`EPERM`).
    #[error("operation not permitted")]
    NotPermitted,
    /// The caller may not (`EACCES`).
    #[error("permission denied")]
    AccessDenied,
    /// The arguments make no sense (`EINVAL`).
    #[error("invalid argument")]
    Invalid,
    /// Longer than [`crate::NAME_SIZE_MAX`] (`ENAMETOOLONG`).
    #[error("name too long")]
    NameTooLong,
    /// No room is left (`ENOSPC`).
    #[error("no space left")]
    NoSpace,
    /// The owner's share is used up (`EDQUOT`).
    #[error("quota exceeded")]
    QuotaExceeded,
    /// Nothing can be changed here (`EROFS`).
    #[error("read-only file system")]
    ReadOnly,
    /// The two names are of different file systems (`EXDEV`).
    #[error("not on the same file system")]
    CrossDevice,
    /// The node has as many names as it may have (`EMLINK`).
    #[error("too many links")]
    TooManyLinks,
    /// The file would be larger than it may be (`EFBIG`).
    #[error("file too large")]
    TooLarge,
    /// No such extended attribute (`ENODATA`).
    #[error("no such attribute")]
    NoAttribute,
    /// Nothing of that sort lies behind the offset (`ENXIO`).
    #[error("nothing there")]
    NothingThere,
    /// The handle is of no open file, or not open for this (`EBADF`).
    #[error("bad file handle")]
    BadHandle,
    /// Somebody else is at it (`EBUSY`).
    #[error("busy")]
    Busy,
    /// This file system has no such thing (`EOPNOTSUPP`).
    #[error("not supported")]
    NotSupported,
    /// The operation does not exist here, and need not be asked for again on this mount (`ENOSYS`).
    #[error("not implemented")]
    NotImplemented,
    /// The node is of a version of the file that is gone (`ESTALE`).
    #[error("stale")]
    Stale,
    /// What the file system stands on has failed (`EIO`).
    #[error("input/output error")]
    Io,
}
