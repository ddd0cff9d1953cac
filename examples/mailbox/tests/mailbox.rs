//! The example's two programs, as processes, beside a kernel daemon of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use amoeba_cap::SystemSecret;
use amoeba_linux::kernel::{Config, Daemon};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(socket: &Path, verb: &str, capability: &str, input: &str) -> Output {
    let mut client = Command::new(env!("CARGO_BIN_EXE_mailbox-client"))
        .args([verb, capability])
        .env("AMOEBA_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    client.wait_with_output().unwrap()
}

#[test]
fn two_programs_share_a_private_service_by_its_capabilities() {
    let directory = std::env::temp_dir().join(format!("amoeba-mailbox-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let socket = directory.join("kernel.sock");
    let config = Config::new(SystemSecret::from_bytes([7; 32]), amoeba_linux::entropy());
    let mut daemon = Daemon::bind(&socket, config).unwrap();
    let stopper = daemon.stopper();
    let kernel = std::thread::spawn(move || daemon.run());

    let server = Command::new(env!("CARGO_BIN_EXE_mailbox-server"))
        .env("AMOEBA_SOCKET", &socket)
        .stdout(Stdio::piped())
        .spawn();
    let mut server = Killed(server.unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let (post, take) = (lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap());

    assert!(client(&socket, "post", &post, "first letter").status.success());
    assert!(client(&socket, "post", &post, "second letter").status.success());
    assert_eq!(client(&socket, "take", &take, "").stdout, b"first letter");
    let denied = client(&socket, "take", &post, "");
    assert!(!denied.status.success() && denied.stdout.is_empty());
    assert!(String::from_utf8_lossy(&denied.stderr).contains("STD_DENIED"), "{denied:?}");
    assert_eq!(client(&socket, "take", &take, "").stdout, b"second letter");
    assert!(!client(&socket, "take", &take, "").status.success());

    drop(server);
    stopper.stop();
    kernel.join().unwrap().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}
