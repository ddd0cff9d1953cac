//! What a file or a line may not contain.

use super::floors::inside;
use super::{Finding, SourceFile};

/// Lines of a file past which it holds more than one idea.
const LINES_MAX: usize = 900;

/// Marks of work that was left. Spelt in halves, so that this file passes its own check.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("todo", "!("),
    concat!("unimple", "mented!("),
];

/// Folders of people's own machines, which must not be known here. A home under another name than that of whoever runs
/// this is not among them: the graph has a `/home` of its own.
const MACHINES: &[&str] =
    &[concat!("/work", "/main"), concat!("/work", "/shared"), concat!("/tmp", "/w/"), concat!("/ro", "ot/")];

const CONFLICTS: &[&str] = &[concat!("<<<<", "<<< "), concat!(">>>>", ">>> "), concat!("||||", "||| ")];

/// What the floors above the worlds ask of `base/world` and `base/threads` instead.
const OUTSIDE: &[&str] = &[
    "std::thread",
    "std::net",
    "std::fs",
    "std::env",
    "std::process",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "std::sync::Barrier",
    "Instant::now",
    "SystemTime",
];
/// Folders whose code runs in both worlds. `lib/ail` is a tool that runs in neither.
const BOTH_WORLDS: &[&str] = &["base", "proto", "lib/server", "lib/stubs", "lib/name", "servers", "sim"];

/// Every line and file that breaks a rule.
pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let mut machines: Vec<String> = MACHINES.iter().map(|folder| (*folder).to_owned()).collect();
    let home = std::env::var("HOME").unwrap_or_default();
    // A home like `/` would be found everywhere.
    machines.extend(Some(format!("{home}/")).filter(|home| home.matches('/').count() > 2));
    let mut findings = Vec::new();
    for file in files {
        let Some(text) = file.text.as_deref() else { continue };
        if file.path == "Cargo.lock" || inside(&file.path, "tests/vectors") {
            continue;
        }
        let lines = text.lines().count();
        if lines > LINES_MAX && !generated(text) && !file.path.starts_with("LICENSE") {
            findings.push(Finding::new(file.path.as_str(), format!("{lines} lines; at most {LINES_MAX}")));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            findings.push(Finding::new(file.path.as_str(), "does not end with a newline"));
        }
        for (index, line) in text.lines().enumerate() {
            for what in line_faults(&file.path, line, &machines) {
                findings.push(Finding::new(format!("{}:{}", file.path, index + 1), what));
            }
        }
        findings.extend(outside(&file.path, text));
    }
    findings
}

fn line_faults(path: &str, line: &str, machines: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    if line.contains('\t') && !path.ends_with("Makefile") {
        faults.push("a tab".to_owned());
    }
    if line.ends_with([' ', '\t', '\r']) {
        faults.push("space at the end of the line".to_owned());
    }
    faults.extend(LEFTOVERS.iter().filter(|mark| has_word(line, mark)).map(|mark| format!("`{mark}`")));
    faults
        .extend(CONFLICTS.iter().filter(|mark| line.starts_with(*mark)).map(|_| "a merge marker".to_owned()));
    faults.extend(
        machines
            .iter()
            .filter(|folder| names_machine(line, folder))
            .map(|folder| format!("the path `{folder}…` of somebody's own machine")),
    );
    faults
}

/// Whether the mark stands by itself, not inside a longer word.
fn has_word(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let letter = |c: char| c.is_alphanumeric() || c == '_';
        let before = line[..at].chars().next_back();
        let after = line[at + mark.len()..].chars().next().filter(|_| !mark.ends_with('('));
        !before.is_some_and(letter) && !after.is_some_and(letter)
    })
}

/// Whether the line names something in that folder, as an absolute path.
fn names_machine(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let absolute = !before.is_some_and(|c| c.is_alphanumeric() || ".~_-}".contains(c));
        let next = line[at + folder.len()..].chars().next();
        absolute && (!folder.ends_with('/') || next.is_some_and(char::is_alphanumeric))
    })
}

/// Uses of the outside in code that runs in both worlds. Tests stand last in a file and may use what they like.
fn outside(path: &str, text: &str) -> Vec<Finding> {
    let both = BOTH_WORLDS.iter().any(|folder| inside(path, folder));
    let test = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/examples/");
    if !both || test || !path.ends_with(".rs") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for name in OUTSIDE.iter().filter(|name| code.contains(*name)) {
            // The simulator is a world: it may use threads to run seeds side by side, and read its seed.
            if inside(path, "sim") && ["std::thread", "std::env"].contains(name) {
                continue;
            }
            let place = format!("{path}:{}", index + 1);
            findings.push(Finding::new(place, format!("`{name}` in code that runs in both worlds")));
        }
    }
    findings
}

/// Whether a file says of itself that it is generated.
fn generated(text: &str) -> bool {
    text.lines().take(3).any(|line| line.to_lowercase().contains("generated from"))
}

#[cfg(test)]
mod tests {
    use super::super::source_file;
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&[source_file(path, text)]).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn clean_text_is_fine() {
        let text = "// A sentence about why.\nlet path = \"~/amoeba\"; // or /home/ann, /var/lib/amoeba\n";
        assert_eq!(findings("base/cap/src/lib.rs", text), [""; 0]);
    }

    #[test]
    fn each_fault_of_a_line_is_found() {
        for line in [
            "a\tb",
            "a ",
            concat!("// TO", "DO: later"),
            concat!("x = todo", "!()"),
            concat!("<<<<", "<<< HEAD"),
            concat!("\"/tmp", "/w/x\""),
            concat!("cd /ro", "ot/x"),
        ] {
            assert_eq!(findings("docs/a.md", &format!("{line}\n")).len(), 1, "{line}");
        }
    }

    #[test]
    fn words_that_only_contain_a_mark_are_fine() {
        for line in [concat!("MASTO", "DON"), "amoeba ls /home", "${x}/root/y", "target/home/karl"] {
            assert_eq!(findings("docs/a.md", &format!("{line}\n")), [""; 0], "{line}");
        }
    }

    #[test]
    fn long_files_are_found_unless_generated() {
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(findings("base/a.md", &long).len(), 1);
        assert_eq!(findings("base/a.md", &format!("// Generated from idl/x.class\n{long}")), [""; 0]);
        assert_eq!(findings("base/a.md", "no newline").len(), 1);
    }

    #[test]
    fn code_of_both_worlds_uses_neither_clock_nor_threads_of_the_system() {
        let text = "fn a() { std::thread::sleep(d) }\n// std::fs is not used\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(findings("servers/bullet/src/lib.rs", text).len(), 1);
        assert_eq!(findings("linux/src/lib.rs", text), [""; 0]);
        assert_eq!(findings("base/threads/tests/os.rs", text), [""; 0]);
    }
}
