//! `cargo xtask gen`: class files to stubs and reference pages.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use amoeba_ail::{Library, RustOptions, module_name};
use anyhow::{Context as _, Result, bail};

/// Where stubs and pages go, from the root of the project.
const STUBS: &str = "lib/stubs/src/generated";
const PAGES: &str = "docs/reference";

/// Runs the subcommand.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => write(),
        ["--check"] => check(),
        [file, "-o", out] => own(Path::new(file), Path::new(out)),
        _ => bail!("usage: cargo xtask gen [--check] | cargo xtask gen FILE.class -o OUT.rs"),
    }
}

fn write() -> Result<()> {
    let Generated { files, wrong } = generated()?;
    for (path, text) in files {
        let path = root().join(path);
        let folder = path.parent().expect("every generated file lies in a folder of the project");
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("wrote {}", path.display());
        }
    }
    for path in leftovers()? {
        println!("left over, remove it: {path}");
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Fails with the names of all generated files that do not say what the class files say.
pub(crate) fn check() -> Result<()> {
    let Generated { files, wrong } = generated()?;
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    let mut stale = leftovers()?;
    for (path, text) in files {
        if std::fs::read_to_string(root().join(&path)).ok() != Some(text) {
            stale.push(path);
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    bail!("stale, run `cargo xtask gen`: {}", stale.join(", "))
}

/// A class file of somebody's own, with the SDK as its runtime.
fn own(file: &Path, out: &Path) -> Result<()> {
    let (_, code) = amoeba_ail::compile_file(file, "::amoeba::rt")?;
    std::fs::write(out, format(&code)?).with_context(|| out.display().to_string())
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("xtask lies in the project").to_owned()
}

fn library() -> Result<Library> {
    let mut library = Library::new();
    for entry in std::fs::read_dir(root().join("idl")).context("idl")? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.extension().is_some_and(|extension| extension == "class") {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            library.add(name, &format!("idl/{name}.class"), &text);
        }
    }
    Ok(library)
}

/// What the class files give.
struct Generated {
    /// Path from the root, contents.
    files: BTreeMap<String, String>,
    /// Complaints about class files; what was generated from those before stays.
    wrong: Vec<String>,
}

fn generated() -> Result<Generated> {
    let library = library()?;
    let mut files = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut modules = String::from("// Generated from idl/*.class by `cargo xtask gen`; do not edit.\n\n");
    let mut commands: BTreeMap<u16, String> = BTreeMap::new();
    for name in library.classes() {
        let origin = format!("idl/{name}.class by `cargo xtask gen`");
        let module = module_name(name);
        let class = match library.compile(name) {
            Ok(class) => class,
            Err(complaint) => {
                wrong.push(complaint.to_string());
                if root().join(format!("{STUBS}/{module}.rs")).exists() {
                    modules.push_str(&format!("#[allow(missing_docs)]\npub mod {module};\n"));
                }
                continue;
            }
        };
        let options = RustOptions {
            runtime: "crate::rt".to_owned(),
            classes: "crate::generated".to_owned(),
            origin: origin.clone(),
        };
        let code = format(&amoeba_ail::rust(&class, &options)).with_context(|| format!("class {name}"))?;
        files.insert(format!("{STUBS}/{module}.rs"), code);
        files.insert(format!("{PAGES}/{name}.md"), amoeba_ail::markdown(&class, &origin));
        modules.push_str(&format!("{}pub mod {module};\n", amoeba_ail::doc_comment(&class.doc)));
        for operation in class.operations.iter().filter(|operation| operation.origin.is_none()) {
            // Of classes that share a number the first has it.
            let name = format!("{name}.{}", operation.name);
            commands.entry(operation.number).or_insert(name);
        }
    }
    modules.push_str(&command_names(&commands));
    files.insert(format!("{STUBS}/mod.rs"), format(&modules)?);
    Ok(Generated { files, wrong })
}

/// A function that names commands.
fn command_names(commands: &BTreeMap<u16, String>) -> String {
    let mut code = String::from(
        "\n/// What the class files call a command, `class.operation`; `None` for one that they do not have.\n\
         pub fn command_name(command: u16) -> Option<&'static str> {\nmatch command {\n",
    );
    for (number, name) in commands {
        code.push_str(&format!("{number} => Some(\"{name}\"),\n"));
    }
    code + "_ => None,\n}\n}\n"
}

/// Files in the folders of generated ones that no class file gives.
fn leftovers() -> Result<Vec<String>> {
    let library = library()?;
    let mut wanted = vec![format!("{STUBS}/mod.rs")];
    for name in library.classes() {
        wanted.extend([format!("{STUBS}/{}.rs", module_name(name)), format!("{PAGES}/{name}.md")]);
    }
    let mut leftovers = Vec::new();
    for folder in [STUBS, PAGES] {
        let Ok(entries) = std::fs::read_dir(root().join(folder)) else { continue };
        for entry in entries {
            let path = format!("{folder}/{}", entry?.file_name().to_string_lossy());
            if !wanted.contains(&path) {
                leftovers.push(path);
            }
        }
    }
    leftovers.sort();
    Ok(leftovers)
}

/// Formats Rust code as `cargo fmt` would.
fn format(code: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root().join("rustfmt.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("rustfmt, a component of the toolchain")?;
    let mut input = rustfmt.stdin.take().expect("stdin was asked to be piped");
    let sent = code.to_owned();
    // A thread writes, so that neither side waits for the other with a full pipe.
    let writer = std::thread::spawn(move || input.write_all(sent.as_bytes()));
    let output = rustfmt.wait_with_output()?;
    let _ = writer.join();
    if !output.status.success() {
        bail!("rustfmt: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_files_are_fresh() {
        super::check().unwrap();
    }
}
