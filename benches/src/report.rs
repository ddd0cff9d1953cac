//! Rows of a report: what of ours, beside which limit, and how far apart.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

/// Whether more or less of a unit is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds: less is better.
    Micros,
    /// Milliseconds: less is better.
    Millis,
    /// Bytes: fewer are better.
    Bytes,
    /// Millions of bytes a second: more is better.
    MegabytesPerSecond,
    /// Requests a second: more is better.
    PerSecond,
    /// Thousandths of a core: less is better.
    Millicores,
    /// Parts of a whole: more is better.
    Share,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Micros => "us",
            Unit::Millis => "ms",
            Unit::Bytes => "B",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::PerSecond => "1/s",
            Unit::Millicores => "mcore",
            Unit::Share => "part",
        }
    }

    /// How many times better `beside` is than `ours`.
    pub(crate) fn ratio(self, ours: f64, beside: f64) -> f64 {
        match self {
            Unit::Micros | Unit::Millis | Unit::Bytes | Unit::Millicores => ours / beside,
            Unit::MegabytesPerSecond | Unit::PerSecond | Unit::Share => beside / ours,
        }
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured of ours.
    pub(crate) row: String,
    /// Ours, in `unit`.
    pub(crate) ours: f64,
    /// The unit of both values.
    pub(crate) unit: Unit,
    /// The limit's name.
    pub(crate) beside: String,
    /// The limit, in `unit`.
    pub(crate) limit: f64,
    /// How many times better the limit is: 1 is as good, 2 is half as good. The median of the ratios of each round.
    pub(crate) ratio: f64,
    /// The ratio we aim for at most (`None`: only reported).
    pub(crate) target: Option<f64>,
}

impl Row {
    /// A row of one measurement of each.
    pub(crate) fn new(row: &str, unit: Unit, ours: f64, beside: impl Into<String>, limit: f64) -> Row {
        let (row, beside, ratio) = (row.to_owned(), beside.into(), unit.ratio(ours, limit));
        Row { row, ours, unit, beside, limit, ratio, target: None }
    }

    fn ok(&self) -> Option<bool> {
        self.target.map(|target| self.ratio <= target)
    }
}

/// All rows of a benchmark, with a line about how it was measured.
#[derive(Debug)]
pub(crate) struct Report {
    /// The benchmark's name.
    pub(crate) name: &'static str,
    /// How it was measured.
    pub(crate) method: String,
    /// In the order to be shown.
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}: {}\n\n", self.name, self.method);
        let line = |text: &mut String, cells: [&str; 7]| {
            let [row, ours, unit, beside, limit, ratio, target] = cells;
            writeln!(text, "{row:<42}{ours:>10} {unit:<5}  {beside:<40}{limit:>10}{ratio:>9}  {target}")
                .expect("writing to a string cannot fail");
        };
        line(&mut text, ["", "ours", "", "beside", "limit", "ratio", "target"]);
        for row in &self.rows {
            let target = match (row.target, row.ok()) {
                (Some(target), Some(ok)) => {
                    format!("{} {}", number(target), if ok { "ok" } else { "MISSED" })
                }
                _ => "-".to_owned(),
            };
            let ratio = number(row.ratio);
            let (ours, limit) = (number(row.ours), number(row.limit));
            line(&mut text, [&row.row, &ours, row.unit.name(), &row.beside, &limit, &ratio, &target]);
        }
        text
    }

    /// For programs: an array of rows.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "row": row.row, "ours": row.ours, "unit": row.unit.name(),
                "beside": { "name": row.beside, "value": row.limit },
                "ratio": row.ratio, "target": row.target, "ok": row.ok(),
            })
        };
        self.rows.iter().map(row).collect()
    }
}

fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// The median of how long each of `count` calls took, after a tenth as many to warm up.
pub(crate) fn median_time<E>(
    count: usize,
    mut call: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<Duration, E> {
    for _ in 0..count.div_ceil(10) {
        call()?;
    }
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[count / 2])
}

/// Whole runs, of which each value's median counts.
const RUNS: usize = 5;

/// The rows of several runs, each value the median of theirs; and how they were measured.
pub(crate) fn median_of_runs(mut run: impl FnMut() -> Result<Vec<Row>>) -> Result<(Vec<Row>, String)> {
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        eprintln!("run {number} of {RUNS}");
        runs.push(run()?);
    }
    let middle =
        |index: usize, value: fn(&Row) -> f64| median(runs.iter().map(|rows| value(&rows[index])).collect());
    let rows = runs[0].iter().enumerate().map(|(index, row)| Row {
        ours: middle(index, |row| row.ours),
        limit: middle(index, |row| row.limit),
        ratio: middle(index, |row| row.ratio),
        ..row.clone()
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let method =
        format!("medians of {RUNS} runs on {cores} cores; ratio 1 is as good as the limit, 2 half as good");
    Ok((rows.collect(), method))
}

/// The median of several runs' results.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A time in microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The rate at which `size` bytes in `time` move.
pub(crate) fn megabytes_per_second(size: usize, time: Duration) -> f64 {
    size as f64 / time.as_secs_f64() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, unit: Unit, limit: f64, target: Option<f64>) -> Row {
        Row { target, ..Row::new("a", unit, ours, "b", limit) }
    }

    #[test]
    fn a_ratio_above_one_is_worse_than_the_limit() {
        assert_eq!(row(20.0, Unit::Micros, 10.0, None).ratio, 2.0);
        assert_eq!(row(500.0, Unit::MegabytesPerSecond, 1000.0, None).ratio, 2.0);
    }

    #[test]
    fn targets_are_judged_and_shown() {
        let rows = vec![row(20.0, Unit::Micros, 10.0, Some(1.5)), row(20.0, Unit::Micros, 10.0, Some(2.0))];
        let report = Report { name: "n", method: "m".into(), rows };
        let table = report.table();
        assert!(table.contains("1.50 MISSED") && table.contains("2.00 ok"), "{table}");
        assert_eq!(report.json()[0]["ok"], false);
        assert_eq!(report.json()[1]["ratio"], 2.0);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        let mut calls = 0;
        median_time(10, || {
            calls += 1;
            Ok::<(), ()>(())
        })
        .unwrap();
        assert_eq!(calls, 11);
    }
}
