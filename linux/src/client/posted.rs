//! Several transactions under way at once, for one thread: the parts of a long transfer.
//!
//! Each has a flow of its own, and this thread attends to all of them in turns. So the server prepares and sends one part
//! while another arrives, and nobody waits for a round trip in between. What no flow carries is done one by one.

use std::sync::Arc;

use amoeba_cap::{GetPort, PutPort};
use amoeba_threads::Instant;
use amoeba_wire::{DATA_SIZE_MAX, Status};
use amoeba_world::{Error, Message, Posted, TransOptions};
use rustix::event::{Timespec, poll};

use super::Client;
use super::channel::Channel;
use super::session::Session;
use crate::flow::client::{Flow, Outcome, Turn};
use crate::flow::courtesy::Courtesy;
use crate::look::{Look, Next};
use crate::threads::now;

/// Transactions of one call that are under way at once.
pub const UNDER_WAY_MAX: usize = 4;

/// A transaction that has begun.
struct UnderWay<'p, 'b> {
    session: Arc<Session>,
    flow: Box<Flow>,
    post: &'p mut Posted<'b>,
}

/// Does all of them.
pub(super) fn trans_posted(client: &Client, posts: &mut [Posted<'_>], options: &TransOptions) {
    let transfer = Transfer {
        client,
        options,
        deadline: options.deadline.map(|time| now() + time),
        courtesy: Courtesy::default(),
        under_way: Vec::with_capacity(UNDER_WAY_MAX),
        one_by_one: Vec::new(),
        nobody: None,
    };
    transfer.run(posts);
}

struct Transfer<'c, 'p, 'b> {
    client: &'c Client,
    options: &'c TransOptions,
    deadline: Option<Instant>,
    courtesy: Courtesy,
    under_way: Vec<UnderWay<'p, 'b>>,
    /// Certainly not executed, and no flow is to be tried again.
    one_by_one: Vec<&'p mut Posted<'b>>,
    /// A port that was searched for in vain.
    nobody: Option<PutPort>,
}

impl<'p, 'b> Transfer<'_, 'p, 'b> {
    fn run(mut self, posts: &'p mut [Posted<'b>]) {
        let mut waiting = posts.iter_mut();
        let mut look = Look::default();
        loop {
            self.begin(&mut waiting);
            if self.under_way.is_empty() {
                break;
            }
            let before = self.under_way.len();
            while self.under_way.len() == before {
                if self.attend(&mut look) {
                    continue;
                }
                if let Next::Sleep(_) = look.again() {
                    self.sleep();
                    look.slept();
                }
            }
        }
        for post in std::mem::take(&mut self.one_by_one) {
            self.do_now(post);
        }
    }

    /// Begins as many as there is room for; the first that has no flow is done before anything else, for the next may
    /// have one then.
    fn begin(&mut self, waiting: &mut std::slice::IterMut<'p, Posted<'b>>) {
        while self.under_way.len() < UNDER_WAY_MAX && !waiting.as_slice().is_empty() {
            let begun = waiting.as_slice().first().and_then(|post| self.take_flow(&post.request));
            match begun {
                Some((session, mut flow)) => {
                    let Some(post) = waiting.next() else { return };
                    let reply_size_max = self.options.reply_size_max.min(post.buffer.len());
                    flow.begin(&mut post.request, reply_size_max);
                    self.under_way.push(UnderWay { session, flow, post });
                }
                None if !self.under_way.is_empty() => return,
                None => {
                    if let Some(post) = waiting.next() {
                        self.do_now(post);
                    }
                }
            }
        }
    }

    fn signature(&self) -> Option<&GetPort> {
        self.options.signature.as_ref()
    }

    /// A flow to a server of a request that may go over one.
    fn take_flow(&self, request: &Message) -> Option<(Arc<Session>, Box<Flow>)> {
        let port = request.header.port;
        if port.is_null() || request.header.status().0 < 0 || request.data.len() > DATA_SIZE_MAX {
            return None;
        }
        let session = self.client.session().ok()?;
        match session.channels.take(&session, port, self.signature())? {
            Channel::Flow(flow) => Some((session, flow)),
            channel @ Channel::Memory(_) => {
                session.channels.give(port, self.signature(), channel);
                None
            }
        }
    }

    fn do_now(&mut self, post: &mut Posted<'_>) {
        let port = post.request.header.port;
        if self.nobody == Some(port) {
            post.result = Some(Err(Error::NotSent(Status::RPC_NOTFOUND)));
            return;
        }
        let deadline = self.deadline.map(|deadline| deadline.since(now()));
        post.one_by_one(self.client, &TransOptions { deadline, ..self.options.clone() });
        self.nobody = post.found_nobody().then_some(port).or(self.nobody);
    }

    /// A turn of each; whether there was anything to do.
    fn attend(&mut self, look: &mut Look) -> bool {
        let mut busy = false;
        let mut index = 0;
        while let Some(UnderWay { flow, post, .. }) = self.under_way.get_mut(index) {
            match flow.turn(self.deadline, Some(&mut *post.buffer)) {
                Turn::Idle => index += 1,
                Turn::Busy => {
                    busy = true;
                    self.courtesy.busy();
                    index += 1;
                }
                Turn::Ended(outcome) => {
                    busy = true;
                    let ended = self.under_way.swap_remove(index);
                    self.end(ended, outcome);
                }
            }
        }
        if busy {
            look.found();
        }
        busy
    }

    fn end(&mut self, ended: UnderWay<'p, 'b>, outcome: Outcome) {
        let UnderWay { session, mut flow, post } = ended;
        flow.give_back(&mut post.request);
        let (port, size) = (post.request.header.port, flow.posted_size());
        let put = |result: Result<Message, Error>| Some(result.map(|reply| (reply.header, size)));
        match outcome {
            Outcome::Done(result) => {
                post.result = put(result);
                return session.channels.give(port, self.signature(), Channel::Flow(flow));
            }
            Outcome::Last(result) => post.result = put(result),
            Outcome::Elsewhere => self.one_by_one.push(post),
        }
        session.channels.end(&session, port, self.signature(), Channel::Flow(flow));
    }

    /// Sleeps until something comes for one of them, or it is time for something.
    fn sleep(&mut self) {
        let mut ready = Vec::with_capacity(2 * UNDER_WAY_MAX);
        let mut until = self.deadline;
        for under_way in &self.under_way {
            let (watched, timeout) = under_way.flow.watched();
            ready.extend(watched);
            until = until.into_iter().chain(timeout).min();
        }
        let left = until.map(|until| until.since(now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // A wait that a signal ends is one that ends early.
        let _ = poll(&mut ready, timeout.as_ref());
        let told: Vec<bool> = ready.chunks(2).map(|flow| !flow[1].revents().is_empty()).collect();
        for index in (0..told.len()).rev().filter(|index| told[*index]) {
            if self.under_way[index].flow.is_over() {
                let mut over = self.under_way.swap_remove(index);
                let outcome = over.flow.revoked(Some(&mut *over.post.buffer));
                self.end(over, outcome);
            }
        }
    }
}
