//! The process server: the class `process` over the guests of one host.
//!
//! It makes no system call: [`Guests`] does. Its table lies in a `std` mutex that is held for moments and never while
//! something is sent, started, stopped or waited for.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use amoeba_cap::{Capability, CheckField, ObjectNumber, PutPort, Rights, ServerSecret};
use amoeba_server::{AnyObject, Call, Object, Objects, Pending};
use amoeba_stubs::process::{
    self, COMMENT_SIZE_MAX, ExitRecord, GetdefReply, GetloadClassicReply, HOST, KILL, LoadReply,
    ProcessRecord, READ, ReadLogReply, RunReply, WRITE,
};
use amoeba_wire::Status;
use amoeba_world::World;

use crate::owner::{self, Mailbox, Notice};
use crate::status::{BADARCH, NOHOST, NOLIMIT};
use crate::table::{
    Process, Starter, State, Table, WAITERS_MAX, exit_record, index_of, microseconds, object_of,
};
use crate::{
    ClassicHead, DescriptorError, Events, Exit, Guest, GuestError, Guests, ProcessDescriptor, Program, Spec,
    WindowSize,
};

/// All rights but HOST, the one that leads to the host's files.
pub const CONFINED: Rights = Rights::ALL.difference(HOST);
const SIGNAL_KILL: u8 = 9;
const SIGNAL_CONTINUE: u8 = 18;
const SIGNAL_MAX: u8 = 64;
/// Pages of 4 KiB in the 2^31 bytes that the original's 32-bit signed addresses reach.
const CLASSIC_LAST_PAGE: i32 = 1 << 19;

/// The process server of one host. Processes do not survive it, so neither do their capabilities.
pub struct ProcessServer {
    world: World,
    port: PutPort,
    secret: ServerSecret,
    random: CheckField,
    guests: Arc<dyn Guests>,
    table: Mutex<Table>,
    me: Weak<ProcessServer>,
}

impl ProcessServer {
    /// A server without processes, whose capabilities name `port`. `secret` and `random` protect them: `random` that
    /// of the server itself, which may be kept so that its super capability stays valid.
    pub fn new(
        world: World,
        port: PutPort,
        secret: ServerSecret,
        random: CheckField,
        guests: Arc<dyn Guests>,
    ) -> Arc<ProcessServer> {
        // Numbers begin anywhere: one that was written down in an earlier life of the server hardly names another process.
        let last = u16::from_le_bytes(amoeba_world::random(&*world.entropy));
        Arc::new_cyclic(|me| ProcessServer {
            world,
            port,
            secret,
            random,
            guests,
            table: Mutex::new(Table::after(last)),
            me: me.clone(),
        })
    }

    /// The capability of the server itself, with all rights.
    pub fn super_capability(&self) -> Capability {
        self.secret.capability(self.port, ObjectNumber::SUPER, Rights::ALL, self.random)
    }

    /// The capability of the server itself, with all rights but HOST: nobody comes by the host's files with it.
    pub fn confined_capability(&self) -> Capability {
        self.secret.capability(self.port, ObjectNumber::SUPER, CONFINED, self.random)
    }

    /// The decimal names and capabilities of the processes that have not ended, with these rights: the directory `ps`.
    /// Without HOST those that see the host's files are left out.
    pub fn running(&self, rights: Rights) -> Vec<(u16, Capability)> {
        let table = self.table();
        let live = table.iter().filter(|(_, process)| process.state != State::Exited);
        let named = live.filter(|(_, process)| process.is_for(rights));
        named.map(|(index, process)| (index, self.capability(index, process.random, rights))).collect()
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn capability(&self, index: u16, random: CheckField, rights: Rights) -> Capability {
        self.secret.capability(self.port, object_of(index), rights, random)
    }

    /// Runs `body` on a process of the table.
    fn with<T>(
        &self,
        object: ObjectNumber,
        body: impl FnOnce(&mut Process) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let index = index_of(object).ok_or(Status::STD_COMBAD)?;
        body(self.table().get_mut(index).ok_or(Status::STD_CAPBAD)?)
    }

    fn guest(&self, object: ObjectNumber) -> Result<Arc<dyn Guest>, Status> {
        self.with(object, |process| process.guest.clone().ok_or(Status::STD_NOTNOW))
    }
}

/// Starting.
impl ProcessServer {
    fn start(&self, rights: Rights, bytes: &[u8], starter: Starter) {
        let descriptor = match self.admit(rights, bytes) {
            Ok(descriptor) => descriptor,
            Err(status) => return starter.refuse(status),
        };
        let (index, mut descriptor) = match self.enter(descriptor, starter) {
            Ok(entered) => entered,
            Err((status, starter)) => return starter.refuse(status),
        };
        let process =
            self.table().get(index).map(|process| self.capability(index, process.random, Rights::ALL));
        descriptor.process = process.unwrap_or(Capability::NULL);
        if !descriptor.owner.is_null() && self.open_mailbox(index).is_err() {
            return self.refuse(index, Status::STD_NOMEM);
        }
        let events = Arc::new(GuestEvents { server: self.me.clone(), index });
        match self.guests.start(Spec { descriptor, index }, events) {
            Ok(guest) => {
                if let Some(process) = self.table().get_mut(index).filter(|process| process.exit.is_none()) {
                    process.guest = Some(guest);
                }
                self.answer_starter(index);
            }
            Err(error) => self.refuse(index, error.status()),
        }
    }

    /// The descriptor in `bytes`, if this host can execute it and `rights` let it.
    fn admit(&self, rights: Rights, bytes: &[u8]) -> Result<ProcessDescriptor, Status> {
        let descriptor = ProcessDescriptor::parse(bytes).map_err(|error| match error {
            DescriptorError::TooLarge => Status::STD_OVERFLOW,
            _ => Status::STD_ARGBAD,
        })?;
        let virgin = descriptor.segments.is_empty() && descriptor.threads.is_empty();
        let has_program = match &descriptor.program {
            Program::None => false,
            Program::HostPath(path) => !path.is_empty(),
            Program::File(file) => !file.is_null(),
        };
        if !virgin || !has_program || descriptor.arguments.is_empty() {
            return Err(Status::STD_ARGBAD);
        }
        if descriptor.view.is_host() && !rights.contains(HOST) {
            return Err(NOHOST);
        }
        let ours = descriptor.architecture.is_empty()
            || descriptor.architecture == self.guests.architecture().as_bytes();
        if !ours || !descriptor.options.iter().all(|option| self.guests.has_option(option)) {
            return Err(BADARCH);
        }
        let enforced = self.guests.enforced();
        if enforced.lacks(&descriptor.limits).is_some() {
            return Err(NOLIMIT);
        }
        Ok(descriptor)
    }

    /// Puts a new process into the table.
    #[allow(clippy::type_complexity)] // the two ways back of one call
    fn enter(
        &self,
        descriptor: ProcessDescriptor,
        starter: Starter,
    ) -> Result<(u16, ProcessDescriptor), (Status, Starter)> {
        let process = Process {
            random: CheckField::from_bytes(amoeba_world::random(&*self.world.entropy)),
            state: State::Starting,
            architecture: descriptor.architecture.clone(),
            owner: descriptor.owner,
            awaited: descriptor.awaited,
            detached: descriptor.detached,
            limits: descriptor.limits,
            network: descriptor.network,
            view: descriptor.view.number(),
            comment: descriptor.command_line(COMMENT_SIZE_MAX).into_bytes(),
            started_at: self.world.clock.unix_time(),
            ended_at: Default::default(),
            guest: None,
            exit: None,
            output_lost: None,
            starter: None,
            waiters: VecDeque::new(),
            mailbox: None,
            stuns: 0,
        };
        let mut table = self.table();
        let Ok(index) = table.insert(process) else { return Err((Status::STD_NOMEM, starter)) };
        table.get_mut(index).expect("it was inserted under this lock").starter = Some(starter);
        Ok((index, descriptor))
    }

    /// Answers exec once the program runs and the guest is at hand for whatever the client asks next, whichever of the
    /// two comes last; and run once the process has ended.
    fn answer_starter(&self, index: u16) {
        let mut table = self.table();
        let Some(process) = table.get_mut(index) else { return };
        let runs = process.state == State::Running && process.guest.is_some();
        let starter = process
            .starter
            .take_if(|starter| process.exit.is_some() || (runs && matches!(starter, Starter::Exec(_))));
        let capability = self.capability(index, process.random, Rights::ALL);
        let result = process.exit.as_ref().map(exit_record);
        drop(table);
        match (starter, result) {
            (Some(Starter::Exec(exec)), _) => exec.send(Ok(capability)),
            (Some(Starter::Run(run)), Some(result)) => run.send(Ok(RunReply { process: capability, result })),
            _ => {}
        }
    }

    /// The process never ran: who started it hears why, and nothing is remembered.
    fn refuse(&self, index: u16, status: Status) {
        let removed = self.table().remove(index);
        self.guests.forget(index);
        let Some(process) = removed else { return };
        if let Some(mailbox) = process.mailbox {
            // Ends the owner's thread: the process is no longer in the table, so nobody is told.
            mailbox.post(Notice::Exited(Exit::default()));
        }
        if let Some(starter) = process.starter {
            starter.refuse(status);
        }
    }

    /// Starts the thread of a process's owner, once.
    fn open_mailbox(&self, index: u16) -> Result<(), Status> {
        let mailbox = Mailbox::new(&self.world.threads);
        {
            let mut table = self.table();
            let process = table.get_mut(index).ok_or(Status::STD_NOTNOW)?;
            if process.mailbox.is_some() {
                return Ok(());
            }
            process.mailbox = Some(mailbox.clone());
        }
        let server = self.me.upgrade().expect("a server that serves is alive");
        let thread = self.world.threads.spawn("owner", move || owner::attend(&server, index, &mailbox));
        if thread.is_err() {
            if let Some(process) = self.table().get_mut(index) {
                process.mailbox = None;
            }
            return Err(Status::STD_NOMEM);
        }
        Ok(())
    }
}

/// What becomes of one guest.
struct GuestEvents {
    server: Weak<ProcessServer>,
    index: u16,
}

impl Events for GuestEvents {
    fn started(&self) {
        let Some(server) = self.server.upgrade() else { return };
        if let Some(process) = server.table().get_mut(self.index) {
            process.state = State::Running;
        }
        server.answer_starter(self.index);
    }

    fn output_lost(&self, reason: &str) {
        let Some(server) = self.server.upgrade() else { return };
        if let Some(process) = server.table().get_mut(self.index) {
            process.output_lost = Some(reason.into());
        }
    }

    fn exited(&self, exit: Exit) {
        if let Some(server) = self.server.upgrade() {
            server.exited(self.index, exit);
        }
    }
}

/// Ending, stunning, resuming.
impl ProcessServer {
    fn exited(&self, index: u16, exit: Exit) {
        let never_ran = self.table().get(index).is_some_and(|process| process.state == State::Starting);
        if never_ran {
            let status = if exit.status.is_error() { exit.status } else { Status::STD_SYSERR };
            return self.refuse(index, status);
        }
        let (waiters, mailbox, forgotten) = {
            let mut table = self.table();
            let Some(process) = table.get_mut(index).filter(|process| process.exit.is_none()) else { return };
            process.state = State::Exited;
            process.ended_at = self.world.clock.unix_time();
            process.guest = None;
            process.exit = Some(exit.clone());
            let waiters = std::mem::take(&mut process.waiters);
            let mailbox = process.mailbox.clone();
            (waiters, mailbox, table.remember(index))
        };
        if let Some(forgotten) = forgotten {
            self.guests.forget(forgotten);
        }
        self.answer_starter(index);
        for waiter in waiters {
            waiter.send(Ok(exit_record(&exit)));
        }
        if let Some(mailbox) = mailbox {
            mailbox.post(Notice::Exited(exit));
        }
    }

    fn stun_process(&self, object: ObjectNumber, code: i32) -> Result<(), Status> {
        let guest = self.with(object, |process| match process.state {
            State::Running => {
                let guest = process.guest.clone().ok_or(Status::STD_NOTNOW)?;
                process.state = State::Stunning;
                Ok(Some(guest))
            }
            // Emergency: the owner is told again, with the same standing process.
            State::Stunned if code < 0 => Ok(None),
            _ => Err(Status::STD_NOTNOW),
        })?;
        let frozen = guest.map_or(Ok(()), |guest| guest.freeze());
        let (mailbox, stun) = self.with(object, |process| {
            if process.state == State::Stunning {
                process.state = if frozen.is_ok() { State::Stunned } else { State::Running };
            }
            frozen.map_err(|error| error.status())?;
            if process.state != State::Stunned {
                return Err(Status::STD_NOTNOW);
            }
            process.stuns += 1;
            Ok((process.mailbox.clone(), process.stuns))
        })?;
        if let Some(mailbox) = mailbox {
            mailbox.post(Notice::Stunned(code, stun));
        }
        Ok(())
    }

    /// Resumes a process; when `stun` is given, only if that is still the latest stun.
    fn resume_process(&self, object: ObjectNumber, stun: Option<u64>) -> Result<(), Status> {
        let guest = self.with(object, |process| {
            if process.state != State::Stunned || stun.is_some_and(|stun| stun != process.stuns) {
                return Err(Status::STD_NOTNOW);
            }
            let guest = process.guest.clone().ok_or(Status::STD_NOTNOW)?;
            process.state = State::Resuming;
            Ok(guest)
        })?;
        let thawed = guest.thaw();
        self.with(object, |process| {
            if process.state == State::Resuming {
                process.state = if thawed.is_ok() { State::Running } else { State::Stunned };
            }
            thawed.map_err(|error| error.status())
        })
    }

    fn signal_process(&self, object: ObjectNumber, number: u8) -> Result<(), Status> {
        if !(1..=SIGNAL_MAX).contains(&number) {
            return Err(Status::STD_ARGBAD);
        }
        let stands_still =
            self.with(object, |process| Ok(matches!(process.state, State::Stunning | State::Stunned)))?;
        if stands_still && number == SIGNAL_CONTINUE {
            // It would run on behind the back of whoever stunned it.
            return Err(Status::STD_NOTNOW);
        }
        self.guest(object)?.signal(number).map_err(|error| error.status())
    }

    /// The owner of a process and its descriptor's head; `None` when the process is not known any more.
    pub(crate) fn owner_of(&self, index: u16) -> Option<(Capability, ClassicHead)> {
        let table = self.table();
        let process = table.get(index)?;
        let capability = self.capability(index, process.random, Rights::ALL);
        Some((process.owner, ClassicHead::new(&process.architecture, capability, process.owner)))
    }

    /// Whether the owner of a process is to be told of its end.
    pub(crate) fn tells_owner(&self, index: u16) -> bool {
        self.table().get(index).is_some_and(|process| !process.awaited)
    }

    /// Whether a process is to end when its owner is gone.
    pub(crate) fn needs_owner(&self, index: u16) -> bool {
        self.table().get(index).is_some_and(|process| !process.detached && process.exit.is_none())
    }

    /// The owner let a stunned process run on.
    pub(crate) fn resume_stun(&self, index: u16, stun: u64) {
        let _ = self.resume_process(object_of(index), Some(stun));
    }

    /// The owner gave a stunned process up.
    pub(crate) fn end_stun(&self, index: u16, stun: u64) {
        let still = self.table().get(index).is_some_and(|process| process.stuns == stun);
        if still {
            self.signal_quietly(index, SIGNAL_KILL);
        }
    }

    /// Sends a signal to a process that may have ended meanwhile.
    pub(crate) fn signal_quietly(&self, index: u16, number: u8) {
        let _ = self.signal_process(object_of(index), number);
    }

    fn record(&self, index: u16, process: &Process) -> ProcessRecord {
        let exit = process.exit.as_ref();
        ProcessRecord {
            index,
            state: process.state.number(),
            detached: process.detached,
            pid: 0,
            owned: !process.owner.is_null(),
            started_at: process.started_at.as_secs(),
            ended_at: process.ended_at.as_secs(),
            user_microseconds: exit.map_or(0, |exit| microseconds(exit.user_time)),
            system_microseconds: exit.map_or(0, |exit| microseconds(exit.system_time)),
            code: exit.map_or(0, |exit| exit.code),
            signal: exit.map_or(0, |exit| exit.signal),
            memory_limit: process.limits.memory,
            cpu_limit_thousandths: process.limits.cpu_thousandths,
            process_limit: process.limits.processes,
            network: process.network,
            view: process.view,
            comment: process.shown(),
        }
    }
}

impl Objects for ProcessServer {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        if object == ObjectNumber::SUPER {
            return Some(self.random);
        }
        self.table().get(index_of(object)?).map(|process| process.random)
    }

    fn info(&self, object: AnyObject) -> Result<String, Status> {
        if object.is_super() {
            return Ok("! process server".into());
        }
        self.with(object.number(), |process| Ok(format!("! {}", String::from_utf8_lossy(&process.comment))))
    }

    fn status(&self, object: AnyObject) -> Result<String, Status> {
        if object.is_super() {
            let load = self.guests.load();
            let (live, remembered) = {
                let table = self.table();
                (table.live(), table.remembered())
            };
            let cpus = load.cpus;
            return Ok(format!(
                "{}, {cpus} processors, load {:.2}\nmemory {} of {} MiB free\nprocesses {live}, ended and remembered {remembered}\n",
                self.guests.architecture(),
                load.load,
                load.memory_free >> 20,
                load.memory_total >> 20,
            ));
        }
        self.with(object.number(), |process| {
            let mut lines =
                format!("{}\n{}\n", String::from_utf8_lossy(&process.comment), process.state.name());
            if process.limits.any() {
                writeln!(lines, "limits {}", process.limits).expect("a String takes all");
            }
            if let Some(exit) = &process.exit {
                writeln!(lines, "exit code {}, signal {}", exit.code, exit.signal)
                    .expect("a String takes all");
            }
            if let Some(reason) = &process.output_lost {
                writeln!(lines, "output lost: {reason}").expect("a String takes all");
            }
            writeln!(lines, "waiting clients {}, stuns {}", process.waiters.len(), process.stuns)
                .expect("a String takes all");
            Ok(lines)
        })
    }

    /// Ends a process with everything it started; forgets one that has ended already.
    fn destroy(&self, _call: &Call, object: AnyObject) -> Result<(), Status> {
        let index = index_of(object.number()).ok_or(Status::STD_COMBAD)?;
        let has_ended = self.with(object.number(), |process| Ok(process.exit.is_some()))?;
        if has_ended {
            self.table().remove(index);
            self.guests.forget(index);
            return Ok(());
        }
        match self.guest(object.number())?.signal(SIGNAL_KILL) {
            Ok(()) | Err(GuestError::Gone) => Ok(()),
            Err(error) => Err(error.status()),
        }
    }
}

impl process::Serve for ProcessServer {
    fn stun(&self, _call: &Call, object: Object<{ KILL.bits() }>, code: i32) -> Result<(), Status> {
        self.stun_process(object.number(), code)
    }

    fn getowner(&self, _call: &Call, object: Object<{ READ.bits() }>) -> Result<Capability, Status> {
        self.with(object.number(), |process| Ok(process.owner))
    }

    fn setowner(
        &self,
        _call: &Call,
        object: Object<{ WRITE.bits() }>,
        owner: Capability,
    ) -> Result<(), Status> {
        let index = index_of(object.number()).ok_or(Status::STD_COMBAD)?;
        self.with(object.number(), |process| {
            if process.exit.is_some() {
                return Err(Status::STD_NOTNOW);
            }
            process.owner = owner;
            // It need not be the one that waits.
            process.awaited = false;
            Ok(())
        })?;
        if owner.is_null() { Ok(()) } else { self.open_mailbox(index) }
    }

    fn getdef(&self, _call: &Call, _object: Object<{ READ.bits() }>) -> Result<GetdefReply, Status> {
        Ok(GetdefReply { log2_page: 12, first_page: 1, last_page: CLASSIC_LAST_PAGE })
    }

    fn getload_classic(
        &self,
        _call: &Call,
        _object: Object<{ READ.bits() }>,
    ) -> Result<GetloadClassicReply, Status> {
        let load = self.guests.load();
        Ok(GetloadClassicReply {
            speed: u16::try_from(load.kips / 1024).unwrap_or(u16::MAX),
            load: (load.load * 1024.0) as u16, // a cast from float stops at the bounds
            memory_free: i32::try_from(load.memory_free).unwrap_or(i32::MAX),
        })
    }

    fn setcomment_classic(
        &self,
        call: &Call,
        object: Object<{ WRITE.bits() }>,
        comment: &[u8],
    ) -> Result<(), Status> {
        self.setcomment(call, object, comment)
    }

    fn getcomment_classic(&self, call: &Call, object: Object<{ READ.bits() }>) -> Result<Vec<u8>, Status> {
        let mut comment = self.getcomment(call, object)?;
        comment.truncate(process::CLASSIC_COMMENT_SIZE_MAX);
        Ok(comment)
    }

    fn exec(
        &self,
        _call: &Call,
        object: Object<{ process::EXEC.bits() }>,
        descriptor: Vec<u8>,
        pending: Pending<Capability>,
    ) {
        self.start(object.rights(), &descriptor, Starter::Exec(pending));
    }

    fn run(
        &self,
        _call: &Call,
        object: Object<{ process::EXEC.bits() }>,
        descriptor: Vec<u8>,
        pending: Pending<RunReply>,
    ) {
        self.start(object.rights(), &descriptor, Starter::Run(pending));
    }

    fn resume(&self, _call: &Call, object: Object<{ KILL.bits() }>) -> Result<(), Status> {
        self.resume_process(object.number(), None)
    }

    fn signal(&self, _call: &Call, object: Object<{ KILL.bits() }>, number: u8) -> Result<(), Status> {
        self.signal_process(object.number(), number)
    }

    fn wait(&self, _call: &Call, object: Object<{ READ.bits() }>, pending: Pending<ExitRecord>) {
        let mut pending = Some(pending);
        // Whose wait is over, and with what.
        let over = self.with(object.number(), |process| {
            if let Some(exit) = &process.exit {
                return Ok(pending.take().map(|pending| (pending, Ok(exit_record(exit)))));
            }
            let full = process.waiters.len() >= WAITERS_MAX;
            let oldest = if full { process.waiters.pop_front() } else { None };
            process.waiters.extend(pending.take());
            Ok(oldest.map(|oldest| (oldest, Err(Status::STD_NOSPACE))))
        });
        match (over, pending) {
            (Ok(Some((waiter, answer))), _) => waiter.send(answer),
            (Err(status), Some(pending)) => pending.send(Err(status)),
            _ => {}
        }
    }

    fn load(&self, _call: &Call, _object: Object<{ READ.bits() }>) -> Result<LoadReply, Status> {
        let load = self.guests.load();
        Ok(LoadReply {
            cpus: load.cpus,
            load_thousandths: (load.load * 1000.0) as u64,
            memory_free: load.memory_free,
            memory_total: load.memory_total,
            kips: load.kips,
            processes: u32::try_from(self.table().live()).unwrap_or(u32::MAX),
            architecture: self.guests.architecture().as_bytes().to_vec(),
            enforces: self.guests.enforced().bits(),
        })
    }

    fn processes(
        &self,
        _call: &Call,
        _object: Object<{ READ.bits() }>,
    ) -> Result<Vec<ProcessRecord>, Status> {
        let entries: Vec<_> = {
            let table = self.table();
            table
                .iter()
                .map(|(index, process)| (self.record(index, process), process.guest.clone()))
                .collect()
        };
        let records = entries.into_iter().map(|(mut record, guest)| {
            if let Some(guest) = guest {
                let (user, system) = guest.times();
                record.pid = guest.pid();
                record.user_microseconds = microseconds(user);
                record.system_microseconds = microseconds(system);
            }
            record
        });
        Ok(records.collect())
    }

    fn lookup_process(&self, _call: &Call, object: Object<0>, index: u16) -> Result<Capability, Status> {
        let table = self.table();
        let process = table.get(index).ok_or(Status::STD_NOTFOUND)?;
        if !process.is_for(object.rights()) {
            return Err(Status::STD_DENIED);
        }
        Ok(self.capability(index, process.random, object.rights()))
    }

    fn read_log(
        &self,
        _call: &Call,
        object: Object<{ READ.bits() }>,
        offset: u64,
        size: u32,
    ) -> Result<ReadLogReply, Status> {
        let index = index_of(object.number()).ok_or(Status::STD_COMBAD)?;
        let size = size.min(process::LOG_READ_MAX as u32);
        let (data, end) = self.guests.read_log(index, offset, size);
        Ok(ReadLogReply { end, data })
    }

    fn resize(
        &self,
        _call: &Call,
        object: Object<{ WRITE.bits() }>,
        rows: u16,
        columns: u16,
    ) -> Result<(), Status> {
        self.guest(object.number())?.resize(WindowSize { rows, columns }).map_err(|error| error.status())
    }

    fn setcomment(
        &self,
        _call: &Call,
        object: Object<{ WRITE.bits() }>,
        comment: &[u8],
    ) -> Result<(), Status> {
        self.with(object.number(), |process| {
            process.comment = comment.to_vec();
            Ok(())
        })
    }

    fn getcomment(&self, _call: &Call, object: Object<{ READ.bits() }>) -> Result<Vec<u8>, Status> {
        self.with(object.number(), |process| Ok(process.comment.clone()))
    }
}
