//! The benchmark `transaction`: null transaction, bulk reply and starting a program, each beside its limits.

use anyhow::Result;

use crate::limits::{self, BULK, Wait};
use crate::ours::{COMMAND_BULK, COMMAND_NULL, Server, System};
use crate::report::{Report, Row, Unit, median, median_time, megabytes_per_second, micros};

/// Whole runs, of which each value's median counts.
const RUNS: usize = 5;
/// Calls in a run.
const NULL_COUNT: usize = 4_000;
const BULK_COUNT: usize = 100;
const START_COUNT: usize = 40;

/// Measures everything.
pub(crate) fn run() -> Result<Report> {
    let system = System::up()?;
    let server = Server::start(&system)?;
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        eprintln!("run {number} of {RUNS}");
        runs.push(rows(&system, &server)?);
    }
    let middle =
        |index: usize, value: fn(&Row) -> f64| median(runs.iter().map(|rows| value(&rows[index])).collect());
    let rows = runs[0].iter().enumerate().map(|(index, row)| Row {
        ours: middle(index, |row| row.ours),
        limit: middle(index, |row| row.limit),
        ..row.clone()
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let method =
        format!("medians of {RUNS} runs on {cores} cores; ratio 1 is as good as the limit, 2 half as good");
    Ok(Report { name: "transaction", method, rows: rows.collect() })
}

/// One run: ours and the limits in turn, so that a busy moment of the machine meets both.
fn rows(system: &System, server: &Server) -> Result<Vec<Row>> {
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
            beside,
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
        rows.push(Row { row: "1 MiB reply", ours: bulk, unit, beside, limit, target: None });
    }
    let start = micros(median_time(START_COUNT, || {
        let status = system.amoeba(&["run", "--", "true"]).status()?;
        anyhow::ensure!(status.success(), "`amoeba run -- true` ended with {status}");
        Ok(())
    })?);
    let limit = micros(limits::start_true(START_COUNT)?);
    let beside = "fork, exec and wait";
    rows.push(Row {
        row: "amoeba run -- true",
        ours: start,
        unit: Unit::Micros,
        beside,
        limit,
        target: None,
    });
    Ok(rows)
}
