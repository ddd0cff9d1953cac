//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! - [`floors`]: dependencies between our crates look down only; what may be taken from outside on which floor.
//! - [`packages`]: licences and sources of everything we depend on, a reason beside each.
//! - [`members`]: every crate forbids `unsafe` where it must, takes the workspace's lints, and is no empty shell.
//! - [`reach`]: no dead files.
//! - [`text`]: what a line or a file may not contain.
//! - [`links`]: links between pages lead somewhere.
//! - What is generated is fresh, as `cargo xtask gen --check` says.
//!
//! Facts come from `cargo metadata` ([`workspace`]) and `git ls-files`; each rule is a function from facts to findings,
//! so that its tests can hand it a violating sample.

mod floors;
mod links;
mod members;
mod packages;
mod reach;
mod text;
mod workspace;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use workspace::Workspace;

/// Something that breaks a rule: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    place: String,
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { place: place.into(), what: what.into() }
    }
}

/// A file of the project: its path from the root with `/` between, and its text (`None` if it is not text).
pub(crate) struct SourceFile {
    path: String,
    text: Option<String>,
}

/// Checks everything and prints the findings; an error if there are any.
pub(crate) fn main() -> Result<()> {
    let workspace = Workspace::load().context("reading cargo metadata")?;
    let files = files().context("listing the project's files")?;
    let mut findings = Vec::new();
    findings.extend(floors::check(&workspace));
    findings.extend(packages::check(&workspace, &files));
    findings.extend(members::check(&workspace, &files));
    findings.extend(reach::check(&workspace, &files));
    findings.extend(text::check(&files));
    findings.extend(links::check(&files));
    findings.extend(stale());
    findings.sort();
    for finding in &findings {
        println!("{}: {}", finding.place, finding.what);
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: {} files, {} packages, no findings", files.len(), workspace.packages.len());
    Ok(())
}

/// Whether what is generated from the class files is what they say now.
fn stale() -> Option<Finding> {
    crate::r#gen::check().err().map(|error| Finding::new("idl", format!("{error:#}")))
}

/// All files that are tracked or would be, without what `.gitignore` names.
fn files() -> Result<Vec<SourceFile>> {
    let root = shell::root();
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&root);
    let listed = shell::capture(&mut git)?;
    let mut paths: Vec<String> = listed
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect();
    paths.sort();
    paths.dedup();
    let mut files = Vec::new();
    for path in paths {
        let full: PathBuf = root.join(&path);
        // A file that was deleted but not yet from the index is nothing to check.
        if !full.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).with_context(|| path.clone())?;
        let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        files.push(SourceFile { path, text });
    }
    Ok(files)
}

#[cfg(test)]
fn source_file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), text: Some(text.into()) }
}
