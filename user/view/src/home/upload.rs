//! Contents that come in pieces before they are given a name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use amoeba_stubs::view::UPLOADS_MAX;
use amoeba_wire::Status;

use super::record::status_of;

/// Uploads that have begun: files without a name in the directory for temporary files.
#[derive(Default)]
pub(crate) struct Uploads(BTreeMap<u32, Upload>);

struct Upload {
    file: File,
    size: u64,
}

impl Uploads {
    /// Takes a piece. One that came already is ignored.
    pub(crate) fn piece(&mut self, number: u32, offset: u64, data: &[u8]) -> Result<(), Status> {
        if number == 0 {
            return Err(Status::STD_ARGBAD);
        }
        if offset == 0 {
            if self.0.len() >= UPLOADS_MAX && !self.0.contains_key(&number) {
                return Err(Status::STD_NOSPACE);
            }
            let file = amoeba_tree::nameless().map_err(|error| status_of(&error))?;
            self.0.insert(number, Upload { file, size: 0 });
        }
        let upload = self.0.get_mut(&number).ok_or(Status::STD_ARGBAD)?;
        if offset > upload.size {
            return Err(Status::STD_ARGBAD);
        }
        upload.file.write_all_at(data, offset).map_err(|error| status_of(&error))?;
        upload.size = upload.size.max(offset + data.len() as u64);
        Ok(())
    }

    /// Ends an upload: copies what it has brought.
    pub(crate) fn take(&mut self, number: u32, to: &mut File) -> Result<(), Status> {
        let mut upload = self.0.remove(&number).ok_or(Status::STD_ARGBAD)?;
        let copied = || -> io::Result<u64> {
            upload.file.seek(SeekFrom::Start(0))?;
            let copied = io::copy(&mut upload.file, to)?;
            to.flush()?;
            Ok(copied)
        }();
        match copied {
            Ok(size) if size == upload.size => Ok(()),
            Ok(_) => Err(amoeba_stubs::view::BROKEN),
            Err(error) => Err(status_of(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn pieces_come_again_but_leave_no_gap() {
        let mut uploads = Uploads::default();
        assert_eq!(uploads.piece(7, 3, b"x"), Err(Status::STD_ARGBAD));
        for (offset, data) in [(0, &b"abc"[..]), (3, b"def"), (3, b"def")] {
            uploads.piece(7, offset, data).unwrap();
        }
        assert_eq!(uploads.piece(7, 7, b"x"), Err(Status::STD_ARGBAD));
        let mut whole = amoeba_tree::nameless().unwrap();
        uploads.take(7, &mut whole).unwrap();
        whole.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        whole.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdef");
        assert_eq!(uploads.take(7, &mut whole), Err(Status::STD_ARGBAD));
    }

    #[test]
    fn there_are_not_many_at_once() {
        let mut uploads = Uploads::default();
        for number in 1..=UPLOADS_MAX as u32 {
            uploads.piece(number, 0, b"").unwrap();
        }
        assert_eq!(uploads.piece(99, 0, b""), Err(Status::STD_NOSPACE));
    }
}
