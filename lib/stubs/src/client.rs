//! How a client function does its transactions.

use std::sync::Arc;

use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Message, Posted, TransOptions, Transactions, World};

/// How often an idempotent operation is tried when nobody knows whether it was executed.
const ATTEMPTS_MAX: usize = 3;

/// The transactions a client function uses, and how it is to do them.
///
/// Every client function takes anything that turns into one: `&dyn Transactions`, `&Arc<dyn Transactions>`, a
/// [`World`], or one of these with options.
#[derive(Clone, Copy)]
pub struct Client<'t> {
    transactions: &'t dyn Transactions,
    options: Option<&'t TransOptions>,
}

impl<'t> Client<'t> {
    /// Transactions done with `options`.
    pub fn new(transactions: &'t dyn Transactions, options: &'t TransOptions) -> Client<'t> {
        Client { transactions, options: Some(options) }
    }

    /// The transactions themselves.
    pub(crate) fn transactions(self) -> &'t dyn Transactions {
        self.transactions
    }

    /// One operation: sends the request, again if it is `idempotent` and may or may not have been executed, and turns
    /// an error in the reply into [`Error::Refused`]. With a deadline it is sent once: there is no clock here to say
    /// how much of the time is left.
    #[doc(hidden)]
    pub fn trans(
        self,
        header: Header,
        data: Vec<u8>,
        reply_size_max: usize,
        idempotent: bool,
    ) -> Result<(Header, Vec<u8>), Error> {
        let reply = self.reply(header, data, reply_size_max, idempotent)?;
        accept(reply.header, (reply.header, reply.data))
    }

    /// As [`Client::trans`], but a reply with an error in it is a reply too.
    pub(crate) fn reply(
        self,
        header: Header,
        data: Vec<u8>,
        reply_size_max: usize,
        idempotent: bool,
    ) -> Result<Message, Error> {
        let mut options = self.options.cloned().unwrap_or_default();
        options.reply_size_max = options.reply_size_max.min(reply_size_max);
        let mut request = Message { header, data };
        let mut maybe_executed = false;
        let repeats = if idempotent && options.deadline.is_none() { ATTEMPTS_MAX } else { 1 };
        for _ in 1..repeats {
            match self.transactions.trans_keeping(&mut request, &options) {
                Err(Error::MaybeExecuted(_)) => maybe_executed = true,
                result => return honest(result, maybe_executed),
            }
        }
        honest(self.transactions.trans(request, &options), maybe_executed)
    }

    /// Several requests of idempotent operations, several under way at a time, the data of each reply into the buffer posted
    /// for it. [`Client::posted_result`] gives what became of each.
    pub(crate) fn trans_posted(self, posts: &mut [Posted<'_>]) {
        self.transactions.trans_posted(posts, &self.options.cloned().unwrap_or_default());
    }

    /// How many bytes of the posted buffer the reply is. A request of which nobody knows whether it was executed is sent
    /// again here, as [`Client::trans`] would.
    pub(crate) fn posted_result(self, post: &mut Posted<'_>) -> Result<usize, Error> {
        let options = self.options.cloned().unwrap_or_default();
        let repeats = if options.deadline.is_none() { ATTEMPTS_MAX } else { 1 };
        let mut maybe_executed = false;
        for _ in 1..repeats {
            if !matches!(post.result, Some(Err(Error::MaybeExecuted(_)))) {
                break;
            }
            maybe_executed = true;
            self.transactions.trans_posted(std::slice::from_mut(post), &options);
        }
        let (header, size) = honest(post.result.expect("trans_posted sets every result"), maybe_executed)?;
        accept(header, size)
    }
}

/// That the last attempt was not executed says nothing of the ones before it.
fn honest<R>(result: Result<R, Error>, maybe_executed: bool) -> Result<R, Error> {
    match result {
        Err(Error::NotSent(status)) if maybe_executed => Err(Error::MaybeExecuted(status)),
        result => result,
    }
}

/// What came with a header, if its status is no error.
fn accept<R>(header: Header, reply: R) -> Result<R, Error> {
    let status = header.status();
    if status.is_rpc() {
        Err(Error::Refused(Status::RPC_REMOTERPC))
    } else if status.is_error() {
        Err(Error::Refused(status))
    } else {
        Ok(reply)
    }
}

impl<'t> From<&'t dyn Transactions> for Client<'t> {
    fn from(transactions: &'t dyn Transactions) -> Client<'t> {
        Client { transactions, options: None }
    }
}

impl<'t> From<&'t Arc<dyn Transactions>> for Client<'t> {
    fn from(transactions: &'t Arc<dyn Transactions>) -> Client<'t> {
        Client { transactions: &**transactions, options: None }
    }
}

impl<'t> From<&'t World> for Client<'t> {
    fn from(world: &'t World) -> Client<'t> {
        Client::from(&world.transactions)
    }
}

impl<'t> From<&Client<'t>> for Client<'t> {
    fn from(client: &Client<'t>) -> Client<'t> {
        *client
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use amoeba_cap::{GetPort, PutPort};
    use amoeba_world::Listener;

    use super::*;

    /// Ends every transaction as it was told, the last one first.
    struct Ending(Mutex<Vec<Result<Message, Error>>>);

    impl Transactions for Ending {
        fn trans(&self, _: Message, _: &TransOptions) -> Result<Message, Error> {
            self.0.lock().unwrap().pop().expect("no more attempts than the test has answers")
        }

        fn listen(&self, _: &GetPort, _: usize) -> Result<Listener, Error> {
            Err(Error::NotSent(Status::RPC_TRYAGAIN))
        }

        fn put_port(&self, _: &GetPort) -> Result<PutPort, Error> {
            Err(Error::NotSent(Status::RPC_TRYAGAIN))
        }
    }

    fn attempts(mut answers: Vec<Result<Message, Error>>, idempotent: bool) -> Result<Message, Error> {
        answers.reverse();
        let transactions = Ending(Mutex::new(answers));
        let result = Client::from(&transactions as &dyn Transactions).reply(
            Header::NULL,
            Vec::new(),
            usize::MAX,
            idempotent,
        );
        assert!(transactions.0.lock().unwrap().is_empty(), "every answer was wanted");
        result
    }

    const LOST: Result<Message, Error> = Err(Error::MaybeExecuted(Status::RPC_FAILURE));
    const NOBODY: Result<Message, Error> = Err(Error::NotSent(Status::RPC_NOTFOUND));

    #[test]
    fn only_what_is_idempotent_is_tried_again() {
        assert_eq!(attempts(vec![LOST], false), LOST);
        assert_eq!(attempts(vec![LOST, LOST, LOST], true), LOST);
        let reply = || Ok(Message::status(Status::STD_OK));
        assert_eq!(attempts(vec![LOST, reply()], true), reply());
        assert_eq!(attempts(vec![NOBODY], true), NOBODY);
    }

    #[test]
    fn every_attempt_sends_the_same_request_and_one_with_a_deadline_is_not_repeated() {
        struct Noting(Mutex<Vec<Message>>);

        impl Transactions for Noting {
            fn trans(&self, request: Message, _: &TransOptions) -> Result<Message, Error> {
                self.0.lock().unwrap().push(request);
                LOST
            }

            fn trans_keeping(&self, request: &mut Message, _: &TransOptions) -> Result<Message, Error> {
                self.0.lock().unwrap().push(request.clone());
                LOST
            }

            fn listen(&self, _: &GetPort, _: usize) -> Result<Listener, Error> {
                Err(Error::NotSent(Status::RPC_TRYAGAIN))
            }

            fn put_port(&self, _: &GetPort) -> Result<PutPort, Error> {
                Err(Error::NotSent(Status::RPC_TRYAGAIN))
            }
        }

        let data = vec![1, 2, 3];
        for (deadline, attempts) in [(None, ATTEMPTS_MAX), (Some(std::time::Duration::from_secs(9)), 1)] {
            let noting = Noting(Mutex::default());
            let options = TransOptions { deadline, ..TransOptions::default() };
            let client = Client::new(&noting, &options);
            assert_eq!(client.reply(Header::NULL, data.clone(), usize::MAX, true), LOST);
            let sent = noting.0.lock().unwrap();
            assert_eq!(*sent, vec![Message { header: Header::NULL, data: data.clone() }; attempts]);
        }
    }

    #[test]
    fn an_earlier_attempt_that_may_have_been_executed_is_not_forgotten() {
        let maybe = Err(Error::MaybeExecuted(Status::RPC_NOTFOUND));
        assert_eq!(attempts(vec![LOST, NOBODY], true), maybe);
        assert_eq!(attempts(vec![LOST, LOST, NOBODY], true), maybe);
    }
}
