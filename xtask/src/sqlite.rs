//! SQLite's own tests, from the sources of Debian's package: the program that runs them becomes `target/programs/bin/testfixture`,
//! and the tests lie in `target/programs/sqlite/source/test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Where this host's package sources are told.
const LISTS: &str = "/etc/apt/sources.list";
const LISTS_FOLDER: &str = "/etc/apt/sources.list.d";
/// Parts of the write-ahead log that are left out unless they are asked for.
const WITH_ALL: &str = "OPTS=-DSQLITE_ENABLE_SNAPSHOT -DSQLITE_ENABLE_SETLK_TIMEOUT";
/// Without it every sync is left out, and the tests would say nothing about what a file system does then.
const WITH_SYNCS: &str = "TEMP_STORE=-DSQLITE_TEMP_STORE=1 -USQLITE_NO_SYNC";

/// Fetches and builds, unless that was done before.
pub(crate) fn prepare() -> Result<()> {
    let programs = shell::target_folder().join("programs");
    let (folder, program) = (programs.join("sqlite"), programs.join("bin/testfixture"));
    if program.exists() && folder.join("source/test").exists() {
        return Ok(());
    }
    let tcl = tcl().context("the package tcl8.6-dev is not installed")?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fetch(&folder)?;
    build(&folder, &tcl)?;
    fs::create_dir_all(programs.join("bin"))?;
    fs::rename(folder.join("build/testfixture"), &program)?;
    Ok(fs::remove_dir_all(folder.join("build"))?)
}

/// Unpacks the sources of the package as `source`. What apt keeps of this lies in `folder`, and nothing of the host's own is
/// changed: its package sources are those of programs, these are the same places' sources of packages.
fn fetch(folder: &Path) -> Result<()> {
    for part in ["apt/parts", "apt/lists/partial", "apt/cache/archives/partial", "unpacked"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let mut lists = vec![PathBuf::from(LISTS)];
    lists.extend(fs::read_dir(LISTS_FOLDER).into_iter().flatten().flatten().map(|entry| entry.path()));
    for (index, list) in lists.iter().enumerate() {
        let Ok(text) = fs::read_to_string(list) else { continue };
        let kind = match list.extension().and_then(|extension| extension.to_str()) {
            Some(kind @ ("list" | "sources")) => kind,
            _ => continue,
        };
        fs::write(folder.join(format!("apt/parts/{index}.{kind}")), of_sources(&text))?;
    }
    let options = [
        "Dir::Etc::sourcelist=/dev/null".to_owned(),
        format!("Dir::Etc::sourceparts={}", folder.join("apt/parts").display()),
        format!("Dir::State::lists={}", folder.join("apt/lists").display()),
        format!("Dir::Cache={}", folder.join("apt/cache").display()),
        "APT::Sandbox::User=".to_owned(),
    ];
    for words in [&["update", "--quiet"][..], &["source", "--quiet", "sqlite3"]] {
        let mut command = Command::new("apt-get");
        command.args(options.iter().flat_map(|option| ["-o", option])).args(words);
        shell::run(command.current_dir(folder.join("unpacked")))?;
    }
    let unpacked = fs::read_dir(folder.join("unpacked"))?.flatten().map(|entry| entry.path());
    let source = unpacked.into_iter().find(|path| path.is_dir()).context("nothing was unpacked")?;
    fs::rename(source, folder.join("source"))?;
    // Archives and documentation are most of what was fetched, and nobody needs them again.
    for done in ["unpacked", "apt", "source/www"] {
        fs::remove_dir_all(folder.join(done)).ok();
    }
    Ok(())
}

/// The same places, asked for the sources of packages.
fn of_sources(list: &str) -> String {
    let line = |line: &str| match line.strip_prefix("deb ") {
        Some(rest) => format!("deb-src {rest}\n"),
        None if line.starts_with("Types:") => "Types: deb-src\n".to_owned(),
        None => format!("{line}\n"),
    };
    list.lines().map(line).collect()
}

/// The folder that says how programs are linked with Tcl, in which the tests are written.
fn tcl() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("tcl8.6"));
    folders.into_iter().find(|folder| folder.join("tclConfig.sh").exists())
}

fn build(folder: &Path, tcl: &Path) -> Result<()> {
    let build = folder.join("build");
    fs::create_dir_all(&build)?;
    let mut configure = Command::new(folder.join("source/configure"));
    configure.arg(format!("--with-tcl={}", tcl.display())).args(["--disable-readline", "CFLAGS=-O1 -w"]);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("make");
    make.args([&format!("--jobs={jobs}"), "testfixture", WITH_ALL, WITH_SYNCS]);
    for command in [&mut configure, &mut make] {
        // A thousand lines that nobody reads when all is well.
        let output = command.current_dir(&build).output().context("it does not start")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let end = said.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>();
            bail!("`{}` ended with {}: {}", shell::shown(command), output.status, end.join("\n"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_programs_becomes_one_of_sources() {
        assert_eq!(
            of_sources("# here\ndeb [a=b] http://x y main\n"),
            "# here\ndeb-src [a=b] http://x y main\n"
        );
        assert_eq!(of_sources("Types: deb deb-src\nURIs: http://x\n"), "Types: deb-src\nURIs: http://x\n");
    }
}
