//! The one binary under its short name.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    amoeba_bin::main()
}
