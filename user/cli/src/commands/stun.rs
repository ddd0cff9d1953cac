//! `amoeba stun`: stop a process where it is.

use std::ffi::OsString;

use amoeba_stubs::process;
use clap::Args;

use super::processes;
use crate::Context;

/// Stop processes where they are
///
/// A stunned process keeps everything it has and does nothing, until `amoeba resume` lets it run on. Unlike a stop
/// signal it reaches everything the process has started.
#[derive(Args)]
pub(crate) struct Arguments {
    /// NUMBER or HOST:NUMBER as `amoeba ps -a` shows them, or paths or capabilities of processes
    #[arg(required = true, value_name = "PROCESS")]
    processes: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        processes::for_each(context, &self.processes, |graph, process| {
            process::stun(graph.world(), process, 0)
        })
    }
}
