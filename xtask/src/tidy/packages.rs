//! What we take from others: under a licence we accept, from crates.io, with a reason beside it.

use super::workspace::{Package, Workspace};
use super::{Finding, SourceFile};

/// SPDX identifiers we accept (MPL-2.0 unmodified only, which a dependency from crates.io is).
const LICENSES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
const OUR_LICENSE: &str = "MIT OR Apache-2.0";

/// Packages of a wrong licence or source, and entries of the root manifest without a reason.
pub(super) fn check(workspace: &Workspace, files: &[SourceFile]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = workspace.packages.iter().flat_map(check_package).collect();
    match files.iter().find(|file| file.path == "Cargo.toml").and_then(|file| file.text.as_deref()) {
        Some(manifest) => findings.extend(reasons(manifest)),
        None => findings.push(Finding::new("Cargo.toml", "missing")),
    }
    for name in ["Cargo.lock", "LICENSE-MIT", "LICENSE-APACHE"] {
        if !files.iter().any(|file| file.path == name) {
            findings.push(Finding::new(name, "missing"));
        }
    }
    findings
}

fn check_package(package: &Package) -> Vec<Finding> {
    let place = format!("{} {}", package.name, package.version);
    let license = package.license.as_deref();
    let mut findings = Vec::new();
    if package.folder.is_some() {
        if license != Some(OUR_LICENSE) {
            findings.push(Finding::new(place, format!("our own crates are {OUR_LICENSE}")));
        }
        return findings;
    }
    if package.source.as_deref() != Some(CRATES_IO) {
        let source = package.source.as_deref().unwrap_or("a folder outside the workspace");
        findings.push(Finding::new(place.as_str(), format!("comes from {source}, not from crates.io")));
    }
    match license {
        None => findings.push(Finding::new(place, "names no licence")),
        Some(license) if !accepts(license) => {
            findings.push(Finding::new(place, format!("licence `{license}` is not one we accept")));
        }
        Some(_) => {}
    }
    findings
}

/// Whether we may use something under this SPDX expression (`/` is the old form of OR).
fn accepts(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    any_of(&mut rest).is_some_and(|accepted| accepted && rest.is_empty())
}

/// `all OR all …`; `None` if it cannot be read.
fn any_of(tokens: &mut &[&str]) -> Option<bool> {
    let mut accepted = all_of(tokens)?;
    while let Some((&"OR", rest)) = tokens.split_first() {
        *tokens = rest;
        accepted |= all_of(tokens)?;
    }
    Some(accepted)
}

/// `one AND one …`
fn all_of(tokens: &mut &[&str]) -> Option<bool> {
    let mut accepted = one(tokens)?;
    while let Some((&"AND", rest)) = tokens.split_first() {
        *tokens = rest;
        accepted &= one(tokens)?;
    }
    Some(accepted)
}

/// A licence, a licence WITH an exception, or a group in parentheses.
fn one(tokens: &mut &[&str]) -> Option<bool> {
    let (first, rest) = tokens.split_first()?;
    *tokens = rest;
    if *first == "(" {
        let accepted = any_of(tokens)?;
        let (&close, rest) = tokens.split_first()?;
        *tokens = rest;
        return (close == ")").then_some(accepted);
    }
    if let [with, exception, rest @ ..] = *tokens
        && *with == "WITH"
    {
        *tokens = rest;
        return Some(LICENSES.contains(&format!("{first} WITH {exception}").as_str()));
    }
    Some(LICENSES.contains(first))
}

/// Entries of `[workspace.dependencies]` that are not ours and have no comment on their line.
fn reasons(manifest: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim_end();
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        let entry = section == "[workspace.dependencies]" && !line.starts_with(['#', ' ', '[']);
        if entry && !value.contains("path =") && !value.contains("# ") {
            let place = format!("Cargo.toml:{}", index + 1);
            findings.push(Finding::new(place, format!("no reason beside {}", name.trim())));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::source_file;
    use super::super::workspace::samples::{foreign, member};
    use super::*;

    #[test]
    fn licence_expressions() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "Unlicense OR MIT",
        ] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "Proprietary",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "MIT WITH x",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
    }

    #[test]
    fn wrong_licences_and_sources_are_found() {
        let mut git = foreign("forked", "MIT");
        git.source = Some("git+https://example.org/forked".into());
        let mut silent = foreign("silent", "MIT");
        silent.license = None;
        let mut ours = member("base/cap", "amoeba-cap", &[]);
        ours.license = Some("GPL-3.0".into());
        for package in [git, silent, ours, foreign("copyleft", "GPL-3.0-only")] {
            assert_eq!(check_package(&package).len(), 1, "{package:?}");
        }
        assert_eq!(check_package(&foreign("fine", "MIT")), []);
    }

    #[test]
    fn every_entry_has_its_reason() {
        let manifest = "[workspace.dependencies]\namoeba-cap = { path = \"base/cap\" }\nredb = \"4\" # tables\nserde = \"1\"\n[x]\ny = 1\n";
        let found = reasons(manifest);
        assert_eq!(found, [Finding::new("Cargo.toml:4", "no reason beside serde")]);
    }

    #[test]
    fn missing_licence_texts_are_found() {
        let workspace = Workspace::default();
        assert_eq!(check(&workspace, &[source_file("Cargo.toml", "")]).len(), 3);
    }
}
