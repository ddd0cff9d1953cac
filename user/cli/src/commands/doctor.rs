//! `amoeba doctor`: what is wrong with this host and the way to others, and what to do about it.

use std::process::ExitCode;
use std::time::Duration;

use amoeba_name::Names;
use amoeba_stubs::system::{self, NEVER, Network, PeerState};
use amoeba_stubs::tod;
use amoeba_world::World;
use clap::Args;
use serde::Serialize;

use crate::graph::Graph;
use crate::launch::pool::{HOST_LOCATE_TIMEOUT, Pool};
use crate::out::{Out, printable};
use crate::{Check, Context, Health, everywhere};

/// A peer that was silent for longer is down; the link's own bound.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Clocks that differ by more are told.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(2);
/// A daemon that was restarted as often is not well.
const RESTARTS_MAX: u32 = 3;
/// Where the hosts of the system are.
const HOSTS: &str = "/profile/hosts";

/// Look for faults, and say how to mend them
///
/// Looks at the daemons, the links and everybody on them, versions and clocks of all hosts, privileges, limits, space and
/// modes. Works without a running system too. Exits with 1 when something is wrong, with 0 when there are warnings only.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON: an array of checks
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    healthy: bool,
    checks: &'a [Check],
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let checks = examine(context);
        let healthy = checks.iter().all(|check| check.health < Health::Wrong);
        if self.json {
            context.out.json(&Report { healthy, checks: &checks })?;
        } else {
            print(&mut context.out, &checks)?;
        }
        Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Everything, in the order in which a person would ask.
fn examine(context: &Context<'_>) -> Vec<Check> {
    let (mut checks, running) = daemons(context);
    let graph = if running { context.graph().ok() } else { None };
    let network = graph.as_ref().and_then(|graph| kernel(graph, &mut checks));
    if let Some(network) = &network {
        checks.extend(links(network));
    }
    if let Some(graph) = &graph {
        checks.extend(hosts(graph));
    }
    if let Some(diagnosis) = context.system.diagnosis() {
        checks.extend(diagnosis.checks(network.as_ref()));
    }
    checks
}

/// The daemons as their supervisor sees them; whether a system runs.
fn daemons(context: &Context<'_>) -> (Vec<Check>, bool) {
    let subject = "daemons";
    let status = match context.system.status() {
        Ok(status) => status,
        Err(error) => {
            let fix = "the state directory must be readable: see `amoeba status`";
            return (vec![Check::wrong(subject, format!("{error:#}"), fix)], false);
        }
    };
    if !status.running {
        let finding = format!("no system runs in {}", status.state_directory.display());
        let fix = "`amoeba up` starts one; what follows is about this machine alone";
        return (vec![Check::wrong(subject, finding, fix)], false);
    }
    let mut checks = Vec::new();
    let down = status.daemons.iter().filter(|daemon| daemon.pid.is_none());
    for daemon in down.clone() {
        let finding = format!("the {} daemon does not run", daemon.role);
        let fix = format!("its log says why: {}", status.state_directory.join("log").display());
        checks.push(Check::wrong(subject, finding, fix));
    }
    for daemon in status.daemons.iter().filter(|daemon| daemon.restarts >= RESTARTS_MAX) {
        let finding = format!("the {} daemon had to be started again {} times", daemon.role, daemon.restarts);
        let fix = format!("its log says why: {}", status.state_directory.join("log").display());
        checks.push(Check::warning(subject, finding, fix));
    }
    let told = "attention";
    checks.extend(status.attention.iter().map(|sentence| Check::warning(told, sentence.clone(), "")));
    if down.count() == 0 {
        checks.insert(0, Check::ok(subject, format!("{} run", status.daemons.len())));
    }
    (checks, true)
}

/// Whether the kernel answers; what it sees.
fn kernel(graph: &Graph, checks: &mut Vec<Check>) -> Option<Network> {
    let asked = graph.at_host("sys").ok();
    let world = amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT);
    let about = asked.as_ref().and_then(|sys| system::about(&world, sys).ok());
    let Some(about) = about else {
        let fix = "`amoeba logs` and the kernel's log say why; `amoeba down` and `amoeba up` start it anew";
        checks.push(Check::wrong("kernel", "the kernel of this host does not answer", fix));
        return None;
    };
    let version = printable(&about.version);
    checks.push(Check::ok("kernel", format!("answers, version {version}")));
    let ours = env!("CARGO_PKG_VERSION");
    if version != ours {
        let finding = format!("the daemons are of version {version}, this command of {ours}");
        checks.push(Check::warning("kernel", finding, "`amoeba down` and `amoeba up` start the new ones"));
    }
    system::network(&world, &asked?).ok()
}

/// The links, and everybody on them.
fn links(network: &Network) -> Vec<Check> {
    if network.links.is_empty() {
        let finding = "there is none: this host is a system by itself";
        return vec![Check::note("link", finding, "`amoeba invite` makes a token for another host")];
    }
    let mut checks = Vec::new();
    for link in &network.links {
        let subject = format!("link {}", printable(&link.kind));
        let sealing = match &link.sealing[..] {
            [] => "not sealed".to_owned(),
            sealing => format!("sealed with {}", printable(sealing)),
        };
        let finding = format!(
            "on {}, {sealing}, {}",
            printable(&link.address),
            if link.trusted { "trusted" } else { "untrusted" }
        );
        checks.push(match link.trusted {
            true => Check::ok(subject, finding),
            false => {
                let fix = "requests do not cross an untrusted link; `trusted = true` in config.toml if it is";
                Check::note(subject, finding, fix)
            }
        });
    }
    for peer in &network.peers {
        let link = network.links.get(usize::from(peer.link));
        let address = link.map(|link| printable(&link.address)).unwrap_or_default();
        checks.push(peer_check(peer, &address));
    }
    checks
}

fn peer_check(peer: &PeerState, our_address: &str) -> Check {
    let name = match &peer.name[..] {
        [] => printable(&peer.address),
        name => format!("{} at {}", printable(name), printable(&peer.address)),
    };
    let subject = "peer";
    if !peer.trouble.is_empty() {
        let fix = "see `amoeba host ls`";
        return Check::wrong(subject, format!("{name}: {}", printable(&peer.trouble)), fix);
    }
    if peer.heard == NEVER {
        let fix = format!(
            "is that host on, and does `amoeba status` there say that its system runs? If it is, a firewall drops \
             datagrams: UDP must pass to {} there and to {our_address} here. `nft list ruleset` and `iptables -nL` show \
             the rules, to root only",
            printable(&peer.address)
        );
        return Check::wrong(subject, format!("{name} was never heard"), fix);
    }
    let heard = Duration::from_nanos(peer.heard);
    if heard > SILENCE_MAX {
        let finding = format!("{name} was last heard {} s ago", heard.as_secs());
        return Check::wrong(subject, finding, "is that host on? `amoeba host ls` shows the others' view");
    }
    if !peer.up {
        let fix = "it will be up in a second or two; if not, it does not hear us: look at the firewall here and there";
        return Check::warning(subject, format!("{name} is heard, and not up yet"), fix);
    }
    let (heard, size) = (heard.as_millis(), peer.packet_size);
    Check::ok(subject, format!("{name} is up, heard {heard} ms ago, takes packets up to {size} bytes"))
}

/// What another host says of itself.
struct Said {
    version: String,
    /// How far its clock is ahead of ours, in seconds.
    ahead: f64,
}

/// Versions and clocks of all hosts.
fn hosts(graph: &Graph) -> Vec<Check> {
    let here = graph.session().host_name.clone();
    let names = match Pool::new(graph).and_then(|pool| pool.names()) {
        Ok(names) => names,
        Err(error) => {
            let fix = "the directory server must be reachable: see `amoeba status`";
            return vec![Check::wrong("hosts", format!("{error:#}"), fix)];
        }
    };
    let others: Vec<String> = names.into_iter().filter(|name| *name != here).collect();
    let world = amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT);
    let root = graph.session().root;
    let asked = world.clone();
    let answers = everywhere::ask(&world, &others, move |host| ask(&asked, &Names::new(&asked, root), host));
    let mut checks = Vec::new();
    for (name, answer) in others.iter().zip(answers) {
        match answer.flatten() {
            Some(said) => checks.extend(host_checks(name, &said)),
            None => {
                let fix = "`amoeba host ls` shows since when; look at it with `amoeba status` there";
                checks.push(Check::wrong(format!("host {name}"), "it does not answer", fix));
            }
        }
    }
    checks
}

fn ask(world: &World, names: &Names, host: &str) -> Option<Said> {
    let entry = |name: &str| names.resolve(format!("{HOSTS}/{host}/{name}").as_bytes()).ok();
    let about = system::about(world, &entry("sys")?).ok()?;
    let clock = entry("tod")?;
    let _ = tod::get_time(world, &clock); // the first search for a port is no part of a round trip
    let before = world.clock.unix_time();
    let theirs = tod::get_time(world, &clock).ok()?;
    let after = world.clock.unix_time();
    let middle = (before + after.saturating_sub(before) / 2).as_secs_f64();
    let theirs = theirs.seconds as f64 + f64::from(theirs.nanoseconds) / 1e9;
    Some(Said { version: printable(&about.version), ahead: theirs - middle })
}

fn host_checks(name: &str, said: &Said) -> Vec<Check> {
    let subject = format!("host {name}");
    let ours = env!("CARGO_PKG_VERSION");
    let mut checks = Vec::new();
    if said.version != ours {
        let finding = format!("it has version {}, this host {ours}", said.version);
        checks.push(Check::warning(&subject, finding, "have the same version everywhere"));
    }
    if said.ahead.abs() > CLOCK_DIFFERENCE_MAX.as_secs_f64() {
        let way = if said.ahead > 0.0 { "ahead of" } else { "behind" };
        let finding = format!("its clock is {:.1} s {way} ours", said.ahead.abs());
        let fix =
            "have a time service on both (chrony, systemd-timesyncd); until then times of files mislead";
        checks.push(Check::warning(&subject, finding, fix));
    }
    if checks.is_empty() {
        let finding =
            format!("answers, version {}, its clock is {:+.3} s from ours", said.version, said.ahead);
        checks.push(Check::ok(subject, finding));
    }
    checks
}

fn print(out: &mut Out<'_>, checks: &[Check]) -> anyhow::Result<()> {
    let width = checks.iter().map(|check| check.subject.chars().count()).max().unwrap_or(0);
    for check in checks {
        let mark = match check.health {
            Health::Ok => "ok",
            Health::Note => "note",
            Health::Warning => "warning",
            Health::Wrong => "WRONG",
        };
        out.line(format!("{mark:8} {:width$}  {}", check.subject, check.finding))?;
        if let Some(fix) = &check.fix {
            out.line(format!("{:8} {:width$}  -> {fix}", "", ""))?;
        }
    }
    let count = |health| checks.iter().filter(|check| check.health == health).count();
    let (wrong, warnings) = (count(Health::Wrong), count(Health::Warning));
    out.line(match (wrong, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        _ => format!("{wrong} wrong, {warnings} to be looked at"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::printed;

    fn peer(heard: u64, up: bool) -> PeerState {
        PeerState {
            link: 0,
            name: b"bolt".to_vec(),
            address: b"10.0.0.2:5321".to_vec(),
            up,
            heard,
            packet_size: 1400,
            round_trip: NEVER,
            sealing: Vec::new(),
            trouble: Vec::new(),
        }
    }

    #[test]
    fn a_peer_is_well_heard_or_gone() {
        let check = |heard, up| peer_check(&peer(heard, up), "10.0.0.1:5321");
        assert_eq!(
            check(1_000_000, true),
            Check::ok("peer", "bolt at 10.0.0.2:5321 is up, heard 1 ms ago, takes packets up to 1400 bytes")
        );
        assert_eq!(check(1_000_000, false).health, Health::Warning);
        assert_eq!(check(9_000_000_000, false).health, Health::Wrong);
        let never = check(NEVER, false);
        assert_eq!(never.health, Health::Wrong);
        let fix = never.fix.expect("there is something to do");
        assert!(fix.contains("10.0.0.2:5321 there") && fix.contains("10.0.0.1:5321 here"), "{fix}");
        let copied = PeerState { trouble: b"its identity was copied".to_vec(), ..peer(1, true) };
        assert_eq!(peer_check(&copied, "").health, Health::Wrong);
    }

    #[test]
    fn versions_and_clocks_are_compared() {
        let checks = |version: &str, ahead| host_checks("bolt", &Said { version: version.into(), ahead });
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(checks(ours, 0.25)[0].health, Health::Ok);
        assert_eq!(checks(ours, -3600.0)[0].finding, "its clock is 3600.0 s behind ours");
        let both = checks("0.0.0-other", 5.0);
        assert_eq!(both.len(), 2);
        assert!(both.iter().all(|check| check.health == Health::Warning));
    }

    #[test]
    fn findings_stand_under_each_other_with_their_fixes() {
        let checks = [Check::ok("kernel", "answers"), Check::wrong("peer", "silent", "wake it")];
        let expected = "\
ok       kernel  answers
WRONG    peer    silent
                 -> wake it
1 wrong, 0 to be looked at
";
        assert_eq!(printed(|out| print(out, &checks)), expected);
        assert!(printed(|out| print(out, &checks[..1])).ends_with("nothing is wrong\n"));
    }

    #[test]
    fn without_a_readable_state_it_says_so_and_exits_with_1() {
        let system = crate::testing::TestSystem::new();
        let ran = system.run(&["doctor", "--json"]);
        let text = format!("{ran:?}");
        assert!(text.contains("the state cannot be read"), "{text}");
    }
}
