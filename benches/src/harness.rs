//! The harness of limits and peers: programs beside the product, each of which measures one way of making requests and
//! prints a line.
//!
//! It lies in the folder that `AMOEBA_PEERS` names, or in `shared/bench/peers` beside the project; `cargo xtask bench`
//! builds it. Without it ours is measured beside the few limits that this crate measures itself.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// Where `cargo xtask bench` has put the harness's programs.
pub(crate) const FOLDER_VARIABLE: &str = "AMOEBA_PEERS_BUILT";

/// What one timed run of requests was like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Microseconds of the median request.
    pub(crate) p50: f64,
    /// Microseconds below which 99 of 100 requests stay.
    pub(crate) p99: f64,
    /// Millions of bytes a second.
    pub(crate) megabytes: f64,
    /// Requests a second, of all clients.
    pub(crate) rate: f64,
    /// Microseconds of processor a request: client, server and every daemon.
    pub(crate) cpu: f64,
    /// Context switches a request.
    pub(crate) switches: f64,
    /// Requests of the slowest client for one of the fastest; 0 where nobody counted them.
    pub(crate) evenness: f64,
}

impl Figures {
    /// The line that a program of the harness prints: name and six figures, tabs between them.
    fn parse(line: &str) -> Result<Figures> {
        let words = line.split('\t').skip(1).map(|word| word.trim().parse::<f64>());
        let figures: Vec<f64> = words.collect::<Result<_, _>>().with_context(|| format!("`{line}`"))?;
        match figures[..] {
            [p50, p99, megabytes, rate, cpu, switches] => {
                Ok(Figures { p50, p99, megabytes, rate, cpu, switches, evenness: 0.0 })
            }
            _ => bail!("`{line}` has not six figures"),
        }
    }
}

/// See the module.
pub(crate) struct Harness {
    folder: PathBuf,
}

impl Harness {
    /// The harness, if it is there.
    pub(crate) fn find() -> Option<Harness> {
        let folder = PathBuf::from(std::env::var_os(FOLDER_VARIABLE)?);
        folder.join("limits").exists().then_some(Harness { folder })
    }

    /// Whether it has this program.
    pub(crate) fn has(&self, program: &str) -> bool {
        self.folder.join(program).exists()
    }

    /// One timed run of one of its programs.
    pub(crate) fn run(&self, program: &str, seconds: f64, arguments: &[String]) -> Result<Figures> {
        let mut command = Command::new(self.folder.join(program));
        command.args(["--secs", &seconds.to_string()]).args(arguments).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("starting {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rev().find(|line| line.contains('\t'));
        line.map(Figures::parse).unwrap_or_else(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            Err(anyhow!(
                "{program} {}: {}",
                arguments.join(" "),
                error.lines().last().unwrap_or("no figures")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let figures = Figures::parse("limit: udp\t10.7\t13.9\t0.0\t91350\t10.9\t2.00").unwrap();
        assert_eq!((figures.p50, figures.rate, figures.switches), (10.7, 91350.0, 2.0));
        assert!(Figures::parse("limit\t1").is_err() && Figures::parse("limit\tx\t1\t1\t1\t1\t1").is_err());
    }
}
