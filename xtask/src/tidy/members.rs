//! What each of our crates must be: a member, under the workspace's lints, declaring nothing twice, free of `unsafe`
//! where the design says so, and not empty.

use super::floors::inside;
use super::workspace::{Package, Workspace};
use super::{Finding, SourceFile};

/// The only folders with `unsafe`: system calls, stack switching, the foreign edge of the SDKs.
const UNSAFE: &[&str] = &["linux", "sim", "sdk/c", "sdk/python"];
const FORBID: &str = "#![forbid(unsafe_code)]";

/// Lines of code below which a crate is only a shell.
const CODE_LINES_MIN: usize = 3;

/// Crates that are not what they must be, and manifests that no workspace knows.
pub(super) fn check(workspace: &Workspace, files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        let text = file.text.as_deref().unwrap_or_default();
        match workspace.members().find(|package| package.folder.as_deref() == Some(folder)) {
            Some(package) => findings.extend(check_member(package, folder, text, files)),
            None => findings.push(Finding::new(file.path.as_str(), "is not a member of the workspace")),
        }
    }
    findings
}

fn check_member(package: &Package, folder: &str, manifest: &str, files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = check_manifest(folder, manifest);
    for target in &package.targets {
        if !["lib", "bin", "proc-macro"].contains(&target.kind.as_str()) {
            continue;
        }
        let text = files.iter().find(|file| file.path == target.path).and_then(|file| file.text.as_deref());
        let Some(text) = text else { continue };
        let may_be_unsafe = UNSAFE.iter().any(|unsafe_folder| inside(folder, unsafe_folder));
        if !may_be_unsafe && !text.lines().any(|line| line.trim() == FORBID) {
            findings.push(Finding::new(target.path.as_str(), format!("lacks {FORBID}")));
        }
    }
    let code: usize = files
        .iter()
        .filter(|file| file.path.ends_with(".rs") && inside(&file.path, folder))
        .filter_map(|file| file.text.as_deref())
        .map(code_lines)
        .sum();
    if code < CODE_LINES_MIN {
        findings.push(Finding::new(folder, "is an empty crate"));
    }
    findings
}

/// Versions and lints are declared once, in the root.
fn check_manifest(folder: &str, manifest: &str) -> Vec<Finding> {
    let place = format!("{folder}/Cargo.toml");
    let mut findings = Vec::new();
    let mut section = "";
    let mut lints = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        lints |= section == "[lints]" && line == "workspace = true";
        let entry = section.ends_with("dependencies]") && !line.starts_with(['#', '[']) && line.contains('=');
        if entry && !line.contains("workspace") {
            findings
                .push(Finding::new(place.as_str(), format!("declares `{line}` outside the root manifest")));
        }
    }
    if !lints {
        findings.push(Finding::new(place, "does not take the workspace's lints"));
    }
    findings
}

fn code_lines(text: &str) -> usize {
    let code = |line: &&str| !line.is_empty() && !line.starts_with("//") && !line.starts_with("#!");
    text.lines().map(str::trim).filter(code).count()
}

#[cfg(test)]
mod tests {
    use super::super::source_file;
    use super::super::workspace::samples::member;
    use super::*;

    const MANIFEST: &str = "[dependencies]\nblake3.workspace = true\n[lints]\nworkspace = true\n";
    const CODE: &str = "#![forbid(unsafe_code)]\npub fn a() {\n    b()\n}\n";

    fn findings(folder: &str, manifest: &str, code: &str) -> Vec<String> {
        let workspace = Workspace { packages: vec![member(folder, "x", &[])] };
        let files = [
            source_file(&format!("{folder}/Cargo.toml"), manifest),
            source_file(&format!("{folder}/src/lib.rs"), code),
        ];
        check(&workspace, &files).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_good_crate_is_fine() {
        assert_eq!(findings("base/cap", MANIFEST, CODE), [""; 0]);
    }

    #[test]
    fn unsafe_must_be_forbidden_outside_its_folders() {
        let code = CODE.replace(FORBID, "");
        assert_eq!(findings("base/cap", MANIFEST, &code), [format!("lacks {FORBID}")]);
        assert_eq!(findings("linux", MANIFEST, &code), [""; 0]);
    }

    #[test]
    fn versions_and_lints_live_in_the_root() {
        assert_eq!(
            findings("base/cap", &MANIFEST.replace(".workspace = true\n[", " = \"1\"\n["), CODE).len(),
            1
        );
        assert_eq!(findings("base/cap", "[dependencies]\n", CODE).len(), 1);
    }

    #[test]
    fn empty_and_stray_crates_are_found() {
        assert_eq!(
            findings("base/cap", MANIFEST, "//! Words.\n#![forbid(unsafe_code)]\n"),
            ["is an empty crate"]
        );
        let files = [source_file("old/Cargo.toml", MANIFEST)];
        assert_eq!(check(&Workspace::default(), &files).len(), 1);
    }
}
