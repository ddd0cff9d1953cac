//! RPC packets: the protocol header, and for requests and replies the transaction header and the data.

use amoeba_cap::PutPort;
use amoeba_wire::packet::{RPC_HEADER_SIZE, RpcHeader, RpcKind};
use amoeba_wire::{HEADER_SIZE, Header};
use amoeba_world::Message;

use crate::HEADERS_SIZE;

/// What a FLIP broadcast of RPC begins with: its protocol number, big-endian.
pub const LOCATE_HEADER: [u8; 4] = [0, 0, 0, 1];

/// An RPC packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The protocol header.
    pub header: RpcHeader,
    /// What a request or reply carries.
    pub message: Option<Message>,
}

impl Packet {
    /// The packet in these bytes, which are a FLIP message or its beginning; `None` for anything else.
    pub fn parse(mut payload: Vec<u8>) -> Option<Packet> {
        let (header, rest, big_endian) = RpcHeader::parse(&payload)?;
        let carries = matches!(header.kind, RpcKind::Request | RpcKind::Reply);
        if !carries {
            return Some(Packet { header, message: None });
        }
        let bytes: &[u8; HEADER_SIZE] = rest.first_chunk()?;
        let inner = Header::from_bytes(bytes, big_endian);
        payload.drain(..HEADERS_SIZE);
        Some(Packet { header, message: Some(Message { header: inner, data: payload }) })
    }
}

/// The bytes of a packet.
pub fn emit(header: &RpcHeader, message: Option<&Message>) -> Vec<u8> {
    let data = message.map_or(&[][..], |message| &message.data);
    let mut bytes = Vec::with_capacity(HEADERS_SIZE + data.len());
    bytes.extend_from_slice(&header.to_bytes());
    if let Some(message) = message {
        bytes.extend_from_slice(&message.header.to_bytes(true));
        bytes.extend_from_slice(data);
    }
    bytes
}

/// A LOCATE for `port`, with the time it was sent in milliseconds, as the payload of a FLIP broadcast.
pub fn locate(port: PutPort, sent: u32) -> Vec<u8> {
    let header =
        RpcHeader { kid: [0; 8], port, kind: RpcKind::Locate, flags: 0, tid: sent, dest: 0, from: 0 };
    let mut bytes = Vec::with_capacity(LOCATE_HEADER.len() + RPC_HEADER_SIZE);
    bytes.extend_from_slice(&LOCATE_HEADER);
    bytes.extend_from_slice(&header.to_bytes());
    bytes
}
