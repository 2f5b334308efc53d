//! Full and read-only disks: on a file system of its own, which can be small or read-only for root as well.

use std::process::Command;

use super::*;

const MOUNT_SMALL: &str = "mount -t tmpfs -o size=1m none \"$FARSHORE_TEST_REEXEC\" && exec \"$@\"";
const MOUNTED: [&str; 6] = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT_SMALL];

/// Runs `story` in a directory that is a file system of one megabyte.
fn on_small_file_system(test: &str, story: fn(&Path)) {
    if let Some(directory) = reexec::inside() {
        return story(Path::new(&directory));
    }
    let mount = "unshare --map-root-user --mount mount -t tmpfs none /tmp";
    if !reexec::works(&mount.split(' ').collect::<Vec<_>>()) {
        return reexec::skipped(test, &format!("this system does not allow: {mount}"));
    }
    let directory = tempfile::tempdir().unwrap();
    let wrapper = [&MOUNTED[..], &["sh"]].concat();
    reexec::run_passing(test, &wrapper, directory.path().to_str().unwrap(), &[]);
}

fn remount(directory: &Path, options: &str) {
    let status = Command::new("mount").args(["-o", options]).arg(directory).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    on_small_file_system(
        "encrypted_file::tests::file_system::a_full_disk_is_named_and_loses_nothing",
        |directory| {
            let (path, vault) = (directory.join("store.db"), MemoryVault::new());
            let is_full = |error: &OpenError| {
                matches!(error, OpenError::Io { source, path: at, .. }
                    if source.kind() == io::ErrorKind::StorageFull && at.starts_with(&path))
            };
            let key = create(&path, &vault, &label(), store_id()).unwrap();
            let connection = open(&path, &key, OpenMode::ReadWrite).unwrap();
            let error = loop {
                if let Err(error) = write_rows(&connection) {
                    break OpenError::from_sqlite(&path, error);
                }
            };
            assert!(is_full(&error), "{error:?}");
            let written = count_rows(&connection);
            drop(connection);
            let connection = open(&path, &key, OpenMode::ReadWrite).unwrap();
            assert_eq!(count_rows(&connection), written);
            drop(connection);
            verify(&path, &key).unwrap();

            fs::write(directory.join("filler"), vec![0; 1 << 20]).unwrap_err();
            let second = directory.join("second.db");
            let error = create(&second, &vault, &label(), store_id()).unwrap_err();
            assert!(
                matches!(&error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
                "{error:?}"
            );
        },
    );
}

#[test]
fn a_read_only_directory_is_named() {
    on_small_file_system(
        "encrypted_file::tests::file_system::a_read_only_directory_is_named",
        |directory| {
            let (path, vault) = (directory.join("store.db"), MemoryVault::new());
            let is_read_only = |error: &OpenError| {
                matches!(error, OpenError::Io { source, .. }
                    if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
            };
            let key = create(&path, &vault, &label(), store_id()).unwrap();
            let before = fs::read(&path).unwrap();
            remount(directory, "remount,ro");
            let error = open(&path, &key, OpenMode::ReadWrite).unwrap_err();
            assert!(is_read_only(&error), "{error:?}");
            let error =
                create(&directory.join("second.db"), &vault, &label(), store_id()).unwrap_err();
            assert!(is_read_only(&error), "{error:?}");
            assert_eq!(fs::read(&path).unwrap(), before);
        },
    );
}
