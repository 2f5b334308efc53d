//! A vault of files, for devices that have no keychain: headless Linux above all.
//!
//! One file for each label holds the vault key, readable by its owner alone.
//! Whoever reads the disk as that user, as root or outside the device has the key; this is why the level is [`ProtectionLevel::FileOnly`].
//! Keep the directory apart from the databases and out of backups: a backup of both holds the data in the clear.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::secret::{MAX_VAULT_KEY_TEXT_BYTES, VaultKey};
use super::{
    DataKey, KeyVault, ProtectionLevel, VaultError, VaultLabel, WrappedKey, durable, envelope,
};

/// Any access by group or others.
#[cfg(unix)]
const OTHERS_MODE: u32 = 0o077;

/// Keeps vault keys as files with mode 0600 in one directory.
#[derive(Clone, Debug)]
pub struct SealedFile {
    directory: PathBuf,
}

impl SealedFile {
    /// A vault in `directory`, which must exist when a key is first wrapped.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The file that holds the vault key of `label`.
    pub fn path_of(&self, label: &VaultLabel) -> PathBuf {
        self.directory.join(format!("{label}.vault-key"))
    }

    fn load(&self, label: &VaultLabel) -> Result<VaultKey, VaultError> {
        let path = self.path_of(label);
        let damaged = |detail| VaultError::Damaged { what: path.display().to_string(), detail };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.is_dir() => {
                return Err(VaultError::Missing { label: label.clone() });
            }
            Err(source) => return Err(VaultError::Io { path, source }),
        };
        refuse_open_to_others(&path, &file)?;
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_VAULT_KEY_TEXT_BYTES));
        match durable::read_within(&file, &mut text) {
            Ok(()) => VaultKey::from_text(&text).map_err(damaged),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(damaged("it is too long for a vault key"))
            }
            Err(source) => Err(VaultError::Io { path, source }),
        }
    }

    fn load_or_create(&self, label: &VaultLabel) -> Result<VaultKey, VaultError> {
        match self.load(label) {
            Err(VaultError::Missing { .. }) => {}
            loaded_or_failed => return loaded_or_failed,
        }
        let path = self.path_of(label);
        let key = VaultKey::generate()?;
        match durable::create(&path, key.to_text().as_bytes()) {
            Ok(()) => Ok(key),
            // Another process was first; its key is the one that counts.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.load(label),
            Err(source) => Err(VaultError::Io { path, source }),
        }
    }
}

impl KeyVault for SealedFile {
    fn wrap(&self, label: &VaultLabel, key: &DataKey) -> Result<WrappedKey, VaultError> {
        envelope::seal(label, &self.load_or_create(label)?, key)
    }

    fn unwrap(&self, label: &VaultLabel, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        envelope::open(label, &self.load(label)?, wrapped)
    }

    /// Overwrites the file before it removes it. On flash the old cells may survive until they are erased; nothing that a program does can help that.
    fn destroy(&self, label: &VaultLabel) -> Result<(), VaultError> {
        let path = self.path_of(label);
        match fs::OpenOptions::new().write(true).open(&path) {
            Ok(file) => overwrite(&file).map_err(VaultError::io(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(VaultError::Io { path, source }),
        }
        durable::remove(&path).map_err(VaultError::io(&path))
    }

    fn level(&self) -> ProtectionLevel {
        ProtectionLevel::FileOnly
    }
}

fn overwrite(mut file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
    file.sync_all()
}

#[cfg(unix)]
fn refuse_open_to_others(path: &std::path::Path, file: &File) -> Result<(), VaultError> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = file.metadata().map_err(VaultError::io(path))?.permissions().mode() & 0o777;
    if mode & OTHERS_MODE == 0 {
        Ok(())
    } else {
        Err(VaultError::TooOpen { path: path.to_owned(), mode })
    }
}

/// Windows files inherit the access list of the user's profile; there is no mode to look at.
#[cfg(not(unix))]
fn refuse_open_to_others(_: &std::path::Path, _: &File) -> Result<(), VaultError> {
    Ok(())
}
