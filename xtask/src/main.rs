//! What the project does to itself: `cargo xtask gen | ci | test | tidy | long | bench`.
//!
//! Each subcommand is one module; this file only chooses. Nothing here is part of the product.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod r#gen;
mod long;
mod programs;
mod shell;
mod sqlite;
mod suite;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask gen [--check]       write stubs and reference pages from idl/*.class; --check only names stale ones
cargo xtask gen FILE.class -o OUT.rs  the stubs of a class of your own
cargo xtask ci                  everything that must hold before a change is accepted
cargo xtask test [ARGS]         build the programs, run every test, print the counts; ARGS go to `cargo test`
cargo xtask tidy                floors, dependencies, licences, stray files, text rules
cargo xtask long [MINUTES]      what is too long for ci: fuzzing, many seeds, live tests in a loop (default 60)
cargo xtask long soak [MINUTES] storage at full speed, memory and descriptors watched (default 5)
cargo xtask programs [--long]   install git, sqlite3, fio, ... and run them on our mounts
cargo xtask bench NAME [--json] measure ours beside limits and peers; NAME: transaction, storage, run, mount, build
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", &[] as &[String]),
    };
    let outcome = match name {
        "gen" => r#gen::main(rest),
        "ci" => ci::main(),
        "test" => suite::main(rest),
        "tidy" => tidy::main(),
        "long" => long::main(rest),
        "programs" => programs::main(rest),
        "bench" => bench::main(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => Err(anyhow::anyhow!("unknown subcommand `{other}`\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
