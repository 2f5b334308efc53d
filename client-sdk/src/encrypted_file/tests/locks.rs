//! POSIX drops all locks that a process has on a file when it closes any handle of it.
//! Without the lock of an open connection, another process may take the log for abandoned and delete it.

use std::collections::BTreeSet;

use super::*;

/// The bytes that SQLite locks in a database for as long as a connection uses its log.
const SHARED_RANGE: &str = "1073741826 1073742335";

/// How many databases this process has locked. Where others lock and unlock meanwhile, the system may list a lock twice.
fn locked_databases() -> usize {
    let mine = format!(" {} ", std::process::id());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let mine = locks.lines().filter(|line| line.contains(&mine) && line.ends_with(SHARED_RANGE));
    let files: BTreeSet<_> = mine.map(|line| line.split_whitespace().nth(5)).collect();
    files.len()
}

#[test]
fn no_way_of_opening_drops_the_locks_of_open_connections() {
    if reexec::inside().is_none() {
        // Other tests of this process have locks, too.
        reexec::run_passing(
            "encrypted_file::tests::locks::no_way_of_opening_drops_the_locks_of_open_connections",
            &["env"],
            "1",
            &[],
        );
        return;
    }
    let (place, other) = (Place::with_store(), Place::with_store());
    let connection = place.open().unwrap();
    assert_eq!((count_rows(&connection), locked_databases()), (ROWS, 1));
    let key = place.unlock().unwrap();

    drop(open(&place.path(), &key, OpenMode::ReadOnly).unwrap());
    open(&place.path(), &other.unlock().unwrap(), OpenMode::ReadWrite).unwrap_err();
    place.create().unwrap_err();
    fs::remove_file(place.key_path()).unwrap();
    place.unlock().unwrap_err();
    place.create().unwrap_err();
    assert_eq!(locked_databases(), 1);
    drop(connection);
    assert_eq!(locked_databases(), 0);
}
