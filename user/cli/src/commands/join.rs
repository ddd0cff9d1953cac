//! `amoeba join`: make this host one of a system.

use clap::Args;

use crate::{Context, JoinOptions};

/// Make this host one of a system that runs elsewhere, and start it
///
/// The system there must have a `[link]` in its config.toml. This host gets the system's secret and root directory, runs
/// a kernel and no other server, and is known as /profile/hosts/NAME. Packets between hosts are not sealed yet: only
/// loopback addresses are allowed, and hosts for tests that both say --dev.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A host of the system
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// What this host is called, instead of the machine's name
    #[arg(long)]
    name: Option<String>,
    /// Where this host listens for others
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// These are throw-away hosts on a network of their own: let packets cross it that are not sealed
    #[arg(long)]
    dev: bool,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let Arguments { address, name, listen, dev } = self;
        context.system.join(&JoinOptions { address, name, listen, dev })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_host_that_does_not_answer_is_named() {
        TestSystem::new().run(&["join", "127.0.0.1:9"]).failed(1, "amoeba: nobody answers at 127.0.0.1:9\n");
    }
}
