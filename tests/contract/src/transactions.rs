//! The contract of `Transactions`.

use std::time::Duration;

use amoeba_cap::{Capability, GetPort, Private, PutPort};
use amoeba_wire::{Command, Header, Status};
use amoeba_world::{Error, Listener, Message, TransOptions, World};

const ECHO: Command = Command(15_001);
const FALL_SILENT: Command = Command(15_002);
const NEVER_ANSWER: Command = Command(15_003);
const REQUEST_SIZE_MAX: usize = 200_000;

/// Requests come to the server once and replies come back; who asks for what cannot be hears why. `server` and
/// `client` are worlds of two processes of one system; call it from a thread of either world's scheduler.
pub fn transactions_keep_their_promises(server: &World, client: &World) {
    let secret = GetPort::from_bytes(*b"\x11\x22\x33\x44\x55\x66");
    let listener = server.transactions.listen(&secret, REQUEST_SIZE_MAX).expect("there is room for a port");
    let port = listener.put_port();
    assert_eq!(server.transactions.put_port(&secret), Ok(port));
    assert_eq!(client.transactions.put_port(&secret), Ok(port), "F is one function in the whole system");
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let listener = listener.clone();
            server.threads.spawn("server", move || serve(&listener)).expect("room for three")
        })
        .collect();

    let capability = Capability { port, private: Private::NULL };
    echoes_come_back(client, &capability);
    threads_of_a_client_do_not_mix(client, &capability);
    bad_requests_are_not_sent(client, &capability);
    too_much_is_refused(client, &capability);
    signatures_are_proven(client, &capability);
    silence_is_maybe_executed(client, &capability);
    no_transaction_outlives_its_deadline(client, &capability);

    listener.close();
    assert!(threads.into_iter().all(|thread| thread.join().is_some()), "close ends every getreq");
    let result = client.transactions.trans(echo(&capability, vec![1]), &impatient());
    assert!(result.is_err_and(|error| error.not_executed()), "nobody serves any more");
}

/// Echoes data; the reply says who signed.
fn serve(listener: &Listener) {
    let mut unanswered = Vec::new();
    while let Ok(incoming) = listener.getreq() {
        let request = incoming.request;
        if request.header.command() == FALL_SILENT {
            drop(incoming.reply);
            continue;
        }
        if request.header.command() == NEVER_ANSWER {
            unanswered.push(incoming.reply);
            continue;
        }
        assert_eq!(request.header.port, listener.put_port());
        let mut header = Header::reply(Status::STD_OK);
        header.offset = request.header.offset;
        header.signature = incoming.caller.signature.unwrap_or(PutPort::NULL);
        header.port = incoming.caller.signature.unwrap_or(PutPort::NULL);
        incoming.reply.send(Message { header, data: request.data });
    }
}

fn echo(capability: &Capability, data: Vec<u8>) -> Message {
    Message { header: Header::request(capability, ECHO), data }
}

fn impatient() -> TransOptions {
    TransOptions { locate_timeout: Duration::from_millis(300), ..TransOptions::default() }
}

fn echoes_come_back(client: &World, capability: &Capability) {
    for size in [0, 1, 1000, 1394, 1458, 1459, 30_000, REQUEST_SIZE_MAX] {
        let data: Vec<u8> = (0..size).map(|index| (index * 7 % 251) as u8).collect();
        let reply = client.transactions.trans(echo(capability, data.clone()), &TransOptions::default());
        let reply = reply.expect("the server is there");
        assert_eq!(reply.header.status(), Status::STD_OK);
        assert!(reply.data == data, "{size} bytes came back changed");
    }
}

fn threads_of_a_client_do_not_mix(client: &World, capability: &Capability) {
    let work = |number: i32| {
        let (world, capability) = (client.clone(), *capability);
        let body = move || {
            for round in 0..20 {
                let mut request = echo(&capability, vec![number as u8; 10]);
                request.header.offset = number * 1000 + round;
                let reply = world.transactions.trans(request, &TransOptions::default());
                let reply = reply.expect("the server is there");
                assert_eq!(reply.header.offset, number * 1000 + round);
                assert_eq!(reply.data, vec![number as u8; 10]);
            }
        };
        client.threads.spawn("client", body).expect("room for eight")
    };
    let handles: Vec<_> = (0..8).map(work).collect();
    assert!(handles.into_iter().all(|handle| handle.join().is_some()));
}

fn bad_requests_are_not_sent(client: &World, capability: &Capability) {
    let trans = |request| client.transactions.trans(request, &impatient()).map(|reply| reply.data);
    let null = Message { header: Header { command: 1, ..Header::NULL }, data: Vec::new() };
    assert_eq!(trans(null), Err(Error::NotSent(Status::RPC_BADPORT)));
    let mut error_code = echo(capability, Vec::new());
    error_code.header.command = Status::STD_CAPBAD.0 as u16;
    assert_eq!(trans(error_code), Err(Error::NotSent(Status::RPC_COMBAD)));
    let unknown = client.transactions.put_port(&GetPort::from_bytes([9; 6])).expect("F is always there");
    let nobody = Capability { port: unknown, private: Private::NULL };
    assert_eq!(trans(echo(&nobody, vec![1])), Err(Error::NotSent(Status::RPC_NOTFOUND)));
}

fn too_much_is_refused(client: &World, capability: &Capability) {
    let trans = |size, options| {
        let reply = client.transactions.trans(echo(capability, vec![1; size]), &options)?;
        Ok::<_, Error>((reply.header.status(), reply.data.len()))
    };
    let too_large = Ok((Status::STD_OVERFLOW, 0));
    assert_eq!(trans(REQUEST_SIZE_MAX + 1, TransOptions::default()), too_large);
    let small = TransOptions { reply_size_max: 99, ..TransOptions::default() };
    assert_eq!(trans(99, small.clone()), Ok((Status::STD_OK, 99)));
    assert_eq!(trans(100, small), too_large);
}

fn signatures_are_proven(client: &World, capability: &Capability) {
    let secret = GetPort::from_bytes([5; 6]);
    let public = client.transactions.put_port(&secret).expect("F is always there");
    let signed = TransOptions { signature: Some(secret), ..TransOptions::default() };
    let reply =
        client.transactions.trans(echo(capability, Vec::new()), &signed).expect("the server is there");
    assert_eq!(reply.header.port, public);
    let mut forged = echo(capability, Vec::new());
    forged.header.signature = public; // who does not know the get-port cannot sign
    let reply = client.transactions.trans(forged, &TransOptions::default()).expect("the server is there");
    assert!(reply.header.port.is_null());
}

fn silence_is_maybe_executed(client: &World, capability: &Capability) {
    let request = Message { header: Header::request(capability, FALL_SILENT), data: Vec::new() };
    let result = client.transactions.trans(request, &TransOptions::default()).map(|reply| reply.data);
    assert_eq!(result, Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
}

fn no_transaction_outlives_its_deadline(client: &World, capability: &Capability) {
    let hurried = TransOptions { deadline: Some(Duration::from_millis(100)), ..TransOptions::default() };
    let request = Message { header: Header::request(capability, NEVER_ANSWER), data: Vec::new() };
    let result = client.transactions.trans(request, &hurried).map(|reply| reply.data);
    assert_eq!(result, Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    let unknown = client.transactions.put_port(&GetPort::from_bytes([9; 6])).expect("F is always there");
    let nobody = Capability { port: unknown, private: Private::NULL };
    let result = client.transactions.trans(echo(&nobody, vec![1]), &hurried).map(|reply| reply.data);
    assert_eq!(result, Err(Error::NotSent(Status::RPC_NOTFOUND)));
    let unhurried = TransOptions { deadline: Some(Duration::from_secs(600)), ..TransOptions::default() };
    let reply = client.transactions.trans(echo(capability, vec![3]), &unhurried);
    assert_eq!(reply.expect("the server is there").data, [3]);
}
