//! Flows: the datagrams of two processes on two hosts, without their daemons in between.
//!
//! The protocol is `amoeba_flow`, which makes no system call. Here are the socket of an end ([`socket`]), what the kernel
//! hands to a process ([`handed`]), the client's end ([`client`]) and those of a listener ([`served`]). How the kernels
//! introduce the two is `kernel/switch/flows`; the chapter is `docs/flows.md`.

pub(crate) mod care;
pub(crate) mod client;
pub(crate) mod courtesy;
pub(crate) mod handed;
pub(crate) mod served;
pub(crate) mod socket;

use std::cell::RefCell;

use amoeba_flow::{FlowClient, FlowServer};
use amoeba_threads::Instant;

use crate::threads::now;
use socket::{Batch, FlowSocket, SEGMENTS_MAX};

/// Bytes of the largest batch that the operating system takes or gives at once.
const BATCH_SIZE: usize = 65_000;

thread_local! {
    /// What was just read, and what is about to be sent: of one thread, since neither outlives a call.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::new((vec![0; 1 << 16], Vec::with_capacity(1 << 16)));
}

/// Either end of a flow.
pub(crate) trait End {
    fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8]) -> bool;
    fn poll_transmit(&mut self, now: Instant, count_max: usize, out: &mut Vec<u8>) -> Option<usize>;
}

impl End for FlowClient {
    fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8]) -> bool {
        FlowClient::handle_datagram(self, now, datagram, None)
    }

    fn poll_transmit(&mut self, now: Instant, count_max: usize, out: &mut Vec<u8>) -> Option<usize> {
        FlowClient::poll_transmit(self, now, count_max, out)
    }
}

/// The end of a client that has posted a buffer for its reply.
struct Posting<'e>(&'e mut FlowClient, &'e mut [u8]);

impl End for Posting<'_> {
    fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8]) -> bool {
        self.0.handle_datagram(now, datagram, Some(self.1))
    }

    fn poll_transmit(&mut self, now: Instant, count_max: usize, out: &mut Vec<u8>) -> Option<usize> {
        self.0.poll_transmit(now, count_max, out)
    }
}

impl End for FlowServer {
    fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8]) -> bool {
        FlowServer::handle_datagram(self, now, datagram)
    }

    fn poll_transmit(&mut self, now: Instant, count_max: usize, out: &mut Vec<u8>) -> Option<usize> {
        FlowServer::poll_transmit(self, now, count_max, out)
    }
}

/// Hands what was read at once to the end; false when there is nothing. The end is told when it arrived at this host, so
/// that waiting for this process to run is not taken for a delay of the network.
pub(crate) fn receive(socket: &FlowSocket, end: &mut impl End) -> bool {
    SCRATCH.with_borrow_mut(|(scratch, _)| {
        let Some(Batch { size, segment, age }) = socket.receive(scratch) else { return false };
        let arrived = Instant::from_epoch(now().since(Instant::default()).saturating_sub(age));
        for datagram in amoeba_flow::cut(&mut scratch[..size], segment) {
            end.handle_datagram(arrived, datagram);
        }
        true
    })
}

/// Sends a batch of what the end has to send; false when it has nothing. `wait` for the network to take it: else what
/// it does not take at once is lost, as in a network.
pub(crate) fn transmit(socket: &FlowSocket, end: &mut impl End, now: Instant, wait: bool) -> bool {
    SCRATCH.with_borrow_mut(|(_, out)| {
        out.clear();
        let count_max = SEGMENTS_MAX.min((BATCH_SIZE / socket.datagram_size()).max(1));
        let Some(segment) = end.poll_transmit(now, count_max, out) else { return false };
        socket.send(out, segment, wait);
        true
    })
}

/// Sends everything that the end has to send now.
pub(crate) fn transmit_all(socket: &FlowSocket, end: &mut impl End, now: Instant, wait: bool) {
    while transmit(socket, end, now, wait) {}
}
