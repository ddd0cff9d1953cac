//! Compiles the class file of this program.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(amoeba::ail::build("mailbox.class", "::amoeba::rt")?)
}
