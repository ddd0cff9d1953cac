//! The capability environment: named capabilities that a process starts with.
//!
//! ```text
//! binary   magic "AMCAPENV" | count u32 | count times: name, ended by NUL | capability 16
//! text     a line each: NAME=port/object(rights)/check
//! ```
//! Both hold whole capabilities: keep them where only their owner reads. `Debug` shows no check field.

use std::collections::BTreeMap;

use amoeba_cap::{Capability, ParseError};
use amoeba_wire::{Malformed, Reader, Writer};

/// Entries of an environment.
pub const ENTRIES_MAX: usize = 1024;
/// Bytes of a name.
pub const ENTRY_NAME_SIZE_MAX: usize = 255;

const MAGIC: &[u8; 8] = b"AMCAPENV";

/// Why something is not an environment, or does not fit into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// The bytes are no environment.
    #[error("not a capability environment")]
    Malformed,
    /// A name is empty, too long, or holds something but printable ASCII, or a '='.
    #[error("{0:?} cannot be the name of a capability")]
    BadName(String),
    /// More than [`ENTRIES_MAX`] entries.
    #[error("an environment has at most {ENTRIES_MAX} capabilities")]
    Full,
    /// A line of the text form.
    #[error("line {line}: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with its capability.
        why: ParseError,
    },
    /// A line of the text form has no '='.
    #[error("line {0}: not NAME=capability")]
    NoName(usize),
}

impl From<Malformed> for EnvironmentError {
    fn from(_: Malformed) -> EnvironmentError {
        EnvironmentError::Malformed
    }
}

/// Named capabilities, in the order of their names; at most [`ENTRIES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    entries: BTreeMap<String, Capability>,
}

impl Environment {
    /// The user's root directory.
    pub const ROOT: &'static str = "ROOT";
    /// The user's home directory.
    pub const HOME: &'static str = "HOME";
    /// The working directory.
    pub const WORK: &'static str = "WORK";
    /// Standard input.
    pub const STDIN: &'static str = "STDIN";
    /// Standard output.
    pub const STDOUT: &'static str = "STDOUT";
    /// Standard error.
    pub const STDERR: &'static str = "STDERR";
    /// The controlling terminal.
    pub const TTY: &'static str = "TTY";
    /// The session server.
    pub const SESSION: &'static str = "_SESSION";
    /// The random server to use.
    pub const RANDOM: &'static str = "RANDOM";
    /// The time of day server to use.
    pub const TOD: &'static str = "TOD";

    /// An environment without entries.
    pub fn new() -> Environment {
        Environment::default()
    }

    /// The capability of this name.
    pub fn get(&self, name: &str) -> Option<&Capability> {
        self.entries.get(name)
    }

    /// Sets the capability of this name, which is at most 255 bytes of printable ASCII without '='.
    pub fn set(&mut self, name: &str, capability: Capability) -> Result<(), EnvironmentError> {
        let good = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=');
        if name.is_empty() || name.len() > ENTRY_NAME_SIZE_MAX || !good {
            return Err(EnvironmentError::BadName(name.to_owned()));
        }
        if self.entries.len() == ENTRIES_MAX && !self.entries.contains_key(name) {
            return Err(EnvironmentError::Full);
        }
        self.entries.insert(name.to_owned(), capability);
        Ok(())
    }

    /// Removes the capability of this name and gives it.
    pub fn remove(&mut self, name: &str) -> Option<Capability> {
        self.entries.remove(name)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Capability)> {
        self.entries.iter().map(|(name, capability)| (name.as_str(), capability))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let count = u32::try_from(self.len()).expect("an environment has at most ENTRIES_MAX entries");
        writer.raw(MAGIC).put_u32(count);
        for (name, capability) in self.iter() {
            writer.put_string(name.as_bytes()).put_cap(capability);
        }
        writer.finish()
    }

    /// The environment in these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Environment, EnvironmentError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != *MAGIC {
            return Err(EnvironmentError::Malformed);
        }
        let mut environment = Environment::new();
        for _ in 0..reader.get_u32()? {
            let name = reader.get_string(ENTRY_NAME_SIZE_MAX)?;
            let name = std::str::from_utf8(name).map_err(|_| EnvironmentError::Malformed)?;
            environment.set(name, reader.get_cap()?)?;
        }
        reader.end()?;
        Ok(environment)
    }

    /// The text form, check fields included: a secret.
    pub fn to_text(&self) -> String {
        self.iter().map(|(name, capability)| format!("{name}={}\n", capability.to_text())).collect()
    }

    /// The environment in this text. Empty lines and lines that begin with '#' are skipped.
    pub fn from_text(text: &str) -> Result<Environment, EnvironmentError> {
        let mut environment = Environment::new();
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, capability) = line.split_once('=').ok_or(EnvironmentError::NoName(number))?;
            let capability =
                capability.parse().map_err(|why| EnvironmentError::Line { line: number, why })?;
            environment.set(name, capability)?;
        }
        Ok(environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Environment {
        let mut environment = Environment::new();
        environment.set(Environment::ROOT, Capability::from_bytes([0xAB; 16])).unwrap();
        environment.set(Environment::STDIN, Capability::from_bytes([2; 16])).unwrap();
        environment
    }

    #[test]
    fn both_forms_come_back() {
        assert_eq!(Environment::from_bytes(&sample().to_bytes()), Ok(sample()));
        assert_eq!(Environment::from_text(&sample().to_text()), Ok(sample()));
        assert_eq!(Environment::from_text("# nothing\n\n"), Ok(Environment::new()));
    }

    #[test]
    fn complaints_name_the_line_and_no_secret() {
        let complaint = Environment::from_text("\nROOT=1:2:3\n").unwrap_err().to_string();
        assert!(complaint.starts_with("line 2:"), "{complaint}");
        assert_eq!(Environment::from_text("ROOT"), Err(EnvironmentError::NoName(1)));
        assert!(!format!("{:?}", sample()).contains("AB:AB:AB:AB:AB:AB:AB"));
    }

    #[test]
    fn bad_names_and_too_many_are_refused() {
        let mut environment = sample();
        for bad in ["", "a b", "a=b", "é", "a\0", &"x".repeat(256)] {
            assert!(matches!(environment.set(bad, Capability::NULL), Err(EnvironmentError::BadName(_))));
        }
        for index in environment.len()..ENTRIES_MAX {
            environment.set(&format!("n{index}"), Capability::NULL).unwrap();
        }
        assert_eq!(environment.set("more", Capability::NULL), Err(EnvironmentError::Full));
        assert_eq!(environment.set("ROOT", Capability::NULL), Ok(()));
    }

    #[test]
    fn no_bytes_panic_and_what_reads_writes_the_same() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(environment) = Environment::from_bytes(bytes) {
                assert_eq!(Environment::from_bytes(&environment.to_bytes()), Ok(environment));
            }
            let text = String::from_utf8_lossy(bytes);
            if let Ok(environment) = Environment::from_text(&text) {
                assert_eq!(Environment::from_text(&environment.to_text()), Ok(environment));
            }
        });
    }
}
