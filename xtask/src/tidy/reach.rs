//! No dead files: every Rust source is the root of a target or a module of one.

use std::collections::{BTreeMap, BTreeSet};

use super::workspace::Workspace;
use super::{Finding, SourceFile};

/// Rust sources that nothing compiles.
pub(super) fn check(workspace: &Workspace, files: &[SourceFile]) -> Vec<Finding> {
    let sources: BTreeMap<&str, &str> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .map(|file| (file.path.as_str(), file.text.as_deref().unwrap_or_default()))
        .collect();
    let roots: BTreeSet<String> =
        workspace.members().flat_map(|package| &package.targets).map(|target| target.path.clone()).collect();
    let mut reached = BTreeSet::new();
    let mut pending: Vec<(String, bool)> = roots.into_iter().map(|root| (root, true)).collect();
    while let Some((path, root)) = pending.pop() {
        let Some(text) = sources.get(path.as_str()) else { continue };
        if reached.insert(path.clone()) {
            pending.extend(modules(&path, root, text).into_iter().map(|path| (path, false)));
        }
    }
    let dead = sources.keys().filter(|path| !reached.contains(**path));
    dead.map(|path| Finding::new(*path, "is no module of any target")).collect()
}

/// Where the modules and inclusions that a file declares may lie.
fn modules(path: &str, root: bool, text: &str) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    let below = if root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut found = Vec::new();
    let mut next_path = None;
    for line in text.lines().map(str::trim) {
        if let Some(given) = quoted_after(line, "#[path = ") {
            next_path = Some(format!("{folder}/{given}"));
        } else if let Some(given) = quoted_after(line, "include!(") {
            found.push(normal(&format!("{folder}/{given}")));
        } else if let Some(module) = declared(line) {
            match next_path.take() {
                Some(given) => found.push(normal(&given)),
                None => found.extend([format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")]),
            }
        }
    }
    found
}

/// The name in `mod name;`, whatever its visibility.
fn declared(line: &str) -> Option<&str> {
    let before_semicolon = line.split(';').next().filter(|_| line.contains(';'))?;
    let (visibility, name) = before_semicolon.rsplit_once("mod ")?;
    let (visibility, name) = (visibility.trim(), name.trim_start_matches("r#"));
    let plain = visibility.is_empty() || visibility == "pub" || visibility.starts_with("pub(");
    let word = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (plain && word).then_some(name)
}

fn quoted_after<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_prefix('"')?.split('"').next()
}

/// The path without `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::source_file;
    use super::super::workspace::samples::member;
    use super::*;

    #[test]
    fn dead_files_are_found_and_live_ones_are_not() {
        let workspace = Workspace { packages: vec![member("base/cap", "amoeba-cap", &[])] };
        let files = [
            source_file("base/cap/src/lib.rs", "pub(crate) mod a;\nmod b;\nmod inline {\n}\n// mod dead;\n"),
            source_file("base/cap/src/a.rs", "#[path = \"../odd.rs\"]\nmod c;\npub mod d;"),
            source_file("base/cap/odd.rs", "include!(\"./../made.rs\");"),
            source_file("base/made.rs", ""),
            source_file("base/cap/src/a/d.rs", ""),
            source_file("base/cap/src/b/mod.rs", "mod r#e;"),
            source_file("base/cap/src/b/e.rs", ""),
            source_file("base/cap/src/dead.rs", "mod deader;"),
            source_file("base/cap/src/dead/deader.rs", ""),
        ];
        let found: Vec<String> = check(&workspace, &files).into_iter().map(|finding| finding.place).collect();
        assert_eq!(found, ["base/cap/src/dead.rs", "base/cap/src/dead/deader.rs"]);
    }
}
