//! Several users in one directory.

use std::sync::Arc;

use farshore_sync_core::ids::TenantId;
use farshore_sync_core::schema::Schema;

use super::{Place, SCHEMA, insert};
use crate::error::Classified as _;
use crate::users::{Removal, User, Users};

fn users(place: &Place) -> Users {
    let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
    Users::new(place.path(), schema, Arc::clone(&place.vault) as _)
}

fn demo() -> TenantId {
    "demo".parse().unwrap()
}

#[test]
fn each_user_has_data_of_their_own() {
    let place = Place::new();
    let users = users(&place);
    assert_eq!(users.list().unwrap(), []);
    let alice = users.open(demo(), "alice").build().unwrap();
    let bob = users.open(demo(), "bob").build().unwrap();
    insert(&alice, "a");
    assert_ne!(alice.device(), bob.device());
    assert_eq!(bob.query("SELECT name FROM airlines", &[]).unwrap().rows.len(), 0);
    let user = |name: &str| User { tenant: demo(), name: name.to_owned() };
    assert_eq!(users.list().unwrap(), [user("alice"), user("bob")]);
}

#[test]
fn a_user_with_unsent_data_is_removed_by_force_only() {
    let place = Place::new();
    let users = users(&place);
    let alice = users.open(demo(), "alice").build().unwrap();
    insert(&alice, "a");
    alice.close().unwrap();
    let refused = users.remove(&demo(), "alice", Removal::IfSynced).unwrap_err();
    assert_eq!(refused.code(), "unsynced");
    assert_eq!(users.list().unwrap().len(), 1);
    users.remove(&demo(), "alice", Removal::Forced).unwrap();
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert_eq!(users.remove(&demo(), "alice", Removal::Forced).unwrap_err().code(), "unknown_user");
}

#[test]
fn a_removal_that_was_interrupted_is_finished_by_the_next_one() {
    let place = Place::new();
    let users = users(&place);
    users.open(demo(), "alice").build().unwrap().close().unwrap();
    // The key is destroyed first: what happens if the power goes right after it.
    let label = crate::vault::VaultLabel::new("demo.alice").unwrap();
    crate::vault::KeyVault::destroy(&*place.vault, &label).unwrap();
    assert_eq!(users.open(demo(), "alice").build().err().unwrap().code(), "lost_key");
    assert_eq!(users.remove(&demo(), "alice", Removal::IfSynced).unwrap_err().code(), "lost_key");
    users.remove(&demo(), "alice", Removal::Forced).unwrap();
    assert_eq!(users.list().unwrap(), []);
}

#[test]
fn a_user_whose_data_is_on_the_server_is_removed_without_force() {
    let place = Place::new();
    let users = users(&place);
    users.open(demo(), "alice").build().unwrap().close().unwrap();
    users.remove(&demo(), "alice", Removal::IfSynced).unwrap();
    assert_eq!(users.list().unwrap(), []);
}
