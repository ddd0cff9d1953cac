//! The operations of class `pool`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{CheckField, ObjectNumber, PutPort, ServerSecret};
use amoeba_place::{Choice, Decision, ENABLE, Need, Record, State, choose};
use amoeba_server::{AnyObject, Call, Object, Objects, Parameter};
use amoeba_stubs::pool::{
    self, FIND_MAX, FINDHOST, FindHostReply, HOST, HostRecord, NOPOOLDIR, Place, REASON_SIZE_MAX, STATE_DOWN,
    STATE_NEW, STATE_SILENT, STATE_UP, STATUS, WHY_SIZE_MAX,
};
use amoeba_threads::Instant;
use amoeba_wire::Status;

use crate::confined::Confined;
use crate::pollers::{Pool, Shared, status};
use crate::start::PERMANENT;

/// The run server: one object, itself.
pub(crate) struct RunServer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) secret: ServerSecret,
    pub(crate) confined: Confined,
}

impl Objects for RunServer {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == ObjectNumber::SUPER).then_some(PERMANENT)
    }

    fn info(&self, _: AnyObject) -> Result<String, Status> {
        Ok("run server".to_owned())
    }

    fn status(&self, _: AnyObject) -> Result<String, Status> {
        let now = self.shared.now();
        let pool = self.shared.pool.lock();
        let mut text = String::new();
        report(&pool, now, &mut text).expect("writing to a String does not fail");
        Ok(text)
    }

    fn parameters(&self, _: AnyObject) -> Result<Vec<Parameter>, Status> {
        let pool = self.shared.pool.lock();
        let records = pool.roster.records(self.shared.now());
        let architectures = records.iter().map(|record| record.machine.architecture.as_str());
        let described = pool.parameters.describe(architectures.filter(|name| !name.is_empty()));
        let parameter = |described: amoeba_place::Described| Parameter {
            name: described.name,
            kind: described.kind,
            description: described.description.to_owned(),
            value: described.value.to_string(),
        };
        Ok(described.into_iter().map(parameter).collect())
    }

    fn set_parameter(&self, _: AnyObject, name: &[u8], value: &[u8]) -> Result<(), Status> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Status::STD_ARGBAD);
        let (name, value) = (text(name)?, text(value)?);
        self.shared.pool.lock().parameters.set(name, value).map_err(|_| Status::STD_ARGBAD)
    }
}

impl pool::Serve for RunServer {
    fn find_host(
        &self,
        _: &Call,
        object: Object<{ FINDHOST.bits() }>,
        need: pool::Need,
        count: u32,
    ) -> Result<FindHostReply, Status> {
        let need = Need::from_record(need).map_err(|_| Status::STD_ARGBAD)?;
        if count == 0 || usize::try_from(count).is_ok_and(|count| count > FIND_MAX) {
            return Err(Status::STD_ARGBAD);
        }
        let mut pool = self.shared.settled()?;
        if pool.parameters.enable == 0 {
            return Err(Status::STD_NOTNOW);
        }
        let candidates = pool.roster.candidates(&need, self.shared.now());
        let entropy = self.shared.world.entropy.clone();
        let mut random = || u64::from_le_bytes(amoeba_world::random(&*entropy));
        let Choice { hosts, decision } = choose(&candidates, &need, count, &pool.parameters, &mut random);
        pool.roster.decided(&decision);
        let place = |host: Arc<str>| {
            let server = pool.roster.server(&host).expect("only hosts that have answered are chosen");
            Place { host: host.as_bytes().to_vec(), server }
        };
        let places: Vec<Place> = hosts.into_iter().map(place).collect();
        if places.is_empty() && candidates.iter().any(|candidate| candidate.state == State::New) {
            return Err(NOPOOLDIR); // this server has just started and knows too little to refuse: its client places by itself
        }
        let refusal = if places.is_empty() { text_of(&decision) } else { Vec::new() };
        let decision = pool.decisions.remember(decision);
        drop(pool);
        let places = if object.rights().contains(HOST) { places } else { self.confine(places)? };
        Ok(FindHostReply { decision, places, refusal })
    }

    fn why(&self, _: &Call, _: Object<{ STATUS.bits() }>, decision: u64) -> Result<Vec<u8>, Status> {
        let pool = self.shared.pool.lock();
        pool.decisions.get(decision).map(text_of).ok_or(Status::STD_NOTFOUND)
    }

    fn note(
        &self,
        _: &Call,
        _: Object<{ FINDHOST.bits() }>,
        decision: u64,
        server: PutPort,
        number: u32,
    ) -> Result<(), Status> {
        let noted = self.shared.pool.lock().decisions.note(decision, (server, number));
        if noted { Ok(()) } else { Err(Status::STD_NOTFOUND) }
    }

    fn why_process(
        &self,
        _: &Call,
        _: Object<{ STATUS.bits() }>,
        server: PutPort,
        number: u32,
    ) -> Result<Vec<u8>, Status> {
        let pool = self.shared.pool.lock();
        pool.decisions.of_process((server, number)).map(text_of).ok_or(Status::STD_NOTFOUND)
    }

    fn hosts(&self, _: &Call, _: Object<{ STATUS.bits() }>) -> Result<Vec<HostRecord>, Status> {
        let pool = self.shared.settled()?;
        let (now, unix) = (self.shared.now(), self.shared.world.clock.unix_time());
        let records = pool.roster.records(now);
        Ok(records.into_iter().map(|record| host_record(record, now, unix)).collect())
    }

    fn rescan(&self, _: &Call, _: Object<{ FINDHOST.bits() }>) -> Result<(), Status> {
        self.shared.scan().map_err(|problem| status(&problem))?;
        self.shared.pool.lock().roster.hurry(self.shared.now());
        self.shared.work.notify_all();
        Ok(())
    }

    fn doubt(&self, _: &Call, _: Object<{ FINDHOST.bits() }>, host: &[u8]) -> Result<(), Status> {
        let host = std::str::from_utf8(host).map_err(|_| Status::STD_NOTFOUND)?;
        if !self.shared.pool.lock().roster.doubt(host, self.shared.now()) {
            return Err(Status::STD_NOTFOUND);
        }
        self.shared.work.notify_all();
        Ok(())
    }

    fn ended(
        &self,
        _: &Call,
        _: Object<{ FINDHOST.bits() }>,
        decision: u64,
        host: &[u8],
        count: u32,
    ) -> Result<(), Status> {
        let host = std::str::from_utf8(host).map_err(|_| Status::STD_NOTFOUND)?;
        let now = self.shared.now();
        let mut pool = self.shared.pool.lock();
        let Pool { roster, decisions, .. } = &mut *pool;
        let decision = decisions.get_mut(decision).ok_or(Status::STD_NOTFOUND)?;
        if roster.ended(decision, host, count, now) { Ok(()) } else { Err(Status::STD_NOTFOUND) }
    }
}

impl RunServer {
    /// The same places for who may have no processes see hosts' files. One whose host has just stopped answering is left out.
    fn confine(&self, places: Vec<Place>) -> Result<Vec<Place>, Status> {
        let wanted = places.len();
        let confined = |place: Place| {
            let server = self.confined.of(place.server).ok()?;
            Some(Place { server, ..place })
        };
        let places: Vec<Place> = places.into_iter().filter_map(confined).collect();
        // Its client places by itself then.
        if places.is_empty() && wanted > 0 { Err(NOPOOLDIR) } else { Ok(places) }
    }
}

fn text_of(decision: &Decision) -> Vec<u8> {
    cut(decision.to_string(), WHY_SIZE_MAX).into_bytes()
}

/// At most so many bytes of a text.
fn cut(mut text: String, size_max: usize) -> String {
    if text.len() > size_max {
        text.truncate(text.floor_char_boundary(size_max));
    }
    text
}

fn host_record(record: Record, now: Instant, unix: Duration) -> HostRecord {
    let seconds = |instant: Instant| unix.saturating_sub(now.since(instant)).as_secs();
    let (state, reason) = match record.state {
        State::New => (STATE_NEW, String::new()),
        State::Up => (STATE_UP, String::new()),
        State::Silent(time) => (STATE_SILENT, format!("asked {} s ago", time.as_secs())),
        State::Doubted => (STATE_SILENT, "somebody could not reach it".to_owned()),
        State::Down { why, .. } => (STATE_DOWN, why),
    };
    HostRecord {
        name: record.name.as_bytes().to_vec(),
        state,
        since: seconds(record.since),
        reason: cut(reason, REASON_SIZE_MAX).into_bytes(),
        architecture: record.machine.architecture.as_bytes().to_vec(),
        cpus: record.machine.cpus,
        kips: record.machine.kips,
        load_thousandths: (record.load * 1000.0) as u64,
        placed_thousandths: (record.placed * 1000.0) as u64,
        memory_free: record.memory_free,
        memory_total: record.machine.memory_total,
        processes: record.processes,
        answered: record.answered.map_or(0, seconds),
        polls: record.polls,
        considered: record.considered,
        chosen: record.chosen,
    }
}

/// The status: a table like the original's, times as seconds before now.
fn report(pool: &Pool, now: Instant, out: &mut String) -> std::fmt::Result {
    let records = pool.roster.records(now);
    write!(out, "{} hosts, {} decisions remembered, pool directory ", records.len(), pool.decisions.len())?;
    match pool.read {
        Some(read) => write!(out, "read {} s ago", now.since(read).as_secs())?,
        None => write!(out, "not read yet")?,
    }
    if let Some(problem) = pool.problem {
        write!(out, ", last problem: {problem}")?;
    }
    if pool.left_out > 0 {
        write!(out, ", {} hosts too many left out", pool.left_out)?;
    }
    if pool.parameters.enable == 0 {
        write!(out, ", switched off by {ENABLE}")?;
    }
    let width = records.iter().map(|record| record.name.chars().count()).max().unwrap_or(0).max(4);
    writeln!(out)?;
    writeln!(out, "{:width$}  STAT    SINCE  LREPL  NPOLL  NBEST  NCONS   MIPS   NRUN   MBYTE", "HOST")?;
    for record in records {
        let state = match record.state {
            State::New => "new",
            State::Up => "up",
            State::Silent(_) => "silent",
            State::Doubted => "doubt",
            State::Down { .. } => "down",
        };
        let since = now.since(record.since).as_secs();
        let replied =
            record.answered.map_or("-".to_owned(), |answered| now.since(answered).as_secs().to_string());
        let (mips, megabytes) = (record.machine.kips / 1000, record.memory_free >> 20);
        writeln!(
            out,
            "{:width$}  {state:6}  {since:5}  {replied:>5}  {:5}  {:5}  {:5}  {mips:5}  {:5.2}  {megabytes:6}",
            record.name, record.polls, record.chosen, record.considered, record.load
        )?;
    }
    Ok(())
}
