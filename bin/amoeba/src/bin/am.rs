//! The one binary under its short name.
#![forbid(unsafe_code)]

#[global_allocator]
static MEMORY: amoeba_linux::memory::LargePages = amoeba_linux::memory::LargePages;

fn main() -> std::process::ExitCode {
    amoeba_bin::main()
}
