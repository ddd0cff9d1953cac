//! `amoeba dev`: throw-away hosts on this machine.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::{Context, DevOptions};

/// The most hosts: each is a few processes here.
const HOSTS_MAX: i64 = 60;

/// Try it out: some throw-away hosts on this machine, and a shell among them
///
/// They are one system: the first one has the files and the directories. Root gets them in network namespaces joined by
/// a bridge, everybody else on 127.0.0.1, 127.0.0.2 and so on. When the shell or the command ends, whatever happened,
/// nothing of it is left: no process, no file, no interface.
#[derive(Args)]
#[command(after_help = "\
AMOEBA_STATE leads to the first host. AMOEBA_DEV_HOSTS lists all as NAME=STATE:NAME=STATE; `AMOEBA_STATE=... amoeba ...` \
speaks to another. Exit code: the command's own; 128 + N when signal N ended it; 125 when this program failed; 126 when \
the command cannot be executed; 127 when it was not found.")]
pub(crate) struct Arguments {
    /// On the loopback interface, also for root
    #[arg(long)]
    loopback: bool,
    /// What the wire between the hosts does to frames, such as `loss=5%,duplicate=2%,reorder=10%,delay=1ms..20ms,corrupt=1%,
    /// rate=100mbit,seed=7`; each part may be missing, `none` is a wire that can be told later
    ///
    /// It begins when the hosts are there. AMOEBA_DEV_WIRE leads to a pipe that takes orders, a line each: `cut HOST [HOST]`,
    /// `heal [HOST [HOST]]`, `faults LIST`, `status`; the file beside it that ends in `.state` tells what has happened. Only
    /// for root.
    #[arg(long, value_name = "LIST", conflicts_with = "loopback")]
    faults: Option<String>,
    /// How many hosts
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=HOSTS_MAX))]
    hosts: u8,
    /// The command and its arguments; without it your shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let Arguments { loopback, faults, hosts, command } = self;
        context.system.dev(&DevOptions { hosts: hosts.into(), loopback, faults, command })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_failure_of_ours_is_not_mistaken_for_the_command_s() {
        TestSystem::new().run(&["dev", "3", "--", "false"]).failed(125, "amoeba: a host does not start\n");
    }
}
