//! Real daemons, servers and clients, and harm to all of them. `AMOEBA_SEED=n` runs that seed, and longer; so does every
//! round of `cargo xtask long`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that goes when the test has passed.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("amoeba-proof-{}-{name}", std::process::id()));
        std::fs::create_dir_all(folder.join("ledgers")).expect("the temporary folder is ours");
        Folder(folder)
    }

    fn ledgers(&self) -> String {
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
fn among(folder: &Folder, hosts: &[&str], words: &[&str]) {
    let mut command = Command::new(binary());
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
    assert!(output.status.success(), "{}\n{said}\n{error}", output.status);
}

/// Where `cargo xtask test` says, or beside the test itself.
fn binary() -> PathBuf {
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
fn asked() -> Option<u64> {
    std::env::var("AMOEBA_SEED").ok().and_then(|text| text.parse().ok())
}

/// The seed to run, and for how many seconds.
fn seed() -> (u64, &'static str) {
    asked().map_or((1, "12"), |seed| (seed, "30"))
}

#[test]
fn at_most_once_on_a_bad_wire_whatever_is_killed() {
    let (seed, seconds) = seed();
    let folder = Folder::new("wire");
    let faults = format!("loss=3%,duplicate=3%,reorder=10%,corrupt=1%,delay=0.1ms..5ms,seed={seed}");
    among(&folder, &["3", "--faults", &faults], &["torment", &seed.to_string(), seconds, &folder.ledgers()]);
}

/// On loopback the wire is perfect, so it needs no privilege: processes, kernels and hosts are what dies.
#[test]
fn at_most_once_whatever_is_killed() {
    let (seed, seconds) = seed();
    let folder = Folder::new("loopback");
    let words = ["torment", &(seed + 1000).to_string(), seconds, &folder.ledgers()];
    among(&folder, &["3", "--loopback"], &words);
}

#[test]
fn a_flood_from_a_stranger_keeps_nobody_out_and_costs_no_memory() {
    let folder = Folder::new("flood");
    let count = if asked().is_some() { "5000000" } else { "400000" };
    among(&folder, &["2", "--loopback"], &["flood", count, &folder.ledgers()]);
}
