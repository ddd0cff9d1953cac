//! `proof torment SEED SECONDS FOLDER`, `proof storage killed|full|failing|soak SEED …`, among the hosts of `amoeba dev`; and what it starts there.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use amoeba_tests_proof::storage::{disks, killed, soak};
use amoeba_tests_proof::{flood, service, torment};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proof {}: {error}", words.first().unwrap_or(&""));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Outcome {
    match words {
        ["serve", folder, service, seed] => {
            service::serve(Path::new(folder), service.parse()?, seed.parse()?)
        }
        ["ask", folder, service, client, seed] => {
            service::ask(Path::new(folder), service.parse()?, client.parse()?, seed.parse()?)
        }
        ["visit", folder, service, client, patience] => {
            let patience = Duration::from_secs(patience.parse()?);
            service::visit(Path::new(folder), service.parse()?, client.parse()?, patience)
        }
        ["torment", seed, seconds, folder] => {
            torment::run(seed.parse()?, Duration::from_secs(seconds.parse()?), Path::new(folder))
        }
        ["flood", count, folder] => flood::run(count.parse()?, Path::new(folder)),
        ["storage", "killed", seed, rounds] => killed::run(seed.parse()?, rounds.parse()?),
        ["storage", "full", seed] => disks::full(seed.parse()?),
        ["storage", "failing", seed] => disks::failing(seed.parse()?),
        ["storage", "soak", seed, seconds] => soak::run(seed.parse()?, Duration::from_secs(seconds.parse()?)),
        _ => Err("serve, ask, visit, torment, flood or storage".into()),
    }
}
