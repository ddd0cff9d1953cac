//! Links the program at a fixed address.
//!
//! A program that may lie anywhere is patched at each start wherever it holds an address of its own, here at fifteen thousand
//! places: a fifth of the time until `main`, and a quarter of a megabyte of memory that each daemon and each guest's shepherd
//! has for itself. Libraries, heap and stacks still lie where nobody can foretell.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
