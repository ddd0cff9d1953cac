//! `cargo xtask bench transaction|storage|run [--json]`: builds the product and the measuring program for speed, and runs the latter.
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
    let wanted = |name: &str| arguments.iter().any(|argument| argument == name);
    if wanted("transaction")
        && let Some(built) = harness()?
    {
        bench.env("AMOEBA_PEERS_BUILT", built);
    }
    if (wanted("storage") || wanted("mount"))
        && let Some((folder, built)) = services()?
    {
        bench.env("AMOEBA_SERVICES", folder).env("SVC_BUILD", built);
    }
    let status = bench.status().context("cannot start amoeba-bench")?;
    anyhow::ensure!(status.success(), "amoeba-bench ended with {status}");
    Ok(())
}

/// Builds the harness of limits and peers, a workspace of its own; where its programs are. A peer that cannot be built (a
/// package of the system is missing) is told and left out.
fn harness() -> Result<Option<PathBuf>> {
    let folder = shared("peers");
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

/// The harness of storage peers, and where what it needs is built: its load generator, a program of its own. The peers
/// themselves are packages of the system; those that are not installed are left out by the benchmark.
fn services() -> Result<Option<(PathBuf, PathBuf)>> {
    let folder = shared("services");
    let manifest = folder.join("svcbench/Cargo.toml");
    if !manifest.exists() {
        return Ok(None);
    }
    let built = match std::env::var_os("SVC_BUILD") {
        Some(built) => PathBuf::from(built),
        None => shell::target_folder().join("services"),
    };
    let mut build = shell::cargo(&["build", "--release", "--quiet", "--manifest-path"]);
    build.arg(&manifest).arg("--target-dir").arg(built.join("target"));
    let status = build.stdout(std::process::Stdio::null()).status().context("cannot start cargo")?;
    if !status.success() {
        eprintln!("the peers are left out: `{}` ended with {status}", shell::shown(&build));
        return Ok(None);
    }
    Ok(Some((folder.canonicalize()?, built)))
}

/// A harness beside the project: in the folder that `AMOEBA_PEERS` names (or in the one of this name beside it), else where
/// such things are shared.
fn shared(name: &str) -> PathBuf {
    match std::env::var_os("AMOEBA_PEERS").map(PathBuf::from) {
        Some(named) if named.ends_with(name) => named,
        Some(named) => named.with_file_name(name),
        None => shell::root().join("../shared/bench").join(name),
    }
}
