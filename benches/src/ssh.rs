//! What people use today to run a command on another host: ssh with a connection that is kept, to a server of our own on the
//! other throw-away host.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::dispatch::one_at_a_time;
use crate::ours::{System, enter};
use crate::report::Unit;
use crate::rounds::{Beside, Group, Measure, Scope};
use crate::sight::Sight;

/// Where systems have the server, which must be called by its whole path.
const SERVERS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];
/// What a server of root's wants to be there.
const SERVERS_DIRECTORY: &str = "/run/sshd";
/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// What ours is measured beside, and how many times slower than that it may be.
const NAME: &str = "ssh, a kept connection";
const TARGET: f64 = 1.0;

/// A server on the other host, and a connection to it that is kept.
pub(crate) struct Ssh {
    /// Keys, configuration and the client's socket.
    folder: PathBuf,
    server: Child,
    destination: String,
}

impl Ssh {
    /// Starts the server and connects.
    ///
    /// # Errors
    /// There is no ssh here, or it does not start.
    pub(crate) fn start(system: &System) -> Result<Ssh> {
        let server =
            SERVERS.iter().map(Path::new).find(|path| path.exists()).context("there is no sshd here")?;
        let folder = std::env::temp_dir().join(format!("amoeba-bench-ssh-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        for key in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            succeed(&mut command)?;
        }
        let user = Command::new("id").arg("-un").output()?.stdout;
        let user = String::from_utf8(user)?.trim().to_owned();
        let (server, port) = serve(system, server, &folder)?;
        let destination = format!("ssh://{user}@{}:{port}", system.address(1));
        let ssh = Ssh { folder, server, destination };
        listens(system.address(1), port)?;
        succeed(ssh.client().args(["-M", "-N", "-f", "-o", "ControlPersist=yes"]).arg(&ssh.destination))?;
        Ok(ssh)
    }

    /// Runs a command line there.
    fn run(&self, line: &str) -> Result<()> {
        succeed(self.client().arg(&self.destination).arg(line))
    }

    fn client(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        command.arg("-i").arg(self.folder.join("user")).arg("-S").arg(self.folder.join("socket"));
        command
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.client().args(["-O", "exit"]).arg(&self.destination).stderr(Stdio::null()).status();
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The command line of ours beside ssh's, both to the other host, with its own files and with the caller's.
pub(crate) fn groups<'a>(
    system: &'a System,
    sight: &'a Sight,
    ssh: &'a Ssh,
    scope: &Scope,
) -> Vec<Group<'a>> {
    let (time, host) = (scope.time, system.name(1));
    let mut groups = Vec::new();
    let mut group = |name: &str, ours: Measure<'a>, measure: Measure<'a>| {
        let besides = vec![Beside { name: NAME, target: Some(TARGET), measure }];
        let value = |figures: &crate::harness::Figures| figures.p50 / 1e3;
        groups.push(Group {
            name: name.into(),
            unit: Unit::Millis,
            value,
            ours,
            path: &["requests"],
            besides,
        });
    };
    let ours = move || one_at_a_time(time, || crate::dispatch::command(system, host));
    let theirs = move || one_at_a_time(time, || ssh.run("true"));
    group("amoeba run --view host, or ssh: true", Box::new(ours), Box::new(theirs));
    let ours = move || one_at_a_time(time, || sight.command(system, host));
    let theirs = move || one_at_a_time(time, || ssh.run(&sight.line()));
    group("amoeba run --view mine, or ssh: 1 MB", Box::new(ours), Box::new(theirs));
    groups
}

/// Starts the server on the other host; gives the port that it is to listen on.
fn serve(system: &System, server: &Path, folder: &Path) -> Result<(Child, u16)> {
    let (address, directory) = (system.address(1), system.directory(1).to_owned());
    // What is there already, or is not ours to make, the server says itself.
    let _ = fs::create_dir_all(SERVERS_DIRECTORY);
    let (server, folder) = (server.to_owned(), folder.to_owned());
    // Whoever enters a network does so with what it starts.
    let started = thread::spawn(move || {
        enter(&directory)?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let (host_key, user_key) = (folder.join("host"), folder.join("user.pub"));
        // An empty home: what a shell reads there at its start is not ssh's.
        let home = folder.join("home");
        fs::create_dir_all(&home)?;
        let text = format!(
            "SetEnv HOME={}\nListenAddress {address}:{port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n",
            home.display(),
            host_key.display(),
            user_key.display()
        );
        let configuration = folder.join("config");
        fs::write(&configuration, text)?;
        let mut command = Command::new(server);
        command.arg("-D").arg("-E").arg(folder.join("log")).arg("-f").arg(configuration);
        Ok((command.stdin(Stdio::null()).spawn().context("starting sshd")?, port))
    });
    started.join().expect("it does not panic")
}

fn listens(address: Ipv4Addr, port: u16) -> Result<()> {
    let begin = Instant::now();
    while TcpStream::connect((address, port)).is_err() {
        if begin.elapsed() > PATIENCE {
            bail!("sshd does not listen");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| command.get_program().display().to_string())?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    Ok(())
}
