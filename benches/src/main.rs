//! Benchmarks: ours beside the limit of the same machine, measured in the same run.
//!
//! `cargo xtask bench NAME [--json]` builds this for speed and runs it. A yesterday's number of another machine says
//! nothing; the ratio does.
//!
//! - [`report`]: rows, medians, the table.
//! - [`limits`]: what the machine can do with no Amoeba at all.
//! - [`network`]: what the network between two hosts can do with no Amoeba at all.
//! - [`ours`]: two throw-away hosts for the length of the run, and a server to talk to.
//! - [`transaction`], [`dispatch`]: the benchmarks `transaction` and `run`.
//!
//! The far ends of the measurements are this same program, started again with the name of their part.
#![forbid(unsafe_code)]

mod dispatch;
mod limits;
mod network;
mod ours;
mod report;
mod transaction;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "usage: amoeba-bench transaction|run [--json]";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [limits::FAR_END, kind] => limits::far_end(kind)?,
        [network::FAR_HOST, kind, address, directory] => network::far_host(kind, address, directory)?,
        [ours::SERVE, socket] => ours::serve(socket.as_ref())?,
        [name] => return bench(name, false, &arguments),
        [name, "--json"] | ["--json", name] => return bench(name, true, &arguments),
        _ => bail!(HELP),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a benchmark; when there are no hosts yet, in this program started again among two.
fn bench(name: &str, json: bool, arguments: &[String]) -> Result<ExitCode> {
    let measure = match name {
        "transaction" => transaction::run,
        "run" => dispatch::run,
        _ => bail!(HELP),
    };
    if !ours::System::is_there() {
        return ours::among_hosts(arguments);
    }
    let report = measure()?;
    if json {
        println!("{}", report.json())
    } else {
        print!("{}", report.table())
    }
    Ok(ExitCode::SUCCESS)
}
