//! What is known of the hosts of a pool, and when to ask them again. No I/O: whoever keeps a roster asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_stubs::pool;
use amoeba_threads::Instant;

use crate::account::Account;
use crate::ask::Answer;
use crate::candidate::{Candidate, Machine, State};
use crate::decision::Decision;
use crate::need::Need;

/// Hosts of one pool.
pub const HOSTS_MAX: usize = pool::HOSTS_MAX;
/// Bytes of a host's name.
pub const NAME_SIZE_MAX: usize = pool::NAME_MAX;
/// Programs that are remembered to have been placed on one host; the one not used for longest makes room.
const PROGRAMS_MAX: usize = 64;
/// A host that was asked so long ago is silent.
const SILENCE: Duration = Duration::from_secs(1);
/// Hosts that are down are asked at least so often.
const INTERVAL_DOWN_MAX: Duration = Duration::from_secs(8);
/// So long a first choice waits for the first host to answer,
const ROUND_MAX: Duration = Duration::from_millis(1500);
/// and so long after that for the others.
const STRAGGLERS_MAX: Duration = Duration::from_millis(150);

/// Which hosts are to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Those that answer, and new ones.
    Live,
    /// Those that are down, and new ones.
    Down,
    /// All.
    Any,
}

/// A host that is to be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which.
    pub name: Arc<str>,
    /// Its process server, if it is known.
    pub server: Option<Capability>,
    /// Whether that may no longer be true: it did not answer.
    pub suspect: bool,
    ticket: u64,
}

/// A host, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it can be reached.
    pub state: State,
    /// Since when it is up or down, or new.
    pub since: Instant,
    /// When it last answered.
    pub answered: Option<Instant>,
    /// What it is.
    pub machine: Arc<Machine>,
    /// Runnable processes, as it last said.
    pub load: f64,
    /// What was placed there and the load does not show yet.
    pub placed: f64,
    /// Bytes of memory it can still give, as it last said.
    pub memory_free: u64,
    /// Its guests.
    pub processes: u32,
    /// How often it was asked.
    pub polls: u64,
    /// Decisions in which it could have been chosen.
    pub considered: u64,
    /// Processes placed on it.
    pub chosen: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    New,
    Up,
    Down(String),
}

#[derive(Debug)]
struct Host {
    known: Known,
    since: Instant,
    doubted: bool,
    /// Asked, and not yet answered.
    asked: Option<(u64, Instant)>,
    due: Instant,
    /// How long to wait before it is asked again, when it is down.
    patience: Duration,
    /// Whether the round waits for it.
    awaited: bool,
    server: Option<Capability>,
    machine: Arc<Machine>,
    load: f64,
    memory_free: u64,
    processes: u32,
    answered: Option<Instant>,
    account: Account,
    /// Programs placed there and their bytes, the latest last.
    programs: VecDeque<([u8; 8], u64)>,
    polls: u64,
    considered: u64,
    chosen: u64,
}

/// The hosts of a pool.
#[derive(Debug)]
pub struct Roster {
    interval: Duration,
    hosts: BTreeMap<Arc<str>, Host>,
    tickets: u64,
    /// When the round began, and when the first host answered in it.
    round: Option<(Instant, Option<Instant>)>,
}

impl Roster {
    /// An empty roster whose hosts are asked every `interval`.
    pub fn new(interval: Duration) -> Roster {
        Roster { interval, hosts: BTreeMap::new(), tickets: 0, round: None }
    }

    /// The pool has these hosts, at most [`HOSTS_MAX`]: new ones are to be asked, others are forgotten.
    pub fn set_names(&mut self, names: impl IntoIterator<Item = String>, now: Instant) {
        let names: BTreeSet<String> = names.into_iter().take(HOSTS_MAX).collect();
        self.hosts.retain(|name, _| names.contains(&**name));
        for name in names {
            self.hosts.entry(name.into()).or_insert_with(|| Host::new(now));
        }
    }

    /// Hosts that are down are to be asked now.
    pub fn hurry(&mut self, now: Instant) {
        for host in self.hosts.values_mut().filter(|host| host.is_down()) {
            (host.due, host.patience) = (now, Duration::ZERO);
        }
    }

    /// Somebody could not reach a host: it is to be asked now, and is not chosen before it answers. Whether there is one.
    pub fn doubt(&mut self, name: &str, now: Instant) -> bool {
        let host = self.hosts.get_mut(name);
        if let Some(host) = host {
            (host.doubted, host.due) = (true, now);
            return true;
        }
        false
    }

    /// The host of this kind that should have been asked first, if there is one. It counts as asked until
    /// [`Roster::answered`].
    pub fn due(&mut self, kind: Kind, now: Instant) -> Option<Ask> {
        let idle = self.hosts.iter_mut().filter(|(_, host)| host.asked.is_none() && host.is(kind));
        let (name, host) = idle.min_by_key(|(_, host)| host.due).filter(|(_, host)| host.due <= now)?;
        self.tickets += 1;
        host.asked = Some((self.tickets, now));
        host.polls += 1;
        host.account.asked();
        let suspect = host.doubted || host.is_down();
        Some(Ask { name: name.clone(), server: host.server, suspect, ticket: self.tickets })
    }

    /// When the next host of this kind is to be asked; may have passed.
    pub fn next_due(&self, kind: Kind) -> Option<Instant> {
        let idle = self.hosts.values().filter(|host| host.asked.is_none() && host.is(kind));
        idle.map(|host| host.due).min()
    }

    /// How many hosts are to be asked now.
    pub fn count_due(&self, now: Instant) -> usize {
        self.hosts.values().filter(|host| host.asked.is_none() && host.due <= now).count()
    }

    /// A host has answered, or it has not for this reason.
    pub fn answered(&mut self, ask: &Ask, now: Instant, answer: Result<Answer, String>) {
        let interval = self.interval;
        // It may have been forgotten, and even come back, meanwhile.
        let host = self.hosts.get_mut(&ask.name);
        let Some(host) = host.filter(|host| host.asked.is_some_and(|(ticket, _)| ticket == ask.ticket))
        else {
            return;
        };
        (host.asked, host.awaited) = (None, false);
        match answer {
            Ok(answer) => {
                host.due = now + interval;
                host.take(answer, now);
                if let Some((_, first)) = &mut self.round {
                    first.get_or_insert(now);
                }
            }
            Err(why) => host.lose(why, now, interval),
        }
    }

    /// The next choice is to wait for the hosts that are due now, but not for those that are down. Hosts whose answers
    /// are still good count as having answered.
    pub fn begin_round(&mut self, now: Instant) {
        let mut first = None;
        for host in self.hosts.values_mut() {
            host.awaited = !host.is_down() && (host.asked.is_some() || host.due <= now);
            if host.known == Known::Up && !host.awaited {
                first = Some(now);
            }
        }
        self.round = Some((now, first));
    }

    /// Until when a choice had better wait for answers, if it had.
    pub fn unsettled(&self, now: Instant) -> Option<Instant> {
        let (began, first) = self.round?;
        let latest = began + ROUND_MAX;
        let deadline = first.map_or(latest, |first| latest.min(first + STRAGGLERS_MAX));
        let waiting = self.hosts.values().any(|host| host.awaited);
        (waiting && now < deadline).then_some(deadline)
    }

    /// The hosts as a choice for `need` sees them, by name.
    pub fn candidates(&self, need: &Need, now: Instant) -> Vec<Candidate> {
        let candidate = |(name, host): (&Arc<str>, &Host)| {
            let (placed, memory_promised) = host.account.sums(now, host.processes);
            Candidate {
                name: name.clone(),
                state: host.state(now),
                machine: host.machine.clone(),
                load: host.load,
                placed,
                memory_free: host.memory_free,
                memory_promised,
                cached: host.cached(need),
            }
        };
        self.hosts.iter().map(candidate).collect()
    }

    /// A decision was made: its processes are on their way.
    pub fn decided(&mut self, decision: &Decision) {
        for scored in &decision.scored {
            let Some(host) = self.hosts.get_mut(&scored.name) else { continue };
            host.considered += 1;
            host.chosen += u64::from(scored.chosen);
            // A client that counts what runs on its own host counts this, too.
            let counted = decision.need.busy > 0 && *scored.name == *decision.need.here;
            for _ in 0..if counted { 0 } else { scored.chosen } {
                host.account.place(decision.need.memory);
            }
            if scored.chosen > 0 {
                host.remember(&decision.need);
            }
        }
    }

    /// Processes that `decision` placed on a host have ended. Whether it had placed so many there that have not.
    pub fn ended(&mut self, decision: &mut Decision, name: &str, count: u32, now: Instant) -> bool {
        let memory = decision.need.memory;
        let scored = decision.scored.iter_mut().find(|scored| *scored.name == *name);
        let Some(scored) = scored.filter(|scored| scored.chosen - scored.ended >= count) else {
            return false;
        };
        scored.ended += count;
        if let Some(host) = self.hosts.get_mut(name) {
            (0..count).for_each(|_| host.account.end(now, memory));
        }
        true
    }

    /// The process server of a host that has answered at least once.
    pub fn server(&self, name: &str) -> Option<Capability> {
        self.hosts.get(name)?.server
    }

    /// Every host, by name.
    pub fn records(&self, now: Instant) -> Vec<Record> {
        let record = |(name, host): (&Arc<str>, &Host)| Record {
            name: name.clone(),
            state: host.state(now),
            since: host.since,
            answered: host.answered,
            machine: host.machine.clone(),
            load: host.load,
            placed: host.account.sums(now, host.processes).0,
            memory_free: host.memory_free,
            processes: host.processes,
            polls: host.polls,
            considered: host.considered,
            chosen: host.chosen,
        };
        self.hosts.iter().map(record).collect()
    }
}

impl Host {
    fn new(now: Instant) -> Host {
        Host {
            known: Known::New,
            since: now,
            doubted: false,
            asked: None,
            due: now,
            patience: Duration::ZERO,
            awaited: false,
            server: None,
            machine: Arc::default(),
            load: 0.0,
            memory_free: 0,
            processes: 0,
            answered: None,
            account: Account::new(now),
            programs: VecDeque::new(),
            polls: 0,
            considered: 0,
            chosen: 0,
        }
    }

    fn is(&self, kind: Kind) -> bool {
        match kind {
            Kind::Live => !self.is_down(),
            Kind::Down => self.known != Known::Up,
            Kind::Any => true,
        }
    }

    fn is_down(&self) -> bool {
        matches!(self.known, Known::Down(_))
    }

    fn take(&mut self, answer: Answer, now: Instant) {
        if self.known != Known::Up {
            (self.known, self.since) = (Known::Up, now);
        }
        (self.doubted, self.patience, self.answered) = (false, Duration::ZERO, Some(now));
        if *self.machine != answer.machine {
            self.machine = Arc::new(answer.machine);
        }
        self.server = Some(answer.server);
        (self.load, self.memory_free, self.processes) = (answer.load, answer.memory_free, answer.processes);
        self.account.answered(now);
    }

    fn lose(&mut self, why: String, now: Instant, interval: Duration) {
        if !self.is_down() {
            self.since = now;
        }
        self.known = Known::Down(why);
        self.patience = (self.patience * 2).clamp(interval, INTERVAL_DOWN_MAX.max(interval));
        self.due = now + self.patience;
        self.account.unanswered();
        // What was cached there died with it, as far as anybody knows.
        self.programs.clear();
    }

    fn state(&self, now: Instant) -> State {
        let silent = self.asked.map(|(_, asked)| now.since(asked)).filter(|time| *time >= SILENCE);
        match &self.known {
            Known::New => State::New,
            Known::Down(why) => State::Down { time: now.since(self.since), why: why.clone() },
            Known::Up if self.doubted => State::Doubted,
            Known::Up => silent.map_or(State::Up, State::Silent),
        }
    }

    fn cached(&self, need: &Need) -> u64 {
        if need.program == [0; 8] {
            return 0;
        }
        let program = self.programs.iter().find(|(program, _)| *program == need.program);
        program.map_or(0, |(_, text)| need.text.min(*text))
    }

    fn remember(&mut self, need: &Need) {
        if need.program == [0; 8] || need.text == 0 {
            return;
        }
        self.programs.retain(|(program, _)| *program != need.program);
        if self.programs.len() == PROGRAMS_MAX {
            self.programs.pop_front();
        }
        self.programs.push_back((need.program, need.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::choose;
    use crate::parameters::Parameters;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Instant {
        Instant::from_epoch(Duration::from_secs(1) + Duration::from_millis(milliseconds))
    }

    fn answer(host: u8) -> Result<Answer, String> {
        let machine = Machine { cpus: 2, kips: 1000, ..Machine::default() };
        let server = Capability::from_bytes([host; 16]);
        Ok(Answer { server, machine, load: 0.5, memory_free: 1 << 30, processes: 1 })
    }

    fn roster(names: &[&str]) -> Roster {
        let mut roster = Roster::new(INTERVAL);
        roster.set_names(names.iter().map(|name| name.to_string()), at(0));
        roster
    }

    fn states(roster: &Roster, now: Instant) -> Vec<State> {
        roster.records(now).into_iter().map(|record| record.state).collect()
    }

    #[test]
    fn each_host_is_asked_once_an_interval() {
        let mut roster = roster(&["a", "b"]);
        let a = roster.due(Kind::Any, at(0)).unwrap();
        let b = roster.due(Kind::Any, at(0)).unwrap();
        assert_eq!((&*a.name, &*b.name), ("a", "b"));
        assert_eq!((roster.due(Kind::Any, at(0)), roster.next_due(Kind::Any)), (None, None));
        roster.answered(&a, at(5), answer(1));
        assert_eq!(roster.next_due(Kind::Live), Some(at(1005)));
        assert_eq!((roster.due(Kind::Any, at(1004)), roster.count_due(at(1004))), (None, 0));
        let again = roster.due(Kind::Live, at(1005)).unwrap();
        assert_eq!((again.server, again.suspect), (Some(Capability::from_bytes([1; 16])), false));
        assert_eq!(states(&roster, at(1005)), [State::Up, State::New]);
    }

    #[test]
    fn a_dead_host_is_asked_less_often_and_comes_back() {
        let mut roster = roster(&["a"]);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let ask = roster.due(Kind::Down, at(now)).unwrap();
            roster.answered(&ask, at(now), Err("it is gone".into()));
            let due = roster.next_due(Kind::Down).unwrap();
            pauses.push(due.since(at(now)).as_secs());
            now += pauses.last().unwrap() * 1000;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
        assert_eq!(roster.next_due(Kind::Live), None);
        let down = State::Down { time: Duration::from_secs(31), why: "it is gone".into() };
        assert_eq!(states(&roster, at(31_000)), [down]);
        roster.hurry(at(now - 1));
        let ask = roster.due(Kind::Down, at(now - 1)).unwrap();
        assert!(ask.suspect);
        roster.answered(&ask, at(now), answer(2));
        assert_eq!(states(&roster, at(now)), [State::Up]);
        assert_eq!(roster.server("a"), Some(Capability::from_bytes([2; 16])));
    }

    #[test]
    fn silence_and_doubt_last_until_the_next_answer() {
        let mut roster = roster(&["a"]);
        let ask = roster.due(Kind::Any, at(0)).unwrap();
        roster.answered(&ask, at(0), answer(1));
        assert!(!roster.doubt("b", at(10)));
        assert!(roster.doubt("a", at(10)));
        assert_eq!(states(&roster, at(10)), [State::Doubted]);
        let ask = roster.due(Kind::Live, at(10)).unwrap();
        roster.answered(&ask, at(20), answer(1));
        assert_eq!(states(&roster, at(20)), [State::Up]);
        let ask = roster.due(Kind::Live, at(1020)).unwrap();
        assert_eq!(states(&roster, at(2019)), [State::Up]);
        assert_eq!(states(&roster, at(2520)), [State::Silent(Duration::from_millis(1500))]);
        roster.answered(&ask, at(2600), answer(1));
        assert_eq!(states(&roster, at(2600)), [State::Up]);
    }

    #[test]
    fn an_answer_for_a_host_that_left_is_nobodys() {
        let mut roster = roster(&["a", "b"]);
        let ask = roster.due(Kind::Any, at(0)).unwrap();
        roster.set_names(["b".to_owned()], at(1));
        roster.set_names(["a".to_owned(), "b".to_owned()], at(2));
        roster.answered(&ask, at(3), answer(1));
        assert_eq!(states(&roster, at(3)), [State::New, State::New]);
        roster.set_names((0..HOSTS_MAX + 9).map(|index| format!("h{index}")), at(4));
        assert_eq!(roster.records(at(4)).len(), HOSTS_MAX);
    }

    #[test]
    fn a_choice_waits_for_the_first_answer_and_a_little_for_the_others() {
        let mut roster = roster(&["a", "b", "c"]);
        assert_eq!(roster.unsettled(at(0)), None, "no round was begun");
        roster.begin_round(at(0));
        assert_eq!(roster.unsettled(at(0)), Some(at(1500)));
        let asks: Vec<Ask> = (0..3).map(|_| roster.due(Kind::Any, at(0)).unwrap()).collect();
        roster.answered(&asks[0], at(20), Err("gone".into()));
        assert_eq!(roster.unsettled(at(20)), Some(at(1500)));
        roster.answered(&asks[1], at(40), answer(1));
        assert_eq!(roster.unsettled(at(40)), Some(at(190)));
        assert_eq!(roster.unsettled(at(190)), None);
        roster.answered(&asks[2], at(50), answer(1));
        assert_eq!(roster.unsettled(at(50)), None);
    }

    #[test]
    fn nobody_waits_long_for_one_host_while_others_are_known() {
        let mut roster = roster(&["a", "b"]);
        let asks: Vec<Ask> = (0..2).map(|_| roster.due(Kind::Any, at(0)).unwrap()).collect();
        roster.answered(&asks[0], at(10), Err("gone".into()));
        roster.answered(&asks[1], at(500), answer(1));
        roster.begin_round(at(1200));
        assert_eq!(roster.count_due(at(1200)), 1);
        assert_eq!(roster.unsettled(at(1200)), None, "the host that is due is down");
        assert!(roster.due(Kind::Any, at(1200)).is_some_and(|ask| &*ask.name == "a"));
        roster.doubt("b", at(1300));
        roster.begin_round(at(1300));
        assert_eq!(
            roster.unsettled(at(1300)),
            Some(at(2800)),
            "the only one that could answer is worth the wait"
        );
        roster.set_names(["a", "b", "c"].map(str::to_owned), at(1300));
        let ask = roster.due(Kind::Live, at(1300)).unwrap();
        roster.answered(&ask, at(1310), answer(2));
        roster.begin_round(at(1320));
        assert_eq!(roster.unsettled(at(1320)), Some(at(1470)));
    }

    #[test]
    fn what_was_decided_is_counted_and_programs_are_remembered() {
        let mut roster = roster(&["a"]);
        let ask = roster.due(Kind::Any, at(0)).unwrap();
        roster.answered(&ask, at(0), answer(1));
        let need = Need { program: [7; 8], text: 1000, memory: 1 << 20, ..Need::default() };
        let candidates = roster.candidates(&need, at(0));
        assert_eq!(candidates[0].cached, 0);
        let choice = choose(&candidates, &need, 3, &Parameters::default(), &mut || 0);
        roster.decided(&choice.decision);
        let candidate = &roster.candidates(&need, at(1))[0];
        assert_eq!((candidate.placed, candidate.memory_promised, candidate.cached), (3.0, 3 << 20, 1000));
        let record = &roster.records(at(1))[0];
        assert_eq!((record.considered, record.chosen, record.polls), (1, 3, 1));
        let mut decision = choice.decision;
        assert!(!roster.ended(&mut decision, "b", 1, at(1)) && !roster.ended(&mut decision, "a", 4, at(1)));
        assert!(roster.ended(&mut decision, "a", 2, at(1)) && !roster.ended(&mut decision, "a", 2, at(1)));
        let candidate = &roster.candidates(&need, at(1))[0];
        assert_eq!((candidate.placed, candidate.memory_promised), (1.0, 1 << 20));
        let own = Need { here: "a".into(), busy: 2, ..need.clone() };
        let choice = choose(&roster.candidates(&own, at(1)), &own, 1, &Parameters::default(), &mut || 0);
        roster.decided(&choice.decision);
        assert_eq!(roster.candidates(&need, at(1))[0].placed, 1.0, "the client counts its own");
        for program in 0..PROGRAMS_MAX as u8 {
            let need = Need { program: [program + 100; 8], ..need.clone() };
            let choice =
                choose(&roster.candidates(&need, at(1)), &need, 1, &Parameters::default(), &mut || 0);
            roster.decided(&choice.decision);
        }
        assert_eq!(roster.candidates(&need, at(1))[0].cached, 0, "the oldest has made room");
        assert_eq!(roster.hosts["a"].programs.len(), PROGRAMS_MAX);
    }
}
