//! What of a map is done, in a file, so that the same command goes on where it was interrupted.
//!
//! The file is a list of records, each ended by a NUL: the command's words first, joined by newlines, then every argument whose
//! process succeeded, once its output was shown. A record without its NUL was being written when the map was killed: it is as
//! if it were not there.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::failure::Advise;

/// Bytes of a journal that are read.
const SIZE_MAX: u64 = 1 << 30;

/// See the module.
pub(super) struct Journal {
    file: File,
    /// How often each argument was done before.
    done: HashMap<Vec<u8>, usize>,
}

impl Journal {
    /// Opens the journal of `command`, or begins it.
    ///
    /// # Errors
    /// It is another command's, or cannot be read and written.
    pub(super) fn open(path: &Path, command: &[OsString]) -> anyhow::Result<Journal> {
        let shown = || path.display().to_string();
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(shown)?;
        let mut bytes = Vec::new();
        (&file).take(SIZE_MAX + 1).read_to_end(&mut bytes).with_context(shown)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(anyhow!("more than {SIZE_MAX} bytes")).with_context(shown);
        }
        let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
        let head = words.join(&b'\n');
        let whole = bytes.iter().rposition(|byte| *byte == 0).map_or(0, |last| last + 1);
        let mut records = bytes[..whole].split(|byte| *byte == 0);
        // What follows the last NUL is no record.
        records.next_back();
        match records.next() {
            Some(first) if first != head => {
                return Err(anyhow!("this is not the journal of this command"))
                    .with_context(shown)
                    .hint("give every command a file of its own; remove it to begin again");
            }
            _ => {}
        }
        let mut done = HashMap::new();
        records.for_each(|argument| *done.entry(argument.to_vec()).or_insert(0) += 1);
        file.set_len(whole as u64).with_context(shown)?;
        file.seek(SeekFrom::End(0)).with_context(shown)?;
        let mut journal = Journal { file, done };
        if whole == 0 {
            journal.write(&head).with_context(shown)?;
        }
        Ok(journal)
    }

    /// Takes out of `arguments` what was done before; one that stands there several times, as often as it was done.
    pub(super) fn leave_out(&mut self, arguments: &mut Vec<Vec<u8>>) {
        arguments.retain(|argument| match self.done.get_mut(argument) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        });
    }

    /// An argument is done.
    ///
    /// # Errors
    /// It cannot be written down.
    pub(super) fn write(&mut self, record: &[u8]) -> anyhow::Result<()> {
        // One write: a record is whole, or its NUL is missing.
        Ok(self.file.write_all(&[record, &[0]].concat())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &str) -> Vec<Vec<u8>> {
        words.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn what_is_done_is_left_out_and_torn_records_are_not_done() {
        let path = std::env::temp_dir().join(format!("amoeba-journal-{}", std::process::id()));
        let command = ["echo", "{}"].map(OsString::from);
        let mut journal = Journal::open(&path, &command).unwrap();
        for argument in ["a", "b", "a", ""] {
            journal.write(argument.as_bytes()).unwrap();
        }
        drop(journal);
        File::options().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        let mut journal = Journal::open(&path, &command).unwrap();
        let mut left = arguments("a b c a a torn");
        left.push(Vec::new());
        journal.leave_out(&mut left);
        assert_eq!(left, arguments("c a torn"));
        journal.write(b"torn").unwrap();
        drop(journal);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes, b"echo\n{}\0a\0b\0a\0\0torn\0");
        assert!(Journal::open(&path, &["echo".into()]).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
