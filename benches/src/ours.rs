//! Our side of a benchmark: a private system for the length of the run, and a server in a process of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use amoeba_cap::{GetPort, PutPort};
use amoeba_wire::{Command as Number, Header, Status};
use amoeba_world::{Message, TransOptions, World};
use anyhow::{Context, Result, anyhow, ensure};

use crate::limits::BULK;

/// First argument of the program when it is the server.
pub(crate) const SERVE: &str = "serve";

/// Asks for nothing.
pub(crate) const COMMAND_NULL: Number = Number(9001);
/// Asks for [`BULK`] bytes.
pub(crate) const COMMAND_BULK: Number = Number(9002);

/// A private system in a folder of its own; it ends with this value.
pub(crate) struct System {
    folder: PathBuf,
    binary: PathBuf,
}

impl System {
    /// Starts one with the binary that `AMOEBA_BIN` names.
    pub(crate) fn up() -> Result<System> {
        let binary = std::env::var_os("AMOEBA_BIN").context("AMOEBA_BIN names the binary to measure")?;
        let folder = std::env::temp_dir().join(format!("amoeba-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let system = System { folder, binary: binary.into() };
        let status = system.amoeba(&["up"]).status()?;
        ensure!(status.success(), "`amoeba up` ended with {status}");
        Ok(system)
    }

    /// The binary with these arguments, in this system.
    pub(crate) fn amoeba(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("AMOEBA_STATE", &self.folder).env("HOME", &self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// The kernel daemon's socket.
    pub(crate) fn socket(&self) -> Result<PathBuf> {
        let kernel = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "kernel");
        let found = sockets(&self.folder);
        found
            .iter()
            .find(|path| kernel(path))
            .or(found.first())
            .cloned()
            .context("the kernel daemon has no socket")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = self.amoeba(&["down"]).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() => found.extend(sockets(&entry.path())),
            _ => {}
        }
    }
    found.sort();
    found
}

/// A server in another process that answers [`COMMAND_NULL`] and [`COMMAND_BULK`], and a client of it in this one.
pub(crate) struct Server {
    world: World,
    port: PutPort,
    child: Child,
}

impl Server {
    /// Starts the server on the system's kernel.
    pub(crate) fn start(system: &System) -> Result<Server> {
        let socket = system.socket()?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout was piped")).read_line(&mut line)?;
        let port =
            line.trim().parse().map_err(|error| anyhow!("the server said `{}`: {error}", line.trim()))?;
        Ok(Server { world: amoeba_linux::connect(&socket), port, child })
    }

    /// One transaction whose reply has `size` bytes of data.
    pub(crate) fn transaction(&self, command: Number, size: usize) -> Result<()> {
        let header = Header { port: self.port, command: command.0, ..Header::NULL };
        let reply =
            self.world.transactions.trans(Message { header, data: Vec::new() }, &TransOptions::default())?;
        ensure!(reply.header.status() == Status::STD_OK, "the server says {}", reply.header.status());
        ensure!(reply.data.len() == size, "{} bytes came back, not {size}", reply.data.len());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program does when it was started as the server: it prints its put-port, then serves until it is killed.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    let world = amoeba_linux::connect(socket);
    let port = GetPort::from_bytes(amoeba_world::random(world.entropy.as_ref()));
    let listener = world.transactions.listen(&port, 0)?;
    println!("{}", listener.put_port());
    while let Ok(incoming) = listener.getreq() {
        let reply = match incoming.request.header.command() {
            COMMAND_NULL => Message::status(Status::STD_OK),
            COMMAND_BULK => Message { data: vec![7; BULK], ..Message::status(Status::STD_OK) },
            _ => Message::status(Status::STD_COMBAD),
        };
        incoming.reply.send(reply);
    }
    Ok(())
}
