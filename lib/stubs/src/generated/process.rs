// Generated from idl/process.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Look at it: wait, list, log, load.
pub const READ: rt::Rights = rt::Rights::from_bits_retain(0x01);
/// Change its owner and comment.
pub const WRITE: rt::Rights = rt::Rights::from_bits_retain(0x02);
/// Create segments.
pub const CREATE: rt::Rights = rt::Rights::from_bits_retain(0x04);
/// Delete segments.
pub const DELETE: rt::Rights = rt::Rights::from_bits_retain(0x08);
/// Start processes.
pub const EXEC: rt::Rights = rt::Rights::from_bits_retain(0x10);
/// Send it signals, stun and resume it.
pub const KILL: rt::Rights = rt::Rights::from_bits_retain(0x20);
/// Start processes that see the host's own files, and have to do with those that do.
pub const HOST: rt::Rights = rt::Rights::from_bits_retain(0x40);
/// Bytes of a process descriptor.
pub const DESCRIPTOR_SIZE_MAX: usize = 1048576;
/// Bytes of a comment.
pub const COMMENT_SIZE_MAX: usize = 255;
/// Bytes of a comment in the original's form.
pub const CLASSIC_COMMENT_SIZE_MAX: usize = 31;
/// Bytes of an architecture's name.
pub const ARCHITECTURE_SIZE_MAX: usize = 32;
/// Bytes of the sentence that says why a process did not run.
pub const REASON_SIZE_MAX: usize = 1024;
/// Processes in one list.
pub const LIST_MAX: usize = 8192;
/// Bytes of a log that one request gets.
pub const LOG_READ_MAX: usize = 1048576;
/// Bytes of a file's name in a scratch directory.
pub const FILE_NAME_MAX: usize = 255;
/// Files taken out of one scratch directory.
pub const RESULTS_MAX: usize = 256;
/// Its program is being fetched.
pub const STATE_STARTING: u8 = 0;
/// It runs.
pub const STATE_RUNNING: u8 = 1;
/// Every process of its tree is stopped.
pub const STATE_STUNNED: u8 = 2;
/// It has ended; only its descriptor and its log are remembered.
pub const STATE_EXITED: u8 = 3;
/// It sees the files of its host.
pub const VIEW_HOST: u8 = 0;
/// It sees its caller's files.
pub const VIEW_MINE: u8 = 1;
/// It sees the directory graph.
pub const VIEW_GRAPH: u8 = 2;
/// A limit of memory for a process with everything it starts.
pub const ENFORCES_MEMORY: u8 = 1;
/// A limit of processor time.
pub const ENFORCES_CPU: u8 = 2;
/// A limit of processes.
pub const ENFORCES_PROCESSES: u8 = 4;
/// the program was found but cannot be executed
pub const NOTEXEC: rt::Status = rt::Status(-2350);
/// the program is for another CPU type, or needs an option this one lacks
pub const BADARCH: rt::Status = rt::Status(-2351);
/// the working directory cannot be entered
pub const NOWORK: rt::Status = rt::Status(-2352);
/// a file for the scratch directory cannot be brought
pub const NOINPUT: rt::Status = rt::Status(-2353);
/// a limit that was asked for cannot be enforced on that host
pub const NOLIMIT: rt::Status = rt::Status(-2354);
/// the host cannot show the file tree that was asked for
pub const NOVIEW: rt::Status = rt::Status(-2355);
/// a process that sees the host's own files may not be started with this capability
pub const NOHOST: rt::Status = rt::Status(-2356);
/// The command of [`stun()`].
pub const CMD_STUN: rt::Command = rt::Command(2300);
/// The command of [`getowner()`].
pub const CMD_GETOWNER: rt::Command = rt::Command(2301);
/// The command of [`setowner()`].
pub const CMD_SETOWNER: rt::Command = rt::Command(2302);
/// The command of [`getdef()`].
pub const CMD_GETDEF: rt::Command = rt::Command(2304);
/// The command of [`getload_classic()`].
pub const CMD_GETLOAD_CLASSIC: rt::Command = rt::Command(2305);
/// The command of [`setcomment_classic()`].
pub const CMD_SETCOMMENT_CLASSIC: rt::Command = rt::Command(2309);
/// The command of [`getcomment_classic()`].
pub const CMD_GETCOMMENT_CLASSIC: rt::Command = rt::Command(2310);
/// The command of [`exec()`].
pub const CMD_EXEC: rt::Command = rt::Command(2350);
/// The command of [`resume()`].
pub const CMD_RESUME: rt::Command = rt::Command(2351);
/// The command of [`signal()`].
pub const CMD_SIGNAL: rt::Command = rt::Command(2352);
/// The command of [`wait()`].
pub const CMD_WAIT: rt::Command = rt::Command(2353);
/// The command of [`load()`].
pub const CMD_LOAD: rt::Command = rt::Command(2354);
/// The command of [`processes()`].
pub const CMD_PROCESSES: rt::Command = rt::Command(2355);
/// The command of [`lookup_process()`].
pub const CMD_LOOKUP_PROCESS: rt::Command = rt::Command(2356);
/// The command of [`read_log()`].
pub const CMD_READ_LOG: rt::Command = rt::Command(2357);
/// The command of [`resize()`].
pub const CMD_RESIZE: rt::Command = rt::Command(2358);
/// The command of [`setcomment()`].
pub const CMD_SETCOMMENT: rt::Command = rt::Command(2359);
/// The command of [`getcomment()`].
pub const CMD_GETCOMMENT: rt::Command = rt::Command(2360);
/// The command of [`run()`].
pub const CMD_RUN: rt::Command = rt::Command(2361);

/// A file that a process has left in its scratch directory.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRecord {
    /// Its name there.
    pub name: Vec<u8>,
    /// A committed Bullet file, the caller's from now on; null: it was there and could not be stored.
    pub file: rt::Capability,
}

impl rt::Marshal for ResultRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.name, 255)?;
        writer_.put_cap(&self.file);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let file = reader_.get_cap()?;
        Ok(ResultRecord { name, file })
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitRecord {
    /// 0 when it ran; else the status that says why it did not.
    pub status: i16,
    /// The exit code as a shell gives it: its own, 128 + signal, 127 or 126 when it never ran.
    pub code: u8,
    /// The signal that ended it, 0 for none.
    pub signal: u8,
    /// Whether its host keeps a core dump.
    pub core_dumped: bool,
    /// Processor time in its own code, its children included.
    pub user_microseconds: u64,
    /// Processor time in the host's kernel, its children included.
    pub system_microseconds: u64,
    /// A sentence for people: when status is not 0, or when it ran and met a limit.
    pub reason: Vec<u8>,
    /// The files that the descriptor wanted and that were there at the end.
    pub results: Vec<ResultRecord>,
}

impl rt::Marshal for ExitRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_i16(self.status);
        writer_.put_u8(self.code);
        writer_.put_u8(self.signal);
        writer_.put_bool(self.core_dumped);
        writer_.put_u64(self.user_microseconds);
        writer_.put_u64(self.system_microseconds);
        rt::put_string(writer_, &self.reason, 1024)?;
        rt::put_count(writer_, self.results.len(), 256)?;
        for item_ in &self.results {
            rt::Marshal::put(item_, writer_)?;
        }
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let status = reader_.get_i16()?;
        let code = reader_.get_u8()?;
        let signal = reader_.get_u8()?;
        let core_dumped = reader_.get_bool()?;
        let user_microseconds = reader_.get_u64()?;
        let system_microseconds = reader_.get_u64()?;
        let reason = reader_.get_string(1024).map(<[u8]>::to_vec)?;
        let results = rt::get_list(reader_, 256, <ResultRecord as rt::Marshal>::get)?;
        Ok(ExitRecord {
            status,
            code,
            signal,
            core_dumped,
            user_microseconds,
            system_microseconds,
            reason,
            results,
        })
    }
}

/// One process in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessRecord {
    /// Its number within the server.
    pub index: u16,
    /// One of STATE_STARTING to STATE_EXITED.
    pub state: u8,
    /// Whether its output goes to a log.
    pub detached: bool,
    /// The host's number of its first process; 0 while unknown.
    pub pid: u32,
    /// Whether somebody hears of its end.
    pub owned: bool,
    /// Seconds since 1970-01-01 00:00 UTC.
    pub started_at: u64,
    /// Likewise; 0 while it runs.
    pub ended_at: u64,
    /// Processor time in its own code.
    pub user_microseconds: u64,
    /// Processor time in the host's kernel.
    pub system_microseconds: u64,
    /// Its exit code, once it has ended.
    pub code: u8,
    /// The signal that ended it.
    pub signal: u8,
    /// Bytes of memory it asked to be held to; 0: none. So with the next two.
    pub memory_limit: u64,
    /// Thousandths of a processor.
    pub cpu_limit_thousandths: u32,
    /// Processes and threads.
    pub process_limit: u32,
    /// Whether it uses the network of its host.
    pub network: bool,
    /// What it sees as its file tree, one of VIEW_HOST to VIEW_GRAPH.
    pub view: u8,
    /// Its command line, or what was set. Never a secret.
    pub comment: Vec<u8>,
}

impl rt::Marshal for ProcessRecord {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_u16(self.index);
        writer_.put_u8(self.state);
        writer_.put_bool(self.detached);
        writer_.put_u32(self.pid);
        writer_.put_bool(self.owned);
        writer_.put_u64(self.started_at);
        writer_.put_u64(self.ended_at);
        writer_.put_u64(self.user_microseconds);
        writer_.put_u64(self.system_microseconds);
        writer_.put_u8(self.code);
        writer_.put_u8(self.signal);
        writer_.put_u64(self.memory_limit);
        writer_.put_u32(self.cpu_limit_thousandths);
        writer_.put_u32(self.process_limit);
        writer_.put_bool(self.network);
        writer_.put_u8(self.view);
        rt::put_string(writer_, &self.comment, 255)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let index = reader_.get_u16()?;
        let state = reader_.get_u8()?;
        let detached = reader_.get_bool()?;
        let pid = reader_.get_u32()?;
        let owned = reader_.get_bool()?;
        let started_at = reader_.get_u64()?;
        let ended_at = reader_.get_u64()?;
        let user_microseconds = reader_.get_u64()?;
        let system_microseconds = reader_.get_u64()?;
        let code = reader_.get_u8()?;
        let signal = reader_.get_u8()?;
        let memory_limit = reader_.get_u64()?;
        let cpu_limit_thousandths = reader_.get_u32()?;
        let process_limit = reader_.get_u32()?;
        let network = reader_.get_bool()?;
        let view = reader_.get_u8()?;
        let comment = reader_.get_string(255).map(<[u8]>::to_vec)?;
        Ok(ProcessRecord {
            index,
            state,
            detached,
            pid,
            owned,
            started_at,
            ended_at,
            user_microseconds,
            system_microseconds,
            code,
            signal,
            memory_limit,
            cpu_limit_thousandths,
            process_limit,
            network,
            view,
            comment,
        })
    }
}

/// Stops every process of its tree, and tells the owner. STD_NOTNOW when it is stopped already or has
/// ended.
///
/// - `code`: Not negative: stop it. Negative: also where it is stopped already.
///
/// # Rights
/// `KILL`.
pub fn stun<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability, code: i32) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_STUN);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.offset = code;
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Who hears of its end, of stuns and of exceptions; null for nobody.
///
/// # Rights
/// `READ`.
pub fn getowner<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETOWNER);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let owner = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(owner)
}

/// Names another owner, or with a null capability none.
///
/// # Rights
/// `WRITE`.
pub fn setowner<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    owner: &rt::Capability,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SETOWNER);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_cap(owner);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`getdef()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct GetdefReply {
    /// The log2 page.
    pub log2_page: u16,
    /// The first page.
    pub first_page: u16,
    /// The last page and one more.
    pub last_page: i32,
}

/// The memory of a process in the original's form, whose addresses have 32 bits.
///
/// # Rights
/// `READ`.
pub fn getdef<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<GetdefReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETDEF);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let log2_page = header_.size;
    let first_page = header_.extra;
    let last_page = header_.offset;
    rt::Reader::new(&data_).end()?;
    Ok(GetdefReply { log2_page, first_page, last_page })
}

/// What [`getload_classic()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct GetloadClassicReply {
    /// Thousands of instructions a second, divided by 1024.
    pub speed: u16,
    /// Runnable processes times 1024.
    pub load: u16,
    /// Bytes, at most 2^31 - 1.
    pub memory_free: i32,
}

/// How busy the host is, in the original's form.
///
/// # Rights
/// `READ`.
pub fn getload_classic<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<GetloadClassicReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETLOAD_CLASSIC);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let speed = header_.extra;
    let load = header_.size;
    let memory_free = header_.offset;
    rt::Reader::new(&data_).end()?;
    Ok(GetloadClassicReply { speed, load, memory_free })
}

/// Says what the process is, in the original's form.
///
/// # Rights
/// `WRITE`.
pub fn setcomment_classic<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    comment: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SETCOMMENT_CLASSIC);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, comment, 31)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What the process is, cut to the original's bound.
///
/// # Rights
/// `READ`.
pub fn getcomment_classic<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETCOMMENT_CLASSIC);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 32, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let comment = reader_.get_string(31).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(comment)
}

/// Starts a process, and answers when its program runs. STD_ARGBAD: a malformed descriptor, or one that
/// names no program; -1900: no such program; -1902: it cannot be read; NOTEXEC; BADARCH; NOWORK;
/// NOINPUT; NOLIMIT; NOVIEW; NOHOST: its view is VIEW_HOST, and the capability lacks HOST; STD_NOMEM:
/// the host has no room.
///
/// - `descriptor`: A virgin process: see docs/processes.md.
///
/// # Rights
/// `EXEC`.
pub fn exec<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    descriptor: impl Into<Vec<u8>>,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_EXEC);
    let descriptor = descriptor.into();
    let data_ = rt::within(descriptor, 1048576)?;
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let process = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(process)
}

/// Lets a stunned process run on. STD_NOTNOW when it is not stunned.
///
/// # Rights
/// `KILL`.
pub fn resume<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RESUME);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Sends it a signal of its host's system. What a terminal sends (1, 2, 3, 18, 20, 28) goes to its
/// foreground group.
///
/// - `number`: 1 to 64; 9 ends the whole tree.
///
/// # Rights
/// `KILL`.
pub fn signal<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    number: u8,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SIGNAL);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u8(number);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Answers when the process has ended and its output has been delivered. Any number of clients may
/// wait.
///
/// # Rights
/// `READ`.
pub fn wait<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<ExitRecord, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_WAIT);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 70682, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let result = <ExitRecord as rt::Marshal>::get(reader_)?;
    reader_.end()?;
    Ok(result)
}

/// What [`load()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadReply {
    /// The cpus.
    pub cpus: u32,
    /// Runnable processes times 1000.
    pub load_thousandths: u64,
    /// The memory free.
    pub memory_free: u64,
    /// The memory total.
    pub memory_total: u64,
    /// Thousands of instructions a second of one processor, as the host estimates it.
    pub kips: u32,
    /// Guests that have not ended.
    pub processes: u32,
    /// The architecture.
    pub architecture: Vec<u8>,
    /// Bits, ENFORCES_MEMORY to ENFORCES_PROCESSES.
    pub enforces: u8,
}

/// How busy the host is and what it executes.
///
/// # Rights
/// `READ`.
pub fn load<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<LoadReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LOAD);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 70, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let cpus = reader_.get_u32()?;
    let load_thousandths = reader_.get_u64()?;
    let memory_free = reader_.get_u64()?;
    let memory_total = reader_.get_u64()?;
    let kips = reader_.get_u32()?;
    let processes = reader_.get_u32()?;
    let architecture = reader_.get_string(32).map(<[u8]>::to_vec)?;
    let enforces = reader_.get_u8()?;
    reader_.end()?;
    Ok(LoadReply {
        cpus,
        load_thousandths,
        memory_free,
        memory_total,
        kips,
        processes,
        architecture,
        enforces,
    })
}

/// Every process that runs, and the last 256 that have ended, by index.
///
/// # Rights
/// `READ`.
pub fn processes<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<Vec<ProcessRecord>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_PROCESSES);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 2596868, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let processes = rt::get_list(reader_, 8192, <ProcessRecord as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(processes)
}

/// The capability of a process in the list, with the rights that this capability has. STD_NOTFOUND when
/// there is none, STD_DENIED when it sees the host's files and this capability lacks HOST.
///
/// # Rights
/// None.
pub fn lookup_process<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    index: u16,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_LOOKUP_PROCESS);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u16(index);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let process = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(process)
}

/// What [`read_log()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadLogReply {
    /// Whether this is all for now.
    pub end: bool,
    /// The data.
    pub data: Vec<u8>,
}

/// Part of the output of a detached process, which goes on growing while it runs.
///
/// # Rights
/// `READ`.
pub fn read_log<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    offset: u64,
    size: u32,
) -> Result<ReadLogReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_READ_LOG);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u64(offset);
    writer_.put_u32(size);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 1048577, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let end = reader_.get_bool()?;
    let taken_ = data_.len() - reader_.remaining();
    let data = rt::rest(data_, taken_, 1048576)?;
    Ok(ReadLogReply { end, data })
}

/// Its terminal has a new size.
///
/// # Rights
/// `WRITE`.
pub fn resize<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    rows: u16,
    columns: u16,
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RESIZE);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u16(rows);
    writer_.put_u16(columns);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Says what the process is.
///
/// # Rights
/// `WRITE`.
pub fn setcomment<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    comment: &[u8],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SETCOMMENT);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, comment, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What the process is.
///
/// # Rights
/// `READ`.
pub fn getcomment<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETCOMMENT);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 256, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let comment = reader_.get_string(255).map(<[u8]>::to_vec)?;
    reader_.end()?;
    Ok(comment)
}

/// What [`run()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct RunReply {
    /// The process that has ended: for its log.
    pub process: rt::Capability,
    /// The result.
    pub result: ExitRecord,
}

/// exec and wait in one: starts a process, and answers when it has ended and its output has been
/// delivered. Refused as exec is. For processes that nobody need signal: who wants to do that does not
/// know which it is before it has ended.
///
/// - `descriptor`: A virgin process, as for exec.
///
/// # Rights
/// `EXEC`.
pub fn run<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    descriptor: impl Into<Vec<u8>>,
) -> Result<RunReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RUN);
    let descriptor = descriptor.into();
    let data_ = rt::within(descriptor, 1048576)?;
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 70682, false)?;
    let process = header_.capability();
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let result = <ExitRecord as rt::Marshal>::get(reader_)?;
    reader_.end()?;
    Ok(RunReply { process, result })
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
    rt::Standard {
        command: rt::Command(1003),
        rights: rt::Rights::from_bits_retain(0x20),
        on: rt::On::Object,
    },
    // info
    rt::Standard { command: rt::Command(1004), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // restrict
    rt::Standard { command: rt::Command(1005), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // status
    rt::Standard { command: rt::Command(1006), rights: rt::Rights::from_bits_retain(0x01), on: rt::On::Any },
    // touch
    rt::Standard { command: rt::Command(1007), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // getparams
    rt::Standard { command: rt::Command(1008), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // setparams
    rt::Standard { command: rt::Command(1009), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // ntouch
    rt::Standard { command: rt::Command(1010), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
];

/// The most bytes of data in any request: what to listen with.
pub const REQUEST_SIZE_MAX: usize = 1048576;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// Stops every process of its tree, and tells the owner. STD_NOTNOW when it is stopped already or has
    /// ended.
    ///
    /// # Rights
    /// `KILL`.
    fn stun(&self, call: &rt::Call, object: rt::Object<{ KILL.bits() }>, code: i32)
    -> Result<(), rt::Status>;
    /// Who hears of its end, of stuns and of exceptions; null for nobody.
    ///
    /// # Rights
    /// `READ`.
    fn getowner(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
    ) -> Result<rt::Capability, rt::Status>;
    /// Names another owner, or with a null capability none.
    ///
    /// # Rights
    /// `WRITE`.
    fn setowner(
        &self,
        call: &rt::Call,
        object: rt::Object<{ WRITE.bits() }>,
        owner: rt::Capability,
    ) -> Result<(), rt::Status>;
    /// The memory of a process in the original's form, whose addresses have 32 bits.
    ///
    /// # Rights
    /// `READ`.
    fn getdef(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>)
    -> Result<GetdefReply, rt::Status>;
    /// How busy the host is, in the original's form.
    ///
    /// # Rights
    /// `READ`.
    fn getload_classic(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
    ) -> Result<GetloadClassicReply, rt::Status>;
    /// Says what the process is, in the original's form.
    ///
    /// # Rights
    /// `WRITE`.
    fn setcomment_classic(
        &self,
        call: &rt::Call,
        object: rt::Object<{ WRITE.bits() }>,
        comment: &[u8],
    ) -> Result<(), rt::Status>;
    /// What the process is, cut to the original's bound.
    ///
    /// # Rights
    /// `READ`.
    fn getcomment_classic(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
    ) -> Result<Vec<u8>, rt::Status>;
    /// Starts a process, and answers when its program runs. STD_ARGBAD: a malformed descriptor, or one that
    /// names no program; -1900: no such program; -1902: it cannot be read; NOTEXEC; BADARCH; NOWORK;
    /// NOINPUT; NOLIMIT; NOVIEW; NOHOST: its view is VIEW_HOST, and the capability lacks HOST; STD_NOMEM:
    /// the host has no room.
    ///
    /// # Rights
    /// `EXEC`.
    fn exec(
        &self,
        call: &rt::Call,
        object: rt::Object<{ EXEC.bits() }>,
        descriptor: Vec<u8>,
        pending: rt::Pending<rt::Capability>,
    );
    /// Lets a stunned process run on. STD_NOTNOW when it is not stunned.
    ///
    /// # Rights
    /// `KILL`.
    fn resume(&self, call: &rt::Call, object: rt::Object<{ KILL.bits() }>) -> Result<(), rt::Status>;
    /// Sends it a signal of its host's system. What a terminal sends (1, 2, 3, 18, 20, 28) goes to its
    /// foreground group.
    ///
    /// # Rights
    /// `KILL`.
    fn signal(
        &self,
        call: &rt::Call,
        object: rt::Object<{ KILL.bits() }>,
        number: u8,
    ) -> Result<(), rt::Status>;
    /// Answers when the process has ended and its output has been delivered. Any number of clients may
    /// wait.
    ///
    /// # Rights
    /// `READ`.
    fn wait(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>, pending: rt::Pending<ExitRecord>);
    /// How busy the host is and what it executes.
    ///
    /// # Rights
    /// `READ`.
    fn load(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>) -> Result<LoadReply, rt::Status>;
    /// Every process that runs, and the last 256 that have ended, by index.
    ///
    /// # Rights
    /// `READ`.
    fn processes(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
    ) -> Result<Vec<ProcessRecord>, rt::Status>;
    /// The capability of a process in the list, with the rights that this capability has. STD_NOTFOUND when
    /// there is none, STD_DENIED when it sees the host's files and this capability lacks HOST.
    ///
    /// # Rights
    /// None.
    fn lookup_process(
        &self,
        call: &rt::Call,
        object: rt::Object<0>,
        index: u16,
    ) -> Result<rt::Capability, rt::Status>;
    /// Part of the output of a detached process, which goes on growing while it runs.
    ///
    /// # Rights
    /// `READ`.
    fn read_log(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        offset: u64,
        size: u32,
    ) -> Result<ReadLogReply, rt::Status>;
    /// Its terminal has a new size.
    ///
    /// # Rights
    /// `WRITE`.
    fn resize(
        &self,
        call: &rt::Call,
        object: rt::Object<{ WRITE.bits() }>,
        rows: u16,
        columns: u16,
    ) -> Result<(), rt::Status>;
    /// Says what the process is.
    ///
    /// # Rights
    /// `WRITE`.
    fn setcomment(
        &self,
        call: &rt::Call,
        object: rt::Object<{ WRITE.bits() }>,
        comment: &[u8],
    ) -> Result<(), rt::Status>;
    /// What the process is.
    ///
    /// # Rights
    /// `READ`.
    fn getcomment(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>)
    -> Result<Vec<u8>, rt::Status>;
    /// exec and wait in one: starts a process, and answers when it has ended and its output has been
    /// delivered. Refused as exec is. For processes that nobody need signal: who wants to do that does not
    /// know which it is before it has ended.
    ///
    /// # Rights
    /// `EXEC`.
    fn run(
        &self,
        call: &rt::Call,
        object: rt::Object<{ EXEC.bits() }>,
        descriptor: Vec<u8>,
        pending: rt::Pending<RunReply>,
    );
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
            2300 => request.answer(|call, header, data| serve_stun(server, call, header, data)),
            2301 => request.answer(|call, header, data| serve_getowner(server, call, header, data)),
            2302 => request.answer(|call, header, data| serve_setowner(server, call, header, data)),
            2304 => request.answer(|call, header, data| serve_getdef(server, call, header, data)),
            2305 => request.answer(|call, header, data| serve_getload_classic(server, call, header, data)),
            2309 => request.answer(|call, header, data| serve_setcomment_classic(server, call, header, data)),
            2310 => request.answer(|call, header, data| serve_getcomment_classic(server, call, header, data)),
            2350 => request.defer(reply_exec, |call, header, data| serve_exec(server, call, header, data)),
            2351 => request.answer(|call, header, data| serve_resume(server, call, header, data)),
            2352 => request.answer(|call, header, data| serve_signal(server, call, header, data)),
            2353 => request.defer(reply_wait, |call, header, data| serve_wait(server, call, header, data)),
            2354 => request.answer(|call, header, data| serve_load(server, call, header, data)),
            2355 => request.answer(|call, header, data| serve_processes(server, call, header, data)),
            2356 => request.answer(|call, header, data| serve_lookup_process(server, call, header, data)),
            2357 => request.answer(|call, header, data| serve_read_log(server, call, header, data)),
            2358 => request.answer(|call, header, data| serve_resize(server, call, header, data)),
            2359 => request.answer(|call, header, data| serve_setcomment(server, call, header, data)),
            2360 => request.answer(|call, header, data| serve_getcomment(server, call, header, data)),
            2361 => request.defer(reply_run, |call, header, data| serve_run(server, call, header, data)),
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

fn serve_stun<S: Serve>(
    server_: &S,
    call: &rt::Call,
    header_: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let code = header_.offset;
    rt::Reader::new(&data_).end()?;
    server_.stun(call, object, code)?;
    reply_stun(())
}

fn reply_stun((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_getowner<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.getowner(call, object)?;
    reply_getowner(result)
}

fn reply_getowner(owner: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&owner);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_setowner<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let owner = reader_.get_cap()?;
    reader_.end()?;
    server_.setowner(call, object, owner)?;
    reply_setowner(())
}

fn reply_setowner((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_getdef<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.getdef(call, object)?;
    reply_getdef(result)
}

fn reply_getdef(result: GetdefReply) -> Result<rt::Message, rt::Failure> {
    let GetdefReply { log2_page, first_page, last_page } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = log2_page;
    header_.extra = first_page;
    header_.offset = last_page;
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_getload_classic<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.getload_classic(call, object)?;
    reply_getload_classic(result)
}

fn reply_getload_classic(result: GetloadClassicReply) -> Result<rt::Message, rt::Failure> {
    let GetloadClassicReply { speed, load, memory_free } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.extra = speed;
    header_.size = load;
    header_.offset = memory_free;
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_setcomment_classic<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let comment = reader_.get_string(31)?;
    reader_.end()?;
    server_.setcomment_classic(call, object, comment)?;
    reply_setcomment_classic(())
}

fn reply_setcomment_classic((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_getcomment_classic<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.getcomment_classic(call, object)?;
    reply_getcomment_classic(result)
}

fn reply_getcomment_classic(comment: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, &comment, 31)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_exec<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<rt::Capability>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let descriptor = rt::rest(data_, 0, 1048576)?;
    Ok(move |pending| server_.exec(&call, object, descriptor, pending))
}

fn reply_exec(process: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&process);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_resume<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    server_.resume(call, object)?;
    reply_resume(())
}

fn reply_resume((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_signal<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let number = reader_.get_u8()?;
    reader_.end()?;
    server_.signal(call, object, number)?;
    reply_signal(())
}

fn reply_signal((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_wait<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<ExitRecord>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    Ok(move |pending| server_.wait(&call, object, pending))
}

fn reply_wait(result: ExitRecord) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::Marshal::put(&result, writer_)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_load<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.load(call, object)?;
    reply_load(result)
}

fn reply_load(result: LoadReply) -> Result<rt::Message, rt::Failure> {
    let LoadReply {
        cpus,
        load_thousandths,
        memory_free,
        memory_total,
        kips,
        processes,
        architecture,
        enforces,
    } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_u32(cpus);
    writer_.put_u64(load_thousandths);
    writer_.put_u64(memory_free);
    writer_.put_u64(memory_total);
    writer_.put_u32(kips);
    writer_.put_u32(processes);
    rt::put_string(writer_, &architecture, 32)?;
    writer_.put_u8(enforces);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_processes<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.processes(call, object)?;
    reply_processes(result)
}

fn reply_processes(processes: Vec<ProcessRecord>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_count(writer_, processes.len(), 8192)?;
    for item_ in &processes {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_lookup_process<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let index = reader_.get_u16()?;
    reader_.end()?;
    let result = server_.lookup_process(call, object, index)?;
    reply_lookup_process(result)
}

fn reply_lookup_process(process: rt::Capability) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&process);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_read_log<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let offset = reader_.get_u64()?;
    let size = reader_.get_u32()?;
    reader_.end()?;
    let result = server_.read_log(call, object, offset, size)?;
    reply_read_log(result)
}

fn reply_read_log(result: ReadLogReply) -> Result<rt::Message, rt::Failure> {
    let ReadLogReply { end, data } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_bool(end);
    writer_.raw(&rt::within(data, 1048576)?);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_resize<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let rows = reader_.get_u16()?;
    let columns = reader_.get_u16()?;
    reader_.end()?;
    server_.resize(call, object, rows, columns)?;
    reply_resize(())
}

fn reply_resize((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_setcomment<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let comment = reader_.get_string(255)?;
    reader_.end()?;
    server_.setcomment(call, object, comment)?;
    reply_setcomment(())
}

fn reply_setcomment((): ()) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_getcomment<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Object)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.getcomment(call, object)?;
    reply_getcomment(result)
}

fn reply_getcomment(comment: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, &comment, 255)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_run<'s, S: Serve>(
    server_: &'s S,
    call: rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<impl FnOnce(rt::Pending<RunReply>) + use<'s, S>, rt::Failure> {
    let object = call.object(server_, rt::On::Super)?;
    let descriptor = rt::rest(data_, 0, 1048576)?;
    Ok(move |pending| server_.run(&call, object, descriptor, pending))
}

fn reply_run(result: RunReply) -> Result<rt::Message, rt::Failure> {
    let RunReply { process, result } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::Marshal::put(&result, writer_)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.set_capability(&process);
    Ok(rt::Message { header: header_, data: data_ })
}
