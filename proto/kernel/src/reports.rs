//! Large messages that lost a part: what has arrived is told to whoever sent them.
//!
//! A REPORT is a packet of RPC, with a number beyond the original's, and goes only to who has announced with a flag that
//! it understands it: in its LOCATE, its HEREIS or its REQUEST. What is in it is the FLIP box's business.

use amoeba_cap::PutPort;
use amoeba_flip::{HEAD_SIZE_MAX, Head, Manner};
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, RPC_HEADER_SIZE, RpcHeader, RpcKind, RpcReport};

use crate::{ANSWER_LOCATE_TIMEOUT, Kernel};

/// Processes elsewhere that are remembered as taking reports; past it all are forgotten, and announce themselves again.
pub(crate) const REPORTING_MAX: usize = if cfg!(test) { 64 } else { 65536 };

impl Kernel {
    /// The kernel of this process has announced that it sends and takes reports.
    pub(crate) fn takes_reports(&mut self, process: Address) {
        if self.reporting.len() >= REPORTING_MAX {
            self.reporting.clear();
        }
        self.reporting.insert(process);
    }

    /// Tells `to` what the process `from` of this host has of its message.
    pub(crate) fn send_report(&mut self, now: Instant, from: Address, to: Address, report: &RpcReport) {
        let kind = RpcKind::Report;
        let header = RpcHeader { kid: [0; 8], port: PutPort::NULL, kind, flags: 0, tid: 0, dest: 0, from: 0 };
        let bytes = [&header.to_bytes()[..], &report.to_bytes()].concat();
        self.flip.unicast(now, from, to, bytes, Manner::default(), ANSWER_LOCATE_TIMEOUT);
    }

    /// Whether a message that begins so is a report. It is about a message that `to`, of this host, sends to `from`.
    pub(crate) fn handle_report(
        &mut self,
        now: Instant,
        to: Address,
        from: Address,
        head: &Head,
        data: &[u8],
    ) -> bool {
        let Some((RpcHeader { kind: RpcKind::Report, .. }, start, big_endian)) = RpcHeader::parse(head)
        else {
            return false;
        };
        if let Some(report) = RpcReport::parse(&[start, data].concat(), big_endian) {
            self.flip.handle_report(now, from, to, &report);
        }
        true
    }
}

const _: () = assert!(HEAD_SIZE_MAX >= RPC_HEADER_SIZE, "the protocol header is in the head");
