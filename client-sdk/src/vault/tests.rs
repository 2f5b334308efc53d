//! Every vault behaves alike; what only one of them can get wrong is checked by itself.

use std::fs;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use keyring_core::mock;

use super::secret::VaultKey;
use super::*;

fn label(text: &str) -> VaultLabel {
    VaultLabel::new(text).unwrap()
}

fn mock_keychain() -> (OsKeychain, Arc<mock::Store>) {
    let store = mock::Store::new().unwrap();
    (OsKeychain::with_store(store.clone(), "farshore-tests"), store)
}

/// What holds for every vault. `vault` must be empty.
fn check_vault(vault: &dyn KeyVault) {
    let (mine, other) = (label("demo.mine"), label("demo.other"));
    let (first, second) = (DataKey::generate().unwrap(), DataKey::generate().unwrap());

    let wrapped_first = vault.wrap(&mine, &first).unwrap();
    let wrapped_second = vault.wrap(&mine, &second).unwrap();
    assert_eq!(vault.unwrap(&mine, &wrapped_first).unwrap().as_bytes(), first.as_bytes());
    assert_eq!(vault.unwrap(&mine, &wrapped_second).unwrap().as_bytes(), second.as_bytes());
    assert_ne!(wrapped_first, vault.wrap(&mine, &first).unwrap(), "each envelope has a new nonce");

    assert!(matches!(vault.unwrap(&other, &wrapped_first), Err(VaultError::Missing { .. })));
    vault.wrap(&other, &second).unwrap();
    assert!(matches!(vault.unwrap(&other, &wrapped_first), Err(VaultError::WrongKey { .. })));

    vault.destroy(&mine).unwrap();
    vault.destroy(&mine).unwrap();
    assert!(matches!(vault.unwrap(&mine, &wrapped_first), Err(VaultError::Missing { .. })));
    vault.wrap(&mine, &first).unwrap();
    assert!(
        matches!(vault.unwrap(&mine, &wrapped_first), Err(VaultError::WrongKey { .. })),
        "a key made anew does not open what the destroyed one sealed"
    );
    vault.destroy(&mine).unwrap();
    vault.destroy(&other).unwrap();
}

#[test]
fn the_memory_vault_behaves() {
    check_vault(&MemoryVault::new());
    assert_eq!(MemoryVault::new().level().as_str(), "memory");
}

#[test]
fn the_sealed_file_behaves() {
    let directory = tempfile::tempdir().unwrap();
    let vault = SealedFile::new(directory.path());
    check_vault(&vault);
    assert_eq!(vault.level().as_str(), "file_only");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn the_keychain_behaves() {
    let (vault, _) = mock_keychain();
    check_vault(&vault);
    assert_eq!(
        vault.level(),
        ProtectionLevel::Memory,
        "this store forgets, and is not called a keychain"
    );
}

#[test]
fn every_flipped_byte_of_an_envelope_is_noticed() {
    let (vault, mine) = (MemoryVault::new(), label("demo.mine"));
    let wrapped = vault.wrap(&mine, &DataKey::generate().unwrap()).unwrap();
    for at in 0..wrapped.as_bytes().len() {
        let mut bytes = wrapped.as_bytes().to_vec();
        bytes[at] ^= 1;
        let error = vault.unwrap(&mine, &WrappedKey::from_bytes(bytes).unwrap()).unwrap_err();
        let names_other_key = (1..9).contains(&at);
        assert_eq!(
            matches!(error, VaultError::WrongKey { .. }),
            names_other_key,
            "byte {at}: {error}"
        );
        assert_eq!(
            matches!(error, VaultError::Damaged { .. }),
            !names_other_key,
            "byte {at}: {error}"
        );
    }
    for length in 1..wrapped.as_bytes().len() {
        let cut = WrappedKey::from_bytes(wrapped.as_bytes()[..length].to_vec()).unwrap();
        assert!(matches!(vault.unwrap(&mine, &cut), Err(VaultError::Damaged { .. })));
    }
    assert!(WrappedKey::from_bytes(Vec::new()).is_none());
    assert!(WrappedKey::from_bytes(vec![0; MAX_WRAPPED_KEY_BYTES + 1]).is_none());
}

#[test]
fn an_envelope_opens_under_its_own_label_only() {
    let (vault_key, key) = (VaultKey::generate().unwrap(), DataKey::generate().unwrap());
    let wrapped = envelope::seal(&label("demo.mine"), &vault_key, &key).unwrap();
    let opened = envelope::open(&label("demo.mine"), &vault_key, &wrapped).unwrap();
    assert_eq!(opened.as_bytes(), key.as_bytes());
    let moved = envelope::open(&label("demo.other"), &vault_key, &wrapped);
    assert!(matches!(moved, Err(VaultError::Damaged { .. })));
}

#[test]
fn every_flipped_byte_of_a_written_vault_key_is_noticed() {
    let key = VaultKey::generate().unwrap();
    let text = key.to_text();
    assert_eq!(VaultKey::from_text(text.as_bytes()).unwrap().as_bytes(), key.as_bytes());
    assert_eq!(
        VaultKey::from_text(format!("{}\r\n", *text).as_bytes()).unwrap().as_bytes(),
        key.as_bytes(),
        "an editor may add a line end"
    );
    for at in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1;
        assert!(VaultKey::from_text(&bytes).is_err(), "byte {at}");
        assert!(VaultKey::from_text(&text.as_bytes()[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn labels_are_safe_as_file_names() {
    for good in ["a", "demo.0190c8a2-7b1e", "a_b", &"x".repeat(MAX_LABEL_BYTES)] {
        assert_eq!(label(good).as_str(), good);
    }
    for bad in [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "A",
        "a b",
        "-a",
        "é",
        "a\0",
        &"x".repeat(MAX_LABEL_BYTES + 1),
    ] {
        assert!(VaultLabel::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let key = DataKey::generate().unwrap();
    assert_eq!(format!("{key:?}"), "DataKey(..)");

    let (vault, store) = mock_keychain();
    let wrapped = vault.wrap(&label("demo.mine"), &key).unwrap();
    assert_eq!(format!("{wrapped:?}"), "WrappedKey(69 bytes)");
    let returned = b"farshore-vault-key:1:0011".to_vec();
    fail_next(&store, keyring_core::Error::BadEncoding(returned.clone()));
    let error = vault.unwrap(&label("demo.mine"), &wrapped).unwrap_err();
    assert!(matches!(error, VaultError::Damaged { .. }));
    assert!(!format!("{error:?}").contains(&format!("{returned:?}")));
    assert!(!format!("{vault:?}").contains(&HEXLOWER.encode(key.as_bytes())));
}

fn fail_next(store: &mock::Store, error: keyring_core::Error) {
    store.inner.lock().unwrap().borrow()[0].set_error(error);
}

#[test]
fn no_entry_and_locked_and_no_service_are_different() {
    let (vault, store) = mock_keychain();
    let mine = label("demo.mine");
    let wrapped = vault.wrap(&mine, &DataKey::generate().unwrap()).unwrap();
    let unwrap_failing = |error| {
        fail_next(&store, error);
        vault.unwrap(&mine, &wrapped).unwrap_err()
    };
    assert!(matches!(
        unwrap_failing(keyring_core::Error::NoStorageAccess("the user said no".into())),
        VaultError::Locked { source, .. } if source.to_string() == "the user said no"
    ));
    assert!(matches!(
        unwrap_failing(keyring_core::Error::PlatformFailure("no such service".into())),
        VaultError::Unavailable { source } if source.to_string() == "no such service"
    ));
    assert!(matches!(unwrap_failing(keyring_core::Error::NoEntry), VaultError::Missing { .. }));
    assert!(vault.unwrap(&mine, &wrapped).is_ok(), "none of these errors has changed the entry");
}

#[test]
fn a_locked_keychain_gets_no_new_key() {
    let (vault, store) = mock_keychain();
    let mine = label("demo.mine");
    let wrapped = vault.wrap(&mine, &DataKey::generate().unwrap()).unwrap();
    fail_next(&store, keyring_core::Error::NoStorageAccess("locked".into()));
    let refused = vault.wrap(&mine, &DataKey::generate().unwrap());
    assert!(matches!(refused, Err(VaultError::Locked { .. })));
    assert!(vault.unwrap(&mine, &wrapped).is_ok(), "the old key is still there");
}

#[test]
fn a_foreign_entry_in_the_keychain_is_not_taken_for_a_key() {
    let (vault, store) = mock_keychain();
    let mine = label("demo.mine");
    let wrapped = vault.wrap(&mine, &DataKey::generate().unwrap()).unwrap();
    let store: Arc<keyring_core::CredentialStore> = store;
    store.build("farshore-tests", "demo.mine", None).unwrap().set_password("hunter2").unwrap();
    assert!(matches!(vault.unwrap(&mine, &wrapped), Err(VaultError::Damaged { .. })));
    let refused = vault.wrap(&mine, &DataKey::generate().unwrap());
    assert!(matches!(refused, Err(VaultError::Damaged { .. })), "it is not overwritten either");
}

#[cfg(unix)]
#[test]
fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let (vault, mine) = (SealedFile::new(directory.path()), label("demo.mine"));
    let wrapped = vault.wrap(&mine, &DataKey::generate().unwrap()).unwrap();
    let path = vault.path_of(&mine);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    for mode in [0o640, 0o604, 0o660, 0o610] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = vault.unwrap(&mine, &wrapped).unwrap_err();
        assert!(matches!(error, VaultError::TooOpen { mode: found, .. } if found == mode));
        assert!(error.to_string().ends_with(&format!("chmod 600 {}", path.display())), "{error}");
        assert!(vault.wrap(&mine, &DataKey::generate().unwrap()).is_err());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(vault.unwrap(&mine, &wrapped).is_ok());
}

#[test]
fn a_damaged_vault_file_is_named_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (vault, mine) = (SealedFile::new(directory.path()), label("demo.mine"));
    let wrapped = vault.wrap(&mine, &DataKey::generate().unwrap()).unwrap();
    let path = vault.path_of(&mine);
    let good = fs::read(&path).unwrap();
    for bad in
        [Vec::new(), good[..40].to_vec(), [&good[..], b"and more"].concat(), vec![b'x'; 5000]]
    {
        fs::write(&path, &bad).unwrap();
        for error in [
            vault.unwrap(&mine, &wrapped).map(drop).unwrap_err(),
            vault.wrap(&mine, &DataKey::generate().unwrap()).map(drop).unwrap_err(),
        ] {
            assert!(
                matches!(&error, VaultError::Damaged { what, .. } if *what == path.display().to_string()),
                "{error}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
}

#[test]
fn a_missing_directory_is_not_a_missing_key() {
    let directory = tempfile::tempdir().unwrap();
    let vault = SealedFile::new(directory.path().join("absent"));
    let wrapped = MemoryVault::new().wrap(&label("a"), &DataKey::generate().unwrap()).unwrap();
    let error = vault.unwrap(&label("a"), &wrapped).unwrap_err();
    assert!(
        matches!(&error, VaultError::Io { path, .. } if path.ends_with("absent/a.vault-key")),
        "{error}"
    );
}

#[test]
fn writers_that_race_for_a_new_label_agree_on_one_key() {
    const WRITERS: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    let mine = label("demo.mine");
    let wrapped: Vec<WrappedKey> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    SealedFile::new(directory.path()).wrap(&mine, &DataKey::generate().unwrap())
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap().unwrap()).collect()
    });
    for wrapped in &wrapped {
        SealedFile::new(directory.path()).unwrap(&mine, wrapped).unwrap();
    }
}

/// The platform's own keychain, in processes that see one, see none, and see a locked one.
#[cfg(all(feature = "os-keychain", target_os = "linux"))]
mod secret_service {
    use std::time::{Duration, Instant};

    use super::*;

    /// Runs the arguments beside a keyring daemon, whose options are in `$DAEMON`, and ends it with them.
    const BESIDE_DAEMON: &str = r#"
        export XDG_DATA_HOME="$HOME" XDG_RUNTIME_DIR="$HOME"
        printf secret | gnome-keyring-daemon --foreground --components=secrets $DAEMON >/dev/null 2>&1 &
        daemon=$!
        "$@"
        code=$?
        kill "$daemon"; wait "$daemon"
        exit "$code"
    "#;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// The daemon takes a moment to appear on the bus.
    #[expect(clippy::disallowed_methods, reason = "the deadline of a test")]
    fn native() -> OsKeychain {
        let start = Instant::now();
        loop {
            match OsKeychain::native("farshore-tests") {
                Ok(vault) => return vault,
                Err(error) if start.elapsed() > DEADLINE => panic!("{error:?}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn keeps_keys_until_it_is_locked() {
        const NAME: &str = "vault::tests::secret_service::keeps_keys_until_it_is_locked";
        let mine = label("demo.mine");
        if let Some(story) = reexec::inside() {
            let (vault, key) = (native(), DataKey::generate().unwrap());
            let wrapped = std::env::home_dir().unwrap().join("wrapped");
            if story == "unlocked" {
                assert_eq!(vault.level(), ProtectionLevel::OsKeychain);
                check_vault(&vault);
                fs::write(wrapped, vault.wrap(&mine, &key).unwrap().as_bytes()).unwrap();
            } else {
                let wrapped = WrappedKey::from_bytes(fs::read(wrapped).unwrap()).unwrap();
                let error = vault.unwrap(&mine, &wrapped).unwrap_err();
                assert!(matches!(error, VaultError::Locked { .. }), "{error:?}");
            }
            return;
        }
        if !reexec::works(&["gnome-keyring-daemon", "--version"])
            || !reexec::works(&["dbus-run-session", "--version"])
        {
            return reexec::skipped(NAME, "apt-get install gnome-keyring dbus");
        }
        let home = tempfile::tempdir().unwrap();
        let wrapper = ["dbus-run-session", "--", "sh", "-c", BESIDE_DAEMON, "sh"];
        for (story, options) in [("unlocked", "--unlock"), ("locked", "")] {
            let variables = [("HOME", home.path().to_str().unwrap()), ("DAEMON", options)];
            reexec::run_passing(NAME, &wrapper, story, &variables);
        }
    }

    #[test]
    fn that_does_not_run_is_unavailable() {
        if reexec::inside().is_some() {
            let error = OsKeychain::native("farshore-tests").unwrap_err();
            assert!(matches!(error, VaultError::Unavailable { .. }), "{error:?}");
            return;
        }
        reexec::run_passing(
            "vault::tests::secret_service::that_does_not_run_is_unavailable",
            &["env"],
            "1",
            &[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")],
        );
    }
}
