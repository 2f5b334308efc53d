//! Whatever the order of arrival, devices that hold the same changes hold the same document.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::{Change, Document, DocumentEdit, FieldKind, NewValue, int, open, path, put, splice};
use crate::document::{ChangeHash, DocumentError};

const DEVICES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// One device edits what it sees, or (with a lag) what it saw that many steps ago.
    Edit { device: usize, lag: usize, edit: Draft },
    /// One device receives all that another one has.
    Deliver { from: usize, to: usize },
    /// One device restarts.
    Reopen { device: usize },
}

/// An edit whose positions are still to be scaled to the document.
#[derive(Debug, Clone)]
enum Draft {
    Text(Index, usize, String),
    Map(usize, Option<i64>),
    Insert(Index, NewValue),
    Remove(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let device = || 0..DEVICES;
    prop_oneof![
        4 => (device(), 0..4_usize, draft())
            .prop_map(|(device, lag, edit)| Step::Edit { device, lag, edit }),
        2 => (device(), device()).prop_map(|(from, to)| Step::Deliver { from, to }),
        1 => device().prop_map(|device| Step::Reopen { device }),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let value = prop_oneof![
        any::<i64>().prop_map(int),
        Just(NewValue::Empty(FieldKind::Map)),
        Just(NewValue::Empty(FieldKind::List)),
    ];
    prop_oneof![
        (any::<Index>(), 0..3_usize, "[a-c🦀]{0,3}").prop_map(|(i, d, s)| Draft::Text(i, d, s)),
        (0..3_usize, any::<Option<i64>>()).prop_map(|(key, value)| Draft::Map(key, value)),
        (any::<Index>(), value).prop_map(|(index, value)| Draft::Insert(index, value)),
        any::<Index>().prop_map(Draft::Remove),
    ]
}

struct Device {
    actor: [u8; 16],
    document: Box<dyn Document>,
    changes: Vec<Change>,
    /// What it saw after each step: the heads, the length of the text and of the list.
    views: Vec<(Vec<ChangeHash>, usize, usize)>,
}

impl Device {
    fn new(number: usize) -> Self {
        let actor = [u8::try_from(number).unwrap() + 1; 16];
        let mut device =
            Self { actor, document: open(actor, &[]), changes: Vec::new(), views: Vec::new() };
        device.look();
        device
    }

    fn look(&mut self) {
        let json = self.document.to_json().unwrap();
        let text = json["text"].as_str().unwrap().chars().count();
        self.views.push((self.document.heads(), text, json["list"].as_array().unwrap().len()));
    }

    fn edit(&mut self, lag: usize, draft: &Draft) {
        let (heads, text, list) = &self.views[self.views.len().saturating_sub(lag + 1)];
        let edit = match draft {
            Draft::Text(index, delete, insert) => {
                let position = index.index(text + 1);
                splice(position, (*delete).min(text - position), insert)
            }
            Draft::Map(key, Some(value)) => put(&key.to_string(), int(*value)),
            Draft::Map(key, None) => {
                DocumentEdit::Delete { path: path("map"), key: key.to_string() }
            }
            Draft::Insert(index, value) => DocumentEdit::InsertItem {
                path: path("list"),
                index: index.index(list + 1),
                value: value.clone(),
            },
            Draft::Remove(index) => {
                let (index, count) = if *list == 0 { (0, 0) } else { (index.index(*list), 1) };
                DocumentEdit::DeleteItems { path: path("list"), index, count }
            }
        };
        self.changes.extend(self.document.edit_at(heads, &[edit]).unwrap());
    }

    fn receive(&mut self, changes: &[Change]) {
        self.document.apply(changes).unwrap();
        let known: HashSet<ChangeHash> = self.changes.iter().map(|change| change.hash).collect();
        self.changes.extend(changes.iter().filter(|change| !known.contains(&change.hash)).cloned());
    }
}

fn run(steps: &[Step]) -> Vec<Device> {
    let mut devices: Vec<Device> = (0..DEVICES).map(Device::new).collect();
    for step in steps {
        match step {
            Step::Edit { device, lag, edit } => devices[*device].edit(*lag, edit),
            Step::Deliver { from, to } => {
                let changes = devices[*from].changes.clone();
                devices[*to].receive(&changes);
            }
            Step::Reopen { device } => {
                let device = &mut devices[*device];
                device.document = open(device.actor, &device.changes);
            }
        }
        devices.iter_mut().for_each(Device::look);
    }
    devices
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_arrival_does_not_matter(
        steps in prop::collection::vec(step(), 1..40),
        shuffle in any::<u64>(),
    ) {
        let mut devices = run(&steps);
        let all: HashMap<ChangeHash, Change> = devices
            .iter()
            .flat_map(|device| &device.changes)
            .map(|change| (change.hash, change.clone()))
            .collect();
        let mut names = HashSet::new();
        prop_assert!(all.values().all(|change| names.insert((&change.actor, change.sequence))));

        // Each device is delivered what it lacks in another order, one change at a time.
        let mut ends = Vec::new();
        for (turn, device) in devices.iter_mut().enumerate() {
            let mut queue: Vec<&Change> = all.values().collect();
            queue.sort_by_key(|change| {
                let head = u64::from_be_bytes(change.hash.0[..8].try_into().unwrap());
                head.wrapping_mul(shuffle | 1).rotate_left(u32::try_from(turn).unwrap() * 20)
            });
            while !queue.is_empty() {
                queue.retain(|change| match device.document.apply(std::slice::from_ref(change)) {
                    Ok(_) => false,
                    Err(DocumentError::MissingDependency { .. }) => true,
                    Err(error) => panic!("{error}"),
                });
            }
            ends.push((device.document.heads(), device.document.to_json().unwrap()));
            prop_assert_eq!(device.document.change_count(), all.len());
        }
        let all: Vec<Change> = all.into_values().collect();
        let fresh = open([9; 16], &all);
        ends.push((fresh.heads(), fresh.to_json().unwrap()));
        prop_assert!(ends.iter().all(|end| *end == ends[0]), "{:#?}", ends);
    }
}
