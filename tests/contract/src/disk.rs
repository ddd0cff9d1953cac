//! The contract of `Disk`.

use amoeba_world::{Disk, DiskError};

/// Bytes written are read back, at any offset and size, across resizing and flushing. `disk` is empty (all zeros), at
/// least 64 KiB, and may be scribbled over.
pub fn a_disk_keeps_its_bytes(disk: &dyn Disk) {
    let size = disk.size();
    assert!(size >= 1 << 16, "the contract needs a disk of 64 KiB");
    let mut model = vec![0u8; 1 << 16];
    let mut state = 1u64;
    for round in 0..200 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let offset = (state >> 33) as usize % model.len();
        let count = ((state >> 17) as usize % 3000).min(model.len() - offset);
        let bytes = vec![round as u8 + 1; count];
        assert_eq!(disk.write(offset as u64, &bytes), Ok(()));
        model[offset..offset + count].copy_from_slice(&bytes);
        if round % 50 == 0 {
            assert_eq!(disk.flush(), Ok(()));
        }
    }
    let mut read = vec![0xEE; model.len()];
    assert_eq!(disk.read(0, &mut read), Ok(()));
    assert!(read == model, "what was written is not what is read");
    assert_eq!(disk.read(12_345, &mut read[..1]), Ok(()));
    assert_eq!(read[0], model[12_345]);
    assert_eq!(disk.size(), size, "writing within a disk does not change its size");
}

/// Nothing beyond the end is read or written, also when offset and size overflow; growing gives zeros (or
/// [`DiskError::Full`] on a device that cannot grow), also where there were bytes before shrinking.
pub fn a_disk_refuses_what_lies_beyond_its_end(disk: &dyn Disk) {
    let size = disk.size();
    let mut byte = [0];
    assert_eq!(disk.read(size, &mut byte), Err(DiskError::Full));
    assert_eq!(disk.write(size, &byte), Err(DiskError::Full));
    assert_eq!(disk.write(size - 1, &[7, 7]), Err(DiskError::Full));
    assert_eq!(disk.read(u64::MAX, &mut byte), Err(DiskError::Full));
    assert_eq!(disk.read(size, &mut []), Ok(()), "nothing can be read anywhere up to the end");
    assert_eq!(disk.write(size - 1, &[7]), Ok(()));
    if disk.set_size(size - 700) == Ok(()) {
        assert_eq!(disk.size(), size - 700);
        assert_eq!(disk.read(size - 1, &mut byte), Err(DiskError::Full));
        assert_eq!(disk.set_size(size), Ok(()));
        assert_eq!(disk.read(size - 1, &mut byte), Ok(()));
        assert_eq!(byte, [0], "a disk that grows again must not show what it had");
    }
}
