//! What a kernel hands to a process with the socket of a flow.

use amoeba_flow::Way;
use amoeba_seal::{KEYS_SIZE, Keys, Session};
use amoeba_threads::Instant;
use amoeba_wire::{Malformed, Reader};

/// Bytes of a [`Handed`].
pub(crate) const HANDED_SIZE: usize = 20 + KEYS_SIZE;

/// The flow of a process.
///
/// ```text
/// | flow 8 | receiver 4 | datagram size 4 | window 4 | keys 65 |     little-endian
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    /// What the kernel calls it.
    pub(crate) id: u64,
    /// What both ends call it in their datagrams.
    pub(crate) receiver: u32,
    /// The way to the other end.
    pub(crate) way: Way,
    /// Known to the two ends and their kernels alone.
    pub(crate) keys: Keys,
}

impl Handed {
    /// The bytes of a frame.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let four = |size: usize| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(HANDED_SIZE);
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.receiver.to_le_bytes());
        bytes.extend_from_slice(&four(self.way.datagram_size));
        bytes.extend_from_slice(&four(self.way.window));
        bytes.extend_from_slice(&self.keys.to_bytes());
        bytes
    }

    /// The flow in these bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Handed, Malformed> {
        let mut reader = Reader::new(bytes);
        let (id, receiver) = (reader.get_u64()?, reader.get_u32()?);
        let way = Way { datagram_size: size(&mut reader)?, window: size(&mut reader)? };
        let keys = Keys::from_bytes(&reader.array()?).ok_or(Malformed)?;
        if reader.rest().is_empty() { Ok(Handed { id, receiver, way, keys }) } else { Err(Malformed) }
    }

    /// The session of this end.
    pub(crate) fn session(&self, now: Instant) -> Session {
        Session::new(now, &self.keys, self.receiver)
    }
}

fn size(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    usize::try_from(reader.get_u32()?).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use amoeba_seal::{Suite, flow_keys};

    use super::*;
    use crate::OsEntropy;

    #[test]
    fn what_is_handed_comes_back() {
        let (keys, _) = flow_keys(&OsEntropy, Suite::Aes256Gcm);
        let handed = Handed { id: 7, receiver: 8, way: Way { datagram_size: 1452, window: 9 }, keys };
        let bytes = handed.to_bytes();
        assert_eq!(bytes.len(), HANDED_SIZE);
        let again = Handed::parse(&bytes).unwrap();
        assert_eq!((again.id, again.receiver, again.way), (7, 8, handed.way));
        assert_eq!(again.keys.to_bytes(), handed.keys.to_bytes());
        assert!(Handed::parse(&bytes[1..]).is_err() && Handed::parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn any_bytes_are_what_they_say_or_nothing() {
        bolero::check!().with_max_len(2 * HANDED_SIZE).for_each(|bytes: &[u8]| {
            if let Ok(handed) = Handed::parse(bytes) {
                assert_eq!(handed.to_bytes(), bytes);
            }
        });
    }
}
