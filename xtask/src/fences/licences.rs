//! Under which terms the crates of the lock file come.
//!
//! Licences are SPDX expressions; `/` is the older way to write `OR`.

use std::iter::Peekable;
use std::vec;

use super::Violation;
use super::metadata::Graph;
use super::policy::Policy;

/// Every crate whose licence the rules do not allow.
pub fn check(graph: &Graph, policy: &Policy) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in graph.packages.values() {
        let place = format!("{} {}", package.name, package.version);
        let exception = policy.licence_exceptions.iter().find(|(name, _)| *name == package.name);
        let extra = exception.map_or(&[][..], |(_, licences)| licences);
        let allowed =
            |licence: &str| policy.licences.iter().chain(extra).any(|allowed| allowed == licence);
        match package.licence.as_deref().map(|text| satisfied(text, &allowed)) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                let licence = package.licence.as_deref().unwrap_or_default();
                let problem = format!("its licence {licence:?} is not allowed by deny.toml");
                violations.push(Violation::new(place, problem));
            }
            Some(Err(problem)) => violations.push(Violation::new(place, problem)),
            None => violations.push(Violation::new(place, "names no licence")),
        }
    }
    violations
}

/// Whether the expression can be met with allowed licences alone.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut words = words.into_iter().peekable();
    let met = any(&mut words, allowed).filter(|_| words.next().is_none());
    met.ok_or_else(|| format!("its licence {expression:?} is no SPDX expression"))
}

type Words = Peekable<vec::IntoIter<String>>;

fn any(words: &mut Words, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = all(words, allowed)?;
    while words.next_if(|word| word == "OR").is_some() {
        met |= all(words, allowed)?;
    }
    Some(met)
}

fn all(words: &mut Words, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while words.next_if(|word| word == "AND").is_some() {
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut Words, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let word = words.next()?;
    match word.as_str() {
        "(" => {
            let met = any(words, allowed)?;
            words.next_if(|word| word == ")").map(|_| met)
        }
        ")" | "AND" | "OR" | "WITH" => None,
        licence if words.next_if(|word| word == "WITH").is_some() => {
            Some(allowed(&format!("{licence} WITH {}", words.next()?)))
        }
        licence => Some(allowed(licence)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            licences: vec!["MIT".to_owned(), "ISC".to_owned()],
            licence_exceptions: vec![("sqlcipher-src".to_owned(), vec!["blessing".to_owned()])],
            ..Policy::default()
        }
    }

    fn found(name: &str, licence: Option<&str>) -> Vec<String> {
        let mut graph = Graph::planted(&[&format!("farshore-server -> {name}")]);
        graph.packages.get_mut(name).unwrap().licence = licence.map(str::to_owned);
        check(&graph, &policy()).into_iter().map(|violation| violation.problem).collect()
    }

    #[test]
    fn expressions_that_allowed_licences_meet_pass() {
        for licence in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "MIT AND ISC",
            "GPL-3.0 OR MIT AND ISC",
            "(GPL-3.0 OR MIT) AND (ISC OR Zlib)",
            "Apache-2.0 WITH LLVM-exception OR MIT",
        ] {
            assert_eq!(found("uuid", Some(licence)), [""; 0], "{licence}");
        }
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_found() {
        for licence in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "GPL-3.0 OR MIT AND Zlib",
            "MIT WITH some-exception",
            "(MIT OR ISC) AND Zlib",
        ] {
            assert_eq!(found("uuid", Some(licence)).len(), 1, "{licence}");
        }
    }

    #[test]
    fn an_exception_holds_for_its_crate_only() {
        assert_eq!(found("sqlcipher-src", Some("MIT AND blessing")), [""; 0]);
        assert_eq!(found("uuid", Some("MIT AND blessing")).len(), 1);
    }

    #[test]
    fn a_missing_or_broken_licence_is_found() {
        assert_eq!(found("uuid", None), ["names no licence"]);
        for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "AND MIT", "MIT WITH"] {
            let problems = found("uuid", Some(broken));
            assert!(problems[0].contains("no SPDX expression"), "{broken}: {problems:?}");
        }
    }
}
