//! Memory files between processes of one host.

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_linux::client::Client;
use amoeba_tests_contract as contract;
use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Message, TransOptions, Transactions};
use common::{System, port, request};

const SOCKET: &str = "AMOEBA_TEST_SOCKET";

#[test]
fn memory_files_keep_their_promises() {
    let system = System::start("memory");
    let (owner, borrower) = (amoeba_linux::connect(&system.path), amoeba_linux::connect(&system.path));
    contract::memory_files_keep_their_promises(&owner, &borrower);
}

/// Not a test of its own: the borrower of the test below.
#[test]
fn child() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let client = Client::new(&PathBuf::from(socket));
    let server = SystemSecret::from_bytes([42; 32]).put_port(&port(1));
    let ask = |extra| {
        let mut request = request(server, Vec::new());
        request.header.extra = extra;
        client.trans(request, &TransOptions::default()).unwrap()
    };
    let ticket = u64::from_le_bytes(ask(0).data.try_into().unwrap());
    let memory = client.borrow_memory(ticket).unwrap();
    assert_eq!(memory.bytes()[..3], [7; 3]);
    ask(1); // it is borrowed
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_killed_borrower_had_comes_back() {
    let system = System::start("memory-killed");
    let owner = system.client();
    let Some(memory) = owner.memory(1 << 20, &mut |bytes| bytes.fill(7)) else {
        return eprintln!("SKIPPED: this system does not say who holds a memory file");
    };
    let listener = owner.listen(&port(1), 0).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(SOCKET, &system.path);
    let child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    for _ in 0..2 {
        let incoming = listener.getreq().unwrap();
        let lends = incoming.request.header.extra == 0;
        let ticket = if lends { memory.lend(incoming.caller.process).unwrap() } else { 0 };
        let data = ticket.to_le_bytes().to_vec();
        incoming.reply.send(Message { header: Header::NULL, data });
    }
    assert!(memory.is_lent());
    drop(child);
    assert!(!memory.is_lent(), "the system has taken everything from the dead");
}

#[test]
fn tickets_of_the_dead_are_void_and_nothing_but_sealed_memory_is_lent() {
    let system = System::start("memory-void");
    let owner = system.client();
    let Some(memory) = owner.memory(1, &mut |bytes| bytes.fill(7)) else {
        return eprintln!("SKIPPED: this system does not say who holds a memory file");
    };
    let listener = owner.listen(&port(1), 0).unwrap();
    let address = {
        let borrower = system.client();
        let asking = borrower.clone();
        let server = listener.put_port();
        let thread =
            std::thread::spawn(move || asking.trans(request(server, Vec::new()), &TransOptions::default()));
        let incoming = listener.getreq().unwrap();
        let address = incoming.caller.process;
        memory.lend(address).unwrap();
        assert!(memory.is_lent());
        incoming.reply.send(Message::status(Status::STD_OK));
        thread.join().unwrap().unwrap();
        address
    };
    // The daemon hears of the end of a process when its connections close.
    while memory.is_lent() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(memory.lend(address), Err(Error::NotSent(Status::RPC_NOTFOUND)));
}
