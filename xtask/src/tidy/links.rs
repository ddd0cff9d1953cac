//! Links between our pages lead somewhere, and every chapter is in the index.

use std::collections::BTreeSet;

use super::{Finding, SourceFile};

const INDEX: &str = "docs/README.md";

/// Links that lead nowhere, and chapters of `docs/` that the index does not name.
pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let exists = |path: &str| {
        let folder = format!("{path}/");
        paths.contains(path) || paths.iter().any(|other| other.starts_with(&folder))
    };
    let mut findings = Vec::new();
    let mut indexed = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(file.text.as_deref().unwrap_or_default()) {
            let path = resolve(&file.path, target);
            if !exists(&path) {
                findings.push(Finding::new(
                    format!("{}:{line}", file.path),
                    format!("links to {path}, which is not there"),
                ));
            } else if file.path == INDEX {
                indexed.insert(path);
            }
        }
    }
    let chapters =
        paths.iter().filter(|path| path.starts_with("docs/") && path.ends_with(".md") && **path != INDEX);
    let known = |path: &str| indexed.iter().any(|entry| super::floors::inside(path, entry));
    findings.extend(
        chapters.filter(|path| !known(path)).map(|path| Finding::new(*path, format!("is not in {INDEX}"))),
    );
    findings
}

/// Line and target of every link to a page of ours. What stands in code is no link.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        let prose = line.split('`').step_by(2).filter(|_| !code);
        for part in prose.flat_map(|part| part.split("](").skip(1)) {
            let target = part.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                found.push((index + 1, target));
            }
        }
    }
    found
}

/// The path from the root of a link in the page `from`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::source_file;
    use super::*;

    #[test]
    fn dead_links_and_chapters_without_an_entry_are_found() {
        let files = [
            source_file(
                "README.md",
                "[a](docs/a.md) [w](https://example.org) `x[0](no)` [map](./docs/#top)\n",
            ),
            source_file("docs/README.md", "[a](a.md)\n```\n[b](c.md)\n```\n[ref](reference/)\n"),
            source_file("docs/a.md", "[up](../README.md#x)\n[gone](gone.md)\n"),
            source_file("docs/b.md", ""),
            source_file("docs/reference/bullet.md", ""),
        ];
        let found: Vec<String> = check(&files).into_iter().map(|finding| finding.place).collect();
        assert_eq!(found, ["docs/a.md:2", "docs/b.md"]);
    }
}
