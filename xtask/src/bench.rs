//! `cargo xtask bench transaction|run [--json]`: builds the product and the measuring program for speed, and runs the latter.
//!
//! What is measured, and how, is in `benches/`; here is only what needs cargo.

use anyhow::{Context, Result};

use crate::shell;

/// Runs the benchmark that the arguments name.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut build =
        shell::cargo(&["build", "--locked", "--release", "-p", "amoeba-bin", "-p", "amoeba-bench"]);
    // Data of a benchmark goes to stdout alone, so that `--json` can be piped.
    let status = build.stdout(std::process::Stdio::null()).status().context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "`{}` ended with {status}", shell::shown(&build));
    let release = shell::target_folder().join("release");
    let mut bench = std::process::Command::new(release.join("amoeba-bench"));
    bench.args(arguments).env("AMOEBA_BIN", release.join("amoeba"));
    let status = bench.status().context("cannot start amoeba-bench")?;
    anyhow::ensure!(status.success(), "amoeba-bench ended with {status}");
    Ok(())
}
