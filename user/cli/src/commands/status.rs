//! `amoeba status`: what runs on this host, and how the system it belongs to is doing.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amoeba_name::Names;
use amoeba_stubs::{standard, system};
use amoeba_world::Error as Refusal;
use clap::Args;
use serde::Serialize;

use super::df;
use super::host::{self, Host};
use super::mounts::{self, Mounted};
use crate::graph::Graph;
use crate::launch::pool::{HOST_LOCATE_TIMEOUT, Pool};
use crate::out::{Align, Out, printable};
use crate::place::Place;
use crate::{Context, SystemKind, SystemStatus, duration, everywhere, members};

/// Where the graph has names for services.
const SERVICES: &[u8] = b"/profile/cap";
/// How long everything but this host's own daemons may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// The exit code that says that the system does not run, as service managers use it.
const NOT_RUNNING: u8 = 3;

/// Show what runs: this host's daemons, all hosts, the services, and what needs attention
///
/// Exits with 0 when the system runs and with 3 when it does not.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show the counters of the kernel of this host too, layer by layer
    #[arg(short, long)]
    verbose: bool,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let counters = if self.verbose { counters(context) } else { None };
        let running = show_with(context, self.json, true, counters.as_deref())?;
        Ok(if running { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
    }
}

/// Everything, as programs see it.
#[derive(Serialize)]
struct Everything<'a> {
    #[serde(flatten)]
    status: &'a SystemStatus,
    hosts: &'a [Host],
    services: &'a [Service],
    /// Of the directory graph, on this host, by this user.
    mounts: &'a [Mounted],
    /// File servers, and how much room they have.
    files: &'a [df::Files],
    /// By layer and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<BTreeMap<&'a str, BTreeMap<&'a str, u64>>>,
}

/// A service that the graph has a name for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Service {
    /// Its directory under /profile/cap.
    name: String,
    /// Whether it answers.
    answers: bool,
}

/// How the system beyond this host is doing.
#[derive(Default)]
struct Beyond {
    hosts: Vec<Host>,
    services: Vec<Service>,
    files: Vec<df::Files>,
    /// What cannot be told, and why.
    attention: Vec<String>,
}

/// Prints the status, with `beyond` also that of the other hosts and of the services; whether the system runs.
pub(super) fn show(context: &mut Context<'_>, json: bool, beyond: bool) -> anyhow::Result<bool> {
    show_with(context, json, beyond, None)
}

fn show_with(
    context: &mut Context<'_>,
    json: bool,
    beyond: bool,
    counters: Option<&str>,
) -> anyhow::Result<bool> {
    let mut status = context.system.status()?;
    let beyond = if status.running && beyond { look_beyond(context) } else { Beyond::default() };
    status.attention.extend(beyond.attention);
    let mounts =
        context.system.mounting().and_then(|mounting| mounts::all(mounting).ok()).unwrap_or_default();
    status.attention.extend(mounts.iter().filter_map(Mounted::attention));
    let Beyond { hosts, services, files, .. } = beyond;
    if json {
        let counters = counters.map(by_layer);
        let (status, hosts, services, files) = (&status, &hosts[..], &services[..], &files[..]);
        let all = Everything { status, hosts, services, mounts: &mounts, files, counters };
        context.out.json(&all)?;
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seen = Seen { hosts: &hosts, services: &services, mounts: &mounts, files: &files };
        print(&mut context.out, &status, seen, now)?;
        if let Some(counters) = counters {
            context.out.line("")?;
            context.out.bytes(counters.as_bytes())?;
        }
    }
    Ok(status.running)
}

/// What the kernel of this host has counted, if it answers.
fn counters(context: &Context<'_>) -> Option<String> {
    let graph = context.graph().ok()?;
    let world = amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT);
    let text = system::statistics(&world, &graph.at_host("sys").ok()?).ok()?;
    Some(text.split(|byte| *byte == b'\n').map(|line| printable(line) + "\n").collect())
}

/// The lines that are a name and a number, by the layer whose heading `# NAME` stands above them.
fn by_layer(text: &str) -> BTreeMap<&str, BTreeMap<&str, u64>> {
    let mut layers: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut layer = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            layer = name;
        } else if let Some((name, value)) = line.rsplit_once(' ')
            && let Ok(value) = value.parse()
        {
            layers.entry(layer).or_default().insert(name.trim_end(), value);
        }
    }
    layers
}

/// Asks, but never for long: a status is looked at when something is wrong.
fn look_beyond(context: &Context<'_>) -> Beyond {
    let failed = |why: String| Beyond { attention: vec![why], ..Beyond::default() };
    let graph = match context.graph() {
        Ok(graph) => graph,
        Err(error) => return failed(format!("the system cannot be asked: {}", in_one_line(&error))),
    };
    let (sender, answer) = mpsc::channel();
    let threads = graph.world().threads.clone();
    let asked = threads.spawn("status", move || {
        // Whoever asked may have run out of patience.
        let _ = sender.send(ask(&graph).unwrap_or_else(|error| failed(in_one_line(&error))));
    });
    match asked {
        Ok(_) => answer
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| failed("the other hosts and the services do not answer".into())),
        Err(error) => failed(error.to_string()),
    }
}

fn ask(graph: &Graph) -> anyhow::Result<Beyond> {
    let pool = Pool::new(graph)?;
    let hosts: Vec<Host> = pool.hosts()?.iter().map(Host::from).collect();
    let rows = graph.list(&Place::Path(SERVICES.to_vec()))?.rows;
    let names: Vec<String> = rows.iter().map(|row| printable(&row.name)).collect();
    let world = amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT);
    let graph_names = Names::new(&world, graph.session().root);
    let answers = everywhere::ask(graph.world(), &names, move |name| {
        let path = [SERVICES, b"/", name.as_bytes(), b"/default"].concat();
        let found = graph_names.resolve(&path);
        // Any answer comes from somebody who is there.
        found.is_ok_and(
            |service| !matches!(standard::info(&world, &service, 0), Err(error) if is_silence(error)),
        )
    });
    let answers = answers.into_iter().map(|answer| answer == Some(true));
    let services = names.into_iter().zip(answers).map(|(name, answers)| Service { name, answers });
    let services: Vec<Service> = services.collect();
    let down = hosts.iter().filter(|host| !host.is_up()).map(|host| {
        let why = host.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("host {} is {} since {}{why}", host.name, host.state, host.since)
    });
    let silent = services.iter().filter(|service| !service.answers);
    let silent = silent.map(|service| format!("service {} does not answer", service.name));
    let ways = members::ways(graph);
    let troubles =
        ways.iter().filter_map(|way| Some(format!("host {}: {}", way.name, way.trouble.as_ref()?)));
    // A server that does not answer is told as a service already.
    let files = df::file_servers(graph).unwrap_or_default();
    let lacking = files.iter().flat_map(df::Files::attention);
    let attention = down.chain(silent).chain(troubles).chain(lacking).collect();
    Ok(Beyond { hosts, services, files, attention })
}

/// What and why; the next step is left out.
fn in_one_line(error: &anyhow::Error) -> String {
    let causes: Vec<String> =
        error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()).collect();
    causes.join(": ")
}

fn is_silence(error: Refusal) -> bool {
    matches!(error, Refusal::NotSent(_) | Refusal::MaybeExecuted(_))
}

/// What is printed beside the daemons of this host.
#[derive(Default)]
struct Seen<'a> {
    hosts: &'a [Host],
    services: &'a [Service],
    mounts: &'a [Mounted],
    files: &'a [df::Files],
}

fn print(out: &mut Out<'_>, status: &SystemStatus, seen: Seen<'_>, now: u64) -> anyhow::Result<()> {
    let Seen { hosts, services, mounts, files } = seen;
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
    if hosts.len() > 1 {
        out.line("")?;
        host::print(out, hosts, now)?;
    }
    if !mounts.is_empty() {
        out.line("")?;
        print_mounts(out, mounts)?;
    }
    if !services.is_empty() {
        let service = |service: &Service| {
            let mark = if service.answers { "" } else { " (silent)" };
            format!("{}{mark}", service.name)
        };
        let services: Vec<String> = services.iter().map(service).collect();
        out.line("")?;
        out.line(format!("services: {}", services.join(", ")))?;
    }
    let room: Vec<String> = files.iter().filter_map(df::Files::room).collect();
    if !room.is_empty() {
        out.line(format!("files: {}", room.join("; ")))?;
    }
    for sentence in &status.attention {
        out.line(format!("! {sentence}"))?;
    }
    Ok(())
}

fn print_mounts(out: &mut Out<'_>, mounts: &[Mounted]) -> anyhow::Result<()> {
    let rows = mounts.iter().map(|Mounted { at, alive }| {
        let state = if *alive { "served" } else { "dead" };
        let changes = if at.read_only { "read-only" } else { "read-write" };
        let directory = printable(at.directory.as_os_str().as_encoded_bytes());
        vec![directory, printable(at.shows.as_bytes()), changes.into(), state.into(), at.pid.to_string()]
    });
    let headings = [
        ("MOUNT", Align::Left),
        ("SHOWS", Align::Left),
        ("CHANGES", Align::Left),
        ("STATE", Align::Left),
        ("PID", Align::Right),
    ];
    out.table(&headings, rows.collect())
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
                        \n\
                        services: bulletsvr, runsvr (silent)\n\
                        ! bullet has been restarted 12 times\n";
        let service = |name: &str, answers| Service { name: name.into(), answers };
        let services = [service("bulletsvr", true), service("runsvr", false)];
        assert_eq!(
            printed(|out| print(out, &status(), Seen { services: &services, ..Seen::default() }, 1065)),
            expected
        );
    }

    #[test]
    fn people_see_their_mounts() {
        let mounted = |directory: &str, shows: &str, read_only, alive| {
            let at = mounts::MountedAt {
                directory: directory.into(),
                pid: 17,
                shows: shows.into(),
                read_only,
                device: String::new(),
            };
            Mounted { at, alive }
        };
        let mounts = [mounted("/mnt/a", "/", false, true), mounted("/mnt/b", "/home", true, false)];
        let shown = printed(|out| print(out, &status(), Seen { mounts: &mounts, ..Seen::default() }, 1065));
        let expected = "MOUNT   SHOWS  CHANGES     STATE   PID\n\
                        /mnt/a  /      read-write  served   17\n\
                        /mnt/b  /home  read-only   dead     17\n";
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn programs_see_the_same() {
        let services = [Service { name: "bulletsvr".into(), answers: true }];
        let counters = Some(by_layer("# flip\nroutes          7\nlink udp sealed\n# channels\nchannels 2\n"));
        let status = &status();
        let all = Everything { status, hosts: &[], services: &services, mounts: &[], files: &[], counters };
        let value = serde_json::to_value(all).unwrap();
        assert_eq!(value["services"][0]["answers"], true);
        assert_eq!(value["counters"]["flip"], serde_json::json!({ "routes": 7 }));
        assert_eq!(value["counters"]["channels"]["channels"], 2);
        assert_eq!(value["kind"], "private");
        assert_eq!(value["daemons"][0]["role"], "kernel");
        assert_eq!(value["daemons"][0]["since"], "1970-01-01T00:16:40Z");
        assert!(value["daemons"][1]["since"].is_null());
        assert_eq!(value["daemons"][1]["pid"], serde_json::Value::Null);
    }
}
