// Generated from idl/pool.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Have hosts chosen.
pub const FINDHOST: rt::Rights = rt::Rights::from_bits_retain(0x02);
/// See hosts, decisions and parameters.
pub const STATUS: rt::Rights = rt::Rights::from_bits_retain(0x04);
/// Have process servers with the right to start processes that see the host's files.
pub const HOST: rt::Rights = rt::Rights::from_bits_retain(0x08);
/// Set parameters.
pub const ADMIN: rt::Rights = rt::Rights::from_bits_retain(0x80);
/// Bytes of a host's name in the pool directory.
pub const NAME_MAX: usize = 255;
/// Bytes of an architecture's name, and of an option of a CPU.
pub const ARCHITECTURE_SIZE_MAX: usize = 32;
/// Options of a CPU that one program needs.
pub const OPTIONS_MAX: usize = 32;
/// Hosts that a request may name as wanted, or as unwanted.
pub const WISHES_MAX: usize = 64;
/// Hosts of a pool.
pub const HOSTS_MAX: usize = 256;
/// Processes that one decision can place.
pub const FIND_MAX: usize = 1024;
/// Bytes of the text that explains a decision.
pub const WHY_SIZE_MAX: usize = 131072;
/// Bytes of the sentence that says why a host is down.
pub const REASON_SIZE_MAX: usize = 255;
/// It was not asked yet.
pub const STATE_NEW: u8 = 0;
/// It answers.
pub const STATE_UP: u8 = 1;
/// It was asked a while ago and did not answer yet, or somebody could not reach it.
pub const STATE_SILENT: u8 = 2;
/// It does not answer.
pub const STATE_DOWN: u8 = 3;
/// the pool directory cannot be reached
pub const NOPOOLDIR: rt::Status = rt::Status(-3002);
/// the pool directory is not a directory
pub const BADPOOLDIR: rt::Status = rt::Status(-3003);
/// The command of [`find_host()`].
pub const CMD_FIND_HOST: rt::Command = rt::Command(3050);
/// The command of [`why()`].
pub const CMD_WHY: rt::Command = rt::Command(3051);
/// The command of [`note()`].
pub const CMD_NOTE: rt::Command = rt::Command(3052);
/// The command of [`why_process()`].
pub const CMD_WHY_PROCESS: rt::Command = rt::Command(3053);
/// The command of [`hosts()`].
pub const CMD_HOSTS: rt::Command = rt::Command(3054);
/// The command of [`rescan()`].
pub const CMD_RESCAN: rt::Command = rt::Command(3055);
/// The command of [`doubt()`].
pub const CMD_DOUBT: rt::Command = rt::Command(3056);
/// The command of [`ended()`].
pub const CMD_ENDED: rt::Command = rt::Command(3057);

/// What is known of a process before it runs. Zero, empty: not known, or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// The CPU type and system it is built for, as in `x86_64-linux`; empty: any.
    pub architecture: Vec<u8>,
    /// Options the CPU must have.
    pub options: Vec<Vec<u8>>,
    /// Bytes of memory it will use.
    pub memory: u64,
    /// Limits that its host must enforce: bits, as class process has them (ENFORCES_MEMORY and so on).
    pub limits: u8,
    /// Eight bytes that are the same whenever the program is the same, never a part of a capability; zeros:
    /// no telling.
    pub program: [u8; 8],
    /// Bytes of the program and of what it always reads, if they must be fetched; a host keeps them.
    pub text: u64,
    /// Whether they lie on the client's own host, and need not be fetched to that one.
    pub text_here: bool,
    /// Bytes of files that must be brought to any host but the client's.
    pub ship: u64,
    /// How long it would run on an idle host.
    pub work_milliseconds: u32,
    /// The client's own host.
    pub here: Vec<u8>,
    /// Processes that run on the client's own host now, as the client counts them: its load is taken to be
    /// no less. Unless it is 0, the client counts what is placed there, too.
    pub busy: u32,
    /// If there are any: one of these hosts.
    pub only: Vec<Vec<u8>>,
    /// None of these hosts.
    pub avoid: Vec<Vec<u8>>,
}

impl rt::Marshal for Need {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.architecture, 32)?;
        rt::put_count(writer_, self.options.len(), 32)?;
        for item_ in &self.options {
            rt::put_string(writer_, item_, 32)?;
        }
        writer_.put_u64(self.memory);
        writer_.put_u8(self.limits);
        writer_.raw(&self.program);
        writer_.put_u64(self.text);
        writer_.put_bool(self.text_here);
        writer_.put_u64(self.ship);
        writer_.put_u32(self.work_milliseconds);
        rt::put_string(writer_, &self.here, 255)?;
        writer_.put_u32(self.busy);
        rt::put_count(writer_, self.only.len(), 64)?;
        for item_ in &self.only {
            rt::put_string(writer_, item_, 255)?;
        }
        rt::put_count(writer_, self.avoid.len(), 64)?;
        for item_ in &self.avoid {
            rt::put_string(writer_, item_, 255)?;
        }
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let architecture = reader_.get_string(32).map(<[u8]>::to_vec)?;
        let options = rt::get_list(reader_, 32, |reader_| reader_.get_string(32).map(<[u8]>::to_vec))?;
        let memory = reader_.get_u64()?;
        let limits = reader_.get_u8()?;
        let program = reader_.array::<8>()?;
        let text = reader_.get_u64()?;
        let text_here = reader_.get_bool()?;
        let ship = reader_.get_u64()?;
        let work_milliseconds = reader_.get_u32()?;
        let here = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let busy = reader_.get_u32()?;
        let only = rt::get_list(reader_, 64, |reader_| reader_.get_string(255).map(<[u8]>::to_vec))?;
        let avoid = rt::get_list(reader_, 64, |reader_| reader_.get_string(255).map(<[u8]>::to_vec))?;
        Ok(Need {
            architecture,
            options,
            memory,
            limits,
            program,
            text,
            text_here,
            ship,
            work_milliseconds,
            here,
            busy,
            only,
            avoid,
        })
    }
}

/// A host for a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Its name in the pool directory.
    pub host: Vec<u8>,
    /// Its process server, with the rights to start processes and to look; those that see the host's files
    /// only for who has HOST.
    pub server: rt::Capability,
}

impl rt::Marshal for Place {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.host, 255)?;
        writer_.put_cap(&self.server);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let host = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let server = reader_.get_cap()?;
        Ok(Place { host, server })
    }
}

/// A host of the pool.
#[derive(Clone, Debug, PartialEq)]
pub struct HostRecord {
    /// Its name in the pool directory.
    pub name: Vec<u8>,
    /// One of STATE_NEW to STATE_DOWN.
    pub state: u8,
    /// Since when: seconds since 1970.
    pub since: u64,
    /// Why it is down or silent.
    pub reason: Vec<u8>,
    /// What it executes.
    pub architecture: Vec<u8>,
    /// Its processors.
    pub cpus: u32,
    /// Thousands of instructions a second of one processor.
    pub kips: u32,
    /// Runnable processes times 1000, as it last said.
    pub load_thousandths: u64,
    /// What this run server adds to that for processes it has placed since, times 1000.
    pub placed_thousandths: u64,
    /// Bytes.
    pub memory_free: u64,
    /// Bytes.
    pub memory_total: u64,
    /// Its guests.
    pub processes: u32,
    /// When it last answered: seconds since 1970; 0 for never.
    pub answered: u64,
    /// How often it was asked.
    pub polls: u64,
    /// Decisions in which it could have been chosen.
    pub considered: u64,
    /// Processes placed on it.
    pub chosen: u64,
}

impl rt::Marshal for HostRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.name, 255)?;
        writer_.put_u8(self.state);
        writer_.put_u64(self.since);
        rt::put_string(writer_, &self.reason, 255)?;
        rt::put_string(writer_, &self.architecture, 32)?;
        writer_.put_u32(self.cpus);
        writer_.put_u32(self.kips);
        writer_.put_u64(self.load_thousandths);
        writer_.put_u64(self.placed_thousandths);
        writer_.put_u64(self.memory_free);
        writer_.put_u64(self.memory_total);
        writer_.put_u32(self.processes);
        writer_.put_u64(self.answered);
        writer_.put_u64(self.polls);
        writer_.put_u64(self.considered);
        writer_.put_u64(self.chosen);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let state = reader_.get_u8()?;
        let since = reader_.get_u64()?;
        let reason = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let architecture = reader_.get_string(32).map(<[u8]>::to_vec)?;
        let cpus = reader_.get_u32()?;
        let kips = reader_.get_u32()?;
        let load_thousandths = reader_.get_u64()?;
        let placed_thousandths = reader_.get_u64()?;
        let memory_free = reader_.get_u64()?;
        let memory_total = reader_.get_u64()?;
        let processes = reader_.get_u32()?;
        let answered = reader_.get_u64()?;
        let polls = reader_.get_u64()?;
        let considered = reader_.get_u64()?;
        let chosen = reader_.get_u64()?;
        Ok(HostRecord {
            name,
            state,
            since,
            reason,
            architecture,
            cpus,
            kips,
            load_thousandths,
            placed_thousandths,
            memory_free,
            memory_total,
            processes,
            answered,
            polls,
            considered,
            chosen,
        })
    }
}

/// What [`find_host()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct FindHostReply {
    /// Its number, for `why` and `note`.
    pub decision: u64,
    /// One for each process; fewer when the pool has no memory for more, none when no host can take any.
    pub places: Vec<Place>,
    /// Why there are none.
    pub refusal: Vec<u8>,
}

/// Chooses hosts. It is a hint: the process server decides. STD_NOTNOW: the pool is switched off
/// (ENABLE).
///
/// - `count`: Processes to be placed, 1 to FIND_MAX.
///
/// # Rights
/// `FINDHOST`.
pub fn find_host<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    need: &Need,
    count: u32,
) -> Result<FindHostReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_FIND_HOST);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::Marshal::put(need, writer_)?;
    writer_.put_u32(count);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 409613, false)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let decision = reader_.get_u64()?;
    let places = rt::get_list(reader_, 1024, <Place as rt::Marshal>::get)?;
    let refusal = reader_.get_string(131072).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(FindHostReply { decision, places, refusal })
}

/// How a decision came about: candidates, scores, and why other hosts were refused. The last 1000
/// decisions are remembered, by the copy of the server that took them; STD_NOTFOUND for others.
///
/// # Rights
/// `STATUS`.
pub fn why<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    decision: u64,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_WHY);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(decision);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 131072, true)?;
    let text = rt::rest(data_, 0, 131072)?;
    Ok(text)
}

/// Says which process came of a decision, so that it can be explained by its process.
///
/// - `server`: Of the process's capability.
/// - `number`: Of the process's capability.
///
/// # Rights
/// `FINDHOST`.
pub fn note<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    decision: u64,
    server: rt::PutPort,
    number: u32,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_NOTE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(decision);
    writer_.put_port(&server);
    writer_.put_u32(number);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// As `why`, of the decision that a process came of. STD_NOTFOUND when nobody said.
///
/// # Rights
/// `STATUS`.
pub fn why_process<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    server: rt::PutPort,
    number: u32,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_WHY_PROCESS);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_port(&server);
    writer_.put_u32(number);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 131072, true)?;
    let text = rt::rest(data_, 0, 131072)?;
    Ok(text)
}

/// Every host of the pool, by name.
///
/// # Rights
/// `STATUS`.
pub fn hosts<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<Vec<HostRecord>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_HOSTS);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 161284, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let hosts = rt::get_list(reader_, 256, <HostRecord as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(hosts)
}

/// Reads the pool directory again now, and asks hosts that are down again soon. NOPOOLDIR, BADPOOLDIR:
/// it cannot be read.
///
/// # Rights
/// `FINDHOST`.
pub fn rescan<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RESCAN);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// The client could not reach a host: it is asked at once, and not chosen before it has answered.
/// STD_NOTFOUND: no such host.
///
/// # Rights
/// `FINDHOST`.
pub fn doubt<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    host: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_DOUBT);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, host, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Processes that a decision placed on this host have ended, so that they no longer count as placed
/// there. Many short ones are then spread as evenly as long ones. STD_NOTFOUND: the decision is
/// forgotten, or placed no more there.
///
/// - `count`: Processes.
///
/// # Rights
/// `FINDHOST`.
pub fn ended<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    decision: u64,
    host: &[u8],
    count: u32,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_ENDED);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(decision);
    rt::put_string(writer_, host, 255)?;
    writer_.put_u32(count);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// The standard operations this class offers.
pub const STANDARD: &[rt::Standard] = &[
    // age
    rt::Standard {
        command: rt::Command(1001),
        rights: rt::Rights::from_bits_retain(0xff),
        on: rt::On::Super,
    },
    // copy
    rt::Standard { command: rt::Command(1002), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // destroy
    rt::Standard { command: rt::Command(1003), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // info
    rt::Standard { command: rt::Command(1004), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // restrict
    rt::Standard { command: rt::Command(1005), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // status
    rt::Standard { command: rt::Command(1006), rights: rt::Rights::from_bits_retain(0x04), on: rt::On::Any },
    // touch
    rt::Standard { command: rt::Command(1007), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // getparams
    rt::Standard {
        command: rt::Command(1008),
        rights: rt::Rights::from_bits_retain(0x04),
        on: rt::On::Super,
    },
    // setparams
    rt::Standard {
        command: rt::Command(1009),
        rights: rt::Rights::from_bits_retain(0x80),
        on: rt::On::Super,
    },
    // ntouch
    rt::Standard { command: rt::Command(1010), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
];

/// The most bytes of data in any request: what to listen with.
pub const REQUEST_SIZE_MAX: usize = 34171;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// Chooses hosts. It is a hint: the process server decides. STD_NOTNOW: the pool is switched off
    /// (ENABLE).
    ///
    /// # Rights
    /// `FINDHOST`.
    fn find_host(
        &self,
        call: &rt::Call,
        object: rt::Object<{ FINDHOST.bits() }>,
        need: Need,
        count: u32,
    ) -> Result<FindHostReply, rt::Status>;
    /// How a decision came about: candidates, scores, and why other hosts were refused. The last 1000
    /// decisions are remembered, by the copy of the server that took them; STD_NOTFOUND for others.
    ///
    /// # Rights
    /// `STATUS`.
    fn why(
        &self,
        call: &rt::Call,
        object: rt::Object<{ STATUS.bits() }>,
        decision: u64,
    ) -> Result<Vec<u8>, rt::Status>;
    /// Says which process came of a decision, so that it can be explained by its process.
    ///
    /// # Rights
    /// `FINDHOST`.
    fn note(
        &self,
        call: &rt::Call,
        object: rt::Object<{ FINDHOST.bits() }>,
        decision: u64,
        server: rt::PutPort,
        number: u32,
    ) -> Result<(), rt::Status>;
    /// As `why`, of the decision that a process came of. STD_NOTFOUND when nobody said.
    ///
    /// # Rights
    /// `STATUS`.
    fn why_process(
        &self,
        call: &rt::Call,
        object: rt::Object<{ STATUS.bits() }>,
        server: rt::PutPort,
        number: u32,
    ) -> Result<Vec<u8>, rt::Status>;
    /// Every host of the pool, by name.
    ///
    /// # Rights
    /// `STATUS`.
    fn hosts(
        &self,
        call: &rt::Call,
        object: rt::Object<{ STATUS.bits() }>,
    ) -> Result<Vec<HostRecord>, rt::Status>;
    /// Reads the pool directory again now, and asks hosts that are down again soon. NOPOOLDIR, BADPOOLDIR:
    /// it cannot be read.
    ///
    /// # Rights
    /// `FINDHOST`.
    fn rescan(&self, call: &rt::Call, object: rt::Object<{ FINDHOST.bits() }>) -> Result<(), rt::Status>;
    /// The client could not reach a host: it is asked at once, and not chosen before it has answered.
    /// STD_NOTFOUND: no such host.
    ///
    /// # Rights
    /// `FINDHOST`.
    fn doubt(
        &self,
        call: &rt::Call,
        object: rt::Object<{ FINDHOST.bits() }>,
        host: &[u8],
    ) -> Result<(), rt::Status>;
    /// Processes that a decision placed on this host have ended, so that they no longer count as placed
    /// there. Many short ones are then spread as evenly as long ones. STD_NOTFOUND: the decision is
    /// forgotten, or placed no more there.
    ///
    /// # Rights
    /// `FINDHOST`.
    fn ended(
        &self,
        call: &rt::Call,
        object: rt::Object<{ FINDHOST.bits() }>,
        decision: u64,
        host: &[u8],
        count: u32,
    ) -> Result<(), rt::Status>;
}

/// A server of this class as the skeleton sees it.
pub struct Service<S>(pub std::sync::Arc<S>);

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Service(self.0.clone())
    }
}

impl<S: Serve> rt::Service for Service<S> {
    fn objects(&self) -> &dyn rt::Objects {
        &*self.0
    }

    fn standard(&self, command: rt::Command) -> Option<rt::Standard> {
        rt::Standard::find(STANDARD, command)
    }

    fn dispatch(&self, request: rt::Request) -> Option<rt::Request> {
        let server = &*self.0;
        match request.command().0 {
            3050 => request.answer(|call, header, data| serve_find_host(server, call, header, data)),
            3051 => request.answer(|call, header, data| serve_why(server, call, header, data)),
            3052 => request.answer(|call, header, data| serve_note(server, call, header, data)),
            3053 => request.answer(|call, header, data| serve_why_process(server, call, header, data)),
            3054 => request.answer(|call, header, data| serve_hosts(server, call, header, data)),
            3055 => request.answer(|call, header, data| serve_rescan(server, call, header, data)),
            3056 => request.answer(|call, header, data| serve_doubt(server, call, header, data)),
            3057 => request.answer(|call, header, data| serve_ended(server, call, header, data)),
            _ => return Some(request),
        }
        None
    }
}

/// Serves requests for `server` on `threads` threads until the listener is closed.
///
/// # Errors
/// The world has no room for the threads; nothing is served.
pub fn serve<S: Serve + 'static>(
    world: &rt::World,
    listener: rt::Listener,
    server: std::sync::Arc<S>,
    threads: usize,
) -> Result<(), rt::SpawnError> {
    start(world, listener, server, threads).map(rt::Running::join)
}

/// As [`serve`], but returns at once.
///
/// # Errors
/// As [`serve`].
pub fn start<S: Serve + 'static>(
    world: &rt::World,
    listener: rt::Listener,
    server: std::sync::Arc<S>,
    threads: usize,
) -> Result<rt::Running, rt::SpawnError> {
    rt::start(world, listener, std::sync::Arc::new(Service(server)), threads)
}

fn serve_find_host<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let need = <Need as rt::Marshal>::get(reader_)?;
    let count = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.find_host(call, object, need, count)?;
    reply_find_host(result)
}

fn reply_find_host(result: FindHostReply) -> Result<rt::Message, rt::Failure> {
    let FindHostReply { decision, places, refusal } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(decision);
    rt::put_count(writer_, places.len(), 1024)?;
    for item_ in &places {
        rt::Marshal::put(item_, writer_)?;
    }
    rt::put_string(writer_, &refusal, 131072)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_why<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let decision = reader_.get_u64()?;
    reader_.end()?;
    let result = server_.why(call, object, decision)?;
    reply_why(result)
}

fn reply_why(text: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(text, 131072)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_note<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let decision = reader_.get_u64()?;
    let server = reader_.get_port()?;
    let number = reader_.get_u32()?;
    reader_.end()?;
    server_.note(call, object, decision, server, number)?;
    reply_note(())
}

fn reply_note((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_why_process<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let server = reader_.get_port()?;
    let number = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.why_process(call, object, server, number)?;
    reply_why_process(result)
}

fn reply_why_process(text: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(text, 131072)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_hosts<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.hosts(call, object)?;
    reply_hosts(result)
}

fn reply_hosts(hosts: Vec<HostRecord>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, hosts.len(), 256)?;
    for item_ in &hosts {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_rescan<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    server_.rescan(call, object)?;
    reply_rescan(())
}

fn reply_rescan((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_doubt<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let host = reader_.get_string(255)?;
    reader_.end()?;
    server_.doubt(call, object, host)?;
    reply_doubt(())
}

fn reply_doubt((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_ended<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let decision = reader_.get_u64()?;
    let host = reader_.get_string(255)?;
    let count = reader_.get_u32()?;
    reader_.end()?;
    server_.ended(call, object, decision, host, count)?;
    reply_ended(())
}

fn reply_ended((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
