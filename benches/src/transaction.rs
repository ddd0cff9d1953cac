//! The benchmark `transaction`: null transaction and bulk reply, on one host and between two, each beside its
//! limits.

use anyhow::Result;

use crate::limits::{self, BULK, Wait};
use crate::network;
use crate::ours::{COMMAND_BULK, COMMAND_NULL, Server, System};
use crate::report::{Report, Row, Unit, median_of_runs, median_time, megabytes_per_second, micros};

/// Calls in a run.
const NULL_COUNT: usize = 4_000;
const BULK_COUNT: usize = 100;

/// Measures everything.
pub(crate) fn run() -> Result<Report> {
    let system = System::of_environment()?;
    let near = Server::start(&system, 0)?;
    let far = Server::start(&system, 1)?;
    let (rows, method) = median_of_runs(|| {
        let mut rows = local_rows(&near)?;
        rows.extend(remote_rows(&system, &far)?);
        Ok(rows)
    })?;
    Ok(Report { name: "transaction", method: format!("{method}; {}", system.place()), rows })
}

/// One run: ours and the limits in turn, so that a busy moment of the machine meets both.
fn local_rows(server: &Server) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let null = micros(median_time(NULL_COUNT, || server.transaction(COMMAND_NULL, 0))?);
    for (beside, limit) in [
        ("Unix packet socket, there and back", limits::unix_packet(NULL_COUNT)?),
        ("Unix stream socket, there and back", limits::unix_stream(NULL_COUNT)?),
        ("shared memory, futex", limits::shared_memory(NULL_COUNT, Wait::Sleep)?),
        ("shared memory, yield 20 us, then futex", limits::shared_memory(NULL_COUNT, Wait::Yield)?),
    ] {
        let limit = micros(limit);
        rows.push(Row {
            row: "null transaction",
            ours: null,
            unit: Unit::Micros,
            beside: beside.to_owned(),
            limit,
            target: None,
        });
    }
    let rate = |time| megabytes_per_second(BULK, time);
    let bulk = rate(median_time(BULK_COUNT, || server.transaction(COMMAND_BULK, BULK))?);
    for (beside, limit) in [
        ("Unix packet socket, 64 KiB packets", limits::unix_packet_bulk(BULK_COUNT)?),
        ("Unix stream socket", limits::unix_stream_bulk(BULK_COUNT)?),
        ("memcpy", limits::copy(BULK_COUNT)?),
    ] {
        let (unit, limit) = (Unit::MegabytesPerSecond, rate(limit));
        let beside = beside.to_owned();
        rows.push(Row { row: "1 MiB reply", ours: bulk, unit, beside, limit, target: None });
    }
    Ok(rows)
}

/// The same with a server on the other host, beside what its network can do.
fn remote_rows(system: &System, server: &Server) -> Result<Vec<Row>> {
    let null = micros(median_time(NULL_COUNT, || server.transaction(COMMAND_NULL, 0))?);
    let row = "null transaction, other host";
    let mut rows = Vec::new();
    for (beside, limit) in
        [("UDP", network::udp(system, NULL_COUNT)?), ("TCP", network::tcp(system, NULL_COUNT)?)]
    {
        let beside = format!("{beside} over {}, there and back", system.network());
        rows.push(Row { row, ours: null, unit: Unit::Micros, beside, limit: micros(limit), target: None });
    }
    let rate = |time| megabytes_per_second(BULK, time);
    rows.push(Row {
        row: "1 MiB reply, other host",
        ours: rate(median_time(BULK_COUNT, || server.transaction(COMMAND_BULK, BULK))?),
        unit: Unit::MegabytesPerSecond,
        beside: format!("TCP over {}", system.network()),
        limit: rate(network::tcp_bulk(system, BULK_COUNT)?),
        target: None,
    });
    Ok(rows)
}
