//! A file of packets as programs that analyse networks read it: pcap with nanoseconds, frames of an Ethernet.
//!
//! A FLIP packet is written as on a raw Ethernet: ethertype 0x8146, two bytes of flow control (DATA, no credits), the
//! packet. The addresses are made up: this host is 02:00:00:00:00 and the number of the link, its peers are told apart by
//! four bytes that come of their names. A packet of which only the headers were kept says how long it was.

use std::io::{self, Write};
use std::time::Duration;

/// The first bytes of a file, in the order of the machine that reads it best.
const MAGIC_NANOSECONDS: u32 = 0xA1B2_3C4D;
const LINK_TYPE_ETHERNET: u32 = 1;
/// The most bytes of a packet in the file.
const SNAP_SIZE: u32 = 1 << 16;
const ETHERTYPE: [u8; 2] = [0x81, 0x46];
/// FC_DATA without credits.
const FLOW_CONTROL: [u8; 2] = [0, 0];
const FRAME_HEADER_SIZE: u32 = 16;

/// A file that packets are written to.
pub(super) struct Pcap<W> {
    to: W,
}

/// A packet that crossed a link.
pub(super) struct Packet<'a> {
    pub(super) inward: bool,
    pub(super) link: u16,
    /// Who is at the other end; empty: everybody.
    pub(super) peer: &'a [u8],
    /// Bytes that it had.
    pub(super) size: u32,
    /// As many of them as were kept.
    pub(super) bytes: &'a [u8],
}

impl<W: Write> Pcap<W> {
    /// Writes the head of the file.
    pub(super) fn new(mut to: W) -> io::Result<Pcap<W>> {
        to.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
        to.write_all(&2u16.to_le_bytes())?; // version 2.4
        to.write_all(&4u16.to_le_bytes())?;
        to.write_all(&[0; 8])?; // no time zone, no accuracy
        to.write_all(&SNAP_SIZE.to_le_bytes())?;
        to.write_all(&LINK_TYPE_ETHERNET.to_le_bytes())?;
        Ok(Pcap { to })
    }

    /// Writes a packet that passed at `time` since 1970.
    pub(super) fn write(&mut self, time: Duration, packet: &Packet<'_>) -> io::Result<()> {
        let kept = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX).min(SNAP_SIZE - FRAME_HEADER_SIZE);
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        for number in [
            seconds,
            time.subsec_nanos(),
            FRAME_HEADER_SIZE + kept,
            FRAME_HEADER_SIZE.saturating_add(packet.size.max(kept)),
        ] {
            self.to.write_all(&number.to_le_bytes())?;
        }
        let (us, them) = (our_address(packet.link), address_of(packet.peer));
        let (to, from) = if packet.inward { (us, them) } else { (them, us) };
        for part in [&to[..], &from, &ETHERTYPE, &FLOW_CONTROL, &packet.bytes[..kept as usize]] {
            self.to.write_all(part)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn our_address(link: u16) -> [u8; 6] {
    let [high, low] = link.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

/// FNV-1a over the name: the same peer has the same address in every file.
fn address_of(peer: &[u8]) -> [u8; 6] {
    if peer.is_empty() {
        return [0xFF; 6];
    }
    let hash =
        peer.iter().fold(0x811C_9DC5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    [2, 1, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_as_the_format_says() {
        let mut bytes = Vec::new();
        let mut pcap = Pcap::new(&mut bytes).expect("a vector takes every byte");
        let packet = Packet { inward: true, link: 1, peer: b"bolt", size: 100, bytes: &[9; 40] };
        pcap.write(Duration::new(5, 6), &packet).expect("a vector takes every byte");
        let expected_head =
            [0x4D, 0x3C, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0];
        assert_eq!(bytes[..24], expected_head);
        assert_eq!(bytes[24..40], [5, 0, 0, 0, 6, 0, 0, 0, 56, 0, 0, 0, 116, 0, 0, 0]);
        assert_eq!(bytes[40..46], [2, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[46..48], [2, 1]);
        assert_eq!(bytes[52..56], [0x81, 0x46, 0, 0]);
        assert_eq!(bytes[56..], [9; 40]);
    }

    #[test]
    fn who_sends_to_everybody_sends_to_the_broadcast_address() {
        let mut bytes = Vec::new();
        let mut pcap = Pcap::new(&mut bytes).expect("a vector takes every byte");
        let packet = Packet { inward: false, link: 0, peer: b"", size: 40, bytes: &[9; 40] };
        pcap.write(Duration::ZERO, &packet).expect("a vector takes every byte");
        assert_eq!(bytes[40..52], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 0]);
        assert_ne!(address_of(b"bolt"), address_of(b"anvil"));
    }
}
