//! What is inside the sealed datagrams of the UDP link, byte for byte.
//!
//! ```text
//! PACKET   | 1 | a FLIP packet                                   unreliable, never queued behind others
//! BULK     | 2 | number 8 | a FLIP packet, or nothing            acknowledged, sent again
//! ACK      | 3 | held 4 | next 8 | bits                          about BULK; proto/flow says what they mean
//! HELLO    | 4 | silence 4 | mark 8 | echo 8 | held 4            each second
//! PROBE    | 5 | size 2 | zeros                                  a datagram of this size; is it carried?
//! PROBED   | 6 | size 2                                          it is
//! CONTROL  | 7 | bytes                                           between other parts of the two kernels
//! ```
//!
//! Integers are little-endian. `silence`: milliseconds since the sender last heard the receiver. `mark` comes back as
//! `echo` in the other's next HELLO, which has had it for `held` microseconds: so the sender knows the round trip. A BULK
//! with nothing in it stands for a packet that has become too large for the way: its number has arrived, its packet is
//! lost.
//!
//! # Source
//! Ours.

use amoeba_flow::bulk::Ack;
use amoeba_wire::{Malformed, Reader};

const PACKET: u8 = 1;
const BULK: u8 = 2;
const ACK: u8 = 3;
const HELLO: u8 = 4;
const PROBE: u8 = 5;
const PROBED: u8 = 6;
const CONTROL: u8 = 7;

/// Bytes before the FLIP packet in a BULK.
pub const BULK_HEAD_SIZE: usize = 9;
/// Bytes of a HELLO.
pub const HELLO_SIZE: usize = 25;

/// What an opened datagram means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A FLIP packet that may be lost.
    Packet(&'a [u8]),
    /// A FLIP packet that is sent until it is acknowledged.
    Bulk {
        /// Counts the BULKs of the session, from 0.
        number: u64,
        /// The FLIP packet; empty: there is none any more.
        packet: &'a [u8],
    },
    /// Which BULKs have arrived.
    Ack(Ack<'a>),
    /// The peer is there.
    Hello(Hello),
    /// A datagram of `size` bytes has arrived.
    Probe {
        /// Bytes of the whole datagram.
        size: u16,
    },
    /// A PROBE of `size` bytes has arrived.
    Probed {
        /// Bytes of the whole datagram.
        size: u16,
    },
    /// For another part of the kernel.
    Control(&'a [u8]),
}

/// What a peer says each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Milliseconds since the sender heard the receiver.
    pub silence: u32,
    /// The sender's clock in microseconds, to be sent back; never 0.
    pub mark: u64,
    /// The receiver's last mark; 0: none was heard yet.
    pub echo: u64,
    /// Microseconds since it came.
    pub held: u32,
}

impl<'a> Content<'a> {
    /// The meaning of these bytes.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Content<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.get_u8()?;
        let content = match kind {
            PACKET => return Ok(Content::Packet(reader.rest())),
            BULK => return Ok(Content::Bulk { number: reader.get_u64()?, packet: reader.rest() }),
            ACK => return Ack::parse(reader.rest()).map(Content::Ack),
            PROBE => return Ok(Content::Probe { size: reader.get_u16()? }),
            CONTROL => return Ok(Content::Control(reader.rest())),
            HELLO => Content::Hello(Hello {
                silence: reader.get_u32()?,
                mark: reader.get_u64()?,
                echo: reader.get_u64()?,
                held: reader.get_u32()?,
            }),
            PROBED => Content::Probed { size: reader.get_u16()? },
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(content)
    }
}

/// What comes before the FLIP packet in a PACKET.
pub const PACKET_HEAD: [u8; 1] = [PACKET];
/// What comes before the bytes of a CONTROL.
pub const CONTROL_HEAD: [u8; 1] = [CONTROL];
/// What comes before what [`amoeba_flow::bulk::Inward::ack`] says.
pub const ACK_HEAD: [u8; 1] = [ACK];

/// What comes before the FLIP packet in a BULK.
pub fn bulk_head(number: u64) -> [u8; BULK_HEAD_SIZE] {
    let mut head = [BULK; BULK_HEAD_SIZE];
    head[1..].copy_from_slice(&number.to_le_bytes());
    head
}

/// The content of a PROBE so long that it is sealed in a datagram of `size` bytes.
pub fn probe(size: u16) -> Vec<u8> {
    let mut content = vec![0; usize::from(size) - amoeba_seal::SEALED_OVERHEAD];
    content[0] = PROBE;
    content[1..3].copy_from_slice(&size.to_le_bytes());
    content
}

/// The content of a PROBED.
pub fn probed(size: u16) -> Vec<u8> {
    let [low, high] = size.to_le_bytes();
    vec![PROBED, low, high]
}

impl Hello {
    /// The content of a HELLO.
    pub fn emit(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(HELLO_SIZE);
        content.push(HELLO);
        content.extend_from_slice(&self.silence.to_le_bytes());
        content.extend_from_slice(&self.mark.to_le_bytes());
        content.extend_from_slice(&self.echo.to_le_bytes());
        content.extend_from_slice(&self.held.to_le_bytes());
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_byte_for_byte() {
        let hello = Hello { silence: 1, mark: 2, echo: 3, held: 4 };
        let golden = [4, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
        assert_eq!(hello.emit(), golden);
        assert_eq!(Content::parse(&golden), Ok(Content::Hello(hello)));
        assert_eq!(Content::parse(&[1, 9, 8]), Ok(Content::Packet(&[9, 8])));
        let bulk = [&bulk_head(0x0102)[..], &[7]].concat();
        assert_eq!(bulk, [2, 2, 1, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(Content::parse(&bulk), Ok(Content::Bulk { number: 0x0102, packet: &[7] }));
        let ack = [3, 6, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0b10];
        let held = std::time::Duration::from_micros(6);
        assert_eq!(Content::parse(&ack), Ok(Content::Ack(Ack { held, next: 5, bits: &[2] })));
        assert_eq!(Content::parse(&probe(1452)), Ok(Content::Probe { size: 1452 }));
        assert_eq!(probe(1452).len() + amoeba_seal::SEALED_OVERHEAD, 1452);
        assert_eq!(probed(0x0201), [6, 1, 2]);
        assert_eq!(Content::parse(&probed(9)), Ok(Content::Probed { size: 9 }));
        assert_eq!(Content::parse(&[7, 1]), Ok(Content::Control(&[1])));
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = Content::parse(bytes);
            for kind in PACKET..=CONTROL {
                let bytes = [&[kind][..], bytes].concat();
                if let Ok(Content::Hello(hello)) = Content::parse(&bytes) {
                    assert_eq!(hello.emit(), bytes);
                }
            }
        });
    }
}
