//! `cargo xtask test`: builds the programs, runs every test of the workspace, and sums the counts.
//!
//! The last line of its output is the counts alone: `N passed, N failed, N skipped`. A test that cannot run here, or not all of
//! it, says `SKIPPED: why`; libtest keeps what a passed test says to itself and knows no such outcome, so what they say is
//! asked for, those lines of it are shown, and such a test counts as skipped. What failed tests said is shown once more before
//! the counts, for who sees only the end. The tests in `tests/live` start the built binaries, so these are built first and named
//! to them by `AMOEBA_BIN`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::shell;

/// Tests that ran, over any number of test binaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Reads the line with which a test binary ends; `None` for any other line.
    fn of_test_result(line: &str) -> Option<Counts> {
        let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut counts = Counts::default();
        for part in rest.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            match (number.parse(), what) {
                (Ok(number), "passed") => counts.passed = number,
                (Ok(number), "failed") => counts.failed = number,
                (Ok(number), "ignored") => counts.skipped = number,
                _ => {}
            }
        }
        Some(counts)
    }

    /// Reads the closing line back; `None` for any other line.
    pub(crate) fn of_closing_line(line: &str) -> Option<Counts> {
        let mut numbers = [0; 3];
        let mut parts = line.split(", ");
        for (number, word) in numbers.iter_mut().zip(["passed", "failed", "skipped"]) {
            let (digits, what) = parts.next()?.split_once(' ')?;
            *number = digits.parse().ok().filter(|_| what == word)?;
        }
        let [passed, failed, skipped] = numbers;
        parts.next().is_none().then_some(Counts { passed, failed, skipped })
    }

    /// The closing line, without its newline.
    pub(crate) fn closing_line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs the tests; `arguments` are passed on to `cargo test`.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut counts = Counts::default();
    let tested = build().and_then(|()| test(arguments, &mut counts));
    // What did not even build or whose binary died without a result is one failure more, never a silent zero.
    if tested.is_err() && counts.failed == 0 {
        counts.failed = 1;
    }
    println!("{}", counts.closing_line());
    tested
}

/// The longest a test may say nothing: then it hangs, and a run that hangs tells nobody what failed.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Builds the programs that the live tests start, and the tests.
pub(crate) fn build() -> Result<()> {
    shell::run(&mut shell::cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    shell::run(&mut shell::cargo(&["test", "--locked", "--workspace", "--no-run"]))
}

fn test(arguments: &[String], counts: &mut Counts) -> Result<()> {
    let mut command = shell::cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
    command.args(arguments).env("AMOEBA_BIN", binary_path());
    if !arguments.iter().any(|argument| argument == "--") {
        command.arg("--");
    }
    command.arg("--show-output");
    let mut output = Output::default();
    let ok = shell::stream(&mut command, SILENCE_MAX, |line| match output.line(line) {
        Line::Kept => true,
        Line::Hidden => false,
        Line::Skipped(text) => {
            println!("{text}");
            false
        }
    });
    counts.add(output.counts);
    output.show_what_failed();
    if !ok? || counts.failed > 0 {
        bail!("tests failed");
    }
    Ok(())
}

/// What `cargo test -- --show-output` prints, line by line.
#[derive(Default)]
struct Output {
    counts: Counts,
    part: Part,
    /// The passed test whose output is at hand.
    test: String,
    /// Passed tests of this binary that said that they were skipped.
    skipped: BTreeSet<String>,
    /// What failed tests have said, and their names, of all binaries.
    failures: Vec<String>,
    /// Tests that run for more than a minute, and have not ended.
    slow: BTreeSet<String>,
}

/// Lines of what failed tests have said that are shown once more.
const FAILURE_LINES_MAX: usize = 400;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Results,
    /// What passed tests have said.
    Said,
    /// The names of passed tests, again.
    Names,
    /// What failed tests have said, and their names, again.
    Failures,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Kept,
    Hidden,
    /// To be shown as this.
    Skipped(String),
}

impl Output {
    fn line(&mut self, line: &str) -> Line {
        match self.part {
            Part::Said => self.said(line),
            Part::Names if line.is_empty() || line.starts_with("    ") => Line::Hidden,
            Part::Results | Part::Names if line == "successes:" => {
                self.part = Part::Said;
                Line::Hidden
            }
            Part::Results | Part::Names | Part::Failures => {
                self.result(line);
                Line::Kept
            }
        }
    }

    fn result(&mut self, line: &str) {
        if let Some(mut more) = Counts::of_test_result(line) {
            let skipped = (std::mem::take(&mut self.skipped).len() as u64).min(more.passed);
            more.passed -= skipped;
            more.skipped += skipped;
            self.counts.add(more);
            self.part = Part::Results;
        } else if self.part == Part::Failures || line == "failures:" {
            self.part = Part::Failures;
            self.failures.push(line.to_owned());
        } else {
            self.part = Part::Results;
            self.note_slow(line);
        }
    }

    fn note_slow(&mut self, line: &str) {
        let Some(test) = line.strip_prefix("test ") else { return };
        if let Some((name, _)) = test.split_once(" has been running for over ") {
            self.slow.insert(name.to_owned());
        } else if let Some((name, _)) = test.split_once(" ... ") {
            self.slow.remove(name);
        }
    }

    /// Once more, after all the tests that passed.
    fn show_what_failed(&self) {
        let left_out = self.failures.len().saturating_sub(FAILURE_LINES_MAX);
        for line in &self.failures[left_out..] {
            println!("{line}");
        }
        if left_out > 0 {
            println!("{left_out} lines before these are further up");
        }
        for test in &self.slow {
            println!("{test}: not ended");
        }
    }

    fn said(&mut self, line: &str) -> Line {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if line == "successes:" {
            self.part = Part::Names;
        } else if let Some(test) = heading {
            self.test = test.to_owned();
        } else if line.starts_with("SKIPPED: ") {
            self.skipped.insert(self.test.clone());
            return Line::Skipped(format!("{}: {line}", self.test));
        }
        Line::Hidden
    }
}

/// Where cargo put the binary `amoeba`.
pub(crate) fn binary_path() -> PathBuf {
    shell::target_folder().join("debug").join("amoeba")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_test_that_was_skipped_is_shown_and_counted_as_that() {
        let text = "\
running 3 tests
test a has been running for over 60 seconds
test d has been running for over 60 seconds
test a ... ok
test b::c ... ok

successes:

---- a stdout ----
test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
chatter

---- b::c stdout ----
SKIPPED: no /dev/fuse
SKIPPED: not root


successes:
    a
    b::c

failures:

---- d stdout ----
SKIPPED: not this

failures:
    d

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 1 test

successes:

successes:
    e

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let mut output = Output::default();
        let mut shown = Vec::new();
        for line in text.lines() {
            match output.line(line) {
                Line::Kept => shown.push(line.to_owned()),
                Line::Hidden => {}
                Line::Skipped(text) => shown.push(text),
            }
        }
        assert_eq!(output.counts, Counts { passed: 2, failed: 1, skipped: 1 });
        let skipped: Vec<&String> = shown.iter().filter(|line| line.starts_with("b::c: ")).collect();
        assert_eq!(skipped, ["b::c: SKIPPED: no /dev/fuse", "b::c: SKIPPED: not root"]);
        assert!(shown.iter().any(|line| line == "---- d stdout ----"), "{shown:?}");
        assert!(!shown.iter().any(|line| line == "chatter" || line.starts_with("    e")), "{shown:?}");
        let failed: Vec<&str> =
            output.failures.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        assert_eq!(failed, ["failures:", "---- d stdout ----", "SKIPPED: not this", "failures:", "    d"]);
        assert!(output.slow.iter().eq(["d"]), "{:?}", output.slow);
    }

    #[test]
    fn results_of_test_binaries_are_summed() {
        let output = "\
running 3 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 4 passed; 5 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s
test a ... ok";
        let mut counts = Counts::default();
        output.lines().filter_map(Counts::of_test_result).for_each(|more| counts.add(more));
        assert_eq!(counts, Counts { passed: 6, failed: 5, skipped: 1 });
    }

    #[test]
    fn the_closing_line_is_read_back() {
        let counts = Counts { passed: 12, failed: 0, skipped: 3 };
        assert_eq!(counts.closing_line(), "12 passed, 0 failed, 3 skipped");
        assert_eq!(Counts::of_closing_line(&counts.closing_line()), Some(counts));
        for other in
            ["", "12 passed", "12 passed, 0 failed, 3 skipped, 1 lost", "x passed, 0 failed, 3 skipped"]
        {
            assert_eq!(Counts::of_closing_line(other), None, "{other}");
        }
    }
}
