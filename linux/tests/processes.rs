//! Channels between real processes: what is streamed past the daemon, and what a killed one leaves.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use amoeba_cap::{PutPort, SystemSecret};
use amoeba_linux::client::Client;
use amoeba_linux::kernel::{Config, Daemon};
use amoeba_linux::socket::{Admin, Administered};
use amoeba_wire::{DATA_SIZE_MAX, Header, Status};
use amoeba_world::{Error, Message, TransOptions, Transactions};
use common::{port, request};

const ROLE: &str = "AMOEBA_TEST_ROLE";
const SOCKET: &str = "AMOEBA_TEST_SOCKET";

/// What a request asks of the server, by its `extra`.
const GIVE: u16 = 1;
const HANG: u16 = 2;

/// Not a test of its own: what the children of the others do.
#[test]
fn child() {
    let (Ok(role), Some(socket)) = (std::env::var(ROLE), std::env::var_os(SOCKET)) else { return };
    let socket = PathBuf::from(socket);
    match role.as_str() {
        "daemon" => {
            let secret = SystemSecret::from_bytes([42; 32]);
            let mut config = Config::new(secret, amoeba_linux::entropy());
            config.buffered_max = 8 << 20;
            Daemon::bind(&socket, config).unwrap().run().unwrap();
        }
        "server" => serve(&Client::new(&socket)),
        "client" => loop {
            let _ = Client::new(&socket).trans(request(put(), vec![]), &TransOptions::default());
            let client = Client::new(&socket);
            while client.trans(request(put(), vec![1]), &TransOptions::default()).is_ok() {}
        },
        other => panic!("no role {other}"),
    }
}

fn put() -> PutPort {
    SystemSecret::from_bytes([42; 32]).put_port(&port(1))
}

fn serve(client: &Client) {
    let listener = client.listen(&port(1), DATA_SIZE_MAX).unwrap();
    while let Ok(incoming) = listener.getreq() {
        let received = incoming.request.data.len() as u64;
        let data = match incoming.request.header.extra {
            GIVE => vec![7; DATA_SIZE_MAX],
            HANG => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            _ => [received.to_le_bytes(), u64::from(std::process::id()).to_le_bytes()].concat(),
        };
        incoming.reply.send(Message { header: Header::NULL, data });
    }
}

/// A process of the test; dropping it kills it.
struct Process(Child);

impl Process {
    fn start(role: &str, socket: &Path) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.env(ROLE, role).env(SOCKET, socket).spawn().unwrap())
    }

    /// The most memory it has had, in bytes.
    fn memory_max(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon and a server in processes of their own.
struct System {
    server: Process,
    daemon: Process,
    socket: PathBuf,
}

impl System {
    fn start(name: &str) -> System {
        let home = std::env::temp_dir().join(format!("amoeba-processes-{}-{name}", std::process::id()));
        let socket = home.join("kernel.sock");
        let daemon = Process::start("daemon", &socket);
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "the daemon does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
        System { server: Process::start("server", &socket), daemon, socket }
    }

    /// A client that has a channel.
    fn client(&self) -> Client {
        let client = Client::new(&self.socket);
        let before = counter(&client, "channels accepted");
        while counter(&client, "channels accepted") == before {
            client.trans(request(put(), vec![]), &TransOptions::default()).unwrap();
        }
        client
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.socket.parent().expect("a socket lies in a directory"));
    }
}

fn counter(client: &Client, name: &str) -> u64 {
    let status = client.kernel_status().unwrap();
    let line = status.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.split_whitespace().last()?.parse().ok()).unwrap()
}

fn ask(client: &Client, what: u16, data: Vec<u8>) -> Result<Message, Error> {
    let mut message = request(put(), data);
    message.header.extra = what as _;
    client.trans(message, &TransOptions::default())
}

#[test]
fn a_gibibyte_each_way_leaves_no_trace_in_the_daemon() {
    let system = System::start("gibibyte");
    let client = system.client();
    // A server that is held up for long is asked through the daemon, where a gibibyte does not fit: then once more.
    let past_the_daemon = |what, size| {
        (0..10).find_map(|_| {
            let here = counter(&client, "transactions here");
            let reply = ask(&client, what, vec![3; size]);
            (counter(&client, "transactions here") == here).then(|| reply.unwrap())
        })
    };
    let reply = past_the_daemon(0, DATA_SIZE_MAX).unwrap();
    assert_eq!(reply.data[..8], (DATA_SIZE_MAX as u64).to_le_bytes());
    let reply = past_the_daemon(GIVE, 0).unwrap();
    assert!(reply.data.len() == DATA_SIZE_MAX && reply.data.iter().step_by(4093).all(|byte| *byte == 7));
    assert!(system.daemon.memory_max() < 64 << 20, "{}", system.daemon.memory_max());
}

#[test]
fn a_server_killed_while_it_executes_is_noticed() {
    let mut system = System::start("killed");
    let client = system.client();
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || ask(&client, HANG, vec![])
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    system.server = Process::start("server", &system.socket); // the old one is killed
    assert_eq!(waiting.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    // The new one serves, and gets a channel too.
    let reply = ask(&client, 0, vec![]).unwrap();
    assert_eq!(reply.data[8..], u64::from(system.server.0.id()).to_le_bytes());
    assert_eq!(counter(&client, "channels revoked"), 1);
}

/// Stops or continues a process of the test.
fn signal(process: &Process, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_server_that_is_stunned_is_left_at_once_and_serves_when_it_runs_on() {
    let system = System::start("stunned");
    let (client, idle) = (system.client(), system.client());
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || ask(&client, HANG, vec![])
    });
    std::thread::sleep(Duration::from_millis(50));
    signal(&system.server, rustix::process::Signal::STOP);
    let secret = SystemSecret::from_bytes([42; 32]);
    let stunned = Admin::Stunned(vec![system.server.0.id()]);
    assert_eq!(client.administer(&secret, &stunned), Ok(Administered::Done));
    assert_eq!(waiting.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    assert_eq!(counter(&client, "channels"), 0);
    // Another process of the port serves those that the first does not.
    let other = Process::start("server", &system.socket);
    for client in [&client, &idle] {
        let reply = ask(client, 0, vec![]).unwrap();
        assert_eq!(reply.data[8..], u64::from(other.0.id()).to_le_bytes());
    }
    // Where all of them stand still, what is asked waits for one that runs on.
    signal(&other, rustix::process::Signal::STOP);
    let stunned = Admin::Stunned(vec![other.0.id()]);
    assert_eq!(client.administer(&secret, &stunned), Ok(Administered::Done));
    let waiting = std::thread::spawn(move || ask(&idle, 0, vec![]));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!waiting.is_finished());
    signal(&other, rustix::process::Signal::CONT);
    assert_eq!(waiting.join().unwrap().unwrap().data[8..], u64::from(other.0.id()).to_le_bytes());
    let thieves = Admin::Stunned(vec![1]);
    let refused = client.administer(&SystemSecret::from_bytes([1; 32]), &thieves);
    assert_eq!(refused, Err(Error::Refused(Status::STD_DENIED)));
}

#[test]
fn clients_killed_at_any_moment_leave_nothing() {
    let system = System::start("clients");
    let client = system.client();
    for round in 0..8u64 {
        let crowd: Vec<_> = (0..3).map(|_| Process::start("client", &system.socket)).collect();
        std::thread::sleep(Duration::from_millis(20 + 7 * round));
        drop(crowd);
    }
    let started = Instant::now();
    while counter(&client, "channels") > 1 {
        assert!(started.elapsed() < Duration::from_secs(30), "channels of dead clients stay");
        std::thread::sleep(Duration::from_millis(5));
    }
    ask(&client, 0, vec![1]).unwrap();
}

#[test]
fn a_daemon_killed_under_a_channel_is_replaced() {
    let mut system = System::start("replaced");
    let client = system.client();
    system.daemon.0.kill().unwrap();
    system.daemon.0.wait().unwrap();
    system.daemon = Process::start("daemon", &system.socket);
    for _ in 0..50 {
        let started = Instant::now();
        while let Err(error) = ask(&client, 0, vec![2]) {
            assert!(started.elapsed() < Duration::from_secs(60), "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
