//! Benchmarks: ours beside the limit of the same machine, measured in the same run.
//!
//! `cargo xtask bench NAME [--json]` builds this for speed and runs it. A yesterday's number of another machine says
//! nothing; the ratio does.
//!
//! - [`report`]: rows, medians, the table.
//! - [`limits`]: what the machine can do with no Amoeba at all.
//! - [`ours`]: a private system for the length of the run, and a server to talk to.
//! - [`transaction`]: the benchmark `transaction`.
//!
//! The far ends of the measurements are this same program, started again with the name of their part.
#![forbid(unsafe_code)]

mod limits;
mod ours;
mod report;
mod transaction;

use anyhow::{Result, bail};

const HELP: &str = "usage: amoeba-bench transaction [--json]";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [limits::FAR_END, kind] => limits::far_end(kind),
        [ours::SERVE, socket] => ours::serve(socket.as_ref()),
        ["transaction"] => transaction::run().map(|report| print!("{}", report.table())),
        ["transaction", "--json"] | ["--json", "transaction"] => {
            transaction::run().map(|report| println!("{}", report.json()))
        }
        _ => bail!(HELP),
    }
}
