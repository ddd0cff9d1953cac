//! The storage of others, measured by a harness beside the product: it starts a peer and speaks to it.
//!
//! The harness lies in the folder that `AMOEBA_PEERS` names, or in `shared/bench/services` beside the project; `cargo
//! xtask bench` builds its load generator. A peer that is not installed is left out, by name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::harness::Figures;

/// Where the harness is.
const FOLDER_VARIABLE: &str = "AMOEBA_SERVICES";
/// Where `cargo xtask bench` has built what it needs.
const BUILT_VARIABLE: &str = "SVC_BUILD";
/// Rows that are in the peers' directories before they are measured: more would take them minutes to fill.
pub(crate) const ENTRIES: usize = 10_000;

/// Starts a peer of a table of the harness, says how to reach it, and stops it when its stdin ends.
const STARTER: &str = "
import importlib.machinery, importlib.util, json, sys
sys.path.insert(0, '.')
loader = importlib.machinery.SourceFileLoader('run_module', 'run')
module = importlib.util.module_from_spec(importlib.util.spec_from_loader('run_module', loader))
loader.exec_module(module)
peer = getattr(module, sys.argv[1])[sys.argv[2]]()
try:
    print(json.dumps(peer.start()), flush=True)
    sys.stdin.read()
finally:
    peer.stop()
";

/// The harness, and the peers of it that run.
pub(crate) struct Peers {
    folder: PathBuf,
    built: PathBuf,
    data: PathBuf,
    /// By table and name; `None` for one that does not start.
    running: RefCell<BTreeMap<(Table, &'static str), Option<Peer>>>,
}

/// What a peer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Files.
    Files,
    /// Names in a directory.
    Directory,
}

struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    options: Vec<String>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait(); // it stops its peer first
    }
}

impl Peers {
    /// The harness, if it is there; the peers' data goes to `data`, on the same file system as ours.
    pub(crate) fn find(data: PathBuf) -> Option<Peers> {
        let folder = PathBuf::from(std::env::var_os(FOLDER_VARIABLE)?);
        let built = PathBuf::from(std::env::var_os(BUILT_VARIABLE)?);
        let there = folder.join("peers.py").exists() && built.join("target/release/svcbench").exists();
        there.then_some(Peers { folder, built, data, running: RefCell::default() })
    }

    /// One timed run of `clients` that make or read (`operation`) what the table holds.
    ///
    /// # Errors
    /// The peer is not installed or does not start.
    pub(crate) fn measure(
        &self,
        table: Table,
        name: &'static str,
        operation: &str,
        (size, clients): (usize, usize),
        time: Duration,
    ) -> Result<Figures> {
        let options = self.options(table, name)?;
        self.load(table, (name, &options), operation, (size, clients), time)
    }

    /// How a peer is reached, which is started if it does not run.
    ///
    /// # Errors
    /// It is not installed or does not start.
    pub(crate) fn options(&self, table: Table, name: &'static str) -> Result<Vec<String>> {
        let mut running = self.running.borrow_mut();
        let peer = running.entry((table, name)).or_insert_with(|| self.start(table, name).ok());
        Ok(peer.as_ref().with_context(|| format!("{name} does not start"))?.options.clone())
    }

    /// As [`Peers::measure`], of whatever `options` reach.
    pub(crate) fn load(
        &self,
        table: Table,
        (name, options): (&str, &[String]),
        operation: &str,
        (size, clients): (usize, usize),
        time: Duration,
    ) -> Result<Figures> {
        let (suite, what) = match table {
            Table::Files => ("files", format!("sizes={size}")),
            Table::Directory => ("dir", format!("entries={ENTRIES}")),
        };
        let mut command = Command::new(self.built.join("target/release/svcbench"));
        command.args([suite, &format!("peer={name}"), &what, &format!("clients={clients}"), "runs=1"]);
        command.arg(format!("secs={}", time.as_secs_f64())).args(options).stdin(Stdio::null());
        let output = command.output().context("starting the load generator")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let cells = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let cell = cells.into_iter().find(|cell| cell["op"] == operation);
        let cell = cell.ok_or_else(|| anyhow!("no figures of `{operation}`"))?;
        let figure = |name: &str| cell[name][0].as_f64().with_context(|| format!("no {name} in {cell}"));
        let rate = figure("rate")?;
        Ok(Figures {
            p50: figure("p50_us")?,
            p99: figure("p99_us")?,
            megabytes: rate * size as f64 / 1e6,
            rate,
            ..Figures::default()
        })
    }

    /// Ends the peers that run.
    pub(crate) fn stop(&self) {
        self.running.borrow_mut().clear();
    }

    fn start(&self, table: Table, name: &'static str) -> Result<Peer> {
        let table = match table {
            Table::Files => "FILES",
            Table::Directory => "DIR",
        };
        std::fs::create_dir_all(&self.data)?;
        let mut child = Command::new("python3")
            .args(["-c", STARTER, table, name])
            .current_dir(&self.folder)
            .env("SVC_DATA", &self.data)
            .env(BUILT_VARIABLE, &self.built)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout was piped");
        let mut peer = Peer { child, stdin, options: Vec::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let options: BTreeMap<String, Value> =
            serde_json::from_str(&line).context("the peer did not start")?;
        let word = |(key, value): (String, Value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        };
        peer.options = options.into_iter().map(word).collect();
        Ok(peer)
    }
}
