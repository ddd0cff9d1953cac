//! What `cargo metadata` says about our crates and those they depend on, reduced to what the rules ask.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// All packages that a build for this machine takes part in.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) packages: Vec<Package>,
}

/// One package, ours or foreign.
#[derive(Clone, Debug, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Our own: the folder from the root, with `/` between. `None` for foreign ones.
    pub(super) folder: Option<String>,
    /// The SPDX expression.
    pub(super) license: Option<String>,
    /// Where it comes from; `None` for a folder on this disk.
    pub(super) source: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) targets: Vec<Target>,
}

/// One line of a manifest's dependencies.
#[derive(Clone, Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Only for tests, examples and benchmarks.
    pub(super) dev: bool,
}

/// One thing cargo builds of a package.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `lib`, `bin`, `test`, `example`, `custom-build` …
    pub(super) kind: String,
    /// From the root, with `/` between; empty for foreign packages.
    pub(super) path: String,
}

impl Workspace {
    /// Asks cargo.
    pub(super) fn load() -> Result<Workspace> {
        let host = host()?;
        let arguments = ["metadata", "--locked", "--format-version", "1", "--filter-platform", &host];
        let json = shell::capture(&mut shell::cargo(&arguments))?;
        Workspace::parse(&serde_json::from_slice(&json)?)
    }

    /// Reads the JSON of `cargo metadata --format-version 1`.
    pub(super) fn parse(metadata: &Value) -> Result<Workspace> {
        let root = metadata["workspace_root"].as_str().context("no workspace_root")?;
        let members = strings(&metadata["workspace_members"]);
        let nodes = metadata["resolve"]["nodes"].as_array().context("no resolve.nodes")?;
        let used: Vec<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
        let mut packages = Vec::new();
        for package in metadata["packages"].as_array().context("no packages")? {
            let id = package["id"].as_str().context("a package without id")?;
            if used.contains(&id) {
                packages.push(Package::parse(package, root, members.contains(&id))?);
            }
        }
        Ok(Workspace { packages })
    }

    /// Our own packages.
    pub(super) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.folder.is_some())
    }

    /// Our own package of this name.
    pub(super) fn member(&self, name: &str) -> Option<&Package> {
        self.members().find(|package| package.name == name)
    }
}

impl Package {
    fn parse(json: &Value, root: &str, member: bool) -> Result<Package> {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let name = text("name").context("a package without name")?;
        let below_root = |path: &str| {
            path.strip_prefix(root).map(|path| path.trim_start_matches('/').to_owned()).unwrap_or_default()
        };
        let manifest = json["manifest_path"].as_str().with_context(|| format!("{name}: no manifest_path"))?;
        let folder = below_root(manifest.strip_suffix("/Cargo.toml").unwrap_or(manifest));
        let dependencies = array(&json["dependencies"]).iter().map(|dependency| Dependency {
            name: dependency["name"].as_str().unwrap_or_default().to_owned(),
            dev: dependency["kind"].as_str() == Some("dev"),
        });
        let targets = array(&json["targets"]).iter().map(|target| Target {
            kind: strings(&target["kind"]).first().copied().unwrap_or_default().to_owned(),
            path: below_root(target["src_path"].as_str().unwrap_or_default()),
        });
        Ok(Package {
            version: text("version").unwrap_or_default(),
            folder: member.then_some(folder),
            license: text("license"),
            source: text("source"),
            dependencies: dependencies.collect(),
            targets: targets.collect(),
            name,
        })
    }
}

fn array(json: &Value) -> &[Value] {
    json.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn strings(json: &Value) -> Vec<&str> {
    array(json).iter().filter_map(Value::as_str).collect()
}

/// The target triple of this machine.
fn host() -> Result<String> {
    let output = shell::capture(std::process::Command::new("rustc").arg("-vV"))?;
    let text = String::from_utf8_lossy(&output).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("`rustc -vV` names no host"),
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// One of our crates in `folder` with these normal dependencies.
    pub(in crate::tidy) fn member(folder: &str, name: &str, dependencies: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency { name: (*name).to_owned(), dev: false };
        Package {
            name: name.into(),
            version: "0.1.0".into(),
            folder: Some(folder.into()),
            license: Some("MIT OR Apache-2.0".into()),
            source: None,
            dependencies: dependencies.iter().map(dependency).collect(),
            targets: vec![Target { kind: "lib".into(), path: format!("{folder}/src/lib.rs") }],
        }
    }

    /// A crate from crates.io.
    pub(in crate::tidy) fn foreign(name: &str, license: &str) -> Package {
        Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: Some(license.into()),
            source: Some("registry+https://github.com/rust-lang/crates.io-index".into()),
            ..Package::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let json = serde_json::json!({
            "workspace_root": "/p",
            "workspace_members": ["cap"],
            "resolve": { "nodes": [{ "id": "cap" }, { "id": "blake3" }] },
            "packages": [
                { "id": "cap", "name": "amoeba-cap", "version": "0.1.0", "license": "MIT", "source": null,
                  "manifest_path": "/p/base/cap/Cargo.toml",
                  "dependencies": [{ "name": "blake3", "kind": null }, { "name": "proptest", "kind": "dev" }],
                  "targets": [{ "kind": ["lib"], "src_path": "/p/base/cap/src/lib.rs" }] },
                { "id": "blake3", "name": "blake3", "version": "1.8.7", "source": "registry+x",
                  "manifest_path": "/r/blake3/Cargo.toml", "dependencies": [], "targets": [] },
                { "id": "unused", "name": "windows", "manifest_path": "/r/windows/Cargo.toml" },
            ],
        });
        let workspace = Workspace::parse(&json).unwrap();
        assert_eq!(workspace.packages.len(), 2);
        let cap = workspace.member("amoeba-cap").unwrap();
        assert_eq!(cap.folder.as_deref(), Some("base/cap"));
        assert_eq!(cap.targets[0].path, "base/cap/src/lib.rs");
        assert_eq!(cap.dependencies.iter().map(|d| d.dev).collect::<Vec<_>>(), [false, true]);
        assert_eq!(workspace.packages[1].folder, None);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(Workspace::parse(&serde_json::json!({})).is_err());
    }
}
