//! `amoeba status`: what runs on this host.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::out::{Align, Out};
use crate::{Context, SystemKind, SystemStatus, duration};

/// The exit code that says that the system does not run, as service managers use it.
const NOT_RUNNING: u8 = 3;

/// Show what runs on this host
///
/// Exits with 0 when the system runs and with 3 when it does not.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let running = show(context, self.json)?;
        Ok(if running { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
    }
}

/// Prints the status; whether the system runs.
pub(super) fn show(context: &mut Context<'_>, json: bool) -> anyhow::Result<bool> {
    let status = context.system.status()?;
    if json {
        context.out.json(&status)?;
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        print(&mut context.out, &status, now.as_secs())?;
    }
    Ok(status.running)
}

fn print(out: &mut Out<'_>, status: &SystemStatus, now: u64) -> anyhow::Result<()> {
    let kind = match status.kind {
        SystemKind::Root => "the system of this host",
        SystemKind::Private => "a private system",
    };
    let running = if status.running { "running" } else { "not running (`amoeba up` starts it)" };
    out.line(format!("{}: {kind}, {running}", status.host))?;
    out.line(format!("state in {}", status.state_directory.display()))?;
    if !status.daemons.is_empty() {
        out.line("")?;
        let rows = status.daemons.iter().map(|daemon| {
            let pid = daemon.pid.map_or("-".into(), |pid| pid.to_string());
            let age = daemon
                .since
                .map_or("-".into(), |since| duration::human(Duration::from_secs(now.saturating_sub(since))));
            vec![daemon.role.clone(), pid, age, daemon.restarts.to_string()]
        });
        let headings = [
            ("DAEMON", Align::Left),
            ("PID", Align::Right),
            ("UP", Align::Right),
            ("RESTARTS", Align::Right),
        ];
        out.table(&headings, rows.collect())?;
    }
    for sentence in &status.attention {
        out.line(format!("! {sentence}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DaemonStatus;
    use crate::out::printed;

    fn status() -> SystemStatus {
        let daemon =
            |role: &str, pid, since, restarts| DaemonStatus { role: role.into(), pid, since, restarts };
        SystemStatus {
            running: true,
            kind: SystemKind::Private,
            state_directory: "/home/ann/.local/state/amoeba".into(),
            host: "anvil".into(),
            daemons: vec![daemon("kernel", Some(17), Some(1000), 0), daemon("bullet", None, None, 12)],
            attention: vec!["bullet has been restarted 12 times".into()],
        }
    }

    #[test]
    fn people_see_daemons_and_what_needs_attention() {
        let expected = "anvil: a private system, running\n\
                        state in /home/ann/.local/state/amoeba\n\
                        \n\
                        DAEMON  PID     UP  RESTARTS\n\
                        kernel   17  1m05s         0\n\
                        bullet    -      -        12\n\
                        ! bullet has been restarted 12 times\n";
        assert_eq!(printed(|out| print(out, &status(), 1065)), expected);
    }

    #[test]
    fn programs_see_the_same() {
        let value = serde_json::to_value(status()).unwrap();
        assert_eq!(value["kind"], "private");
        assert_eq!(value["daemons"][0]["role"], "kernel");
        assert_eq!(value["daemons"][1]["pid"], serde_json::Value::Null);
    }
}
