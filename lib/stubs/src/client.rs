//! How a client function does its transactions.

use std::sync::Arc;

use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Message, TransOptions, Transactions, World};

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

    /// One operation: sends the request, again if it is `idempotent` and may or may not have been executed, and turns
    /// an error in the reply into [`Error::Refused`].
    #[doc(hidden)]
    pub fn trans(
        self,
        header: Header,
        data: Vec<u8>,
        reply_size_max: usize,
        idempotent: bool,
    ) -> Result<(Header, Vec<u8>), Error> {
        accept(self.reply(header, data, reply_size_max, idempotent)?)
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
        let request = Message { header, data };
        for _ in 1..if idempotent { ATTEMPTS_MAX } else { 1 } {
            match self.transactions.trans(request.clone(), &options) {
                Err(Error::MaybeExecuted(_)) => {}
                result => return result,
            }
        }
        self.transactions.trans(request, &options)
    }
}

fn accept(reply: Message) -> Result<(Header, Vec<u8>), Error> {
    let status = reply.header.status();
    if status.is_rpc() {
        Err(Error::Refused(Status::RPC_REMOTERPC))
    } else if status.is_error() {
        Err(Error::Refused(status))
    } else {
        Ok((reply.header, reply.data))
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
