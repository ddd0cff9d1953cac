//! A process that forks without an exec: its child is a process of its own, and leaves what is its parent's alone.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use amoeba_world::{Error, Incoming, ListenError, Message, TransOptions, Transactions};
use common::{Echo, System, port, request};
use nix::libc;
use rustix::process::{Pid, WaitOptions, waitpid};

/// Runs this in a child, which must live through it without panicking. What it has of its parent is not dropped.
fn in_child(body: impl FnOnce()) {
    // SAFETY: the child runs on as a copy of this thread alone. No other thread of these tests holds a lock that the body
    // takes: the C library's own are in order after a fork, and those of the client are what is tested.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let lived = catch_unwind(AssertUnwindSafe(body)).is_ok();
        // SAFETY: it ends the process, and runs nothing of its parent's.
        unsafe { libc::_exit(i32::from(!lived)) }
    }
    let ended = waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap();
    assert_eq!(ended.and_then(|(_, status)| status.exit_status()), Some(0));
}

fn trans(client: &impl Transactions, message: Message) -> Result<Message, Error> {
    client.trans(message, &TransOptions::default())
}

#[test]
fn a_child_and_its_parent_are_two_clients() {
    let system = System::start("two-clients");
    let echo = Echo::start(&system, 2, 1 << 20);
    let client = system.client();
    let ask = |who: u8, count: usize| {
        for number in 0..count {
            let data = vec![who, number as u8];
            assert_eq!(trans(&client, request(echo.port, data.clone())).unwrap().data, data);
        }
    };
    while client.passage(echo.port).is_none() {
        ask(0, 1);
    }
    in_child(|| {
        assert_eq!(client.passage(echo.port), None, "it has no channel yet");
        ask(1, 200);
        in_child(|| ask(2, 200)); // and a grandchild
        ask(1, 200);
    });
    assert_eq!(client.passage(echo.port), Some("channel"), "nobody has closed the parent's");
    ask(0, 200);
}

#[test]
fn listening_and_answering_stay_the_parents() {
    let system = System::start("stay");
    let listener = system.client().listen(&port(1), 1 << 20).unwrap();
    let (put_port, client) = (listener.put_port(), system.client());
    let asking = std::thread::spawn(move || {
        for number in 0..20u8 {
            assert_eq!(trans(&client, request(put_port, vec![number])).unwrap().data, [number, 7]);
        }
    });
    for round in 0..20 {
        let Incoming { request: mut message, reply, .. } = listener.getreq().unwrap();
        let mut reply = Some(reply);
        // Both by the daemon's path, and over the channel that has come meanwhile.
        if round == 0 || round == 19 {
            in_child(|| {
                reply.take().unwrap().send(Message { data: vec![13], ..message.clone() });
                assert_eq!(listener.getreq().unwrap_err(), ListenError);
                listener.close();
            });
        }
        message.data.push(7);
        message.header.command = 0;
        reply.take().unwrap().send(message);
    }
    asking.join().unwrap();
    listener.close();
}
