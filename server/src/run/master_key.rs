//! Where the master key comes from: the file that the configuration names, the variable `FARSHORE_MASTER_KEY`, or
//! `master.key` in the data directory, in this order. It is written as 64 hexadecimal digits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use farshore_store::sealing::{MasterKey, SealError};
use zeroize::Zeroizing;

use super::data_dir::DataDir;
use crate::config::StoreConfig;
use crate::config::environment::{MASTER_KEY_VARIABLE, value};
use crate::whole_file;

/// The file's name in the data directory.
pub const MASTER_KEY_FILE: &str = "master.key";

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// None is given anywhere.
    #[error(
        "there is no master key: name a file in store.master_key_file, or set {MASTER_KEY_VARIABLE}; \
         `openssl rand -hex 32` makes one"
    )]
    Missing,
    /// The file cannot be read or written.
    #[error("master key: {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not 64 hexadecimal digits.
    #[error("master key: {origin}: expected 64 hexadecimal digits")]
    Malformed {
        /// The file or the variable.
        origin: String,
    },
    /// A new one could not be made.
    #[error("master key: {0}")]
    Generate(#[from] SealError),
}

/// The master key.
///
/// # Errors
/// See [`MasterKeyError`].
pub fn find(
    store: &StoreConfig,
    environment: &[(String, String)],
) -> Result<MasterKey, MasterKeyError> {
    if let Some(path) = &store.master_key_file {
        return read(path);
    }
    if let Some(text) = value(environment, MASTER_KEY_VARIABLE) {
        return parse(text)
            .ok_or_else(|| MasterKeyError::Malformed { origin: MASTER_KEY_VARIABLE.to_owned() });
    }
    let beside = store.data_dir.join(MASTER_KEY_FILE);
    match read(&beside) {
        Err(MasterKeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(MasterKeyError::Missing)
        }
        found => found,
    }
}

/// The master key; where none is given anywhere, a new one, kept beside the data, which is locked so that two
/// servers do not make two. It protects nothing there: for
/// `farshore dev`.
///
/// # Errors
/// See [`MasterKeyError`].
pub fn find_or_create(
    data_dir: &DataDir,
    store: &StoreConfig,
    environment: &[(String, String)],
) -> Result<MasterKey, MasterKeyError> {
    match find(store, environment) {
        Err(MasterKeyError::Missing) => {
            let key = MasterKey::generate()?;
            let path = data_dir.path().join(MASTER_KEY_FILE);
            let text = Zeroizing::new(HEXLOWER.encode(key.as_bytes()));
            whole_file::write(&path, text.as_bytes())
                .map_err(|source| MasterKeyError::File { path, source })?;
            Ok(key)
        }
        found => found,
    }
}

/// Whether the key lies beside the data that it seals.
#[must_use]
pub fn is_beside_data(store: &StoreConfig, environment: &[(String, String)]) -> bool {
    store.master_key_file.is_none() && value(environment, MASTER_KEY_VARIABLE).is_none()
}

fn read(path: &Path) -> Result<MasterKey, MasterKeyError> {
    let text = fs::read_to_string(path)
        .map_err(|source| MasterKeyError::File { path: path.to_owned(), source })?;
    parse(&Zeroizing::new(text))
        .ok_or_else(|| MasterKeyError::Malformed { origin: path.display().to_string() })
}

fn parse(text: &str) -> Option<MasterKey> {
    let bytes = Zeroizing::new(HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?);
    MasterKey::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};

    fn store(data_dir: &Path) -> StoreConfig {
        let mut store = Config::from_settings(&Settings::defaults()).unwrap().store;
        store.data_dir = data_dir.to_owned();
        store
    }

    #[test]
    fn the_named_file_comes_before_the_variable_and_that_before_the_file_beside_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(&dir.path().join("data"));
        assert!(matches!(find(&store, &[]).unwrap_err(), MasterKeyError::Missing));
        let data_dir = DataDir::lock(&store.data_dir).unwrap();
        let made = find_or_create(&data_dir, &store, &[]).unwrap();
        assert_eq!(find(&store, &[]).unwrap().as_bytes(), made.as_bytes());
        assert_eq!(find_or_create(&data_dir, &store, &[]).unwrap().as_bytes(), made.as_bytes());

        let variable = [(MASTER_KEY_VARIABLE.to_owned(), "ab".repeat(32))];
        assert_eq!(find(&store, &variable).unwrap().as_bytes(), &[0xab; 32]);

        let file = dir.path().join("master");
        fs::write(&file, format!("{}\n", "CD".repeat(32))).unwrap();
        store.master_key_file = Some(file);
        assert_eq!(find(&store, &variable).unwrap().as_bytes(), &[0xcd; 32]);
    }

    #[test]
    fn what_is_no_key_is_named_but_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path());
        let variable = [(MASTER_KEY_VARIABLE.to_owned(), "abc".to_owned())];
        let error = find(&store, &variable).unwrap_err().to_string();
        assert_eq!(error, "master key: FARSHORE_MASTER_KEY: expected 64 hexadecimal digits");
        store.master_key_file = Some(dir.path().join("nowhere"));
        let error = find(&store, &variable).unwrap_err().to_string();
        assert!(error.contains("nowhere: No such file"), "{error}");
    }
}
