//! `cargo xtask test`: builds the programs, runs every test of the workspace, and sums the counts.
//!
//! The last line of its output is the counts alone: `N passed, N failed, N skipped`. The tests in `tests/live` start the
//! built binaries, so these are built first and named to them by `AMOEBA_BIN`.

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
    let ok = shell::stream(&mut command, SILENCE_MAX, |line| {
        if let Some(more) = Counts::of_test_result(line) {
            counts.add(more);
        }
        true
    })?;
    if !ok || counts.failed > 0 {
        bail!("tests failed");
    }
    Ok(())
}

/// Where cargo put the binary `amoeba`.
pub(crate) fn binary_path() -> PathBuf {
    shell::target_folder().join("debug").join("amoeba")
}

#[cfg(test)]
mod tests {
    use super::*;

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
