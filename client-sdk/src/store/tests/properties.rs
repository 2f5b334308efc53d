//! Random histories of two devices: after they have exchanged everything, both hold what the server holds, and at
//! every checkpoint the digests are those of the rows.

use farshore_sync_core::ids::RowId;
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::Refill;
use proptest::prelude::*;

use super::super::{Row, WriteError, WriteTransaction};
use super::harness::{Device, row};
use super::server::Server;

/// One step of a history. Rows are few, so that devices meet.
#[derive(Debug, Clone)]
enum Step {
    Write {
        device: usize,
        ops: Vec<(u8, Op)>,
    },
    Sync {
        device: usize,
    },
    /// The server takes the transactions, and the answer is lost.
    PushOnly {
        device: usize,
    },
    /// Pages come without anything being sent.
    PullOnly {
        device: usize,
    },
    /// Pages come, but the connection breaks before the last.
    PullHalf {
        device: usize,
    },
    Reopen {
        device: usize,
    },
    RefuseNext {
        device: usize,
    },
    Refill {
        device: usize,
    },
    Backup,
    /// The server is lost and comes back as it was at the last backup, in a new epoch.
    Restore,
}

#[derive(Debug, Clone)]
enum Op {
    Put(Value),
    Size(i64),
    Delete,
    Restore,
    Increment(i64),
    Add(u8),
    Remove(u8),
    Visit(bool),
    Type(u8),
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop_oneof![Just(Value::Null), "[a-c]{0,3}".prop_map(Value::from)].prop_map(Op::Put),
        2 => (0..100i64).prop_map(Op::Size),
        1 => Just(Op::Delete),
        1 => Just(Op::Restore),
        2 => (-5..9i64).prop_map(Op::Increment),
        2 => (0..3u8).prop_map(Op::Add),
        1 => (0..3u8).prop_map(Op::Remove),
        2 => any::<bool>().prop_map(Op::Visit),
        2 => (0..26u8).prop_map(Op::Type),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = 0..2usize;
    let step = prop_oneof![
        8 => (device.clone(), prop::collection::vec((0..4u8, ops()), 1..5))
            .prop_map(|(device, ops)| Step::Write { device, ops }),
        3 => device.clone().prop_map(|device| Step::Sync { device }),
        1 => device.clone().prop_map(|device| Step::PushOnly { device }),
        2 => device.clone().prop_map(|device| Step::PullOnly { device }),
        1 => device.clone().prop_map(|device| Step::PullHalf { device }),
        1 => device.clone().prop_map(|device| Step::Reopen { device }),
        1 => device.clone().prop_map(|device| Step::RefuseNext { device }),
        1 => device.prop_map(|device| Step::Refill { device }),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..30)
}

/// Performs an operation; one that does not apply (the row is deleted, say) is passed over.
fn perform(tx: &mut WriteTransaction<'_>, number: u8, op: &Op) -> Result<(), WriteError> {
    let id = row(number + 1);
    let tag = |tag: &u8| Value::from(format!("t{tag}"));
    let done = match op {
        Op::Put(title) => tx.put("items", Some(id), &[("title", title.clone())]).map(|_| ()),
        Op::Size(size) => tx.update("items", id, &[("size", (*size).into())]),
        Op::Delete => tx.delete("items", id),
        Op::Restore => tx.restore("items", id),
        Op::Increment(delta) => tx.increment("items", id, "stock", *delta),
        Op::Add(number) => tx.set_add("items", id, "tags", tag(number)),
        Op::Remove(number) => tx.set_remove("items", id, "tags", tag(number)),
        Op::Visit(at_a) => {
            let site = if *at_a { "a" } else { "b" };
            tx.put("visits", Some(id), &[("site", site.into()), ("ends_at", Value::Timestamp(7))])
                .map(|_| ())
        }
        Op::Type(letter) => {
            let made = tx.put("notes", Some(id), &[("title", "n".into())]);
            let letter = char::from(b'a' + letter).to_string();
            made.and_then(|_| tx.edit_text("notes", id, "body", "text", 0, 0, &letter))
        }
    };
    match done {
        Err(WriteError::RowMissing { .. } | WriteError::RowDeleted { .. }) => Ok(()),
        done => done,
    }
}

fn everything(device: &Device) -> Vec<Option<Row>> {
    let ids: Vec<RowId> = (1..=4).map(row).collect();
    let collections = ["items", "visits", "notes"];
    collections
        .iter()
        .flat_map(|collection| ids.iter().map(|id| device.store.row(collection, *id).unwrap()))
        .collect()
}

fn step(devices: &mut [Device; 2], server: &mut Server, backup: &mut Server, step: &Step) {
    match step {
        Step::Write { device, ops } => {
            devices[*device]
                .write(|tx| ops.iter().try_for_each(|(number, op)| perform(tx, *number, op)));
        }
        Step::Sync { device } => devices[*device].sync_in_step(server),
        Step::PushOnly { device } => {
            let device = &devices[*device];
            device.greet(server);
            server.push(device.id, &device.outbox());
        }
        Step::PullOnly { device } => {
            devices[*device].greet(server);
            assert!(devices[*device].pull(server).in_step);
        }
        Step::PullHalf { device } => {
            let device = &devices[*device];
            device.greet(server);
            let mut pages = server.pages(&device.standing());
            pages.pop();
            device.pages(pages);
        }
        Step::Reopen { device } => devices[*device].reopen(),
        Step::RefuseNext { device } => {
            let device = &devices[*device];
            server
                .refuse
                .insert((device.id, device.standing().next_number), ReasonCode::QuotaExceeded);
        }
        Step::Refill { device } => {
            server.refill = Refill::BelowHorizon;
            devices[*device].greet(server);
            server.refill = Refill::No;
        }
        Step::Backup => *backup = server.clone(),
        Step::Restore => {
            let epoch = server.epoch + 1;
            *server = backup.clone();
            server.epoch = epoch;
        }
    }
    devices.iter().for_each(Device::check);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn devices_converge_and_digests_are_those_of_the_rows(steps in steps(), rows_per_page in 1..4usize) {
        let (mut devices, mut server) = ([Device::new(1), Device::new(2)], Server::new());
        server.rows_per_page = rows_per_page;
        let mut backup = server.clone();
        for one in &steps {
            step(&mut devices, &mut server, &mut backup, one);
        }
        // What was refused with another offer is offered again one round later.
        for device in [0, 1, 0, 1, 0, 1, 0, 1] {
            devices[device].sync_in_step(&mut server);
            devices[device].check();
        }
        let counts = devices.each_ref().map(|device| device.store.counts().unwrap());
        prop_assert!(counts.iter().all(|counts| counts.unconfirmed == 0));
        prop_assert_eq!(everything(&devices[0]), everything(&devices[1]));
        let fresh = Device::new(3);
        fresh.sync_in_step(&mut server);
        prop_assert_eq!(everything(&fresh), everything(&devices[0]));
    }
}

/// What may happen to a counter: nothing here is refused, so that every increment counts once.
#[derive(Debug, Clone)]
enum Count {
    Add {
        device: usize,
        delta: i64,
    },
    Sync {
        device: usize,
    },
    /// The server takes the transactions; their answers are lost.
    PushOnly {
        device: usize,
    },
    /// The server takes the transactions and answers; the rows do not come back.
    PushAndHear {
        device: usize,
    },
    PullHalf {
        device: usize,
    },
    Refill {
        device: usize,
    },
    Reopen {
        device: usize,
    },
    Backup,
    Restore,
}

fn counts(lossy: impl Strategy<Value = Count> + 'static) -> impl Strategy<Value = Vec<Count>> {
    let device = 0..2usize;
    let count = prop_oneof![
        6 => (device.clone(), 1..1_000i64).prop_map(|(device, delta)| Count::Add { device, delta }),
        3 => device.clone().prop_map(|device| Count::Sync { device }),
        1 => device.clone().prop_map(|device| Count::PushAndHear { device }),
        1 => device.clone().prop_map(|device| Count::PullHalf { device }),
        1 => device.clone().prop_map(|device| Count::Refill { device }),
        1 => device.prop_map(|device| Count::Reopen { device }),
        2 => lossy,
    ];
    prop::collection::vec(count, 1..40)
}

fn count(devices: &mut [Device; 2], server: &mut Server, backup: &mut Server, step: &Count) -> i64 {
    match step {
        Count::Add { device, delta } => {
            devices[*device].write(|tx| tx.increment("items", row(1), "stock", *delta));
            return *delta;
        }
        Count::Sync { device } => devices[*device].sync_in_step(server),
        Count::PushOnly { device } => {
            let device = &devices[*device];
            device.greet(server);
            server.push(device.id, &device.outbox());
        }
        Count::PushAndHear { device } => {
            let device = &devices[*device];
            device.greet(server);
            let outcomes = server.push(device.id, &device.outbox());
            device.outcomes(outcomes);
        }
        Count::PullHalf { device } => {
            let device = &devices[*device];
            device.greet(server);
            let mut pages = server.pages(&device.standing());
            pages.pop();
            device.pages(pages);
        }
        Count::Refill { device } => {
            server.refill = Refill::BelowHorizon;
            devices[*device].greet(server);
            server.refill = Refill::No;
        }
        Count::Reopen { device } => devices[*device].reopen(),
        Count::Backup => *backup = server.clone(),
        Count::Restore => {
            let epoch = server.epoch + 1;
            *server = backup.clone();
            server.epoch = epoch;
        }
    }
    0
}

/// Every increment counts once, on each device at all times as far as it knows, and everywhere in the end.
fn every_increment_counts_once(steps: &[Count]) {
    let (mut devices, mut server) = ([Device::new(1), Device::new(2)], Server::new());
    server.rows_per_page = 1;
    devices[0].write(|tx| tx.insert("items", Some(row(1)), &[]));
    devices[0].write(|tx| tx.insert("items", Some(row(2)), &[]));
    devices[0].sync_in_step(&mut server);
    devices[1].sync_in_step(&mut server);
    let mut backup = server.clone();
    let (mut total, mut own) = (0, [0, 0]);
    for step in steps {
        let added = count(&mut devices, &mut server, &mut backup, step);
        if let Count::Add { device, .. } = step {
            own[*device] += added;
        }
        total += added;
        for (device, own) in devices.iter().zip(own) {
            device.check();
            assert!((own..=total).contains(&device.stock(row(1))), "{own} to {total}");
        }
    }
    for device in [0, 1, 0, 1, 0, 1] {
        devices[device].sync_in_step(&mut server);
    }
    assert_eq!(devices.each_ref().map(|device| device.stock(row(1))), [total, total]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_increment_counts_once_whatever_answers_are_lost(
        steps in counts((0..2usize).prop_map(|device| Count::PushOnly { device }))
    ) {
        every_increment_counts_once(&steps);
    }

    // An answer that was lost before a restore is another matter: the device sends again what another device has
    // offered already, and nobody can tell.
    #[test]
    fn every_increment_counts_once_whatever_backups_are_restored(
        steps in counts(prop_oneof![Just(Count::Backup), Just(Count::Restore)])
    ) {
        every_increment_counts_once(&steps);
    }
}
