//! `amoeba why`: why a process runs where it runs.

use std::ffi::OsString;

use amoeba_stubs::pool;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use super::processes;
use crate::Context;
use crate::failure::Advise;
use crate::launch::pool::Pool;

/// Explain why a process runs where it runs
///
/// The hosts that could have taken it with their scores, and the others with the reason why they could not. The run server
/// remembers its last decisions.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// NUMBER or HOST:NUMBER as `amoeba ps -a` shows it, or its path or capability
    process: OsString,
}

#[derive(Serialize)]
struct Explained {
    why: String,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let process = processes::find(&graph, &self.process)?;
        let pool = Pool::new(&graph)?;
        if pool.is_alone() {
            return Err(anyhow!("there is one host, so nothing was chosen"));
        }
        let server = pool.run_server().ok_or_else(|| anyhow!("no run server remembers it"));
        let server = server.hint("without a run server every command chooses by itself and tells nobody")?;
        let number = process.object().get();
        let text = match pool::why_process(graph.world(), server, process.port, number) {
            Err(Refusal::Refused(Status::STD_NOTFOUND)) => {
                let hint = "it was started with --on, or by a command that chose by itself, or long ago";
                return Err(anyhow!("the run server did not choose its host")).hint(hint);
            }
            text => String::from_utf8_lossy(&text.context("the run server")?).into_owned(),
        };
        if self.json {
            return context.out.json(&Explained { why: text });
        }
        context.out.line(text.trim_end())
    }
}
