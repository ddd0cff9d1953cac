//! A stranger throws datagrams at a kernel as fast as it can, while others work.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::hosts::{self, Host, ends_well, resident_size};
use crate::ledger;
use crate::lot::Lot;
use crate::service::STOP;
use crate::torment::ENDS_WITHIN;

type Error = Box<dyn std::error::Error>;

/// What a kernel's memory may grow by under a flood.
const GROWTH_MAX: u64 = 48 << 20;
/// First bytes of datagrams of a link; the rest is what the stranger makes of it.
const KINDS: [u8; 10] = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x20, 0x21, 0];

/// Sends `count` datagrams to the second host while the first asks a server there, and checks what became of it all.
///
/// # Errors
/// Every promise that was broken.
pub fn run(count: u64, folder: &Path) -> Result<(), Error> {
    let hosts = hosts::all()?;
    let [near, far, ..] = &hosts[..] else { return Err("two hosts are needed".into()) };
    let words = folder.display().to_string();
    let mut server = far.start(&["serve", words.as_str(), "0", "1"])?;
    let result = work(near, far, &words, count, folder);
    server.kill()?;
    server.wait()?;
    let tally = result.and_then(|()| ledger::check(folder).map_err(Error::from))?;
    println!("{count} datagrams: {tally:?}");
    if tally.answered < 100 || tally.unheard > 0 {
        return Err(format!("the flood kept somebody out: {tally:?}").into());
    }
    Ok(())
}

fn work(near: &Host, far: &Host, words: &str, count: u64, folder: &Path) -> Result<(), Error> {
    let patience = ENDS_WITHIN.as_secs().to_string();
    let mut first = near.start(&["visit", words, "0", "1", &patience])?;
    ends_well(&mut first, "the first visitor", Instant::now() + ENDS_WITHIN * 2)?;
    let mut client = near.start(&["ask", words, "0", "2", "7"])?;
    let kernel = far.kernel().ok_or("the kernel runs")?;
    std::thread::sleep(Duration::from_millis(500));
    let before = resident_size(kernel).ok_or("the kernel runs")?;
    let sent = throw(&address_of(far)?, count)?;
    let after = resident_size(kernel).ok_or("the kernel survives")?;
    println!("{sent} were sent; memory {} KiB before, {} KiB after", before >> 10, after >> 10);
    let mut last = near.start(&["visit", words, "0", "3", &patience])?;
    ends_well(&mut last, "the last visitor", Instant::now() + ENDS_WITHIN * 2)?;
    std::fs::write(folder.join(STOP), "")?;
    ends_well(&mut client, "the client", Instant::now() + ENDS_WITHIN)?;
    if after > before + GROWTH_MAX {
        return Err(format!("memory grew from {before} to {after} bytes").into());
    }
    if far.kernel() != Some(kernel) {
        return Err("the kernel died and was started again".into());
    }
    Ok(())
}

/// Where a host's link listens.
fn address_of(host: &Host) -> Result<String, Error> {
    let config = std::fs::read_to_string(host.state.join("config.toml"))?;
    let listen = config.lines().find_map(|line| line.trim().strip_prefix("listen"));
    let text = listen.and_then(|rest| rest.split('"').nth(1));
    Ok(text.ok_or("its configuration names where it listens")?.to_owned())
}

fn throw(address: &str, count: u64) -> Result<u64, Error> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut lot = Lot::new(9, 9);
    let mut sent = 0;
    let mut datagram = vec![0; 1400];
    for _ in 0..count {
        let size = lot.below(1400) as usize;
        datagram[..size.min(64)].iter_mut().for_each(|byte| *byte = lot.word() as u8);
        datagram[0] = KINDS[lot.below(KINDS.len() as u64) as usize];
        if lot.below(4) > 0 {
            datagram[1..4].fill(0);
        }
        sent += u64::from(socket.send_to(&datagram[..size], address).is_ok());
    }
    Ok(sent)
}
