//! A Bullet server in a process of its own under load: its memory keeps to the setting, and nobody starves.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_bullet::{FormatOptions, Settings};
use amoeba_cap::{Capability, SystemSecret};
use amoeba_linux::FileDisk;
use amoeba_linux::kernel::{Config, Daemon};
use amoeba_stubs::bullet::{self, COMMIT, SAFETY};
use amoeba_stubs::bullet_stream::StreamError;
use amoeba_stubs::{bullet_file, bullet_stream, standard};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

const HOME: &str = "AMOEBA_TEST_HOME";
const MIB: u64 = 1 << 20;
const CACHE_SIZE: u64 = 32 * MIB;
const CLIENTS: u64 = 4;
/// What requests and replies on their way take besides: a piece each way for every thread, and what the heap keeps.
const SLACK: u64 = 48 * MIB;
/// Bytes of files that each client makes: together many times the setting.
const MADE_SIZE: u64 = 96 * MIB;

/// Not a test of its own: the server of the one below.
#[test]
fn child() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    amoeba_linux::memory::keep_for_messages();
    let world = amoeba_linux::connect(&home.join("kernel.sock"));
    let disk = FileDisk::open(&home.join("image")).unwrap();
    amoeba_bullet::format(&disk, &*world.entropy, &FormatOptions::default()).unwrap();
    let settings = Settings { cache_size: CACHE_SIZE, ..Settings::default() };
    let running = amoeba_bullet::start(&world, Arc::new(disk), settings, 8).unwrap();
    let bytes = running.super_capability().to_bytes();
    println!("capability {}", bytes.map(|byte| byte.to_string()).join(" "));
    running.join().unwrap();
}

/// The server; dropping it kills it and removes the folder.
struct Server {
    child: Child,
    /// Kept open: after a minute the harness of the child says that it still runs, and would end where nobody reads.
    _output: BufReader<ChildStdout>,
    home: PathBuf,
    capability: Capability,
}

impl Server {
    fn start(home: PathBuf) -> Server {
        std::fs::File::create(home.join("image")).and_then(|image| image.set_len(1024 * MIB)).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(HOME, &home).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.by_ref().lines().map_while(Result::ok);
        let bytes = lines.find_map(|line| {
            let (_, numbers) = line.split_once("capability ")?;
            Some(numbers.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<u8>>())
        });
        let capability = Capability::from_bytes(bytes.unwrap().try_into().unwrap());
        Server { child, _output: output, home, capability }
    }

    /// The most memory it has had.
    fn memory_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn daemon(home: &Path) -> std::thread::JoinHandle<()> {
    let config = Config::new(SystemSecret::from_bytes([42; 32]), amoeba_linux::entropy());
    let mut daemon = Daemon::bind(&home.join("kernel.sock"), config).unwrap();
    std::thread::spawn(move || daemon.run().unwrap())
}

/// The bytes of a client's file.
fn bytes_of(client: u64, number: u64, size: u64) -> Vec<u8> {
    let seed = client * 1_000_003 + number;
    (0..size).map(|at| (seed.wrapping_mul(at / 512 + 1) >> 3) as u8).collect()
}

/// Makes files of many sizes, durable and not, reads them again and keeps some; leaves some uncommitted.
fn load(world: &World, server: &Capability, client: u64, refused: &AtomicU64) {
    let mut files: Vec<(Capability, u64, u64)> = Vec::new();
    let mut drafts: Vec<(Capability, u64, u64)> = Vec::new();
    let (mut made, mut number) = (0, 0u64);
    while made < MADE_SIZE {
        number += 1;
        let size = [1000, 100_000, MIB / 2, 3 * MIB, 7 * MIB][(number % 5) as usize] + client;
        let bytes = bytes_of(client, number, size);
        let flags = if number.is_multiple_of(2) { COMMIT | SAFETY } else { COMMIT };
        let file = loop {
            match bullet_stream::write_file(world, server, flags, &mut &bytes[..]) {
                Ok(file) => break file,
                // All clients' uncommitted files fill their half: each gives one of its own up, and tries again.
                Err(StreamError::Server(Error::Refused(Status::STD_NOMEM))) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    match drafts.pop() {
                        Some((draft, ..)) => standard::destroy(world, &draft).unwrap(),
                        None => std::thread::yield_now(),
                    }
                }
                other => panic!("{other:?}"),
            }
        };
        files.push((file, number, size));
        made += size;
        let draft = bullet::create(world, server, 0, bytes_of(client, number, size.min(MIB)));
        match draft {
            Ok(draft) => drafts.push((draft, number, size.min(MIB))),
            Err(Error::Refused(Status::STD_NOMEM)) => drop(refused.fetch_add(1, Ordering::Relaxed)),
            other => panic!("{other:?}"),
        }
        for step in [1, 3, 7] {
            let (file, number, size) = files[(number as usize * step) % files.len()];
            let open = bullet_file::open(world, &file).unwrap();
            let mut bytes = vec![0; size as usize];
            assert_eq!(open.read_at(world, 0, &mut bytes).unwrap() as u64, size);
            assert!(bytes == bytes_of(client, number, size), "file {number} of {size} bytes");
        }
        if drafts.len() > 4 {
            let (draft, number, size) = drafts.remove(0);
            assert_eq!(bullet::modify(world, &draft, COMMIT, size, Vec::new()), Ok(draft), "it was kept");
            let bytes = bullet::read(world, &draft, 0, size as u32).unwrap();
            assert!(bytes == bytes_of(client, number, size));
            standard::destroy(world, &draft).unwrap();
        }
    }
    for (draft, ..) in drafts {
        standard::destroy(world, &draft).unwrap();
    }
}

#[test]
fn the_memory_of_a_server_keeps_to_its_setting_under_load() {
    let home = std::env::temp_dir().join(format!("amoeba-bullet-memory-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let _daemon = daemon(&home); // ends with the test
    let server = Server::start(home);
    let world = amoeba_linux::connect(&server.home.join("kernel.sock"));
    bullet::size(&world, &bullet::create(&world, &server.capability, COMMIT, vec![1]).unwrap()).unwrap();
    let before = server.memory_max();
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (world, server, refused) = (&world, &server, &refused);
            scope.spawn(move || load(world, &server.capability, client, refused));
        }
    });
    let most = server.memory_max();
    let bound = before + CACHE_SIZE + SLACK;
    assert!(most <= bound, "{} MiB, more than {} MiB", most / MIB, bound / MIB);
    println!("at most {} MiB, {} refused", most / MIB, refused.load(Ordering::Relaxed));
    let usage = bullet::usage(&world, &server.capability).unwrap();
    assert_eq!(usage.uncommitted_files, 0);
    assert!(usage.cached + usage.unwritten <= CACHE_SIZE);
}
