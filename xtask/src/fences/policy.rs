//! Reads `deny.toml`, the one source of the rules about crates.
//!
//! Only what the fences check is read; cargo-deny knows more keys.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use crate::failure::Failure;

/// The rules about crates.
#[derive(Debug, Default)]
pub struct Policy {
    /// Crates that nobody, or only some, may use.
    pub bans: Vec<Ban>,
    /// Whether there may be one version of each crate only.
    pub one_version: bool,
    /// The exceptions from that, as `name@version`.
    pub skipped_versions: Vec<String>,
    /// The licences that every crate may have.
    pub licences: Vec<String>,
    /// Crate and licences that it may have besides.
    pub licence_exceptions: Vec<(String, Vec<String>)>,
    /// The registries that crates may come from.
    pub registries: Vec<String>,
}

/// A crate that is fenced.
#[derive(Debug)]
pub struct Ban {
    /// Its name.
    pub name: String,
    /// Who may use it; nobody, where this is empty.
    pub wrappers: Vec<String>,
    /// Why.
    pub reason: String,
}

/// Reads the rules.
pub fn read(path: &Path) -> Result<Policy, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|problem| Failure::Malformed { what: path.display().to_string(), problem })
}

fn parse(text: &str) -> Result<Policy, String> {
    let file: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let bans = section(&file, "bans")?;
    let licences = section(&file, "licenses")?;
    let sources = section(&file, "sources")?;
    Ok(Policy {
        bans: tables(bans, "deny")?.into_iter().map(ban).collect::<Result<_, _>>()?,
        one_version: bans.get("multiple-versions").and_then(Value::as_str) == Some("deny"),
        skipped_versions: tables(bans, "skip")?
            .into_iter()
            .map(|skip| {
                string(skip, "reason")?;
                string(skip, "crate")
            })
            .collect::<Result<_, _>>()?,
        licences: strings(licences, "allow")?,
        licence_exceptions: tables(licences, "exceptions")?
            .into_iter()
            .map(|exception| Ok((string(exception, "crate")?, strings(exception, "allow")?)))
            .collect::<Result<_, String>>()?,
        registries: strings(sources, "allow-registry")?,
    })
}

fn ban(entry: &Table) -> Result<Ban, String> {
    let wrappers =
        if entry.contains_key("wrappers") { strings(entry, "wrappers")? } else { Vec::new() };
    Ok(Ban { name: string(entry, "crate")?, wrappers, reason: string(entry, "reason")? })
}

fn section<'a>(file: &'a Table, name: &str) -> Result<&'a Table, String> {
    file.get(name).and_then(Value::as_table).ok_or_else(|| format!("[{name}] is missing"))
}

fn tables<'a>(table: &'a Table, key: &str) -> Result<Vec<&'a Table>, String> {
    array(table, key)?
        .iter()
        .map(|item| item.as_table().ok_or_else(|| format!("`{key}` must hold tables")))
        .collect()
}

fn strings(table: &Table, key: &str) -> Result<Vec<String>, String> {
    let text = |item: &Value| item.as_str().map(str::to_owned);
    array(table, key)?
        .iter()
        .map(|item| text(item).ok_or_else(|| format!("`{key}` must hold strings")))
        .collect()
}

fn string(table: &Table, key: &str) -> Result<String, String> {
    let text = table.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("`{key}` is missing in {table:?}"))
}

fn array<'a>(table: &'a Table, key: &str) -> Result<&'a Vec<Value>, String> {
    table.get(key).and_then(Value::as_array).ok_or_else(|| format!("`{key}` must be a list"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::root;

    #[test]
    fn the_rules_of_this_repository_are_read() {
        let policy = read(&root().join("deny.toml")).unwrap();
        let rusqlite = policy.bans.iter().find(|ban| ban.name == "rusqlite").unwrap();
        assert!(rusqlite.wrappers.iter().any(|name| name == "farshore-store-sqlite"));
        assert!(!rusqlite.wrappers.iter().any(|name| name == "farshore-server"));
        assert!(policy.one_version && !policy.licences.is_empty());
    }

    #[test]
    fn a_rule_without_a_reason_is_refused() {
        let text = "[bans]\ndeny = [{ crate = \"openssl\" }]\nskip = []\n\
                    [licenses]\nallow = []\nexceptions = []\n[sources]\nallow-registry = []\n";
        assert!(parse(text).unwrap_err().contains("reason"));
        parse(&text.replace(" }]", ", reason = \"TLS is rustls\" }]")).unwrap();
    }

    #[test]
    fn a_missing_section_is_named() {
        assert_eq!(parse("[bans]\n").unwrap_err(), "[licenses] is missing");
    }
}
