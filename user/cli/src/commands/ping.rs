//! `amoeba ping`: how far away a host or an object is, and by what way.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_stubs::system::{self, ECHO_SIZE_MAX, LinkState, NEVER, PeerState, Way};
use amoeba_stubs::{Client, standard};
use amoeba_world::{Error as Refusal, TransOptions, World};
use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use crate::graph::Graph;
use crate::launch::pool::{HOST_LOCATE_TIMEOUT, Pool};
use crate::out::{Out, printable};
use crate::place::Place;
use crate::progress::Interrupt;
use crate::{Context, duration};

/// How long one transaction may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a signal is looked for during a pause.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Round trips that are kept for the summary; past it the oldest is forgotten.
const KEPT_MAX: usize = 1 << 20;
/// The entry of a host's directory that is its kernel.
const KERNEL: &str = "sys";

/// Measure round trips to a host or an object, and show the way there
///
/// Each is a real transaction: with a host its kernel sends the data back, an object is asked what it is. The first two go
/// through the kernels, later ones as directly as the kernels can arrange. Ctrl-C ends it. Exits with 1 when nothing came
/// back.
#[derive(Args)]
pub(crate) struct Arguments {
    /// End after so many
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Pause between two: 1s, 200ms; 0 for none
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Send so many bytes and have them sent back; only with a host
    #[arg(short, long, value_name = "BYTES", default_value_t = 0, value_parser = size)]
    size: usize,
    /// Print only the summary
    #[arg(short, long)]
    quiet: bool,
    /// Print JSON: the summary
    #[arg(long)]
    json: bool,
    /// The name of a host, or the PATH of an object: a name with a `/` in it, or a capability
    #[arg(value_name = "HOST|PATH")]
    target: OsString,
}

fn interval(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration::parse(text) }
}

fn size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    if size > ECHO_SIZE_MAX { Err(format!("at most {ECHO_SIZE_MAX} bytes")) } else { Ok(size) }
}

/// What is pinged.
struct Target {
    name: String,
    object: Capability,
    /// It is the kernel of a host, which sends data back.
    echoes: bool,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Summary {
    target: String,
    sent: u64,
    received: u64,
    lost: u64,
    size: usize,
    /// Round trips, in microseconds.
    round_trip: Option<Times>,
    path: Option<Path>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Times {
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
}

/// The way, for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Path {
    /// `here`, `elsewhere` or `unknown`.
    reach: &'static str,
    /// How transactions of this command go: through the `kernel`, by a `channel` or a `flow`.
    by: &'static str,
    processes: u32,
    hops: u16,
    trusted: bool,
    link: Option<String>,
    host: Option<String>,
    address: Option<String>,
    packet_size: Option<u32>,
    sealing: Option<String>,
    link_round_trip_microseconds: Option<f64>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let graph = context.graph()?;
        let target = find(&graph, &self.target)?;
        if self.size > 0 && !target.echoes {
            bail!("--size works with a host: only a kernel sends data back");
        }
        let interrupt = Interrupt::catch(context.system.console(), &graph.world().threads)?;
        let summary = self.ping(context, &graph, &target, &interrupt)?;
        if self.json {
            context.out.json(&summary)?;
        } else {
            print(&mut context.out, &summary, self.quiet)?;
        }
        Ok(if summary.received > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn ping(
        &self,
        context: &mut Context<'_>,
        graph: &Graph,
        target: &Target,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Summary> {
        let mut times = std::collections::VecDeque::new();
        let mut summary = Summary { target: target.name.clone(), size: self.size, ..Summary::default() };
        let verbose = !self.json && !self.quiet;
        while self.count.is_none_or(|count| summary.sent < count) && interrupt.check().is_ok() {
            if summary.sent > 0 {
                pause(self.interval, interrupt);
                if interrupt.check().is_err() {
                    break;
                }
            }
            let begun = Instant::now();
            let answer = once(graph.world(), target, self.size);
            let time = begun.elapsed();
            summary.sent += 1;
            match answer {
                Ok(()) => {
                    summary.received += 1;
                    if times.len() >= KEPT_MAX {
                        times.pop_front();
                    }
                    times.push_back(time);
                    let path = way(graph, target);
                    if path != summary.path {
                        if let Some(path) = path.as_ref().filter(|_| verbose) {
                            context.out.line(told(path, summary.path.as_ref()))?;
                        }
                        summary.path = path;
                    }
                    if verbose {
                        let line = format!(
                            "{} bytes from {}: number={} time={}",
                            self.size,
                            target.name,
                            summary.sent,
                            shown(time)
                        );
                        context.out.line(line)?;
                    }
                }
                Err(error) => {
                    summary.lost += 1;
                    if verbose {
                        context.out.line(format!("{}: number={} {error}", target.name, summary.sent))?;
                    }
                }
            }
            context.out.flush()?;
        }
        summary.round_trip = times_of(times.make_contiguous());
        Ok(summary)
    }
}

/// What a person means: a host, or an object.
fn find(graph: &Graph, argument: &OsString) -> anyhow::Result<Target> {
    let place = graph.place(argument)?;
    match &place {
        Place::Path(path) if !path.contains(&b'/') => {
            let host = printable(path);
            let pool = Pool::new(graph)?;
            let object = if host == graph.session().host_name {
                graph.at_host(KERNEL).context("the kernel of this host")?
            } else {
                pool.entry(&host, KERNEL)?
            };
            Ok(Target { name: host, object, echoes: true })
        }
        _ => {
            let found = graph.lookup(&place)?;
            Ok(Target { name: place.shown(), object: found.capability, echoes: false })
        }
    }
}

/// One transaction. A server that refuses has answered.
fn once(world: &World, target: &Target, size: usize) -> Result<(), Refusal> {
    let options = TransOptions {
        locate_timeout: HOST_LOCATE_TIMEOUT,
        deadline: Some(PATIENCE),
        ..TransOptions::default()
    };
    let client = Client::new(&*world.transactions, &options);
    let answer = match target.echoes {
        true => system::echo(client, &target.object, vec![0x5A; size]).map(|_| ()),
        false => standard::info(client, &target.object, 0).map(|_| ()),
    };
    match answer {
        Err(error @ (Refusal::NotSent(_) | Refusal::MaybeExecuted(_))) => Err(error),
        _ => Ok(()),
    }
}

fn pause(time: Duration, interrupt: &Interrupt) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now())
        && interrupt.check().is_ok()
    {
        std::thread::sleep(left.min(LOOK_INTERVAL));
    }
}

/// The way to the target as the kernel of this host knows it now. What cannot be asked is left out.
fn way(graph: &Graph, target: &Target) -> Option<Path> {
    let kernel = graph.at_host(KERNEL).ok()?;
    let way = system::way(graph.world(), &kernel, target.object.port).ok()?;
    let passage = graph.world().transactions.passage(target.object.port);
    Some(path_of(way, passage))
}

fn path_of(way: Way, by: Option<&'static str>) -> Path {
    let reach = match way.reach {
        system::HERE => "here",
        system::ELSEWHERE => "elsewhere",
        _ => "unknown",
    };
    let link: Option<LinkState> = way.link.into_iter().next();
    let peer: Option<PeerState> = way.peer.into_iter().next();
    let some = |bytes: &[u8]| Some(printable(bytes)).filter(|text| !text.is_empty());
    Path {
        reach,
        by: by.unwrap_or("kernel"),
        processes: way.processes,
        hops: way.hops,
        trusted: way.trusted,
        link: link.as_ref().map(|link| printable(&link.kind)),
        host: peer.as_ref().and_then(|peer| some(&peer.name)),
        address: peer.as_ref().and_then(|peer| some(&peer.address)),
        packet_size: peer.as_ref().map(|peer| peer.packet_size),
        sealing: peer.as_ref().and_then(|peer| some(&peer.sealing)),
        link_round_trip_microseconds: peer
            .as_ref()
            .filter(|peer| peer.round_trip != NEVER)
            .map(|peer| peer.round_trip as f64 / 1000.0),
    }
}

/// The way, for people who know the one before it.
fn told(path: &Path, before: Option<&Path>) -> String {
    let unchanged = before.is_some_and(|before| Path { by: path.by, ..before.clone() } == *path);
    if unchanged { format!("path: now {}", passage(path)) } else { format!("path: {}", described(path)) }
}

/// How transactions go.
fn passage(path: &Path) -> &'static str {
    match (path.by, path.reach) {
        ("channel", _) => "directly, over a channel",
        ("flow", _) => "directly, over a flow of its own",
        (_, "elsewhere") => "through the kernels",
        _ => "through the kernel",
    }
}

/// The way, for people.
fn described(path: &Path) -> String {
    let by = passage(path);
    match (path.reach, &path.link) {
        ("here", _) => format!("on this host, {by}"),
        ("elsewhere", Some(link)) => {
            let mut text = format!("{link} {}", path.address.as_deref().unwrap_or("?"));
            match &path.host {
                Some(host) if path.hops > 3 => text += &format!(", on the way past {host}"),
                Some(host) => text += &format!(", host {host}"),
                None => {}
            }
            text += &format!(", weight {}", path.hops);
            if let Some(size) = path.packet_size {
                text += &format!(", packets up to {size} bytes");
            }
            text += &match &path.sealing {
                Some(sealing) => format!(", sealed with {sealing}"),
                None => ", not sealed".to_owned(),
            };
            text += if path.trusted { ", trusted" } else { ", untrusted" };
            format!("{text}, {by}")
        }
        ("elsewhere", None) => format!("on another host, {by}"),
        _ => format!("the way is not known any more, {by}"),
    }
}

fn times_of(times: &mut [Duration]) -> Option<Times> {
    times.sort_unstable();
    let microseconds = |time: &Duration| time.as_nanos() as f64 / 1000.0;
    let at = |share: usize| times.get((times.len() * share).div_ceil(100).max(1) - 1).map(microseconds);
    Some(Times { min: at(0)?, median: at(50)?, p99: at(99)?, max: at(100)? })
}

/// The summary, with the way where it was not told before.
fn print(out: &mut Out<'_>, summary: &Summary, with_path: bool) -> anyhow::Result<()> {
    out.line(format!("--- {} ---", summary.target))?;
    let Summary { sent, received, lost, .. } = summary;
    out.line(format!("{sent} sent, {received} came back, {lost} lost"))?;
    if let Some(Times { min, median, p99, max }) = &summary.round_trip {
        let [min, median, p99, max] =
            [min, median, p99, max].map(|time| shown(Duration::from_nanos((time * 1000.0) as u64)));
        out.line(format!("round trip: min {min}, median {median}, p99 {p99}, max {max}"))?;
    }
    if let Some(path) = summary.path.as_ref().filter(|_| with_path) {
        out.line(format!("path: {}", described(path)))?;
    }
    Ok(())
}

/// A short time for people.
pub(super) fn shown(time: Duration) -> String {
    let microseconds = time.as_nanos() as f64 / 1000.0;
    match microseconds {
        ..9.95 => format!("{microseconds:.1} µs"),
        ..9_999.5 => format!("{microseconds:.0} µs"),
        _ => format!("{:.1} ms", microseconds / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::printed;

    fn peer() -> PeerState {
        PeerState {
            link: 0,
            name: b"bolt".to_vec(),
            address: b"10.0.0.2:5321".to_vec(),
            up: true,
            heard: 5,
            packet_size: 1408,
            round_trip: NEVER,
            sealing: b"AES-256-GCM".to_vec(),
            trouble: Vec::new(),
        }
    }

    fn link() -> LinkState {
        LinkState {
            kind: b"udp".to_vec(),
            address: b"0.0.0.0:5321".to_vec(),
            packet_size: 1408,
            sealing: b"AES-256-GCM".to_vec(),
            trusted: true,
        }
    }

    #[test]
    fn the_middle_and_the_edges_of_round_trips() {
        let times = |range: std::ops::RangeInclusive<u64>| {
            times_of(&mut range.rev().map(Duration::from_micros).collect::<Vec<_>>())
        };
        assert_eq!(times(1..=100), Some(Times { min: 1.0, median: 50.0, p99: 99.0, max: 100.0 }));
        assert_eq!(times(1..=3), Some(Times { min: 1.0, median: 2.0, p99: 3.0, max: 3.0 }));
        assert_eq!(times(7..=7), Some(Times { min: 7.0, median: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(times_of(&mut []), None);
    }

    #[test]
    fn a_way_is_told_in_a_sentence() {
        let here =
            Way { reach: system::HERE, processes: 1, hops: 0, trusted: true, link: vec![], peer: vec![] };
        assert_eq!(described(&path_of(here.clone(), None)), "on this host, through the kernel");
        assert_eq!(described(&path_of(here, Some("channel"))), "on this host, directly, over a channel");
        let there = Way {
            reach: system::ELSEWHERE,
            processes: 1,
            hops: 3,
            trusted: true,
            link: vec![link()],
            peer: vec![peer()],
        };
        let expected = "udp 10.0.0.2:5321, host bolt, weight 3, packets up to 1408 bytes, sealed with AES-256-GCM, \
                        trusted, through the kernels";
        assert_eq!(described(&path_of(there, None)), expected);
    }

    #[test]
    fn the_summary_says_what_was_lost() {
        let summary = Summary {
            target: "bolt".into(),
            sent: 3,
            received: 2,
            lost: 1,
            size: 0,
            round_trip: Some(Times { min: 1.5, median: 99.6, p99: 12_000.0, max: 12_000.0 }),
            path: None,
        };
        let expected = "--- bolt ---\n3 sent, 2 came back, 1 lost\n\
                        round trip: min 1.5 µs, median 100 µs, p99 12.0 ms, max 12.0 ms\n";
        assert_eq!(printed(|out| print(out, &summary, true)), expected);
    }

    #[test]
    fn what_of_the_way_is_known_is_not_told_again() {
        let way =
            Way { reach: system::HERE, processes: 1, hops: 0, trusted: true, link: vec![], peer: vec![] };
        let (before, after) = (path_of(way.clone(), None), path_of(way.clone(), Some("channel")));
        assert_eq!(told(&before, None), "path: on this host, through the kernel");
        assert_eq!(told(&after, Some(&before)), "path: now directly, over a channel");
        let moved = path_of(Way { reach: system::ELSEWHERE, ..way }, Some("flow"));
        assert_eq!(told(&moved, Some(&after)), "path: on another host, directly, over a flow of its own");
        let summary = Summary { path: Some(before), ..Summary::default() };
        assert!(
            printed(|out| print(out, &summary, true)).ends_with("path: on this host, through the kernel\n")
        );
        assert!(!printed(|out| print(out, &summary, false)).contains("path"));
    }

    #[test]
    fn an_object_of_this_system_answers() {
        let system = crate::testing::TestSystem::new();
        system.file("/home/a", b"x");
        let ran = system.run(&["ping", "-c", "2", "-i", "0", "--json", "/home/a"]);
        let value: serde_json::Value = serde_json::from_str(ran.text()).expect("it is JSON");
        assert_eq!((&value["sent"], &value["lost"]), (&2.into(), &0.into()));
        assert!(value["round_trip"]["median"].as_f64().is_some_and(|time| time > 0.0));
        system
            .run(&["ping", "-c", "1", "--size", "9", "/home/a"])
            .failed(1, "amoeba: --size works with a host: only a kernel sends data back\n");
    }
}
