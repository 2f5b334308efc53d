//! Rights that change: what is gone is purged, what is new is filled.

use farshore_sync_core::ids::CollectionId;
use farshore_sync_core::mutation::{Cells, Op};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::replica::{StoreReply, StoreRequest};
use farshore_sync_core::wire::{Grant, Rights};

use super::harness::{Device, NOW, device, row, scope};
use super::server::Server;

const VISITS: CollectionId = CollectionId(3);

fn grant(text: &str) -> Grant {
    Grant { scope: scope(text), rights: Rights::Write }
}

fn change_grants(local: &Device, server: &mut Server, grants: Vec<Grant>) -> Vec<(String, u64)> {
    server.grants = grants.clone();
    match local.handle(StoreRequest::AdoptGrants(grants)) {
        StoreReply::Adopted { positions } => positions
            .into_iter()
            .map(|position| (position.scope.to_string(), position.seq))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_revoked_scope_is_purged_after_what_waits_went_into_quarantine() {
    let (local, mut server) = (Device::new(1), Server::new());
    let item = local.insert_item("stays");
    let visit = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    let deleted = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.sync_in_step(&mut server);
    local.write(|tx| tx.delete("visits", deleted));
    local.write(|tx| {
        tx.update("visits", visit, &[("purpose", "edited".into())])?;
        tx.update("items", item, &[("title", "edited".into())])
    });
    let unsent = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.write(|tx| tx.update("items", item, &[("size", 1.into())]));
    let positions = change_grants(&local, &mut server, vec![grant("tenant"), grant("site/b")]);
    assert_eq!(positions, [("site/b".to_owned(), server.seq), ("tenant".to_owned(), server.seq)]);
    assert!(!local.exists("visits", visit) && !local.exists("visits", unsent));
    assert_eq!(local.text("items", item, "title"), "stays", "the whole transaction moved");
    let quarantined = local.store.quarantine().unwrap();
    assert_eq!(
        quarantined.iter().map(|entry| entry.code).collect::<Vec<_>>(),
        [ReasonCode::ScopeRevoked; 3]
    );
    assert_eq!(local.store.counts().unwrap().unanswered, 1);
    assert_eq!(local.hidden("SELECT count(*) FROM fs_graves"), [[super::super::SqlValue::Int(0)]]);
    local.check();
    local.sync_in_step(&mut server);
    local.check();
}

#[test]
fn a_new_scope_is_filled_from_the_beginning_and_appears_whole() {
    let (local, mut server) = (Device::new(1), Server::new());
    server.rows_per_page = 2;
    server.grants = vec![grant("tenant"), grant("site/a")];
    local.insert_item("x");
    local.sync_in_step(&mut server);
    for number in 1..=5 {
        let cells = Cells::new(vec![(farshore_sync_core::ids::ColumnId(1), "b".into())]);
        server.edit(device(9), NOW, ((VISITS, row(number)), Op::Insert { cells }));
    }
    local.pull(&server);
    let all = vec![grant("tenant"), grant("site/a"), grant("site/b")];
    let positions = change_grants(&local, &mut server, all);
    let seq = server.seq;
    assert_eq!(positions, [("site/a".into(), seq), ("site/b".into(), 0), ("tenant".into(), seq)]);
    let pages = server.pages(&local.standing());
    assert_eq!(pages.len(), 3);
    local.page(pages[0].clone());
    assert!(local.sql("SELECT id FROM visits").is_empty());
    // Rights change again while pages are staged: the new scope starts from the beginning once more.
    let positions = change_grants(&local, &mut server, vec![grant("tenant"), grant("site/b")]);
    assert_eq!(positions, [("site/b".into(), 0), ("tenant".into(), seq)]);
    assert!(local.pull(&server).in_step);
    assert_eq!(local.sql("SELECT id FROM visits").len(), 5);
    assert!(local.standing().positions.is_empty());
    local.check();
}

#[test]
fn a_scope_that_comes_back_is_filled_again() {
    let (local, mut server) = (Device::new(1), Server::new());
    let visit = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.sync_in_step(&mut server);
    change_grants(&local, &mut server, vec![grant("tenant")]);
    assert!(!local.exists("visits", visit));
    change_grants(&local, &mut server, vec![grant("tenant"), grant("site/a")]);
    assert!(local.pull(&server).in_step);
    assert!(local.exists("visits", visit));
    local.check();
}

#[test]
fn a_transaction_that_the_server_took_before_the_scope_went_leaves_the_quarantine() {
    let (local, mut server) = (Device::new(1), Server::new());
    local.greet(&server);
    local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    let outcomes = server.push(local.id, &local.outbox());
    change_grants(&local, &mut server, vec![grant("tenant")]);
    assert_eq!(local.store.quarantine().unwrap().len(), 1);
    local.outcomes(outcomes);
    assert!(local.store.quarantine().unwrap().is_empty());
    assert_eq!(local.standing().settled, 1);
    local.check();
}

#[test]
fn what_the_server_took_after_all_stays_on_the_rows_that_are_left() {
    let (local, mut server) = (Device::new(1), Server::new());
    let item = local.insert_item("x");
    local.sync_in_step(&mut server);
    local.write(|tx| tx.increment("items", item, "stock", 1));
    local.write(|tx| {
        tx.increment("items", item, "stock", 8)?;
        tx.insert("visits", None, &[("site", "a".into())])
    });
    local.write(|tx| tx.increment("items", item, "stock", 2));
    let outcomes = server.push(local.id, &local.outbox());
    change_grants(&local, &mut server, vec![grant("tenant")]);
    assert_eq!(local.stock(item), 3, "the transaction waits in the quarantine");
    local.outcomes(outcomes);
    assert_eq!(local.store.quarantine().unwrap(), []);
    assert_eq!((local.stock(item), local.sql("SELECT id FROM visits").len()), (11, 0));
    local.check();
    local.sync_in_step(&mut server);
    assert_eq!((local.stock(item), local.store.counts().unwrap().unconfirmed), (11, 0));
    local.check();
}

#[test]
fn what_the_server_took_after_all_lands_although_nothing_was_answered_before() {
    let (local, mut server) = (Device::new(1), Server::new());
    local.greet(&server);
    local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    let outcomes = server.push(local.id, &local.outbox());
    change_grants(&local, &mut server, vec![grant("tenant")]);
    local.outcomes(outcomes);
    local.sync_in_step(&mut server);
    assert_eq!(local.store.counts().unwrap().unconfirmed, 0);
    local.check();
}

#[test]
fn what_the_server_took_after_all_stands_in_the_scope_that_it_moved_to() {
    let (local, mut server) = (Device::new(1), Server::new());
    local.greet(&server);
    let visit = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.write(|tx| tx.update("visits", visit, &[("site", "b".into())]));
    let outcomes = server.push(local.id, &local.outbox());
    let (tenant, a, b) = (grant("tenant"), grant("site/a"), grant("site/b"));
    change_grants(&local, &mut server, vec![tenant.clone(), a.clone()]);
    assert_eq!(local.store.quarantine().unwrap().len(), 2);
    change_grants(&local, &mut server, vec![tenant.clone(), a, b.clone()]);
    local.outcomes(outcomes);
    assert_eq!(local.text("visits", visit, "site"), "b");
    change_grants(&local, &mut server, vec![tenant, b]);
    assert!(local.exists("visits", visit), "it left the scope that is gone");
    local.check();
    local.sync_in_step(&mut server);
    assert_eq!(local.text("visits", visit, "site"), "b");
    assert_eq!(local.store.counts().unwrap().unconfirmed, 0);
    local.check();
}

#[test]
fn a_transaction_that_the_server_has_decided_on_waits_for_its_answer_even_without_its_scope() {
    let (local, mut server) = (Device::new(1), Server::new());
    let visit = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.sync_in_step(&mut server);
    local.write(|tx| tx.update("visits", visit, &[("purpose", "edited".into())]));
    server.push(local.id, &local.outbox());
    server.grants = vec![grant("tenant")];
    local.greet(&server);
    assert!(!local.exists("visits", visit));
    assert!(local.store.quarantine().unwrap().is_empty());
    local.sync_in_step(&mut server);
    assert_eq!(local.store.counts().unwrap().unconfirmed, 0);
    local.check();
}

#[test]
fn another_digest_key_hashes_every_row_anew() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.insert_item("y");
    local.sync_in_step(&mut server);
    local.write(|tx| tx.update("items", id, &[("title", "pending".into())]));
    server.key = farshore_sync_core::digest::DigestKey([99; 32]);
    let mut welcome = server.welcome(local.id, &local.standing());
    welcome.digest_key = Some([99; 32].into());
    local.adopt(welcome);
    assert!(local.pull(&server).in_step);
    local.check();
}
