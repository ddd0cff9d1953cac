//! Floors never look up, and what comes from outside has its floor too.
//!
//! The two tables here are the whole policy. A crate belongs to the rule whose folder is the longest prefix of its own;
//! dependencies that only tests use are free, except that `base` and `proto` stay below themselves even there.

use super::Finding;
use super::workspace::{Package, Workspace};

/// On what a folder's crates may build.
struct Floor {
    folder: &'static str,
    /// Folders of ours whose crates it may use.
    uses: &'static [&'static str],
}

const ALL: &[&str] = &["base", "proto", "lib", "servers", "user", "sdk", "linux", "sim", "tests", "benches"];

const FLOORS: &[Floor] = &[
    Floor { folder: "base", uses: &["base"] },
    Floor { folder: "proto", uses: &["base", "proto"] },
    Floor { folder: "lib", uses: &["base", "proto", "lib"] },
    // The class compiler is a tool: it shares no code with what it generates.
    Floor { folder: "lib/ail", uses: &[] },
    // Servers know each other by their stubs only.
    Floor { folder: "servers", uses: &["base", "lib"] },
    // The two worlds drive the protocols; `linux` also runs the process server's guests.
    Floor { folder: "linux", uses: &["base", "proto", "lib", "servers/process", "servers/stream"] },
    // What programs do with people's own files; no world.
    Floor { folder: "linux/tree", uses: &[] },
    Floor { folder: "sim", uses: &["base", "proto"] },
    Floor {
        folder: "user",
        uses: &["base", "lib", "linux/tree", "servers/process", "servers/stream", "user", "sdk"],
    },
    // The SDK is for programs on a real host, so it brings the world `linux` along, and the class compiler.
    Floor { folder: "sdk", uses: &["base", "lib", "linux"] },
    Floor { folder: "bin", uses: ALL },
    // What a stranger's program may use.
    Floor { folder: "examples", uses: &["sdk"] },
    // Black box: only the built binary.
    Floor { folder: "tests/live", uses: &[] },
    Floor { folder: "tests", uses: ALL },
    Floor { folder: "benches", uses: &["base", "lib", "servers", "user", "sdk", "linux"] },
    Floor { folder: "xtask", uses: &["lib/ail"] },
];

/// Foreign crates that only some folders may use directly. What is not named here is free above `proto`.
const HOMES: &[(&str, &[&str])] = &[
    ("aws-lc-rs", &["proto/seal"]),
    ("loom", &["proto/channel"]),
    ("redb", &["servers/directory"]),
    ("snow", &["proto/seal"]),
    ("corosensei", &["sim"]),
    // System calls.
    ("fuser", &["linux"]),
    ("getrandom", &["linux"]),
    ("libc", &["linux", "sdk/c"]),
    ("nix", &["linux"]),
    ("rustix", &["linux", "bin", "user", "tests", "benches"]),
    ("signal-hook", &["bin", "user"]),
    // What talks to people and files belongs to programs.
    ("anyhow", &["bin", "user", "xtask", "benches", "tests"]),
    ("clap", &["bin", "user"]),
    ("comfy-table", &["bin", "user"]),
    ("indicatif", &["bin", "user"]),
    ("serde_json", &["bin", "user", "xtask", "tests", "benches"]),
    ("toml", &["bin", "user", "lib/ail"]),
    ("tracing-subscriber", &["bin", "user"]),
];

/// Folders whose crates take nothing from outside but [`GROUND_CRATES`].
const GROUND: &[&str] = &["base", "proto"];
const GROUND_CRATES: &[&str] =
    &["aws-lc-rs", "bitflags", "blake3", "snow", "subtle", "thiserror", "zerocopy", "zeroize"];

/// Every dependency that looks up, sideways or out where it may not.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in workspace.members() {
        let folder = package.folder.as_deref().expect("members have a folder");
        let Some(floor) = floor_of(folder) else {
            findings
                .push(Finding::new(folder, "stands on no floor: give it a line in xtask/src/tidy/floors.rs"));
            continue;
        };
        findings.extend(check_package(workspace, package, folder, floor));
    }
    findings
}

fn check_package(workspace: &Workspace, package: &Package, folder: &str, floor: &Floor) -> Vec<Finding> {
    let ground = GROUND.iter().any(|ground| inside(folder, ground));
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let name = &dependency.name;
        let wrong = match workspace.member(name).and_then(|ours| ours.folder.as_deref()) {
            Some(other) => {
                let allowed = other == folder || floor.uses.iter().any(|uses| inside(other, uses));
                (!allowed && (!dependency.dev || ground))
                    .then(|| format!("depends on {name} in {other}, which is not below {folder}"))
            }
            None if dependency.dev => None,
            None if ground && !GROUND_CRATES.contains(&name.as_str()) => {
                Some(format!("takes {name}; base and proto take {} only", GROUND_CRATES.join(", ")))
            }
            None => homeless(name, folder),
        };
        findings.extend(wrong.map(|what| Finding::new(format!("{folder}/Cargo.toml"), what)));
    }
    findings
}

fn homeless(name: &str, folder: &str) -> Option<String> {
    let (_, homes) = HOMES.iter().find(|(foreign, _)| *foreign == name)?;
    let at_home = homes.iter().any(|home| inside(folder, home));
    (!at_home).then(|| format!("takes {name}, which only {} may", homes.join(", ")))
}

/// The rule with the longest folder that contains this one.
fn floor_of(folder: &str) -> Option<&'static Floor> {
    FLOORS.iter().filter(|floor| inside(folder, floor.folder)).max_by_key(|floor| floor.folder.len())
}

/// Whether `path` is `folder` or lies in it.
pub(super) fn inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::workspace::Dependency;
    use super::super::workspace::samples::{foreign, member};
    use super::*;

    fn findings(packages: Vec<Package>) -> Vec<String> {
        check(&Workspace { packages }).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_house_that_looks_down_is_fine() {
        let found = findings(vec![
            member("base/cap", "amoeba-cap", &["blake3"]),
            member("proto/flip", "amoeba-flip", &["amoeba-cap", "thiserror"]),
            member("lib/stubs", "amoeba-stubs", &["amoeba-cap"]),
            member("servers/directory", "amoeba-directory", &["amoeba-stubs", "redb"]),
            member("sim", "amoeba-sim", &["amoeba-flip", "corosensei"]),
            member("bin/amoeba", "amoeba-bin", &["amoeba-directory", "amoeba-sim", "clap"]),
            foreign("redb", "MIT"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn looking_up_is_found() {
        let found = findings(vec![
            member("base/cap", "amoeba-cap", &["amoeba-flip"]),
            member("proto/flip", "amoeba-flip", &[]),
        ]);
        assert_eq!(found, ["depends on amoeba-flip in proto/flip, which is not below base/cap"]);
    }

    #[test]
    fn servers_do_not_depend_on_servers() {
        let found = findings(vec![
            member("servers/bullet", "amoeba-bullet", &["amoeba-directory"]),
            member("servers/directory", "amoeba-directory", &[]),
        ]);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn live_tests_are_a_black_box() {
        let found = findings(vec![
            member("tests/live", "amoeba-tests-live", &["amoeba-cap"]),
            member("tests/world", "amoeba-tests-world", &["amoeba-cap"]),
            member("base/cap", "amoeba-cap", &[]),
        ]);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn the_ground_floor_takes_its_list_only() {
        assert_eq!(findings(vec![member("base/cap", "amoeba-cap", &["serde"])]).len(), 1);
        assert_eq!(findings(vec![member("lib/name", "amoeba-name", &["serde"])]).len(), 0);
    }

    #[test]
    fn foreign_crates_stay_at_home() {
        for (folder, name) in [("servers/bullet", "redb"), ("lib/name", "rustix"), ("linux", "clap")] {
            assert_eq!(findings(vec![member(folder, "x", &[name])]).len(), 1, "{folder} {name}");
        }
    }

    #[test]
    fn tests_may_use_more_but_not_on_the_ground_floor() {
        let up = |folder, name| {
            let mut package = member(folder, name, &[]);
            package.dependencies.push(Dependency { name: "amoeba-sim".into(), dev: true });
            findings(vec![package, member("sim", "amoeba-sim", &[])]).len()
        };
        assert_eq!(up("servers/bullet", "amoeba-bullet"), 0);
        assert_eq!(up("proto/rpc", "amoeba-rpc"), 1);
    }

    #[test]
    fn a_new_folder_needs_a_floor() {
        assert_eq!(findings(vec![member("attic/old", "amoeba-old", &[])]).len(), 1);
        assert!(inside("base/cap", "base") && inside("base", "base") && !inside("basement/x", "base"));
    }
}
