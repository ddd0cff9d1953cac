//! What a process may ask of its kernel about the kernel itself: links, ways, and what passes.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{PutPort, SystemSecret};
use amoeba_stubs::rt::Marshal;
use amoeba_stubs::system::{Network, Way};
use amoeba_wire::trace::Record;
use amoeba_wire::{Reader, Status};
use amoeba_world::Error;

use super::Client;
use super::session::Session;
use crate::socket::{Stream, ToKernel, ToProcess, TraceFilter, proof};
use crate::threads::now;

impl Client {
    /// The links of this host and what they know.
    ///
    /// # Errors
    /// [`Error::NotSent`] when no daemon answers.
    pub fn network(&self) -> Result<Network, Error> {
        self.facts(None)
    }

    /// The way that requests for a port take from here.
    ///
    /// # Errors
    /// As [`Client::network`].
    pub fn way(&self, port: PutPort) -> Result<Way, Error> {
        self.facts(Some(port))
    }

    fn facts<T: Marshal>(&self, port: Option<PutPort>) -> Result<T, Error> {
        match self.control(&ToKernel::Look { port })? {
            ToProcess::Facts { facts } => T::from_bytes(&facts).map_err(|_| Error::BadReply),
            _ => Err(Error::BadReply),
        }
    }

    /// Looks on while things pass the kernel. For as long as the trace is there, every transaction of this host passes
    /// the kernel, and is slower for that.
    ///
    /// # Errors
    /// [`Error::NotSent`] when no daemon answers, or with RPC_TRYAGAIN when too many look on already; [`Error::Refused`]
    /// with STD_DENIED when `secret`, which proves that this process may, is not the system's.
    pub fn trace(&self, secret: &SystemSecret, filter: TraceFilter) -> Result<Trace, Error> {
        let session = self.session()?;
        let stream = session.take()?;
        match stream.ask(&ToKernel::Trace { proof: proof(secret), filter }) {
            Ok(ToProcess::Done) => Ok(Trace { _session: session, stream, asked: false }),
            Ok(ToProcess::Error { error }) => Err(error),
            _ => Err(Error::NotSent(Status::RPC_NOTFOUND)),
        }
    }
}

/// Somebody who looks on. The kernel forgets it when it is dropped.
pub struct Trace {
    _session: Arc<Session>,
    stream: Arc<Stream>,
    asked: bool,
}

/// What has passed since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Records that there was no room for.
    pub dropped: u64,
    /// The others, in order.
    pub records: Vec<Record>,
}

impl Trace {
    /// Waits at most `patience` for something to pass; nothing when nothing has.
    ///
    /// # Errors
    /// [`Error::NotSent`] when the daemon is gone, [`Error::BadReply`] when it sends what is no record.
    pub fn next(&mut self, patience: Duration) -> Result<Passed, Error> {
        let gone = |_| Error::NotSent(Status::RPC_NOTFOUND);
        if !self.asked {
            self.stream.send(&ToKernel::TraceNext).map_err(gone)?;
            self.asked = true;
        }
        if !self.stream.wait(Some(now() + patience)).map_err(gone)? {
            return Ok(Passed::default());
        }
        let ToProcess::Traced { dropped, records } = self.stream.receive().map_err(gone)? else {
            return Err(Error::BadReply);
        };
        self.asked = false;
        let mut reader = Reader::new(&records);
        let mut passed = Passed { dropped, records: Vec::new() };
        while reader.remaining() > 0 {
            passed.records.push(Record::get(&mut reader).map_err(|_| Error::BadReply)?);
        }
        Ok(passed)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.stream.end();
    }
}
