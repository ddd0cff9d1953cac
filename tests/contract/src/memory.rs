//! The contract of memory files.

use amoeba_cap::{Capability, GetPort, Private};
use amoeba_wire::packet::Address;
use amoeba_wire::{Command, Header, Status};
use amoeba_world::{Error, Message, TransOptions, World};

/// What is lent is read by the process it was lent to and by no other, once for each ticket, and counts as lent until that
/// process has given it back. `owner` and `borrower` are worlds of two processes of one host. Where the world has no
/// memory files, says so and checks nothing.
pub fn memory_files_keep_their_promises(owner: &World, borrower: &World) {
    let fill = &mut |bytes: &mut [u8]| bytes.iter_mut().zip(0u32..).for_each(|(byte, at)| *byte = at as u8);
    let Some(memory) = owner.transactions.memory(100_000, fill) else {
        return eprintln!("SKIPPED: no memory files here");
    };
    assert_eq!(memory.bytes().len(), 100_000);
    assert_eq!(memory.bytes()[259], 3);
    assert!(!memory.is_lent());

    let address = address_of(owner, borrower);
    let ticket = memory.lend(address).expect("the borrower is here");
    assert_ne!(ticket, 0);
    assert!(memory.is_lent(), "a ticket that is not used up");
    let not_here = Err(Error::NotSent(Status::STD_NOTFOUND));
    assert_eq!(owner.transactions.borrow_memory(ticket).map(drop), not_here, "it is another's");
    assert_eq!(borrower.transactions.borrow_memory(ticket + 1).map(drop), not_here);
    let borrowed = borrower.transactions.borrow_memory(ticket).expect("it was lent to it");
    assert_eq!(borrower.transactions.borrow_memory(ticket).map(drop), not_here, "once");
    assert_eq!(borrowed.bytes(), memory.bytes());
    assert!(borrowed.lend(address).is_err(), "it is not its own");
    assert!(!borrowed.is_lent());
    assert!(memory.is_lent());

    let again = memory.lend(address).and_then(|ticket| borrower.transactions.borrow_memory(ticket));
    let again = again.expect("many may have it");
    drop(borrowed);
    assert!(memory.is_lent());
    let bytes = memory.bytes().to_vec();
    drop(again);
    assert!(!memory.is_lent(), "everything was given back");
    let last = memory.lend(address).expect("the borrower is here");
    drop(memory);
    let last = borrower.transactions.borrow_memory(last).expect("what is lent outlives its owner's hold");
    assert_eq!(last.bytes(), bytes);
    let nobody = owner.transactions.memory(1, &mut |_| {}).expect("one more");
    assert!(nobody.lend(Address([0xEE; 8])).is_err_and(|error| error.not_executed()));
    assert!(!nobody.is_lent());
}

/// How a server sees a client.
fn address_of(server: &World, client: &World) -> Address {
    let port = GetPort::from_bytes(*b"memory");
    let listener = server.transactions.listen(&port, 0).expect("room for a port");
    let capability = Capability { port: listener.put_port(), private: Private::NULL };
    let waiting = listener.clone();
    let answering = server.threads.spawn("server", move || {
        let incoming = waiting.getreq().expect("a request comes");
        let process = incoming.caller.process;
        incoming.reply.send(Message::status(Status::STD_OK));
        process
    });
    let request = Message { header: Header::request(&capability, Command(15_001)), data: Vec::new() };
    client.transactions.trans(request, &TransOptions::default()).expect("it is answered");
    let process = answering.expect("room for a thread").join().expect("it does not panic");
    listener.close();
    process
}
