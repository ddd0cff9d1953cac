//! Real commands as guests: a kernel daemon, a process server, shepherds, streams. Everything in all three ways of
//! isolation, as far as this host allows them.

mod common;
#[path = "guest/rooted.rs"]
mod rooted;
#[path = "guest/shepherds.rs"]
mod shepherds;

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amoeba_cap::{Capability, CheckField, GetPort, ServerSecret};
use amoeba_linux::guest::{GuestConfig, Isolation, LOG_CUT_MARK, LOG_SIZE_MAX, LinuxGuests, architecture};
use amoeba_process::{
    Limits, ProcessDescriptor, ProcessServer, Program, Scratch, ServedInput, WindowSize, status,
};
use amoeba_stream::{Sink, StreamServer};
use amoeba_stubs::bullet;
use amoeba_stubs::process::{self, ExitRecord};
use amoeba_wire::{Header, Reader, Status};
use amoeba_world::{Error, Message, World};
use common::System;

/// Set in the environment of a shepherd, which is this very test program.
const SHEPHERD: &str = "AMOEBA_TEST_SHEPHERD";
/// Long enough for anything here; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test of its own: the program of every shepherd below.
#[test]
fn shepherd_entry() {
    if std::env::var_os(SHEPHERD).is_some() {
        std::process::exit(amoeba_linux::guest::shepherd::main());
    }
}

/// A host with a process server, and a caller with streams.
struct Host {
    world: World,
    server: Capability,
    streams: Arc<StreamServer>,
    isolation: Isolation,
    logs: PathBuf,
    /// The processes that stopped when a guest was stunned last.
    stopped: Arc<Mutex<Vec<u32>>>,
    _system: System,
}

impl Host {
    /// `None`, loudly, where this host does not allow this way of isolation.
    fn start(name: &str, isolation: Isolation) -> Option<Host> {
        let system = System::start(&format!("guest-{name}-{isolation:?}"));
        let logs = system.path.parent().unwrap().join("logs");
        let world = amoeba_linux::connect(&system.path);
        let config = GuestConfig {
            arguments: ["shepherd_entry", "--exact", "--nocapture", "--test-threads=1"]
                .map(Into::into)
                .into(),
            viewer: ["rooted::viewer_entry", "--exact", "--nocapture", "--test-threads=1"]
                .map(Into::into)
                .into(),
            environment: vec![(SHEPHERD.into(), "1".into()), (rooted::VIEWER.into(), logs.clone().into())],
            isolation,
            ..GuestConfig::new(&system.path, &logs)
        };
        let stopped = Arc::new(Mutex::new(Vec::new()));
        let told = stopped.clone();
        let guests = LinuxGuests::new(config, world.threads.clone()).unwrap();
        let guests =
            Arc::new(guests.parting(Arc::new(move |processes| *told.lock().unwrap() = processes.to_vec())));
        let listen =
            |bytes: &[u8; 6], size| world.transactions.listen(&GetPort::from_bytes(*bytes), size).unwrap();
        let listener = listen(b"procsv", process::REQUEST_SIZE_MAX);
        let secret = ServerSecret::from_bytes([9; 32]);
        let server = ProcessServer::new(
            world.clone(),
            listener.put_port(),
            secret,
            CheckField::from_bytes([1; 6]),
            guests,
        );
        drop(process::start(&world, listener, server.clone(), 4).unwrap());
        let listener = listen(b"stream", amoeba_stream::REQUEST_SIZE_MAX);
        let streams = StreamServer::new(&world, listener.put_port());
        drop(amoeba_stream::start(&world, listener, streams.clone(), 4).unwrap());
        let host = Host {
            world,
            server: server.super_capability(),
            streams,
            isolation,
            logs,
            stopped,
            _system: system,
        };
        if host.run(&["true"], b"").is_err() && isolation == Isolation::UserNamespace {
            eprintln!("SKIPPED: {name}: no user namespaces on this host");
            return None;
        }
        Some(host)
    }

    fn exec(&self, descriptor: &ProcessDescriptor) -> Result<Capability, Error> {
        process::exec(&self.world, &self.server, descriptor.encode().unwrap())
    }

    fn wait(&self, process: &Capability) -> ExitRecord {
        process::wait(&self.world, process).unwrap()
    }

    /// Gives a descriptor streams, and returns our ends.
    fn attach(&self, descriptor: &mut ProcessDescriptor, input: &[u8]) -> (Sink, Sink) {
        let (stdin, source) = self.streams.source().unwrap();
        let (stdout, output) = self.streams.sink().unwrap();
        let (stderr, errors) = self.streams.sink().unwrap();
        descriptor.capabilities = [(&b"STDIN"[..], stdin), (b"STDOUT", stdout), (b"STDERR", stderr)]
            .map(|(name, capability)| (name.to_vec(), capability))
            .into();
        let input = input.to_vec();
        self.world
            .threads
            .spawn("input", move || {
                if source.push(&input).is_ok() {
                    source.end();
                }
            })
            .unwrap();
        (output, errors)
    }

    /// Runs a command to its end: how it ended, its output, its errors.
    fn run(&self, command: &[&str], input: &[u8]) -> Result<(ExitRecord, Vec<u8>, Vec<u8>), Error> {
        let mut descriptor = command_of(command);
        let (output, errors) = self.attach(&mut descriptor, input);
        let process = self.exec(&descriptor)?;
        let errors = self.world.threads.spawn("errors", move || all(&errors)).unwrap();
        let output = all(&output);
        Ok((self.wait(&process), output, errors.join().unwrap()))
    }

    fn shell(&self, script: &str) -> (ExitRecord, Vec<u8>, Vec<u8>) {
        self.run(&["sh", "-c", script], b"").unwrap()
    }
}

fn command_of(command: &[&str]) -> ProcessDescriptor {
    let arguments: Vec<Vec<u8>> = command.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    let mut descriptor =
        ProcessDescriptor::new(architecture(), Program::HostPath(arguments[0].clone()), arguments);
    descriptor.environment = vec![b"PATH=/usr/bin:/bin".to_vec(), b"GREETING=hello".to_vec()];
    descriptor
}

fn all(sink: &Sink) -> Vec<u8> {
    std::iter::from_fn(|| sink.take()).flatten().collect()
}

/// Runs `test` in every way of isolation that works here.
fn everywhere(name: &str, test: impl Fn(&Host)) {
    for isolation in [Isolation::Best, Isolation::UserNamespace, Isolation::Tree] {
        if let Some(host) = Host::start(name, isolation) {
            eprintln!("{name}: {isolation:?}");
            test(&host);
        }
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether some process of this machine has `text` among its arguments.
fn is_running(text: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let pid = entry.file_name();
        let numeric = pid.to_str().is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        numeric && command.split(|&byte| byte == 0).any(|argument| argument == text.as_bytes())
    })
}

/// A duration that names a `sleep` of this test alone.
fn sleep_name(number: u32) -> String {
    format!("{}.{number:03}", 10_000 + std::process::id() % 50_000)
}

#[test]
fn exit_codes_and_signals_come_back() {
    everywhere("codes", |host| {
        assert_eq!(host.run(&["true"], b"").unwrap().0.code, 0);
        let (exit, output, errors) = host.shell("echo $GREETING $0; echo oops >&2; exit 7");
        assert_eq!((exit.code, exit.signal, exit.status), (7, 0, 0));
        assert_eq!((&output[..], &errors[..]), (&b"hello sh\n"[..], &b"oops\n"[..]));
        let exit = host.shell("kill -TERM $$").0;
        assert_eq!((exit.code, exit.signal), (143, 15));
    });
}

#[test]
fn what_cannot_run_says_why() {
    let host = Host::start("refusals", Isolation::Best).unwrap();
    let refused = |command: &[&str]| match host.run(command, b"") {
        Err(Error::Refused(status)) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&["no-such-program"]), status::NOPROG);
    assert_eq!(refused(&["/no/such/program"]), status::NOPROG);
    assert_eq!(refused(&["/etc/passwd"]), status::NOTEXEC);
    let mut elsewhere = command_of(&["true"]);
    elsewhere.working_directory = b"/no/such/directory".to_vec();
    assert_eq!(host.exec(&elsewhere), Err(Error::Refused(status::NOWORK)));
    let mut other = command_of(&["true"]);
    other.architecture = b"vax-ultrix".to_vec();
    assert_eq!(host.exec(&other), Err(Error::Refused(status::BADARCH)));
    let script = host.logs.with_file_name("bad");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(refused(&[script.to_str().unwrap()]), status::NOTEXEC);
}

#[test]
fn only_text_is_given_to_the_shell() {
    let host = Host::start("binaries", Isolation::Best).unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = host.logs.with_file_name(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut other = std::fs::read("/bin/true").unwrap();
    other[18..20].copy_from_slice(&[0x12, 0x34]); // no machine has this number
    assert_eq!(host.run(&[&file("other", &other)], b""), Err(Error::Refused(status::BADARCH)));
    let data = file("data", b"echo data\0\n");
    assert_eq!(host.run(&[&data], b""), Err(Error::Refused(status::NOTEXEC)));
    let text = file("text", b"echo \"$1 $GREETING\"\n");
    assert_eq!(host.run(&[&text, "text"], b"").unwrap().1, b"text hello\n");
}

#[test]
fn three_megabytes_pass_through_cat_unchanged() {
    everywhere("cat", |host| {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (exit, output, _) = host.run(&["cat"], &bytes).unwrap();
        assert_eq!(exit.code, 0);
        assert!(output == bytes);
    });
}

/// A Bullet server with one file, as far as a shepherd needs one. One that does not lend knows what the original's knew.
fn serve_file(world: &World, contents: Vec<u8>, lends: bool) -> Capability {
    let get_port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
    let listener = world.transactions.listen(&get_port, 1000).unwrap();
    let port = listener.put_port();
    let transactions = world.transactions.clone();
    let serve = move || {
        let fill = &mut |memory: &mut [u8]| memory.copy_from_slice(&contents);
        let memory = lends.then(|| transactions.memory(contents.len(), fill).expect("there is memory"));
        while let Ok(incoming) = listener.getreq() {
            let size = (contents.len() as u64).to_le_bytes().to_vec();
            let reply = |data| Message { header: Header::reply(Status::STD_OK), data };
            let reply = match (incoming.request.header.command(), &memory) {
                (bullet::CMD_READ_WHOLE, Some(memory)) => {
                    let ticket = memory.lend(incoming.caller.process).expect("it is of this host");
                    reply([size, ticket.to_le_bytes().to_vec()].concat())
                }
                (bullet::CMD_SIZE, None) => reply(size),
                (bullet::CMD_READ, None) => {
                    let mut asked = Reader::new(&incoming.request.data);
                    let offset = usize::try_from(asked.get_u64().unwrap()).unwrap().min(contents.len());
                    let size = (asked.get_u32().unwrap() as usize).min(contents.len() - offset);
                    reply(contents[offset..offset + size].to_vec())
                }
                _ => Message::status(Status::STD_COMBAD),
            };
            incoming.reply.send(reply);
        }
    };
    drop(world.threads.spawn("bullet", serve).unwrap());
    Capability { port, ..Capability::from_bytes([1; 16]) }
}

#[test]
fn programs_run_by_capability() {
    everywhere("programs", |host| {
        let run_from = |lends: bool, contents: Vec<u8>, arguments: &[&str]| {
            let mut descriptor = command_of(arguments);
            descriptor.program = Program::File(serve_file(&host.world, contents, lends));
            let (output, _errors) = host.attach(&mut descriptor, b"");
            host.exec(&descriptor).map(|process| (all(&output), host.wait(&process).code))
        };
        let run = |contents: Vec<u8>, arguments: &[&str]| {
            let result = run_from(true, contents.clone(), arguments);
            assert_eq!(result, run_from(false, contents, arguments), "lent, or in pieces");
            result
        };
        // Larger than one piece.
        let mut binary = std::fs::read("/bin/sh").unwrap();
        binary.resize(3 << 20, 0);
        assert_eq!(run(binary, &["sh", "-c", "echo $0; exit 4"]), Ok((b"sh\n".to_vec(), 4)));
        let script = b"#!/bin/sh\necho script $1\n".to_vec();
        assert_eq!(run(script, &["hello", "world"]), Ok((b"script world\n".to_vec(), 0)));
        assert_eq!(run(b"nonsense".to_vec(), &["x"]), Err(Error::Refused(status::NOTEXEC)));
    });
    let host = Host::start("gone", Isolation::Best).unwrap();
    let mut descriptor = command_of(&["x"]);
    descriptor.program = Program::File(Capability::from_bytes([0x77; 16]));
    assert_eq!(host.exec(&descriptor), Err(Error::Refused(status::PDREAD)));
}

#[test]
fn ends_of_streams_are_heard_on_both_sides() {
    let host = Host::start("ends", Isolation::Best).unwrap();
    // The guest hears the end of its input.
    let (exit, output, _) = host.run(&["wc", "-c"], b"12345").unwrap();
    assert_eq!((exit.code, String::from_utf8(output).unwrap().trim()), (0, "5"));
    // The guest never reads: it can end all the same.
    assert_eq!(host.run(&["true"], &vec![0; 5_000_000]).unwrap().0.code, 0);
    // The caller takes no more: the guest hears of a broken pipe.
    let mut descriptor = command_of(&["yes"]);
    let (output, errors) = host.attach(&mut descriptor, b"");
    let process = host.exec(&descriptor).unwrap();
    assert!(output.take().is_some());
    output.refuse();
    assert_eq!(host.wait(&process).signal, 13);
    errors.end();
}

#[test]
fn errors_and_output_of_one_object_keep_their_order() {
    let host = Host::start("order", Isolation::Best).unwrap();
    let mut descriptor = command_of(&["sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; done"]);
    let (output, _errors) = host.attach(&mut descriptor, b"");
    descriptor.capabilities[2].1 = descriptor.capabilities[1].1;
    host.exec(&descriptor).unwrap();
    assert_eq!(String::from_utf8(all(&output)).unwrap(), "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n");
}

#[test]
fn nothing_of_a_guest_outlives_it() {
    everywhere("orphans", |host| {
        let name = sleep_name(1);
        // The grandchild leaves the session.
        let script = format!(
            "exec >/dev/null 2>&1; setsid setsid sleep {name} & while ! pgrep -f 'sleep {name}'; do :; done"
        );
        let (exit, ..) = host.shell(&script);
        assert_eq!(exit.code, 0);
        assert!(!is_running(&name));
    });
}

#[test]
fn what_is_left_in_the_background_may_still_write() {
    everywhere("background", |host| {
        let (exit, output, errors) = host.shell("(sleep 0.5; echo late; echo err >&2) & echo now; exit 3");
        assert_eq!((exit.code, &output[..], &errors[..]), (3, &b"now\nlate\n"[..], &b"err\n"[..]));
        let mut descriptor = command_of(&["sh", "-c", "(sleep 0.5; echo late) & echo now"]);
        descriptor.detached = true;
        let process = host.exec(&descriptor).unwrap();
        host.wait(&process);
        let log = process::read_log(&host.world, &process, 0, 100).unwrap();
        assert_eq!(log.data, b"now\nlate\n");
    });
}

#[test]
fn who_asks_for_the_end_does_not_wait_for_the_background() {
    everywhere("hurried", |host| {
        for number in [2, 15, 9] {
            let name = sleep_name(10 + u32::from(number));
            let script = format!("sleep {name} & echo now");
            let mut descriptor = command_of(&["sh", "-c", &script]);
            let (output, _errors) = host.attach(&mut descriptor, b"");
            let process = host.exec(&descriptor).unwrap();
            assert_eq!(output.take().unwrap(), b"now\n");
            eventually("the background runs", || is_running(&name) && !is_running(&script));
            process::signal(&host.world, &process, number).unwrap();
            assert_eq!(host.wait(&process).code, 0, "it ended by itself before signal {number}");
            assert!(!is_running(&name));
        }
        // The shell ends by the signal, its child ignores it.
        let name = sleep_name(30);
        let mut descriptor =
            command_of(&["sh", "-c", &format!("trap '' INT; sleep {name} & trap - INT; echo now; wait")]);
        let (output, _errors) = host.attach(&mut descriptor, b"");
        let process = host.exec(&descriptor).unwrap();
        assert_eq!(output.take().unwrap(), b"now\n");
        process::signal(&host.world, &process, 2).unwrap();
        assert_eq!(host.wait(&process).signal, 2);
        assert!(!is_running(&name));
    });
}

#[test]
fn a_guest_heeds_signals_that_its_process_server_ignores() {
    // SAFETY: no handler is installed; ignoring it is what a shell does to what it starts in the background.
    unsafe { nix::libc::signal(nix::libc::SIGINT, nix::libc::SIG_IGN) };
    everywhere("heeds", |host| {
        let (exit, output, _) = host.shell("trap 'echo heard; exit 7' INT; kill -INT $$");
        assert_eq!((exit.code, &output[..]), (7, &b"heard\n"[..]));
    });
}

#[test]
fn killing_a_shepherd_kills_its_guest() {
    everywhere("shepherd", |host| {
        let name = sleep_name(2);
        let mut descriptor = command_of(&["sh", "-c", &format!("sleep {name} & sleep {name}; true")]);
        let (_output, _errors) = host.attach(&mut descriptor, b"");
        let process = host.exec(&descriptor).unwrap();
        eventually("the guest's child runs", || is_running(&name));
        let keeper = shepherd_of(host);
        std::process::Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap();
        let exit = host.wait(&process);
        assert_eq!((exit.code, exit.signal), (137, 9));
        eventually("the guest is gone", || !is_running(&name));
    });
}

/// Set in the environment of a whole process server that a test will kill: the sleep that its guest is to do.
const SERVER: &str = "AMOEBA_TEST_SERVER";

/// Not a test of its own: the process server of the next one.
#[test]
fn server_entry() {
    let Ok(name) = std::env::var(SERVER) else { return };
    for isolation in [Isolation::Best, Isolation::UserNamespace, Isolation::Tree] {
        let Some(host) = Host::start("server", isolation) else { continue };
        let script = format!("sleep {name} & sleep {name}; true");
        let mut descriptor = command_of(&["sh", "-c", &script]);
        descriptor.detached = true;
        host.exec(&descriptor).unwrap();
        std::mem::forget(host);
    }
    println!("ready");
    loop {
        std::thread::park();
    }
}

#[test]
fn killing_the_process_server_kills_its_guests() {
    let name = sleep_name(4);
    let mut server = std::process::Command::new("/proc/self/exe")
        .args(["server_entry", "--exact", "--nocapture"])
        .env(SERVER, &name)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("ready")));
    eventually("the guests' children run", || is_running(&name));
    server.kill().unwrap();
    server.wait().unwrap();
    eventually("the guests are gone", || !is_running(&name));
    for isolation in [Isolation::Best, Isolation::UserNamespace, Isolation::Tree] {
        let left = format!("amoeba-linux-{}-guest-server-{isolation:?}", server.id());
        let _ = std::fs::remove_dir_all(std::env::temp_dir().join(left));
    }
}

/// The number of the one shepherd that this host's process server has.
fn shepherd_of(host: &Host) -> u32 {
    let records = process::processes(&host.world, &host.server).unwrap();
    let guest = records.iter().find(|record| record.state == process::STATE_RUNNING).unwrap().pid;
    let warden = parent(guest);
    parent(warden)
}

fn parent(pid: u32) -> u32 {
    parent_if_there(pid).unwrap()
}

fn parent_if_there(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[test]
fn destroying_a_process_ends_its_whole_tree() {
    everywhere("destroy", |host| {
        let name = sleep_name(3);
        let mut descriptor =
            command_of(&["sh", "-c", &format!("trap '' TERM; setsid sleep {name} & sleep {name}; true")]);
        let (_output, _errors) = host.attach(&mut descriptor, b"");
        let process = host.exec(&descriptor).unwrap();
        eventually("the guest's child runs", || is_running(&name));
        amoeba_stubs::standard::destroy(&host.world, &process).unwrap();
        assert_eq!(host.wait(&process).code, 137);
        assert!(!is_running(&name));
    });
}

#[test]
fn signals_reach_the_guest() {
    let host = Host::start("signals", Isolation::Best).unwrap();
    let script = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    let mut descriptor = command_of(&["sh", "-c", script]);
    let (output, _errors) = host.attach(&mut descriptor, b"");
    let process = host.exec(&descriptor).unwrap();
    assert_eq!(output.take().unwrap(), b"ready\n");
    process::signal(&host.world, &process, 10).unwrap();
    assert_eq!(all(&output), b"got\n");
    assert_eq!(host.wait(&process).code, 5);
    assert_eq!(process::signal(&host.world, &process, 10), Err(Error::Refused(Status::STD_NOTNOW)));
}

#[test]
fn a_stunned_tree_stands_still_and_runs_on() {
    everywhere("stun", |host| {
        // Two processes count as fast as they can; a third forks all the time.
        let script = "(while :; do sh -c : ; done) & n=0; while :; do n=$((n+1)); echo $n; done";
        let mut descriptor = command_of(&["sh", "-c", script]);
        let (output, _errors) = host.attach(&mut descriptor, b"");
        let process = host.exec(&descriptor).unwrap();
        assert!(output.take().is_some());
        process::stun(&host.world, &process, 0).unwrap();
        assert_eq!(process::stun(&host.world, &process, 0), Err(Error::Refused(Status::STD_NOTNOW)));
        let pid = process::processes(&host.world, &host.server)
            .unwrap()
            .iter()
            .find(|record| record.state == process::STATE_STUNNED)
            .unwrap()
            .pid;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(stat.contains(") T "), "{stat}");
        let stopped = host.stopped.lock().unwrap().clone();
        assert!(stopped.contains(&pid) && stopped.len() > 1, "{stopped:?} of {pid}");
        assert_eq!(process::signal(&host.world, &process, 18), Err(Error::Refused(Status::STD_NOTNOW)));
        process::resume(&host.world, &process).unwrap();
        assert_eq!(process::resume(&host.world, &process), Err(Error::Refused(Status::STD_NOTNOW)));
        // It writes again: more than can have waited between it and us.
        let mut size = 0;
        while size < 2_500_000 {
            size += output.take().unwrap().len();
        }
        process::stun(&host.world, &process, 0).unwrap();
        amoeba_stubs::standard::destroy(&host.world, &process).unwrap();
        output.refuse();
        assert_eq!(host.wait(&process).signal, 9);
    });
}

#[test]
fn a_terminal_is_a_terminal() {
    let host = Host::start("terminal", Isolation::Best).unwrap();
    let mut descriptor =
        command_of(&["sh", "-c", "tty -s && stty size; read line; echo \"<$line>\"; stty size; cat; exit 3"]);
    descriptor.terminal = Some(WindowSize { rows: 33, columns: 77 });
    let (stdin, source) = host.streams.source().unwrap();
    let (_output, _errors) = host.attach(&mut descriptor, b"");
    let (stdout, output) = host.streams.sink().unwrap();
    descriptor.capabilities[0].1 = stdin;
    descriptor.capabilities[1].1 = stdout;
    let process = host.exec(&descriptor).unwrap();
    assert_eq!(output.take().unwrap(), b"33 77\r\n");
    process::resize(&host.world, &process, 44, 88).unwrap();
    // The order to resize and the line travel on different ways; the size is set when the server has answered and
    // the shepherd has read it, which a second resize in the same order would not make surer.
    std::thread::sleep(Duration::from_millis(200));
    source.push(b"typed\n").unwrap();
    source.end();
    let seen = String::from_utf8(all(&output)).unwrap();
    assert!(seen.ends_with("<typed>\r\n44 88\r\n"), "{seen:?}");
    assert_eq!(host.wait(&process).code, 3);
}

#[test]
fn a_detached_guest_writes_a_log_of_bounded_size() {
    let host = Host::start("log", Isolation::Best).unwrap();
    let mut descriptor = command_of(&["sh", "-c", "echo out; echo err >&2; head -c 20000000 /dev/zero"]);
    descriptor.detached = true;
    let process = host.exec(&descriptor).unwrap();
    assert_eq!(host.wait(&process).code, 0);
    let mut log = Vec::new();
    loop {
        let reply = process::read_log(&host.world, &process, log.len() as u64, 1 << 20).unwrap();
        log.extend(reply.data);
        if reply.end {
            break;
        }
    }
    assert!(log.starts_with(b"out\nerr\n\0\0\0"));
    assert_eq!(log.len() as u64, LOG_SIZE_MAX + LOG_CUT_MARK.len() as u64);
    assert!(log.ends_with(LOG_CUT_MARK));
    amoeba_stubs::standard::destroy(&host.world, &process).unwrap();
    assert_eq!(std::fs::read_dir(&host.logs).unwrap().count(), 0);
}

#[test]
fn capabilities_come_in_a_sealed_file_and_never_in_strings() {
    everywhere("caps", |host| {
        let secret = Capability::from_bytes(*b"\x01\x02\x03\x04\x05\x06secret-cap");
        let mut descriptor = command_of(&[
            "sh",
            "-c",
            "cat /proc/self/fd/$AMOEBA_CAPS_FD; (echo x > /proc/self/fd/$AMOEBA_CAPS_FD) 2>/dev/null && echo WRITABLE; env >&2",
        ]);
        let (output, errors) = host.attach(&mut descriptor, b"");
        descriptor.capabilities.push((b"ROOT".to_vec(), secret));
        host.exec(&descriptor).unwrap();
        let environment = amoeba_name::Environment::from_bytes(&all(&output)).unwrap();
        assert_eq!(environment.get("ROOT"), Some(&secret));
        let strings = String::from_utf8(all(&errors)).unwrap();
        assert!(strings.contains("GREETING=hello") && strings.contains("AMOEBA_SOCKET="), "{strings}");
        assert!(!strings.contains("secret") && !strings.contains(SHEPHERD), "{strings}");
    });
}

#[test]
fn a_guest_cannot_gain_privilege_and_sees_its_own_processes() {
    everywhere("privilege", |host| {
        let (_, output, _) = host.shell("grep NoNewPrivs /proc/self/status; echo $$");
        let output = String::from_utf8(output).unwrap();
        assert!(output.starts_with("NoNewPrivs:\t1\n"), "{output}");
        if host.isolation != Isolation::Tree {
            let pid: u32 = output.lines().last().unwrap().parse().unwrap();
            assert!(pid < 100, "{output}");
        }
    });
}

#[test]
fn the_list_names_what_runs_without_secrets() {
    let host = Host::start("list", Isolation::Best).unwrap();
    let secret = Capability::from_bytes([0xAB; 16]).to_text();
    let mut descriptor = command_of(&["sh", "-c", "sleep 1000; :", &secret]);
    let (_output, _errors) = host.attach(&mut descriptor, b"");
    let process = host.exec(&descriptor).unwrap();
    let records = process::processes(&host.world, &host.server).unwrap();
    let record = records.iter().find(|record| record.state == process::STATE_RUNNING).unwrap();
    let comment = String::from_utf8(record.comment.clone()).unwrap();
    assert!(comment.starts_with("sh -c sleep 1000") && !comment.contains(&secret), "{comment}");
    let command = std::fs::read(format!("/proc/{}/comm", record.pid)).unwrap();
    assert_eq!(command, b"sh\n");
    let found = process::lookup_process(&host.world, &host.server, record.index).unwrap();
    assert_eq!(found, process);
    amoeba_stubs::standard::destroy(&host.world, &process).unwrap();
    host.wait(&process);
}

/// Standard input that the guest's own shepherd serves, and what the writer has for its output.
fn joint(host: &Host, number: u8) -> (ServedInput, Capability) {
    let input = ServedInput { get_port: [number; 6], secret: [number; 32] };
    let port = host.world.transactions.put_port(&input.get_port()).unwrap();
    let sink = amoeba_stream::served_sink(port, &input.secret());
    (input, sink)
}

#[test]
fn one_guest_writes_what_another_reads_and_nobody_between_sees_it() {
    everywhere("joint", |host| {
        let pipe = |writer: &[&str], reader: &[&str], number| {
            let (input, sink) = joint(host, number);
            let mut right = command_of(reader);
            let (output, _) = host.attach(&mut right, b"not read");
            right.served_input = Some(input);
            let right = host.exec(&right).unwrap();
            let mut left = command_of(writer);
            let (nothing, _) = host.attach(&mut left, b"");
            for (name, object) in &mut left.capabilities {
                if name == b"STDOUT" {
                    *object = sink;
                }
            }
            let left = host.exec(&left).unwrap();
            let read = all(&output);
            nothing.end();
            assert!(all(&nothing).is_empty());
            (host.wait(&left), host.wait(&right), String::from_utf8(read).unwrap())
        };
        let (left, right, read) = pipe(&["seq", "300000"], &["cksum"], 1);
        assert_eq!((left.code, right.code), (0, 0));
        let (_, expected, _) = host.shell("seq 300000 | cksum");
        assert_eq!(read.as_bytes(), expected);
        // Who reads no more breaks the pipe, as between two processes of one host.
        let (left, right, read) = pipe(&["yes"], &["head", "-n", "2"], 2);
        assert_eq!((left.signal, right.code, read.as_str()), (13, 0, "y\ny\n"));
        let (left, right, read) = pipe(&["true"], &["cat"], 3);
        assert_eq!((left.code, right.code, read.as_str()), (0, 0, ""));
    });
}

#[test]
fn a_scratch_directory_is_the_guests_alone_and_gone_afterwards() {
    everywhere("scratch", |host| {
        let mut descriptor = command_of(&["sh", "-c", "pwd; stat -c %a .; ls -a; echo x > kept; mkdir deep"]);
        let results = vec![b"none".to_vec(), b"deep".to_vec()];
        descriptor.scratch = Some(Scratch { results, ..Scratch::default() });
        descriptor.working_directory = b"/no/such/directory".to_vec();
        let (output, _) = host.attach(&mut descriptor, b"");
        let process = host.exec(&descriptor).unwrap();
        let output = String::from_utf8(all(&output)).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[1..], ["700", ".", ".."]);
        assert!(PathBuf::from(lines[0]).starts_with(&host.logs), "{output}");
        let exit = host.wait(&process);
        assert_eq!((exit.code, exit.results), (0, vec![]), "no regular file was left");
        assert!(!PathBuf::from(lines[0]).exists());
        // A file that cannot be brought: nothing runs.

        descriptor.scratch =
            Some(Scratch { files: vec![(b"a".to_vec(), host.server)], ..Scratch::default() });
        descriptor.owner = Capability::NULL;
        assert_eq!(host.exec(&descriptor), Err(Error::Refused(status::NOINPUT)));
        assert!(!PathBuf::from(lines[0]).with_file_name("2.scratch").exists());
    });
}

/// What a script of a guest says, and how it ended; with these limits, and without the network.
fn confined(host: &Host, limits: Limits, script: &str) -> (ExitRecord, String) {
    let mut descriptor = command_of(&["sh", "-c", script]);
    descriptor.limits = limits;
    let (output, errors) = host.attach(&mut descriptor, b"");
    let process = host.exec(&descriptor).unwrap();
    let errors = host.world.threads.spawn("errors", move || all(&errors)).unwrap();
    let output = all(&output);
    let _ = errors.join();
    (host.wait(&process), String::from_utf8(output).unwrap())
}

/// Which limits the host enforces; `None`, loudly, if `wanted` is none of them.
fn enforces(host: &Host, wanted: u8) -> Option<()> {
    let enforced = process::load(&host.world, &host.server).unwrap().enforces;
    if enforced & wanted != wanted {
        eprintln!("SKIPPED: {:?}: this host enforces only {enforced:b}", host.isolation);
        return None;
    }
    Some(())
}

#[test]
fn a_fork_bomb_meets_its_own_limit_and_nobody_elses() {
    everywhere("bomb", |host| {
        let Some(()) = enforces(host, process::ENFORCES_PROCESSES) else { return };
        let limits = Limits { processes: 20, ..Limits::default() };
        let bomb = "(for i in $(seq 100); do sleep 60 & done) 2>/dev/null; while :; do :; done";
        let mut descriptor = command_of(&["sh", "-c", bomb]);
        descriptor.limits = limits;
        let process = host.exec(&descriptor).unwrap();
        let record = || {
            let records = process::processes(&host.world, &host.server).unwrap();
            records.into_iter().find(|record| record.state == process::STATE_RUNNING).unwrap()
        };
        assert_eq!(record().process_limit, 20);
        // Others have all they want meanwhile.
        let (exit, output) =
            confined(host, Limits::default(), "for i in $(seq 100); do sleep 0 & done; wait; echo fine");
        assert_eq!((exit.code, output.as_str()), (0, "fine\n"));
        process::signal(&host.world, &process, 9).unwrap();
        let exit = host.wait(&process);
        assert_eq!((exit.signal, exit.reason.as_slice()), (9, &b"out of processes (limit 20)"[..]));
        // A shepherd that has served the bomb serves the next, and blames it for nothing.
        let (exit, _) = confined(host, Limits::default(), "exit 3");
        assert_eq!((exit.code, exit.reason.len()), (3, 0));
    });
}

#[test]
fn a_memory_hog_hurts_only_itself() {
    everywhere("hog", |host| {
        let Some(()) = enforces(host, process::ENFORCES_MEMORY) else { return };
        let limits = Limits { memory: 64 << 20, ..Limits::default() };
        let (exit, output) =
            confined(host, limits, "head -c 200M /dev/zero | tail | wc -c; echo the shell lives; exit 1");
        assert_eq!(String::from_utf8_lossy(&exit.reason), "out of memory (limit 64 MiB)", "{output}");
        let (exit, output) = confined(host, limits, "head -c 20M /dev/zero | tail | wc -c");
        assert_eq!((exit.code, exit.reason.len(), output.as_str()), (0, 0, "20971520\n"));
        let (exit, output) = confined(host, Limits::default(), "head -c 200M /dev/zero | tail | wc -c");
        assert_eq!((exit.code, exit.reason.len(), output.as_str()), (0, 0, "209715200\n"));
    });
}

#[test]
fn limits_that_cannot_be_enforced_are_refused() {
    let host = Host::start("limits", Isolation::Best).unwrap();
    let enforced = process::load(&host.world, &host.server).unwrap().enforces;
    let all = [
        (process::ENFORCES_MEMORY, Limits { memory: 1 << 30, ..Limits::default() }),
        (process::ENFORCES_CPU, Limits { cpu_thousandths: 500, ..Limits::default() }),
        (process::ENFORCES_PROCESSES, Limits { processes: 50, ..Limits::default() }),
    ];
    for (bit, limits) in all {
        let mut descriptor = command_of(&["true"]);
        descriptor.limits = limits;
        let started = host.exec(&descriptor);
        match enforced & bit {
            0 => assert_eq!(started, Err(Error::Refused(process::NOLIMIT))),
            _ => assert_eq!(host.wait(&started.unwrap()).code, 0),
        }
    }
}

/// A host without privilege over its user name space is what the second and the third way are about.
#[test]
fn a_guest_reaches_nothing_of_ours_and_nothing_outside() {
    everywhere("reach", |host| {
        let apart = host.isolation != Isolation::Tree;
        let log = host.logs.join("secret");
        std::fs::write(&log, "hush").unwrap();
        let says = |script: &str| {
            let (exit, output) =
                confined(host, Limits::default(), &format!("({script}) 2>/dev/null && echo DONE"));
            (exit, output)
        };
        let refused = |script: &str| {
            let (_, output) = says(script);
            assert!(!output.contains("DONE"), "{:?}: {script}: {output}", host.isolation);
        };
        let secret = log.display();
        refused(&format!("cat {secret}"));
        refused(&format!("echo x > {secret}"));
        refused(&format!("ls {} | grep -q secret", host.logs.display()));
        refused("unshare -U true");
        refused("unshare -r -m true");
        refused("mount -t tmpfs none /mnt");
        refused("umount /proc");
        refused("chroot / true");
        refused(&format!("kill -0 {}", std::process::id()));
        refused("dmesg | grep -q .");
        refused("ip link set lo down || ip link add dummy0 type dummy");
        if apart {
            refused("mknod /tmp/amoeba-test-device b 1 1");
            refused("cat /proc/1/environ");
            refused("ls -l /proc/1/fd/ | grep -q socket");
            refused("dd if=/dev/vda count=1 || dd if=/dev/sda count=1 || dd if=/dev/mem count=1");
            refused("echo 1 > /proc/sys/vm/drop_caches");
            refused("echo h > /proc/sysrq-trigger");
            refused(
                "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name tasks | head -50); do echo $$ > $f && break; done",
            );
            refused(
                "grep -v -e lo: -e 'Inter-' -e ' face ' -e 'tunl0:' -e 'sit0:' -e 'gre' -e 'erspan0:' -e 'ip6' -e '_vti' -e 'ip_vti' /proc/net/dev | grep -q :",
            );
            let (_, output) = says("ps -e -o pid= | wc -l");
            let count: u32 = output.lines().next().unwrap().trim().parse().unwrap();
            assert!(count < 10, "{output}");
            // What every program needs is there.
            let (_, output) = says(
                "echo x > /dev/null; head -c 4 /dev/urandom | wc -c; echo y > /dev/shm/z && cat /dev/shm/z && test -c /dev/ptmx; true",
            );
            assert!(output.starts_with("4\n"), "{output}");
        }
        assert_eq!(std::fs::read(&log).unwrap(), b"hush");
        // The kernel's socket is what it needs of ours.
        let (_, output) = says("test -S $AMOEBA_SOCKET");
        assert_eq!(output, "DONE\n");
    });
}

#[test]
fn one_guest_leaves_nothing_to_the_next() {
    for isolation in [Isolation::Best, Isolation::UserNamespace] {
        let Some(host) = Host::start("leftovers", isolation) else { continue };
        for _ in 0..6 {
            let script = "ls -A /dev/shm /dev/mqueue | grep -v :; ipcs -m | grep -c 0x; echo left > /dev/shm/left; ipcmk -M 4096 >/dev/null";
            let (_, output) = confined(&host, Limits::default(), script);
            assert_eq!(output.trim(), "0", "{isolation:?}");
        }
    }
}
