//! Knocking: whether a thread of a server that talks to clients past the daemon has time for a request of the daemon's.
//!
//! Such a server's threads come and go without the daemon's knowledge: a call of getreq may be waiting here while all of
//! them are busy. So the server is asked first, and a request for which nobody has time goes to another process, or waits
//! for the thread that asks next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amoeba_kernel::{ProcessId, RequestId};
use amoeba_threads::Instant;
use amoeba_world::{Caller, Message};

use super::super::table::{Member, Token};
use super::Switch;
use crate::socket::ToProcess;

/// How long a server may take to answer.
const KNOCK_TIME: Duration = Duration::from_millis(20);

/// A request whose server has been asked.
struct Held {
    process: ProcessId,
    request: RequestId,
    caller: Caller,
    message: Message,
}

/// The requests whose servers have been asked, at most one a connection.
#[derive(Default)]
pub(super) struct Knocks {
    held: BTreeMap<Token, Held>,
    /// When servers are no longer waited for, the oldest first; those that have answered are still among them.
    until: VecDeque<(Instant, Token, RequestId)>,
    unanswered: u64,
}

impl Knocks {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until.front().map(|&(at, ..)| at)
    }

    /// Counters, a line each.
    pub(super) fn status(&self) -> String {
        format!("{:24} {}\n", "servers without time", self.unanswered)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Switch {
    /// The process of a connection was introduced to somebody.
    #[cfg(test)]
    pub(in super::super) fn introduced(&mut self, token: Token) {
        if let Some(member) = self.table.get(token).and_then(|connection| connection.member) {
            self.is_introduced(member.process);
        }
    }

    /// From now on the process has work of which the daemon does not know.
    pub(super) fn is_introduced(&mut self, process: ProcessId) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.is_introduced = true;
        }
    }

    /// Gives a request to the connection that waits for one.
    pub(super) fn give(
        &mut self,
        now: Instant,
        token: Token,
        process: ProcessId,
        request: RequestId,
        caller: Caller,
        message: Message,
    ) {
        let here = self.asking == Some(token);
        let knock = !here && self.processes.get(&process).is_some_and(|server| server.is_introduced);
        let Some(connection) = self.table.get_mut(token) else {
            return self.kernel.take_back(now, process, request, message);
        };
        connection.getreq = None;
        if !knock {
            connection.executing.insert(request);
            self.trace_delivered(now, process, request, &caller, &message);
            return self.send(token, ToProcess::Request { request: request.0, caller, message });
        }
        connection.knocked = true;
        self.knocks.held.insert(token, Held { process, request, caller, message });
        self.knocks.until.push_back((now + KNOCK_TIME, token, request));
        self.send(token, ToProcess::Knock);
    }

    /// READY: a thread of the server waits for what it was asked about.
    pub(super) fn ready(&mut self, now: Instant, token: Token, member: Member) {
        let Some(Held { request, caller, message, .. }) = self.unhold(token) else {
            return self.send(token, ToProcess::Done); // too late
        };
        if let Some(connection) = self.table.get_mut(token) {
            connection.executing.insert(request);
            self.trace_delivered(now, member.process, request, &caller, &message);
            self.send(token, ToProcess::Request { request: request.0, caller, message });
        }
    }

    /// Requests for which nobody had time in time go elsewhere.
    pub(super) fn knocks_timeout(&mut self, now: Instant) {
        while let Some(&(at, token, request)) = self.knocks.until.front()
            && at <= now
        {
            self.knocks.until.pop_front();
            if self.knocks.held.get(&token).is_some_and(|held| held.request == request) {
                self.knocks.unanswered += 1;
                self.knock_over(now, token);
            }
        }
    }

    /// Nobody is asked over this connection any more.
    pub(super) fn knock_over(&mut self, now: Instant, token: Token) {
        if let Some(Held { process, request, message, .. }) = self.unhold(token) {
            self.kernel.take_back(now, process, request, message);
        }
    }

    fn unhold(&mut self, token: Token) -> Option<Held> {
        if let Some(connection) = self.table.get_mut(token) {
            connection.knocked = false;
        }
        self.knocks.held.remove(&token)
    }
}
