//! On which cores the processes of a measurement run, and what they use.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Where client, server and daemons run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Wherever the scheduler likes.
    Free,
    /// All on the first core.
    OneCore,
    /// The client and its daemon on the first, the server and its daemon on the second.
    TwoCores,
}

/// What stands for "any core" among the words of a process.
const ANY: &str = "any";

impl Placement {
    /// The core of the server, as a word.
    pub(crate) fn server(self) -> &'static str {
        match self {
            Placement::Free => ANY,
            Placement::OneCore => "0",
            Placement::TwoCores => "1",
        }
    }

    /// The core of the clients, as a word.
    pub(crate) fn client(self) -> &'static str {
        if self == Placement::Free { ANY } else { "0" }
    }

    /// What the harness calls it.
    pub(crate) fn arguments(self) -> Vec<String> {
        let pin = match self {
            Placement::Free => return Vec::new(),
            Placement::OneCore => "0,0",
            Placement::TwoCores => "1,0",
        };
        vec!["--pin".to_owned(), pin.to_owned()]
    }

    /// Its name in a row.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Placement::Free => "free",
            Placement::OneCore => "one core",
            Placement::TwoCores => "two cores",
        }
    }

    /// Puts the kernel daemons, in the order of their hosts, where they belong.
    pub(crate) fn pin_daemons(self, daemons: &[u32]) -> Result<()> {
        for (host, daemon) in daemons.iter().enumerate() {
            let cpu = if host == 0 { self.client() } else { self.server() };
            for thread in threads(*daemon) {
                sched_setaffinity(Pid::from_raw(thread), &set(cpu)?).context("placing a daemon")?;
            }
        }
        Ok(())
    }
}

/// Puts this process on the core that a word says.
pub(crate) fn pin_self(cpu: &str) -> Result<()> {
    if cpu == ANY { Ok(()) } else { sched_setaffinity(None, &set(cpu)?).context("placing this process") }
}

fn set(cpu: &str) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    match cpu {
        ANY => (0..CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu)),
        cpu => set.set(cpu.parse().context("a core is a number")?),
    }
    Ok(set)
}

fn threads(process: u32) -> Vec<i32> {
    let folder = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    folder.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What processes have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    /// Processor time.
    pub(crate) cpu: Duration,
    /// Context switches.
    pub(crate) switches: u64,
}

impl Use {
    /// What these processes have used until now.
    pub(crate) fn of(processes: &[u32]) -> Use {
        let mut used = Use::default();
        for process in processes {
            for thread in threads(*process) {
                let read = |file: &str| {
                    std::fs::read_to_string(format!("/proc/{process}/task/{thread}/{file}"))
                        .unwrap_or_default()
                };
                let nanos = read("schedstat").split(' ').next().and_then(|word| word.parse().ok());
                used.cpu += Duration::from_nanos(nanos.unwrap_or(0));
                let status = read("status");
                let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
                let counts = lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
                used.switches += counts.sum::<u64>();
            }
        }
        used
    }

    /// What was used between `before` and this.
    pub(crate) fn since(&self, before: &Use) -> Use {
        Use {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}
