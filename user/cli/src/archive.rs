//! The archive of a host's services, as `amoeba backup` writes and `amoeba restore` reads it: a stream of records, each of
//! them checked together with all before it.
//!
//! ```text
//! archive  "AMBACKUP" | version u32 = 1 | records
//! record   kind u8 | size u32 | body | check 16
//! ```
//! Integers are little-endian. The check is the first half of the BLAKE3 of everything since the beginning of the archive, up
//! to the check: so a flipped bit, a lost, doubled or displaced record and a cut are noticed where they are.
//! `docs/backup.md` has the bodies.

use std::io::{self, Read, Write};

use amoeba_wire::{Malformed, Reader as Fields, Writer as Emit};

/// Bytes of a file in one record.
pub const PIECE_SIZE: usize = 1 << 20;
/// Bytes of the body of a record.
pub const BODY_SIZE_MAX: usize = 2 << 20;
/// The version of the archives that this module writes.
pub const ARCHIVE_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"AMBACKUP";
const CHECK_SIZE: usize = 16;
const NAME_MAX: usize = 255;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It does not begin as one.
    #[error("this is no archive of `amoeba backup`")]
    NoArchive,
    /// A later program wrote it.
    #[error("the archive is of version {0}, this program reads {ARCHIVE_VERSION}")]
    Version(u32),
    /// It ends too early.
    #[error("the archive is cut off after {0} bytes: nothing of it can be trusted to be all")]
    Cut(u64),
    /// A check is wrong, or a body breaks its layout.
    #[error("the archive is damaged {0} bytes from its beginning")]
    Damaged(u64),
    /// It cannot be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file server's, as [`Record::Files`] has it.
#[derive(Clone, PartialEq, Eq)]
pub struct FileService {
    /// The secret port it listens on.
    pub get_port: [u8; 6],
    /// The random of object 0.
    pub random: [u8; 6],
    /// The key of its check fields.
    pub secret: [u8; 32],
    /// Bytes of its volume that files can use.
    pub size: u64,
    /// Files it had room for.
    pub files_max: u64,
}

/// A file, as [`Record::File`] has it; its bytes follow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileHead {
    /// Its object number.
    pub number: u32,
    /// What its check fields are made from.
    pub random: [u8; 6],
    /// The account it belongs to; 0 for none.
    pub owner: u64,
    /// Bytes.
    pub size: u64,
}

/// How much there was, so that what is missing is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Files that are in the archive.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were destroyed while the archive was written, or could not be read; their beginnings may be in it.
    pub destroyed: u64,
    /// Pages of the directory service.
    pub pages: u64,
}

/// A record.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// Whose archive it is, and when it was begun: nanoseconds since 1970.
    About {
        /// The host.
        host: String,
        /// The program's version.
        program: String,
        /// When.
        time: u64,
    },
    /// A file of the state directory.
    State {
        /// Its name.
        name: String,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// A page of the directory service, as class directory's `export` gives it.
    Page(Vec<u8>),
    /// The file server: its files follow.
    Files(FileService),
    /// A file: its bytes follow, in pieces.
    File(FileHead),
    /// Some of a file's bytes, up to [`PIECE_SIZE`].
    Piece(Vec<u8>),
    /// The file was destroyed, or could not be read, before all of its bytes were there.
    Destroyed,
    /// That was all.
    End(Totals),
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::About { .. } => 1,
            Record::State { .. } => 2,
            Record::Page(_) => 3,
            Record::Files(_) => 4,
            Record::File(_) => 5,
            Record::Piece(_) => 6,
            Record::Destroyed => 7,
            Record::End(_) => 8,
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut emit = Emit::new();
        match self {
            Record::About { host, program, time } => {
                emit.put_u64(*time).put_bytes(host.as_bytes()).put_bytes(program.as_bytes());
            }
            Record::State { name, bytes } => {
                emit.put_bytes(name.as_bytes()).put_bytes(bytes);
            }
            Record::Page(bytes) | Record::Piece(bytes) => return bytes.clone(),
            Record::Files(service) => {
                emit.raw(&service.get_port).raw(&service.random).raw(&service.secret);
                emit.put_u64(service.size).put_u64(service.files_max);
            }
            Record::File(file) => {
                emit.put_u32(file.number).raw(&file.random).put_u64(file.owner).put_u64(file.size);
            }
            Record::Destroyed => {}
            Record::End(totals) => {
                emit.put_u64(totals.files)
                    .put_u64(totals.bytes)
                    .put_u64(totals.destroyed)
                    .put_u64(totals.pages);
            }
        }
        emit.finish()
    }

    fn parse(kind: u8, body: Vec<u8>) -> Result<Record, Malformed> {
        let mut fields = Fields::new(&body);
        let text = |fields: &mut Fields<'_>| {
            String::from_utf8(fields.get_bytes(NAME_MAX)?.to_vec()).map_err(|_| Malformed)
        };
        let record = match kind {
            1 => {
                let time = fields.get_u64()?;
                Record::About { host: text(&mut fields)?, program: text(&mut fields)?, time }
            }
            2 => Record::State { name: text(&mut fields)?, bytes: fields.get_bytes(BODY_SIZE_MAX)?.to_vec() },
            3 => return Ok(Record::Page(body)),
            4 => Record::Files(FileService {
                get_port: fields.array()?,
                random: fields.array()?,
                secret: fields.array()?,
                size: fields.get_u64()?,
                files_max: fields.get_u64()?,
            }),
            5 => Record::File(FileHead {
                number: fields.get_u32()?,
                random: fields.array()?,
                owner: fields.get_u64()?,
                size: fields.get_u64()?,
            }),
            6 => return Ok(Record::Piece(body)),
            7 => Record::Destroyed,
            8 => Record::End(Totals {
                files: fields.get_u64()?,
                bytes: fields.get_u64()?,
                destroyed: fields.get_u64()?,
                pages: fields.get_u64()?,
            }),
            _ => return Err(Malformed),
        };
        fields.end()?;
        Ok(record)
    }
}

/// Writes an archive, front to back.
pub struct ArchiveWriter<W> {
    to: W,
    sum: blake3::Hasher,
    totals: Totals,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// `to` takes nothing.
    pub fn new(to: W) -> io::Result<ArchiveWriter<W>> {
        let mut writer = ArchiveWriter { to, sum: blake3::Hasher::new(), totals: Totals::default() };
        writer.raw(MAGIC)?;
        writer.raw(&ARCHIVE_VERSION.to_le_bytes())?;
        Ok(writer)
    }

    /// Appends a record. What it counts for is counted.
    ///
    /// # Errors
    /// `to` takes nothing more.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Page(_) => self.totals.pages += 1,
            Record::File(file) => {
                (self.totals.files, self.totals.bytes) =
                    (self.totals.files + 1, self.totals.bytes + file.size);
            }
            _ => {}
        }
        let body = record.body();
        assert!(body.len() <= BODY_SIZE_MAX, "records are made of bounded parts");
        self.raw(&[record.kind()])?;
        self.raw(&(body.len() as u32).to_le_bytes())?;
        self.raw(&body)?;
        let check = check(&self.sum);
        self.raw(&check)
    }

    /// Says that the file begun last was destroyed or cannot be read.
    ///
    /// # Errors
    /// `to` takes nothing more.
    pub fn destroyed(&mut self, file: &FileHead) -> io::Result<()> {
        self.totals.files -= 1;
        self.totals.bytes -= file.size;
        self.totals.destroyed += 1;
        self.write(&Record::Destroyed)
    }

    /// Ends the archive, and says what is in it.
    ///
    /// # Errors
    /// `to` takes nothing more.
    pub fn finish(mut self) -> io::Result<(W, Totals)> {
        let totals = self.totals;
        self.write(&Record::End(totals))?;
        self.to.flush()?;
        Ok((self.to, totals))
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.to.write_all(bytes)
    }
}

/// Reads an archive, front to back.
pub struct ArchiveReader<R> {
    from: R,
    sum: blake3::Hasher,
    offset: u64,
    totals: Totals,
    /// What is left of the file at hand; its size.
    left: Option<(u64, u64)>,
    ended: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// It is no archive, or one of a later program.
    pub fn new(from: R) -> Result<ArchiveReader<R>, ArchiveError> {
        let (sum, totals) = (blake3::Hasher::new(), Totals::default());
        let mut reader = ArchiveReader { from, sum, offset: 0, totals, left: None, ended: false };
        let mut magic = [0; 8];
        match reader.raw(&mut magic) {
            Err(ArchiveError::Cut(_)) => return Err(ArchiveError::NoArchive),
            read => read?,
        }
        if magic != *MAGIC {
            return Err(ArchiveError::NoArchive);
        }
        let mut version = [0; 4];
        reader.raw(&mut version)?;
        match u32::from_le_bytes(version) {
            ARCHIVE_VERSION => Ok(reader),
            version => Err(ArchiveError::Version(version)),
        }
    }

    /// The next record; `None` after the end. Files come whole: the pieces behind a [`Record::File`] have its size, or
    /// [`Record::Destroyed`] ends them.
    ///
    /// # Errors
    /// The archive is damaged or cut.
    pub fn read(&mut self) -> Result<Option<Record>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let begin = self.offset;
        let damaged = || ArchiveError::Damaged(begin);
        let mut head = [0; 5];
        self.raw(&mut head)?;
        let [kind, size @ ..] = head;
        let size = u32::from_le_bytes(size) as usize;
        if size > BODY_SIZE_MAX {
            return Err(damaged());
        }
        let mut body = vec![0; size];
        self.raw(&mut body)?;
        let expected = check(&self.sum);
        let mut found = [0; CHECK_SIZE];
        self.raw(&mut found)?;
        if found != expected {
            return Err(damaged());
        }
        let record = Record::parse(kind, body).map_err(|_| damaged())?;
        self.count(&record).map_err(|Malformed| damaged())?;
        Ok(Some(record))
    }

    /// Whether the records make sense one after the other.
    fn count(&mut self, record: &Record) -> Result<(), Malformed> {
        match (record, self.left) {
            (Record::Piece(bytes), Some((left, size))) => {
                let left = left.checked_sub(bytes.len() as u64).ok_or(Malformed)?;
                self.left = Some((left, size)).filter(|_| left > 0);
                if left == 0 {
                    (self.totals.files, self.totals.bytes) =
                        (self.totals.files + 1, self.totals.bytes + size);
                }
            }
            (Record::Destroyed, Some(_)) => {
                self.left = None;
                self.totals.destroyed += 1;
            }
            (Record::Piece(_) | Record::Destroyed, None) | (_, Some(_)) => return Err(Malformed),
            (Record::File(file), None) if file.size == 0 => self.totals.files += 1,
            (Record::File(file), None) => self.left = Some((file.size, file.size)),
            (Record::Page(_), None) => self.totals.pages += 1,
            (Record::End(totals), None) if *totals != self.totals => return Err(Malformed),
            (Record::End(_), None) => self.ended = true,
            _ => {}
        }
        Ok(())
    }

    fn raw(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Cut(self.offset),
            _ => error.into(),
        })?;
        self.sum.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn check(sum: &blake3::Hasher) -> [u8; CHECK_SIZE] {
    let mut check = [0; CHECK_SIZE];
    sum.finalize_xof().fill(&mut check);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let head = |number, size| FileHead { number, random: [1, 2, 3, 4, 5, 6], owner: 9, size };
        vec![
            Record::About { host: "anvil".into(), program: "0.1.0".into(), time: 7 },
            Record::State { name: "system.secret".into(), bytes: vec![3; 32] },
            Record::Page(b"a page".into()),
            Record::Files(FileService {
                get_port: [1; 6],
                random: [2; 6],
                secret: [3; 32],
                size: 4,
                files_max: 5,
            }),
            Record::File(head(1, 5)),
            Record::Piece(b"abc".into()),
            Record::Piece(b"de".into()),
            Record::File(head(2, 0)),
            Record::File(head(3, 100)),
            Record::Piece(b"begun".into()),
        ]
    }

    fn archive() -> (Vec<u8>, Totals) {
        let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
        for record in records() {
            writer.write(&record).unwrap();
        }
        writer.destroyed(&FileHead { number: 3, random: [0; 6], owner: 0, size: 100 }).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, ArchiveError> {
        let mut reader = ArchiveReader::new(bytes)?;
        let mut found = Vec::new();
        while let Some(record) = reader.read()? {
            found.push(record);
        }
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, totals) = archive();
        assert_eq!(totals, Totals { files: 2, bytes: 5, destroyed: 1, pages: 1 });
        let found = read(&bytes).unwrap();
        let mut expected = records();
        expected.extend([Record::Destroyed, Record::End(totals)]);
        assert!(found == expected);
        // The bytes of the format: magic, version, then the first record's kind and size.
        assert_eq!(bytes[..17], *b"AMBACKUP\x01\0\0\0\x01\x1a\0\0\0");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (bytes, _) = archive();
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert!(read(&other).is_err(), "bit {bit} of {at}");
            }
        }
        assert!(matches!(read(b"short"), Err(ArchiveError::NoArchive)));
        assert!(matches!(read(b"AMBACKUP\x02\0\0\0"), Err(ArchiveError::Version(2))));
    }

    #[test]
    fn records_that_make_no_sense_one_after_the_other_are_refused() {
        let after = |records: &[Record]| {
            let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
            records.iter().for_each(|record| writer.write(record).unwrap());
            read(&writer.finish().unwrap().0).is_err()
        };
        let head = FileHead { number: 1, random: [0; 6], owner: 0, size: 3 };
        assert!(after(&[Record::Piece(b"x".into())]));
        assert!(after(&[Record::Destroyed]));
        assert!(after(&[Record::File(head), Record::Piece(b"four".into())]));
        assert!(after(&[Record::File(head), Record::File(head)]));
        assert!(after(&[Record::File(head), Record::Piece(b"no".into())]));
        assert!(!after(&[Record::File(head), Record::Piece(b"yes".into())]));
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = read(bytes);
            let _ = read(&[&MAGIC[..], &[1, 0, 0, 0], bytes].concat());
            if let Some((kind, body)) = bytes.split_first()
                && let Ok(record) = Record::parse(*kind, body.to_vec())
            {
                assert!(record.kind() == *kind && record.body() == body);
            }
        });
    }
}
