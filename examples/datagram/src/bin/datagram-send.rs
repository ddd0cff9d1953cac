//! Sends a datagram and waits a little for an answer: `datagram-send PORT TEXT`. Nothing says that either arrives, so it
//! tries a few times.
#![forbid(unsafe_code)]

use std::time::Duration;

use amoeba::{Destination, PutPort};

/// How often a datagram is sent before the receiver counts as absent.
const TRIES: u32 = 5;
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, text] = arguments.as_slice() else {
        return Err("usage: datagram-send PORT TEXT".into());
    };
    let port: PutPort = port.parse()?;
    let world = amoeba::connect()?;
    let endpoint = world.transactions.datagrams(None)?;
    for _ in 0..TRIES {
        endpoint.send(Destination::Port(port), text.clone().into_bytes())?;
        if let Some(answer) = endpoint.receive(Some(PATIENCE))? {
            println!("{}", String::from_utf8_lossy(&answer.data));
            return Ok(());
        }
    }
    Err("no answer: nobody listens there, or everything was lost".into())
}
