//! The bytes of a frame.
//!
//! ```text
//! offset size
//!      0    6  destination
//!      6    6  source
//!     12    2  ethertype 0x8146
//!     14    1  what the frame is
//!     15    1  credits: DATA gives so many back, CREDIT adds so many, ABSCREDIT sets them
//!     16       DATA: a FLIP packet
//!              MCREQ: the multicast address in 6 of 8 bytes, then a FLIP address
//!              MCACK, MCNAK: a FLIP address
//! ```
//! An Ethernet pads frames to 60 bytes: a FLIP packet is as long as its header says, and what follows is not looked at.
//!
//! # Source
//! Amoeba 5.3, the Ethernet's part of FLIP.

use amoeba_wire::packet::{Address, ETHERNET_PAYLOAD_MAX, FLIP_HEADER_SIZE};

/// The ethertype of FLIP.
pub const ETHERTYPE: u16 = 0x8146;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER_SIZE: usize = 14;
/// Bytes before the FLIP packet of a DATA frame.
pub const FRAME_HEAD_SIZE: usize = ETHERNET_HEADER_SIZE + 2;
/// The longest head of a frame: a MCREQ.
pub const HEAD_SIZE_MAX: usize = FRAME_HEAD_SIZE + 16;
/// The most bytes of a FLIP packet in a classic frame.
pub const CLASSIC_PACKET_SIZE: usize = FLIP_HEADER_SIZE + ETHERNET_PAYLOAD_MAX;

const DATA: u8 = 0;
const REQCREDIT: u8 = 1;
const CREDIT: u8 = 2;
const MCREQ: u8 = 3;
const MCACK: u8 = 4;
const MCNAK: u8 = 5;
const ABSCREDIT: u8 = 6;

/// A station on an Ethernet, or a group of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Every station.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether this stands for a group of stations.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The Ethernet multicast address for a FLIP address.
    pub fn of_group(address: Address) -> Mac {
        let [_, _, a2, a3, a4, a5, ..] = address.0;
        Mac([0x55, 0x55, a2, a3, a4, a5])
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A frame as it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whom it is for.
    pub to: Mac,
    /// Who sent it.
    pub from: Mac,
    /// What it says.
    pub content: Content<'a>,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A FLIP packet.
    Data {
        /// So many of the credits that the receiver has used are given back.
        credits: u8,
        /// The packet, without what the Ethernet has padded.
        packet: &'a [u8],
    },
    /// How many packets may I send?
    Reqcredit,
    /// So many more.
    Credit(u8),
    /// So many.
    Abscredit(u8),
    /// Please listen to this multicast address: messages for the FLIP address will come there.
    Mcreq {
        /// The Ethernet multicast address.
        group: Mac,
        /// The FLIP address.
        address: Address,
    },
    /// I listen.
    Mcack(Address),
    /// I do not.
    Mcnak(Address),
}

/// Why a frame is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Of another protocol, or of an experiment of the original that nobody speaks.
    #[error("not a frame of FLIP")]
    Foreign,
    /// Shorter than it says.
    #[error("a frame of FLIP that is cut off")]
    Short,
}

impl<'a> Frame<'a> {
    /// The frame in these bytes, which begin with the Ethernet header.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let (header, rest) = bytes.split_first_chunk::<FRAME_HEAD_SIZE>().ok_or(FrameError::Short)?;
        let [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, e0, e1, kind, count] = *header;
        if u16::from_be_bytes([e0, e1]) != ETHERTYPE {
            return Err(FrameError::Foreign);
        }
        let content = match kind {
            DATA => Content::Data { credits: count, packet: trimmed(rest).ok_or(FrameError::Short)? },
            REQCREDIT => Content::Reqcredit,
            CREDIT => Content::Credit(count),
            ABSCREDIT => Content::Abscredit(count),
            MCREQ => {
                let (location, rest) = rest.split_first_chunk::<8>().ok_or(FrameError::Short)?;
                let [a, b, c, d, e, f, _, _] = *location;
                Content::Mcreq { group: Mac([a, b, c, d, e, f]), address: address(rest)? }
            }
            MCACK => Content::Mcack(address(rest)?),
            MCNAK => Content::Mcnak(address(rest)?),
            _ => return Err(FrameError::Foreign),
        };
        let (to, from) = (Mac([t0, t1, t2, t3, t4, t5]), Mac([f0, f1, f2, f3, f4, f5]));
        Ok(Frame { to, from, content })
    }

    /// What comes before the FLIP packet; all of a frame that has none.
    pub fn head(&self) -> Head {
        let (kind, count) = match self.content {
            Content::Data { credits, .. } => (DATA, credits),
            Content::Reqcredit => (REQCREDIT, 0),
            Content::Credit(credits) => (CREDIT, credits),
            Content::Abscredit(credits) => (ABSCREDIT, credits),
            Content::Mcreq { .. } => (MCREQ, 0),
            Content::Mcack(_) => (MCACK, 0),
            Content::Mcnak(_) => (MCNAK, 0),
        };
        let mut head = Head { bytes: [0; HEAD_SIZE_MAX], size: 0 };
        head.put(&self.to.0);
        head.put(&self.from.0);
        head.put(&ETHERTYPE.to_be_bytes());
        head.put(&[kind, count]);
        match self.content {
            Content::Mcreq { group, address } => {
                head.put(&group.0);
                head.put(&[0; 2]);
                head.put(&address.0);
            }
            Content::Mcack(address) | Content::Mcnak(address) => head.put(&address.0),
            _ => {}
        }
        head
    }
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEAD_SIZE_MAX],
    size: u8,
}

impl Head {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }

    fn put(&mut self, bytes: &[u8]) {
        let start = usize::from(self.size);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len() as u8;
    }
}

fn address(bytes: &[u8]) -> Result<Address, FrameError> {
    bytes.first_chunk().map(|bytes| Address(*bytes)).ok_or(FrameError::Short)
}

/// The FLIP packet at the beginning of what may be padded; `None` when it is not whole.
fn trimmed(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(Peek::of(bytes)?.length).ok()?;
    bytes.get(..FLIP_HEADER_SIZE.checked_add(length)?)
}

/// The few fields of a FLIP packet that an Ethernet looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peek {
    pub(crate) to: Address,
    /// Whether it is UNIDATA.
    pub(crate) unidata: bool,
    pub(crate) length: u32,
    pub(crate) offset: u32,
    pub(crate) total: u32,
}

const UNIDATA: u8 = 3;

impl Peek {
    /// `None` when there is no whole header.
    pub(crate) fn of(packet: &[u8]) -> Option<Peek> {
        let header = packet.first_chunk::<FLIP_HEADER_SIZE>()?;
        let big_endian = header[2] & amoeba_wire::packet::BIG_ENDIAN != 0;
        let number = |at: usize| {
            let bytes = *header[at..].first_chunk().expect("the header has four bytes here");
            if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        Some(Peek {
            to: Address(*header[8..].first_chunk().expect("the header has eight bytes here")),
            unidata: header[1] == UNIDATA,
            length: number(28),
            offset: number(32),
            total: number(36),
        })
    }

    /// Whether its message is too large for one classic frame, so that it costs a credit.
    pub(crate) fn is_large(&self) -> bool {
        self.total as usize > ETHERNET_PAYLOAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_parse_come_back_and_nothing_panics() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let kind = bytes.first().copied().unwrap_or(0) % 9;
            let ours = [&[2; 12][..], &[0x81, 0x46, kind], bytes].concat();
            for bytes in [bytes, &ours] {
                let Ok(frame) = Frame::parse(bytes) else { continue };
                let packet = match frame.content {
                    Content::Data { packet, .. } => packet,
                    _ => &[],
                };
                let again = [frame.head().bytes(), packet].concat();
                assert_eq!(Frame::parse(&again), Ok(frame), "what we emit parses");
                assert!(again.len() <= bytes.len());
            }
        });
    }
}
