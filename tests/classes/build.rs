//! Compiles the class files of these tests, as a program with a class of its own does.

fn main() -> Result<(), amoeba_ail::BuildError> {
    amoeba_ail::build("idl/basis.class", "::amoeba_stubs::rt")?;
    amoeba_ail::build("idl/probe.class", "::amoeba_stubs::rt")
}
