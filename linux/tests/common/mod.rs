//! A daemon in a thread, on a socket of its own, and an echo server.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use amoeba_cap::{GetPort, PutPort, SystemSecret};
use amoeba_linux::client::Client;
use amoeba_linux::kernel::{Config, Daemon, Stopper};
use amoeba_wire::Header;
use amoeba_world::{Listener, Message, Transactions};

/// A running daemon; dropping it stops it and removes its directory.
pub(crate) struct System {
    pub(crate) path: PathBuf,
    running: Option<(Stopper, JoinHandle<()>)>,
    bounds: fn(&mut Config),
}

impl System {
    pub(crate) fn start(name: &str) -> System {
        System::start_with(name, |_| ())
    }

    pub(crate) fn start_with(name: &str, bounds: fn(&mut Config)) -> System {
        let home = std::env::temp_dir().join(format!("amoeba-linux-{}-{name}", std::process::id()));
        let mut system = System { path: home.join("kernel.sock"), running: None, bounds };
        system.run();
        system
    }

    fn run(&mut self) {
        let mut config = Config::new(SystemSecret::from_bytes([42; 32]), amoeba_linux::entropy());
        (self.bounds)(&mut config);
        let mut daemon = Daemon::bind(&self.path, config).unwrap();
        let stopper = daemon.stopper();
        self.running = Some((stopper, std::thread::spawn(move || daemon.run().unwrap())));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((stopper, thread)) = self.running.take() {
            stopper.stop();
            thread.join().unwrap();
        }
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// A process of its own, as the daemon sees it.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.path)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(self.path.parent().expect("a socket lies in a directory"));
    }
}

/// Threads that send every request back, with `extra` set to 1.
pub(crate) struct Echo {
    pub(crate) port: PutPort,
    listener: Listener,
    threads: Vec<JoinHandle<()>>,
    served: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) fn start(system: &System, threads: usize, request_size_max: usize) -> Echo {
        let listener = system.client().listen(&port(1), request_size_max).unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let threads = (0..threads)
            .map(|_| {
                let (listener, served) = (listener.clone(), served.clone());
                std::thread::spawn(move || {
                    while let Ok(incoming) = listener.getreq() {
                        served.fetch_add(1, Ordering::SeqCst);
                        let header = Header { extra: 1, ..Header::NULL };
                        incoming.reply.send(Message { header, data: incoming.request.data });
                    }
                })
            })
            .collect();
        Echo { port: listener.put_port(), listener, threads, served }
    }

    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.listener.close();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

pub(crate) fn port(number: u8) -> GetPort {
    GetPort::from_bytes([number; 6])
}

pub(crate) fn request(port: PutPort, data: Vec<u8>) -> Message {
    Message { header: Header { port, command: 2000, ..Header::NULL }, data }
}
