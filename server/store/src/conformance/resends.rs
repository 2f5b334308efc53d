//! Exactly once: what a device sends again is recognised.

use super::Storage;
use super::fixture::{Device, answers, commit, row, sample_store};
use super::sample::{LIKES, insert_note, like, note, rate};
use crate::sync::{DeviceProgress, PushResult};

/// The same transactions again get the same answers, refusals too, and change nothing.
pub async fn a_resend_is_answered_and_not_applied_again(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let transactions = [0, 1, 2].map(|step| device_transaction(&mut device, step));
    let push = device.push(transactions);
    let first = commit(&store, [push.clone()]).await;
    assert!(answers(&first.results[0])[1].refused.is_some());
    let again = commit(&store, [push]).await;
    assert_eq!(again.results, first.results);
    assert_eq!((again.seq_before, again.seq), (first.seq, first.seq));
    assert_eq!((again.rows, again.totals), (Vec::new(), Vec::new()));
    assert_eq!(row(&store, note(1)).await.counter(LIKES), 1);
}

/// Of a push that was partly answered before, only the rest applies.
pub async fn a_resend_beside_new_work_applies_the_new_work(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let old = device_transaction(&mut device, 0);
    let first = commit(&store, [device.push([old.clone()])]).await;
    let new = device.transaction([like(1, 5)]);
    let second = commit(&store, [device.push([old, new])]).await;
    let second_answers = answers(&second.results[0]);
    assert_eq!(second_answers[0], answers(&first.results[0])[0]);
    assert_eq!((second_answers[1].number, second_answers[1].seq), (2, second.seq));
    assert_eq!(row(&store, note(1)).await.counter(LIKES), 6);
}

/// Another transaction under a number that was answered is a second replica with the same id.
pub async fn other_content_under_a_number_is_a_fork(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let (mut device, mut clone) = (Device::new(1), Device::new(1));
    let shared = device_transaction(&mut device, 0);
    assert_eq!(shared, device_transaction(&mut clone, 0));
    let own = device.transaction([like(1, 100)]);
    let first = commit(&store, [device.push([shared.clone(), own])]).await;
    let foreign = clone.transaction([like(1, 7)]);
    let after = clone.transaction([like(1, 7)]);
    let forked = commit(&store, [clone.push([shared, foreign, after])]).await;
    let answered = vec![answers(&first.results[0])[0].clone()];
    assert_eq!(forked.results, [PushResult::Forked { answered, number: 2 }]);
    assert_eq!(forked.seq, first.seq);
    assert_eq!(row(&store, note(1)).await.counter(LIKES), 101);
}

/// Answers are kept until the device has recorded them; the newest one even then.
pub async fn recorded_answers_are_forgotten_but_the_newest(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    assert_eq!(store.device_progress(device.id).await.unwrap(), DeviceProgress::default());
    let first = device_transaction(&mut device, 0);
    let second = device.transaction([like(1, 1)]);
    let third = device.transaction([like(1, 1)]);
    let kept = commit(&store, [device.push([first, second.clone(), third.clone()])]).await;
    device.settled = 3;
    let settled = commit(&store, [device.push([])]).await;
    assert_eq!(settled.results, [PushResult::Answered(Vec::new())]);
    let progress = store.device_progress(device.id).await.unwrap();
    assert_eq!(progress, DeviceProgress { high_water: 3, settled: 3 });
    let newest = commit(&store, [device.push([third])]).await;
    assert_eq!(answers(&newest.results[0]), &answers(&kept.results[0])[2..]);
    let forgotten = commit(&store, [device.push([second])]).await;
    assert_eq!(forgotten.results, [PushResult::Forked { answered: Vec::new(), number: 2 }]);
}

/// Its next transaction: a note with one like, one that is refused, and more likes.
fn device_transaction(device: &mut Device, step: u8) -> Vec<u8> {
    match step {
        0 => device.transaction([insert_note(1, "x"), like(1, 1)]),
        1 => device.transaction([rate(1, 6), like(1, 1)]),
        _ => device.transaction([rate(1, 5)]),
    }
}
