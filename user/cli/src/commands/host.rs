//! `amoeba host`: the hosts of the system.

use std::time::Duration;

use amoeba_stubs::pool::{HostRecord, STATE_DOWN, STATE_NEW, STATE_SILENT, STATE_UP};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::failure::Advise;
use crate::graph::Graph;
use crate::launch::pool::Pool;
use crate::members::{self, Member, Way};
use crate::out::{Align, Out, human_size, printable};
use crate::{Context, duration, shown};

mod remove;

/// Show the hosts of the system
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Subcommand)]
enum HostCommand {
    /// List the hosts: what they are, how busy, and since when they are up or down
    ///
    /// The run server tells, when there is one; else the hosts are asked.
    Ls(Ls),
    /// Show all that is known of a host
    Show(Show),
    /// Take a host out of the system: within five seconds no other speaks with it
    ///
    /// What it runs is lost to the others, and so are the files that only its file server has. The host itself keeps what it
    /// has on its disks. It can join again, by a new invitation, when its state directory was moved away.
    Remove(Remove),
}

#[derive(Args)]
struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Its name, as `amoeba host ls` lists it
    host: String,
}

#[derive(Args)]
struct Remove {
    /// Its name, as `amoeba host ls` lists it
    host: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Also the host without which the rest is of no use
    #[arg(long)]
    force: bool,
}

/// A host for programs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) since: String,
    /// Why it is not up.
    pub(crate) reason: Option<String>,
    pub(crate) architecture: String,
    pub(crate) cpus: u32,
    pub(crate) load: f64,
    pub(crate) memory_free: u64,
    pub(crate) memory_total: u64,
    pub(crate) processes: u32,
    /// When it last answered, if it ever has.
    pub(crate) answered: Option<String>,
    pub(crate) mips: u32,
    #[serde(flatten)]
    belonging: Belonging,
    #[serde(skip)]
    since_seconds: u64,
}

/// What the system has written down of a host, and how this host reaches it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Belonging {
    /// Where others reach it, the best first.
    addresses: Vec<String>,
    /// Its public key.
    key: Option<String>,
    /// The host that invited it.
    inviter: Option<String>,
    /// When it joined.
    joined: Option<String>,
    /// The kind of link, and how it is sealed; `here` for this host.
    link: Option<String>,
    /// What is wrong with the link.
    trouble: Option<String>,
}

impl Host {
    pub(crate) fn is_up(&self) -> bool {
        self.state == "up"
    }

    /// A host that has joined and that nobody has asked yet.
    fn that_joined(member: &Member) -> Host {
        let name = member.name.as_bytes().to_vec();
        let reason = b"it has joined, and is not in the pool yet".to_vec();
        let record = HostRecord {
            name,
            state: STATE_NEW,
            since: member.joined,
            reason,
            architecture: Vec::new(),
            cpus: 0,
            kips: 0,
            load_thousandths: 0,
            placed_thousandths: 0,
            memory_free: 0,
            memory_total: 0,
            processes: 0,
            answered: 0,
            polls: 0,
            considered: 0,
            chosen: 0,
        };
        Host::from(&record)
    }

    fn has_answered(&self) -> bool {
        self.answered.is_some()
    }
}

impl From<&HostRecord> for Host {
    fn from(record: &HostRecord) -> Host {
        let reason = (!record.reason.is_empty()).then(|| printable(&record.reason));
        Host {
            name: printable(&record.name),
            state: state_name(record.state),
            since: shown::time(record.since),
            reason,
            architecture: printable(&record.architecture),
            cpus: record.cpus,
            load: record.load_thousandths as f64 / 1000.0,
            memory_free: record.memory_free,
            memory_total: record.memory_total,
            processes: record.processes,
            answered: (record.answered != 0).then(|| shown::time(record.answered)),
            mips: record.kips / 1000,
            belonging: Belonging::default(),
            since_seconds: record.since,
        }
    }
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        match self.command {
            HostCommand::Ls(Ls { json }) => {
                let hosts = known(&graph)?;
                if json {
                    return context.out.json(&hosts);
                }
                print_all(&mut context.out, &hosts, graph.world().clock.unix_time().as_secs())
            }
            HostCommand::Show(Show { json, host: name }) => {
                let host = known(&graph)?.into_iter().find(|host| host.name == name);
                let host = host
                    .ok_or_else(|| anyhow!("there is no host {name}"))
                    .hint("`amoeba host ls` lists them")?;
                if json { context.out.json(&host) } else { print_one(&mut context.out, &host) }
            }
            HostCommand::Remove(Remove { host, yes, force }) => {
                remove::run(context, &graph, &host, yes, force)
            }
        }
    }
}

/// The hosts of the system that programs may run on, by name.
pub(super) fn all(graph: &Graph) -> anyhow::Result<Vec<Host>> {
    Ok(Pool::new(graph)?.hosts()?.iter().map(Host::from).collect())
}

/// All hosts of the system, by name: also those that have joined and are not in the pool yet.
fn known(graph: &Graph) -> anyhow::Result<Vec<Host>> {
    let mut hosts = all(graph)?;
    // A system of one host may be older than its directory of hosts.
    let members = members::members(graph).unwrap_or_default();
    let ways = members::ways(graph);
    for member in &members {
        if !hosts.iter().any(|host| host.name == member.name) {
            hosts.push(Host::that_joined(member));
        }
    }
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    for host in &mut hosts {
        let member = members.iter().find(|member| member.name == host.name);
        let is_here = graph.session().host_name == host.name;
        host.belonging = Belonging::new(member, ways.iter().find(|way| way.name == host.name), is_here);
    }
    Ok(hosts)
}

impl Belonging {
    fn new(member: Option<&Member>, way: Option<&Way>, is_here: bool) -> Belonging {
        let link = match way {
            _ if is_here => Some("here".to_owned()),
            Some(way) if way.up => Some(way.link.clone()),
            Some(_) => Some("down".to_owned()),
            None => None,
        };
        let trouble = way.and_then(|way| way.trouble.clone());
        let Some(member) = member else { return Belonging { link, trouble, ..Belonging::default() } };
        Belonging {
            addresses: member.addresses.clone(),
            key: Some(member.key.clone()),
            inviter: member.inviter.clone(),
            joined: (member.joined != 0).then(|| shown::time(member.joined)),
            link,
            trouble,
        }
    }

    fn fingerprint(&self) -> String {
        let key = self.key.clone().unwrap_or_default();
        let member = Member { key, ..Member::default() };
        if member.key.is_empty() { "-".to_owned() } else { member.fingerprint().to_owned() }
    }
}

fn state_name(state: u8) -> &'static str {
    match state {
        STATE_NEW => "new",
        STATE_UP => "up",
        STATE_SILENT => "silent",
        STATE_DOWN => "down",
        _ => "unknown",
    }
}

/// A table of hosts; `now` is in seconds since 1970.
pub(super) fn print(out: &mut Out<'_>, hosts: &[Host], now: u64) -> anyhow::Result<()> {
    let row = |host: &Host| {
        let since = duration::human(Duration::from_secs(now.saturating_sub(host.since_seconds)));
        let known = |text: String| if host.has_answered() { text } else { "-".into() };
        // What a host said before it went down is no news.
        let fresh = |text: String| if host.is_up() { text } else { "-".into() };
        vec![
            host.name.clone(),
            host.state.into(),
            since,
            known(host.cpus.to_string()),
            fresh(format!("{:.2}", host.load)),
            fresh(human_size(host.memory_free)),
            fresh(host.processes.to_string()),
            known(host.architecture.clone()),
            host.reason.clone().unwrap_or_default(),
        ]
    };
    let headings = [
        ("HOST", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Right),
        ("CPUS", Align::Right),
        ("LOAD", Align::Right),
        ("FREE", Align::Right),
        ("PROCESSES", Align::Right),
        ("ARCHITECTURE", Align::Left),
        ("", Align::Left),
    ];
    out.table(&headings, hosts.iter().map(row).collect())
}

/// The table of `host ls`: who the hosts are, and how they are doing.
fn print_all(out: &mut Out<'_>, hosts: &[Host], now: u64) -> anyhow::Result<()> {
    let row = |host: &Host| {
        let since = duration::human(Duration::from_secs(now.saturating_sub(host.since_seconds)));
        let known = |text: String| if host.has_answered() { text } else { "-".into() };
        let fresh = |text: String| if host.is_up() { text } else { "-".into() };
        let trouble = host.belonging.trouble.clone().or_else(|| host.reason.clone());
        vec![
            host.name.clone(),
            host.belonging.addresses.first().cloned().unwrap_or_else(|| "-".to_owned()),
            host.state.into(),
            since,
            host.belonging.link.clone().unwrap_or_else(|| "-".to_owned()),
            host.belonging.fingerprint(),
            known(host.cpus.to_string()),
            fresh(format!("{:.2}", host.load)),
            fresh(human_size(host.memory_free)),
            fresh(host.processes.to_string()),
            trouble.unwrap_or_default(),
        ]
    };
    let headings = [
        ("HOST", Align::Left),
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Right),
        ("LINK", Align::Left),
        ("KEY", Align::Left),
        ("CPUS", Align::Right),
        ("LOAD", Align::Right),
        ("FREE", Align::Right),
        ("PROCESSES", Align::Right),
        ("", Align::Left),
    ];
    out.table(&headings, hosts.iter().map(row).collect())
}

fn print_one(out: &mut Out<'_>, host: &Host) -> anyhow::Result<()> {
    let mut rows =
        vec![("name", host.name.clone()), ("state", format!("{} since {}", host.state, host.since))];
    if let Some(reason) = &host.reason {
        rows.push(("reason", reason.clone()));
    }
    let Belonging { addresses, key, inviter, joined, link, trouble } = host.belonging.clone();
    let belonging = [
        ("addresses", (!addresses.is_empty()).then(|| addresses.join(", "))),
        ("key", key),
        ("invited by", inviter),
        ("joined", joined),
        ("link", link),
        ("trouble", trouble),
    ];
    rows.extend(belonging.into_iter().filter_map(|(what, value)| Some((what, value?))));
    match &host.answered {
        Some(answered) => rows.extend([
            ("answered", answered.clone()),
            ("architecture", host.architecture.clone()),
            ("processors", format!("{} of about {} MIPS", host.cpus, host.mips)),
            ("load", format!("{:.2}", host.load)),
            ("memory", format!("{} of {} free", human_size(host.memory_free), human_size(host.memory_total))),
            ("processes", host.processes.to_string()),
        ]),
        None => rows.push(("answered", "never".into())),
    }
    let rows = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
    out.table(&[("", Align::Left), ("", Align::Left)], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::printed;

    fn record(name: &str, state: u8, reason: &str, answered: u64) -> HostRecord {
        HostRecord {
            name: name.into(),
            state,
            since: 1000,
            reason: reason.into(),
            architecture: if answered == 0 { Vec::new() } else { "x86_64-linux".into() },
            cpus: if answered == 0 { 0 } else { 4 },
            kips: 4_000_000,
            load_thousandths: 250,
            placed_thousandths: 0,
            memory_free: 8 << 30,
            memory_total: 16 << 30,
            processes: 3,
            answered,
            polls: 1,
            considered: 0,
            chosen: 0,
        }
    }

    #[test]
    fn people_see_what_is_up_and_what_is_not() {
        let hosts = [
            record("anvil", STATE_UP, "", 1064),
            record("bolt", STATE_DOWN, "its kernel cannot be found", 900),
            record("chisel", STATE_NEW, "", 0),
        ];
        let hosts: Vec<Host> = hosts.iter().map(Host::from).collect();
        let expected = "\
HOST    STATE  SINCE  CPUS  LOAD     FREE  PROCESSES  ARCHITECTURE
anvil   up     1m05s     4  0.25  8.0 GiB          3  x86_64-linux
bolt    down   1m05s     4     -        -          -  x86_64-linux  its kernel cannot be found
chisel  new    1m05s     -     -        -          -  -
";
        assert_eq!(printed(|out| print(out, &hosts, 1065)), expected);
        let one = "\
name          bolt
state         down since 1970-01-01T00:16:40Z
reason        its kernel cannot be found
answered      1970-01-01T00:15:00Z
architecture  x86_64-linux
processors    4 of about 4000 MIPS
load          0.25
memory        8.0 GiB of 16 GiB free
processes     3
";
        assert_eq!(printed(|out| print_one(out, &hosts[1])), one);
    }

    #[test]
    fn people_see_who_belongs_to_the_system_and_how_it_is_reached() {
        let member = |name: &str, address: &str| Member {
            name: name.into(),
            key: "0123456789abcdef".repeat(4),
            addresses: vec![address.into()],
            inviter: Some("anvil".into()),
            ..Member::default()
        };
        let way = Way {
            name: "bolt".into(),
            up: true,
            link: "udp, sealed".into(),
            trouble: Some("identity copied: bolt at 192.0.2.2:5321 and 192.0.2.9:5321".into()),
        };
        let mut hosts = vec![
            Host::from(&record("anvil", STATE_UP, "", 1064)),
            Host::from(&record("bolt", STATE_UP, "", 1064)),
            Host::that_joined(&Member { joined: 1000, ..member("chisel", "192.0.2.3:5321") }),
        ];
        let members = ["192.0.2.1:5321", "192.0.2.2:5321", "192.0.2.3:5321"];
        for (host, address) in hosts.iter_mut().zip(members) {
            let member = member(&host.name, address);
            let way = Some(&way).filter(|way| way.name == host.name);
            host.belonging = Belonging::new(Some(&member), way, host.name == "anvil");
        }
        let expected = "\
HOST    ADDRESS         STATE  SINCE  LINK         KEY               CPUS  LOAD     FREE  PROCESSES
anvil   192.0.2.1:5321  up     1m05s  here         0123456789abcdef     4  0.25  8.0 GiB          3
bolt    192.0.2.2:5321  up     1m05s  udp, sealed  0123456789abcdef     4  0.25  8.0 GiB          3  identity copied: bolt at 192.0.2.2:5321 and 192.0.2.9:5321
chisel  192.0.2.3:5321  new    1m05s  -            0123456789abcdef     -     -        -          -  it has joined, and is not in the pool yet
";
        assert_eq!(printed(|out| print_all(out, &hosts, 1065)), expected);
        let one = printed(|out| print_one(out, &hosts[1]));
        assert!(one.contains("invited by    anvil") && one.contains("link          udp, sealed"), "{one}");
        let value = serde_json::to_value(&hosts[1]).expect("JSON");
        assert_eq!(value["addresses"][0], "192.0.2.2:5321");
    }

    #[test]
    fn programs_see_the_same() {
        let value = serde_json::to_value(Host::from(&record("bolt", STATE_DOWN, "gone", 0))).expect("JSON");
        assert_eq!((value["state"].as_str(), value["reason"].as_str()), (Some("down"), Some("gone")));
        assert!(value["answered"].is_null() && value["load"] == 0.25);
    }
}
