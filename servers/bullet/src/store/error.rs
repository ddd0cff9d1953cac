//! Why the store refuses.

use amoeba_wire::Status;
use amoeba_world::DiskError;

/// Why an operation on a file did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such file, or one that does not take this operation (reading an uncommitted one).
    #[error("no such file")]
    NoSuchFile,
    /// An offset behind the end of the file, or a size that makes no sense here.
    #[error("an offset or size outside the file")]
    BadArgument,
    /// No contiguous blocks, or no inode, are left for it.
    #[error("no space on the volume")]
    NoSpace,
    /// The number is taken, or the volume holds files.
    #[error("there is a file already")]
    Exists,
    /// A compaction runs already, or the server is to be started with another identity first.
    #[error("not possible now")]
    NotNow,
    /// Uncommitted files already fill the memory that is set apart for them.
    #[error("no memory for another uncommitted file")]
    NoMemory,
    /// Larger than the largest file.
    #[error("the file would be too large")]
    TooLarge,
    /// What lies on the disk is not what was committed.
    #[error("the file is damaged on disk")]
    Damaged,
    /// The disk failed during this operation. If it was a commit or a destroy, it may or may not survive a restart.
    #[error("the disk failed")]
    DiskFailed,
    /// The disk failed earlier (or the image is truncated); until a restart nothing can be committed or destroyed,
    /// because nobody can say what reached the disk. Reading goes on.
    #[error("write protected since the disk failed")]
    WriteProtected,
}

impl StoreError {
    /// The status on the wire.
    pub fn status(self) -> Status {
        match self {
            StoreError::NoSuchFile => Status::STD_CAPBAD,
            StoreError::BadArgument => Status::STD_ARGBAD,
            StoreError::NoSpace => Status::STD_NOSPACE,
            StoreError::Exists => Status::STD_EXISTS,
            StoreError::NotNow => Status::STD_NOTNOW,
            StoreError::NoMemory => Status::STD_NOMEM,
            StoreError::TooLarge => Status::STD_OVERFLOW,
            StoreError::Damaged | StoreError::DiskFailed => Status::STD_SYSERR,
            StoreError::WriteProtected => Status::STD_WRITEPROT,
        }
    }
}

/// Why a volume could not be made or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The disk failed, or is shorter than the part that was read.
    #[error("cannot use the disk: {0}")]
    Disk(#[from] DiskError),
    /// Neither superblock copy is one.
    #[error("the disk holds no Bullet volume, or both copies of its superblock are damaged")]
    NotBullet,
    /// It holds a volume already, and formatting was not forced.
    #[error("the disk holds a Bullet volume already")]
    AlreadyFormatted,
    /// Too small for an inode table and a block of data.
    #[error("the disk is too small for a volume")]
    TooSmall,
}
