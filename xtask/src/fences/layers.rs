//! What the folders of the server may name: `http` → `app` → `auth`, `sync`, `workflow` → the store.
//!
//! Never upward, and never from `http` to the store.

use super::Violation;
use super::source::Source;
use super::tree::Tree;

/// Where the server's code stands.
const SERVER: &str = "server/src/";
/// The crates that hold the store, and what they stand on.
const STORE: [&str; 5] =
    ["farshore_store", "farshore_store_sqlite", "farshore_store_postgres", "rusqlite", "sqlx"];

/// A folder of the server and what it must not name.
struct Layer {
    folder: &'static str,
    crates: &'static [&'static str],
    modules: &'static [&'static str],
    sql: Sql,
    why: &'static str,
}

#[derive(PartialEq)]
enum Sql {
    NotHere,
    Unchecked,
}

const LAYERS: [Layer; 5] = [
    Layer {
        folder: "http",
        crates: &STORE,
        modules: &["store"],
        sql: Sql::NotHere,
        why: "a handler extracts, calls one function of `app`, and converts",
    },
    Layer {
        folder: "app",
        crates: &["axum", "rusqlite", "sqlx"],
        modules: &["http"],
        sql: Sql::NotHere,
        why: "a use case knows neither HTTP nor SQL",
    },
    below_app("auth"),
    below_app("sync"),
    below_app("workflow"),
];

const fn below_app(folder: &'static str) -> Layer {
    Layer {
        folder,
        crates: &["rusqlite", "sqlx"],
        modules: &["http", "app"],
        sql: Sql::Unchecked,
        why: "the layers never point upward",
    }
}

/// Every name in the server that its layer must not use.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.texts_ending(".rs") {
        let Some(module) = path.strip_prefix(SERVER).map(module_of) else { continue };
        let layer = LAYERS.iter().find(|layer| module.first().is_some_and(|m| *m == layer.folder));
        if let Some(layer) = layer {
            violations.extend(check_file(path, &module, &Source::read(text), layer));
        }
    }
    violations
}

fn check_file(path: &str, module: &[&str], source: &Source, layer: &Layer) -> Vec<Violation> {
    let violation = |line: usize, what: String| {
        let problem = format!("`{}` must not name {what}: {}", layer.folder, layer.why);
        Violation::new(format!("{path}:{line}"), problem)
    };
    let mut violations = Vec::new();
    for (line, path) in source.paths() {
        match resolve(&path, module).as_slice() {
            Place::Module([name, ..]) if layer.modules.contains(name) => {
                violations.push(violation(line, format!("crate::{name}")));
            }
            Place::External([name, ..]) if layer.crates.contains(name) => {
                violations.push(violation(line, (*name).to_owned()));
            }
            _ => {}
        }
    }
    if layer.sql == Sql::NotHere {
        let statements = source.strings.iter().filter(|(_, text)| is_sql(text));
        violations.extend(statements.map(|(line, _)| violation(*line, "SQL".to_owned())));
    }
    violations.dedup();
    violations
}

/// Where a path leads.
enum Resolved<'a> {
    Module(Vec<&'a str>),
    External(Vec<&'a str>),
}

/// The same, to match on.
enum Place<'a> {
    Module(&'a [&'a str]),
    External(&'a [&'a str]),
}

impl Resolved<'_> {
    fn as_slice(&self) -> Place<'_> {
        match self {
            Self::Module(path) => Place::Module(path),
            Self::External(path) => Place::External(path),
        }
    }
}

/// Follows `crate`, `self` and `super`; a path that begins otherwise is taken for that of a crate.
fn resolve<'a>(path: &'a [String], module: &[&'a str]) -> Resolved<'a> {
    let mut rest = path.iter().map(String::as_str).peekable();
    let mut resolved = match rest.peek().copied() {
        Some("crate") => Vec::new(),
        Some("self" | "super") => module.to_vec(),
        _ => return Resolved::External(rest.collect()),
    };
    for name in rest {
        match name {
            "crate" | "self" => {}
            "super" => drop(resolved.pop()),
            name => resolved.push(name),
        }
    }
    Resolved::Module(resolved)
}

/// The module of a file under `src/`: `app/devices.rs` is `app::devices`, `app/mod.rs` is `app`.
fn module_of(file: &str) -> Vec<&str> {
    let names = file.trim_end_matches(".rs").split('/');
    names.filter(|name| !["mod", "lib", "main"].contains(name)).collect()
}

fn is_sql(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    match words.first().map(String::as_str) {
        Some("select") => has("from"),
        Some("insert") => has("into"),
        Some("update") => has("set"),
        Some("delete") => has("from"),
        Some("create" | "drop" | "alter") => has("table") || has("index"),
        Some("pragma") => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, code: &str) -> Vec<String> {
        let violations = check(&Tree::planted(&[(path, code)]));
        violations.into_iter().map(|violation| violation.to_string()).collect()
    }

    fn check_found(path: &str, code: &str, expected: &str) {
        let found = found(path, code);
        assert_eq!(found.len(), 1, "{code}: {found:?}");
        assert!(found[0].starts_with(expected), "{code}: {found:?}");
    }

    #[test]
    fn what_points_downward_passes() {
        for (path, code) in [
            ("server/src/http/v1/devices.rs", "use crate::app::devices; use axum::Json;"),
            ("server/src/app/devices.rs", "use crate::auth::Principal; use farshore_store::Row;"),
            ("server/src/sync/lane.rs", "use farshore_store::Catalog; use super::session;"),
            ("server/src/lib.rs", "mod http; mod app; use farshore_store_sqlite::Files;"),
            ("client-sdk/src/http.rs", "use farshore_store::Row; use axum::Json;"),
            ("server/src/http/v1/devices.rs", "// farshore_store\nlet a = \"farshore_store\";"),
            ("server/src/app/mod.rs", "pub mod http_dates; use self::http_dates::parse;"),
        ] {
            assert_eq!(found(path, code), [""; 0], "{path}: {code}");
        }
    }

    #[test]
    fn a_handler_that_reaches_for_the_store_is_found() {
        let path = "server/src/http/v1/devices.rs";
        for code in [
            "use farshore_store::Row;",
            "use ::farshore_store::Row;",
            "fn f() { farshore_store::open(); }",
            "use farshore_store_sqlite as files;",
            "use crate::{app, store::Row};",
            "use super::super::super::store::Row;",
        ] {
            check_found(path, code, "server/src/http/v1/devices.rs:1: `http` must not name ");
        }
    }

    #[test]
    fn a_use_case_that_knows_http_or_sql_is_found() {
        let path = "server/src/app/devices.rs";
        check_found(
            path,
            "\nuse axum::Json;",
            "server/src/app/devices.rs:2: `app` must not name axum",
        );
        for code in ["use crate::http::error;", "use super::super::http::error;"] {
            check_found(path, code, "server/src/app/devices.rs:1: `app` must not name crate::http");
        }
        for sql in ["SELECT 1 FROM devices", "  delete\\nfrom devices", "PRAGMA user_version"] {
            let code = format!("let a = \"{}\";", sql.replace("\\n", "\n"));
            check_found(path, &code, "server/src/app/devices.rs:1: `app` must not name SQL");
        }
        assert_eq!(found(path, "let a = \"select a tenant first\";"), [""; 0]);
    }

    #[test]
    fn a_lower_layer_that_points_upward_is_found() {
        for layer in ["auth", "sync", "workflow"] {
            for (code, name) in [("use crate::app::devices;", "app"), ("crate::http::x()", "http")]
            {
                let path = format!("server/src/{layer}/mod.rs");
                let expected = format!("{path}:1: `{layer}` must not name crate::{name}");
                check_found(&path, code, &expected);
            }
        }
    }
}
