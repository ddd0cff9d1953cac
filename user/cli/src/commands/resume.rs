//! `amoeba resume`: let a stunned process run on.

use std::ffi::OsString;

use amoeba_stubs::process;
use clap::Args;

use super::processes;
use crate::Context;

/// Let stunned processes run on
#[derive(Args)]
pub(crate) struct Arguments {
    /// NUMBER or HOST:NUMBER as `amoeba ps -a` shows them, or paths or capabilities of processes
    #[arg(required = true, value_name = "PROCESS")]
    processes: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        processes::for_each(context, &self.processes, |graph, process| {
            process::resume(graph.world(), process)
        })
    }
}
