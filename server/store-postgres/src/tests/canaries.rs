//! Tenants behind a pooler in transaction mode with two connections, every row with its tenant's canary: whatever is
//! asked, and whatever goes wrong in the middle of it, no tenant sees the canary of another one.
//!
//! A sample runs with all tests. [`QUERIES_VARIABLE`] asks for more:
//! `FARSHORE_TEST_POOLED_QUERIES=1000000 cargo test -p farshore-store-postgres canaries -- --nocapture`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{sample_store_of, titled_batch};
use farshore_store::devices::{DeviceRecord, DeviceStore as _};
use farshore_store::sync::{PageRequest, RowChange, ScopeRead, SyncStore as _};
use farshore_store::sync_core::ids::{DeviceId, UserId};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use self::questions::{Chance, Plan, Seen, canary};
use super::pooler::Pooled;
use super::*;
use crate::database::{Database as Connections, Pace};
use crate::failure::Failure;
use crate::names::Names;
use crate::query::Query;
use crate::tenant::{OpenTenant, PostgresTenant, TenantTransaction};

mod questions;

/// The variable with the number of queries to be answered.
const QUERIES_VARIABLE: &str = "FARSHORE_TEST_POOLED_QUERIES";
/// Queries to be answered where the variable does not say.
const SAMPLE_QUERIES: u64 = 20_000;
/// Queries of the control, which has to see a foreign canary among them.
const CONTROL_QUERIES: u64 = 2_000;
const TENANTS: u64 = 50;
const CLIENTS: u64 = 16;
const POOL_SIZE: u32 = 2;
/// Notes of a tenant, more than a query shows.
const NOTES: u16 = 6;
/// Time between two interventions of the operator, who cancels and ends what runs.
const INTERVENTION: Duration = Duration::from_millis(20);

fn record(tenant: u64) -> DeviceRecord {
    DeviceRecord {
        id: device(tenant, 0),
        user: UserId::from_bytes([2; 16]),
        name: canary(tenant),
        grants: Vec::new(),
        suspended: false,
        created_at_ms: 1,
    }
}

fn device(tenant: u64, number: u64) -> DeviceId {
    let bytes = format!("{}-{number:06x}", canary(tenant)).into_bytes();
    DeviceId::from_bytes(bytes.try_into().unwrap())
}

/// The store, as it is.
struct Store {
    tenants: Vec<PostgresTenant>,
    digest_keys: Vec<[u8; 32]>,
    epochs: Vec<u64>,
}

impl Store {
    async fn new(pooled: &Pooled) -> Self {
        let roles = pooled.server.roles();
        let mut config = pooled.server.config.clone();
        config.limits.max_connections = NonZeroU32::new(u32::try_from(CLIENTS).unwrap()).unwrap();
        let connections = Connections::new(config);
        let (mut tenants, mut digest_keys, mut epochs) = (Vec::new(), Vec::new(), Vec::new());
        for names in all_names(pooled) {
            let open = OpenTenant::new(Arc::clone(&connections), names, roles.clone());
            let tenant = PostgresTenant(Arc::new(open));
            epochs.push(tenant.head().await.unwrap().epoch);
            digest_keys.push(tenant.digest_key().await.unwrap().0);
            tenants.push(tenant);
        }
        Self { tenants, digest_keys, epochs }
    }

    /// Most transactions ask in the tenant's own way for what they like, and some through the store's own methods.
    async fn run(&self, plan: &Plan) -> Result<Seen, Failure> {
        let (tenant, mut seen) = (plan.tenant, Seen::default());
        let at = usize::try_from(tenant).unwrap();
        let store = &self.tenants[at];
        match plan.kind {
            0 => store.put_device(&record(tenant)).await?,
            1 => {
                // Text with a zero byte is refused in the middle of a transaction.
                let refused = DeviceRecord { name: "\0".to_owned(), ..record(tenant) };
                seen.wrong += u64::from(store.put_device(&refused).await.is_ok());
                return Ok(Seen { failed: 1, ..seen });
            }
            2 => {
                let scopes = vec![ScopeRead::from_checkpoint("tenant".parse().unwrap(), 0)];
                let request = PageRequest { scopes, target_bytes: 1 << 20, max_rows: NOTES.into() };
                let page = store.page(request).await?;
                let states = page.rows.iter().map(|row| match &row.change {
                    RowChange::State(state) => String::from_utf8_lossy(state).into_owned(),
                    RowChange::Deleted(_) | RowChange::Departed => String::new(),
                });
                let states: Vec<String> = states.collect();
                seen.texts(tenant, NOTES.into(), states.iter().map(String::as_str));
            }
            3 => {
                let devices = store.devices(None, 10).await?;
                seen.texts(tenant, 1, devices.iter().map(|device| device.name.as_str()));
            }
            4 => {
                let (epoch, device) = (self.epochs[at], device(tenant, plan.nonce));
                let batch = titled_batch(epoch, device, 1, &canary(tenant));
                let committed = store.commit(batch).await?;
                seen.wrong += u64::from(committed.seq != committed.seq_before + 1);
            }
            _ => return self.ask(store, plan).await,
        }
        Ok(Seen { answered: 1, transactions: 1, ..seen })
    }

    /// A statement on `other.table`, on the tables of another tenant.
    fn of_another(&self, tenant: u64, statement: &str) -> String {
        let other = &self.tenants[usize::try_from((tenant + 1) % TENANTS).unwrap()].0.names;
        statement.replace("other.", &format!("{}.", other.schema()))
    }

    async fn ask(&self, store: &PostgresTenant, plan: &Plan) -> Result<Seen, Failure> {
        let mut seen = Seen::default();
        let TenantTransaction { mut transaction, standing } = match plan.kind {
            5 => store.0.write(Pace::Hot).await?,
            _ => store.0.read(Pace::Hot).await?,
        };
        let key = self.digest_keys[usize::try_from(plan.tenant).unwrap()];
        seen.wrong += u64::from(standing.digest_key.0 != key);
        let names = &store.0.names;
        let asked = async {
            let rows = transaction.script(own(names, &plan.script)).await?;
            seen.rows(plan.tenant, plan.rows, &rows);
            seen.answered += plan.queries;
            if let Some(failing) = &plan.failing {
                transaction.script(names.qualify(&self.of_another(plan.tenant, failing))).await?;
                seen.wrong += 1;
            }
            let rows = transaction.rows(Query::new(own(names, plan.last.0))).await?;
            seen.rows(plan.tenant, plan.last.1, &rows);
            seen.answered += 1;
            Ok(())
        };
        let asked = asked.await;
        match transaction.end(asked).await {
            Ok(()) => seen.transactions += 1,
            // What was answered before counts all the same.
            Err(_) => seen.failed += 1,
        }
        Ok(seen)
    }
}

/// A client that sets its walls for the session, as one would without a pooler.
struct PlainSet {
    connection: PgConnection,
    roles: Roles,
    names: Vec<Names>,
}

impl PlainSet {
    async fn connect(pooled: &Pooled) -> Self {
        let options = pooled.server.config.url.options();
        let connection = PgConnection::connect_with(&options).await.unwrap();
        Self { connection, roles: pooled.server.roles(), names: all_names(pooled) }
    }

    /// The same queries, on whatever the session is set to.
    async fn run(&mut self, plan: &Plan) -> Result<Seen, sqlx::Error> {
        let mut seen = Seen::default();
        let names = &self.names[usize::try_from(plan.tenant).unwrap()];
        let (role, key, schema) = (self.roles.of(&names.key), &names.key, names.schema());
        let views = names.views();
        let set = format!(
            "SET ROLE {role}; SET farshore.tenant = '{key}'; SET search_path = {schema}, {views}"
        );
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut self.connection).await?;
        let script =
            sqlx::raw_sql(AssertSqlSafe(plan.script.replace("main.", "").replace("rows.", "")));
        let rows = script.fetch_all(&mut self.connection).await?;
        seen.rows(plan.tenant, plan.rows, &rows);
        Ok(Seen { answered: plan.queries, transactions: 1, ..seen })
    }
}

/// The names of the tenants, in their order.
fn all_names(pooled: &Pooled) -> Vec<Names> {
    let keys = pooled.server.run("SELECT id, key FROM farshore.tenants ORDER BY id");
    let names = keys.lines().map(|line| {
        let (id, key) = line.split_once('|').unwrap();
        Names::new(id.parse().unwrap(), key.parse().unwrap())
    });
    names.collect()
}

/// A query on the tables and views of a tenant.
fn own(names: &Names, query: &str) -> String {
    names.qualify(query).replace("rows.", &format!("{}.", names.views()))
}

/// Fifty tenants whose every row says whose it is.
async fn tenants(pooled: &Pooled) {
    let (catalog, authority) = pooled.server.catalog().await;
    for tenant in 0..TENANTS {
        let scope = scope(&authority, &canary(tenant));
        let store = sample_store_of(&catalog, &scope).await;
        let epoch = store.head().await.unwrap().epoch;
        let batch = titled_batch(epoch, device(tenant, 0), NOTES, &canary(tenant));
        store.commit(batch).await.unwrap();
        store.put_device(&record(tenant)).await.unwrap();
        drop(catalog.open(&scope).await.unwrap());
    }
}

/// An operator who cancels what runs and ends connections, again and again.
fn intervene(pooled: &Pooled) -> AbortHandle {
    let (url, name) = (pooled.server.database.superuser_url(), pooled.server.database.name());
    let ours = format!("FROM pg_stat_activity WHERE usename = '{name}' AND state <> 'idle'");
    let interventions = [
        format!("SELECT pg_cancel_backend(pid) {ours} ORDER BY random() LIMIT 1"),
        format!("SELECT pg_cancel_backend(pid) {ours}"),
        format!("SELECT pg_terminate_backend(pid) {ours} ORDER BY random() LIMIT 1"),
    ];
    let operator = async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for intervention in interventions.iter().cycle() {
            sleep(INTERVENTION).await;
            let intervention = sqlx::raw_sql(AssertSqlSafe(intervention.clone()));
            intervention.execute(&mut connection).await.unwrap();
        }
    };
    tokio::spawn(operator).abort_handle()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a million queries take minutes, which are asked for by the environment"
)]
fn wanted_queries() -> u64 {
    let wanted = std::env::var(QUERIES_VARIABLE).ok();
    wanted.map_or(SAMPLE_QUERIES, |wanted| wanted.parse().expect("a number of queries"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_shows_the_canary_of_another_tenant() {
    let pooled = Pooled::new(POOL_SIZE);
    tenants(&pooled).await;
    let store = Arc::new(Store::new(&pooled).await);
    let (wanted, answered) = (wanted_queries(), Arc::new(AtomicU64::new(0)));
    let operator = intervene(&pooled);
    let clients = (1..=CLIENTS).map(|client| {
        let (store, answered) = (Arc::clone(&store), Arc::clone(&answered));
        tokio::spawn(async move {
            let (mut chance, mut all) = (Chance(client << 32 | 0x5eed), Seen::default());
            while answered.load(Ordering::Relaxed) < wanted {
                let plan = Plan::by(&mut chance);
                let seen = match plan.patience {
                    Some(patience) => timeout(patience, store.run(&plan)).await,
                    None => Ok(store.run(&plan).await),
                };
                let seen = match seen {
                    Ok(Ok(seen)) => seen,
                    Ok(Err(_)) => Seen { failed: 1, ..Seen::default() },
                    Err(_) => Seen { dropped: 1, ..Seen::default() },
                };
                answered.fetch_add(seen.answered, Ordering::Relaxed);
                all += seen;
            }
            all
        })
    });
    let mut all = Seen::default();
    for client in clients.collect::<Vec<_>>() {
        all += client.await.unwrap();
    }
    operator.abort();
    println!("{TENANTS} tenants, {POOL_SIZE} connections: {all:?}");
    assert!(all.answered >= wanted, "{all:?}");
    assert_eq!((all.foreign, all.wrong), (0, 0), "{all:?}");
    let enough = wanted / 1_000;
    assert!(all.failed > enough && all.dropped > enough, "too little went wrong: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_with_a_plain_set_shows_foreign_canaries() {
    let pooled = Arc::new(Pooled::new(POOL_SIZE));
    tenants(&pooled).await;
    let answered = Arc::new(AtomicU64::new(0));
    let clients = (1..=CLIENTS).map(|client| {
        let (pooled, answered) = (Arc::clone(&pooled), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut connection = PlainSet::connect(&pooled).await;
            let (mut chance, mut all) = (Chance(client << 32 | 0x5eed), Seen::default());
            while answered.load(Ordering::Relaxed) < CONTROL_QUERIES {
                let seen = connection.run(&Plan::by(&mut chance)).await.unwrap_or_default();
                answered.fetch_add(seen.answered, Ordering::Relaxed);
                all += seen;
            }
            all
        })
    });
    let mut all = Seen::default();
    for client in clients.collect::<Vec<_>>() {
        all += client.await.unwrap();
    }
    assert!(all.foreign > 0, "the test would not see a foreign canary: {all:?}");
}
