//! `cargo xtask ci`: what `.ci/run` runs. Every step runs even when an earlier one failed, so that one run tells all. The tests
//! come last, so that what failed of them is near the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::suite::Counts;
use crate::{programs, shell, tidy};

struct Step {
    name: &'static str,
    time: Duration,
    error: Option<anyhow::Error>,
}

/// Runs all steps; the last line printed is the counts of the tests.
pub(crate) fn main() -> Result<()> {
    let mut steps = Vec::new();
    let mut counts = Counts { passed: 0, failed: 1, skipped: 0 };
    step(&mut steps, "fmt", || shell::run(&mut shell::cargo(&["fmt", "--all", "--check"])));
    step(&mut steps, "tidy", tidy::main);
    step(&mut steps, "clippy", || shell::run(&mut shell::cargo(&CLIPPY)));
    step(&mut steps, "doc", || shell::run(shell::cargo(&DOC).env("RUSTDOCFLAGS", DOC_FLAGS)));
    // What cannot be had is told there, and skipped by the tests.
    step(&mut steps, "programs", || {
        programs::prepare();
        Ok(())
    });
    step(&mut steps, "test", || test(&mut counts));

    println!();
    for step in &steps {
        let outcome = if step.error.is_none() { "ok" } else { "FAILED" };
        println!("{:<8}{:>7.1} s  {outcome}", step.name, step.time.as_secs_f64());
    }
    let failed: Vec<&Step> = steps.iter().filter(|step| step.error.is_some()).collect();
    for step in &failed {
        println!("{}: {:#}", step.name, step.error.as_ref().expect("only failed steps are listed"));
    }
    println!("{}", counts.closing_line());
    if !failed.is_empty() {
        bail!("{} of {} steps failed", failed.len(), steps.len());
    }
    Ok(())
}

/// A cold build says nothing on stdout, and the test command looks after hanging tests itself.
const STEP_SILENCE_MAX: Duration = Duration::from_secs(3600);

const CLIPPY: [&str; 7] = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
// Libraries only: the program `amoeba` and the crate `amoeba` would write to the same pages.
const DOC: [&str; 6] = ["doc", "--locked", "--workspace", "--lib", "--no-deps", "--document-private-items"];

/// The maps at the heads of our crates name private modules on purpose, and the pages are built with them.
const DOC_FLAGS: &str = "-D warnings -A rustdoc::private-intra-doc-links";

fn step(steps: &mut Vec<Step>, name: &'static str, run: impl FnOnce() -> Result<()>) {
    println!("\n== {name}");
    let start = Instant::now();
    let error = run().err();
    if let Some(error) = &error {
        println!("{name} failed: {error:#}");
    }
    steps.push(Step { name, time: start.elapsed(), error });
}

/// The command of the README, word for word, whose closing line is kept for the end of our own output.
fn test(counts: &mut Counts) -> Result<()> {
    let mut command = shell::cargo(&["xtask", "test"]);
    let ok = shell::stream(&mut command, STEP_SILENCE_MAX, |line| match Counts::of_closing_line(line) {
        Some(closing) => {
            *counts = closing;
            false
        }
        None => true,
    })?;
    if !ok {
        bail!("tests failed");
    }
    Ok(())
}
