//! A server that writes down what it executes, and clients that write down what they hear.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amoeba::{Capability, Command, Error, GetPort, PutPort, Status, World};
use amoeba_cap::Private;
use amoeba_wire::Header;
use amoeba_world::{Incoming, Message, TransOptions};

use crate::ledger::{CLIENT_BITS, Ledger};
use crate::lot::Lot;

const COUNT: Command = Command(15_100);
const REQUEST_SIZE_MAX: usize = 2 << 20;
const SERVER_THREADS: usize = 4;
const CLIENT_THREADS: u64 = 3;
/// While this file is in the folder, clients begin nothing new.
pub const STOP: &str = "stop";

fn get_port(service: u8) -> GetPort {
    GetPort::from_bytes([b'p', b'r', b'o', b'o', b'f', service])
}

/// Serves until it is killed, or until the kernel under it is: then it ends, to be started again.
///
/// # Errors
/// What keeps it from serving.
pub fn serve(folder: &Path, service: u8, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let world = amoeba::connect()?;
    let name = format!("server-{}.ledger", std::process::id());
    let ledger = Ledger::open(folder, &name)?;
    let listener = world.transactions.listen(&get_port(service), REQUEST_SIZE_MAX)?;
    let counter = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..SERVER_THREADS {
            scope.spawn(|| {
                let mut lot = Lot::new(seed, counter.fetch_add(1, Ordering::Relaxed));
                while let Ok(incoming) = listener.getreq() {
                    answer(&ledger, &mut lot, incoming);
                }
            });
        }
    });
    Ok(())
}

fn answer(ledger: &Ledger, lot: &mut Lot, incoming: Incoming) {
    let data = &incoming.request.data;
    let Some(number) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return ledger.write('C', 0, "a request without number");
    };
    ledger.write('X', number, "");
    if data[8..] != filler(number, data.len() - 8) {
        ledger.write('C', number, &format!("{} bytes", data.len()));
    }
    match lot.below(100) {
        0..2 => std::thread::sleep(Duration::from_millis(lot.below(3000))),
        2..20 => std::thread::sleep(Duration::from_micros(lot.below(20_000))),
        20..22 => return drop(incoming.reply), // a server that gives up
        _ => {}
    }
    incoming.reply.send(reply_to(number));
}

/// Asks until the folder has the file [`STOP`].
///
/// # Errors
/// No kernel.
pub fn ask(folder: &Path, service: u8, client: u64, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let world = amoeba::connect()?;
    let ledger = Ledger::open(folder, &format!("client-{client}.ledger"))?;
    let next = Arc::new(AtomicU64::new(client << CLIENT_BITS));
    std::thread::scope(|scope| {
        for thread in 0..CLIENT_THREADS {
            let (world, ledger, next) = (&world, &ledger, next.clone());
            scope.spawn(move || {
                let mut lot = Lot::new(seed, client << 8 | thread);
                while !folder.join(STOP).exists() {
                    let kind =
                        ask_once(world, ledger, &mut lot, service, next.fetch_add(1, Ordering::Relaxed));
                    let pause = if kind == 'D' { lot.below(4000) } else { 50_000 };
                    std::thread::sleep(Duration::from_micros(pause));
                }
            });
        }
    });
    ledger.write('F', client, "");
    Ok(())
}

/// Asks until it was answered once.
///
/// # Errors
/// No kernel, or no answer within `patience`.
pub fn visit(
    folder: &Path,
    service: u8,
    client: u64,
    patience: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let end = std::time::Instant::now() + patience;
    let world = amoeba::connect()?;
    let ledger = Ledger::open(folder, &format!("client-{client}.ledger"))?;
    let mut lot = Lot::new(client, 0);
    for number in client << CLIENT_BITS.. {
        if ask_once(&world, &ledger, &mut lot, service, number) == 'D' {
            ledger.write('F', client, "");
            return Ok(());
        }
        if std::time::Instant::now() > end {
            return Err("nobody answers, though all harm is undone".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    unreachable!("a visit is over before numbers are")
}

fn ask_once(world: &World, ledger: &Ledger, lot: &mut Lot, service: u8, number: u64) -> char {
    let port = world.transactions.put_port(&get_port(service)).unwrap_or(PutPort::NULL);
    if port == PutPort::NULL {
        return 'K'; // the kernel is being started again
    }
    let capability = Capability { port, private: Private::NULL };
    let size = match lot.below(100) {
        0..2 => lot.below(600_000),
        2..10 => lot.below(20_000),
        _ => lot.below(200),
    };
    let mut data = number.to_le_bytes().to_vec();
    data.extend(filler(number, size as usize));
    let request = Message { header: Header::request(&capability, COUNT), data };
    let deadline = (lot.below(12) == 0).then(|| Duration::from_micros(lot.below(60_000)));
    let options = TransOptions { deadline, ..TransOptions::default() };
    ledger.write('B', number, "");
    let result = world.transactions.trans(request, &options);
    let (kind, text) = match result {
        Ok(reply) if reply == reply_to(number) => ('D', String::new()),
        Ok(reply) => ('W', format!("{:?}, {} bytes", reply.header.status(), reply.data.len())),
        Err(Error::NotSent(status)) => ('N', format!("{status:?}")),
        Err(Error::MaybeExecuted(status)) => ('U', format!("{status:?}")),
        Err(error) => ('W', format!("{error:?}")),
    };
    ledger.write(kind, number, &text);
    kind
}

fn reply_to(number: u64) -> Message {
    let size = match number % 100 {
        7 => 300_000,
        0 | 30 | 60 => 5000,
        rest => rest as usize,
    };
    let mut data = number.to_be_bytes().to_vec();
    data.extend(filler(!number, size));
    Message { header: Header::reply(Status::STD_OK), data }
}

fn filler(number: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|index| (number.wrapping_mul(31).wrapping_add(index * 7)) as u8).collect()
}
