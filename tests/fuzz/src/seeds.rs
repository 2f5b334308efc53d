//! What a run begins with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The root of the repository, from which all seeds are read.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate is two folders below the root").to_owned()
}

/// The seeds of a target: of the repository's samples, and what was found before.
///
/// # Errors
/// Those of the file system.
pub fn of(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let root = repository();
    let mut seeds = match target {
        "client_frame" => golden(&root, "client-")?,
        "server_frame" => golden(&root, "server-")?,
        "row" | "transaction" | "pushed" => {
            let frames = [golden(&root, "client-push")?, golden(&root, "server-page")?].concat();
            // The rows and transactions lie inside of frames: every tail of one begins with one of them somewhere.
            frames
                .iter()
                .flat_map(|frame| (0..frame.len()).map(|at| frame[at..].to_vec()))
                .collect()
        }
        "change_chunk" => files(&root.join("sync-core/tests/data/automerge-crashers"))?,
        "schema" => [
            files(&root.join("tests/schemas"))?,
            files(&root.join("examples/schemas"))?,
            files(&root.join("benches/schemas"))?,
        ]
        .concat(),
        _ => Vec::new(),
    };
    seeds.extend(files(&root.join("fuzz/corpus").join(target))?);
    seeds.push(Vec::new());
    Ok(seeds)
}

fn golden(root: &Path, prefix: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for path in paths(&root.join("sync-core/tests/golden"))? {
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(prefix))
        {
            found.push(unhex(&fs::read_to_string(path)?));
        }
    }
    Ok(found)
}

/// The bytes of a file of hexadecimal digits, whatever stands between them.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    digits.chunks_exact(2).map(|two| (two[0] << 4) | two[1]).collect()
}

/// The files of a folder and of the folders in it; none where it is not there.
fn files(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for path in paths(folder)? {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(fs::read(path)?);
        }
    }
    Ok(found)
}

fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
