//! `amoeba compact`: the free room of a file server's disk in one piece.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_stubs::bullet;
use amoeba_world::World;
use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::server;
use crate::out::{counted, human_size};
use crate::{Context, Standard};

/// How often progress is asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Move a file server's files together, so that its free room is in few pieces
///
/// Files go on being served meanwhile, and an interrupt or a crash leaves every one whole; the server goes on with it when
/// this command is interrupted.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The server: its host's name or its capability, with all rights; without it the one of this host
    server: Option<OsString>,
}

#[derive(Serialize)]
struct Compacted {
    moved_files: u64,
    moved_size: u64,
    hole_count: u64,
    hole_size_max: u64,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let (server, shown) = server::of_files(context, &graph, self.server.as_deref())?;
        let watcher =
            context.is_terminal(Standard::Error).then(|| Watcher::start(graph.world(), server, &shown));
        let compacted = bullet::compact(graph.world(), &server);
        drop(watcher);
        let done = server::told(compacted).with_context(|| shown.clone())?;
        let done = Compacted {
            moved_files: done.moved_files,
            moved_size: done.moved_size,
            hole_count: done.hole_count,
            hole_size_max: done.hole_size_max,
        };
        if self.json {
            return context.out.json(&done);
        }
        let (moved, largest) = (human_size(done.moved_size), human_size(done.hole_size_max));
        let files = counted(done.moved_files, "file", "files");
        let room = match done.hole_count {
            0 => "no room is free".to_owned(),
            1 => format!("free room in one piece of {largest}"),
            pieces => format!("free room in {pieces} pieces, the largest {largest}"),
        };
        context.out.line(format!("{shown}: {files} moved, {moved}; {room}"))
    }
}

/// Draws how far a compaction is until it is dropped.
struct Watcher(Arc<AtomicBool>);

impl Watcher {
    fn start(world: &World, server: Capability, shown: &str) -> Watcher {
        let ended = Arc::new(AtomicBool::new(false));
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {percent}% {eta}") {
            bar.set_style(style);
        }
        bar.set_message(shown.to_owned());
        let (world, watched) = (world.clone(), ended.clone());
        // Without the thread there is only no bar.
        let _ = world.threads.clone().spawn("progress", move || {
            loop {
                world.threads.sleep(LOOK_INTERVAL);
                if watched.load(Ordering::SeqCst) {
                    return bar.finish_and_clear();
                }
                if let Ok(usage) = bullet::usage(&world, &server) {
                    bar.set_length(usage.compact_all);
                    bar.set_position(usage.compact_done);
                }
            }
        });
        Watcher(ended)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
