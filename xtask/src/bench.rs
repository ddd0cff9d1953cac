//! `cargo xtask bench transaction|run [--json]`: builds the product and the measuring program for speed, and runs the latter.
//!
//! What is measured, and how, is in `benches/`; here is only what needs cargo: also the harness of limits and peers, where
//! it is there.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell;

/// Runs the benchmark that the arguments name.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut build =
        shell::cargo(&["build", "--locked", "--release", "--bin", "amoeba", "--bin", "amoeba-bench"]);
    // Data of a benchmark goes to stdout alone, so that `--json` can be piped.
    let status = build.stdout(std::process::Stdio::null()).status().context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "`{}` ended with {status}", shell::shown(&build));
    let release = shell::target_folder().join("release");
    let mut bench = std::process::Command::new(release.join("amoeba-bench"));
    bench.args(arguments).env("AMOEBA_BIN", release.join("amoeba"));
    if arguments.iter().any(|argument| argument == "transaction")
        && let Some(built) = harness()?
    {
        bench.env("AMOEBA_PEERS_BUILT", built);
    }
    let status = bench.status().context("cannot start amoeba-bench")?;
    anyhow::ensure!(status.success(), "amoeba-bench ended with {status}");
    Ok(())
}

/// Builds the harness of limits and peers, a workspace of its own; where its programs are. A peer that cannot be built (a
/// package of the system is missing) is told and left out.
fn harness() -> Result<Option<PathBuf>> {
    let named = std::env::var_os("AMOEBA_PEERS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| shell::root().join("../shared/bench/peers"));
    let manifest = folder.join("Cargo.toml");
    if !manifest.exists() {
        return Ok(None);
    }
    let target = shell::target_folder().join("peers");
    for package in ["limits", "peer-tonic", "peer-capnp", "peer-nats", "peer-quinn", "peer-tarpc", "peer-zmq"]
    {
        let mut build = shell::cargo(&["build", "--release", "--quiet", "-p", package]);
        build.arg("--manifest-path").arg(&manifest).arg("--target-dir").arg(&target);
        let status = build.stdout(std::process::Stdio::null()).status().context("cannot start cargo")?;
        if !status.success() {
            eprintln!("{package} is left out: `{}` ended with {status}", shell::shown(&build));
        }
    }
    Ok(Some(target.join("release")))
}
