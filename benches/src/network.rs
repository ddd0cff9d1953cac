//! What the network between two throw-away hosts can do with no Amoeba at all: UDP and TCP to a program on the other.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::limits::BULK;
use crate::ours::System;
use crate::report::median_time;

/// First argument of the program when it is the far end on the other host.
pub(crate) const FAR_HOST: &str = "far-host";

const HEADER: usize = 32;
/// The first byte of a request that asks for [`BULK`] bytes.
const WISH_BULK: u8 = 1;
/// A lost packet ends the measurement: on one machine none should be.
const PATIENCE: Duration = Duration::from_secs(5);

/// The far end, a process on the other host.
struct FarHost {
    address: (Ipv4Addr, u16),
    child: Child,
}

impl FarHost {
    fn start(system: &System, kind: &str) -> Result<FarHost> {
        let address = system.address(1);
        let mut child = Command::new(std::env::current_exe()?)
            .args([FAR_HOST, kind, &address.to_string()])
            .arg(system.directory(1))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the far end")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout was piped")).read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| format!("the far end said `{}`", line.trim()))?;
        Ok(FarHost { address: (address, port), child })
    }
}

impl Drop for FarHost {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program does when it was started as the far end: prints its port, then answers until it is killed.
pub(crate) fn far_host(kind: &str, address: &str, directory: &str) -> Result<()> {
    crate::ours::enter(directory.as_ref())?;
    let address: Ipv4Addr = address.parse()?;
    match kind {
        "udp" => {
            let socket = UdpSocket::bind((address, 0))?;
            println!("{}", socket.local_addr()?.port());
            let mut request = [0; HEADER];
            loop {
                let (size, from) = socket.recv_from(&mut request)?;
                socket.send_to(&request[..size], from)?;
            }
        }
        "tcp" => {
            let listener = TcpListener::bind((address, 0))?;
            println!("{}", listener.local_addr()?.port());
            loop {
                answer(listener.accept()?.0)?;
            }
        }
        other => bail!("no far end `{other}`"),
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let bulk = vec![7; BULK];
    let mut request = [0; HEADER];
    loop {
        match stream.read_exact(&mut request) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        stream.write_all(if request[0] == WISH_BULK { &bulk } else { &bulk[..HEADER] })?;
    }
}

/// A round trip of a header by UDP.
pub(crate) fn udp(system: &System, count: usize) -> Result<Duration> {
    let far = FarHost::start(system, "udp")?;
    let socket = UdpSocket::bind((system.address(0), 0))?;
    socket.connect(far.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut reply = [0; HEADER];
    median_time(count, || {
        socket.send(&[0; HEADER])?;
        ensure!(socket.recv(&mut reply)? == HEADER, "another packet came");
        Ok(())
    })
}

/// A round trip of a header by TCP.
pub(crate) fn tcp(system: &System, count: usize) -> Result<Duration> {
    stream(system, count, 0, HEADER)
}

/// A bulk reply by TCP.
pub(crate) fn tcp_bulk(system: &System, count: usize) -> Result<Duration> {
    stream(system, count, WISH_BULK, BULK)
}

fn stream(system: &System, count: usize, wish: u8, reply_size: usize) -> Result<Duration> {
    let far = FarHost::start(system, "tcp")?;
    let mut stream = TcpStream::connect(far.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reply = vec![0; reply_size];
    median_time(count, || {
        stream.write_all(&[wish; HEADER])?;
        stream.read_exact(&mut reply)?;
        Ok(())
    })
}
