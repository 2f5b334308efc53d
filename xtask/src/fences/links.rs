//! Relative links in Markdown: the file is there, and so is the heading.

use std::collections::BTreeSet;

use super::Violation;
use super::tree::Tree;

/// Every relative link that leads nowhere.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.texts_ending(".md") {
        for (line, target) in links(text) {
            if let Some(problem) = broken(tree, path, &target) {
                violations.push(Violation::new(format!("{path}:{line}"), problem));
            }
        }
    }
    violations
}

fn broken(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let elsewhere = target.contains("://") || target.starts_with("mailto:");
    if elsewhere {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let resolved = if file.is_empty() { Some(from.to_owned()) } else { resolve(from, file) };
    let there = resolved.filter(|path| path.is_empty() || tree.paths.contains(path));
    let Some(path) = there else {
        return Some(format!("links to {target}, which is not there"));
    };
    let text = tree.texts.get(&path).filter(|_| !anchor.is_empty() && path.ends_with(".md"))?;
    let missing = !anchors(text).contains(anchor);
    missing.then(|| format!("links to {target}, but {path} has no such heading"))
}

/// The path that a link in a file leads to; nothing where it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut path: Vec<&str> = from.split('/').collect();
    path.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()?),
            part => path.push(part),
        }
    }
    Some(path.join("/"))
}

/// The lines of prose with their number, from 1; what stands between fences of code is left out.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !fence && !code
    })
}

fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        // What stands between backticks is code: every second piece.
        let words: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let inline = words.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let definition = words.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        for target in inline.chain(definition.map(|(_, target)| target)) {
            let target = target.split_whitespace().next().unwrap_or_default();
            links.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
    }
    links
}

/// The anchors of a file's headings, as GitHub and most others make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let repeated = (1..).map(|count| format!("{anchor}-{count}"));
        let free = std::iter::once(anchor.clone()).chain(repeated).find(|a| !anchors.contains(a));
        anchors.extend(free);
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(readme: &str) -> Vec<String> {
        let tree = Tree::planted(&[
            ("docs/guide.md", readme),
            ("docs/other.md", "# Other page\n\n## What it's for\n\n## Twice\n\n## Twice\n"),
            ("README.md", "# Farshore\n"),
        ]);
        check(&tree).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        for text in [
            "[a](other.md) and [b](../README.md#farshore) and [c](https://example.org/none.md)",
            "[a](other.md#what-its-for) [b](other.md#twice-1) ![c](./other.md \"title\")",
            "[root](..) [folder](../docs/) [mail](mailto:a@example.org)",
            "# Here\n\n[a](#here)\n\n[b]: other.md\n",
            "`[a](none.md)`\n\n```\n[a](none.md)\n```\n",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found_with_their_line() {
        for (text, expected) in [
            ("\n[a](none.md)", "docs/guide.md:2: links to none.md, which is not there"),
            ("[a](../../out.md)", "docs/guide.md:1: links to ../../out.md, which is not there"),
            ("[b]: none.md", "docs/guide.md:1: links to none.md, which is not there"),
            (
                "[a](#none)",
                "docs/guide.md:1: links to #none, but docs/guide.md has no such heading",
            ),
            (
                "[a](other.md#none)",
                "docs/guide.md:1: links to other.md#none, but docs/other.md has no such heading",
            ),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }
}
