//! The port table: which processes of this host listen on a port, and which requests wait for them.

use std::collections::{BTreeMap, VecDeque};

use crate::{GetreqId, ProcessId, RequestId};

/// A port that at least one process listens on.
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub(crate) listening: BTreeMap<ProcessId, Listening>,
    /// Requests of this host that any of the processes may take.
    pub(crate) queue: VecDeque<RequestId>,
    /// The process that got the last request.
    turn: Option<ProcessId>,
}

/// One process that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) request_size_max: usize,
    pub(crate) getreqs: VecDeque<GetreqId>,
    /// Requests of other hosts, addressed to this process; another takes them over when its thread would wait.
    pub(crate) queue: VecDeque<RequestId>,
    /// Whether the process took a request of another host last, so that one of this host is next.
    pub(crate) local_next: bool,
    /// Whether the last thread that came was introduced while requests waited, so that the next takes one of them.
    pub(crate) request_next: bool,
    /// Channels to the process on this port.
    pub(crate) introductions: usize,
}

impl Port {
    /// The process after the last one, in turn, that has a waiting thread and takes requests of `size` bytes.
    pub(crate) fn ready(&mut self, size: usize) -> Option<(ProcessId, GetreqId)> {
        let ready = |(_, listening): &(&ProcessId, &Listening)| {
            !listening.getreqs.is_empty() && listening.request_size_max >= size
        };
        let after = self.turn.map_or(0, |turn| turn.0 + 1);
        let next = self.listening.range(ProcessId(after)..).find(ready);
        let (&process, _) = next.or_else(|| self.listening.iter().find(ready))?;
        self.turn = Some(process);
        let getreq = self.listening.get_mut(&process)?.getreqs.pop_front()?;
        Some((process, getreq))
    }

    /// For a request of another host: the process that it was addressed to where that has a waiting thread, else any.
    pub(crate) fn ready_at(&mut self, server: ProcessId, size: usize) -> Option<(ProcessId, GetreqId)> {
        let addressed = self.listening.get_mut(&server).and_then(|listening| listening.getreqs.pop_front());
        addressed.map(|getreq| (server, getreq)).or_else(|| self.ready(size))
    }

    /// The oldest request of another host that waits for one of the processes, of those that `fits`.
    pub(crate) fn take_over(&mut self, fits: impl Fn(&RequestId) -> bool) -> Option<RequestId> {
        // Identifiers of requests only grow.
        let waits = |(process, listening): (&ProcessId, &Listening)| {
            let index = listening.queue.iter().position(&fits)?;
            Some((listening.queue[index], *process, index))
        };
        let (_, process, index) = self.listening.iter().filter_map(waits).min()?;
        self.listening.get_mut(&process)?.queue.remove(index)
    }

    /// The process with the fewest introductions, in turn among equals, that has a waiting thread.
    pub(crate) fn least_introduced(&mut self) -> Option<(ProcessId, GetreqId)> {
        let after = self.turn.map_or(0, |turn| turn.0 + 1);
        let waiting = self.listening.iter().filter(|(_, listening)| !listening.getreqs.is_empty());
        let (&process, _) =
            waiting.min_by_key(|(process, listening)| (listening.introductions, process.0 < after))?;
        self.turn = Some(process);
        let listening = self.listening.get_mut(&process)?;
        listening.introductions += 1;
        Some((process, listening.getreqs.pop_front()?))
    }

    /// Whether any process takes requests of `size` bytes.
    pub(crate) fn takes(&self, size: usize) -> bool {
        self.listening.values().any(|listening| listening.request_size_max >= size)
    }

    /// The process that is to answer a LOCATE: one with a waiting thread, else the one with the shortest queue.
    pub(crate) fn answerer(&self) -> Option<ProcessId> {
        let load =
            |(_, listening): &(&ProcessId, &Listening)| (listening.getreqs.is_empty(), listening.queue.len());
        self.listening.iter().min_by_key(load).map(|(process, _)| *process)
    }
}
