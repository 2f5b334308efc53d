//! Puts changes behind the changes that they were made upon.

use std::collections::{HashMap, HashSet};

use super::{Change, ChangeHash, DocumentError};

/// The same changes (each given once), every one behind its dependencies; `known` are those that need not be among them.
///
/// # Errors
///
/// [`DocumentError::MissingDependency`] where a dependency is neither known nor among the changes.
pub(super) fn causal_order<'a>(
    changes: &[&'a Change],
    known: impl Fn(&ChangeHash) -> bool,
) -> Result<Vec<&'a Change>, DocumentError> {
    let mut waiting: HashMap<ChangeHash, Vec<usize>> = HashMap::new();
    let mut lacking = vec![0_usize; changes.len()];
    for (index, change) in changes.iter().enumerate() {
        for dependency in change.deps.iter().filter(|dependency| !known(dependency)) {
            waiting.entry(*dependency).or_default().push(index);
            lacking[index] += 1;
        }
    }
    let mut ready: Vec<usize> = (0..changes.len()).filter(|index| lacking[*index] == 0).collect();
    let mut ordered = Vec::with_capacity(changes.len());
    while let Some(index) = ready.pop() {
        ordered.push(changes[index]);
        for dependent in waiting.remove(&changes[index].hash).unwrap_or_default() {
            lacking[dependent] -= 1;
            if lacking[dependent] == 0 {
                ready.push(dependent);
            }
        }
    }
    first_missing(changes, &waiting).map_or(Ok(ordered), Err)
}

/// What is still waited for and is not one of the changes themselves. Hashes make cycles impossible, so there is one if anything waits.
fn first_missing(
    changes: &[&Change],
    waiting: &HashMap<ChangeHash, Vec<usize>>,
) -> Option<DocumentError> {
    let given: HashSet<ChangeHash> = changes.iter().map(|change| change.hash).collect();
    let dependency = *waiting.keys().filter(|hash| !given.contains(*hash)).min()?;
    let change = changes[*waiting[&dependency].first()?].hash;
    Some(DocumentError::MissingDependency { change, dependency })
}
