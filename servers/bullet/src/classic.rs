//! The original's 32-bit offsets and sizes.

use amoeba_wire::Status;

/// An offset or a size as the original sent it; negative ones never fit.
pub(crate) fn offset(offset: i32) -> Result<u64, Status> {
    u64::try_from(offset).map_err(|_| Status::STD_ARGBAD)
}

/// A size as the original sends it.
pub(crate) fn size(size: u64) -> Result<i32, Status> {
    i32::try_from(size).map_err(|_| Status::STD_OVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_an_error_and_never_another_number() {
        assert_eq!(offset(i32::MAX), Ok(0x7FFF_FFFF));
        assert_eq!(offset(-1), Err(Status::STD_ARGBAD));
        assert_eq!(size(0x7FFF_FFFF), Ok(i32::MAX));
        assert_eq!(size(0x8000_0000), Err(Status::STD_OVERFLOW));
    }
}
