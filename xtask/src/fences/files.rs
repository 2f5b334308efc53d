//! What every file and every crate has: an opening `//!`, the lints of the workspace, no `unsafe`.

use toml::{Table, Value};

use super::Violation;
use super::source::Source;
use super::tree::Tree;

/// The only crates that may say `unsafe`: one whose foreign interface is generated, and the file system that SQLite
/// calls in tests, which no program that ships uses.
const MAY_BE_UNSAFE: [&str; 2] = ["bindings/", "tests/vfs/"];

/// The feature that plants bugs, as a manifest names it for another crate, and the only manifest that may.
const BUG_BANK: (&str, &str) = ("farshore-sync-core/bugs", "tests/sim/Cargo.toml");

/// Every file and crate that lacks what it must have.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = manifests(tree);
    for (path, text) in tree.texts_ending(".rs") {
        if !text.starts_with("//! ") {
            let problem = "must open with `//!`: what the file is, what it is not, its invariants";
            violations.push(Violation::new(path, problem));
        }
        if !may_be_unsafe(path) {
            violations.extend(unsafe_code(path, text));
        }
    }
    violations
}

fn may_be_unsafe(path: &str) -> bool {
    MAY_BE_UNSAFE.iter().any(|folder| path.starts_with(folder))
}

fn unsafe_code(path: &str, text: &str) -> Vec<Violation> {
    let paths = Source::read(text).paths();
    let lines = paths.into_iter().filter(|(_, path)| path.iter().any(|name| name == "unsafe"));
    lines
        .map(|(line, _)| Violation::new(format!("{path}:{line}"), "`unsafe` is forbidden"))
        .collect()
}

/// The compiler holds the lints; this holds that it is told to in every crate.
fn manifests(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.texts_ending("Cargo.toml") {
        if text.contains(BUG_BANK.0) && path != BUG_BANK.1 {
            violations.push(Violation::new(path, "only the simulator may plant the bug bank"));
        }
        let manifest: Table = match text.parse() {
            Ok(manifest) => manifest,
            Err(error) => {
                violations.push(Violation::new(path, error.to_string()));
                continue;
            }
        };
        let wanted = if manifest.contains_key("workspace") {
            let lint = at(&manifest, &["workspace", "lints", "rust", "unsafe_code"]);
            (lint == Some(&Value::from("forbid")), "[workspace.lints.rust] must forbid unsafe_code")
        } else if may_be_unsafe(path) {
            continue;
        } else {
            let inherits = at(&manifest, &["lints", "workspace"]) == Some(&Value::from(true));
            (inherits, "must inherit the lints of the workspace: `[lints] workspace = true`")
        };
        if let (false, problem) = wanted {
            violations.push(Violation::new(path, problem));
        }
    }
    violations
}

fn at<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (last, parents) = keys.split_last()?;
    let mut table = table;
    for key in parents {
        table = table.get(*key)?.as_table()?;
    }
    table.get(*last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str) -> Vec<String> {
        check(&Tree::planted(&[(path, text)])).into_iter().map(|found| found.place).collect()
    }

    #[test]
    fn a_file_without_its_opening_is_found() {
        assert_eq!(places("api/src/lib.rs", "//! The contract.\n"), [""; 0]);
        for text in ["", "// The contract.\n", "/// The contract.\n", "\n//! The contract.\n"] {
            assert_eq!(places("api/src/lib.rs", text), ["api/src/lib.rs"], "{text:?}");
        }
    }

    #[test]
    fn unsafe_code_is_found_with_its_line() {
        let text = "//! unsafe in words.\n\nfn f() { unsafe { g() } }\n";
        assert_eq!(places("api/src/lib.rs", text), ["api/src/lib.rs:3"]);
        for exempt in ["bindings/src/lib.rs", "tests/vfs/src/shim.rs"] {
            assert_eq!(places(exempt, text), [""; 0]);
        }
        assert_eq!(places("tests/src/vfs.rs", text), ["tests/src/vfs.rs:3"]);
        assert_eq!(places("api/src/lib.rs", &text.replace("unsafe {", "{")), [""; 0]);
    }

    #[test]
    fn a_crate_that_leaves_the_lints_is_found() {
        let kept = "[package]\nname = \"farshore-api\"\n\n[lints]\nworkspace = true\n";
        assert_eq!(places("api/Cargo.toml", kept), [""; 0]);
        let left = kept.replace("[lints]\nworkspace = true\n", "");
        assert_eq!(places("api/Cargo.toml", &left), ["api/Cargo.toml"]);
        let off = kept.replace("true", "false");
        assert_eq!(places("api/Cargo.toml", &off), ["api/Cargo.toml"]);
    }

    #[test]
    fn a_workspace_that_only_warns_of_unsafe_is_found() {
        let root = "[workspace]\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
        assert_eq!(places("Cargo.toml", root), [""; 0]);
        assert_eq!(places("Cargo.toml", &root.replace("forbid", "warn")), ["Cargo.toml"]);
    }
}
