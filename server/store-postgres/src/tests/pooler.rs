//! PgBouncer in transaction mode, with two connections to the database: whoever left something in a session would
//! leave it to another tenant.

use std::time::Duration;

use farshore_store::SharedTenantStore;
use farshore_store::conformance::sample_tenant_named;
use farshore_store::devices::DeviceRecord;
use farshore_store::sync::{PageRequest, ScopeRead};
use farshore_store::sync_core::ids::{DeviceId, UserId};
use sqlx::{Connection as _, PgConnection, Row as _};
use test_services::pgbouncer::PgBouncer;
use tokio::time::timeout;

use super::*;
use crate::names::Roles;

const TENANTS: usize = 20;
const CLIENTS: usize = 8;
const QUERIES_PER_CLIENT: usize = 250;
/// Sometimes long enough for a query and sometimes not.
const IMPATIENCE: Duration = Duration::from_micros(1_500);

/// A database behind a pooler.
struct Pooled {
    _pooler: PgBouncer,
    server: Server,
}

impl Pooled {
    fn new(pool_size: u32) -> Self {
        let mut server = Server::new();
        let pooler = PgBouncer::start(&server.database, pool_size).unwrap();
        server.config.url = pooler.url().parse().unwrap();
        Self { _pooler: pooler, server }
    }
}

#[async_trait]
impl Storage for Pooled {
    async fn open(&self) -> (Arc<dyn Catalog>, ScopeAuthority) {
        Storage::open(&self.server).await
    }
}

mod with_two_connections {
    use super::*;
    farshore_store::conformance_suite!(Pooled::new(2));
}

fn canary(tenant: usize) -> DeviceRecord {
    DeviceRecord {
        id: DeviceId::from_bytes([1; 16]),
        user: UserId::from_bytes([2; 16]),
        name: format!("canary of {tenant}"),
        grants: Vec::new(),
        suspended: false,
        created_at_ms: 1,
    }
}

/// One query of some kind; whether it showed a foreign row.
async fn query(store: &SharedTenantStore, tenant: usize, kind: usize) -> bool {
    let devices = async || {
        let devices = store.devices(None, 10).await.unwrap();
        devices != [canary(tenant)]
    };
    match kind % 5 {
        0 => store.put_device(&canary(tenant)).await.is_err(),
        1 => {
            // Text with a zero byte is refused in the middle of a transaction.
            let mut refused = canary(tenant);
            refused.name = "\0".to_owned();
            store.put_device(&refused).await.is_ok()
        }
        2 => {
            let scopes = vec![ScopeRead::from_checkpoint("tenant".parse().unwrap(), 0)];
            let request = PageRequest { scopes, target_bytes: 1 << 20, max_rows: 100 };
            store.page(request).await.unwrap().rows.len() != tenant + 1
        }
        // Nobody waits for the answer any more, at some moment.
        3 => timeout(IMPATIENCE, devices()).await.unwrap_or(false),
        _ => devices().await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_shows_a_row_of_another_tenant() {
    let pooled = Pooled::new(2);
    let (catalog, authority) = pooled.server.catalog().await;
    let mut stores = Vec::new();
    for tenant in 0..TENANTS {
        let scope = scope(&authority, &format!("tenant-{tenant}"));
        let notes = u16::try_from(tenant + 1).unwrap();
        let store = sample_tenant_named(&catalog, &scope, notes).await;
        store.put_device(&canary(tenant)).await.unwrap();
        stores.push(store);
    }
    let clients = (0..CLIENTS).map(|client| {
        let stores = stores.clone();
        tokio::spawn(async move {
            let mut foreign = 0;
            for number in 0..QUERIES_PER_CLIENT {
                let tenant = (client * 7 + number * 11) % TENANTS;
                foreign += usize::from(query(&stores[tenant], tenant, client + number).await);
            }
            foreign
        })
    });
    for client in clients.collect::<Vec<_>>() {
        assert_eq!(client.await.unwrap(), 0, "foreign rows");
    }
}

#[tokio::test]
async fn the_control_shows_what_a_plain_set_would_do() {
    let pooled = Pooled::new(1);
    let (catalog, authority) = pooled.server.catalog().await;
    for tenant in 0..2 {
        let scope = scope(&authority, &format!("tenant-{tenant}"));
        let store = sample_tenant_named(&catalog, &scope, 1).await;
        store.put_device(&canary(tenant)).await.unwrap();
    }
    let roles = Roles::new(&pooled.server.platform());
    let mut clients = Vec::new();
    for tenant in 0..2 {
        let options = pooled.server.config.url.options();
        let mut client = PgConnection::connect_with(&options).await.unwrap();
        let name = format!("tenant-{tenant}");
        let role = roles.of(&name.parse().unwrap());
        let set = format!(
            "SET ROLE {role}; SET farshore.tenant = '{name}'; SET search_path = \"tenant_{name}\""
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut client).await.unwrap();
        clients.push(client);
    }
    let look = sqlx::raw_sql("SELECT name FROM devices").fetch_one(&mut clients[0]);
    let seen: String = look.await.unwrap().get(0);
    assert_eq!(seen, canary(1).name, "the first client reads the second one's tenant");
}
