//! `amoeba logs`: the output of a detached process.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_stubs::process;
use anyhow::Context as _;
use clap::Args;

use super::processes;
use crate::Context;
use crate::graph::Graph;
use crate::place::Place;

/// How often a log that grows is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes asked for at once.
const PIECE_SIZE: u32 = 256 * 1024;

/// Show the output of a detached process
///
/// What it wrote to standard output and standard error, in the order it came. Readable while the process runs, and as
/// long as `amoeba ps -a` lists it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Go on until the process has ended
    #[arg(short, long)]
    follow: bool,
    /// NUMBER or HOST:NUMBER as `amoeba ps -a` shows it, or its path or capability
    process: OsString,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let process = processes::find_known(&graph, &self.process)?;
        let ended = if self.follow { watch(&graph, process)? } else { Arc::new(AtomicBool::new(true)) };
        let mut offset = 0;
        loop {
            // Looked at before the log, so that nothing written before the end is missed.
            let last_look = ended.load(Ordering::SeqCst);
            let part = process::read_log(graph.world(), &process, offset, PIECE_SIZE)
                .map_err(processes::lost)
                .context(Place::argument_shown(&self.process))?;
            offset += part.data.len() as u64;
            context.out.bytes(&part.data)?;
            if !part.end {
                continue;
            }
            if last_look {
                return Ok(());
            }
            context.out.flush()?;
            graph.world().threads.sleep(LOOK_INTERVAL);
        }
    }
}

/// A flag that is set when the process has ended, or can no longer be asked.
fn watch(graph: &Graph, process: Capability) -> anyhow::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let (flag, world) = (ended.clone(), graph.world().clone());
    graph.world().threads.spawn("wait", move || {
        let _ = process::wait(&world, &process);
        flag.store(true, Ordering::SeqCst);
    })?;
    Ok(ended)
}
