//! Uses a mailbox: `mailbox-client post CAPABILITY < letter`, `mailbox-client take CAPABILITY`.
#![forbid(unsafe_code)]

use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, capability] = arguments.as_slice() else {
        return Err("usage: mailbox-client post|take CAPABILITY".into());
    };
    let world = amoeba::connect()?;
    let mailbox: amoeba::Capability = capability.parse()?;
    match verb.as_str() {
        "post" => {
            let mut letter = Vec::new();
            std::io::stdin().take(mailbox::LETTER_MAX as u64 + 1).read_to_end(&mut letter)?;
            mailbox::post(&world, &mailbox, letter)?;
        }
        "take" => std::io::stdout().write_all(&mailbox::take(&world, &mailbox)?)?,
        _ => return Err("the first word is post or take".into()),
    }
    Ok(())
}
