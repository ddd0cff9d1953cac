//! Where the threads of a listener wait: for all its channels and for its kernel at once.
//!
//! At most one thread *looks*: it reads the clients' words in shared memory, giving its processor away in between. One
//! *sleeps* in epoll, on every bell and on the kernel's connection; two do where all clients come through the kernel, so that
//! whoever is woken by a request need not wake another to sleep in its place. The others wait for one of these places. A
//! thread that leaves with a request says for all channels that nobody looks, if there is a sleeper to be woken by their
//! bells; with no other thread there, nothing need be said: whoever comes next looks first. Nor is anything said where it
//! will be back at once ([`habit`]).

mod habit;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use amoeba_world::{Incoming, Message};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use self::habit::{Habit, WATCH_INTERVAL};
use super::lock;
use super::served::{Line, Received, Served, linger};
use crate::flow::care::Presence;
use crate::flow::served::Flows;
use crate::look::{Look, Next, give_way};
use crate::threads::now;

/// How often channels are looked through for those that nobody uses.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
/// After so many intervals without use a channel is closed.
const IDLE_INTERVALS: u64 = 6;
/// After so many intervals in which a client has taken nothing of a reply, or sent nothing of a request, it is cut off.
const STALL_INTERVALS: u64 = 2;
/// Requests that one thread takes from channels before it looks what the kernel has.
const TURN: u32 = 64;
const EVENTS_PER_TURN: usize = 64;
/// Threads that sleep in epoll where there are no clients but the kernel's. Elsewhere one does: it is woken for nothing
/// whenever a bell rings that the thread that looks hears first.
const SLEEPERS_MAX: usize = 2;
/// Before a client has its second turn of a round, the processor is given away once for those who had one in the last
/// rounds and have not asked again: they may have been woken, or answered, and need a processor to come back.
const EXPECTED_ROUNDS: u64 = 16;
/// Looks at channels for one at flows, where there are both; they go on being counted from one request to the next.
const LOOKS_PER_FLOWS: u32 = 64;
/// A look after giving the processor away counts for so many: it took that much longer.
const LOOKS_PER_YIELD: u32 = 16;

const KICK: u64 = u64::MAX;
const CONNECTION: u64 = u64::MAX - 1;
const FLOWS: u64 = u64::MAX - 2;

/// What a thread got.
pub(super) enum Wait {
    /// A request that came over a flow.
    Flow(Incoming),
    /// A request that came over a channel, which waits for the reply.
    Request(Box<Served>, Message),
    /// The kernel's connection has something.
    Connection,
    /// Channels ended, by their sessions and identifiers: the kernel is to be told.
    Ended(Vec<(u64, u64)>),
    /// The listener was closed.
    Closed,
}

/// What is left for the thread that looks.
enum Mail {
    Channel(Box<Served>),
    Over(u64),
    /// Only channels of this session are of use.
    Session(u64),
}

#[derive(Default)]
struct Roles {
    looker: bool,
    /// Threads in epoll, at most [`SLEEPERS_MAX`].
    sleepers: usize,
    /// Those of them that will not wake to tidy up, because there were no channels when they fell asleep.
    unbounded: usize,
    /// Threads that wait for a role.
    waiting: usize,
    habit: Habit,
    mail: Vec<Mail>,
    ended: Vec<(u64, u64)>,
    /// Somebody saw that the kernel's connection has something, and had no time for it.
    connection: bool,
    closed: bool,
}

/// What came of looking.
enum Looked<'a> {
    Found(Wait),
    /// Something changed: it must be looked again before anybody sleeps.
    Again,
    /// There is nothing, and every client knows that it must ring.
    Quiet(MutexGuard<'a, Roles>),
}

/// What the thread that looks looks at.
struct Deck {
    /// In the order in which they have their turns: the first one is next, and whoever had its turn is last. So a request
    /// waits for at most one of every other client, however quickly those come again.
    channels: VecDeque<Box<Served>>,
    /// Looks since flows were looked at.
    looks: u32,
    /// Counts rounds: it goes up when a channel has its second turn.
    round: u64,
    /// In this round, for those who were expected.
    has_given_way: bool,
    /// Intervals gone by.
    time: u64,
    tidy_at: Option<amoeba_threads::Instant>,
    taken: u32,
    /// The clients were told to ring.
    is_asleep: bool,
    look: Look,
}

/// See the module.
pub(super) struct Desk {
    epoll: OwnedFd,
    kick: OwnedFd,
    /// It was kicked, and whoever is to wake has not heard it yet.
    is_kicked: AtomicBool,
    roles: Mutex<Roles>,
    turn: Condvar,
    /// Only the thread that looks takes this lock.
    deck: Mutex<Deck>,
    /// How much mail there is, so that looking needs no lock.
    mail: AtomicUsize,
    lines: Mutex<BTreeMap<u64, Arc<Line>>>,
    /// Clients of other hosts, once there are any.
    flows: OnceLock<Arc<Flows>>,
    presence: Arc<Presence>,
}

impl Desk {
    pub(super) fn new() -> Result<Desk, Errno> {
        let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &kick, EventData::new_u64(KICK), EventFlags::IN)?;
        Ok(Desk {
            epoll,
            kick,
            is_kicked: AtomicBool::new(false),
            roles: Mutex::default(),
            turn: Condvar::new(),
            deck: Mutex::new(Deck::new()),
            mail: AtomicUsize::new(0),
            lines: Mutex::default(),
            flows: OnceLock::new(),
            presence: Arc::default(),
        })
    }

    /// Watches the kernel's connection, on which a request was asked for.
    pub(super) fn watch(&self, connection: impl AsFd) -> Result<(), Errno> {
        // Edge-triggered: it wakes one thread, which reads what is there or leaves word of it.
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, connection, EventData::new_u64(CONNECTION), flags)
    }

    /// Watches it no more.
    pub(super) fn unwatch(&self, connection: impl AsFd) {
        // It fails only for a connection that was not watched.
        let _ = epoll::delete(&self.epoll, connection);
    }

    /// Takes a new channel.
    pub(super) fn add(&self, served: Box<Served>) -> Result<(), Errno> {
        let (id, line) = (served.id, served.line.clone());
        // Edge-triggered: a bell whose channel is out is somebody else's to hear.
        let data = EventData::new_u64(id);
        epoll::add(&self.epoll, &line.ear, data, EventFlags::IN | EventFlags::ET)?;
        lock(&self.lines).insert(id, line);
        if let Err(served) = self.give_back(served) {
            served.over(); // the listener was closed meanwhile
        }
        Ok(())
    }

    /// The flows of the listener, made by `make` when there were none yet.
    pub(super) fn flows(&self, make: impl FnOnce() -> Result<Flows, Errno>) -> Result<Arc<Flows>, Errno> {
        let _one_makes_them = lock(&self.lines);
        if let Some(flows) = self.flows.get() {
            return Ok(flows.clone());
        }
        let flows = Arc::new(make()?);
        epoll::add(&self.epoll, &*flows, EventData::new_u64(FLOWS), EventFlags::IN)?;
        Ok(self.flows.get_or_init(|| flows).clone())
    }

    /// Takes back a channel whose request has its reply.
    ///
    /// # Errors
    /// The channel, when the listener was closed.
    pub(super) fn give_back(&self, mut served: Box<Served>) -> Result<(), Box<Served>> {
        let executed = served.since.take().map(|since| now().since(since));
        let mut roles = lock(&self.roles);
        if roles.closed {
            drop(roles);
            self.forget(&served);
            return Err(served);
        }
        if let Some(executed) = executed {
            roles.habit.answered(executed);
        }
        // Only a sleeper hears bells, and nobody looks: the client must be told to ring.
        let is_unseen = roles.sleepers > 0 && !roles.looker && !roles.habit.is_away;
        let ready = is_unseen && !served.end.before_sleep();
        self.post(&mut roles, Mail::Channel(served));
        drop(roles);
        if ready {
            self.kick();
        }
        Ok(())
    }

    /// A channel is over, and not here; false when the listener was closed, and whoever has it tells the kernel.
    pub(super) fn end(&self, served: &Served) -> bool {
        self.forget(served);
        let mut roles = lock(&self.roles);
        if roles.closed {
            return false;
        }
        roles.ended.push((served.session, served.id));
        drop(roles);
        self.kick();
        true
    }

    /// Channels of other sessions are of no more use.
    pub(super) fn session(&self, session: u64) {
        self.post(&mut lock(&self.roles), Mail::Session(session));
    }

    /// How many channels there are.
    pub(super) fn channels(&self) -> usize {
        lock(&self.lines).len()
    }

    /// Whether there are no clients but those that come through the kernel.
    pub(super) fn is_lonely(&self) -> bool {
        self.channels() == 0 && self.flows.get().is_none_or(|flows| flows.count() == 0)
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.roles).closed
    }

    /// Whether some thread waits here.
    pub(super) fn is_attended(&self) -> bool {
        let roles = lock(&self.roles);
        roles.looker || roles.sleepers > 0 || roles.waiting > 0
    }

    /// Every thread leaves; whoever waits for an answer over a channel that nobody is executing finds it gone. Replies that
    /// are half sent are finished.
    pub(super) fn close(&self) {
        {
            let mut roles = lock(&self.roles);
            roles.closed = true;
            self.mail.fetch_add(1, Ordering::Relaxed);
        }
        self.turn.notify_all();
        self.kick();
        let channels = std::mem::take(&mut lock(&self.deck).channels);
        let mail = std::mem::take(&mut lock(&self.roles).mail);
        let left = mail.into_iter().filter_map(|mail| match mail {
            Mail::Channel(served) => Some(served),
            _ => None,
        });
        let (replying, ended): (Vec<_>, Vec<_>) =
            channels.into_iter().chain(left).partition(|served| served.end.is_replying());
        replying.iter().chain(&ended).for_each(|served| self.forget(served));
        lock(&self.roles).ended.extend(ended.iter().map(|served| (served.session, served.id)));
        if let Some(flows) = self.flows.get() {
            flows.close();
        }
        linger(replying);
    }

    /// The channels that ended since this was asked last.
    pub(super) fn ended(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut lock(&self.roles).ended)
    }

    /// Which threads wait here.
    pub(super) fn presence(&self) -> Arc<Presence> {
        self.presence.clone()
    }

    /// Waits for something to do.
    pub(super) fn wait(&self) -> Wait {
        self.presence.come();
        let wait = self.wait_present();
        self.presence.leave();
        wait
    }

    fn wait_present(&self) -> Wait {
        let mut roles = lock(&self.roles);
        loop {
            if roles.closed {
                if roles.sleepers > 0 {
                    self.kick(); // a kick wakes one
                }
                return Wait::Closed;
            }
            if !roles.ended.is_empty() {
                self.promote(&roles);
                return Wait::Ended(std::mem::take(&mut roles.ended));
            }
            if std::mem::take(&mut roles.connection) {
                self.promote(&roles);
                return Wait::Connection;
            }
            if !roles.looker {
                roles.looker = true;
                roles.habit.is_away = false;
                drop(roles);
                // Who has found nothing keeps the lock until it sleeps: a thread that looked in between and went away with
                // a request would have told the clients that nobody sleeps.
                roles = match self.look() {
                    Looked::Found(found) => return found,
                    Looked::Again => {
                        roles = lock(&self.roles);
                        continue;
                    }
                    Looked::Quiet(quiet) => quiet,
                };
                if !roles.mail.is_empty() || roles.closed || !roles.ended.is_empty() {
                    continue;
                }
            }
            if roles.sleepers == 0 || roles.sleepers < SLEEPERS_MAX && self.is_lonely() {
                let watch = roles.habit.is_brief();
                let tidy = (self.channels() > 0).then_some(TIDY_INTERVAL);
                let timeout = if watch { Some(WATCH_INTERVAL) } else { tidy };
                let unbounded = usize::from(timeout.is_none());
                roles.sleepers += 1;
                roles.unbounded += unbounded;
                roles.habit.watchers += usize::from(watch);
                drop(roles);
                let connection = self.sleep(timeout);
                roles = lock(&self.roles);
                roles.unbounded -= unbounded;
                if roles.looker && !connection {
                    // What woke this thread is for the one that looks, and goes on waking it until it is found. The one
                    // that looks may need this processor to find it.
                    drop(roles);
                    crate::look::give_way();
                    roles = lock(&self.roles);
                }
                roles.sleepers -= 1;
                roles.habit.watchers -= usize::from(watch);
                if connection {
                    let has_more = roles.closed || !roles.mail.is_empty() || !roles.ended.is_empty();
                    if has_more && roles.sleepers > 0 {
                        self.kick(); // this thread may have heard the kick as well, and comes back who knows when
                    }
                    self.promote(&roles);
                    return Wait::Connection;
                }
            } else {
                if roles.unbounded > 0 && self.channels() > 0 {
                    self.kick(); // now there is something to tidy up
                }
                roles.waiting += 1;
                roles = self.turn.wait(roles).unwrap_or_else(PoisonError::into_inner);
                roles.waiting -= 1;
            }
        }
    }

    /// Looks for a request as the one thread that does, and gives the role up.
    fn look(&self) -> Looked<'_> {
        let mut deck = lock(&self.deck);
        deck.look.slept(); // whoever looked last found nothing
        deck.wake_up();
        loop {
            if self.mail.load(Ordering::Relaxed) > 0 && !self.absorb(&mut deck) {
                lock(&self.roles).looker = false;
                return Looked::Again;
            }
            if let Some((served, request)) = self.scan(&mut deck) {
                deck.look.found();
                return self.leave(deck, served, request);
            }
            deck.looks += 1;
            // Looking for them costs system calls, which clients that share memory should not wait for each time.
            let their_turn = deck.channels.is_empty() || deck.looks >= LOOKS_PER_FLOWS;
            if their_turn {
                deck.looks = 0;
            }
            let flows = self.flows.get().filter(|flows| their_turn && flows.count() > 0);
            if let Some(incoming) = flows.and_then(Flows::poll) {
                deck.look.found();
                return self.leave_with(deck, incoming);
            }
            // With nobody to look at there is nothing to wait for here.
            let at = match deck.channels.is_empty() && flows.is_none() {
                true => now(),
                false => match deck.look.again() {
                    Next::Sleep(at) => at,
                    Next::Spun => continue,
                    Next::GaveWay(_) => {
                        deck.looks += LOOKS_PER_YIELD - 1;
                        continue;
                    }
                },
            };
            self.tidy(&mut deck, at);
            let mut roles = lock(&self.roles);
            if deck.fall_asleep() && roles.mail.is_empty() {
                roles.looker = false;
                roles.habit.quiet();
                return Looked::Quiet(roles);
            }
            drop(roles);
            deck.wake_up();
            deck.look.found();
        }
    }

    /// The thread that looked goes away with a request, or with one of which it has seen the beginning.
    fn leave(
        &self,
        deck: MutexGuard<'_, Deck>,
        mut served: Box<Served>,
        request: Option<Message>,
    ) -> Looked<'_> {
        let turn_over = self.depart(deck, Some(&mut served));
        let request = match request {
            Some(request) => Received::Request(request),
            None => served.pump(),
        };
        match request {
            Received::Request(request) => {
                self.end_turn(turn_over);
                served.since = Some(now());
                Looked::Found(Wait::Request(served, request))
            }
            Received::Nothing => {
                if let Err(served) = self.give_back(served) {
                    linger(vec![served]);
                }
                Looked::Again
            }
            Received::Over => {
                served.over();
                Looked::Again
            }
        }
    }

    /// The thread that looked goes away with a request that came over a flow.
    fn leave_with(&self, deck: MutexGuard<'_, Deck>, incoming: Incoming) -> Looked<'_> {
        let turn_over = self.depart(deck, None);
        self.end_turn(turn_over);
        Looked::Found(Wait::Flow(incoming))
    }

    /// Gives the role of looking up; if somebody sleeps and cannot rely on it that this thread is back at once, every client
    /// is told to ring, also that of the channel that is taken along. Whether it is time to look what the kernel has.
    fn depart(&self, mut deck: MutexGuard<'_, Deck>, along: Option<&mut Served>) -> bool {
        let mut roles = lock(&self.roles);
        let sleeper = roles.sleepers > 0;
        roles.habit.is_alone = deck.channels.is_empty();
        // How long requests of other hosts take is not known.
        roles.habit.is_away = along.is_some() && roles.habit.is_trusted();
        let tell = sleeper && !roles.habit.is_away;
        let watch = roles.habit.is_brief() && roles.habit.watchers == 0; // whoever sleeps is to watch from now on
        let kick = tell && (!deck.fall_asleep() || !roles.mail.is_empty() || watch);
        if let Some(served) = along.filter(|_| tell) {
            served.end.before_sleep();
        }
        deck.taken += 1;
        let turn_over = !sleeper && deck.taken.is_multiple_of(TURN);
        drop(deck);
        roles.looker = false;
        self.promote(&roles);
        drop(roles);
        if kick {
            self.kick();
        }
        turn_over
    }

    fn end_turn(&self, over: bool) {
        if over && self.sleep(Some(Duration::ZERO)) {
            let mut roles = lock(&self.roles);
            roles.connection = true;
            // Somebody may sleep or wait there since, who will not hear of it any more.
            self.promote(&roles);
            if roles.sleepers > 0 {
                self.kick();
            }
        }
    }

    /// Somebody is to take the role that becomes free.
    fn promote(&self, roles: &Roles) {
        if roles.waiting > 0 && roles.sleepers == 0 {
            self.turn.notify_one();
        }
    }

    /// The next channel that has something: a whole request, or the beginning of a large one.
    fn scan(&self, deck: &mut Deck) -> Option<(Box<Served>, Option<Message>)> {
        let (mut passed, mut somebody_is_expected) = (0, false);
        while passed < deck.channels.len() {
            let mut served = deck.channels.pop_front()?;
            if !served.end.is_ready() {
                somebody_is_expected |= deck.expects(&served);
                deck.channels.push_back(served);
                passed += 1;
                continue;
            }
            if served.round == deck.round {
                if somebody_is_expected && !std::mem::replace(&mut deck.has_given_way, true) {
                    deck.channels.push_front(served);
                    deck.channels.rotate_right(passed); // whoever comes now is before it
                    passed = 0;
                    give_way();
                    continue;
                }
                deck.begin_round();
            }
            (served.used, served.round) = (deck.time, deck.round);
            match served.step() {
                Some(Received::Request(request)) => return Some((served, Some(request))),
                None => return Some((served, None)),
                Some(Received::Nothing) => {
                    deck.channels.push_back(served);
                    passed += 1;
                }
                Some(Received::Over) => {
                    self.forget(&served);
                    lock(&self.roles).ended.push((served.session, served.id));
                }
            }
        }
        None
    }

    /// Takes the mail in; false when the listener was closed.
    fn absorb(&self, deck: &mut Deck) -> bool {
        let mail = {
            let mut roles = lock(&self.roles);
            self.mail.store(0, Ordering::Relaxed);
            if roles.closed {
                return false;
            }
            std::mem::take(&mut roles.mail)
        };
        let mut session = None;
        for mail in mail {
            match mail {
                Mail::Channel(mut served) if !served.line.is_over() => {
                    served.end.after_sleep();
                    served.used = deck.time;
                    deck.channels.push_back(served);
                }
                Mail::Channel(served) => self.forget(&served),
                Mail::Over(id) => {
                    let index = deck.channels.iter().position(|served| served.id == id);
                    if let Some(served) = index.and_then(|index| deck.channels.remove(index)) {
                        self.forget(&served);
                    }
                }
                Mail::Session(number) => session = Some(number),
            }
        }
        if let Some(session) = session {
            deck.channels.retain(|served| {
                let keep = served.session == session;
                if !keep {
                    self.forget(served);
                }
                keep
            });
        }
        true
    }

    /// Closes channels that nobody has used for long, and those whose clients hold things up.
    fn tidy(&self, deck: &mut Deck, at: amoeba_threads::Instant) {
        if deck.tidy_at.is_some_and(|tidy_at| at < tidy_at) {
            return;
        }
        deck.tidy_at = Some(at + TIDY_INTERVAL);
        deck.time += 1;
        let time = deck.time;
        let mut ended = Vec::new();
        deck.channels.retain(|served| {
            let stalled = !served.end.is_idle() && time - served.used > STALL_INTERVALS;
            if stalled {
                tracing::warn!("cutting off a client that neither sends nor takes what it began");
            }
            let keep = !stalled && time - served.used <= IDLE_INTERVALS;
            if !keep {
                self.forget(served);
                ended.push((served.session, served.id));
            }
            keep
        });
        lock(&self.roles).ended.extend(ended);
    }

    /// Sleeps until a bell rings, the kernel has something, or the time is over; with no time it only looks who rang. Whether
    /// the kernel has something.
    fn sleep(&self, timeout: Option<Duration>) -> bool {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        let wait = timeout != Some(Duration::ZERO);
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // A wait that a signal ends is one that ends early.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
        let (mut connection, mut swallowed) = (false, false);
        for event in events {
            match event.data.u64() {
                KICK if !wait => {} // it is for the thread that sleeps
                KICK => {
                    let _ = rustix::io::read(&self.kick, &mut [0; 8]); // somebody else may have been faster
                    // Behind the reading, or the next kick could be read here and never be told of. Whoever kicks from here
                    // on is heard anew; what others did before that is seen by this thread, which looks at everything now.
                    self.is_kicked.swap(false, Ordering::AcqRel);
                }
                CONNECTION => connection = true,
                FLOWS => {} // whoever looks next finds what it is
                id => {
                    swallowed = true;
                    let line = lock(&self.lines).get(&id).cloned();
                    if line.is_some_and(|line| line.hear()) {
                        self.post(&mut lock(&self.roles), Mail::Over(id));
                    }
                }
            }
        }
        if swallowed && !wait {
            self.kick(); // a bell rings once: meanwhile somebody may sleep who has to hear it
        }
        connection
    }

    fn post(&self, roles: &mut Roles, mail: Mail) {
        roles.mail.push(mail);
        self.mail.fetch_add(1, Ordering::Relaxed);
    }

    fn forget(&self, served: &Served) {
        lock(&self.lines).remove(&served.id);
        // It fails only for one that was forgotten before.
        let _ = epoll::delete(&self.epoll, &served.line.ear);
    }

    /// Wakes a thread that sleeps, unless one is being woken already.
    fn kick(&self) {
        if !self.is_kicked.swap(true, Ordering::AcqRel) {
            // It fails only when it has been kicked 2^64 times.
            let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
        }
    }
}

impl Deck {
    fn new() -> Deck {
        let look = Look::at_memory();
        Deck {
            channels: VecDeque::new(),
            looks: 0,
            round: 1,
            has_given_way: false,
            time: 0,
            tidy_at: None,
            taken: 0,
            is_asleep: false,
            look,
        }
    }

    /// Whether a client that has nothing now had something a moment ago, and may be about to ask again.
    fn expects(&self, served: &Served) -> bool {
        served.round + EXPECTED_ROUNDS > self.round
    }

    fn begin_round(&mut self) {
        self.round += 1;
        self.has_given_way = false;
    }

    /// Says for every channel that nobody looks; whether there is still nothing to do.
    fn fall_asleep(&mut self) -> bool {
        self.is_asleep = true;
        let mut quiet = true;
        for served in &mut self.channels {
            quiet &= served.end.before_sleep();
        }
        quiet
    }

    /// Somebody looks again.
    fn wake_up(&mut self) {
        if std::mem::take(&mut self.is_asleep) {
            self.channels.iter_mut().for_each(|served| served.end.after_sleep());
        }
    }
}

#[cfg(test)]
mod tests;
