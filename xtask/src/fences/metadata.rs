//! The crates of the lock file and who uses whom, as cargo tells it without network.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::failure::Failure;
use crate::process;

/// Every crate of the lock file and who uses whom, for all platforms and features.
#[derive(Debug, Default)]
pub struct Graph {
    /// The crates, by cargo's id.
    pub packages: BTreeMap<String, Package>,
    /// `(user, used)`, as ids; for building, running and testing alike.
    pub uses: Vec<(String, String)>,
}

/// One version of one crate.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression.
    pub licence: Option<String>,
    /// Where it comes from; nothing for our own.
    pub source: Option<String>,
}

impl Package {
    /// Whether it is a member of the workspace.
    pub fn is_own(&self) -> bool {
        self.source.is_none()
    }
}

/// Asks cargo. On a fresh machine the crates of other platforms have not been downloaded yet: then,
/// and only then, they are fetched.
pub fn read() -> Result<Graph, Failure> {
    if !process::succeeds(metadata()) {
        eprintln!("xtask: fetching the crates of the lock file");
        process::run(process::cargo(["fetch", "--locked"]))?;
    }
    parse(&process::output(metadata())?).map_err(|problem| Failure::Malformed {
        what: "the answer of cargo metadata".to_owned(),
        problem,
    })
}

fn metadata() -> std::process::Command {
    process::cargo([
        "metadata",
        "--format-version=1",
        "--all-features",
        "--locked",
        "--offline",
        "--quiet",
    ])
}

fn parse(json: &str) -> Result<Graph, String> {
    let answer: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let mut graph = Graph::default();
    for package in list(&answer["packages"], "packages")? {
        let text = |key: &str| package[key].as_str().map(str::to_owned);
        let required = |key: &str| text(key).ok_or_else(|| format!("a package without {key}"));
        let (licence, source) = (text("license"), text("source"));
        let package =
            Package { name: required("name")?, version: required("version")?, licence, source };
        graph.packages.insert(required("id")?, package);
    }
    for node in list(&answer["resolve"]["nodes"], "resolve.nodes")? {
        let user = id(&node["id"])?;
        for used in list(&node["deps"], "deps")? {
            graph.uses.push((user.clone(), id(&used["pkg"])?));
        }
    }
    let known = |id: &String| graph.packages.contains_key(id);
    match graph.uses.iter().find(|(user, used)| !(known(user) && known(used))) {
        Some((user, used)) => Err(format!("{user} uses {used}, of which one is not listed")),
        None => Ok(graph),
    }
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("no list {name}"))
}

fn id(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no id"))
}

#[cfg(test)]
impl Graph {
    /// A graph of `user -> used` lines; names that begin with `farshore` are our own.
    pub fn planted(lines: &[&str]) -> Self {
        let mut graph = Self::default();
        for line in lines {
            let (user, used) = line.split_once(" -> ").unwrap();
            for id in [user, used] {
                let (name, version) = id.split_once('@').unwrap_or((id, "1.0.0"));
                let source = "registry+https://github.com/rust-lang/crates.io-index".to_owned();
                let package = Package {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    licence: Some("MIT".to_owned()),
                    source: (!name.starts_with("farshore")).then_some(source),
                };
                graph.packages.insert(id.to_owned(), package);
            }
            graph.uses.push((user.to_owned(), used.to_owned()));
        }
        graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_uses_are_read() {
        let graph = parse(
            r#"{"packages":[
                {"id":"a","name":"ours","version":"0.1.0","license":"Apache-2.0","source":null},
                {"id":"b","name":"theirs","version":"2.0.0","license":null,"source":"registry+x"}],
              "resolve":{"nodes":[{"id":"a","deps":[{"pkg":"b"}]},{"id":"b","deps":[]}]}}"#,
        )
        .unwrap();
        assert_eq!(graph.uses, [("a".to_owned(), "b".to_owned())]);
        assert!(graph.packages["a"].is_own() && !graph.packages["b"].is_own());
        assert_eq!(graph.packages["b"].licence, None);
    }

    #[test]
    fn a_use_of_an_unlisted_crate_is_an_error() {
        let json = r#"{"packages":[],"resolve":{"nodes":[{"id":"a","deps":[{"pkg":"b"}]}]}}"#;
        assert!(parse(json).unwrap_err().contains("not listed"));
        assert!(parse("{}").unwrap_err().contains("packages"));
    }
}
