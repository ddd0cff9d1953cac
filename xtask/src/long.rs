//! `cargo xtask long [MINUTES]`: what is too long for `ci`, within the minutes given; `cargo xtask long soak [MINUTES]`: the file
//! server and the directory server at full speed for that long, memory and descriptors watched.
//!
//! A third of the time each: every fuzz harness and property with far more cases; the simulated systems with far more
//! seeds; the live tests, the programs on our mounts and the proof of at most once over and over, each round with another
//! seed. Everything runs to its end or to the end of its third, whichever is first; only a failure is a failure.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{programs, shell, suite};

const MINUTES_DEFAULT: u64 = 60;
const MINUTES_MAX: u64 = 24 * 60;

/// How long a soak lasts when nothing is said; an hour is a good night's.
const SOAK_MINUTES_DEFAULT: u64 = 5;
/// Kills of the servers under load in a round of the proof.
const KILLS: &str = "100";

/// More seeds than any third of the time lets through.
const SEEDS: &str = "5000";
/// Rows of the largest directory.
const ROWS: &str = "10000000";
const PROPERTY_CASES: &str = "20000";

/// How a part of the run ended.
enum End {
    Finished,
    OutOfTime,
}

/// Runs the three parts; all of them even when one fails.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let (is_soak, minutes) = match arguments {
        [word, rest @ ..] if word == "soak" => (true, rest),
        all => (false, all),
    };
    let minutes = match minutes {
        [] if is_soak => SOAK_MINUTES_DEFAULT,
        [] => MINUTES_DEFAULT,
        [minutes] => minutes.parse().context("MINUTES is a number")?,
        _ => bail!("usage: cargo xtask long [soak] [MINUTES]"),
    };
    if !(1..=MINUTES_MAX).contains(&minutes) {
        bail!("MINUTES is 1 to {MINUTES_MAX}");
    }
    suite::build()?;
    if is_soak {
        return soak(minutes);
    }
    programs::prepare();
    let third = Duration::from_secs(minutes * 60) / 3;
    let outcomes = [("fuzz", fuzz(third)), ("seeds", seeds(third)), ("live", live(third))];
    let mut failed = Vec::new();
    println!();
    for (name, outcome) in outcomes {
        match outcome {
            Ok(said) => println!("{name:<6} ok      {said}"),
            Err(error) => {
                println!("{name:<6} FAILED  {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Everything that the two servers of storage offer, at full speed.
fn soak(minutes: u64) -> Result<()> {
    let mut command =
        shell::cargo(&["test", "--locked", "--package", "amoeba-tests-proof", "--test", "storage"]);
    command.args(["--", "--exact", "memory_and_descriptors_stay_what_they_are", "--nocapture"]);
    command.env("AMOEBA_BIN", suite::binary_path()).env("AMOEBA_SOAK", (minutes * 60).to_string());
    shell::run(&mut command)
}

/// Harnesses of bolero and proptest, each with its share of the time.
fn fuzz(time: Duration) -> Result<String> {
    let harnesses = count_harnesses()?.max(1);
    let share = time.as_millis() / u128::from(harnesses);
    let mut command = shell::cargo(&["test", "--locked", "--workspace", "--lib", "--tests"]);
    for package in ["amoeba-tests-live", "amoeba-tests-programs", "amoeba-tests-world", "amoeba-tests-proof"]
    {
        command.args(["--exclude", package]);
    }
    command.env("BOLERO_RANDOM_TEST_TIME_MS", share.to_string()).env("PROPTEST_CASES", PROPERTY_CASES);
    let end = run_until(&mut command, Instant::now() + time)?;
    Ok(format!("{harnesses} harnesses, {:.1} s each, {end}", share as f64 / 1000.0))
}

fn count_harnesses() -> Result<u64> {
    let mut git = Command::new("git");
    git.args(["grep", "--count", "--untracked", "bolero::check!", "--", "*.rs"]).current_dir(shell::root());
    let listed = String::from_utf8_lossy(&shell::capture(&mut git)?).into_owned();
    Ok(listed.lines().filter_map(|line| line.rsplit(':').next()?.parse::<u64>().ok()).sum())
}

/// The simulated systems.
fn seeds(time: Duration) -> Result<String> {
    let mut command = shell::cargo(&["test", "--locked", "--package", "amoeba-tests-world"]);
    command.args(["--package", "amoeba-bullet", "--package", "amoeba-directory"]); // their crashed disks have seeds too
    command.env("AMOEBA_SEEDS", SEEDS).env("AMOEBA_ROWS", ROWS);
    let end = run_until(&mut command, Instant::now() + time)?;
    Ok(format!("{SEEDS} seeds asked for, {end}"))
}

/// The live tests, again and again.
fn live(time: Duration) -> Result<String> {
    let deadline = Instant::now() + time;
    let mut rounds = 0;
    while Instant::now() < deadline {
        let mut command = shell::cargo(&["test", "--locked", "--package", "amoeba-tests-live"]);
        command.args(["--package", "amoeba-tests-proof", "--package", "amoeba-tests-programs"]);
        programs::long_ones(&mut command);
        command.env("AMOEBA_BIN", suite::binary_path()).env("AMOEBA_SEED", (rounds + 1).to_string());
        command.env("AMOEBA_ROUNDS", KILLS);
        // A round cut short would leave its daemons behind, so the last one may end late.
        shell::run(&mut command).with_context(|| format!("round {}", rounds + 1))?;
        rounds += 1;
    }
    Ok(format!("{rounds} rounds"))
}

/// Runs it until it ends or the time has come.
fn run_until(command: &mut Command, deadline: Instant) -> Result<End> {
    println!("$ {}", shell::shown(command));
    let mut child = command.spawn()?;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("`{}` ended with {status}", shell::shown(command));
            }
            return Ok(End::Finished);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    shell::kill_tree(&mut child)?;
    Ok(End::OutOfTime)
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            End::Finished => "all done",
            End::OutOfTime => "stopped at the end of its time",
        })
    }
}
