//! The choice, and its explanation.

use std::fmt;
use std::sync::Arc;

use crate::candidate::Candidate;
use crate::need::Need;
use crate::parameters::Parameters;
use crate::score::{Factors, Reason, refuse, refuse_unless_silent, score};
use crate::units;

/// A host that could have been chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The host.
    pub name: Arc<str>,
    /// How good it was before anything was placed.
    pub factors: Factors,
    /// Runnable processes it told of.
    pub load: f64,
    /// What had been placed there since.
    pub placed: f64,
    /// Bytes of memory it had left.
    pub memory_free: u64,
    /// Whether it was as good as the best.
    pub equivalent: bool,
    /// Processes of this decision that were placed on it.
    pub chosen: u32,
    /// Those of them that are known to have ended.
    pub ended: u32,
}

/// How a choice came about. Its `Display` is the text of `amoeba why`: several lines, without one at the end that is
/// empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What was to be placed.
    pub need: Need,
    /// How many processes were to be placed.
    pub count: u32,
    /// EQUIVPERC at that moment.
    pub equivalent_percent: u64,
    /// Whether only silent hosts were left to choose from.
    pub desperate: bool,
    /// The hosts that could take it, the best first.
    pub scored: Vec<Scored>,
    /// The others, by name.
    pub rejected: Vec<(Arc<str>, Reason)>,
}

/// A decision, and the hosts it gives to each process in turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// One for each process; fewer when the memory of all hosts was promised, none when nobody could take any.
    pub hosts: Vec<Arc<str>>,
    /// How that came about.
    pub decision: Decision,
}

/// Chooses hosts for `count` processes that need the same: for each a host drawn with `random` from those within
/// EQUIVPERC of the best, counting those before it as already running.
///
/// Hosts that are silent are taken only if there are no others.
pub fn choose(
    candidates: &[Candidate],
    need: &Need,
    count: u32,
    parameters: &Parameters,
    random: &mut dyn FnMut() -> u64,
) -> Choice {
    let (mut able, mut rejected) = sort_out(candidates, |candidate| refuse(candidate, need, parameters));
    let mut desperate = false;
    if able.is_empty() {
        (able, rejected) =
            sort_out(candidates, |candidate| refuse_unless_silent(candidate, need, parameters));
        desperate = !able.is_empty();
    }
    let mut scored = scored(&able, need, parameters);
    let hosts = draw(able, &mut scored, need, count, parameters, random);
    // The order of equals is that of their names, which the candidates have.
    scored.sort_by(|one, other| other.factors.value.total_cmp(&one.factors.value));
    rejected.sort_by(|one, other| one.0.cmp(&other.0));
    let equivalent_percent = parameters.equivalent_percent;
    let need = need.clone();
    Choice { hosts, decision: Decision { need, count, equivalent_percent, desperate, scored, rejected } }
}

type Refusals = Vec<(Arc<str>, Reason)>;

fn sort_out(
    candidates: &[Candidate],
    refuse: impl Fn(&Candidate) -> Option<Reason>,
) -> (Vec<Candidate>, Refusals) {
    let (mut able, mut rejected) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match refuse(candidate) {
            None => able.push(candidate.clone()),
            Some(reason) => rejected.push((candidate.name.clone(), reason)),
        }
    }
    (able, rejected)
}

fn scored(able: &[Candidate], need: &Need, parameters: &Parameters) -> Vec<Scored> {
    let mut scored: Vec<Scored> = able
        .iter()
        .map(|candidate| Scored {
            name: candidate.name.clone(),
            factors: score(candidate, need, parameters),
            load: candidate.load,
            placed: candidate.placed,
            memory_free: candidate.memory_free.saturating_sub(candidate.memory_promised),
            equivalent: false,
            chosen: 0,
            ended: 0,
        })
        .collect();
    let values = scored.iter().map(|scored| Some(scored.factors.value));
    let bound = equivalence_bound(values, parameters);
    for scored in &mut scored {
        scored.equivalent = scored.factors.value >= bound;
    }
    scored
}

/// The least value that is as good as the best.
fn equivalence_bound(values: impl Iterator<Item = Option<f64>>, parameters: &Parameters) -> f64 {
    let best = values.flatten().fold(0.0, f64::max);
    // The part first: it is exactly 1 for 0 percent, and no rounding puts the bound above the best itself.
    best * ((100 - parameters.equivalent_percent.min(100)) as f64 / 100.0)
}

/// Places one process after the other; `able` and `scored` are of the same hosts in the same order.
fn draw(
    mut able: Vec<Candidate>,
    scored: &mut [Scored],
    need: &Need,
    count: u32,
    parameters: &Parameters,
    random: &mut dyn FnMut() -> u64,
) -> Vec<Arc<str>> {
    let mut values: Vec<Option<f64>> = scored.iter().map(|scored| Some(scored.factors.value)).collect();
    let mut hosts = Vec::new();
    for _ in 0..count {
        let bound = equivalence_bound(values.iter().copied(), parameters);
        let good = |value: &Option<f64>| value.is_some_and(|value| value >= bound);
        let equals: Vec<usize> = (0..values.len()).filter(|&index| good(&values[index])).collect();
        if equals.is_empty() {
            break;
        }
        let index = equals[(random() % equals.len() as u64) as usize];
        let candidate = &mut able[index];
        hosts.push(candidate.name.clone());
        scored[index].chosen += 1;
        candidate.placed += 1.0;
        candidate.memory_promised = candidate.memory_promised.saturating_add(need.memory);
        let full = refuse_unless_silent(candidate, need, parameters).is_some();
        values[index] = (!full).then(|| score(candidate, need, parameters).value);
    }
    hosts
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head())?;
        if let Some(needs) = needs(&self.need) {
            writeln!(f, "needs {needs}")?;
        }
        for unknown in self.need.only.iter().filter(|name| !self.knows(name)) {
            writeln!(f, "no host of the pool is called {unknown}")?;
        }
        if self.desperate {
            writeln!(f, "no host answers at the moment; these are late, perhaps only slow")?;
        }
        if !self.scored.is_empty() {
            writeln!(f)?;
            table(f, &self.rows())?;
        }
        if !self.rejected.is_empty() {
            writeln!(f, "\nrefused:")?;
            let row = |(name, why): &(Arc<str>, Reason)| [format!("  {name}"), why.to_string()];
            table(f, &self.rejected.iter().map(row).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

impl Decision {
    fn knows(&self, host: &str) -> bool {
        let scored = self.scored.iter().map(|scored| &scored.name);
        scored.chain(self.rejected.iter().map(|(name, _)| name)).any(|name| **name == *host)
    }

    fn head(&self) -> String {
        let chosen: Vec<&Scored> = self.scored.iter().filter(|scored| scored.chosen > 0).collect();
        let equals = self.scored.iter().filter(|scored| scored.equivalent).count();
        let hosts = units::count(self.scored.len(), "host", "hosts");
        match chosen.as_slice() {
            [] if self.scored.is_empty() && self.rejected.is_empty() => "the pool has no hosts".to_owned(),
            [] => "no host can take it".to_owned(),
            [one] if self.count == 1 && self.scored.len() == 1 => {
                format!("{}: the only host that can take it", one.name)
            }
            [one] if self.count == 1 && equals == 1 => format!("{}: the best of {hosts}", one.name),
            [one] if self.count == 1 => {
                let percent = self.equivalent_percent;
                format!("{}: drawn from {equals} of {hosts} within {percent}% of the best", one.name)
            }
            several => {
                let placed: u32 = several.iter().map(|scored| scored.chosen).sum();
                let each: Vec<String> =
                    several.iter().map(|scored| format!("{} {}", scored.name, scored.chosen)).collect();
                format!("{placed} of {} processes placed: {}", self.count, each.join(", "))
            }
        }
    }

    fn rows(&self) -> Vec<[String; 8]> {
        let best = self.scored.first().map_or(1.0, |best| best.factors.value);
        let head = ["HOST", "CHOSEN", "VALUE", "MIPS", "LOAD", "PLACED", "MEMORY", "TRANSFER"];
        let row = |scored: &Scored| {
            [
                scored.name.to_string(),
                if scored.chosen == 0 { "-".to_owned() } else { scored.chosen.to_string() },
                format!("{:.0}%", 100.0 * scored.factors.value / best),
                format!("{:.0}", scored.factors.speed / 1000.0),
                format!("{:.2}", scored.load),
                format!("{:.2}", scored.placed),
                units::size(scored.memory_free),
                units::time(scored.factors.transfer),
            ]
        };
        [head.map(str::to_owned)].into_iter().chain(self.scored.iter().map(row)).collect()
    }
}

/// What is needed, unless nothing in particular is.
fn needs(need: &Need) -> Option<String> {
    let mut parts = Vec::new();
    if !need.architecture.is_empty() {
        parts.push(need.architecture.clone());
    }
    parts.extend(need.options.iter().cloned());
    if need.memory > 0 {
        parts.push(format!("{} of memory", units::size(need.memory)));
    }
    if need.text > 0 {
        parts.push(format!("its program of {}", units::size(need.text)));
    }
    if need.ship > 0 {
        let where_to = if need.here.is_empty() { String::new() } else { format!(" but on {}", need.here) };
        parts.push(format!("{} brought{where_to}", units::size(need.ship)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Columns as wide as their widest cell, two spaces between, nothing at the ends of lines.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(f, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::candidate::State;

    /// Numbers that differ; the same in every run.
    fn lots(mut seed: u64) -> impl FnMut() -> u64 {
        move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        }
    }

    fn first() -> impl FnMut() -> u64 {
        || 0
    }

    fn chosen(candidates: &[Candidate], need: &Need, count: u32) -> Choice {
        choose(candidates, need, count, &Parameters::default(), &mut first())
    }

    #[test]
    fn sixty_processes_spread_over_three_equal_hosts() {
        let hosts = ["a", "b", "c"].map(Candidate::idle);
        let choice = choose(&hosts, &Need::default(), 60, &Parameters::default(), &mut lots(1));
        for name in ["a", "b", "c"] {
            let count = choice.hosts.iter().filter(|host| ***host == *name).count();
            assert!((15..=25).contains(&count), "{name} got {count}");
        }
    }

    #[test]
    fn the_best_is_as_good_as_itself() {
        // With these the product of value, 100 and 1/100 was above the value, and nobody was good enough.
        let parameters = Parameters { equivalent_percent: 0, ..Parameters::default() };
        for placed in 0..1000 {
            let candidate = Candidate { placed: placed.into(), ..Candidate::idle("a") };
            let choice = choose(&[candidate], &Need::default(), 1, &parameters, &mut first());
            assert_eq!(choice.hosts.len(), 1, "{placed}");
        }
    }

    #[test]
    fn a_full_explanation() {
        let candidates = [
            Candidate { load: 0.25, ..Candidate::idle("anvil") },
            Candidate { load: 6.5, placed: 2.5, memory_promised: 1 << 30, ..Candidate::idle("bolt") },
            Candidate { memory_free: 100 << 20, ..Candidate::idle("cask") },
            Candidate {
                state: State::Down { time: Duration::from_secs(42), why: "no server found".into() },
                ..Candidate::idle("dale")
            },
        ];
        let need = Need {
            architecture: "x86_64-linux".into(),
            memory: 512 << 20,
            ship: 10 << 20,
            here: "bolt".into(),
            ..Need::default()
        };
        let text = chosen(&candidates, &need, 1).decision.to_string();
        assert_eq!(
            text,
            "\
anvil: the best of 2 hosts
needs x86_64-linux, 512 MiB of memory, 10 MiB brought but on bolt

HOST   CHOSEN  VALUE  MIPS  LOAD  PLACED  MEMORY  TRANSFER
anvil  1       100%   4000  0.25  0.00    8 GiB   104 ms
bolt   -       44%    1600  6.50  2.50    7 GiB   0 ms

refused:
  cask  too little memory: 512 MiB needed, 100 MiB free
  dale  down for 42 s: no server found
"
        );
    }

    #[test]
    fn every_kind_of_first_line() {
        let (a, b) = (Candidate::idle("a"), Candidate::idle("b"));
        let slow = Candidate { load: 9.0, ..Candidate::idle("slow") };
        let any = Need::default();
        let head = |candidates: &[Candidate], need: &Need, count| {
            chosen(candidates, need, count).decision.to_string().lines().next().unwrap().to_owned()
        };
        assert_eq!(head(&[], &any, 1), "the pool has no hosts");
        assert_eq!(head(std::slice::from_ref(&a), &any, 1), "a: the only host that can take it");
        assert_eq!(head(&[slow.clone(), b.clone()], &any, 1), "b: the best of 2 hosts");
        let three = [a, b, slow];
        assert_eq!(head(&three, &any, 1), "a: drawn from 2 of 3 hosts within 5% of the best");
        assert_eq!(head(&three, &any, 6), "6 of 6 processes placed: a 4, b 2");
        assert_eq!(
            head(&three, &Need { memory: 3 << 30, ..any.clone() }, 9),
            "6 of 9 processes placed: a 2, b 2, slow 2"
        );
        let elsewhere = Need { only: vec!["a".into(), "nobody".into()], ..any.clone() };
        let text = chosen(&three, &elsewhere, 1).decision.to_string();
        assert!(
            text.starts_with("a: the only host that can take it\nno host of the pool is called nobody\n\n"),
            "{text}"
        );
        assert_eq!(
            head(&three, &Need { avoid: vec!["a".into(), "b".into(), "slow".into()], ..any }, 1),
            "no host can take it"
        );
    }

    #[test]
    fn silent_hosts_are_the_last_resort() {
        let late = State::Silent(Duration::from_millis(1500));
        let silent = Candidate { state: late, ..Candidate::idle("a") };
        let refused = Candidate { state: State::Doubted, ..Candidate::idle("b") };
        let up = Candidate { load: 50.0, ..Candidate::idle("c") };
        let choice = chosen(&[silent.clone(), refused.clone(), up], &Need::default(), 1);
        assert_eq!(choice.hosts, ["c".into()]);
        let choice = chosen(&[silent, refused], &Need::default(), 1);
        assert_eq!(choice.hosts, ["a".into()]);
        assert_eq!(
            choice.decision.to_string(),
            "\
a: the only host that can take it
no host answers at the moment; these are late, perhaps only slow

HOST  CHOSEN  VALUE  MIPS  LOAD  PLACED  MEMORY  TRANSFER
a     1       100%   4000  0.00  0.00    8 GiB   2 ms

refused:
  b  somebody could not reach it just now
"
        );
    }

    proptest! {
        #[test]
        fn a_choice_is_among_the_best_and_nobody_is_forgotten(
            loads in prop::collection::vec((0.0..20.0f64, 0u64..16 << 30, any::<bool>()), 0..20),
            memory in 0u64..8 << 30, count in 1u32..50, seed: u64, percent in 0u64..=50,
        ) {
            let candidates: Vec<Candidate> = loads.iter().enumerate().map(|(index, &(load, memory_free, up))| Candidate {
                load, memory_free, state: if up { State::Up } else { State::New },
                ..Candidate::idle(&format!("h{index:02}"))
            }).collect();
            let need = Need { memory, ..Need::default() };
            let parameters = Parameters { equivalent_percent: percent, ..Parameters::default() };
            let Choice { hosts, decision } = choose(&candidates, &need, count, &parameters, &mut lots(seed));
            prop_assert_eq!(decision.scored.len() + decision.rejected.len(), candidates.len());
            prop_assert!(hosts.len() <= count as usize);
            prop_assert_eq!(hosts.is_empty(), decision.scored.is_empty());
            let placed: u32 = decision.scored.iter().map(|scored| scored.chosen).sum();
            prop_assert_eq!(placed as usize, hosts.len());
            if let Some(host) = hosts.first() {
                let first = decision.scored.iter().find(|scored| scored.name == *host).unwrap();
                prop_assert!(first.equivalent);
                prop_assert!(first.factors.value >= decision.scored[0].factors.value * ((100 - percent) as f64 / 100.0));
            }
            for scored in &decision.scored {
                prop_assert!(u64::from(scored.chosen) * memory <= scored.memory_free);
            }
            prop_assert!(decision.to_string().lines().count() >= decision.rejected.len());
        }
    }
}
