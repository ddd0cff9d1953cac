//! A disk: bytes at offsets, and a flush.

/// A disk did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The medium failed. What was written since the last flush may or may not be there.
    #[error("the disk failed")]
    Failed,
    /// Beyond the end of the disk, or no room to grow.
    #[error("no space on the disk")]
    Full,
}

/// An image file or a block device. Several threads may use it at once; overlapping concurrent writes are the
/// caller's mistake.
///
/// Nothing written is durable before [`Disk::flush`] has returned `Ok`, and until then any part of it may be: whole
/// sectors in any order, and one sector torn. After a failed flush the contents of everything written since the last
/// good one are unknown: refuse further commits rather than lie.
pub trait Disk: Send + Sync {
    /// Bytes of this disk.
    fn size(&self) -> u64;
    /// Grows or shrinks it; new bytes are zeros. A block device cannot: [`DiskError::Full`].
    fn set_size(&self, size: u64) -> Result<(), DiskError>;
    /// Fills `bytes` from `offset`; reading beyond the end is [`DiskError::Full`].
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError>;
    /// Writes `bytes` at `offset`; writing beyond the end is [`DiskError::Full`].
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Makes every write that has returned durable.
    fn flush(&self) -> Result<(), DiskError>;
    /// Begins to carry what was written to this range to the medium, so that a flush finds less to do; says nothing
    /// about whether it arrives.
    fn begin(&self, offset: u64, size: u64) {
        let _ = (offset, size);
    }
    /// Makes later writes to this range cheap, where a disk can: space that was never written costs a file system a
    /// commit of its own at the first write. What lies there, if it was written, stays; nobody may write there
    /// meanwhile. False: this disk gains nothing by it.
    ///
    /// # Errors
    /// Full, when that would leave the host with too little space; Failed. Neither harms what is there.
    fn prepare(&self, offset: u64, size: u64) -> Result<bool, DiskError> {
        let _ = (offset, size);
        Ok(false)
    }
}
