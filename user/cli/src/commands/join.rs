//! `amoeba join`: make this host one of a system.

use std::ffi::OsString;

use clap::Args;

use crate::{Context, JoinOptions, JoinedSystem, place};

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
        let JoinedSystem { name, inviter, listen } =
            context.system.join(&JoinOptions { token, name, listen })?;
        context
            .out
            .line(format!("this host is {name} now, in the system of {inviter}; it listens on {listen}"))?;
        context.out.line("next: `amoeba host ls` lists the hosts, `amoeba run COMMAND` runs on one of them")
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn who_has_joined_hears_it_and_what_comes_next() {
        let expected = "\
this host is chisel now, in the system of anvil; it listens on [::]:5321
next: `amoeba host ls` lists the hosts, `amoeba run COMMAND` runs on one of them
";
        TestSystem::new().run(&["join", "am1good", "--name", "chisel"]).printed(expected);
    }

    #[test]
    fn a_host_that_cannot_join_says_why() {
        TestSystem::new().run(&["join", "am1x"]).failed(1, "amoeba: nobody answers to am1x\n");
    }
}
