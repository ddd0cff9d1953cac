//! What only the owner of the system asks: which hosts there are, and who may join.

use amoeba_cap::SystemSecret;
use amoeba_world::Error;

use super::Client;
use crate::socket::{Admin, Administered, ToKernel, ToProcess, proof};

impl Client {
    /// Asks the kernel of this host about other hosts; `secret` proves that this process may.
    ///
    /// # Errors
    /// [`Error::NotSent`] when no daemon answers, [`Error::Refused`] with STD_DENIED when the secret is another's.
    pub fn administer(&self, secret: &SystemSecret, request: &Admin) -> Result<Administered, Error> {
        let frame = ToKernel::Admin { proof: proof(secret), request: request.emit() };
        match self.control(&frame)? {
            ToProcess::Administered { answer } => Administered::parse(&answer).map_err(|_| Error::BadReply),
            ToProcess::Error { error } => Err(error),
            _ => Err(Error::BadReply),
        }
    }
}
