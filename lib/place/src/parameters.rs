//! What an administrator may set while a run server runs, by the original's names.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::need::is_printable;

/// The parameter that switches a pool off.
pub const ENABLE: &str = "ENABLE";
/// Architectures that can have a preference of their own.
const PREFERENCES_MAX: usize = 32;
const PREFERENCE: &str = "PREF-";
const PREFERENCE_DEFAULT: u64 = 100;
const PREFERENCE_MAX: u64 = 1000;

/// Weights of the formula.
///
/// # Source
/// Amoeba 5.3, run(A), but RATE, DISPATCH and WORK, which are ours. The defaults of MEMTRUNC and CACHETIME and the
/// bounds of sizes have grown with the machines since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// EQUIVPERC: hosts whose value is within so many percent of the best are as good as it.
    pub equivalent_percent: u64,
    /// MEMTRUNC: kilobytes of free memory past which more is no better.
    pub memory_enough: u64,
    /// CACHETIME: kilobytes of cached program that make a host worth twice as much.
    pub cache_time: u64,
    /// CACHEMEM: percent of a cached program's size that count as free memory.
    pub cache_memory: u64,
    /// RATE: kilobytes a second that are brought from host to host.
    pub rate: u64,
    /// DISPATCH: microseconds that it takes to start a process on another host.
    pub dispatch: u64,
    /// WORK: milliseconds that a process of unknown length is taken to run.
    pub work: u64,
    /// ENABLE: 0 when the pool is switched off.
    pub enable: u64,
    /// PREF-…: percent, by architecture; 100 for those not named, 0 switches an architecture off.
    pub preferences: BTreeMap<String, u64>,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            equivalent_percent: 5,
            memory_enough: 256 << 10,
            cache_time: 500_000,
            cache_memory: 10,
            rate: 100_000,
            dispatch: 2000,
            work: 1000,
            enable: 1,
            preferences: BTreeMap::new(),
        }
    }
}

/// A parameter was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is none of this name.
    #[error("no such parameter")]
    Unknown,
    /// The value is not a number in its range.
    #[error("the value is not in the range of the parameter")]
    Range,
    /// No further architecture can have a preference.
    #[error("at most {PREFERENCES_MAX} architectures can have a preference")]
    Full,
}

/// A parameter, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// What it is called.
    pub name: String,
    /// Its type and range.
    pub kind: String,
    /// What it does.
    pub description: &'static str,
    /// What it is now.
    pub value: u64,
}

/// One parameter that is always there.
struct Entry {
    name: &'static str,
    least: u64,
    most: u64,
    unit: &'static str,
    description: &'static str,
    field: fn(&mut Parameters) -> &mut u64,
}

const ENTRIES: [Entry; 8] = [
    Entry {
        name: "EQUIVPERC",
        least: 0,
        most: 50,
        unit: "percent",
        description: "hosts this close to the best are as good as it",
        field: |parameters| &mut parameters.equivalent_percent,
    },
    Entry {
        name: "MEMTRUNC",
        least: 1,
        most: 1 << 30,
        unit: "KB",
        description: "free memory past which more is no better",
        field: |parameters| &mut parameters.memory_enough,
    },
    Entry {
        name: "CACHETIME",
        least: 1,
        most: 1 << 30,
        unit: "KB",
        description: "cached program that makes a host worth twice as much",
        field: |parameters| &mut parameters.cache_time,
    },
    Entry {
        name: "CACHEMEM",
        least: 1,
        most: 200,
        unit: "percent",
        description: "part of a cached program that counts as free memory",
        field: |parameters| &mut parameters.cache_memory,
    },
    Entry {
        name: "RATE",
        least: 1,
        most: 1 << 30,
        unit: "KB/s",
        description: "how fast files are brought from host to host",
        field: |parameters| &mut parameters.rate,
    },
    Entry {
        name: "DISPATCH",
        least: 0,
        most: 10_000_000,
        unit: "us",
        description: "time to start a process on another host",
        field: |parameters| &mut parameters.dispatch,
    },
    Entry {
        name: "WORK",
        least: 1,
        most: 1 << 30,
        unit: "ms",
        description: "how long a process of unknown length is taken to run",
        field: |parameters| &mut parameters.work,
    },
    Entry {
        name: ENABLE,
        least: 0,
        most: 1,
        unit: "",
        description: "0 switches the pool off",
        field: |parameters| &mut parameters.enable,
    },
];

impl Parameters {
    /// Sets one, by the name and the text that an administrator gives.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        if let Some(architecture) = name.strip_prefix(PREFERENCE) {
            return self.prefer(architecture, number(value, 0, PREFERENCE_MAX)?);
        }
        let entry = ENTRIES.iter().find(|entry| entry.name == name).ok_or(Refused::Unknown)?;
        *(entry.field)(self) = number(value, entry.least, entry.most)?;
        Ok(())
    }

    fn prefer(&mut self, architecture: &str, percent: u64) -> Result<(), Refused> {
        let good = !architecture.is_empty()
            && architecture.len() <= amoeba_stubs::pool::ARCHITECTURE_SIZE_MAX
            && is_printable(architecture);
        if !good {
            return Err(Refused::Unknown);
        }
        if self.preferences.len() >= PREFERENCES_MAX && !self.preferences.contains_key(architecture) {
            return Err(Refused::Full);
        }
        self.preferences.insert(architecture.to_owned(), percent);
        Ok(())
    }

    /// All of them: those that are always there, then the preferences that were set and those of `architectures`.
    pub fn describe<'a>(&self, architectures: impl IntoIterator<Item = &'a str>) -> Vec<Described> {
        let mut copy = self.clone();
        let fixed = ENTRIES.iter().map(|entry| Described {
            name: entry.name.to_owned(),
            kind: format!("integer {}..{} {}", entry.least, entry.most, entry.unit).trim_end().to_owned(),
            description: entry.description,
            value: *(entry.field)(&mut copy),
        });
        let mut described: Vec<Described> = fixed.collect();
        let mut preferences = self.preferences.clone();
        for architecture in architectures {
            if preferences.len() < PREFERENCES_MAX && !preferences.contains_key(architecture) {
                preferences.insert(architecture.to_owned(), PREFERENCE_DEFAULT);
            }
        }
        described.extend(preferences.into_iter().map(|(architecture, value)| Described {
            name: format!("{PREFERENCE}{architecture}"),
            kind: format!("integer 0..{PREFERENCE_MAX} percent"),
            description: "weight of this architecture; 0 switches it off",
            value,
        }));
        described
    }

    /// The weight of an architecture, in percent.
    pub fn preference(&self, architecture: &str) -> u64 {
        self.preferences.get(architecture).copied().unwrap_or(PREFERENCE_DEFAULT)
    }

    /// How long a process is taken to run on an idle host.
    pub(crate) fn work_of(&self, known: Duration) -> Duration {
        if known.is_zero() { Duration::from_millis(self.work) } else { known }
    }
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, Refused> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value.filter(|value| (least..=most).contains(value)).ok_or(Refused::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_within_their_ranges_only() {
        let mut parameters = Parameters::default();
        for entry in &ENTRIES {
            for good in [entry.least, entry.most] {
                assert_eq!(parameters.set(entry.name, &good.to_string()), Ok(()), "{}", entry.name);
                assert_eq!(*(entry.field)(&mut parameters), good);
            }
            assert_eq!(parameters.set(entry.name, &(entry.most + 1).to_string()), Err(Refused::Range));
        }
        for bad in ["", "-1", "+1", " 1", "1 ", "x", "99999999999999999999999"] {
            assert_eq!(parameters.set(ENABLE, bad), Err(Refused::Range), "{bad:?}");
        }
        assert_eq!(parameters.set("CACHETIME", "0"), Err(Refused::Range));
        for unknown in ["", "enable", "PREF-", "PREF", "PREF-\n"] {
            assert_eq!(parameters.set(unknown, "1"), Err(Refused::Unknown), "{unknown:?}");
        }
    }

    #[test]
    fn preferences_are_bounded_and_described() {
        let mut parameters = Parameters::default();
        assert_eq!(parameters.set("PREF-vax", "50"), Ok(()));
        assert_eq!(parameters.set("PREF-vax", "1001"), Err(Refused::Range));
        assert_eq!((parameters.preference("vax"), parameters.preference("sparc")), (50, 100));
        let described = parameters.describe(["sparc", "vax", "sparc"]);
        let line =
            |at: usize| format!("{} {} {}", described[at].name, described[at].kind, described[at].value);
        assert_eq!(line(0), "EQUIVPERC integer 0..50 percent 5");
        assert_eq!(line(7), "ENABLE integer 0..1 1");
        assert_eq!(line(8), "PREF-sparc integer 0..1000 percent 100");
        assert_eq!(line(9), "PREF-vax integer 0..1000 percent 50");
        assert_eq!(described.len(), 10);
        for index in 1..PREFERENCES_MAX {
            assert_eq!(parameters.set(&format!("PREF-{index}"), "1"), Ok(()));
        }
        assert_eq!(parameters.set("PREF-more", "1"), Err(Refused::Full));
        assert_eq!(parameters.set("PREF-vax", "2"), Ok(()));
    }
}
