//! `amoeba ps`: the processes of this host, or of all.

use std::io::Write;
use std::time::Duration;

use amoeba_process::{CPU_THOUSANDTHS_PER_CPU, Limits};
use amoeba_stubs::Client;
use amoeba_stubs::process::{self, ProcessRecord, STATE_EXITED};
use clap::Args;
use serde::Serialize;

use super::processes;
use crate::launch::pool::Pool;
use crate::out::{Align, Out, printable};
use crate::{Context, duration, everywhere, shown};

/// List processes
///
/// The number in the first column names the process to `amoeba kill`, `wait`, `logs`, `stun`, `resume` and `why`; that of
/// one on another host with the host in front: HOST:NUMBER.
#[derive(Args)]
pub(crate) struct Arguments {
    /// On all hosts, and also those that have ended, as far as they are remembered
    #[arg(short, long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    id: u16,
    state: &'static str,
    host: String,
    /// Not known before it runs, nor on a host that cannot tell.
    host_pid: Option<u32>,
    detached: bool,
    started: String,
    ended: Option<String>,
    user_microseconds: u64,
    system_microseconds: u64,
    exit_code: Option<u8>,
    signal: Option<u8>,
    /// Bytes.
    memory_limit: Option<u64>,
    cpu_limit: Option<f64>,
    process_limit: Option<u32>,
    network: bool,
    /// As `amoeba run --view` says it.
    view: &'static str,
    command: String,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let pool = Pool::new(&graph)?;
        let asked = if self.all { everywhere(&pool)? } else { here(&pool)? };
        for (host, why) in &asked.silent {
            // Standard error may be closed; what is listed is still true.
            let _ = writeln!(std::io::stderr(), "amoeba: host {host} {why}");
        }
        if self.json {
            let listed = asked.records.iter().map(|(host, record)| listed(record, host));
            return context.out.json(&listed.collect::<Vec<_>>());
        }
        print(&mut context.out, &asked.records, self.all, graph.world().clock.unix_time().as_secs())
    }
}

/// What hosts have said of their processes.
pub(super) struct Asked {
    /// Hosts and their processes.
    pub(super) records: Vec<(String, ProcessRecord)>,
    /// Hosts that have not said anything, and why.
    pub(super) silent: Vec<(String, String)>,
}

fn here(pool: &Pool) -> anyhow::Result<Asked> {
    let here = pool.here();
    let mut records = process::processes(pool.world(), &here.server)?;
    records.retain(|record| record.state != STATE_EXITED);
    let records = records.into_iter().map(|record| (here.host.clone(), record)).collect();
    Ok(Asked { records, silent: Vec::new() })
}

/// Asks all hosts at once, those that do not answer not for long.
pub(super) fn everywhere(pool: &Pool) -> anyhow::Result<Asked> {
    let hosts = pool.names()?;
    let asking = pool.clone();
    let answers = everywhere::ask(pool.world(), &hosts, move |host| {
        let target = asking.on(host)?;
        let options = processes::options();
        let client = Client::new(&*asking.world().transactions, &options);
        Ok::<_, anyhow::Error>(process::processes(client, &target.server)?)
    });
    let mut asked = Asked { records: Vec::new(), silent: Vec::new() };
    for (host, answer) in hosts.into_iter().zip(answers) {
        match answer {
            Some(Ok(records)) => {
                asked.records.extend(records.into_iter().map(|record| (host.clone(), record)));
            }
            Some(Err(_)) | None => asked.silent.push((host, "does not answer".into())),
        }
    }
    Ok(asked)
}

/// A table of processes; `now` is in seconds since 1970.
pub(super) fn print(
    out: &mut Out<'_>,
    records: &[(String, ProcessRecord)],
    with_hosts: bool,
    now: u64,
) -> anyhow::Result<()> {
    // A column that is empty for nearly everybody.
    let with_limits = records.iter().any(|(_, record)| limits(record).any());
    let rows = records.iter().map(|(host, record)| {
        let end = if record.state == STATE_EXITED { record.ended_at } else { now };
        let cpu = Duration::from_micros(record.user_microseconds.saturating_add(record.system_microseconds));
        let cells = [
            record.index.to_string(),
            state(record),
            duration::human(Duration::from_secs(end.saturating_sub(record.started_at))),
            format!("{:.2}s", cpu.as_secs_f64()),
            processes::view_name(record.view).into(),
        ];
        let limits = with_limits.then(|| limits(record).to_string());
        let host = with_hosts.then(|| host.clone());
        host.into_iter().chain(cells).chain(limits).chain([printable(&record.comment)]).collect()
    });
    let mut headings = vec![
        ("HOST", Align::Left),
        ("ID", Align::Right),
        ("STATE", Align::Left),
        ("ELAPSED", Align::Right),
        ("CPU", Align::Right),
        ("VIEW", Align::Left),
    ];
    headings.extend(with_limits.then_some(("LIMITS", Align::Left)));
    headings.push(("COMMAND", Align::Left));
    out.table(&headings[usize::from(!with_hosts)..], rows.collect())
}

fn limits(record: &ProcessRecord) -> Limits {
    Limits {
        memory: record.memory_limit,
        cpu_thousandths: record.cpu_limit_thousandths,
        processes: record.process_limit,
    }
}

fn state(record: &ProcessRecord) -> String {
    match (record.state, record.signal) {
        (STATE_EXITED, 0) => format!("exited {}", record.code),
        (STATE_EXITED, signal) => format!("killed {signal}"),
        (state, _) => processes::state_name(state).into(),
    }
}

fn listed(record: &ProcessRecord, host: &str) -> Listed {
    let ended = record.state == STATE_EXITED;
    Listed {
        id: record.index,
        state: processes::state_name(record.state),
        host: host.into(),
        host_pid: (record.pid != 0).then_some(record.pid),
        detached: record.detached,
        started: shown::time(record.started_at),
        ended: ended.then(|| shown::time(record.ended_at)),
        user_microseconds: record.user_microseconds,
        system_microseconds: record.system_microseconds,
        exit_code: ended.then_some(record.code),
        signal: (ended && record.signal != 0).then_some(record.signal),
        memory_limit: (record.memory_limit != 0).then_some(record.memory_limit),
        cpu_limit: (record.cpu_limit_thousandths != 0)
            .then(|| f64::from(record.cpu_limit_thousandths) / f64::from(CPU_THOUSANDTHS_PER_CPU)),
        process_limit: (record.process_limit != 0).then_some(record.process_limit),
        network: record.network,
        view: processes::view_name(record.view),
        command: String::from_utf8_lossy(&record.comment).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::printed;

    fn record(index: u16, state: u8, signal: u8, comment: &str) -> ProcessRecord {
        ProcessRecord {
            index,
            state,
            detached: false,
            pid: 4711,
            owned: true,
            started_at: 1000,
            ended_at: if state == STATE_EXITED { 1003 } else { 0 },
            user_microseconds: 1_500_000,
            system_microseconds: 10_000,
            code: if signal == 0 { 7 } else { 128 + signal },
            signal,
            memory_limit: 0,
            cpu_limit_thousandths: 0,
            process_limit: 0,
            network: false,
            view: process::VIEW_MINE,
            comment: comment.into(),
        }
    }

    #[test]
    fn people_see_a_table() {
        let records = [
            ("anvil".to_owned(), record(1, process::STATE_RUNNING, 0, "sleep 1000")),
            ("anvil".to_owned(), record(12, STATE_EXITED, 0, "sh -c exit\u{1b}7")),
            (
                "bolt".to_owned(),
                ProcessRecord { view: process::VIEW_GRAPH, ..record(13, STATE_EXITED, 9, "yes") },
            ),
        ];
        let expected = "ID  STATE     ELAPSED    CPU  VIEW   COMMAND\n \
                        1  running     1m40s  1.51s  mine   sleep 1000\n\
                        12  exited 7       3s  1.51s  mine   sh -c exit\\u{1b}7\n\
                        13  killed 9       3s  1.51s  graph  yes\n";
        assert_eq!(printed(|out| print(out, &records, false, 1100)), expected);
        let all = printed(|out| print(out, &records, true, 1100));
        assert_eq!(all.lines().last(), Some("bolt   13  killed 9       3s  1.51s  graph  yes"));
        let limited = ProcessRecord { memory_limit: 64 << 20, process_limit: 9, ..records[0].1.clone() };
        let shown = printed(|out| print(out, &[("anvil".to_owned(), limited)], false, 1100));
        assert!(shown.ends_with("CPU  VIEW  LIMITS               COMMAND\n 1  running    1m40s  1.51s  mine  64 MiB, 9 processes  sleep 1000\n"), "{shown}");
    }

    #[test]
    fn programs_see_codes_only_of_what_has_ended() {
        let value = |record| serde_json::to_value(listed(&record, "anvil")).unwrap();
        let running = value(record(1, process::STATE_RUNNING, 0, "x"));
        assert_eq!((&running["host_pid"], &running["view"]), (&4711.into(), &"mine".into()));
        let unknown = ProcessRecord { pid: 0, ..record(1, process::STATE_STARTING, 0, "x") };
        assert!(value(unknown)["host_pid"].is_null());
        assert!(running["exit_code"].is_null() && running["ended"].is_null());
        let killed = value(record(1, STATE_EXITED, 9, "x"));
        assert_eq!((killed["exit_code"].as_u64(), killed["signal"].as_u64()), (Some(137), Some(9)));
    }
}
