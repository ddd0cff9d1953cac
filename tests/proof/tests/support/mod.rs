//! A folder for a test, and `proof` among the hosts of `amoeba dev`.
#![allow(dead_code)] // every test file uses a part

use std::path::{Path, PathBuf};
use std::process::Command;

use amoeba_tests_proof::storage::disks::SKIPPED;

/// A folder that goes when the test has passed.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("amoeba-proof-{}-{name}", std::process::id()));
        std::fs::create_dir_all(folder.join("ledgers")).expect("the temporary folder is ours");
        Folder(folder)
    }

    pub(crate) fn ledgers(&self) -> String {
        self.0.join("ledgers").display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what happened is in {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Runs `proof` with these words among hosts, or says that this machine does not permit such hosts.
pub(crate) fn among(folder: &Folder, hosts: &[&str], words: &[&str]) {
    among_with(Command::new(binary()), folder, hosts, words);
}

/// The same by a command that starts the binary.
pub(crate) fn among_with(mut command: Command, folder: &Folder, hosts: &[&str], words: &[&str]) {
    command.arg("dev").args(hosts).arg("--").arg(env!("CARGO_BIN_EXE_proof")).args(words);
    for name in ["AMOEBA_STATE", "AMOEBA_SOCKET"] {
        command.env_remove(name);
    }
    command.env("TMPDIR", &folder.0).env("HOME", &folder.0).stdin(std::process::Stdio::null());
    let output = command.output().expect("the binary starts");
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let refused = error.contains("only for root") || error.contains("namespace cannot be");
    if output.status.code() == Some(125) && refused {
        eprintln!("SKIPPED: {error}");
        return;
    }
    if output.status.code() == Some(SKIPPED) {
        eprintln!("SKIPPED: {error}");
        return;
    }
    assert!(output.status.success(), "{}\n{said}\n{error}", output.status);
}

/// Where `cargo xtask test` says, or beside the test itself.
pub(crate) fn binary() -> PathBuf {
    let path = match std::env::var_os("AMOEBA_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let proof = Path::new(env!("CARGO_BIN_EXE_proof"));
            proof.parent().expect("programs lie in target/PROFILE").join("amoeba")
        }
    };
    assert!(path.exists(), "{} is not built: run `cargo xtask test`", path.display());
    path
}

/// The seed that was asked for.
pub(crate) fn asked() -> Option<u64> {
    std::env::var("AMOEBA_SEED").ok().and_then(|text| text.parse().ok())
}
