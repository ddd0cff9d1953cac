//! The example's two programs, as processes, beside a kernel daemon of the test's own.

use std::io::{BufRead, BufReader};
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

fn send(socket: &Path, port: &str, text: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_datagram-send"));
    command.args([port, text]).env("AMOEBA_SOCKET", socket).output().unwrap()
}

#[test]
fn a_program_hears_what_another_sends_and_answers() {
    let directory = std::env::temp_dir().join(format!("amoeba-datagram-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let socket = directory.join("kernel.sock");
    let config = Config::new(SystemSecret::from_bytes([7; 32]), amoeba_linux::entropy());
    let mut daemon = Daemon::bind(&socket, config).unwrap();
    let stopper = daemon.stopper();
    let kernel = std::thread::spawn(move || daemon.run());

    let listener = Command::new(env!("CARGO_BIN_EXE_datagram-listen"))
        .env("AMOEBA_SOCKET", &socket)
        .stdout(Stdio::piped())
        .spawn();
    let mut listener = Killed(listener.unwrap());
    let mut lines = BufReader::new(listener.0.stdout.take().unwrap()).lines();
    let port = lines.next().unwrap().unwrap();
    for text in ["hello", "and again"] {
        let sent = send(&socket, &port, text);
        assert_eq!(
            String::from_utf8_lossy(&sent.stdout),
            format!("{} bytes arrived\n", text.len()),
            "{sent:?}"
        );
        let line = lines.next().unwrap().unwrap();
        assert!(line.ends_with(&format!(": {text}")), "{line}");
    }

    drop(listener);
    assert!(!send(&socket, &port, "nobody").status.success());
    stopper.stop();
    kernel.join().unwrap().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}
