//! A port this process listens on, across restarts of the daemon.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_wire::{DATA_SIZE_MAX, Status};
use amoeba_world::{Caller, Incoming, Listen, ListenError, Message, PutReply, ReplyTo};

use super::session::{Refused, Session};
use super::{Absence, Client, LISTENER_ABSENCE_MAX};
use crate::socket::{Stream, ToKernel, ToProcess};

/// See the module.
pub(super) struct PortListener {
    client: Client,
    get_port: GetPort,
    put_port: PutPort,
    request_size_max: usize,
    state: Mutex<State>,
    closing: Condvar,
}

struct State {
    closed: bool,
    /// The session in which we last said that we listen.
    session: u64,
    /// The kernel may not know it, or have no room: it is to be said again.
    doubtful: bool,
}

/// Listens on `port`.
pub(super) fn listen(
    client: &Client,
    port: &GetPort,
    request_size_max: usize,
) -> Result<PortListener, Refused> {
    let session = client.session()?;
    let put_port = say_listen(&session, port, request_size_max)?;
    Ok(PortListener {
        client: client.clone(),
        get_port: port.clone(),
        put_port,
        request_size_max,
        state: Mutex::new(State { closed: false, session: session.number, doubtful: false }),
        closing: Condvar::new(),
    })
}

fn say_listen(session: &Session, port: &GetPort, request_size_max: usize) -> Result<PutPort, Refused> {
    let frame =
        ToKernel::Listen { port: port.clone(), request_size_max: request_size_max.min(DATA_SIZE_MAX) };
    match session.control(&frame)? {
        ToProcess::Port { port } => Ok(port),
        ToProcess::Error { error } => Err(Refused::Status(error.status())),
        _ => Err(Refused::Absent),
    }
}

impl PortListener {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session that runs now, listening in it.
    fn listening(&self) -> Result<Arc<Session>, Refused> {
        let session = self.client.session()?;
        let mut state = self.state();
        if !state.closed && (state.doubtful || state.session != session.number) {
            let port = say_listen(&session, &self.get_port, self.request_size_max)?;
            if port != self.put_port {
                tracing::error!("the kernel now has another secret: {port} instead of {}", self.put_port);
                return Err(Refused::Status(Status::RPC_BADPORT));
            }
            (state.session, state.doubtful) = (session.number, false);
        }
        Ok(session)
    }

    fn try_getreq(&self) -> Result<Incoming, Refused> {
        let session = self.listening()?;
        let stream = session.take()?;
        match stream.ask(&ToKernel::Getreq { port: self.put_port }) {
            Ok(ToProcess::Request { request, caller, message }) => {
                session.give(stream.clone());
                Ok(incoming(stream, request, caller, message))
            }
            Ok(ToProcess::Error { error }) => {
                session.give(stream);
                self.state().doubtful = true;
                Err(Refused::Status(error.status()))
            }
            _ => {
                session.distrust();
                Err(Refused::Absent)
            }
        }
    }

    /// Waits before the next try; false when the listener was closed meanwhile.
    fn rest(&self, pause: Duration) -> bool {
        let state = self.state();
        let woken = self.closing.wait_timeout_while(state, pause, |state| !state.closed);
        !woken.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

fn incoming(stream: Arc<Stream>, request: u64, caller: Caller, message: Message) -> Incoming {
    Incoming { caller, request: message, reply: ReplyTo::new(Box::new(Duty { stream, request })) }
}

impl Listen for PortListener {
    fn put_port(&self) -> PutPort {
        self.put_port
    }

    fn getreq(&self) -> Result<Incoming, ListenError> {
        let mut absence = None;
        while !self.state().closed {
            match self.try_getreq() {
                Ok(incoming) => return Ok(incoming),
                Err(_) => {
                    let absence = absence.get_or_insert_with(|| Absence::new(LISTENER_ABSENCE_MAX));
                    let pause = absence.pause().ok_or(ListenError)?;
                    if !self.rest(pause) {
                        break;
                    }
                }
            }
        }
        Err(ListenError)
    }

    fn close(&self) {
        let said = {
            let mut state = self.state();
            if std::mem::replace(&mut state.closed, true) {
                return;
            }
            state.session
        };
        self.closing.notify_all();
        // In a session that has ended there is nothing to undo, and its threads find out by themselves.
        if let Ok(session) = self.client.session()
            && session.number == said
        {
            let _ = session.control(&ToKernel::Unlisten { port: self.put_port });
        }
    }
}

impl Drop for PortListener {
    fn drop(&mut self) {
        self.close();
    }
}

/// One request to be answered. It keeps its connection open, for the kernel fails what a closed one had delivered.
struct Duty {
    stream: Arc<Stream>,
    request: u64,
}

impl PutReply for Duty {
    fn putrep(self: Box<Self>, mut reply: Message) {
        if reply.data.len() > DATA_SIZE_MAX {
            reply = Message::status(Status::STD_OVERFLOW);
        }
        // A daemon that is gone has told the client.
        let _ = self.stream.send(&ToKernel::Putrep { request: self.request, message: reply });
    }

    fn fail(self: Box<Self>) {
        let _ = self.stream.send(&ToKernel::Fail { request: self.request });
    }
}

#[cfg(test)]
mod tests {
    use amoeba_cap::SystemSecret;

    use super::*;
    use crate::OsEntropy;
    use crate::kernel::{Config, Daemon};

    fn ports(client: &Client) -> String {
        let status = client.kernel_status().unwrap();
        let line = status.lines().find(|line| line.starts_with("ports ")).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    }

    #[test]
    fn closing_after_a_refused_getreq_still_ends_the_listening() {
        let directory = std::env::temp_dir().join(format!("amoeba-listener-{}", std::process::id()));
        let path = directory.join("kernel");
        let config = Config::new(SystemSecret::from_bytes([3; 32]), Arc::new(OsEntropy));
        let mut daemon = Daemon::bind(&path, config).unwrap();
        let stopper = daemon.stopper();
        let running = std::thread::spawn(move || daemon.run());
        let client = Client::new(&path);
        let get_port = GetPort::from_bytes([8; 6]);
        let listener = listen(&client, &get_port, 100).unwrap();
        let session = client.session().unwrap();
        session.control(&ToKernel::Unlisten { port: listener.put_port }).unwrap();
        assert!(listener.try_getreq().is_err(), "the kernel does not know the port");
        say_listen(&session, &get_port, 100).unwrap();
        assert_eq!(ports(&client), "1");
        listener.close();
        assert_eq!(ports(&client), "0");
        stopper.stop();
        let _ = running.join().unwrap();
        let _ = std::fs::remove_dir_all(directory);
    }
}
