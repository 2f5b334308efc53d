//! Each way in which opening can fail, on real files, and that the files stay as they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::vault::{MemoryVault, ProtectionLevel, SealedFile, VaultError, WrappedKey, reexec};

#[cfg(target_os = "linux")]
mod file_system;
#[cfg(target_os = "linux")]
mod locks;
#[cfg(target_os = "linux")]
mod memory;

const CANARY: &str = "farshore-canary-in-plain-text";
const ROWS: u32 = 200;

/// A directory with one store in it and the vault that opens it.
struct Place {
    directory: TempDir,
    vault: MemoryVault,
}

impl Place {
    fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), vault: MemoryVault::new() }
    }

    /// A store with some hundred kilobytes of rows, closed.
    fn with_store() -> Self {
        let place = Self::empty();
        place.create().unwrap();
        let connection = place.open().unwrap();
        write_rows(&connection).unwrap();
        connection.close().unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    fn key_path(&self) -> PathBuf {
        key_file_path(&self.path())
    }

    fn create(&self) -> Result<StoreKey, OpenError> {
        create(&self.path(), &self.vault, &label(), store_id())
    }

    fn unlock(&self) -> Result<StoreKey, OpenError> {
        unlock(&self.path(), &self.vault, &label())
    }

    fn open(&self) -> Result<Connection, OpenError> {
        open(&self.path(), &self.unlock()?, OpenMode::ReadWrite)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path()).unwrap();
        change(&mut bytes);
        fs::write(self.path(), bytes).unwrap();
    }

    /// Every file but the log's index, which is no data, and an empty log: any reader may make them anew.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.to_str().unwrap().ends_with("-shm"))
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .filter(|(path, bytes)| !(path.to_str().unwrap().ends_with("-wal") && bytes.is_empty()))
            .collect()
    }

    /// Opens in every way; all fail alike and leave the files alone.
    fn check_refused(&self, theme: &str, expected: fn(&OpenError) -> bool) {
        let before = self.files();
        for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
            let opened = self.unlock().and_then(|key| open(&self.path(), &key, mode));
            let error = opened.map(drop).expect_err(theme);
            assert!(expected(&error), "{theme}: {error:?}");
            assert!(
                error.to_string().starts_with(self.directory.path().to_str().unwrap()),
                "{error}"
            );
        }
        assert!(self.create().is_err(), "{theme}: a failed open never leads to a new store");
        assert!(self.files() == before, "{theme}: the files have changed");
    }
}

fn label() -> VaultLabel {
    VaultLabel::new("demo.tests").unwrap()
}

fn store_id() -> Uuid {
    Uuid::from_u128(0x0190_c8a2)
}

fn write_rows(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction
        .execute_batch("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, body TEXT)")?;
    for _ in 0..ROWS {
        transaction.execute("INSERT INTO notes (body) VALUES (?1)", [CANARY.repeat(40)])?;
    }
    transaction.commit()
}

fn count_rows(connection: &Connection) -> u32 {
    connection.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap()
}

/// What a crash leaves: the files of `place` as they are while a connection is open on them.
fn crash_image(place: &Place) -> Place {
    let copy = Place { directory: tempfile::tempdir().unwrap(), vault: MemoryVault::new() };
    for (path, bytes) in place.files() {
        fs::write(copy.directory.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    copy
}

#[test]
fn a_store_keeps_its_rows_and_its_settings() {
    let place = Place::with_store();
    let key = place.unlock().unwrap();
    assert_eq!(key.store_id(), store_id());
    verify(&place.path(), &key).unwrap();

    let writer = place.open().unwrap();
    let reader = open(&place.path(), &key, OpenMode::ReadOnly).unwrap();
    assert_eq!((count_rows(&writer), count_rows(&reader)), (ROWS, ROWS));
    assert!(reader.execute("DELETE FROM notes", []).is_err());
    for (pragma, expected) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("temp_store", "2"),
        ("foreign_keys", "1"),
        ("trusted_schema", "0"),
        ("cipher_page_size", "4096"),
        ("cipher_log_level", "NONE"),
        ("user_version", "1"),
    ] {
        let value: rusqlite::types::Value =
            writer.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap();
        let value = match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        assert_eq!(value, expected, "{pragma}");
    }
    assert!(writer.prepare("SELECT \"no such column\"").is_err(), "double quotes are for names");
    drop((reader, writer));
    assert_eq!(place.files().len(), 2, "a normal close leaves the database and its key file");
    assert!(matches!(place.create(), Err(OpenError::AlreadyExists { .. })));
    assert!(!format!("{key:?}").contains(&HEXLOWER.encode(key.data_key.as_bytes())));
}

#[test]
fn nothing_is_stored_in_the_clear() {
    let place = Place::with_store();
    let connection = place.open().unwrap();
    write_rows(&connection).unwrap();
    let files = place.files();
    assert!(files.keys().any(|path| path.ends_with("store.db-wal")));
    let key = place.unlock().unwrap();
    let secrets = [
        CANARY.as_bytes(),
        b"CREATE TABLE",
        b"SQLite format 3",
        key.data_key.as_bytes(),
        HEXLOWER.encode(key.data_key.as_bytes()).as_bytes(),
    ]
    .map(<[u8]>::to_vec);
    for (path, bytes) in files {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds {:?}", path.display(), String::from_utf8_lossy(secret));
        }
    }
}

#[cfg(unix)]
#[test]
fn all_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::with_store();
    let connection = place.open().unwrap();
    write_rows(&connection).unwrap();
    let modes: Vec<(String, u32)> = fs::read_dir(place.directory.path())
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    assert_eq!(modes.len(), 4);
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[test]
fn damage_at_the_start_is_found_on_opening() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 10] = [
        ("salt", |bytes| bytes[3] ^= 1),
        ("first page, header", |bytes| bytes[20] ^= 1),
        ("first page, content", |bytes| bytes[2000] ^= 1),
        ("first page, authentication code", |bytes| bytes[4095] ^= 1),
        ("first page zeroed", |bytes| bytes[..4096].fill(0)),
        ("cut to nothing", Vec::clear),
        ("cut within the salt", |bytes| bytes.truncate(10)),
        ("cut within the first page", |bytes| bytes.truncate(4095)),
        ("cut after the first page", |bytes| bytes.truncate(4096)),
        ("cut in the middle", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    for (theme, damage) in damages {
        let place = Place::with_store();
        place.change(damage);
        place.check_refused(theme, |error| matches!(error, OpenError::Damaged { .. }));
    }
}

#[test]
fn damage_in_the_middle_is_found_on_reading_and_by_verify() {
    let place = Place::with_store();
    place.change(|bytes| {
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle + 99] ^= 1;
    });
    let before = place.files();
    let key = place.unlock().unwrap();
    let error = verify(&place.path(), &key).unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged { detail, .. } if detail.contains("HMAC verification failed for page")),
        "{error:?}"
    );

    let connection = open(&place.path(), &key, OpenMode::ReadOnly).unwrap();
    let read: rusqlite::Result<u32> =
        connection.query_row("SELECT sum(length(body)) FROM notes", [], |row| row.get(0));
    let error = OpenError::from_sqlite(&place.path(), read.unwrap_err());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    drop(connection);
    assert!(place.files() == before);
}

#[test]
fn damage_leaves_the_log_of_an_unfinished_session_alone() {
    let place = Place::with_store();
    let connection = place.open().unwrap();
    write_rows(&connection).unwrap();
    let mut image = crash_image(&place);
    drop(connection);
    image.vault = place.vault;
    assert_eq!(count_rows(&image.open().unwrap()), 2 * ROWS, "the image itself is sound");

    let place = Place { directory: image.directory, vault: image.vault };
    let connection = place.open().unwrap();
    write_rows(&connection).unwrap();
    let mut image = crash_image(&place);
    drop(connection);
    image.vault = place.vault;
    image.change(|bytes| bytes[3] ^= 1);
    assert_eq!(image.files().len(), 3);
    image.check_refused("damage beside a log", |error| matches!(error, OpenError::Damaged { .. }));
}

#[test]
fn a_wrong_key_is_told_from_damage() {
    let is_wrong_key = |error: &OpenError| matches!(error, OpenError::WrongKey { .. });

    let (place, other) = (Place::with_store(), Place::with_store());
    fs::copy(other.key_path(), place.key_path()).unwrap();
    place.check_refused("another vault's key file", is_wrong_key);
    let place = Place { directory: place.directory, vault: other.vault };
    place.check_refused("another store's key file and its vault", is_wrong_key);

    let place = Place::with_store();
    place.vault.destroy(&label()).unwrap();
    place.vault.wrap(&label(), &DataKey::generate().unwrap()).unwrap();
    place.check_refused("a vault that was set up again", is_wrong_key);

    let (place, other) = (Place::with_store(), Place::with_store());
    let before = place.files();
    let error = open(&place.path(), &other.unlock().unwrap(), OpenMode::ReadWrite).unwrap_err();
    assert!(is_wrong_key(&error), "{error:?}");
    let elsewhere = VaultLabel::new("demo.another").unwrap();
    let error = unlock(&place.path(), &place.vault, &elsewhere).unwrap_err();
    assert!(is_wrong_key(&error), "{error:?}");
    assert!(place.files() == before);
}

/// A vault of the platform that does not authenticate what it unwraps.
struct ForgetfulHardware;

impl KeyVault for ForgetfulHardware {
    fn wrap(&self, _: &VaultLabel, key: &DataKey) -> Result<WrappedKey, VaultError> {
        Ok(WrappedKey::from_bytes(key.as_bytes().to_vec()).unwrap())
    }

    fn unwrap(&self, _: &VaultLabel, _: &WrappedKey) -> Result<DataKey, VaultError> {
        DataKey::generate()
    }

    fn destroy(&self, _: &VaultLabel) -> Result<(), VaultError> {
        Ok(())
    }

    fn level(&self) -> ProtectionLevel {
        ProtectionLevel::Hardware
    }
}

#[test]
fn the_key_check_catches_a_vault_that_unwraps_another_key() {
    let place = Place::empty();
    let error = create(&place.path(), &ForgetfulHardware, &label(), store_id()).unwrap_err();
    assert!(matches!(error, OpenError::WrongKey { .. }), "{error:?}");
    assert!(!place.path().exists(), "no database is made with a key that does not come back");
}

#[test]
fn a_lost_key_is_told_from_a_wrong_one() {
    let is_lost = |error: &OpenError| matches!(error, OpenError::LostKey { .. });

    let place = Place::with_store();
    place.vault.destroy(&label()).unwrap();
    place.check_refused("the vault has lost its key", is_lost);

    let place = Place::with_store();
    fs::remove_file(place.key_path()).unwrap();
    place.check_refused("the key file is gone", is_lost);
}

#[test]
fn a_vault_that_cannot_answer_is_no_lost_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let vault_directory = directory.path().join("vault");
    fs::create_dir(&vault_directory).unwrap();
    let vault = SealedFile::new(&vault_directory);
    drop(create(&path, &vault, &label(), store_id()).unwrap());
    fs::rename(&vault_directory, directory.path().join("away")).unwrap();
    let error = unlock(&path, &vault, &label()).unwrap_err();
    assert!(matches!(error, OpenError::Vault(VaultError::Io { .. })), "{error:?}");
}

#[test]
fn a_plain_database_is_recognised_and_never_encrypted_in_place() {
    let is_plain = |error: &OpenError| matches!(error, OpenError::PlainFile { .. });
    let write_plain = |place: &Place| {
        let plain = Connection::open(place.path()).unwrap();
        write_rows(&plain).unwrap();
        plain.close().unwrap();
    };

    let place = Place::empty();
    write_plain(&place);
    place.check_refused("a plain file without key file", is_plain);

    let place = Place::with_store();
    fs::remove_file(place.path()).unwrap();
    write_plain(&place);
    place.check_refused("a plain file in the store's place", is_plain);
}

#[test]
fn a_newer_format_is_refused_with_both_numbers() {
    let is_newer =
        |error: &OpenError| matches!(error, OpenError::NewerSchema { found: 2, supported: 1, .. });

    let place = Place::with_store();
    place.open().unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    place.check_refused("a newer database", is_newer);

    // The newer number may be in the log alone, when the newer app was killed.
    let place = Place::with_store();
    let connection = place.open().unwrap();
    connection.execute_batch("PRAGMA user_version = 2").unwrap();
    let mut image = crash_image(&place);
    drop(connection);
    image.vault = place.vault;
    image.check_refused("a newer database after a crash", is_newer);

    let place = Place::with_store();
    let text = fs::read_to_string(place.key_path()).unwrap();
    let newer = text.replace("\"format\": 1", "\"format\": 2, \"and\": \"more\"");
    assert_ne!(newer, text);
    fs::write(place.key_path(), newer).unwrap();
    place.check_refused("a newer key file", is_newer);
}

#[test]
fn a_foreign_database_under_our_key_is_refused() {
    let place = Place::with_store();
    place.open().unwrap().execute_batch("PRAGMA application_id = 7").unwrap();
    place
        .check_refused("another application's", |error| matches!(error, OpenError::Damaged { .. }));
}

#[test]
fn a_missing_database_is_not_made_anew() {
    let place = Place::with_store();
    fs::remove_file(place.path()).unwrap();
    place.check_refused("a missing database", |error| matches!(error, OpenError::Missing { .. }));
}

#[test]
fn every_damaged_byte_of_the_key_file_is_noticed() {
    let place = Place::with_store();
    let good = fs::read(place.key_path()).unwrap();
    let refused = |bytes: &[u8], theme: &str| {
        fs::write(place.key_path(), bytes).unwrap();
        let error = place.unlock().map(drop).expect_err(theme);
        let named = matches!(error, OpenError::Damaged { .. } | OpenError::NewerSchema { .. });
        assert!(named, "{theme}: {error:?}");
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&bytes, &format!("byte {at}"));
    }
    for length in 0..good.len() - 1 {
        refused(&good[..length], &format!("cut at {length}"));
    }
    refused(&[b' '; 5000], "too long");
    fs::write(place.key_path(), good).unwrap();
    place.open().unwrap();
}

#[test]
fn creation_goes_on_after_a_crash_at_any_step() {
    let unfinished = || {
        let place = Place::empty();
        KeyFile::create(&place.path(), &place.vault, &label(), store_id()).unwrap();
        place
    };
    type Step = fn(&Place);
    let steps: [(&str, Step); 3] = [
        ("before the database", |_| ()),
        ("with an empty file", |place| create_private(&place.path()).unwrap()),
        ("before the key file says so", |place| {
            let file = KeyFile::read(&place.path()).unwrap().unwrap();
            let key = file.unlock(&place.path(), &place.vault, &label()).unwrap();
            create_private(&place.path()).unwrap();
            let connection = connect(&place.path(), &key.data_key, OpenMode::ReadWrite).unwrap();
            write_empty_database(connection, &key.salt).unwrap();
        }),
    ];
    for (theme, step) in steps {
        let place = unfinished();
        step(&place);
        assert!(matches!(place.unlock(), Err(OpenError::NotCreated { .. })), "{theme}");
        let created = create(&place.path(), &place.vault, &label(), Uuid::nil()).unwrap();
        assert_eq!(created.store_id(), store_id(), "{theme}: the first identity stays");
        write_rows(&place.open().unwrap()).unwrap();
    }
}

#[test]
fn nothing_there_is_said_so() {
    let place = Place::empty();
    assert!(matches!(place.unlock(), Err(OpenError::NotCreated { .. })));

    let absent = place.directory.path().join("absent").join("store.db");
    for error in [
        unlock(&absent, &place.vault, &label()).unwrap_err(),
        create(&absent, &place.vault, &label(), store_id()).unwrap_err(),
    ] {
        assert!(
            matches!(&error, OpenError::Io { path, source }
                if path.ends_with("absent") && source.kind() == io::ErrorKind::NotFound),
            "{error:?}"
        );
    }
}

#[test]
fn a_database_that_another_holds_is_named() {
    let place = Place::with_store();
    let (holder, second) = (place.open().unwrap(), place.open().unwrap());
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    second.busy_timeout(Duration::ZERO).unwrap();
    let error = second.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    let error = OpenError::from_sqlite(&place.path(), error);
    assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
}

#[test]
fn sqlcipher_does_not_write_to_the_apps_standard_error() {
    if reexec::inside().is_some() {
        let place = Place::with_store();
        place.change(|bytes| bytes[2000] ^= 1);
        place.unlock().and_then(|key| open(&place.path(), &key, OpenMode::ReadWrite)).unwrap_err();
        return;
    }
    let output = reexec::run_passing(
        "encrypted_file::tests::sqlcipher_does_not_write_to_the_apps_standard_error",
        &["env"],
        "1",
        &[],
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
