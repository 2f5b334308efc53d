//! What `init` wrote into a replica's directory, so that the other commands need no more than the directory.
//!
//! Nothing here is secret but the token, which has a file of its own that only its owner can read.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::arguments::Vault;
use crate::failure::Failure;

/// Longest settings or schema file, in bytes.
const MAX_FILE_BYTES: u64 = 2 << 20;

/// The settings of one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// The schema file in the replica's directory.
    pub(crate) schema: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    #[serde(default)]
    pub(crate) vault: Vault,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vault_dir: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_certificate: Option<PathBuf>,
}

/// What the files of a replica are called, for one user of the directory or for the only one.
pub(crate) fn file_in(dir: &Path, user: Option<&str>, ending: &str) -> PathBuf {
    dir.join(match user {
        Some(user) => format!("cli.{user}.{ending}"),
        None => format!("cli.{ending}"),
    })
}

impl Settings {
    /// The settings of a replica; `None` where there is none.
    pub(crate) fn load(dir: &Path, user: Option<&str>) -> Result<Option<Self>, Failure> {
        let path = file_in(dir, user, "json");
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| Failure::file(&path, &error))
    }

    /// Writes them down.
    pub(crate) fn save(&self, dir: &Path, user: Option<&str>) -> Result<(), Failure> {
        let path = file_in(dir, user, "json");
        let json =
            serde_json::to_string_pretty(self).map_err(|error| Failure::file(&path, &error))?;
        write_private(&path, &format!("{json}\n"))
    }
}

/// Writes a file for its owner alone, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::file(path, &error);
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The text of a file that must be there.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    read_if_there(path)?.ok_or_else(|| Failure::file(path, &"there is no such file"))
}

fn read_if_there(path: &Path) -> Result<Option<String>, Failure> {
    let failed = |error: io::Error| Failure::file(path, &error);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            return Err(Failure::file(path, &format!("it is longer than {MAX_FILE_BYTES} bytes")));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_for_each_user() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Settings::load(dir.path(), None).unwrap(), None);
        let of = |server: &str| Settings { server: Some(server.to_owned()), ..Settings::default() };
        of("http://a").save(dir.path(), None).unwrap();
        of("http://b").save(dir.path(), Some("alice")).unwrap();
        assert_eq!(Settings::load(dir.path(), None).unwrap(), Some(of("http://a")));
        assert_eq!(Settings::load(dir.path(), Some("alice")).unwrap(), Some(of("http://b")));
    }

    #[test]
    fn damaged_settings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cli.json"), "{").unwrap();
        let failure = Settings::load(dir.path(), None).unwrap_err();
        assert!(failure.message.contains("cli.json"), "{failure}");
    }
}
