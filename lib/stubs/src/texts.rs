//! The standard operations on texts and on many objects, in the form a program wants them.

use amoeba_cap::{Capability, PRIVATE_SIZE, Private, PutPort};
use amoeba_wire::{Header, Status};
use amoeba_world::Error;

use crate::Client;
use crate::generated::standard::{CMD_NTOUCH, InfoReply, NTOUCH_MAX, StatusReply, info, status};

/// One line about an object; bytes that are no UTF-8 are replaced.
///
/// # Errors
/// STD_OVERFLOW when the server sent less than the whole.
pub fn info_text<'t>(t: impl Into<Client<'t>>, object: &Capability) -> Result<String, Error> {
    let InfoReply { length, text } = info(t, object, u16::MAX)?;
    whole(length, text)
}

/// Several lines on how an object, or a server, is doing.
///
/// # Errors
/// As [`info_text`].
pub fn status_text<'t>(t: impl Into<Client<'t>>, object: &Capability) -> Result<String, Error> {
    let StatusReply { length, text } = status(t, object, u16::MAX)?;
    whole(length, text)
}

fn whole(length: u16, text: Vec<u8>) -> Result<String, Error> {
    if text.len() < usize::from(length) {
        return Err(Error::Refused(Status::STD_OVERFLOW));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Touches many objects of the server at `port`, in transactions of at most [`NTOUCH_MAX`]; how many were touched, and
/// the last error. A bad capability does not keep the others from being touched; an error of the transaction does.
pub fn touch_all<'t>(
    t: impl Into<Client<'t>>,
    port: PutPort,
    objects: &[Private],
) -> (usize, Result<(), Error>) {
    let client = t.into();
    let mut touched = 0;
    let mut last = Ok(());
    for objects in objects.chunks(NTOUCH_MAX) {
        let mut data = Vec::with_capacity(objects.len() * PRIVATE_SIZE);
        data.extend(objects.iter().flat_map(|private| private.to_bytes()));
        let mut header = Header::request(&Capability { port, private: Private::NULL }, CMD_NTOUCH);
        header.size = u16::try_from(objects.len()).expect("a chunk has at most NTOUCH_MAX, 2000");
        match client.reply(header, data, 0, true) {
            Ok(reply) => {
                touched += usize::from(reply.header.extra).min(objects.len());
                if let status @ Status(..0) = reply.header.status() {
                    last = Err(Error::Refused(status));
                }
            }
            Err(error) => return (touched, Err(error)),
        }
    }
    (touched, last)
}
