//! The original's one-way function on 48 bits and its check fields: unkeyed, for original disks, old capabilities
//! and golden vectors. No capability of ours is made with it; see [`crate::secret`].
//!
//! # Source
//! Amoeba 5.3, prv(L) and one_way(L): a 16-round Feistel cipher in the manner of DES over 48-bit blocks, which
//! encrypts zeros under a key made from the input.

use crate::{CheckField, ObjectNumber, PORT_SIZE, Private, Rights};

/// The original F: maps the null port to itself and nothing else to it.
pub fn one_way(input: [u8; PORT_SIZE]) -> [u8; PORT_SIZE] {
    if input == [0; PORT_SIZE] {
        return input;
    }
    let keys = key_schedule(&input);
    let (mut left, mut right) = ([false; 24], [false; 24]); // the initial permutation of zeros is zeros
    for key in &keys {
        let mixed = round(&right, key);
        let next: [bool; 24] = std::array::from_fn(|bit| left[bit] ^ mixed[bit]);
        (left, right) = (right, next);
    }
    let swapped: [bool; 48] = std::array::from_fn(|bit| if bit < 24 { right[bit] } else { left[bit - 24] });
    let mut output = [0; PORT_SIZE];
    for (bit, &from) in FP.iter().enumerate() {
        output[bit / 8] |= u8::from(swapped[usize::from(from)]) << (bit % 8);
    }
    if output == [0; PORT_SIZE] {
        output[0] = 1;
    }
    output
}

/// The private part that an original server makes for `(object, rights)` of an object whose secret is `random`.
pub fn private(object: ObjectNumber, rights: Rights, random: CheckField) -> Private {
    Private { object, rights, check: check_field(rights, random) }
}

/// Whether an original server would accept `private` for an object whose secret is `random`.
pub fn verifies(private: &Private, random: CheckField) -> bool {
    check_field(private.rights, random) == private.check
}

fn check_field(rights: Rights, random: CheckField) -> CheckField {
    if rights == Rights::ALL {
        return random;
    }
    let mut bytes = random.to_bytes();
    bytes[0] ^= rights.bits();
    CheckField::from_bytes(one_way(bytes))
}

fn key_schedule(input: &[u8; PORT_SIZE]) -> [[bool; 48]; 16] {
    let mut array = [false; 64];
    let mut bits = (0..48).map(|bit| input[bit / 8] >> (bit % 8) & 1 == 1);
    for (index, bit) in array.iter_mut().enumerate() {
        if index % 8 < 6 {
            *bit = bits.next().expect("48 input bits for 48 places");
        }
    }
    let mut halves: [bool; 56] = std::array::from_fn(|bit| array[usize::from(PC1[bit]) - 1]);
    std::array::from_fn(|round| {
        halves[..28].rotate_left(ROTATIONS[round]);
        halves[28..].rotate_left(ROTATIONS[round]);
        std::array::from_fn(|bit| halves[usize::from(PC2[bit]) - 1])
    })
}

fn round(right: &[bool; 24], key: &[bool; 48]) -> [bool; 24] {
    let mixed: [bool; 48] = std::array::from_fn(|bit| right[usize::from(E[bit])] ^ key[bit]);
    let mut substituted = [false; 32];
    for (number, group) in mixed.chunks_exact(6).enumerate() {
        let bit = |index: usize| usize::from(group[index]);
        let row = 2 * bit(0) + bit(5);
        let column = 8 * bit(1) + 4 * bit(2) + 2 * bit(3) + bit(4);
        let value = S[number][16 * row + column];
        for index in 0..4 {
            substituted[4 * number + index] = value >> (3 - index) & 1 == 1;
        }
    }
    std::array::from_fn(|bit| substituted[usize::from(P[bit])])
}

const ROTATIONS: [usize; 16] = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1];

#[rustfmt::skip]
const PC1: [u8; 56] = [
    57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36,
    63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4,
];

#[rustfmt::skip]
const PC2: [u8; 48] = [
    14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2,
    41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
];

#[rustfmt::skip]
const FP: [u8; 48] = [
    16, 14, 13, 8, 38, 33, 19, 20, 23, 45, 15, 21, 6, 42, 26, 46, 22, 5, 32, 30, 12, 37, 41, 0,
    40, 24, 27, 1, 17, 11, 25, 44, 9, 43, 2, 34, 36, 4, 29, 35, 18, 10, 7, 31, 3, 39, 47, 28,
];

#[rustfmt::skip]
const E: [u8; 48] = [
    22, 15, 12, 3, 8, 2, 23, 16, 14, 13, 9, 10, 0, 1, 21, 19, 18, 6, 11, 7, 17, 4, 20, 5,
    5, 17, 11, 13, 12, 14, 8, 7, 19, 22, 18, 9, 3, 4, 1, 6, 16, 2, 20, 15, 10, 23, 0, 21,
];

const P: [u8; 24] = [3, 13, 9, 12, 8, 20, 21, 7, 5, 23, 16, 1, 14, 18, 4, 15, 22, 10, 2, 0, 11, 19, 17, 6];

/// The standard S-boxes of FIPS 46, row by row.
#[rustfmt::skip]
const S: [[u8; 64]; 8] = [
    [14, 4, 13, 1, 2, 15, 11, 8, 3, 10, 6, 12, 5, 9, 0, 7, 0, 15, 7, 4, 14, 2, 13, 1, 10, 6, 12, 11, 9, 5, 3, 8,
     4, 1, 14, 8, 13, 6, 2, 11, 15, 12, 9, 7, 3, 10, 5, 0, 15, 12, 8, 2, 4, 9, 1, 7, 5, 11, 3, 14, 10, 0, 6, 13],
    [15, 1, 8, 14, 6, 11, 3, 4, 9, 7, 2, 13, 12, 0, 5, 10, 3, 13, 4, 7, 15, 2, 8, 14, 12, 0, 1, 10, 6, 9, 11, 5,
     0, 14, 7, 11, 10, 4, 13, 1, 5, 8, 12, 6, 9, 3, 2, 15, 13, 8, 10, 1, 3, 15, 4, 2, 11, 6, 7, 12, 0, 5, 14, 9],
    [10, 0, 9, 14, 6, 3, 15, 5, 1, 13, 12, 7, 11, 4, 2, 8, 13, 7, 0, 9, 3, 4, 6, 10, 2, 8, 5, 14, 12, 11, 15, 1,
     13, 6, 4, 9, 8, 15, 3, 0, 11, 1, 2, 12, 5, 10, 14, 7, 1, 10, 13, 0, 6, 9, 8, 7, 4, 15, 14, 3, 11, 5, 2, 12],
    [7, 13, 14, 3, 0, 6, 9, 10, 1, 2, 8, 5, 11, 12, 4, 15, 13, 8, 11, 5, 6, 15, 0, 3, 4, 7, 2, 12, 1, 10, 14, 9,
     10, 6, 9, 0, 12, 11, 7, 13, 15, 1, 3, 14, 5, 2, 8, 4, 3, 15, 0, 6, 10, 1, 13, 8, 9, 4, 5, 11, 12, 7, 2, 14],
    [2, 12, 4, 1, 7, 10, 11, 6, 8, 5, 3, 15, 13, 0, 14, 9, 14, 11, 2, 12, 4, 7, 13, 1, 5, 0, 15, 10, 3, 9, 8, 6,
     4, 2, 1, 11, 10, 13, 7, 8, 15, 9, 12, 5, 6, 3, 0, 14, 11, 8, 12, 7, 1, 14, 2, 13, 6, 15, 0, 9, 10, 4, 5, 3],
    [12, 1, 10, 15, 9, 2, 6, 8, 0, 13, 3, 4, 14, 7, 5, 11, 10, 15, 4, 2, 7, 12, 9, 5, 6, 1, 13, 14, 0, 11, 3, 8,
     9, 14, 15, 5, 2, 8, 12, 3, 7, 0, 4, 10, 1, 13, 11, 6, 4, 3, 2, 12, 9, 5, 15, 10, 11, 14, 1, 7, 6, 0, 8, 13],
    [4, 11, 2, 14, 15, 0, 8, 13, 3, 12, 9, 7, 5, 10, 6, 1, 13, 0, 11, 7, 4, 9, 1, 10, 14, 3, 5, 12, 2, 15, 8, 6,
     1, 4, 11, 13, 12, 3, 7, 14, 10, 15, 6, 8, 0, 5, 9, 2, 6, 11, 13, 8, 1, 4, 10, 7, 9, 5, 0, 15, 14, 2, 3, 12],
    [13, 2, 8, 4, 6, 15, 11, 1, 10, 9, 3, 14, 5, 0, 12, 7, 1, 15, 13, 8, 10, 3, 7, 4, 12, 5, 6, 11, 0, 14, 9, 2,
     7, 11, 4, 1, 9, 12, 14, 2, 0, 6, 10, 13, 15, 3, 5, 8, 2, 1, 14, 7, 4, 10, 8, 13, 15, 12, 9, 0, 3, 5, 6, 11],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_agrees_with_the_vectors() {
        let vectors: [([u8; 6], [u8; 6]); 7] = [
            ([1, 0, 0, 0, 0, 0], [0x0f, 0x89, 0x05, 0xc8, 0xfe, 0xff]),
            ([0, 0, 0, 0, 0, 1], [0xca, 0x32, 0xf8, 0x5a, 0xa5, 0xe6]),
            ([0x11, 0x22, 0x33, 0x44, 0x55, 0x66], [0x5a, 0x69, 0x8f, 0x4a, 0xa6, 0x2b]),
            ([0xff; 6], [0x2a, 0x4a, 0x50, 0xf2, 0xbb, 0xdb]),
            ([0xde, 0xad, 0xbe, 0xef, 0, 1], [0x01, 0xef, 0xee, 0x6d, 0xc7, 0x92]),
            (*b"server", [0xce, 0xa1, 0xef, 0xc0, 0xa4, 0x1d]),
            ([0; 6], [0; 6]),
        ];
        for (input, output) in vectors {
            assert_eq!(one_way(input), output, "F of {input:02x?}");
        }
    }

    #[test]
    fn private_parts_agree_with_the_vectors() {
        let random = CheckField::from_bytes([0x11, 0x22, 0x33, 0x44, 0x55, 0x66]);
        let object = ObjectNumber::new(0x1234).unwrap();
        let vectors: [(u8, [u8; 6]); 4] = [
            (0xff, [0x11, 0x22, 0x33, 0x44, 0x55, 0x66]),
            (0x0f, [0x3b, 0x0c, 0xfb, 0x87, 0x61, 0xa5]),
            (0x02, [0x4d, 0xad, 0x64, 0x91, 0x7e, 0x2b]),
            (0x00, [0x5a, 0x69, 0x8f, 0x4a, 0xa6, 0x2b]),
        ];
        for (rights, check) in vectors {
            let made = private(object, Rights::from_bits_retain(rights), random);
            assert_eq!(made.check.to_bytes(), check, "rights {rights:02x}");
            assert!(verifies(&made, random));
        }
    }
}
