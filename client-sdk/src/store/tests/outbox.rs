//! The outbox: in which portions it is read, and answers that come at odd moments or speak of one row among many.

use farshore_sync_core::ids::{CollectionId, RowId};
use farshore_sync_core::mutation::Transaction;
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::replica::{StoreReply, StoreRequest};
use farshore_sync_core::wire::{Grant, PushOutcome, Refill, RefusedMutation, Rights};

use super::harness::{Device, NOW, scope};
use super::server::Server;

const ITEMS: CollectionId = CollectionId(1);

/// A device that holds only the scope `tenant` from here on, and its server.
fn revoke_sites(local: &Device, server: &mut Server) {
    let grants = vec![Grant { scope: scope("tenant"), rights: Rights::Write }];
    server.grants = grants.clone();
    let reply = local.handle(StoreRequest::AdoptGrants(grants));
    assert!(matches!(reply, StoreReply::Adopted { .. }), "{reply:?}");
}

/// An increment of an item that goes with a row of `site/a`, so that it loses its scope with that.
fn increment_with_visit(local: &Device, item: RowId, delta: i64) {
    local.write(|tx| {
        tx.increment("items", item, "stock", delta)?;
        tx.insert("visits", None, &[("site", "a".into())])
    });
}

fn refusal(number: u64, index: u32) -> PushOutcome {
    let message = "no".to_owned();
    let refused = Some(RefusedMutation { index, code: ReasonCode::TooLarge, message });
    PushOutcome { number, seq: 0, refused, corrected: None }
}

/// A device whose outbox offers so many items again that a restored server lost, all in transaction `number`.
fn offering(items: usize) -> (Device, Server, u64) {
    let (local, mut server) = (Device::new(1), Server::new());
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    for _ in 0..items {
        local.insert_item("x");
    }
    local.sync_in_step(&mut server);
    restored.refill = Refill::NewEpoch;
    local.greet(&restored);
    restored.refill = Refill::No;
    local.pull(&restored);
    let offers = local.outbox();
    assert_eq!(offers.len(), 1);
    (local, restored, offers[0].0)
}

fn rows_of(bytes: &[u8]) -> Vec<RowId> {
    Transaction::decode(bytes).unwrap().mutations.iter().map(|mutation| mutation.row).collect()
}

#[test]
fn the_outbox_is_read_in_portions_of_bytes_and_of_transactions() {
    let local = Device::new(1);
    for _ in 0..4 {
        local.insert_item("x");
    }
    let sizes: Vec<usize> = local.outbox().iter().map(|(_, bytes)| bytes.len()).collect();
    let (two, three) = (sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]);
    let numbers = |after, max_bytes, max_transactions| match local.handle(StoreRequest::Outbox {
        after,
        max_bytes,
        max_transactions,
    }) {
        StoreReply::Outbox(read) => read.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(numbers(0, two, 9), [1, 2]);
    assert_eq!(numbers(0, two - 1, 9), [1]);
    assert_eq!(numbers(0, three, 9), [1, 2, 3]);
    assert_eq!(numbers(0, 0, 9), [1], "one that is larger than the portion goes alone");
    assert_eq!(numbers(1, usize::MAX, 2), [2, 3]);
    assert_eq!(numbers(4, usize::MAX, 9), Vec::<u64>::new());
}

#[test]
fn a_refusal_that_comes_after_the_scope_went_leaves_the_transaction_in_quarantine() {
    let (local, mut server) = (Device::new(1), Server::new());
    let item = local.insert_item("x");
    local.sync_in_step(&mut server);
    increment_with_visit(&local, item, 8);
    revoke_sites(&local, &mut server);
    assert_eq!(local.outcomes(vec![refusal(2, 0)]), 2);
    let quarantined = local.store.quarantine().unwrap();
    assert_eq!(
        quarantined.iter().map(|entry| entry.code).collect::<Vec<_>>(),
        [ReasonCode::ScopeRevoked]
    );
    assert_eq!((local.stock(item), local.store.counts().unwrap().unconfirmed), (0, 0));
    local.check();
}

#[test]
fn an_answer_that_comes_after_the_scope_went_and_after_its_checkpoint_counts_nothing_twice() {
    let (local, mut server) = (Device::new(1), Server::new());
    let item = local.insert_item("x");
    local.sync_in_step(&mut server);
    increment_with_visit(&local, item, 8);
    let outcomes = server.push(local.id, &local.outbox());
    revoke_sites(&local, &mut server);
    local.pull(&server);
    assert_eq!(outcomes[0].seq, local.standing().cursor);
    local.outcomes(outcomes);
    assert_eq!(local.store.quarantine().unwrap(), []);
    assert_eq!((local.stock(item), local.store.counts().unwrap().unconfirmed), (8, 0));
    local.check();
}

#[test]
fn of_rows_that_were_offered_together_the_refused_one_is_quarantined_alone() {
    let (local, mut restored, number) = offering(2);
    let offered = rows_of(&local.outbox()[0].1);
    assert_eq!(local.outcomes(vec![refusal(number, 1)]), number);
    let quarantined = local.store.quarantine().unwrap();
    assert_eq!(quarantined.len(), 1);
    assert_eq!((quarantined[0].mutations.len(), quarantined[0].refused_index), (1, 0));
    assert_eq!(quarantined[0].mutations[0].row, offered[1]);
    let again = local.outbox();
    assert_eq!(
        again.iter().map(|(number, bytes)| (*number, rows_of(bytes))).collect::<Vec<_>>(),
        [(number + 1, vec![offered[0]])]
    );
    local.check();
    local.sync_in_step(&mut restored);
    assert_eq!(restored.rows.keys().copied().collect::<Vec<_>>(), [(ITEMS, offered[0])]);
}

#[test]
fn a_refusal_of_a_mutation_that_there_is_not_quarantines_the_whole_offer() {
    for (items, index) in [(2, 2), (2, u32::MAX), (1, 0)] {
        let (local, _, number) = offering(items);
        local.outcomes(vec![refusal(number, index)]);
        let quarantined = local.store.quarantine().unwrap();
        assert_eq!((quarantined.len(), quarantined[0].mutations.len()), (1, items));
        assert_eq!(local.outbox(), []);
        local.check();
    }
}

#[test]
fn a_clock_is_corrected_to_the_servers_and_not_behind_what_waits() {
    const DAY_MS: u64 = 86_400_000;
    let (local, mut server) = (Device::new(1), Server::new());
    local.greet(&server);
    let stamps = || -> Vec<u64> {
        let stamp = |bytes: &Vec<u8>| Transaction::decode(bytes).unwrap().stamp.wall_ms();
        local.outbox().iter().map(|(_, bytes)| stamp(bytes)).collect()
    };
    let write_at = |now_ms| local.store.write(now_ms, |tx| tx.insert("items", None, &[])).unwrap();
    write_at(NOW + 3 * DAY_MS);
    let first = local.outbox();
    write_at(NOW + 2 * DAY_MS);
    let outcomes = server.push(local.id, &first);
    assert_eq!(outcomes[0].corrected.map(|hlc| hlc.wall_ms()), Some(NOW));
    local.outcomes(outcomes);
    write_at(NOW);
    let waiting = NOW + 3 * DAY_MS;
    assert_eq!(stamps(), [waiting, waiting], "a later write follows what waits");
    let outcomes = server.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    write_at(NOW + 5);
    assert_eq!(stamps(), [NOW + 5], "nothing waits any more");
    assert_eq!(local.store.counts().unwrap().corrections, 3);
    local.check();
}
