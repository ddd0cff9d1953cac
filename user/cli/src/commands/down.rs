//! `amoeba down`: stop the system on this host.

use clap::Args;

use crate::Context;

/// Stop the system on this host
///
/// Ends every process that it runs and then its servers. Files and names stay; `amoeba up` brings them back. Does
/// nothing where no system runs.
#[derive(Args)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        context.system.down()
    }
}
