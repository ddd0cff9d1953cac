//! What commands that look for a fault need of this host, beyond transactions.

use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_stubs::system::Network;
use amoeba_wire::trace::Record;
use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It may hurt some day.
    Warning,
    /// It hurts.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub subject: String,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub finding: String,
    /// What to do about it, if anything.
    pub fix: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(subject: impl Into<String>, finding: impl Into<String>) -> Check {
        Check { subject: subject.into(), health: Health::Ok, finding: finding.into(), fix: None }
    }

    /// Something to know, with what can be done about it.
    pub fn note(subject: impl Into<String>, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        Check::of(Health::Note, subject, finding, fix)
    }

    /// Something that may hurt.
    pub fn warning(subject: impl Into<String>, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        Check::of(Health::Warning, subject, finding, fix)
    }

    /// Something that hurts.
    pub fn wrong(subject: impl Into<String>, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        Check::of(Health::Wrong, subject, finding, fix)
    }

    fn of(
        health: Health,
        subject: impl Into<String>,
        finding: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        let fix = Some(fix.into()).filter(|fix| !fix.is_empty());
        Check { subject: subject.into(), health, finding: finding.into(), fix }
    }
}

/// What somebody who looks on wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// Only what this process of this host does.
    pub pid: Option<u32>,
    /// Only transactions with this port.
    pub port: Option<PutPort>,
    /// Data too.
    pub data: bool,
    /// Channels and flows that are there are ended, so that nothing passes by the kernel.
    pub all: bool,
}

/// What has passed since somebody looked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceBatch {
    /// Records that there was no room for.
    pub dropped: u64,
    /// The others, in order.
    pub records: Vec<Record>,
}

/// Somebody who looks on, until it is dropped.
pub trait Trace {
    /// Waits at most `patience` for something to pass.
    ///
    /// # Errors
    /// The kernel is gone.
    fn next(&mut self, patience: Duration) -> anyhow::Result<TraceBatch>;
}

/// Looking for faults on this host.
pub trait Diagnosis {
    /// Looks at everything that can be seen from this host alone, whether a system runs or not; where one runs,
    /// `network` is what its kernel sees.
    fn checks(&self, network: Option<&Network>) -> Vec<Check>;
    /// Looks on while things pass the kernel of this host.
    ///
    /// # Errors
    /// No system runs, or too many look on already.
    fn trace(&self, options: &TraceOptions) -> anyhow::Result<Box<dyn Trace>>;
}
