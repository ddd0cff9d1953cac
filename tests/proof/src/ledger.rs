//! What was executed and what clients were told, in files outside of all hosts.
//!
//! A line is written by one call of the system to the end of a file, so a process that is killed has written it or has
//! not. A server writes before it does anything else with a request; a client before it sends one and after it heard.
//!
//! | line | who | what |
//! |---|---|---|
//! | `X number` | server | executed |
//! | `C number` | server | arrived changed |
//! | `B number` | client | sent now |
//! | `D number` | client | answered, with the right reply |
//! | `N number` | client | certainly not executed |
//! | `U number` | client | nobody knows |
//! | `W number text` | client | ended in a way that no honest server makes |
//! | `F client` | client | stopped when it was asked to, with nothing under way |

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A client's part of a request's number.
pub const CLIENT_BITS: u32 = 20;

/// A file that lines are added to.
pub struct Ledger(File);

/// How many requests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// With the right reply.
    pub answered: usize,
    /// Certainly without effect.
    pub not_executed: usize,
    /// Nobody knows.
    pub unknown: usize,
    /// Their clients were killed before they heard.
    pub unheard: usize,
    /// Executed, whatever their clients were told.
    pub executed: usize,
}

impl Ledger {
    /// Opens `folder/name` to add to it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(folder: &Path, name: &str) -> io::Result<Ledger> {
        Ok(Ledger(OpenOptions::new().create(true).append(true).open(folder.join(name))?))
    }

    /// Adds a line.
    ///
    /// # Panics
    /// When it cannot be written whole: then nothing that is checked means anything.
    pub fn write(&self, kind: char, number: u64, text: &str) {
        let line = format!("{kind} {number} {text}\n");
        let written = (&self.0).write(line.as_bytes()).expect("the disk has room for a line");
        assert_eq!(written, line.len(), "a line is written at once");
    }
}

/// Reads all ledgers of `folder` and compares them.
///
/// # Errors
/// Every promise that was broken, a line each.
pub fn check(folder: &Path) -> Result<Tally, String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".ledger") {
            text += &std::fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        }
    }
    check_lines(&text)
}

fn check_lines(text: &str) -> Result<Tally, String> {
    let mut executed: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut begun, mut finished) = (BTreeSet::new(), BTreeSet::new());
    let mut told: BTreeMap<u64, char> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let kind = words.next().and_then(|word| word.chars().next()).unwrap_or(' ');
        let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
            wrong.push(format!("not a line of a ledger: {line:?}"));
            continue;
        };
        match kind {
            'X' => *executed.entry(number).or_default() += 1,
            'B' => drop(begun.insert(number)),
            'F' => drop(finished.insert(number)),
            'D' | 'N' | 'U' => drop(told.insert(number, kind)),
            _ => wrong.push(line.to_owned()),
        }
    }
    let mut tally = Tally { executed: executed.len(), ..Tally::default() };
    for (number, times) in &executed {
        if *times > 1 {
            wrong.push(format!("request {number} was executed {times} times"));
        }
        if !begun.contains(number) {
            wrong.push(format!("request {number} was executed, and nobody had sent it"));
        }
    }
    for number in begun {
        let times = executed.get(&number).copied().unwrap_or(0);
        match told.get(&number) {
            Some('D') => {
                tally.answered += 1;
                if times == 0 {
                    wrong.push(format!("request {number} was answered and never executed"));
                }
            }
            Some('N') => {
                tally.not_executed += 1;
                if times > 0 {
                    wrong.push(format!("request {number} was executed; its client heard that it was not"));
                }
            }
            Some(_) => tally.unknown += 1,
            None => {
                tally.unheard += 1;
                if finished.contains(&(number >> CLIENT_BITS)) {
                    wrong.push(format!("request {number} was never ended, though its client lived on"));
                }
            }
        }
    }
    if wrong.is_empty() { Ok(tally) } else { Err(wrong.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_lines_are_counted() {
        let text = "B 1 \nX 1 \nD 1 \nB 2 \nN 2 \nB 3 \nX 3 \nU 3 \nB 4 \nU 4 \nB 1048576 \nF 0 \n";
        let tally = Tally { answered: 1, not_executed: 1, unknown: 2, unheard: 1, executed: 2 };
        assert_eq!(check_lines(text), Ok(tally));
    }

    #[test]
    fn every_broken_promise_is_named() {
        for (text, about) in [
            ("B 1 \nX 1 \nX 1 \nU 1 \n", "executed 2 times"),
            ("B 1 \nN 1 \nX 1 \n", "heard that it was not"),
            ("B 1 \nD 1 \n", "never executed"),
            ("X 1 \n", "nobody had sent"),
            ("B 5 \nF 0 \n", "never ended"),
            ("B 1 \nW 1 strange\n", "strange"),
            ("C 9 \n", "C 9"),
            ("?\n", "not a line"),
        ] {
            let error = check_lines(text).expect_err(about);
            assert!(error.contains(about), "{error}");
        }
    }
}
