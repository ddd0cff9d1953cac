//! Endpoints of datagrams of this process: each is a connection of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{DATAGRAM_SIZE_MAX, Datagram, Datagrams, Destination, Error, ListenError};

use super::session::{Refused, Session};
use super::{ABSENCE_MAX, Absence, Client, lock};
use crate::socket::{Lost, Stream, ToKernel, ToProcess};
use crate::threads::now;

/// Whoever waits for longer waits as long as this.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// See the module.
pub(super) struct Open {
    /// The session it was opened in, without which it is nothing.
    session: Arc<Session>,
    stream: Arc<Stream>,
    address: Address,
    put_port: Option<PutPort>,
    receiving: Mutex<Receiving>,
}

struct Receiving {
    /// The kernel was asked for a datagram and has not given it yet.
    asked: bool,
    /// The kernel is gone, or the endpoint is closed.
    over: bool,
}

/// Opens an endpoint.
pub(super) fn open(client: &Client, port: Option<&GetPort>) -> Result<Open, Error> {
    let mut absence = Absence::new(ABSENCE_MAX);
    loop {
        match try_open(client, port) {
            Ok(open) => return Ok(open),
            Err(refused) => absence.wait_after(refused)?,
        }
    }
}

fn try_open(client: &Client, port: Option<&GetPort>) -> Result<Open, Refused> {
    let session = client.session()?;
    let stream = session.take()?;
    match stream.ask(&ToKernel::Open { port: port.cloned() }) {
        Ok(ToProcess::Opened { address, port: put_port }) => {
            let receiving = Mutex::new(Receiving { asked: false, over: false });
            Ok(Open { session, stream, address, put_port, receiving })
        }
        Ok(ToProcess::Error { error }) => {
            session.give(stream);
            Err(Refused::Status(error.status()))
        }
        _ => {
            session.distrust();
            Err(Refused::Absent)
        }
    }
}

/// Sends a datagram of the process.
pub(super) fn send(client: &Client, to: Destination, data: Vec<u8>) -> Result<(), Error> {
    let frame = frame(None, to, data)?;
    let mut absence = Absence::new(ABSENCE_MAX);
    loop {
        match client.session().and_then(|session| try_send(&session, &frame)) {
            Ok(result) => return result,
            Err(refused) => absence.wait_after(refused)?,
        }
    }
}

fn frame(from: Option<Address>, to: Destination, data: Vec<u8>) -> Result<ToKernel, Error> {
    match data.len() <= DATAGRAM_SIZE_MAX {
        true => Ok(ToKernel::Send { from, to, data }),
        false => Err(Error::NotSent(Status::RPC_BADADDRESS)),
    }
}

fn try_send(session: &Session, frame: &ToKernel) -> Result<Result<(), Error>, Refused> {
    let stream = session.take()?;
    match stream.ask(frame) {
        Ok(answer) => {
            session.give(stream);
            Ok(match answer {
                ToProcess::Done => Ok(()),
                ToProcess::Error { error } => Err(error),
                _ => Err(Error::BadReply),
            })
        }
        Err(Lost) => {
            session.distrust();
            Err(Refused::Absent)
        }
    }
}

impl Open {
    fn try_receive(&self, asked: &mut bool, timeout: Option<Duration>) -> Result<Option<Datagram>, Lost> {
        if !*asked {
            self.stream.send(&ToKernel::Receive)?;
            *asked = true;
        }
        if !self.stream.wait(timeout.map(|timeout| now() + timeout.min(TIMEOUT_MAX)))? {
            return Ok(None);
        }
        *asked = false;
        match self.stream.receive()? {
            ToProcess::Datagram { datagram } => Ok(Some(datagram)),
            _ => Err(Lost),
        }
    }
}

impl Datagrams for Open {
    fn address(&self) -> Address {
        self.address
    }

    fn put_port(&self) -> Option<PutPort> {
        self.put_port
    }

    fn send(&self, to: Destination, data: Vec<u8>) -> Result<(), Error> {
        let frame = frame(Some(self.address), to, data)?;
        // Another session would not know this address.
        try_send(&self.session, &frame).unwrap_or(Err(Error::NotSent(Status::RPC_NOTFOUND)))
    }

    fn receive(&self, timeout: Option<Duration>) -> Result<Option<Datagram>, ListenError> {
        let mut receiving = lock(&self.receiving);
        if receiving.over {
            return Err(ListenError);
        }
        self.try_receive(&mut receiving.asked, timeout).map_err(|Lost| {
            receiving.over = true;
            ListenError
        })
    }

    fn close(&self) {
        self.stream.end(); // whoever receives finds its connection lost
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.close();
    }
}
