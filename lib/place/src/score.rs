//! Which hosts cannot take a process, and how good the others are for it.
//!
//! # Source
//! Amoeba 5.3, run(A). Processors beyond the first, the cost of bringing files and the processes placed since the last
//! poll are ours.

use std::fmt;
use std::time::Duration;

use amoeba_stubs::process::{ENFORCES_CPU, ENFORCES_MEMORY, ENFORCES_PROCESSES};

use crate::candidate::{Candidate, State};
use crate::need::Need;
use crate::parameters::Parameters;
use crate::units;

/// The speed of a host that cannot tell it.
const KIPS_ASSUMED: u32 = 1_000_000;
const KB: f64 = 1024.0;

/// Why a host cannot take a process. Its text is a clause for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The request wants others.
    NotWanted,
    /// The request does not want it.
    Unwanted,
    /// It was not asked yet.
    New,
    /// It was asked this long ago and did not answer yet.
    Silent(Duration),
    /// Somebody could not reach it, and it has not answered since.
    Doubted,
    /// It does not answer, for so long and for this reason.
    Down(Duration, String),
    /// It executes another architecture than the program's.
    WrongCpu {
        /// The program's.
        program: String,
        /// The host's.
        host: String,
    },
    /// Its CPU lacks this option.
    NoOption(String),
    /// Its architecture has preference 0.
    SwitchedOff(String),
    /// It cannot enforce limits that were asked for: these bits of class `process`.
    NoLimits(u8),
    /// Its memory does not suffice.
    Memory {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free and not promised to other processes.
        free: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotWanted => f.write_str("not among the hosts asked for"),
            Reason::Unwanted => f.write_str("not wanted by the request"),
            Reason::New => f.write_str("not asked yet"),
            Reason::Silent(time) => write!(f, "silent: asked {} ago", units::time(*time)),
            Reason::Doubted => f.write_str("somebody could not reach it just now"),
            Reason::Down(time, why) => write!(f, "down for {}: {why}", units::time(*time)),
            Reason::WrongCpu { program, host } => {
                write!(f, "wrong CPU: the program is for {program}, the host executes {host}")
            }
            Reason::NoOption(option) => write!(f, "its CPU lacks {option}"),
            Reason::SwitchedOff(architecture) => write!(f, "switched off: PREF-{architecture} is 0"),
            Reason::NoLimits(missing) => write!(f, "it cannot limit {}", limited(*missing)),
            Reason::Memory { needed: 0, .. } => f.write_str("no free memory"),
            Reason::Memory { needed, free } => {
                let (needed, free) = (units::size(*needed), units::size(*free));
                write!(f, "too little memory: {needed} needed, {free} free")
            }
        }
    }
}

/// What these bits limit, for people.
fn limited(bits: u8) -> String {
    let names =
        [(ENFORCES_MEMORY, "memory"), (ENFORCES_CPU, "processor time"), (ENFORCES_PROCESSES, "processes")];
    let named: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    // A limit that was invented after this program.
    if named.is_empty() { "what is asked".into() } else { named.join(", ") }
}

/// Why `candidate` cannot take the process, if it cannot.
pub fn refuse(candidate: &Candidate, need: &Need, parameters: &Parameters) -> Option<Reason> {
    by_wish(candidate, need)
        .or_else(|| by_state(&candidate.state))
        .or_else(|| by_nature(candidate, need, parameters))
}

/// As [`refuse`], for a moment when nobody answers: silent hosts may only be slow.
pub(crate) fn refuse_unless_silent(
    candidate: &Candidate,
    need: &Need,
    parameters: &Parameters,
) -> Option<Reason> {
    let state = by_state(&candidate.state).filter(|reason| !matches!(reason, Reason::Silent(_)));
    by_wish(candidate, need).or(state).or_else(|| by_nature(candidate, need, parameters))
}

fn by_wish(candidate: &Candidate, need: &Need) -> Option<Reason> {
    let named = |hosts: &[String]| hosts.iter().any(|host| **host == *candidate.name);
    if !need.only.is_empty() && !named(&need.only) {
        Some(Reason::NotWanted)
    } else {
        named(&need.avoid).then_some(Reason::Unwanted)
    }
}

fn by_state(state: &State) -> Option<Reason> {
    match state {
        State::Up => None,
        State::New => Some(Reason::New),
        State::Silent(time) => Some(Reason::Silent(*time)),
        State::Doubted => Some(Reason::Doubted),
        State::Down { time, why } => Some(Reason::Down(*time, why.clone())),
    }
}

fn by_nature(candidate: &Candidate, need: &Need, parameters: &Parameters) -> Option<Reason> {
    let architecture = &candidate.machine.architecture;
    if !need.architecture.is_empty() && need.architecture != *architecture {
        let (program, host) = (need.architecture.clone(), architecture.clone());
        return Some(Reason::WrongCpu { program, host });
    }
    if let Some(options) = &candidate.machine.options
        && let Some(missing) = need.options.iter().find(|option| !options.contains(option))
    {
        return Some(Reason::NoOption(missing.clone()));
    }
    if parameters.preference(architecture) == 0 {
        return Some(Reason::SwitchedOff(architecture.clone()));
    }
    let missing = need.limits & !candidate.machine.enforces;
    if missing != 0 {
        return Some(Reason::NoLimits(missing));
    }
    let free = candidate.memory_free.saturating_sub(candidate.memory_promised);
    if free < need.memory || available(candidate, need, parameters) < 1.0 {
        return Some(Reason::Memory { needed: need.memory, free });
    }
    None
}

/// How good a host is for a process, and what that is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Preference of its architecture, percent.
    pub preference: u64,
    /// Thousands of instructions a second that the process would get.
    pub speed: f64,
    /// Free memory that is left beside the process, kilobytes, at most MEMTRUNC.
    pub memory: f64,
    /// At least 1, more where the program is cached.
    pub startup: f64,
    /// How long the process would run there.
    pub run: Duration,
    /// How long it would take to bring it there.
    pub transfer: Duration,
    /// The product: the more the better.
    pub value: f64,
}

/// The formula, for a host that is not refused.
///
/// `value = PREF * speed * min(MEMTRUNC, available) * startup * run / (run + transfer)`, where
/// `speed = KIPS * min(1, cpus / (load + 1))`.
pub fn score(candidate: &Candidate, need: &Need, parameters: &Parameters) -> Factors {
    let preference = parameters.preference(&candidate.machine.architecture);
    let kips = if candidate.machine.kips == 0 { KIPS_ASSUMED } else { candidate.machine.kips };
    let here = is_here(candidate, need);
    let counted = if here { need.busy.into() } else { 0.0 };
    let load = candidate.load.max(counted) + candidate.placed.max(0.0);
    let share = (f64::from(candidate.machine.cpus.max(1)) / (load + 1.0)).min(1.0);
    let speed = f64::from(kips) * share;
    let memory = available(candidate, need, parameters).clamp(1.0, parameters.memory_enough as f64);
    let cached = if here && need.text_here { need.text } else { candidate.cached };
    let startup = 1.0 + cached as f64 / KB / parameters.cache_time as f64;
    let run = parameters.work_of(need.work).as_secs_f64() / share;
    let transfer = transfer(candidate, need, parameters);
    let value = preference as f64 / 100.0 * speed * memory * startup * run / (run + transfer);
    let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Factors { preference, speed, memory, startup, run: seconds(run), transfer: seconds(transfer), value }
}

/// Kilobytes that would be left beside the process.
fn available(candidate: &Candidate, need: &Need, parameters: &Parameters) -> f64 {
    let cached = candidate.cached as f64 * parameters.cache_memory as f64 / 100.0;
    // One byte is as good as one kilobyte: a host whose memory just suffices is not refused.
    let left = candidate.memory_free as f64 - candidate.memory_promised as f64 - need.memory as f64;
    if left < 0.0 || candidate.memory_free == 0 { 0.0 } else { ((left + cached) / KB).max(1.0) }
}

/// Whether it is the client's own host.
fn is_here(candidate: &Candidate, need: &Need) -> bool {
    !need.here.is_empty() && *need.here == *candidate.name
}

/// Seconds until everything it needs is there. A program of the directory graph is fetched to every host, the client's
/// own program and files to any other than its own.
fn transfer(candidate: &Candidate, need: &Need, parameters: &Parameters) -> f64 {
    let here = is_here(candidate, need);
    let text = if here && need.text_here { 0 } else { need.text.saturating_sub(candidate.cached) };
    let (files, dispatch) = if here { (0, 0.0) } else { (need.ship, parameters.dispatch as f64 / 1e6) };
    text.saturating_add(files) as f64 / KB / parameters.rate as f64 + dispatch
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::candidate::Machine;

    /// The parameters with which the formula is the original's, to the letter.
    fn original() -> Parameters {
        Parameters { memory_enough: 2048, cache_time: 500, dispatch: 0, ..Parameters::default() }
    }

    fn machine(change: impl FnOnce(&mut Machine)) -> Arc<Machine> {
        let mut machine = (*Candidate::idle("").machine).clone();
        change(&mut machine);
        Arc::new(machine)
    }

    #[test]
    fn one_processor_scores_as_in_the_original() {
        // KIPS 2500, load 1.5, 1 MB free, 200 KB needed, 100 KB cached, PREF 100, MEMTRUNC 2048, CACHETIME 500,
        // CACHEMEM 10: speed 1000; available 1024 - 200 + 10 = 834; startup 1.2.
        let candidate = Candidate {
            machine: machine(|machine| (machine.cpus, machine.kips) = (1, 2500)),
            load: 1.5,
            memory_free: 1 << 20,
            cached: 100 << 10,
            ..Candidate::idle("a")
        };
        let need = Need { memory: 200 << 10, ..Need::default() };
        let factors = score(&candidate, &need, &original());
        assert_eq!((factors.speed, factors.memory, factors.startup), (1000.0, 834.0, 1.2));
        assert_eq!(factors.value, 1000.0 * 834.0 * 1.2);
        let mut preferred = original();
        preferred.set("PREF-x86_64-linux", "50").unwrap();
        assert_eq!(score(&candidate, &need, &preferred).value, factors.value / 2.0);
    }

    #[test]
    fn processors_are_filled_before_anything_gets_slower() {
        let speed = |load| {
            let candidate = Candidate { load, ..Candidate::idle("a") };
            score(&candidate, &Need::default(), &Parameters::default()).speed
        };
        assert_eq!([0.0, 3.0, 7.0, 15.0].map(speed), [4e6, 4e6, 2e6, 1e6]);
    }

    #[test]
    fn a_short_local_program_is_not_shipped() {
        let parameters = Parameters::default();
        let busy = Candidate { load: 5.0, ..Candidate::idle("anvil") };
        let idle = Candidate::idle("bolt");
        let best_is_here = |work, ship| {
            let need = Need { here: "anvil".into(), work, ship, ..Need::default() };
            score(&busy, &need, &parameters).value > score(&idle, &need, &parameters).value
        };
        assert!(best_is_here(Duration::from_millis(100), 50 << 20));
        assert!(!best_is_here(Duration::from_secs(60), 50 << 20));
        assert!(!best_is_here(Duration::from_millis(100), 0));
    }

    #[test]
    fn a_clients_own_count_and_its_own_program_count_on_its_own_host_alone() {
        let best_is_here = |busy, load, cached| {
            let need = Need {
                here: "anvil".into(),
                busy,
                text: 40 << 20,
                text_here: true,
                work: Duration::from_millis(500),
                ..Need::default()
            };
            let here = Candidate { load: 0.1, ..Candidate::idle("anvil") };
            let there = Candidate { load, cached, ..Candidate::idle("bolt") };
            let value = |candidate| score(candidate, &need, &Parameters::default()).value;
            value(&here) > value(&there)
        };
        assert!(best_is_here(3, 0.0, 0), "a processor is idle");
        assert!(best_is_here(5, 0.0, 0), "waiting for one is shorter than fetching the program");
        assert!(!best_is_here(5, 0.0, 40 << 20), "which is there already");
        assert!(best_is_here(5, 5.0, 40 << 20), "but the other is as busy");
        assert!(!best_is_here(40, 0.0, 0), "here it would take ten times as long");
    }

    #[test]
    fn what_is_cached_need_not_be_brought() {
        let need = Need { text: 100 << 20, ..Need::default() };
        let transfer = |cached| {
            let candidate = Candidate { cached, ..Candidate::idle("a") };
            score(&candidate, &need, &original()).transfer
        };
        assert_eq!(transfer(0), Duration::from_nanos(1_024_000_000));
        assert_eq!(transfer(100 << 20), Duration::ZERO);
    }

    #[test]
    fn every_reason_says_what_is_wrong() {
        let parameters = {
            let mut parameters = Parameters::default();
            parameters.set("PREF-vax", "0").unwrap();
            parameters
        };
        let said = |candidate: Candidate, need: Need| {
            refuse(&candidate, &need, &parameters).map_or("taken".into(), |reason| reason.to_string())
        };
        let idle = || Candidate::idle("a");
        let state = |state| said(Candidate { state, ..idle() }, Need::default());
        let hosts = |host: &str| vec![host.to_owned()];
        assert_eq!(said(idle(), Need::default()), "taken");
        assert_eq!(
            said(idle(), Need { only: hosts("b"), ..Need::default() }),
            "not among the hosts asked for"
        );
        assert_eq!(said(idle(), Need { only: hosts("a"), ..Need::default() }), "taken");
        assert_eq!(said(idle(), Need { avoid: hosts("a"), ..Need::default() }), "not wanted by the request");
        assert_eq!(state(State::New), "not asked yet");
        assert_eq!(state(State::Silent(Duration::from_secs(2))), "silent: asked 2 s ago");
        assert_eq!(state(State::Doubted), "somebody could not reach it just now");
        let down = State::Down { time: Duration::from_secs(180), why: "no server found".into() };
        assert_eq!(state(down), "down for 3 min: no server found");
        let vax = Need { architecture: "vax".into(), ..Need::default() };
        assert_eq!(said(idle(), vax), "wrong CPU: the program is for vax, the host executes x86_64-linux");
        let old = Candidate { machine: machine(|machine| machine.architecture = "vax".into()), ..idle() };
        assert_eq!(said(old, Need::default()), "switched off: PREF-vax is 0");
        let options = |options: &[&str]| Need {
            options: options.iter().map(|option| option.to_string()).collect(),
            ..Need::default()
        };
        let telling =
            Candidate { machine: machine(|machine| machine.options = Some(vec!["avx2".into()])), ..idle() };
        assert_eq!(said(telling.clone(), options(&["avx2", "amx"])), "its CPU lacks amx");
        assert_eq!(said(telling, options(&["avx2"])), "taken");
        assert_eq!(said(idle(), options(&["amx"])), "taken", "a host that does not tell may have it");
        let lax = Candidate { machine: machine(|machine| machine.enforces = ENFORCES_CPU), ..idle() };
        let limits = |limits| Need { limits, ..Need::default() };
        assert_eq!(said(lax.clone(), limits(ENFORCES_CPU)), "taken");
        let all = ENFORCES_MEMORY | ENFORCES_CPU | ENFORCES_PROCESSES;
        assert_eq!(said(lax.clone(), limits(all)), "it cannot limit memory, processes");
        assert_eq!(said(lax, limits(128)), "it cannot limit what is asked");
        let need = |memory| Need { memory, ..Need::default() };
        assert_eq!(said(idle(), need(8 << 30)), "taken");
        assert_eq!(said(idle(), need((8 << 30) + 1)), "too little memory: 8 GiB needed, 8 GiB free");
        let promised = Candidate { memory_promised: 7 << 30, ..idle() };
        assert_eq!(said(promised, need(2 << 30)), "too little memory: 2 GiB needed, 1 GiB free");
        assert_eq!(said(Candidate { memory_free: 0, ..idle() }, need(0)), "no free memory");
    }

    prop_compose! {
        fn any_candidate()(
            load in 0.0..1e6f64, placed in 0.0..1e3f64, cpus in 0u32..1000, kips: u32, free: u64, promised: u64, cached: u64,
        ) -> Candidate {
            Candidate {
                machine: machine(|machine| (machine.cpus, machine.kips) = (cpus, kips)),
                load, placed, memory_free: free, memory_promised: promised, cached, ..Candidate::idle("a")
            }
        }
    }

    prop_compose! {
        fn any_need()(memory: u64, text: u64, ship: u64, work: u32, here: bool) -> Need {
            let here = if here { "a".into() } else { String::new() };
            Need { memory, text, ship, work: Duration::from_millis(work.into()), here, ..Need::default() }
        }
    }

    proptest! {
        #[test]
        fn every_value_is_a_positive_number(candidate in any_candidate(), need in any_need()) {
            let factors = score(&candidate, &need, &Parameters::default());
            prop_assert!(factors.value.is_finite() && factors.value > 0.0, "{factors:?}");
        }

        #[test]
        fn more_load_and_more_to_bring_are_never_better(
            candidate in any_candidate(), need in any_need(), more in 0.0..1e3f64, bytes in 0u64..1 << 40,
        ) {
            let parameters = Parameters::default();
            let value = score(&candidate, &need, &parameters).value;
            let busier = Candidate { load: candidate.load + more, ..candidate.clone() };
            // The longer it runs anyway the less a transfer counts, so that a hair's rounding is left to it.
            prop_assert!(score(&busier, &need, &parameters).value <= value * 1.000_001);
            let heavier = Need { ship: need.ship.saturating_add(bytes), ..need };
            prop_assert!(score(&candidate, &heavier, &parameters).value <= value);
        }

        #[test]
        fn a_host_with_the_memory_is_never_refused_for_it(candidate in any_candidate(), need in any_need()) {
            let free = candidate.memory_free.saturating_sub(candidate.memory_promised);
            let refused = refuse(&candidate, &need, &Parameters::default()).is_some();
            prop_assert_eq!(refused, free < need.memory || candidate.memory_free == 0 || free == 0 && candidate.memory_free < candidate.memory_promised);
        }
    }
}
