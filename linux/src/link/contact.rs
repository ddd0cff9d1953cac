//! A contact: the session with one life of one peer, and all that is under way in it.

use std::net::SocketAddr;
use std::time::Duration;

use amoeba_flow::bulk::{Inward, Outward};
use amoeba_kernel::{Location, Packet};
use amoeba_seal::{Hosts, SEALED_OVERHEAD, Session};
use amoeba_threads::Instant;

use super::content::{BULK_HEAD_SIZE, Hello};
use super::path::{Path, SIZE_MIN};

/// The smallest window a peer can announce that is believed.
const WINDOW_MIN: usize = 64 << 10;
/// A peer that was silent for so long, or has not heard us for so long, is lost.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(4);
/// What the smallest datagram has room for, as a FLIP packet.
pub(crate) const PACKET_SIZE_MIN: usize = SIZE_MIN as usize - SEALED_OVERHEAD - BULK_HEAD_SIZE;

/// See the module.
pub(crate) struct Contact {
    /// The number by which we find it in what arrives.
    pub(crate) number: u32,
    /// Where the FLIP box sees the peer, as long as this contact lasts.
    pub(crate) location: Location,
    pub(crate) session: Session,
    /// Random per life of the peer's daemon.
    pub(crate) life: u64,
    /// The peer's stamp of the greeting that began it.
    pub(crate) stamp: u64,
    /// Where the peer is: where the newest of its datagrams came from.
    pub(crate) address: SocketAddr,
    /// Whether the peer has sealed anything in it: then it has the keys.
    used: bool,
    pub(crate) heard: Instant,
    /// When the peer last heard us, as far as it has said.
    heard_us: Instant,
    /// The peer's last mark, and when it came.
    mark: (u64, Instant),
    pub(crate) round_trip: Option<Duration>,
    pub(crate) outward: Outward<Packet>,
    pub(crate) inward: Inward,
    pub(crate) path: Path,
}

impl Contact {
    pub(crate) fn new(
        now: Instant,
        number: u32,
        location: Location,
        session: Session,
        hosts: &Hosts,
        from: SocketAddr,
    ) -> Contact {
        Contact {
            number,
            location,
            session,
            life: hosts.life,
            stamp: hosts.stamp,
            address: from,
            used: false,
            heard: now,
            heard_us: now,
            mark: (0, now),
            round_trip: None,
            outward: Outward::new(now, (hosts.window as usize).max(WINDOW_MIN)),
            inward: Inward::default(),
            path: Path::new(now),
        }
    }

    /// A datagram was opened that came from `from`; `newest`: none that was sent later was opened before.
    pub(crate) fn heard(&mut self, now: Instant, from: SocketAddr, newest: bool) {
        (self.heard, self.used) = (now, true);
        if newest && from != self.address {
            tracing::info!(was = %self.address, is = %from, "a host has another address");
            self.address = from;
            self.path = Path::new(now);
        }
    }

    /// Whether the peer has shown that it has the keys.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// What we say each second.
    pub(crate) fn hello(&self, now: Instant) -> Hello {
        let (echo, came) = self.mark;
        let millis = u32::try_from(now.since(self.heard).as_millis()).unwrap_or(u32::MAX);
        let held = u32::try_from(now.since(came).as_micros()).unwrap_or(u32::MAX);
        Hello { silence: millis, mark: micros(now), echo, held }
    }

    /// What the peer says each second.
    pub(crate) fn handle_hello(&mut self, now: Instant, hello: &Hello) {
        let silence = Duration::from_millis(hello.silence.into());
        let heard_us = Instant::from_epoch(now.since_epoch().saturating_sub(silence));
        self.heard_us = self.heard_us.max(heard_us);
        self.mark = (hello.mark, now);
        let there_and_back = micros(now).checked_sub(hello.echo).filter(|_| hello.echo != 0);
        if let Some(micros) = there_and_back {
            self.round_trip = Some(Duration::from_micros(micros.saturating_sub(hello.held.into())));
        }
    }

    /// When it is lost unless something is heard until then.
    pub(crate) fn lost_at(&self) -> Instant {
        self.heard.min(self.heard_us) + SILENCE_MAX
    }

    /// Bytes of the largest FLIP packet on the way to the peer.
    pub(crate) fn packet_size(&self) -> usize {
        usize::from(self.path.size()) - SEALED_OVERHEAD - BULK_HEAD_SIZE
    }
}

/// The time as a HELLO says it.
fn micros(now: Instant) -> u64 {
    u64::try_from(now.since_epoch().as_micros()).unwrap_or(u64::MAX).max(1)
}
