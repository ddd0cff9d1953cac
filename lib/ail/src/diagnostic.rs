//! Where a class file is wrong, and why.

use std::fmt;

/// A place in a class file. Both count from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Character of the line.
    pub column: usize,
}

/// What is wrong with a class file, where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// The file as its reader named it.
    pub file: String,
    /// Where in the file.
    pub at: Position,
    /// What is wrong, and why.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.at.line, self.at.column, self.message)
    }
}

/// A complaint that does not know its file yet.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) at: Position,
    pub(crate) message: String,
}

impl Complaint {
    pub(crate) fn new(at: Position, message: impl Into<String>) -> Complaint {
        Complaint { at, message: message.into() }
    }

    pub(crate) fn in_file(self, file: &str) -> Diagnostic {
        Diagnostic { file: file.to_owned(), at: self.at, message: self.message }
    }
}
