//! Rule 8: a server that was restored from a backup begins a new epoch, and devices offer again what it lost.

use serde_json::json;
use system_tests::backstage::Backup;
use system_tests::deadline::{LATER, eventually};
use system_tests::replica::{Replica, is_row};
use system_tests::server::{Server, ServerOptions};

#[test]
fn what_a_backup_lacks_comes_back_from_the_devices() {
    let mut server = Server::start(ServerOptions::default());
    let mut first = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let mut second = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let edited = first.insert("items", json!({"label": "before the backup", "amount": 1}));
    let counted = first.insert("tallies", json!({"name": "counted"}));
    first.transact(json!([["inc", "tallies", counted, "count", 10]]));
    first.sync();
    second.sync();
    let old_epoch = server.digest().epoch;

    server.terminate();
    let backup = Backup::of(&server);
    server.restart();
    first.sync();
    second.sync();
    first.transact(json!([["put", "items", {"id": edited, "label": "after the backup"}]]));
    first.insert("items", json!({"label": "lost by the server", "amount": 2}));
    first.transact(json!([["inc", "tallies", counted, "count", 5]]));
    second.transact(json!([["inc", "tallies", counted, "count", 7]]));
    for replica in [&mut first, &mut second] {
        replica.wait_for("synced");
        replica.wait_for_number("SELECT count FROM tallies", 22);
    }
    second.wait_for_number("SELECT count(*) FROM items WHERE label = 'lost by the server'", 1);
    // The writer is away when the server comes back: the one who only received has to offer.
    first.kill9();

    server.kill9();
    backup.restore(&server);
    server.restart_restored_from_backup();
    assert_ne!(server.digest().epoch, old_epoch);
    second.sync();
    let mut fresh = Replica::create(&server.url(), &server.token(&["tenant"]));
    fresh.sync();
    eventually("everything that was lost", LATER, || {
        let back = fresh.number(
            "SELECT count(*) FROM items WHERE label IN ('after the backup', 'lost by the server')",
        );
        (back == 2 && fresh.number("SELECT count FROM tallies") == 22).then_some(())
    });
    assert_eq!(fresh.number("SELECT count(*) FROM items"), 2);

    first.open();
    first.sync();
    second.wait_for("synced");
    let later = first.insert("items", json!({"label": "after the restore", "amount": 3}));
    first.wait_for("synced");
    fresh.wait_for_number(&format!("SELECT count(*) FROM items WHERE {}", is_row(&later)), 1);
    fresh.wait_for_number("SELECT count FROM tallies", 22);
    eventually("equal digests", LATER, || {
        let digest = fresh.digest();
        (first.digest() == digest && second.digest() == digest).then_some(())
    });
}
