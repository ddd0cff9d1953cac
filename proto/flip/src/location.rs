//! Where on a link: a small name that is copied, never allocated.

/// Bytes a location may have.
pub const LOCATION_SIZE_MAX: usize = 32;

/// Where on a link: opaque here, compared byte by byte, at most [`LOCATION_SIZE_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    size: u8,
    /// Zero from `size` on, so that equal locations are equal in every byte.
    bytes: [u8; LOCATION_SIZE_MAX],
}

impl Location {
    /// The location that these bytes name.
    ///
    /// # Panics
    /// When there are more than [`LOCATION_SIZE_MAX`]: a link names its locations itself.
    pub fn new(name: &[u8]) -> Location {
        assert!(name.len() <= LOCATION_SIZE_MAX, "a location has at most {LOCATION_SIZE_MAX} bytes");
        let mut bytes = [0; LOCATION_SIZE_MAX];
        bytes[..name.len()].copy_from_slice(name);
        Location { size: name.len() as u8, bytes }
    }

    /// The bytes that name it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Location({:02x?})", self.as_bytes())
    }
}
