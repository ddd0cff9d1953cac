//! `amoeba join`: make this host one of a system.

use std::ffi::OsString;

use clap::Args;

use crate::{Context, JoinOptions, place};

/// Make this host one of a system that runs elsewhere, and start it
///
/// TOKEN is what `amoeba invite` has printed on a host of that system. This host then has the same names and files, runs a
/// kernel and no other server, and is known as /system/hosts/NAME. When it was interrupted, the same token completes it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The token; `-` reads it from standard input, @FILE and fd:N from there
    token: OsString,
    /// What this host is called, instead of the machine's name
    #[arg(long)]
    name: Option<String>,
    /// Where this host listens for others, instead of the first free UDP port from 5321 on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let Arguments { token, name, listen } = self;
        let token = place::read_secret(&token)?;
        context.system.join(&JoinOptions { token, name, listen })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_host_that_cannot_join_says_why() {
        TestSystem::new().run(&["join", "am1x"]).failed(1, "amoeba: nobody answers to am1x\n");
    }
}
