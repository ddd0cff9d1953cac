//! `amoeba wait`: the end of a process, and its exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use amoeba_stubs::{Client, process};
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::processes;
use crate::Context;
use crate::place::Place;

/// Wait for a process to end
///
/// Exits with the exit code of the process: its own, 128 and the signal that ended it, 126 or 127 when it never ran.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print how it ended as JSON
    #[arg(long)]
    json: bool,
    /// NUMBER or HOST:NUMBER as `amoeba ps -a` shows it, or its path or capability
    process: OsString,
}

#[derive(Serialize)]
struct Ended {
    exit_code: u8,
    signal: Option<u8>,
    core_dumped: bool,
    user_microseconds: u64,
    system_microseconds: u64,
    reason: Option<String>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let graph = context.graph()?;
        let process = processes::find_known(&graph, &self.process)?;
        let options = processes::options();
        let exit = process::wait(Client::new(&*graph.world().transactions, &options), &process);
        let exit = exit.map_err(processes::lost).context(Place::argument_shown(&self.process))?;
        if self.json {
            let reason = String::from_utf8_lossy(&exit.reason).into_owned();
            context.out.json(&Ended {
                exit_code: exit.code,
                signal: (exit.signal != 0).then_some(exit.signal),
                core_dumped: exit.core_dumped,
                user_microseconds: exit.user_microseconds,
                system_microseconds: exit.system_microseconds,
                reason: (!reason.is_empty()).then_some(reason),
            })?;
        }
        Ok(ExitCode::from(exit.code))
    }
}
