//! `cargo xtask programs [--long]`: installs the programs that `tests/programs` runs on our mounts, and runs it.
//!
//! Debian's packages, where there is apt and we are root; test programs of other people are built from their published
//! sources into `target/programs`. What cannot be had is said loudly, and its scenarios are skipped.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{shell, sqlite, suite};

/// A program, or a file, and the package of Debian that it is in.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/include/tcl8.6/tcl.h", "tcl8.6-dev"),
    ("ar", "binutils"),
    ("dpkg-source", "dpkg-dev"),
    ("fio", "fio"),
    ("gcc", "gcc"),
    ("git", "git"),
    ("make", "make"),
    ("python3", "python3-venv"),
    ("rsync", "rsync"),
    ("sqlite3", "sqlite3"),
    ("tar", "tar"),
    ("vim", "vim"),
];

/// Test programs in Rust, each in one version, so that the list of failures means something.
const BUILT: &[(&str, &str)] = &[("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];

/// Files of a tree when there is time.
const FILES_LONG: &str = "20000";

/// Installs and runs.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let long = match arguments {
        [] => false,
        [word] if word == "--long" => true,
        _ => bail!("usage: cargo xtask programs [--long]"),
    };
    prepare();
    shell::run(&mut shell::cargo(&["build", "--locked", "--package", "amoeba-bin"]))?;
    let mut command = shell::cargo(&["test", "--locked", "--package", "amoeba-tests-programs"]);
    command.env("AMOEBA_BIN", suite::binary_path());
    if long {
        long_ones(&mut command);
    }
    shell::run(&mut command)
}

/// Has the tests do what takes long.
pub(crate) fn long_ones(command: &mut Command) {
    command.env("AMOEBA_PROGRAM_FILES", FILES_LONG).env("AMOEBA_SQLITE_ALL", "1");
}

/// Gets what is missing. Nothing here is an error: a host without network can still run all other tests.
pub(crate) fn prepare() {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| !installed(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty()
        && let Err(error) = install(&missing)
    {
        println!(
            "MISSING: {missing:?}: the scenarios of tests/programs that need them are skipped: {error:#}"
        );
    }
    for (program, version) in BUILT {
        if let Err(error) = build(program, version) {
            println!("MISSING: {program} {version}: its scenarios of tests/programs are skipped: {error:#}");
        }
    }
    if let Err(error) = sqlite::prepare() {
        println!("MISSING: SQLite's own tests: they are skipped by tests/programs: {error:#}");
    }
}

fn installed(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/sbin"].iter().any(|folder| Path::new(folder).join(program).exists())
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    shell::run(apt().args(["update", "--quiet"]))?;
    shell::run(apt().args(["install", "--quiet", "--yes", "--no-install-recommends"]).args(packages))
}

/// Cargo sees by itself when this version is there already, without the network.
fn build(program: &str, version: &str) -> Result<()> {
    let root = shell::target_folder().join("programs");
    let mut command =
        shell::cargo(&["install", "--locked", "--quiet", "--debug", program, "--version", version]);
    command.env("CARGO_PROFILE_DEV_DEBUG", "0"); // nobody looks for faults in them
    command.arg("--root").arg(&root).arg("--target-dir").arg(root.join("build"));
    shell::run(&mut command)
}
