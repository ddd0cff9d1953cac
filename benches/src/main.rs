//! Benchmarks: ours beside the limit of the same machine and beside its peers, measured in the same run.
//!
//! `cargo xtask bench NAME [--json]` builds this for speed and runs it. A yesterday's number of another machine says
//! nothing; the ratio does.
//!
//! - [`report`]: rows, medians, the table.
//! - [`harness`]: programs beside the product that measure limits and peers; [`limits`] and [`network`] measure a few
//!   limits where those are not there.
//! - [`ours`]: two throw-away hosts for the length of the run; [`load`]: a server and clients on them; [`place`]: on which
//!   cores.
//! - [`rounds`]: contenders that take turns.
//! - [`transaction`], [`storage`], [`dispatch`], [`mount`], [`build`]: the benchmarks `transaction`, `storage`, `run`, `mount` and
//!   `build`.
//!
//! The far ends of the measurements are this same program, started again with the name of their part.
#![forbid(unsafe_code)]

mod build;
mod dispatch;
mod graph_mount;
mod harness;
mod limits;
mod load;
mod mount;
mod mount_peers;
mod mount_programs;
mod network;
mod ours;
mod place;
mod report;
mod rounds;
mod sight;
mod ssh;
mod storage;
mod transaction;
mod transfer;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use report::Report;
use rounds::Scope;

const HELP: &str =
    "usage: amoeba-bench transaction|storage|run|mount|build [--json] [--quick] [--rows PART-OF-A-NAME]";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [limits::FAR_END, kind] => limits::far_end(kind)?,
        [network::FAR_HOST, kind, address, directory] => network::far_host(kind, address, directory)?,
        [load::SERVE, socket, host, cpu] => load::serve(socket.as_ref(), host.as_ref(), cpu)?,
        [load::CLIENT, socket, host, ref words @ ..] => load::client(socket.as_ref(), host.as_ref(), words)?,
        [storage::client::CLIENT, socket, host, state, ref words @ ..] => {
            storage::client::client(socket.as_ref(), host.as_ref(), state.as_ref(), words)?;
        }
        [build::ON_HOST, directory, ref command @ ..] => build::on_host(directory.as_ref(), command)?,
        [mount::SERVE, directory, kind] => mount::serve(directory.as_ref(), kind)?,
        _ => return bench(&words, &arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a benchmark; when there are no hosts yet, in this program started again among two.
fn bench(words: &[&str], arguments: &[String]) -> Result<ExitCode> {
    let (mut name, mut json, mut quick, mut pattern) = (None, false, false, String::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--json" => json = true,
            "--quick" => quick = true,
            "--rows" => pattern = (*words.next().context(HELP)?).to_owned(),
            word if name.is_none() && !word.starts_with('-') => name = Some(word),
            _ => bail!(HELP),
        }
    }
    let scope = Scope { rounds: if quick { 1 } else { 5 }, time: Duration::from_millis(400), pattern };
    let measure: Box<dyn Fn() -> Result<Report>> = match name {
        Some("transaction") => Box::new(move || transaction::run(&scope)),
        Some("storage") => Box::new(move || storage::run(&scope)),
        Some("run") => Box::new(move || dispatch::run(&scope)),
        Some("mount") => Box::new(move || mount::run(&scope)),
        Some("build") => Box::new(move || build::run(&scope)),
        _ => bail!(HELP),
    };
    // A mount needs no hosts.
    if name != Some("mount") && !ours::System::is_there() {
        let hosts = if name == Some("build") { build::HOSTS } else { 2 };
        return ours::among_hosts(hosts, arguments);
    }
    let report = measure()?;
    if json {
        println!("{}", report.json())
    } else {
        print!("{}", report.table())
    }
    Ok(ExitCode::SUCCESS)
}
