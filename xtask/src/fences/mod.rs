//! The fences of the house, checked without network.
//!
//! - [`graph`]: who uses which crate, one version of each, and where they come from (`deny.toml`).
//! - [`licences`]: under which terms (`deny.toml`).
//! - [`files`]: no `unsafe`, the lints of the workspace in every crate, a `//!` atop every file.
//! - [`layers`]: what the folders of the server may name.
//! - [`links`]: relative links in Markdown.
//!
//! [`policy`] reads `deny.toml`, [`metadata`] what cargo knows, [`tree`] the files and [`source`] Rust.

mod files;
mod graph;
mod layers;
mod licences;
mod links;
mod metadata;
mod policy;
mod source;
mod tree;

use std::fmt;

use crate::failure::Failure;
use crate::process;

/// One broken fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file (with its line) or the crate.
    pub place: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Violation {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Checks every fence and names every broken one.
pub fn run() -> Result<(), Failure> {
    let root = process::root();
    let policy = policy::read(&root.join("deny.toml"))?;
    let graph = metadata::read()?;
    let tree = tree::read(&root)?;

    let mut violations = graph::check(&graph, &policy);
    violations.extend(licences::check(&graph, &policy));
    violations.extend(files::check(&tree));
    violations.extend(layers::check(&tree));
    violations.extend(links::check(&tree));
    if violations.is_empty() { Ok(()) } else { Err(Failure::Fences(violations)) }
}
