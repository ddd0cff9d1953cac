//! Both ends over plain memory.

use amoeba_cap::PutPort;
use amoeba_wire::Header;
use amoeba_world::Message;

use crate::memory::Plain;
use crate::{ClientEnd, Receiving, ServerEnd, Service, Step};

type Client = ClientEnd<std::sync::Arc<Plain>, std::sync::Arc<Plain>>;
type Server = ServerEnd<std::sync::Arc<Plain>, std::sync::Arc<Plain>>;

fn pair(client_ring: usize, server_ring: usize, request_size_max: usize) -> (Client, Server) {
    let (requests, replies) = (Plain::new(client_ring), Plain::new(server_ring));
    let client = ClientEnd::new(requests.clone(), replies.clone());
    let service = Service { port: PutPort::from_bytes([7; 6]), signature: PutPort::NULL, request_size_max };
    (client, ServerEnd::new(replies, requests, service))
}

fn message(command: u16, size: usize) -> Message {
    let header = Header { port: PutPort::from_bytes([7; 6]), command, ..Header::NULL };
    let data = (0..size).map(|index| (index * 31 + usize::from(command)) as u8).collect();
    Message { header, data }
}

/// Steps both ends in turn until the client hears how it ended; the server answers with `reply`.
fn finish(client: &mut Client, server: &mut Server, reply: &Message) -> (Option<Message>, Step) {
    let mut request = None;
    for _ in 0..1_000_000 {
        match server.receive() {
            Receiving::Request(message) => {
                request = Some(message);
                server.reply(reply.clone());
            }
            Receiving::Busy => {
                server.step();
            }
            _ => {}
        }
        match client.step() {
            Step::Waiting | Step::Progress => {}
            end => return (request, end),
        }
    }
    panic!("no end");
}

#[test]
fn messages_of_every_size_come_through_rings_of_every_size() {
    for (ring_there, ring_back) in [(64, 64), (64, 4096), (1 << 16, 64), (1 << 18, 1 << 18)] {
        let (mut client, mut server) = pair(ring_there, ring_back, 1 << 20);
        for size in [0, 1, 63, 64, 65, 127, 128, 4095, 4096, 70_000, 1 << 18, (1 << 18) + 1] {
            let (request, reply) = (message(1, size), message(2, size / 2));
            client.begin(request.clone(), 1 << 20).expect("idle");
            let (received, end) = finish(&mut client, &mut server, &reply);
            assert_eq!(received, Some(request.clone()));
            assert_eq!(end, Step::Reply(reply));
            assert_eq!(client.take_request(), Some(request));
        }
    }
}
