//! The bytes of an image: superblock, inode records, and where a file's data and chunk hashes lie.
//!
//! `docs/bullet.md` has the picture. All integers are little-endian. Nothing here does I/O.

use amoeba_cap::{CheckField, GetPort, ServerSecret};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block, the unit of space.
pub const BLOCK_SIZE: u64 = 4096;
/// Bytes of a chunk, the unit of integrity: each has a hash of its own.
pub const CHUNK_SIZE: u64 = 1 << 20;
/// Bytes of an inode record.
pub(super) const RECORD_SIZE: usize = 64;
/// Bytes of a superblock: one sector, so that a copy is whole or torn but never two halves of one write.
pub(super) const SUPERBLOCK_SIZE: usize = 512;
/// Block at which the inode table starts; the two before it hold the two superblock copies.
pub(super) const TABLE_START: u64 = 2;
/// The most inodes of an image: object numbers have 24 bits. Number 0 is the server itself.
pub const INODE_COUNT_MAX: u32 = 1 << 24;
/// The largest file, in bytes (1 PiB): keeps every sum of sizes far from overflow.
pub const FILE_SIZE_MAX: u64 = 1 << 50;

/// Bytes of a move: an inode number and its record.
const MOVE_SIZE: usize = 4 + RECORD_SIZE;
/// The most moves at once: what the rest of the superblock's block holds.
pub(super) const MOVES_MAX: usize = (BLOCK_SIZE as usize - SUPERBLOCK_SIZE) / MOVE_SIZE;

const MAGIC: [u8; 8] = *b"ambullet";
const VERSION: u32 = 1;
const STATE_FREE: u8 = 0;
const STATE_FILE: u8 = 1;

/// A BLAKE3 hash of data, cut to 128 bits.
pub(super) type Hash = [u8; HASH_SIZE];
/// Bytes of a [`type@Hash`].
pub(super) const HASH_SIZE: usize = 16;

/// The hash of these bytes.
pub(super) fn hash(bytes: &[u8]) -> Hash {
    cut(blake3::hash(bytes))
}

fn cut<const N: usize>(hash: blake3::Hash) -> [u8; N] {
    std::array::from_fn(|index| hash.as_bytes()[index])
}

/// The chunks of a file of `size` bytes.
pub(super) fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_SIZE)
}

/// The blocks of the data of a file of `size` bytes, without its hashes.
pub(super) fn data_blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK_SIZE)
}

/// The bytes of the table of chunk hashes of a file of `size` bytes: none while one hash fits the inode.
pub(super) fn table_size(size: u64) -> u64 {
    if size > CHUNK_SIZE { chunk_count(size) * HASH_SIZE as u64 } else { 0 }
}

/// The blocks of a file of `size` bytes, its table of hashes included.
pub(super) fn file_blocks(size: u64) -> u64 {
    data_blocks(size) + table_size(size).div_ceil(BLOCK_SIZE)
}

/// The hash that goes into the inode, and the table of chunk hashes if the file needs one.
pub(super) fn hash_contents(data: &[u8]) -> (Hash, Vec<u8>) {
    let hashes: Vec<Hash> = data.chunks(CHUNK_SIZE as usize).map(hash).collect();
    let table = if hashes.len() > 1 { hashes.as_flattened().to_vec() } else { Vec::new() };
    (hash_of_hashes(&hashes), table)
}

/// The hash that goes into the inode of a file whose chunks have these.
pub(super) fn hash_of_hashes(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => hash(&[]),
        [only] => *only,
        _ => hash(hashes.as_flattened()),
    }
}

/// First block and inode number in one word, so that files sort by place.
pub(super) fn place_word(first: u64, number: u32) -> u64 {
    first << NUMBER_BITS | u64::from(number)
}

/// The inode number in such a word.
pub(super) fn number_of(word: u64) -> u32 {
    word as u32 & (INODE_COUNT_MAX - 1)
}

/// The first block in such a word.
pub(super) fn first_of(word: u64) -> u64 {
    word >> NUMBER_BITS
}

const NUMBER_BITS: u32 = 24;
const _: () = assert!(INODE_COUNT_MAX == 1 << NUMBER_BITS);
const _: () = assert!(FILE_SIZE_MAX / BLOCK_SIZE <= 1 << (64 - NUMBER_BITS));

/// What the superblock says.
#[derive(Clone)]
pub(super) struct Superblock {
    /// Names the volume; makes records of an older format of the same disk unbelievable.
    pub uuid: [u8; 16],
    /// Counts superblock writes; the valid copy with the larger one is the superblock.
    pub generation: u64,
    /// Blocks of the whole image.
    pub block_count: u64,
    /// Inodes the table has room for, number 0 included.
    pub inode_count: u32,
    /// Inodes whose records were ever initialised; those from here on are unused and never read.
    pub inode_limit: u32,
    /// First block of data.
    pub data_start: u64,
    /// Records up to this commit sequence were flushed with their data; later ones must prove themselves.
    pub checkpoint: u64,
    /// The secret port the server listens on.
    pub get_port: GetPort,
    /// The random of object 0, the server itself.
    pub super_random: CheckField,
    /// The key of the server's check fields.
    pub secret: ServerSecret,
    /// Files that are being moved, with the records they get: in the block of the superblock, behind it.
    pub moves: Vec<(u32, Record)>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    magic: [u8; 8],
    version: U32,
    block_size: U32,
    uuid: [u8; 16],
    generation: U64,
    block_count: U64,
    inode_count: U32,
    inode_limit: U32,
    table_start: U64,
    data_start: U64,
    checkpoint: U64,
    get_port: [u8; 6],
    super_random: [u8; 6],
    reserved: [u8; 4],
    secret: [u8; 32],
    move_count: U32,
    /// BLAKE3 of the moves, cut to 128 bits: moves that are not those were never flushed.
    moves_hash: Hash,
    unused: [u8; 332],
    /// BLAKE3 of all bytes before it.
    check: [u8; 32],
}
const _: () = assert!(size_of::<RawSuperblock>() == SUPERBLOCK_SIZE);

impl Superblock {
    /// This superblock, and behind its 512 bytes the moves.
    pub(super) fn to_block(&self) -> Vec<u8> {
        assert!(self.moves.len() <= MOVES_MAX, "moves fit the block of the superblock");
        let mut block = self.to_bytes().to_vec();
        block.extend(self.moves_bytes());
        block
    }

    fn moves_bytes(&self) -> Vec<u8> {
        let key = self.record_key();
        let bytes = |(number, record): &(u32, Record)| {
            [&number.to_le_bytes()[..], &key.to_bytes(*number, record)].concat()
        };
        self.moves.iter().flat_map(bytes).collect()
    }

    /// The 512 bytes of this superblock.
    pub(super) fn to_bytes(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut raw = RawSuperblock {
            magic: MAGIC,
            version: VERSION.into(),
            block_size: (BLOCK_SIZE as u32).into(),
            uuid: self.uuid,
            generation: self.generation.into(),
            block_count: self.block_count.into(),
            inode_count: self.inode_count.into(),
            inode_limit: self.inode_limit.into(),
            table_start: TABLE_START.into(),
            data_start: self.data_start.into(),
            checkpoint: self.checkpoint.into(),
            get_port: self.get_port.to_bytes(),
            super_random: self.super_random.to_bytes(),
            reserved: [0; 4],
            secret: self.secret.to_bytes(),
            move_count: (self.moves.len() as u32).into(),
            moves_hash: if self.moves.is_empty() { [0; HASH_SIZE] } else { hash(&self.moves_bytes()) },
            unused: [0; 332],
            check: [0; 32],
        };
        raw.check = *blake3::hash(&raw.as_bytes()[..SUPERBLOCK_SIZE - 32]).as_bytes();
        let mut bytes = [0; SUPERBLOCK_SIZE];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The superblock in this block, with its moves if they are those that it was written with.
    pub(super) fn from_block(block: &[u8]) -> Option<Superblock> {
        let (bytes, behind) = block.split_first_chunk::<SUPERBLOCK_SIZE>()?;
        let mut superblock = Superblock::from_bytes(bytes)?;
        let raw = RawSuperblock::ref_from_bytes(bytes).expect("RawSuperblock is 512 unaligned bytes");
        let count = raw.move_count.get() as usize;
        let Some(moves) = behind.get(..count.min(MOVES_MAX) * MOVE_SIZE) else { return Some(superblock) };
        if count > 0 && hash(moves) == raw.moves_hash {
            let key = superblock.record_key();
            let parse = |bytes: &[u8]| {
                let (number, record) = bytes.split_first_chunk().expect("a move has a number");
                let number = u32::from_le_bytes(*number);
                match key.slot(number, record.try_into().expect("and a record")) {
                    Slot::File(record) if (1..superblock.inode_limit).contains(&number) => {
                        Some((number, record))
                    }
                    _ => None,
                }
            };
            superblock.moves = moves.chunks_exact(MOVE_SIZE).filter_map(parse).collect();
        }
        Some(superblock)
    }

    /// The superblock in these bytes, without its moves; `None` unless its check and every one of its bounds hold.
    pub(super) fn from_bytes(bytes: &[u8; SUPERBLOCK_SIZE]) -> Option<Superblock> {
        let raw = RawSuperblock::ref_from_bytes(bytes).expect("RawSuperblock is 512 unaligned bytes");
        if raw.magic != MAGIC || raw.version.get() != VERSION {
            return None;
        }
        if raw.check != *blake3::hash(&bytes[..SUPERBLOCK_SIZE - 32]).as_bytes() {
            return None;
        }
        let superblock = Superblock {
            uuid: raw.uuid,
            generation: raw.generation.get(),
            block_count: raw.block_count.get(),
            inode_count: raw.inode_count.get(),
            inode_limit: raw.inode_limit.get(),
            data_start: raw.data_start.get(),
            checkpoint: raw.checkpoint.get(),
            get_port: GetPort::from_bytes(raw.get_port),
            super_random: CheckField::from_bytes(raw.super_random),
            secret: ServerSecret::from_bytes(raw.secret),
            moves: Vec::new(),
        };
        let sound = u64::from(raw.block_size.get()) == BLOCK_SIZE
            && raw.table_start.get() == TABLE_START
            && superblock.inode_count <= INODE_COUNT_MAX
            && (1..=superblock.inode_count).contains(&superblock.inode_limit)
            && superblock.data_start == data_start(superblock.inode_count)
            && superblock.data_start <= superblock.block_count
            && superblock.block_count <= FILE_SIZE_MAX / BLOCK_SIZE
            && superblock.generation < u64::MAX
            && superblock.checkpoint < u64::MAX / 2
            && !superblock.get_port.is_null();
        sound.then_some(superblock)
    }

    /// Makes and verifies the check of this volume's inode records.
    pub(super) fn record_key(&self) -> RecordKey {
        RecordKey(blake3::derive_key("amoeba bullet inode record 1", &self.uuid))
    }
}

/// The first block behind a table of `inode_count` records.
pub(super) fn data_start(inode_count: u32) -> u64 {
    TABLE_START + (u64::from(inode_count) * RECORD_SIZE as u64).div_ceil(BLOCK_SIZE)
}

/// Where the record of inode `number` lies, in bytes from the start of the image.
pub(super) fn record_offset(number: u32) -> u64 {
    TABLE_START * BLOCK_SIZE + u64::from(number) * RECORD_SIZE as u64
}

/// A committed file, as its inode record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The file's random, from which its check fields come.
    pub random: CheckField,
    /// Bytes of the file.
    pub size: u64,
    /// First block; 0 for an empty file.
    pub first: u64,
    /// The account that owns it; 0 for none.
    pub owner: u64,
    /// Which commit wrote it; no two commits of a volume's life share a number.
    pub sequence: u64,
    /// The hash of the data (one chunk) or of the table of chunk hashes.
    pub hash: Hash,
}

/// What 64 bytes of the table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Unused: all zeros.
    Free,
    /// A file.
    File(Record),
    /// Torn or damaged: neither zeros nor a record that this volume wrote for this number.
    Damaged,
}

/// The key of a volume's record checks.
pub(super) struct RecordKey([u8; 32]);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecord {
    state: u8,
    /// Room for flags; zero.
    flags: u8,
    random: [u8; 6],
    size: U64,
    first: U64,
    owner: U64,
    sequence: U64,
    hash: Hash,
    /// Keyed BLAKE3 of the inode number and all bytes before it, cut to 64 bits: a torn or misplaced record
    /// never counts.
    check: [u8; 8],
}
const _: () = assert!(size_of::<RawRecord>() == RECORD_SIZE);

impl RecordKey {
    /// The 64 bytes of `record` as inode `number`.
    pub(super) fn to_bytes(&self, number: u32, record: &Record) -> [u8; RECORD_SIZE] {
        let mut raw = RawRecord {
            state: STATE_FILE,
            flags: 0,
            random: record.random.to_bytes(),
            size: record.size.into(),
            first: record.first.into(),
            owner: record.owner.into(),
            sequence: record.sequence.into(),
            hash: record.hash,
            check: [0; 8],
        };
        raw.check = self.check(number, raw.as_bytes());
        let mut bytes = [0; RECORD_SIZE];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// What these 64 bytes are at the place of inode `number`.
    pub(super) fn slot(&self, number: u32, bytes: &[u8; RECORD_SIZE]) -> Slot {
        let raw = RawRecord::ref_from_bytes(bytes).expect("RawRecord is 64 unaligned bytes");
        if raw.state == STATE_FREE && bytes.iter().all(|&byte| byte == 0) {
            return Slot::Free;
        }
        if raw.state != STATE_FILE || raw.check != self.check(number, bytes) {
            return Slot::Damaged;
        }
        Slot::File(Record {
            random: CheckField::from_bytes(raw.random),
            size: raw.size.get(),
            first: raw.first.get(),
            owner: raw.owner.get(),
            sequence: raw.sequence.get(),
            hash: raw.hash,
        })
    }

    fn check(&self, number: u32, bytes: &[u8]) -> [u8; 8] {
        // In one piece: a start checks millions of these.
        let mut input = [0; RECORD_SIZE - 4];
        input[..4].copy_from_slice(&number.to_le_bytes());
        input[4..].copy_from_slice(&bytes[..RECORD_SIZE - 8]);
        cut(blake3::keyed_hash(&self.0, &input))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn superblock() -> Superblock {
        Superblock {
            uuid: [7; 16],
            generation: 3,
            block_count: 1000,
            inode_count: 128,
            inode_limit: 64,
            data_start: data_start(128),
            checkpoint: 9,
            get_port: GetPort::from_bytes([1; 6]),
            super_random: CheckField::from_bytes([2; 6]),
            secret: ServerSecret::from_bytes([3; 32]),
            moves: Vec::new(),
        }
    }

    #[test]
    fn moves_count_only_whole() {
        let record = Record {
            random: CheckField::from_bytes([5; 6]),
            size: 1,
            first: 9,
            owner: 0,
            sequence: 1,
            hash: [0; 16],
        };
        let moves: Vec<_> = (1..=MOVES_MAX as u32).map(|number| (number, record)).collect();
        let block = Superblock { moves: moves.clone(), ..superblock() }.to_block();
        assert!(block.len() <= BLOCK_SIZE as usize);
        assert_eq!(block[128..132], [52, 0, 0, 0]);
        assert_eq!(block[512..518], [1, 0, 0, 0, 1, 0]);
        assert_eq!(Superblock::from_block(&block).unwrap().moves, moves);
        for place in 512..block.len() {
            let mut torn = block.clone();
            torn[place] ^= 1;
            assert_eq!(Superblock::from_block(&torn).unwrap().moves, []);
        }
        assert_eq!(Superblock::from_block(&superblock().to_block()).unwrap().moves, []);
        assert_eq!(Superblock::from_block(&block[..512]).unwrap().moves, []);
    }

    #[test]
    fn the_superblock_lies_where_the_chapter_says() {
        let bytes = superblock().to_bytes();
        assert_eq!(&bytes[..8], b"ambullet");
        assert_eq!(bytes[8..16], [1, 0, 0, 0, 0, 16, 0, 0]);
        assert_eq!(bytes[32..48], [3, 0, 0, 0, 0, 0, 0, 0, 0xE8, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[48..64], [128, 0, 0, 0, 64, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[64..80], [4, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[80..96], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0]);
        assert_eq!(bytes[96..128], [3; 32]);
        assert_eq!(Superblock::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn a_record_lies_where_the_chapter_says_and_counts_only_in_its_place() {
        let key = superblock().record_key();
        let record = Record {
            random: CheckField::from_bytes([5; 6]),
            size: 0x0102,
            first: 0x0304,
            owner: 6,
            sequence: 7,
            hash: [8; 16],
        };
        let bytes = key.to_bytes(11, &record);
        assert_eq!(bytes[..16], [1, 0, 5, 5, 5, 5, 5, 5, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..32], [4, 3, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[32..40], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[40..56], [8; 16]);
        assert_eq!(key.slot(11, &bytes), Slot::File(record));
        assert_eq!(key.slot(12, &bytes), Slot::Damaged);
        assert_eq!(key.slot(12, &[0; RECORD_SIZE]), Slot::Free);
    }

    #[test]
    fn a_file_of_one_chunk_needs_no_table() {
        assert_eq!(file_blocks(0), 0);
        assert_eq!(file_blocks(1), 1);
        assert_eq!(file_blocks(CHUNK_SIZE), 256);
        assert_eq!(file_blocks(CHUNK_SIZE + 1), 258);
        assert!(file_blocks(FILE_SIZE_MAX) > FILE_SIZE_MAX / BLOCK_SIZE);
    }

    #[test]
    fn no_bytes_panic() {
        let key = superblock().record_key();
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(bytes) = bytes.first_chunk() {
                key.slot(1, bytes);
            }
            let mut whole = superblock().to_bytes();
            let count = bytes.len().min(whole.len());
            whole[..count].copy_from_slice(&bytes[..count]);
            let _ = Superblock::from_bytes(&whole).is_some();
            // Also with a check that holds, so that the bounds behind it are tried.
            let check = *blake3::hash(&whole[..480]).as_bytes();
            whole[480..].copy_from_slice(&check);
            let _ = Superblock::from_bytes(&whole).is_some();
            let mut block = whole.to_vec();
            block.extend(bytes);
            if let Some(superblock) = Superblock::from_block(&block) {
                assert!(superblock.moves.len() <= MOVES_MAX);
            }
        });
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(bit in 0usize..SUPERBLOCK_SIZE * 8, record_bit in 0usize..RECORD_SIZE * 8) {
            let mut bytes = superblock().to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Superblock::from_bytes(&bytes).is_none());
            let key = superblock().record_key();
            let record = Record {
                random: CheckField::NULL, size: 1, first: 9, owner: 0, sequence: 1, hash: [0; 16],
            };
            let mut bytes = key.to_bytes(1, &record);
            bytes[record_bit / 8] ^= 1 << (record_bit % 8);
            prop_assert_eq!(key.slot(1, &bytes), Slot::Damaged);
        }
    }
}
