//! What stands between tenants, seen from the database.

use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{commit_notes, sample_tenant_named};
use farshore_store::sql::{Sql as _, Statement};
use farshore_store::sync::SyncStore as _;

use super::*;
use crate::database::{Database as Connections, Pace};
use crate::tenant::{OpenTenant, PostgresTenant};

async fn two_tenants(server: &Server) -> Roles {
    let (catalog, authority) = server.catalog().await;
    for name in ["left", "right"] {
        sample_tenant_named(&catalog, &scope(&authority, name), 3).await;
    }
    server.roles()
}

#[tokio::test]
async fn a_role_reaches_its_own_tenant_alone() {
    let server = Server::new();
    let roles = two_tenants(&server).await;
    let (left, right) = (server.names("left").key, server.names("right").key);
    let role = roles.of(&left);
    let tried = |statement: &str| {
        let transaction = format!(
            "BEGIN; SET LOCAL ROLE {role}; SET LOCAL farshore.tenant = '{right}'; {statement}; ROLLBACK;"
        );
        server.database.run_as_owner(&server.named(&transaction)).map_err(|error| error.to_string())
    };
    for statement in [
        "SELECT count(*) FROM tenant_right.changes",
        "SET LOCAL search_path = tenant_right; SELECT count(*) FROM changes",
        "UPDATE tenant_right.standing SET seq = 0",
        "SELECT count(*) FROM farshore.tenants",
        "SELECT count(*) FROM farshore.platform",
        "ALTER TABLE tenant_left.changes DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON tenant_left.changes",
        "CREATE TABLE tenant_left.mine (x int)",
        "TRUNCATE tenant_left.changes",
    ] {
        let refused = tried(statement).unwrap_err();
        let expected = ["permission denied", "must be owner", "does not exist"];
        assert!(expected.iter().any(|text| refused.contains(text)), "{statement}: {refused}");
    }
    let own =
        format!("SET LOCAL farshore.tenant = '{left}'; SELECT count(*) FROM tenant_left.changes");
    assert_eq!(tried(&own).unwrap().trim(), "3", "the control: the same role sees its own rows");
}

#[tokio::test]
async fn rows_show_only_to_a_transaction_that_names_the_tenant() {
    let server = Server::new();
    let roles = two_tenants(&server).await;
    let (left, right) = (server.names("left").key, server.names("right").key);
    for role in [&roles.of(&right), &roles.owner()] {
        let count = |settings: &str| {
            let transaction = format!(
                "BEGIN; SET LOCAL ROLE {role}; {settings} SELECT count(*) FROM tenant_right.changes; ROLLBACK;"
            );
            server.database.run_as_owner(&server.named(&transaction)).unwrap().trim().to_owned()
        };
        let naming = |key| format!("SET LOCAL farshore.tenant = '{key}';");
        assert_eq!(count(&naming(&right)), "3", "{role}");
        assert_eq!(count(&naming(&left)), "0", "{role}");
        assert_eq!(count(""), "0", "{role}");
    }
    let without_a_role = server.named("SELECT count(*) FROM tenant_right.changes");
    let without_a_role = server.database.run_as_owner(&without_a_role);
    let refused = without_a_role.unwrap_err().to_string();
    assert!(refused.contains("permission denied"), "we inherit nothing: {refused}");
}

#[tokio::test]
async fn every_table_has_its_walls_and_another_owner() {
    let server = Server::new();
    let roles = two_tenants(&server).await;
    let tables =
        "FROM pg_class c WHERE c.relnamespace = 'tenant_left'::regnamespace AND c.relkind = 'r'";
    let open = format!(
        "SELECT relname {tables} AND NOT (relrowsecurity AND relforcerowsecurity AND \
         (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid) = 1)"
    );
    assert_eq!(server.run(&open), "");
    let owners =
        server.run(&format!("SELECT DISTINCT quote_ident(relowner::regrole::text) {tables}"));
    assert_eq!(owners.trim_matches('"'), roles.owner().trim_matches('"'));
    let most_tables = 10;
    let count: usize = server.run(&format!("SELECT count(*) {tables}")).parse().unwrap();
    assert!(count <= most_tables, "{count} tables: each costs a dozen rows of the catalogue");
}

#[tokio::test]
async fn nothing_outlives_a_transaction() {
    let server = Server::cramped();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "left"), 3).await;
    let connections = Connections::new(server.config.clone());
    let (names, roles) = (server.names("left"), server.roles());
    let tenant = PostgresTenant(Arc::new(OpenTenant::new(Arc::clone(&connections), names, roles)));
    assert_eq!(tenant.head().await.unwrap(), store.head().await.unwrap());
    let refused = Statement::new("SELECT json FROM main.schemas WHERE no_such_column = 1", []);
    tenant.query("test", refused).await.unwrap_err();

    let look = "SELECT current_user::text || ' ' \
        || coalesce(current_setting('farshore.tenant', true), '') || ' ' \
        || (SELECT count(*) FROM pg_prepared_statements)";
    let (transaction, rows) = connections.begin("BEGIN", Pace::Hot, look).await.unwrap();
    let left: String = sqlx::Row::get(&rows[0], 0);
    assert_eq!(
        left,
        format!("{}  0", server.database.name()),
        "on the one connection that there is"
    );
    transaction.end(Ok(())).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_names_no_schema_finds_nothing() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "left"), 1).await;
    let (names, roles) = (server.names("left"), server.roles());
    let connections = Connections::new(server.config.clone());
    let tenant = PostgresTenant(Arc::new(OpenTenant::new(connections, names, roles)));
    let bare = Statement::new("SELECT json FROM schemas", []);
    let error = tenant.query("test", bare).await.unwrap_err().to_string();
    assert!(error.contains("\"schemas\" does not exist"), "{error}");
    let named = Statement::new("SELECT json FROM main.schemas", []);
    assert_eq!(tenant.query("test", named).await.unwrap().len(), 1);
    commit_notes(&store, 1).await;
}

#[tokio::test]
async fn another_node_notices_an_erasure() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "left"), 1).await;
    let (other, other_authority) = server.catalog().await;
    other.erase(&scope(&other_authority, "left")).await.unwrap();
    let error = store.head().await.unwrap_err();
    assert!(matches!(error, farshore_store::StoreError::Erased), "{error}");
    let opened = catalog.open(&scope(&authority, "left")).await;
    let opened = opened.err().unwrap();
    assert!(matches!(opened, farshore_store::catalog::CatalogError::Erased { .. }), "{opened}");
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'farshore_' || \
        (SELECT id FROM farshore.platform) || '%'";
    assert_eq!(server.run(roles), "1", "the role went, and the owner of the tables stays");
}
