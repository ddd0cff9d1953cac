//! `amoeba cat`: files to standard output.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::Args;

use crate::{Context, files, place};

/// Write files to standard output, one after the other
#[derive(Args)]
pub(crate) struct Arguments {
    /// What to write
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(&self.paths)?;
        let graph = context.graph()?;
        for path in &self.paths {
            let place = graph.place(path)?;
            let found = graph.lookup(&place)?;
            files::read(&graph, &found.capability, &mut context.out).with_context(|| place.shown())?;
        }
        Ok(())
    }
}
