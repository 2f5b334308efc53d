//! The journal that all tenants share: nothing acknowledged is lost with the end of a log, and nothing comes twice.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use farshore_store::SharedTenantStore;
use farshore_store::StoreError;
use farshore_store::catalog::{Catalog as _, CatalogError};
use farshore_store::conformance::{commit_notes, sample_store_of, sample_tenant, titled_batch};
use farshore_store::sealing::MasterKey;
use farshore_store::sync::{Head, PushResult};
use farshore_store::sync_core::ids::DeviceId;

use super::{Disk, after_a_crash, process, scope};
use crate::config::JournalMode;
use crate::connection::{self, Role};
use crate::data_key::DataKey;
use crate::journal::{Journal, Sweep};

/// The head of a tenant after a restart, whose sums are those of its rows.
fn head_of(disk: &Disk) -> Result<Head, CatalogError> {
    process(async {
        let (catalog, authority) = disk.catalog();
        let store = catalog.open(&scope(&authority, "demo")).await?;
        assert_eq!(store.scrub().await.unwrap(), []);
        Ok(store.head().await.unwrap())
    })
}

/// How many records the journal of a closed data directory has.
fn records_in(disk: &Disk) -> i64 {
    let key = DataKey::of_journal(&disk.master);
    let path = disk.config.data_dir.join("journal.db");
    let journal = connection::open(&path, &key, Role::Writer, &disk.config).unwrap();
    journal.query_row("SELECT COUNT(*) FROM records", [], |row| row.get(0)).unwrap()
}

fn log_of(disk: &Disk) -> std::path::PathBuf {
    disk.tenants().join("demo.db-wal")
}

fn log_length(disk: &Disk, number: u64) -> u64 {
    fs::metadata(disk.tenants().join(format!("tenant-{number}.db-wal"))).unwrap().len()
}

/// A tenant that was killed after some commits.
struct Killed {
    disk: Disk,
    /// Where it stood.
    head: Head,
    /// How much of its log was synced.
    synced: u64,
}

async fn killed_after(commits: u64) -> Killed {
    let disk = Disk::new();
    let (catalog, authority) = disk.catalog();
    let store = sample_store_of(&catalog, &scope(&authority, "demo")).await;
    let synced = fs::metadata(log_of(&disk)).unwrap().len();
    for _ in 0..commits {
        commit_notes(&store, 3).await;
    }
    Killed { disk: after_a_crash(&disk), head: store.head().await.unwrap(), synced }
}

impl Killed {
    /// The log as it was synced.
    fn cut_log(&self) {
        let log = fs::File::options().write(true).open(log_of(&self.disk)).unwrap();
        log.set_len(self.synced).unwrap();
    }
}

#[test]
fn a_log_that_is_lost_from_any_place_on_loses_no_commit() {
    let Killed { disk, head, synced } = process(killed_after(6));
    let log = fs::read(log_of(&disk)).unwrap();
    for length in (synced as usize..log.len()).step_by(4_003) {
        let crashed = after_a_crash(&disk);
        fs::write(log_of(&crashed), &log[..length]).unwrap();
        assert_eq!(head_of(&crashed).unwrap(), head, "{length} of {} bytes", log.len());
    }
}

#[test]
fn a_log_of_which_a_frame_is_missing_before_others_is_mended() {
    let Killed { disk, head, synced } = process(killed_after(6));
    let log = fs::read(log_of(&disk)).unwrap();
    for frame in (synced as usize..log.len()).step_by(24 + 4096) {
        let crashed = after_a_crash(&disk);
        let mut torn = log.clone();
        torn[frame..frame + 24 + 4096].fill(0);
        fs::write(log_of(&crashed), torn).unwrap();
        assert_eq!(head_of(&crashed).unwrap(), head, "frame at {frame}");
        assert_eq!(head_of(&crashed).unwrap(), head, "frame at {frame}, opened again");
    }
}

#[test]
fn what_was_synced_and_is_missing_is_told() {
    let Killed { disk, synced, .. } = process(killed_after(2));
    let log = fs::read(log_of(&disk)).unwrap();
    for length in (0..synced as usize).step_by(4_003) {
        let crashed = after_a_crash(&disk);
        fs::write(log_of(&crashed), &log[..length]).unwrap();
        let error = head_of(&crashed).unwrap_err();
        assert!(matches!(error, CatalogError::Store(StoreError::Damaged { .. })), "{error}");
    }
}

/// A write that syncs the tenant's file is not in the journal: a log that lost it was damaged.
#[test]
fn a_synced_write_that_is_missing_before_others_is_told() {
    let disk = Disk::new();
    let crashed = process(async {
        let store = sample_tenant(&disk, 2).await;
        // What was in the journal comes into the file with the first one, and the second one begins a new log.
        store.begin_epoch(7).await.unwrap();
        store.begin_epoch(8).await.unwrap();
        for _ in 0..2 {
            commit_notes(&store, 3).await;
        }
        after_a_crash(&disk)
    });
    let mut log = fs::read(log_of(&crashed)).unwrap();
    log[32 + 24 + 100] ^= 1;
    fs::write(log_of(&crashed), log).unwrap();
    let error = head_of(&crashed).unwrap_err();
    assert!(matches!(error, CatalogError::Store(StoreError::Damaged { .. })), "{error}");
}

/// Commits without a read between them.
async fn commit_at_once(store: &SharedTenantStore, epoch: u64, commits: u16) {
    for commit in 0..commits {
        let device = DeviceId::from_parts(u64::from(commit), &[8; 10]);
        store.commit(titled_batch(epoch, device, 1, "a note")).await.unwrap();
    }
}

#[test]
fn commits_that_follow_each_other_share_a_transaction_and_survive_a_crash() {
    const COMMITS: u16 = 100;
    let disk = Disk::new();
    let crashed = process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        let length = || fs::metadata(log_of(&disk)).unwrap().len();
        let before = length();
        for _ in 0..COMMITS {
            commit_notes(&store, 1).await;
        }
        let with_reads = length() - before;
        commit_at_once(&store, epoch, COMMITS).await;
        let crashed = after_a_crash(&disk);
        store.head().await.unwrap();
        let without = length() - before - with_reads;
        assert!(without < with_reads, "{without} bytes of log, and with reads {with_reads}");
        crashed
    });
    assert_eq!(head_of(&crashed).unwrap().seq, 2 * u64::from(COMMITS));
}

#[test]
fn a_transaction_that_comes_again_is_known_before_its_answer_is_in_the_tables() {
    let disk = Disk::new();
    process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        let [batch, another] =
            [2, 1].map(|notes| titled_batch(epoch, DeviceId::from_parts(9, &[9; 10]), notes, "a"));
        commit_at_once(&store, epoch, 3).await;
        let first = store.commit(batch.clone()).await.unwrap();
        let again = store.commit(batch).await.unwrap();
        assert_eq!(again.results, first.results);
        assert_eq!((again.seq_before, again.seq), (first.seq, first.seq));
        let forked = store.commit(another).await.unwrap().results;
        assert!(matches!(forked[..], [PushResult::Forked { number: 1, .. }]), "{forked:?}");
    });
}

#[test]
fn what_commits_left_unwritten_is_written_with_the_end_of_their_transaction() {
    let disk = Disk::new();
    process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        for round in 0..2_u8 {
            let device = |number| DeviceId::from_parts(number, &[round; 10]);
            for number in 0..5 {
                let batch = titled_batch(epoch, device(number), 1, "a note");
                store.commit(batch).await.unwrap();
            }
            assert_eq!(store.scrub().await.unwrap(), []);
            assert_eq!(store.device_progress(device(4)).await.unwrap().high_water, 1);
        }
    });
}

#[test]
fn a_commit_that_the_journal_does_not_take_leaves_nothing() {
    let mut disk = Disk::new();
    disk.config.busy_timeout_ms = 1;
    let (crashed, after) = process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        commit_at_once(&store, epoch, 3).await;
        let key = DataKey::of_journal(&disk.master);
        let path = disk.config.data_dir.join("journal.db");
        let other = connection::open(&path, &key, Role::Writer, &disk.config).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let batch = titled_batch(epoch, DeviceId::from_parts(9, &[9; 10]), 2, "a note");
        let failed = store.commit(batch.clone()).await;
        assert!(matches!(failed, Err(StoreError::Database { .. })), "{failed:?}");
        drop(other);
        store.commit(batch).await.unwrap();
        assert_eq!(store.scrub().await.unwrap(), []);
        (after_a_crash(&disk), store.head().await.unwrap())
    });
    assert_eq!(after.seq, 5);
    assert_eq!(head_of(&crashed).unwrap(), after);
}

#[test]
fn a_tenant_that_closes_with_a_transaction_open_writes_what_commits_left_unwritten() {
    let disk = Disk::new();
    let after = process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        commit_at_once(&store, epoch, 3).await;
        epoch
    });
    assert_eq!(records_in(&disk), 0);
    let head = head_of(&disk).unwrap();
    assert_eq!((head.epoch, head.seq), (after, 3));
}

#[test]
fn a_commit_that_is_refused_takes_no_other_with_it() {
    let disk = Disk::new();
    let (crashed, after) = process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        commit_at_once(&store, epoch, 3).await;
        let another = titled_batch(epoch + 1, DeviceId::from_parts(9, &[9; 10]), 1, "a note");
        let refused = store.commit(another).await;
        assert!(matches!(refused, Err(StoreError::BegunAnew)), "{refused:?}");
        store
            .commit(titled_batch(epoch, DeviceId::from_parts(9, &[9; 10]), 1, "a note"))
            .await
            .unwrap();
        (after_a_crash(&disk), store.head().await.unwrap())
    });
    assert_eq!(after.seq, 4);
    assert_eq!(head_of(&crashed).unwrap(), after);
}

#[test]
fn a_transaction_that_is_held_open_ends_by_itself() {
    const LOOKS: u32 = 3_000;
    let disk = Disk::new();
    process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        let length = || fs::metadata(log_of(&disk)).unwrap().len();
        let before = length();
        commit_at_once(&store, epoch, 1).await;
        for _ in 0..LOOKS {
            if length() > before {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        panic!("it is still open after {LOOKS} looks");
    });
}

#[test]
fn a_transaction_that_is_held_open_ends_before_the_runtime_does() {
    let disk = Disk::new();
    let length = || fs::metadata(log_of(&disk)).unwrap().len();
    let (_store, before) = process(async {
        let store = sample_tenant(&disk, 0).await;
        let epoch = store.head().await.unwrap().epoch;
        let before = length();
        commit_at_once(&store, epoch, 1).await;
        (store, before)
    });
    assert!(length() > before, "a thread writes on that nobody waits for");
}

#[test]
fn what_was_closed_leaves_no_record() {
    let disk = Disk::new();
    process(async { commit_notes(&sample_tenant(&disk, 2).await, 3).await });
    assert_eq!(records_in(&disk), 0);
    assert_eq!(disk.files(), ["demo.db", "demo.key"]);
}

#[test]
fn the_journal_can_be_turned_off_and_on() {
    let killed = process(killed_after(3));
    killed.cut_log();
    let Killed { disk: mut killed, head, .. } = killed;
    killed.config.journal = JournalMode::Off;
    assert_eq!(head_of(&killed).unwrap(), head);
    assert_eq!(records_in(&killed), 0);
    process(async {
        let (catalog, authority) = killed.catalog();
        let store = catalog.open(&scope(&authority, "demo")).await.unwrap();
        commit_notes(&store, 1).await;
    });
    assert_eq!(records_in(&killed), 0, "a commit went into the journal");
    killed.config.journal = JournalMode::Shared;
    assert_eq!(head_of(&killed).unwrap().seq, head.seq + 1);
}

#[test]
fn records_of_an_erased_tenant_open_no_more() {
    let Killed { disk: killed, .. } = process(killed_after(3));
    let key =
        DataKey::load(&killed.tenants().join("demo.key"), &killed.master, &"demo".parse().unwrap());
    let records = key.unwrap().unwrap().of_records();
    let sealed = sealed_records(&killed);
    assert!(!sealed.is_empty());
    for (purpose, sealed) in &sealed {
        assert!(records.open(purpose, sealed).is_ok());
        assert!(killed.master.open(purpose, sealed).is_err(), "the master key alone opens it");
        let another = MasterKey::generate().unwrap();
        assert!(another.open(purpose, sealed).is_err());
    }
    process(async {
        let (catalog, authority) = killed.catalog();
        catalog.erase(&scope(&authority, "demo")).await.unwrap();
    });
    assert!(!killed.tenants().join("demo.key").exists());
    assert_eq!(records_in(&killed), 0);
}

fn sealed_records(disk: &Disk) -> Vec<(String, Vec<u8>)> {
    let key = DataKey::of_journal(&disk.master);
    let path = disk.config.data_dir.join("journal.db");
    let journal = connection::open(&path, &key, Role::Reader, &disk.config).unwrap();
    let mut query = journal.prepare("SELECT file, write, sealed FROM records").unwrap();
    let read = query.query_map([], |row| {
        let file: [u8; 16] = row.get(0)?;
        let purpose =
            format!("journal/{}/{}", data_encoding::HEXLOWER.encode(&file), row.get::<_, i64>(1)?);
        Ok((purpose, row.get(2)?))
    });
    read.unwrap().map(Result::unwrap).collect()
}

/// A copy that takes the place of a tenant is another file: what the journal has of the earlier one is not its.
#[test]
fn records_of_a_file_that_was_replaced_do_not_come_into_its_successor() {
    let Killed { disk: killed, .. } = process(killed_after(3));
    let before = after_a_crash(&killed);
    // The successor has arrived, and the journal has not forgotten yet.
    for name in ["demo.db", "demo.db-wal"] {
        fs::remove_file(killed.tenants().join(name)).unwrap();
    }
    let other = Disk::new();
    process(async { drop(sample_tenant(&other, 1).await) });
    let arrived = other.tenants();
    for name in ["demo.db", "demo.key"] {
        fs::copy(arrived.join(name), killed.tenants().join(name)).unwrap();
    }
    assert_eq!(head_of(&killed).unwrap().seq, 1);
    assert_eq!(records_in(&killed), 0);
    assert_eq!(head_of(&before).unwrap().seq, 9);
}

/// Commits of many tenants at the same time, then a crash that takes what no tenant synced.
#[test]
fn commits_of_many_tenants_survive_together() {
    const TENANTS: u64 = 12;
    let disk = Disk::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (crashed, synced) = runtime.block_on(async {
        let (catalog, authority) = disk.catalog();
        let mut stores: Vec<SharedTenantStore> = Vec::new();
        for number in 0..TENANTS {
            let scope = scope(&authority, &format!("tenant-{number}"));
            stores.push(sample_store_of(&catalog, &scope).await);
        }
        let synced: Vec<u64> = (0..TENANTS).map(|number| log_length(&disk, number)).collect();
        for round in 1..=3 {
            let commits: Vec<_> = stores
                .iter()
                .map(|store| {
                    let store = Arc::clone(store);
                    tokio::spawn(async move { commit_notes(&store, 2).await })
                })
                .collect();
            for commit in commits {
                commit.await.unwrap();
            }
            for store in &stores {
                assert_eq!(store.head().await.unwrap().seq, 2 * round);
            }
        }
        (after_a_crash(&disk), synced)
    });
    for (number, synced) in (0..TENANTS).zip(synced) {
        assert!(log_length(&crashed, number) > synced);
        let log = crashed.tenants().join(format!("tenant-{number}.db-wal"));
        fs::File::options().write(true).open(&log).unwrap().set_len(synced).unwrap();
    }
    process(async {
        let (catalog, authority) = crashed.catalog();
        for number in 0..TENANTS {
            let scope = scope(&authority, &format!("tenant-{number}"));
            let store = catalog.open(&scope).await.unwrap();
            assert_eq!(store.head().await.unwrap().seq, 6, "tenant {number}");
            assert_eq!(store.scrub().await.unwrap(), []);
        }
    });
    assert_eq!(records_in(&crashed), 0);
}

#[test]
fn the_log_of_the_journal_is_moved_and_begins_anew() {
    const PAGES: u64 = 32;
    let mut disk = Disk::new();
    disk.config.checkpoint_after_pages = PAGES as u32;
    let head = process(async {
        let store = sample_tenant(&disk, 1).await;
        for _ in 0..20 * PAGES {
            commit_notes(&store, 1).await;
        }
        let length = |name| fs::metadata(disk.config.data_dir.join(name)).unwrap().len();
        // Each commit writes a page at least; SQLite never makes a log shorter by itself.
        assert!(length("journal.db-wal") < 10 * PAGES * 4_096);
        assert!(length("journal.db") > PAGES / 2 * 4_096);
        store.head().await.unwrap()
    });
    assert_eq!(head_of(&disk).unwrap(), head);
}

#[test]
fn a_sweep_that_never_ran_leaves_room_for_another() {
    let mut disk = Disk::new();
    disk.config.journal_bytes = 0;
    fs::create_dir_all(&disk.config.data_dir).unwrap();
    let journal = Journal::open(Arc::new(disk.config.clone()), &disk.master).unwrap();
    let journal = Arc::new(journal);
    let sweep = Sweep::of(&journal).unwrap();
    assert!(Sweep::of(&journal).is_none(), "two at a time");
    // As by a runtime that ends before it comes to it.
    drop(sweep);
    Sweep::of(&journal).unwrap().run();
    assert!(Sweep::of(&journal).is_some());
}
