//! The original's 44-byte head of a process descriptor, which a checkpoint carries.

use amoeba_cap::Capability;
use amoeba_wire::{Malformed, Reader, Writer};

/// Bytes of the head.
pub const HEAD_SIZE: usize = 44;
const ARCHITECTURE_SIZE: usize = 8;

/// A process descriptor in the original's form, without its segments and threads.
///
/// # Source
/// Amoeba 5.3, process_d(L).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassicHead {
    /// CPU type, NUL padded.
    pub architecture: [u8; ARCHITECTURE_SIZE],
    /// The process.
    pub process: Capability,
    /// Its owner.
    pub owner: Capability,
    /// How many segments follow.
    pub segments: u16,
    /// How many threads follow these.
    pub threads: u16,
}

impl ClassicHead {
    /// The head of a process of which nothing can be told in 32 bits.
    pub fn new(architecture: &[u8], process: Capability, owner: Capability) -> ClassicHead {
        let cpu = architecture.split(|&byte| byte == b'-').next().unwrap_or_default();
        let mut name = [0; ARCHITECTURE_SIZE];
        for (to, from) in name.iter_mut().zip(cpu) {
            *to = *from;
        }
        ClassicHead { architecture: name, process, owner, segments: 0, threads: 0 }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(&self.architecture).put_cap(&self.process).put_cap(&self.owner);
        out.put_u16(self.segments).put_u16(self.threads);
        out.finish()
    }

    /// The head of a descriptor in the original's form.
    pub fn parse(bytes: &[u8]) -> Result<ClassicHead, Malformed> {
        let mut input = Reader::new(bytes);
        Ok(ClassicHead {
            architecture: input.array()?,
            process: input.get_cap()?,
            owner: input.get_cap()?,
            segments: input.get_u16()?,
            threads: input.get_u16()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_originals() {
        let process = Capability::from_bytes([1; 16]);
        let owner = Capability::from_bytes([2; 16]);
        let head = ClassicHead::new(b"x86_64-linux", process, owner);
        let mut expected = b"x86_64\0\0".to_vec();
        expected.extend([1; 16]);
        expected.extend([2; 16]);
        expected.extend([0; 4]);
        let bytes = head.encode();
        assert_eq!((bytes.len(), &bytes), (HEAD_SIZE, &expected));
        assert_eq!(ClassicHead::parse(&bytes), Ok(head));
        assert_eq!(ClassicHead::parse(&bytes[1..]), Err(Malformed));
        assert_eq!(&ClassicHead::new(b"longer-than-eight", process, owner).architecture, b"longer\0\0");
    }
}
