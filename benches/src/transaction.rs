//! The benchmark `transaction`: ours beside the machine's limits and beside the peers, everything in one run.
//!
//! A [`Group`] is a row of the question: what is measured, and everything that is measured the same way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{Figures, Harness};
use crate::limits::{self, Wait};
use crate::load::{self, Client, Histogram, Load, Server};
use crate::network;
use crate::ours::System;
use crate::place::Placement;
use crate::report::{Report, Unit, micros};
use crate::rounds::{Beside, Group, Measure, Scope, rounds};

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
/// Calls of a limit that this crate measures itself.
const COUNT: usize = 4_000;
const BULK_COUNT: usize = 100;
/// How long nothing is asked while the processor time of waiting is counted.
const IDLE: Duration = Duration::from_secs(2);

/// The row that is measured last, because the hosts are given another link for it.
const ETHERNET_ROW: &str = "null, raw Ethernet, both daemons";

/// Measures everything in `scope`.
pub(crate) fn run(scope: &Scope) -> Result<Report> {
    let system = System::of_environment()?;
    let harness = Harness::find();
    if harness.is_none() {
        eprintln!("the harness of limits and peers is not there: ours is measured beside a few limits only");
    }
    let bench = Bench { system: &system, harness: harness.as_ref(), time: scope.time };
    let mut rows = Vec::new();
    for group in bench.groups() {
        if group.name.contains(&scope.pattern) {
            rows.extend(rounds(&system, &group, scope.rounds)?);
        }
    }
    if ETHERNET_ROW.contains(&scope.pattern) {
        match system.network_of(0) {
            Some(_) => {
                system.go_ethernet()?;
                for group in bench.null_on_ethernet()? {
                    rows.extend(rounds(&system, &group, scope.rounds)?);
                }
            }
            None => eprintln!(
                "{ETHERNET_ROW} is left out: the hosts have no network of their own (it needs root)"
            ),
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let method = format!(
        "medians of {} rounds of {:?} on {cores} cores, {}; ratio 1 is as good, 2 half as good, 0.5 twice as good",
        scope.rounds,
        scope.time,
        system.place()
    );
    Ok(Report { name: "transaction", method, rows })
}

struct Bench<'a> {
    system: &'a System,
    harness: Option<&'a Harness>,
    time: Duration,
}

impl<'a> Bench<'a> {
    fn groups(&self) -> Vec<Group<'a>> {
        let mut groups = Vec::new();
        for placement in [Placement::Free, Placement::OneCore, Placement::TwoCores] {
            groups.push(self.null_here(placement));
        }
        groups.push(self.idle());
        groups.push(self.bulk_here());
        groups.push(self.many_clients());
        groups.push(self.turns());
        for placement in [Placement::Free, Placement::OneCore, Placement::TwoCores] {
            groups.push(self.null_there(placement));
        }
        groups.push(self.bulk_there());
        groups.push(self.transfer("1 GiB in parts of 4 MiB, two hosts, sealed", 4 * MIB));
        groups.push(self.transfer("1 GiB in one reply, two hosts, sealed", GIB));
        groups.push(self.null_beside_transfer());
        groups.push(self.two_transfers());
        groups
    }

    fn null_here(&self, placement: Placement) -> Group<'a> {
        let pin = placement.arguments();
        let mut besides = vec![
            self.limit(
                "shared memory, yield 20 us, futex",
                Some(2.0),
                &pin,
                "--via futex --opt yield --spin-us 20",
            ),
            self.limit("shared memory, futex", None, &pin, "--via futex"),
            self.limit("Unix packet socket", None, &pin, "--via uds"),
        ];
        if placement == Placement::Free {
            besides.push(self.peer(
                "gRPC (tonic), Unix socket",
                "peer-tonic",
                Some(1.0 / 15.0),
                &pin,
                "--via uds",
            ));
        } else {
            besides.push(self.peer("gRPC (tonic), Unix socket", "peer-tonic", Some(1.0), &pin, "--via uds"));
        }
        besides.push(self.peer("Cap'n Proto RPC, Unix socket", "peer-capnp", Some(1.0), &pin, "--via uds"));
        besides.push(self.peer("tarpc, Unix socket", "peer-tarpc", Some(1.0), &pin, "--via uds"));
        besides.push(self.peer("NATS", "peer-nats", Some(1.0), &pin, "--via tcp --addr 127.0.0.1:7311"));
        Group {
            name: format!("null, one host, {}", placement.name()),
            unit: Unit::Micros,
            value: |figures| figures.p50,
            ours: self.one_client(0, 0, placement),
            path: HERE,
            besides: self.or_own(besides, || {
                vec![
                    own("shared memory, yield 20 us, futex", Some(2.0), || {
                        limits::shared_memory(COUNT, Wait::Yield)
                    }),
                    own("shared memory, futex", None, || limits::shared_memory(COUNT, Wait::Sleep)),
                    own("Unix packet socket", None, || limits::unix_packet(COUNT)),
                    own("Unix stream socket", None, || limits::unix_stream(COUNT)),
                ]
            }),
        }
    }

    fn idle(&self) -> Group<'a> {
        let system = self.system;
        Group {
            name: "processor while nothing is asked".to_owned(),
            unit: Unit::Millicores,
            value: |figures| figures.cpu,
            ours: Box::new(move || {
                Ok(Figures { cpu: load::idle(system, IDLE)?.max(0.01), ..Figures::default() })
            }),
            path: &[],
            besides: vec![Beside {
                name: "half a per cent of a core a host",
                target: Some(1.0),
                measure: Box::new(|| Ok(Figures { cpu: 10.0, ..Figures::default() })),
            }],
        }
    }

    fn bulk_here(&self) -> Group<'a> {
        let besides = vec![
            self.limit("shared memory, copy in + copy out", Some(1.3), &[], "--via futex --what bulk"),
            self.limit("Unix packet socket, 64 KiB packets", None, &[], "--via uds --what bulk"),
            self.peer(
                "Cap'n Proto RPC, Unix socket",
                "peer-capnp",
                Some(1.0 / 1.7),
                &[],
                "--via uds --what bulk",
            ),
            self.peer(
                "gRPC (tonic), Unix socket",
                "peer-tonic",
                Some(1.0 / 1.7),
                &[],
                "--via uds --what bulk",
            ),
            self.peer(
                "ZeroMQ, TCP",
                "peer-zmq",
                Some(1.0 / 1.7),
                &[],
                "--via tcp --addr 127.0.0.1:7311 --what bulk",
            ),
            self.peer(
                "NATS",
                "peer-nats",
                Some(1.0 / 1.7),
                &[],
                "--via tcp --addr 127.0.0.1:7311 --what bulk",
            ),
        ];
        Group {
            name: "1 MiB reply, one host".to_owned(),
            unit: Unit::MegabytesPerSecond,
            value: |figures| figures.megabytes,
            ours: self.one_client(0, MIB, Placement::Free),
            path: HERE,
            besides: self.or_own(besides, || {
                vec![
                    own_bulk("Unix packet socket, 64 KiB packets", || limits::unix_packet_bulk(BULK_COUNT)),
                    own_bulk("Unix stream socket", || limits::unix_stream_bulk(BULK_COUNT)),
                    own_bulk("memcpy", || limits::copy(BULK_COUNT)),
                ]
            }),
        }
    }

    /// How evenly one server serves many clients.
    fn turns(&self) -> Group<'a> {
        let time = Duration::from_secs(1);
        let load =
            Load { server: 0, clients: 16, size: 0, part: 0, files: 0, time, placement: Placement::Free };
        Group {
            name: "16 clients: slowest for fastest".to_owned(),
            unit: Unit::Share,
            value: |figures| figures.evenness,
            ours: self.ours(load),
            path: HERE,
            besides: vec![Beside {
                name: "the same for all",
                target: Some(4.0),
                measure: Box::new(|| Ok(Figures { evenness: 1.0, ..Figures::default() })),
            }],
        }
    }

    fn many_clients(&self) -> Group<'a> {
        let pin = ["--clients".to_owned(), "16".to_owned()];
        let besides = vec![
            self.limit(
                "shared memory, yield 20 us, futex",
                Some(2.0),
                &pin,
                "--via futex --opt yield --spin-us 20",
            ),
            self.limit("shared memory, futex", None, &pin, "--via futex"),
            self.limit("Unix packet socket, 16 pairs", None, &pin, "--via uds"),
            self.peer("Cap'n Proto RPC, Unix socket", "peer-capnp", Some(1.0 / 6.0), &pin, "--via uds"),
            self.peer(
                "gRPC (tonic), 2 server threads",
                "peer-tonic",
                Some(1.0 / 6.0),
                &pin,
                "--via uds --threads 2",
            ),
            self.peer("NATS", "peer-nats", Some(1.0 / 6.0), &pin, "--via tcp --addr 127.0.0.1:7311"),
        ];
        Group {
            name: "16 clients, one server, one host".to_owned(),
            unit: Unit::PerSecond,
            value: |figures| figures.rate,
            ours: self.ours(Load {
                server: 0,
                clients: 16,
                size: 0,
                part: 0,
                files: 0,
                time: self.time,
                placement: Placement::Free,
            }),
            path: HERE,
            besides,
        }
    }

    fn null_there(&self, placement: Placement) -> Group<'a> {
        let wire = self.wire(&placement.arguments());
        let besides = vec![
            self.limit("UDP, blocking", Some(2.0), &wire, "--via udp"),
            self.limit("TCP", None, &wire, "--via tcp"),
            self.peer("gRPC (tonic)", "peer-tonic", Some(1.0), &wire, "--via tcp"),
            self.peer("Cap'n Proto RPC", "peer-capnp", Some(1.0), &wire, "--via tcp"),
            self.peer("NATS", "peer-nats", Some(1.0), &wire, "--via tcp"),
            self.peer("QUIC (quinn), sealed", "peer-quinn", Some(1.0), &wire, "--via udp"),
        ];
        let system = self.system;
        Group {
            name: format!("null, two hosts, sealed, {}", placement.name()),
            unit: Unit::Micros,
            value: |figures| figures.p50,
            ours: self.one_client(1, 0, placement),
            path: THERE,
            besides: self.or_own(besides, || {
                vec![
                    own("UDP, blocking", Some(2.0), || network::udp(system, COUNT)),
                    own("TCP", None, || network::tcp(system, COUNT)),
                ]
            }),
        }
    }

    fn null_on_ethernet(&self) -> Result<Vec<Group<'a>>> {
        let (server, client) = (self.system.interface(1)?, self.system.interface(0)?);
        let groups = [Placement::Free, Placement::OneCore, Placement::TwoCores].map(|placement| {
            let mut wire = self.wire(&placement.arguments());
            for option in [format!("server={server}"), format!("client={client}")] {
                wire.extend(["--opt".to_owned(), option]);
            }
            Group {
                name: format!("{ETHERNET_ROW}, {}", placement.name()),
                unit: Unit::Micros,
                value: |figures| figures.p50,
                ours: self.one_client(1, 0, placement),
                path: THERE,
                besides: vec![self.limit("AF_PACKET", Some(3.0), &wire, "--via packet")],
            }
        });
        Ok(groups.into())
    }

    fn bulk_there(&self) -> Group<'a> {
        let wire = self.wire(&[]);
        let besides = vec![
            self.limit("TCP", None, &wire, "--via tcp --what bulk"),
            self.peer("QUIC (quinn), sealed", "peer-quinn", Some(1.0), &wire, "--via udp --what bulk"),
            self.peer("gRPC (tonic)", "peer-tonic", Some(1.0), &wire, "--via tcp --what bulk"),
            self.peer("Cap'n Proto RPC", "peer-capnp", Some(1.0), &wire, "--via tcp --what bulk"),
            self.peer("NATS", "peer-nats", Some(1.0), &wire, "--via tcp --what bulk"),
        ];
        let system = self.system;
        Group {
            name: "1 MiB reply, two hosts, sealed".to_owned(),
            unit: Unit::MegabytesPerSecond,
            value: |figures| figures.megabytes,
            ours: self.one_client(1, MIB, Placement::Free),
            path: THERE,
            besides: self.or_own(besides, || vec![own_bulk("TCP", || network::tcp_bulk(system, BULK_COUNT))]),
        }
    }

    fn transfer(&self, name: &str, part: usize) -> Group<'a> {
        let wire = self.wire(&[]);
        let besides = vec![
            self.limit("TCP, a steady stream", Some(1.0 / 0.6), &wire, "--via tcp --what bulk --opt depth=4"),
            self.limit("UDP with segmentation offload", None, &wire, "--via udp --what bulk --opt gso"),
            self.peer("QUIC (quinn), sealed", "peer-quinn", Some(0.5), &wire, "--via udp --what bulk"),
        ];
        Group {
            name: name.to_owned(),
            unit: Unit::MegabytesPerSecond,
            value: |figures| figures.megabytes,
            ours: self.ours(Load {
                server: 1,
                clients: 1,
                size: GIB,
                part,
                files: usize::from(part > 0),
                time: self.time * 4,
                placement: Placement::Free,
            }),
            path: THERE,
            besides,
        }
    }

    /// What a transaction waits when a large one shares its link, beside what it waits alone.
    fn null_beside_transfer(&self) -> Group<'a> {
        let load = Load {
            server: 1,
            clients: 1,
            size: 0,
            part: 0,
            files: 0,
            time: Duration::from_secs(1),
            placement: Placement::Free,
        };
        let system = self.system;
        Group {
            name: "null's p99 during a transfer, two hosts".to_owned(),
            unit: Unit::Micros,
            value: |figures| figures.p99,
            ours: Box::new(move || beside_transfer(system, &load)),
            path: THERE,
            besides: vec![Beside { name: "ours, alone", target: None, measure: self.ours(load) }],
        }
    }

    /// What the slower of two transfers gets of what both get.
    fn two_transfers(&self) -> Group<'a> {
        let system = self.system;
        let load = Load {
            server: 1,
            clients: 2,
            size: 8 * MIB,
            part: MIB,
            files: 1,
            time: Duration::from_secs(2),
            placement: Placement::Free,
        };
        Group {
            name: "the slower of two transfers' share".to_owned(),
            unit: Unit::Share,
            value: |figures| figures.rate,
            ours: Box::new(move || shares(system, &load)),
            path: THERE,
            besides: vec![Beside {
                name: "half",
                target: None,
                measure: Box::new(|| Ok(Figures { rate: 0.5, ..Figures::default() })),
            }],
        }
    }

    fn one_client(&self, server: usize, size: usize, placement: Placement) -> Measure<'a> {
        self.ours(Load { server, clients: 1, size, part: 0, files: 0, time: self.time, placement })
    }

    fn ours(&self, load: Load) -> Measure<'a> {
        let system = self.system;
        Box::new(move || load::measure(system, &load))
    }

    fn limit(&self, name: &'static str, target: Option<f64>, more: &[String], arguments: &str) -> Beside<'a> {
        self.peer(name, "limits", target, more, arguments)
    }

    fn peer(
        &self,
        name: &'static str,
        program: &'static str,
        target: Option<f64>,
        more: &[String],
        arguments: &str,
    ) -> Beside<'a> {
        let mut words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        words.extend_from_slice(more);
        let (harness, seconds) = (self.harness, self.time.as_secs_f64());
        let measure = Box::new(move || {
            let harness = harness.context("the harness is not there")?;
            ensure!(harness.has(program), "{program} is not built");
            harness.run(program, seconds, &words)
        });
        Beside { name, target, measure }
    }

    /// Where the programs of the harness are to run to meet on the wire between the hosts.
    fn wire(&self, more: &[String]) -> Vec<String> {
        let mut words = vec!["--addr".to_owned(), format!("{}:7312", self.system.address(1))];
        for (word, host) in [("--server-ns", 1), ("--client-ns", 0)] {
            if let Some(namespace) = self.system.network_of(host) {
                // The harness looks for names below /run/netns, which is there only once somebody has made one.
                let _ = std::fs::create_dir_all("/run/netns");
                words.extend([word.to_owned(), format!("../..{}", namespace.display())]);
            }
        }
        words.extend_from_slice(more);
        words
    }

    /// What is measured without the harness.
    fn or_own(&self, besides: Vec<Beside<'a>>, own: impl FnOnce() -> Vec<Beside<'a>>) -> Vec<Beside<'a>> {
        if self.harness.is_some() { besides } else { own() }
    }
}

/// Counters that show the way of a transaction on one host.
const HERE: &[&str] = &["channel", "introduc", "transactions", "local", "revoked"];
/// Counters that show the way of a transaction to another host.
const THERE: &[&str] = &["flow", "introduc", "remote", "datagrams", "revoked", "sealed"];

fn own<'a>(
    name: &'static str,
    target: Option<f64>,
    measure: impl Fn() -> Result<Duration> + 'a,
) -> Beside<'a> {
    let measure = Box::new(move || Ok(Figures { p50: micros(measure()?), ..Figures::default() }));
    Beside { name, target, measure }
}

fn own_bulk<'a>(name: &'static str, measure: impl Fn() -> Result<Duration> + 'a) -> Beside<'a> {
    let measure = Box::new(move || {
        let megabytes = crate::report::megabytes_per_second(MIB, measure()?);
        Ok(Figures { megabytes, ..Figures::default() })
    });
    Beside { name, target: None, measure }
}

/// Null transactions while another client of another server fetches large replies all the time.
fn beside_transfer(system: &System, load: &Load) -> Result<Figures> {
    let bulk = Load { size: 64 * MIB, part: MIB, files: 1, time: load.time * 3, ..*load };
    let server = Server::start(system, load.server, load.placement)?;
    let mut transfer = Client::start(system, &server, &bulk)?;
    transfer.go()?;
    let figures = load::measure(system, load)?;
    transfer.finish()?;
    Ok(figures)
}

/// Two clients of two servers fetch large replies at once: the part of the slower one.
fn shares(system: &System, load: &Load) -> Result<Figures> {
    let servers = [0, 1].map(|_| Server::start(system, load.server, load.placement));
    let mut clients = Vec::new();
    for server in &servers {
        let server = server.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        clients.push(Client::start(system, server, load)?);
    }
    for client in &mut clients {
        client.go()?;
    }
    let counts = clients.iter_mut().map(Client::finish).collect::<Result<Vec<Histogram>>>()?;
    let counts: Vec<f64> = counts.iter().map(|histogram| histogram.count as f64).collect();
    let least = counts.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Figures { rate: least / counts.iter().sum::<f64>(), ..Figures::default() })
}
