//! RPC packets: the protocol header, and for requests and replies the transaction header and the data.

use std::sync::Arc;

use amoeba_cap::PutPort;
use amoeba_flip::{Head, Payload};
use amoeba_wire::Header;
use amoeba_wire::packet::{Address, RPC_HEADER_SIZE, RpcHeader, RpcKind, rpc_flag};
use amoeba_world::Message;

/// What a FLIP broadcast of RPC begins with: its protocol number, big-endian.
pub const LOCATE_HEADER: [u8; 4] = [0, 0, 0, 1];

/// An RPC packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The protocol header.
    pub header: RpcHeader,
    /// What a request or reply carries.
    pub message: Option<Message>,
    /// Whom a FORWARD names.
    pub next: Option<Address>,
}

impl Packet {
    /// The packet that begins with `head`; `data`, which follows it, is not moved. `None` for anything else.
    pub fn parse(head: &Head, data: Vec<u8>) -> Option<Packet> {
        let (header, rest, big_endian) = RpcHeader::parse(head)?;
        let (mut message, mut next) = (None, None);
        match header.kind {
            RpcKind::Request | RpcKind::Reply => {
                let inner = Header::from_bytes(rest.first_chunk()?, big_endian);
                message = Some(Message { header: inner, data });
            }
            RpcKind::Forward => next = Some(Address(*rest.first_chunk()?)),
            _ => {}
        }
        Some(Packet { header, message, next })
    }
}

/// A packet; a request or reply with its transaction header and the data, which it shares.
pub fn emit(header: &RpcHeader, message: Option<(&Header, &Arc<Vec<u8>>)>) -> Payload {
    let mut head = Head::new(&header.to_bytes());
    match message {
        None => Payload::bare(head),
        Some((inner, data)) => {
            head.push(&inner.to_bytes(true));
            Payload::new(head, data)
        }
    }
}

/// A LOCATE for `port`, with the time it was sent, which its HEREIS repeats, as the payload of a FLIP broadcast.
pub fn locate(port: PutPort, sent: u32) -> Vec<u8> {
    let header = RpcHeader {
        kid: [0; 8],
        port,
        kind: RpcKind::Locate,
        flags: rpc_flag::REPORTS,
        tid: sent,
        dest: 0,
        from: 0,
    };
    let mut bytes = Vec::with_capacity(LOCATE_HEADER.len() + RPC_HEADER_SIZE);
    bytes.extend_from_slice(&LOCATE_HEADER);
    bytes.extend_from_slice(&header.to_bytes());
    bytes
}

#[cfg(test)]
mod tests;
