//! Games of somebody who signs in with psql as the role of one tenant: no row and no name of another one comes out.
//!
//! Whatever belongs to the other tenant has the word [`SECRET`] in it.

use std::time::Duration;

use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{commit_notes, sample_tenant_named, titled_batch};
use farshore_store::devices::DeviceRecord;
use farshore_store::sync_core::ids::{DeviceId, UserId};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use test_services::postgres::Place;
use tokio::task::spawn_blocking;

use super::*;

mod catalogues;

const SECRET: &str = "zebra";
/// The name of the other tenant.
const OTHER: &str = "zebra-airlines";
const PASSWORD: &str = "insider";
/// The words with which releases of Postgres refuse.
const DENIED: &str = "permission denied|must be|must have";

/// Two tenants, of which `acme` and the other one may sign in.
struct Insider {
    server: Server,
    /// The schemas, roles and keys by the names that games have for them.
    names: Vec<(&'static str, String)>,
    other: farshore_store::SharedTenantStore,
}

impl Insider {
    async fn new() -> Self {
        let server = Server::new();
        let (catalog, authority) = server.catalog().await;
        sample_tenant_named(&catalog, &scope(&authority, "acme"), 3).await;
        let other = sample_tenant_named(&catalog, &scope(&authority, OTHER), 0).await;
        let device = DeviceId::from_bytes(*b"zebra-device-001");
        let epoch = other.head().await.unwrap().epoch;
        other.commit(titled_batch(epoch, device, 50, "zebra title")).await.unwrap();
        let record = DeviceRecord {
            id: device,
            user: UserId::from_bytes([2; 16]),
            name: "zebra device".to_owned(),
            grants: Vec::new(),
            suspended: false,
            created_at_ms: 1,
        };
        other.put_device(&record).await.unwrap();
        let (own, others, roles) = (server.names("acme"), server.names(OTHER), server.roles());
        let names = vec![
            ("own_schema", own.schema().to_owned()),
            ("own_key", own.key.to_string()),
            ("own_role", roles.of(&own.key)),
            ("other_schema", others.schema().to_owned()),
            ("other_views", others.views()),
            ("other_key", others.key.to_string()),
            ("other_role", roles.of(&others.key)),
            ("owner_role", roles.owner()),
            ("server_role", server.database.name().to_owned()),
        ];
        let insider = Self { server, names, other };
        insider.as_superuser(&format!(
            "ALTER ROLE own_role LOGIN PASSWORD '{PASSWORD}'; \
             ALTER ROLE other_role LOGIN PASSWORD '{PASSWORD}'; \
             ANALYZE other_schema.changes; ANALYZE other_schema.devices;"
        ));
        insider
    }

    fn name(&self, statements: &str) -> String {
        let named = statements.to_owned();
        self.names.iter().fold(named, |named, (name, actual)| named.replace(name, actual))
    }

    fn as_superuser(&self, statements: &str) -> String {
        self.server.run(&self.name(statements))
    }

    fn url_of(&self, role: &str) -> String {
        let Place { host, port, database, .. } = self.server.database.place();
        let role = self.name(role).replace('"', "");
        format!("postgres://{role}:{PASSWORD}@{host}:{port}/{database}")
    }

    /// What psql says to `acme` who plays a game, whether it works or not.
    fn play(&self, game: &str) -> String {
        let url = self.url_of("own_role");
        match Postgres::shared().psql(&url, &self.name(game)) {
            Ok(said) => said,
            Err(error) => error.to_string(),
        }
    }

    /// Plays games, each of which has to end with one of these words, and none of which may show the secret.
    fn check(&self, games: &[(&str, &str)]) {
        for (game, end) in games {
            let said = self.play(game);
            assert!(end.split('|').any(|end| said.contains(end)), "{game}\n{said}");
            assert!(!said.contains(SECRET), "{game}\n{said}");
        }
    }

    /// A session of a tenant that stays.
    async fn session_of(&self, role: &str) -> PgConnection {
        PgConnection::connect(&self.url_of(role)).await.unwrap()
    }
}

async fn run(session: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(session).await.unwrap();
}

#[tokio::test]
async fn the_control_reads_its_own_rows() {
    let insider = Insider::new().await;
    let own = "SET farshore.tenant = 'own_key'; SELECT count(*) FROM own_schema.changes";
    assert_eq!(insider.play(own).trim(), "3");
    let seen = insider.as_superuser("SELECT name FROM other_schema.devices");
    assert!(seen.contains(SECRET), "there is something to be seen: {seen}");
}

#[tokio::test]
async fn roles_paths_and_settings_lead_nowhere() {
    let insider = Insider::new().await;
    insider.check(&[
        ("SET ROLE other_role", DENIED),
        ("SET ROLE owner_role", DENIED),
        ("SET ROLE server_role", DENIED),
        ("SET SESSION AUTHORIZATION other_role", DENIED),
        ("SET SESSION AUTHORIZATION owner_role", DENIED),
        ("GRANT other_role TO own_role", DENIED),
        ("ALTER ROLE own_role BYPASSRLS", DENIED),
        ("ALTER ROLE other_role PASSWORD 'mine'", DENIED),
        ("CREATE ROLE mine IN ROLE other_role", DENIED),
        ("REASSIGN OWNED BY owner_role TO own_role", DENIED),
        ("DROP OWNED BY other_role", DENIED),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE owner_role GRANT ALL ON TABLES TO own_role", DENIED),
        ("SELECT * FROM other_schema.devices", DENIED),
        ("SELECT * FROM other_views.notes", DENIED),
        ("TABLE farshore.tenants", DENIED),
        ("TABLE farshore.platform", DENIED),
        ("SET search_path = other_schema; TABLE devices", "\"devices\" does not exist"),
        ("SET search_path = other_views; TABLE notes", "\"notes\" does not exist"),
        ("SET farshore.tenant = 'other_key'; SELECT count(*) FROM own_schema.devices", "0"),
        (
            "SELECT set_config('farshore.tenant', 'other_key', false); TABLE other_schema.devices",
            DENIED,
        ),
        (
            "SET row_security = off; SELECT count(*) FROM own_schema.changes",
            "would be affected by row-level security",
        ),
        ("SET session_replication_role = replica", DENIED),
        ("BEGIN; LOCK TABLE other_schema.standing", DENIED),
        ("BEGIN; SAVEPOINT s; ROLLBACK TO s; TABLE other_schema.standing", DENIED),
    ]);
}

#[tokio::test]
async fn functions_and_views_run_with_the_rights_of_their_maker() {
    let insider = Insider::new().await;
    let peek = "CREATE FUNCTION pg_temp.peek() RETURNS SETOF text SECURITY DEFINER LANGUAGE";
    insider.check(&[
        (&format!("{peek} sql AS 'SELECT name FROM other_schema.devices'"), DENIED),
        (
            &format!(
                "SET check_function_bodies = off; \
                 {peek} sql AS 'SELECT name FROM other_schema.devices'; SELECT pg_temp.peek()"
            ),
            DENIED,
        ),
        (
            &format!(
                "{peek} plpgsql AS $$ BEGIN RETURN QUERY EXECUTE \
                 'SELECT name FROM other_schema.devices'; END $$; SELECT pg_temp.peek()"
            ),
            DENIED,
        ),
        ("DO $$ BEGIN PERFORM name FROM other_schema.devices; END $$", DENIED),
        ("SELECT query_to_xml('TABLE other_schema.devices', true, false, '')", DENIED),
        ("SELECT schema_to_xml('other_schema', true, false, '')", ""),
        ("SELECT database_to_xml(true, false, '')", ""),
        ("CREATE TEMP VIEW peek AS TABLE other_schema.devices; TABLE peek", DENIED),
        ("CREATE TEMP TABLE peek (LIKE other_schema.devices)", DENIED),
        ("CREATE TEMP TABLE peek () INHERITS (other_schema.devices)", DENIED),
        ("CREATE TEMP TABLE peek (id bytea REFERENCES other_schema.devices)", ""),
        ("CREATE TEMP TABLE peek AS TABLE other_schema.devices", DENIED),
        ("CREATE VIEW own_schema.peek AS SELECT 1", DENIED),
        ("CREATE FUNCTION public.peek() RETURNS int LANGUAGE sql AS 'SELECT 1'", DENIED),
        ("CREATE FUNCTION farshore.peek() RETURNS int LANGUAGE sql AS 'SELECT 1'", DENIED),
        ("CREATE SCHEMA mine", DENIED),
        ("CREATE RULE peek AS ON SELECT TO own_schema.devices DO INSTEAD NOTHING", DENIED),
        (
            "CREATE FUNCTION pg_temp.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'; \
             CREATE TRIGGER t BEFORE INSERT ON own_schema.devices EXECUTE FUNCTION pg_temp.t()",
            DENIED,
        ),
        ("ALTER TABLE own_schema.devices NO FORCE ROW LEVEL SECURITY", DENIED),
        ("CREATE POLICY mine ON own_schema.devices USING (true)", DENIED),
        ("CREATE OR REPLACE VIEW other_views.notes AS SELECT 1", DENIED),
        ("EXPLAIN SELECT * FROM other_schema.devices WHERE name > 'y'", DENIED),
    ]);
}

#[tokio::test]
async fn files_programs_and_other_databases_are_out_of_reach() {
    let insider = Insider::new().await;
    let (_, place) = insider.server.database.url().rsplit_once('@').unwrap();
    insider.check(&[
        ("COPY (SELECT 1) TO PROGRAM 'cat'", DENIED),
        ("COPY own_schema.devices FROM '/etc/passwd'", DENIED),
        ("SELECT pg_read_file('PG_VERSION')", DENIED),
        ("SELECT pg_ls_dir('.')", DENIED),
        ("SELECT pg_ls_waldir()", DENIED),
        ("SELECT lo_import('/etc/passwd')", DENIED),
        ("CREATE EXTENSION dblink", DENIED),
        ("CREATE EXTENSION file_fdw", DENIED),
        ("CREATE EXTENSION pg_stat_statements", DENIED),
        ("CREATE FOREIGN DATA WRAPPER mine", DENIED),
        ("CREATE SUBSCRIPTION mine CONNECTION '' PUBLICATION theirs", DENIED),
        ("SELECT pg_create_logical_replication_slot('mine', 'test_decoding')", DENIED),
        ("CREATE PUBLICATION mine FOR TABLE own_schema.devices", DENIED),
        ("ALTER SYSTEM SET log_statement = 'all'", DENIED),
        ("SELECT pg_reload_conf()", DENIED),
        ("CREATE LANGUAGE plpython3u", ""),
        (&format!("\\c postgres://server_role:guessed@{place}\nSELECT 1"), "authentication failed"),
    ]);
}

#[tokio::test]
async fn statistics_tell_nothing_of_foreign_rows() {
    let insider = Insider::new().await;
    let of_foreign =
        "SELECT count(*) FROM pg_statistic WHERE starelid = 'other_schema.devices'::regclass";
    assert_ne!(insider.as_superuser(of_foreign), "0", "there are statistics");
    insider.check(&[
        ("TABLE pg_statistic", DENIED),
        ("TABLE pg_statistic_ext_data", DENIED),
        ("SELECT count(*) FROM pg_stats WHERE schemaname LIKE 'tenant\\_%'", "0"),
        ("TABLE pg_stats", ""),
        ("TABLE pg_stats_ext", ""),
        ("TABLE pg_stats_ext_exprs", ""),
        ("TABLE pg_stat_activity", ""),
    ]);
    // A condition that tells what it is asked about: it is asked about rows that pass the wall only.
    let told = insider.play(
        "CREATE FUNCTION pg_temp.tell(bytea) RETURNS boolean COST 0.0001 LANGUAGE plpgsql \
         AS $$ BEGIN RAISE EXCEPTION 'told %', $1; END $$; \
         SET farshore.tenant = 'other_key'; \
         SELECT count(*) FROM own_schema.changes WHERE pg_temp.tell(state)",
    );
    assert_eq!(told.trim(), "0");
}

#[tokio::test]
async fn what_others_keep_beside_tables_stays_theirs() {
    let insider = Insider::new().await;
    let mut session = insider.session_of("other_role").await;
    run(
        &mut session,
        "CREATE TEMP TABLE kept AS SELECT 'zebra'::text AS text; \
         SELECT lo_from_bytea(4242, 'zebra'); SELECT pg_advisory_lock(1); PREPARE kept AS SELECT 'zebra'",
    )
    .await;
    let schema = "SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 'kept'";
    let schema = insider.as_superuser(schema);
    insider.check(&[
        (&format!("TABLE {schema}.kept"), DENIED),
        (&format!("SET search_path = {schema}; TABLE kept"), ""),
        (&format!("CREATE TABLE {schema}.mine (x int)"), ""),
        ("SELECT lo_get(4242)", DENIED),
        ("SELECT lo_open(4242, 131072)", DENIED),
        ("SELECT lo_put(4242, 0, 'mine')", DENIED),
        ("SELECT lo_unlink(4242)", DENIED),
        ("TABLE pg_largeobject", DENIED),
        ("SELECT lo_export(4242, '/tmp/mine')", DENIED),
        ("TABLE pg_prepared_statements", ""),
        ("SELECT pg_advisory_unlock(1)", "f"),
    ]);
    session.close().await.unwrap();
}

#[tokio::test]
async fn sessions_of_others_go_on() {
    let insider = Insider::new().await;
    let mut session = insider.session_of("other_role").await;
    run(&mut session, "SELECT 'zebra'").await;
    let sessions =
        "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()";
    insider.check(&[
        (&format!("SELECT pg_terminate_backend(pid) {sessions}"), DENIED),
        (&format!("SELECT pg_cancel_backend(pid) {sessions}"), DENIED),
        (&format!("SELECT pg_log_backend_memory_contexts(pid) {sessions}"), DENIED),
        (&format!("SELECT query {sessions}"), "insufficient privilege"),
    ]);
    run(&mut session, "SELECT 1").await;
    commit_notes(&insider.other, 1).await;
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_heard_of_what_others_write() {
    let insider = Arc::new(Insider::new().await);
    let listening = spawn_blocking({
        let insider = Arc::clone(&insider);
        move || {
            insider.play(
                "LISTEN farshore; LISTEN tenant; LISTEN \"other_key\"; LISTEN \"zebra-airlines\"; \
                 LISTEN control;\nSELECT pg_sleep(1);\nSELECT 'listened';\n",
            )
        }
    });
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
        AND datname = current_database()";
    while insider.as_superuser(sleeps) == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..5 {
        commit_notes(&insider.other, 1).await;
    }
    insider.as_superuser("NOTIFY control, 'heard'");
    let said = listening.await.unwrap();
    let heard: Vec<&str> = said.lines().filter(|line| line.contains("notification")).collect();
    assert_eq!(heard.len(), 1, "{said}");
    assert!(heard[0].contains("control"), "the control is heard: {said}");
}

#[tokio::test]
async fn a_lock_with_our_number_keeps_no_server_from_starting() {
    let insider = Insider::new().await;
    let mut session = insider.session_of("own_role").await;
    let lock = format!("SELECT pg_advisory_lock({})", crate::platform::PREPARATION_LOCK);
    run(&mut session, &lock).await;
    let mut config = insider.server.config.clone();
    config.limits.acquire_timeout_ms = 2_000;
    let start = PostgresCatalog::open(config, &insider.server.master);
    let started = tokio::time::timeout(Duration::from_secs(5), start).await;
    started.expect("it waits for nobody").unwrap();
    session.close().await.unwrap();
}
