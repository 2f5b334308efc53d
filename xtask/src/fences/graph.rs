//! Who may use which crate, one version of each, and where crates come from.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::metadata::Graph;
use super::policy::{Ban, Policy};

/// Every use, version and source that the rules do not allow.
pub fn check(graph: &Graph, policy: &Policy) -> Vec<Violation> {
    let mut violations = uses(graph, policy);
    if policy.one_version {
        violations.extend(versions(graph, policy));
    }
    violations.extend(sources(graph, policy));
    violations
}

fn uses(graph: &Graph, policy: &Policy) -> Vec<Violation> {
    let bans: BTreeMap<&str, &Ban> =
        policy.bans.iter().map(|ban| (ban.name.as_str(), ban)).collect();
    let mut violations = BTreeSet::new();
    for (user, used) in &graph.uses {
        let (user, used) = (&graph.packages[user], &graph.packages[used]);
        let problem = match bans.get(used.name.as_str()) {
            Some(ban) if ban.wrappers.contains(&user.name) => continue,
            Some(ban) if ban.wrappers.is_empty() => {
                format!("uses {}, which nobody may: {}", used.name, ban.reason)
            }
            Some(ban) => {
                let allowed = ban.wrappers.join(", ");
                format!("uses {}, which only {allowed} may: {}", used.name, ban.reason)
            }
            None if used.is_own() => {
                format!("uses {}, which deny.toml opens to nobody", used.name)
            }
            None => continue,
        };
        violations.insert((user.name.clone(), problem));
    }
    violations.into_iter().map(|(user, problem)| Violation::new(user, problem)).collect()
}

fn versions(graph: &Graph, policy: &Policy) -> Vec<Violation> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in graph.packages.values() {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let skipped = |name: &str, version: &str| {
        policy
            .skipped_versions
            .iter()
            .any(|skip| skip.split_once('@').is_some_and(|(n, v)| n == name && v == version))
    };
    let mut violations = Vec::new();
    for (name, versions) in &versions {
        let kept: Vec<&str> = versions.iter().copied().filter(|v| !skipped(name, v)).collect();
        if kept.len() > 1 {
            let problem = "several versions; agree on one, or skip the older with a reason";
            violations.push(Violation::new(format!("{name} {}", kept.join(", ")), problem));
        }
    }
    for skip in &policy.skipped_versions {
        let (name, version) = skip.split_once('@').unwrap_or((skip, ""));
        let needed = versions.get(name).is_some_and(|v| v.len() > 1 && v.contains(version));
        if !needed {
            let problem = format!("skips {skip}, which is no second version; remove the line");
            violations.push(Violation::new("deny.toml", problem));
        }
    }
    violations
}

fn sources(graph: &Graph, policy: &Policy) -> Vec<Violation> {
    let allowed = |source: &str| {
        let registry = source.strip_prefix("registry+");
        registry.is_some_and(|url| policy.registries.iter().any(|allowed| allowed == url))
    };
    let packages = graph.packages.values();
    packages
        .filter_map(|package| {
            let source = package.source.as_deref().filter(|source| !allowed(source))?;
            let problem = format!("comes from {source}, which is no registry of deny.toml");
            Some(Violation::new(&package.name, problem))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let ban = |name: &str, wrappers: &[&str]| Ban {
            name: name.to_owned(),
            wrappers: wrappers.iter().map(ToString::to_string).collect(),
            reason: "a reason".to_owned(),
        };
        Policy {
            bans: vec![
                ban("rusqlite", &["farshore-store-sqlite"]),
                ban("farshore-store", &["farshore-server"]),
                ban("openssl", &[]),
            ],
            one_version: true,
            registries: vec!["https://github.com/rust-lang/crates.io-index".to_owned()],
            ..Policy::default()
        }
    }

    fn places(lines: &[&str], policy: &Policy) -> Vec<String> {
        let violations = check(&Graph::planted(lines), policy);
        violations.into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn allowed_uses_pass() {
        let lines = [
            "farshore-server -> farshore-store",
            "farshore-store-sqlite -> rusqlite",
            "farshore-server -> uuid",
        ];
        assert_eq!(places(&lines, &policy()), [""; 0]);
    }

    #[test]
    fn a_fenced_crate_outside_its_home_is_found() {
        let found = places(&["farshore-server -> rusqlite"], &policy());
        assert_eq!(
            found,
            ["farshore-server: uses rusqlite, which only farshore-store-sqlite may: a reason"]
        );
    }

    #[test]
    fn a_crate_that_nobody_may_use_is_found_among_third_parties_too() {
        let found = places(&["native-tls -> openssl"], &policy());
        assert_eq!(found, ["native-tls: uses openssl, which nobody may: a reason"]);
    }

    #[test]
    fn a_use_that_points_upward_is_found() {
        let found = places(&["farshore-sync-core -> farshore-store"], &policy());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("farshore-sync-core: uses farshore-store"), "{found:?}");
    }

    #[test]
    fn an_own_crate_without_a_rule_is_open_to_nobody() {
        let found = places(&["farshore-server -> farshore-benches"], &policy());
        let expected = "farshore-server: uses farshore-benches, which deny.toml opens to nobody";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn two_versions_are_found_unless_one_is_skipped() {
        let lines = ["farshore-server -> rand@0.9.0", "uuid -> rand@0.10.0"];
        let found = places(&lines, &policy());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("rand 0.10.0, 0.9.0: several versions"), "{found:?}");

        let skipped = Policy { skipped_versions: vec!["rand@0.9.0".to_owned()], ..policy() };
        assert_eq!(places(&lines, &skipped), [""; 0]);
    }

    #[test]
    fn a_skip_that_is_no_longer_needed_is_found() {
        let policy = Policy { skipped_versions: vec!["rand@0.9.0".to_owned()], ..policy() };
        for lines in [["uuid -> rand@0.10.0"], ["uuid -> rand@0.9.0"]] {
            let found = places(&lines, &policy);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("deny.toml: skips rand@0.9.0"), "{found:?}");
        }
    }

    #[test]
    fn a_crate_from_elsewhere_is_found() {
        let mut graph = Graph::planted(&["farshore-server -> uuid"]);
        let uuid = graph.packages.get_mut("uuid").unwrap();
        uuid.source = Some("git+https://example.org/uuid".to_owned());
        let found = check(&graph, &policy());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].problem.contains("git+https://example.org/uuid"));
    }
}
