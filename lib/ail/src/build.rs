//! For a `build.rs`: compiles a class file of a program's own into `OUT_DIR`.

use std::path::{Path, PathBuf};

use crate::{Diagnostic, Library, RustOptions, module_name, rust};

/// Why [`build`] gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The class file is wrong.
    #[error(transparent)]
    Class(#[from] Diagnostic),
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The path is not that of a class file, or this is not a build script.
    #[error("{0}")]
    Usage(&'static str),
}

/// Compiles `class_file` (named `NAME.class`) into `$OUT_DIR/NAME.rs` and tells cargo when to do it again.
///
/// Classes it inherits from are looked for in the same folder. The code leans on the module `runtime`:
/// `::amoeba::rt` for a program of the SDK. Include it with
/// `mod mailbox { include!(concat!(env!("OUT_DIR"), "/mailbox.rs")); }`.
///
/// # Errors
/// The class file cannot be read or is wrong, or its code cannot be written.
pub fn build(class_file: impl AsRef<Path>, runtime: &str) -> Result<(), BuildError> {
    let path = class_file.as_ref();
    let folder = std::env::var_os("OUT_DIR")
        .ok_or(BuildError::Usage("OUT_DIR is not set: call this from build.rs"))?;
    let (name, code) = compile_file(path, runtime)?;
    let target = Path::new(&folder).join(format!("{}.rs", module_name(&name)));
    std::fs::write(&target, code).map_err(|source| BuildError::File { path: target, source })?;
    println!("cargo::rerun-if-changed={}", path.display());
    Ok(())
}

/// The name of the class in `path` and the Rust code for it.
///
/// # Errors
/// As [`build`].
pub fn compile_file(path: &Path, runtime: &str) -> Result<(String, String), BuildError> {
    const NAME: BuildError = BuildError::Usage("a class file is named after its class: NAME.class");
    if path.extension().is_none_or(|extension| extension != "class") {
        return Err(NAME);
    }
    let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or(NAME)?.to_owned();
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if let Err(source) = std::fs::metadata(path) {
        return Err(BuildError::File { path: path.to_owned(), source });
    }
    let library = read_folder(folder)?;
    let origin = path.file_name().and_then(|name| name.to_str()).ok_or(NAME)?;
    let options = RustOptions {
        runtime: runtime.to_owned(),
        classes: "super".to_owned(),
        origin: format!("{origin} by the class compiler"),
    };
    Ok((name.clone(), rust(&library.compile(&name)?, &options)))
}

/// Every class file of a folder.
///
/// # Errors
/// The folder or one of its class files cannot be read.
pub fn read_folder(folder: &Path) -> Result<Library, BuildError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::File { path, source }
    };
    let mut library = Library::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.extension().is_some_and(|extension| extension == "class") {
            let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
            library.add(name, &path.display().to_string(), &text);
        }
    }
    Ok(library)
}
