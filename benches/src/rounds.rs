//! Rounds: all contenders of a question take turns, and ratios are taken within the round, so that a busy moment of the
//! machine meets all of them.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::Figures;
use crate::ours::System;
use crate::report::{Row, Unit, median};

/// How much is measured.
pub(crate) struct Scope {
    /// Rounds, of which medians count.
    pub(crate) rounds: usize,
    /// Length of one timed run.
    pub(crate) time: Duration,
    /// Only groups whose name contains this.
    pub(crate) pattern: String,
}

/// One timed run of a contender.
pub(crate) type Measure<'a> = Box<dyn Fn() -> Result<Figures> + 'a>;

/// What ours is measured beside.
pub(crate) struct Beside<'a> {
    /// Its name.
    pub(crate) name: &'static str,
    /// At most so many times better than ours; below 1, ours must be that much better.
    pub(crate) target: Option<f64>,
    pub(crate) measure: Measure<'a>,
}

/// A row of the question.
pub(crate) struct Group<'a> {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) value: fn(&Figures) -> f64,
    pub(crate) ours: Measure<'a>,
    /// What the counters of the kernels say about the way that ours took.
    pub(crate) path: &'static [&'static str],
    pub(crate) besides: Vec<Beside<'a>>,
}

/// Measures a group in rounds. A contender that fails is told and left out.
pub(crate) fn rounds(system: &System, group: &Group<'_>, rounds: usize) -> Result<Vec<Row>> {
    let mut seen: Vec<Vec<Row>> = group.besides.iter().map(|_| Vec::new()).collect();
    let mut ours_alone = Vec::new();
    for round in 1..=rounds {
        eprintln!("{}: round {round} of {rounds}", group.name);
        let before = counters(system)?;
        let figures = (group.ours)().with_context(|| group.name.clone())?;
        if round == 1 {
            tell_path(group, &figures, &before, &counters(system)?);
        }
        let ours = (group.value)(&figures);
        ours_alone.push(ours);
        for (beside, rows) in group.besides.iter().zip(&mut seen) {
            match (beside.measure)() {
                Ok(figures) => {
                    let limit = (group.value)(&figures);
                    rows.push(Row::new(&group.name, group.unit, ours, beside.name, limit));
                }
                Err(error) => eprintln!("{}: {} is left out: {error:#}", group.name, beside.name),
            }
        }
    }
    let middle = |rows: &[Row], value: fn(&Row) -> f64| median(rows.iter().map(value).collect());
    let mut rows = Vec::new();
    for (beside, measured) in group.besides.iter().zip(&seen).filter(|(_, measured)| !measured.is_empty()) {
        rows.push(Row {
            ours: middle(measured, |row| row.ours),
            limit: middle(measured, |row| row.limit),
            ratio: middle(measured, |row| row.ratio),
            target: beside.target,
            ..measured[0].clone()
        });
    }
    if rows.is_empty() {
        let ours = median(ours_alone);
        rows.push(Row::new(&group.name, group.unit, ours, "nothing to compare with", ours));
    }
    Ok(rows)
}

fn counters(system: &System) -> Result<Vec<(String, u64)>> {
    let mut all = system.counters(0)?;
    all.extend(system.counters(1)?.into_iter().map(|(name, value)| (format!("{name}, other host"), value)));
    Ok(all)
}

/// Which way the transactions went, by what the kernels counted, and what each cost.
fn tell_path(group: &Group<'_>, figures: &Figures, before: &[(String, u64)], after: &[(String, u64)]) {
    let grown = after.iter().filter_map(|(name, value)| {
        let was = before.iter().find(|(other, _)| other == name).map_or(0, |(_, was)| *was);
        let wanted = group.path.iter().any(|word| name.contains(word));
        (wanted && *value > was).then(|| format!("{name} +{}", value - was))
    });
    let grown: Vec<String> = grown.collect();
    eprintln!(
        "  p50 {:.2} us, p99 {:.2} us, {:.0} requests/s, {:.2} us of processor and {:.2} switches a request; {}",
        figures.p50,
        figures.p99,
        figures.rate,
        figures.cpu,
        figures.switches,
        grown.join(", ")
    );
}
