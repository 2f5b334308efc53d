//! Answers that devices have recorded do not stay.

use farshore_store::conformance::{note_batch, sample_tenant_named};
use farshore_store::pushed::PushedTransaction;
use farshore_store::sync::{Batch, DevicePush, PushResult};
use farshore_store::sync_core::hlc::Hlc;
use farshore_store::sync_core::mutation::Transaction;

use super::*;

const TRANSACTIONS: u64 = 100;
/// Answers that a device may leave behind: those that are deleted together, and the newest.
const MOST_LEFT: u64 = 17;

#[tokio::test]
async fn recorded_answers_are_deleted_some_at_a_time() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 0).await;
    let Batch { now_ms, pushes } = note_batch(&*store, 1).await;
    let stored = || server.run("SELECT count(*) FROM tenant_demo.outcomes").parse::<u64>().unwrap();
    let before = stored();
    for number in 1..=TRANSACTIONS {
        let stamp = Hlc::from_wall_ms(now_ms + number);
        let bytes = Transaction { number, stamp, mutations: Vec::new() }.encode();
        let transactions = vec![PushedTransaction::read(&bytes).unwrap()];
        let push = DevicePush { settled: number - 1, transactions, ..pushes[0].clone() };
        let committed = store.commit(Batch { now_ms, pushes: vec![push] }).await.unwrap();
        assert!(matches!(committed.results[..], [PushResult::Answered(_)]), "{committed:?}");
    }
    let left = stored() - before;
    assert!((1..=MOST_LEFT).contains(&left), "{left} answers are left");
}
