//! Listens for datagrams: prints its put-port, then each datagram that arrives, and answers it. Serves until it is
//! killed. Run it beside a system (`amoeba up`).
#![forbid(unsafe_code)]

use std::io::Write;

use amoeba::{Destination, GetPort};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = amoeba::connect()?;
    // Secret: nobody else can receive what is sent to its put-port.
    let port = GetPort::from_bytes(amoeba::random_bytes(&*world.entropy));
    let endpoint = world.transactions.datagrams(Some(&port))?;
    println!("{}", endpoint.put_port().ok_or("an endpoint opened with a port has one")?);
    std::io::stdout().flush()?;
    while let Ok(Some(datagram)) = endpoint.receive(None) {
        println!("{}: {}", datagram.from, String::from_utf8_lossy(&datagram.data));
        std::io::stdout().flush()?;
        let answer = format!("{} bytes arrived", datagram.data.len());
        endpoint.send(Destination::Address(datagram.from), answer.into_bytes())?;
    }
    Ok(())
}
