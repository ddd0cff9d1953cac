//! A bit that turned over on the way.

use crate::packet::ETHERNET_HEADER_SIZE;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const IPV6_HEADER_SIZE: usize = 40;
const UDP: u8 = 17;
const UDP_HEADER_SIZE: usize = 8;

/// Turns over a bit of what a UDP datagram carries (the bit `number` modulo their count) and mends the datagram's checksum,
/// so that only the program behind it can notice. False: the frame holds no such datagram, and a network card would
/// have dropped it.
pub(super) fn damage(frame: &mut [u8], number: u64) -> bool {
    let Some(datagram) = udp_datagram(frame) else { return false };
    let bits = (datagram.len() - UDP_HEADER_SIZE) as u64 * 8;
    if bits == 0 {
        return false;
    }
    let bit = number % bits;
    let byte = UDP_HEADER_SIZE + usize::try_from(bit / 8).expect("a datagram is short");
    let word_of = |datagram: &[u8]| {
        let at = byte & !1;
        u16::from_be_bytes([datagram[at], datagram.get(at + 1).copied().unwrap_or(0)])
    };
    let before = word_of(datagram);
    datagram[byte] ^= 1 << (bit % 8);
    let after = word_of(datagram);
    let checksum = u16::from_be_bytes([datagram[6], datagram[7]]);
    if checksum != 0 {
        datagram[6..8].copy_from_slice(&mended(checksum, before, after).to_be_bytes());
    }
    true
}

/// The checksum after one of the words that it sums has changed (RFC 1624). Zero, which means none, is sent as its other
/// form.
fn mended(checksum: u16, before: u16, after: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The UDP datagram in a frame, its header included.
fn udp_datagram(frame: &mut [u8]) -> Option<&mut [u8]> {
    let (header, packet) = frame.split_at_mut_checked(ETHERNET_HEADER_SIZE)?;
    let start = match [header[12], header[13]] {
        IPV4 => {
            let &[first, _, _, _, _, _, fragment_high, fragment_low, _, protocol, ..] = &*packet else {
                return None;
            };
            let whole = fragment_high & 0x3f == 0 && fragment_low == 0;
            (first >> 4 == 4 && protocol == UDP && whole).then_some(usize::from(first & 15) * 4)?
        }
        IPV6 => (*packet.get(6)? == UDP).then_some(IPV6_HEADER_SIZE)?,
        _ => return None,
    };
    let datagram = packet.get_mut(start..)?;
    let size = usize::from(u16::from_be_bytes([*datagram.get(4)?, *datagram.get(5)?]));
    if size < UDP_HEADER_SIZE { None } else { datagram.get_mut(..size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum that a receiver makes over addresses, protocol, length and datagram; all ones when it is right.
    fn sum(frame: &[u8]) -> u16 {
        let packet = &frame[ETHERNET_HEADER_SIZE..];
        let (start, addresses) = if frame[12..14] == IPV4 { (20, 12..20) } else { (40, 8..40) };
        let datagram = &packet[start..];
        let mut bytes = packet[addresses].to_vec();
        bytes.extend([0, UDP]);
        bytes.extend((datagram.len() as u16).to_be_bytes());
        bytes.extend(datagram);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes.chunks(2).fold(0u32, |sum, word| {
            let sum = sum + u32::from(u16::from_be_bytes([word[0], word[1]]));
            (sum & 0xffff) + (sum >> 16)
        }) as u16
    }

    fn frame(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(kind);
        let size = (UDP_HEADER_SIZE + payload.len()) as u16;
        if kind == IPV4 {
            frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0]);
            frame.extend([10, 77, 0, 1, 10, 77, 0, 2]);
        } else {
            frame.extend([0x60, 0, 0, 0, 0, 0, UDP, 64]);
            frame.extend([0xfe; 32]);
        }
        frame.extend([0x14, 0xc9, 0x14, 0xc9]);
        frame.extend(size.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        let checksum = match !sum(&frame) {
            0 => 0xffff,
            checksum => checksum,
        };
        let at = frame.len() - payload.len() - 2;
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    #[test]
    fn a_damaged_datagram_has_one_other_bit_and_a_right_checksum() {
        for kind in [IPV4, IPV6] {
            for payload in [&b"odd"[..], b"even", &[0; 1], &[0xff; 64]] {
                for number in 0..600 {
                    let mut damaged = frame(kind, payload);
                    assert_eq!(sum(&damaged), 0xffff);
                    assert!(damage(&mut damaged, number));
                    assert_eq!(sum(&damaged), 0xffff, "{payload:?} {number}");
                    let other = &damaged[damaged.len() - payload.len()..];
                    let bits: u32 = payload.iter().zip(other).map(|(a, b)| (a ^ b).count_ones()).sum();
                    assert_eq!(bits, 1);
                }
            }
        }
    }

    #[test]
    fn what_carries_nothing_of_udp_is_not_damaged() {
        assert!(!damage(&mut frame(IPV4, b""), 3));
        let mut fragment = frame(IPV4, b"data");
        fragment[ETHERNET_HEADER_SIZE + 6] = 0x20;
        assert!(!damage(&mut fragment, 3));
        let mut flip = frame(IPV4, b"data");
        flip[12..14].copy_from_slice(&[0x81, 0x46]);
        assert!(!damage(&mut flip, 3));
    }

    #[test]
    fn no_frame_makes_it_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            for kind in [None, Some(IPV4), Some(IPV6)] {
                let mut frame = bytes.to_vec();
                if let Some(kind) = kind.filter(|_| bytes.len() >= ETHERNET_HEADER_SIZE) {
                    frame[12..14].copy_from_slice(&kind);
                }
                damage(&mut frame, bytes.len() as u64 * 7);
            }
        });
    }
}
