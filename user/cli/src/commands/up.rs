//! `amoeba up`: start the system on this host.

use std::process::ExitCode;

use clap::Args;

use crate::commands::status;
use crate::{Context, UpOptions};

/// Start the system on this host
///
/// Starts the kernel daemon and the servers that this host is to run, and a supervisor that starts again what dies. A
/// system that runs already is left alone, and what is missing of it is started. Returns when all servers answer.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Stay and supervise here, until SIGINT or SIGTERM
    #[arg(short, long)]
    foreground: bool,
    /// Print the status as JSON once everything runs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let code = context.system.up(&UpOptions { foreground: self.foreground })?;
        if !self.foreground {
            status::show(context, self.json, false)?;
        }
        Ok(code)
    }
}
