//! The files of the repository, as far as the fences read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use crate::failure::Failure;

/// Folders that hold what was built or downloaded, or git's own files.
const LEFT_OUT: [&str; 4] = [".git", "target", "farshore-data", "node_modules"];
/// The kinds of file whose text is read.
const READ: [&str; 3] = ["rs", "md", "toml"];

/// Paths relative to the root of the repository, with `/`.
#[derive(Debug, Default)]
pub struct Tree {
    /// Every file and folder.
    pub paths: BTreeSet<String>,
    /// The texts of Rust, Markdown and TOML files.
    pub texts: BTreeMap<String, String>,
}

impl Tree {
    /// Paths and texts of the files whose name ends so.
    pub fn texts_ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.texts.iter().filter(move |(path, _)| path.ends_with(end));
        files.map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// Reads the repository.
pub fn read(root: &Path) -> Result<Tree, Failure> {
    let mut tree = Tree::default();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        read_folder(&path, &folder, &mut tree, &mut folders)
            .map_err(|source| Failure::Read { path, source })?;
    }
    Ok(tree)
}

fn read_folder(
    path: &Path,
    folder: &str,
    tree: &mut Tree,
    folders: &mut Vec<String>,
) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let relative = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let end = Path::new(&relative).extension().and_then(|end| end.to_str());
        if entry.file_type()?.is_dir() {
            folders.push(relative.clone());
        } else if end.is_some_and(|end| READ.contains(&end)) {
            tree.texts.insert(relative.clone(), fs::read_to_string(entry.path())?);
        }
        tree.paths.insert(relative);
    }
    Ok(())
}

#[cfg(test)]
impl Tree {
    /// A tree of these files, and of the folders that they stand in.
    pub fn planted(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.texts.insert((*path).to_owned(), (*text).to_owned());
            tree.paths.insert((*path).to_owned());
            let folders = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
            tree.paths.extend(folders);
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::root;

    #[test]
    fn the_repository_is_read_without_what_was_built() {
        let tree = read(&root()).unwrap();
        assert!(tree.paths.contains("LICENSE") && tree.paths.contains("xtask/src"));
        assert!(tree.texts["xtask/src/fences/tree.rs"].starts_with("//! The files"));
        assert!(!tree.texts.contains_key("LICENSE"));
        assert!(!tree.paths.iter().any(|path| path.starts_with(".git/")));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let failure = read(&root().join("no-such-folder")).unwrap_err().to_string();
        assert!(failure.contains("no-such-folder"), "{failure}");
    }
}
