//! What goes to one peer: kept until it is acknowledged, sent again when it is lost.

use std::collections::VecDeque;
use std::time::Duration;

use amoeba_threads::Instant;

use super::window::Window;
use super::{Ack, NUMBERS_MAX};

/// Packets that may be under way in any case.
const COUNT_MIN: usize = 2;

/// A packet that was numbered and is not acknowledged, or is and waits for one before it.
#[derive(Debug)]
struct Slot<T> {
    /// What to send; `None` once it has arrived.
    content: Option<T>,
    size: usize,
    sent: Instant,
    /// Which sending it was, counted over all packets; [`LOST`] while it waits to be sent again.
    sending: u64,
    again: bool,
}

const LOST: u64 = u64::MAX;

/// Packets to one peer. `T` says what is in one: its bytes, or where they are.
#[derive(Debug)]
pub struct Outward<T> {
    /// The number of the first slot; everything below has arrived.
    first: u64,
    slots: VecDeque<Slot<T>>,
    /// Numbers in the order in which they were sent, each with its sending; stale where the slot has another.
    order: VecDeque<(u64, u64)>,
    /// To be sent again when the window allows it.
    lost: VecDeque<u64>,
    sendings: u64,
    flying_size: usize,
    flying_count: usize,
    window: Window,
    /// Losses of packets sent before this are the same event.
    recovered: Instant,
    /// When the last of what has arrived was sent.
    newest: Instant,
    /// The same for what one acknowledgement tells of and was sent once: its delay is measured, for the acknowledgement
    /// was sent when it had arrived.
    measured: Option<Instant>,
    /// Timeouts in a row.
    silent: u32,
    deadline: Option<Instant>,
    sent_again: u64,
}

impl<T> Outward<T> {
    /// To a peer that can take `window_max` bytes at once.
    pub fn new(now: Instant, window_max: usize) -> Outward<T> {
        Outward {
            first: 0,
            slots: VecDeque::new(),
            order: VecDeque::new(),
            lost: VecDeque::new(),
            sendings: 0,
            flying_size: 0,
            flying_count: 0,
            window: Window::new(now, window_max),
            recovered: now,
            newest: now,
            measured: None,
            silent: 0,
            deadline: None,
            sent_again: 0,
        }
    }

    /// Forgets every packet and begins to count from 0 again. What is known of the way is kept.
    pub fn restart(&mut self) {
        self.slots.clear();
        self.order.clear();
        self.lost.clear();
        (self.first, self.flying_size, self.flying_count) = (0, 0, 0);
        (self.silent, self.deadline) = (0, None);
    }

    /// Whether another packet may be sent.
    pub fn is_open(&self) -> bool {
        self.lost.is_empty() && self.has_room() && (self.slots.len() as u64) < NUMBERS_MAX
    }

    /// Whether everything has arrived.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Numbers a packet of `size` bytes that is sent now.
    pub fn send(&mut self, now: Instant, size: usize, content: T) -> u64 {
        let number = self.first + self.slots.len() as u64;
        self.slots.push_back(Slot { content: Some(content), size, sent: now, sending: LOST, again: false });
        self.fly(now, number);
        number
    }

    /// A packet that is to be sent again now, as far as the window allows it.
    pub fn send_again(&mut self, now: Instant) -> Option<(u64, &T)> {
        while self.has_room() {
            let number = self.lost.pop_front()?;
            // One that has arrived meanwhile is skipped.
            let waits = number >= self.first
                && self.slots.get((number - self.first) as usize).is_some_and(|slot| slot.content.is_some());
            if waits {
                self.sent_again += 1;
                self.fly(now, number);
                let slot = &mut self.slots[(number - self.first) as usize];
                slot.again = true;
                return slot.content.as_ref().map(|content| (number, content));
            }
        }
        None
    }

    /// Some have arrived. Then empty [`Outward::send_again`].
    pub fn handle_ack(&mut self, now: Instant, ack: &Ack<'_>) {
        self.handle_ack_with(now, ack, |_| {});
    }

    /// As [`Outward::handle_ack`]; `arrived` is given what has arrived.
    pub fn handle_ack_with(&mut self, now: Instant, ack: &Ack<'_>, mut arrived: impl FnMut(T)) {
        let end = self.first + self.slots.len() as u64;
        if ack.next > end {
            return; // about what was never sent
        }
        let full = !self.has_room();
        let mut size = 0;
        for index in 0..ack.next.saturating_sub(self.first) {
            size += self.arrived(index as usize, &mut arrived);
        }
        for number in ack.ahead().take_while(|number| *number < end) {
            if let Some(index) = number.checked_sub(self.first) {
                size += self.arrived(index as usize, &mut arrived);
            }
        }
        while self.slots.front().is_some_and(|slot| slot.content.is_none()) {
            self.slots.pop_front();
            self.first += 1;
        }
        if let Some(sent) = self.measured.take() {
            self.window.measure(now, sent, ack.held);
        }
        if size > 0 {
            self.silent = 0;
            self.window.acknowledged(now, size, self.newest, full);
            self.deadline = (self.flying_count > 0).then(|| now + self.window.timeout(0));
        }
        self.find_lost(now);
    }

    /// Nothing was heard for too long: everything under way is lost. Then empty [`Outward::send_again`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.silent = (self.silent + 1).min(8);
        self.deadline = None;
        self.window.silent();
        self.recovered = now;
        while let Some((number, sending)) = self.order.pop_front() {
            self.lose(number, sending);
        }
    }

    /// When [`Outward::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Bytes that may be under way now.
    pub fn window(&self) -> usize {
        self.window.size()
    }

    /// Bytes that are.
    pub fn flying_size(&self) -> usize {
        self.flying_size
    }

    /// Packets sent again so far.
    pub fn sent_again(&self) -> u64 {
        self.sent_again
    }

    /// Timeouts since the last acknowledgement of something new.
    pub fn silent(&self) -> u32 {
        self.silent
    }

    /// The mean time from a packet to its acknowledgement.
    pub fn round_trip(&self) -> Option<Duration> {
        self.window.round_trip()
    }

    fn has_room(&self) -> bool {
        self.flying_size < self.window.size() || self.flying_count < COUNT_MIN
    }

    fn fly(&mut self, now: Instant, number: u64) {
        let slot = &mut self.slots[(number - self.first) as usize];
        (slot.sent, slot.sending) = (now, self.sendings);
        self.order.push_back((number, self.sendings));
        self.sendings += 1;
        self.flying_size += slot.size;
        self.flying_count += 1;
        if self.deadline.is_none() {
            self.deadline = Some(now + self.window.timeout(self.silent));
        }
    }

    /// The packet of this slot has arrived: its size if that is news.
    fn arrived(&mut self, index: usize, arrived: &mut impl FnMut(T)) -> usize {
        let slot = &mut self.slots[index];
        let Some(content) = slot.content.take() else { return 0 };
        arrived(content);
        if slot.sending == LOST {
            return slot.size; // it is in the queue of what is lost, where it will be skipped
        }
        slot.sending = LOST;
        self.flying_size -= slot.size;
        self.flying_count -= 1;
        self.newest = self.newest.max(slot.sent);
        if !slot.again {
            self.measured = self.measured.max(Some(slot.sent));
        }
        slot.size
    }

    /// What was sent before something that has arrived, by more than a margin, is lost.
    fn find_lost(&mut self, now: Instant) {
        let margin = self.window.reorder_margin();
        let mut losses = false;
        while let Some(&(number, sending)) = self.order.front() {
            let slot = number.checked_sub(self.first).and_then(|index| self.slots.get(index as usize));
            if let Some(slot) = slot.filter(|slot| slot.sending == sending) {
                if slot.sent + margin >= self.newest {
                    break;
                }
                losses |= slot.sent >= self.recovered;
            }
            self.order.pop_front();
            self.lose(number, sending);
        }
        if losses {
            self.window.lost();
            self.recovered = now;
        }
        if self.deadline.is_none() && self.flying_count > 0 {
            self.deadline = Some(now + self.window.timeout(self.silent));
        }
    }

    fn lose(&mut self, number: u64, sending: u64) {
        let Some(index) = number.checked_sub(self.first) else { return };
        let Some(slot) = self.slots.get_mut(index as usize).filter(|slot| slot.sending == sending) else {
            return;
        };
        slot.sending = LOST;
        self.flying_size -= slot.size;
        self.flying_count -= 1;
        self.lost.push_back(number);
    }
}
