//! What every catalogue shows to somebody inside, and every function that names what has a number.

use super::*;

/// One row for each relation that may be read of those that Postgres brings, each as text. Some refuse all the same.
const EVERYTHING: &str = "\\set ON_ERROR_STOP off\nSELECT format('SELECT %L, t::text FROM %I.%I AS t', c.relname, n.nspname, c.relname) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v') \
    AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.relname \\gexec\n";

/// What has a name behind a number, which casts and functions tell.
const NAMED_BY_NUMBER: &str = "WITH there AS (SELECT oid FROM pg_namespace UNION SELECT oid FROM pg_class), \
    n AS (SELECT n::oid FROM generate_series( \
        (SELECT min(oid) FROM there WHERE oid >= 16384)::bigint, (SELECT max(oid) FROM there)::bigint) AS n) \
    SELECT n::regnamespace::text FROM n WHERE n::regnamespace::text <> n::text \
    UNION ALL SELECT n::regrole::text FROM n WHERE n::regrole::text <> n::text \
    UNION ALL SELECT n::regclass::text FROM n WHERE n::regclass::text <> n::text \
    UNION ALL SELECT n::regtype::text FROM n WHERE n::regtype::text <> n::text \
    UNION ALL SELECT n::regproc::text FROM n WHERE n::regproc::text <> n::text;\n\
    SELECT pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v';\n\
    SELECT pg_get_expr(polqual, polrelid) FROM pg_policy;\n\
    SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend WHERE objid > 16000;\n\
    SELECT pg_describe_object(classid, objid, objsubid) FROM pg_shdepend \
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database());\n";

/// The lines that show something of the other tenant.
fn secrets(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains(SECRET)).collect()
}

#[tokio::test]
async fn no_catalogue_tells_whose_a_schema_is() {
    let insider = Insider::new().await;
    let mut session = insider.session_of("other_role").await;
    run(&mut session, "SET farshore.tenant = 'zebra'; SELECT 'zebra'").await;
    let said = insider.play(&format!("{EVERYTHING}{NAMED_BY_NUMBER}"));
    for seen in ["other_role", "other_schema", "pg_stat_activity", "notes"] {
        let seen = insider.name(seen).replace('"', "");
        assert!(said.contains(&seen), "everything was read, and {seen} is in it");
    }
    assert_eq!(secrets(&said), [""; 0]);
    session.close().await.unwrap();
}

#[tokio::test]
async fn what_hides_collections_is_in_the_manual() {
    let insider = Insider::new().await;
    let words = r#"{"name": "sample", "version": 1, "collections": [
        {"name": "zebra_flights", "scope": "tenant", "columns": [{"name": "zebra_stripes", "type": "int"}]}]}"#;
    let (catalog, authority) = insider.server.catalog().await;
    let third = catalog.create(&scope(&authority, "third"), 1).await.unwrap();
    let schema = farshore_store::sync_core::schema::Schema::parse(words).unwrap();
    farshore_store::schemas::SchemaStore::apply_schema(&*third, &schema, 1).await.unwrap();
    let said = insider.play(EVERYTHING);
    assert_ne!(secrets(&said), [""; 0], "the control: catalogues are open to all");

    let manual = include_str!("../../../../../docs/server.md");
    let (_, script) = manual.split_once("```sql\n-- Nobody lists").expect("the manual has it");
    let script = script.split_once('\n').unwrap().1.split_once("```").unwrap().0;
    insider.as_superuser(&script.replace("TO farshore", "TO server_role"));
    // The list of all catalogues comes from the superuser now.
    let queries =
        insider.as_superuser(&EVERYTHING.replace(" \\gexec", ";").replace(
            "has_table_privilege(c.oid",
            "has_table_privilege(trim('own_role', '\"'), c.oid",
        ));
    let said =
        insider.play(&format!("\\set ON_ERROR_STOP off\n{};\n", queries.replace('\n', ";\n")));
    assert!(said.contains("pg_namespace|"), "all others are read as before");
    assert_eq!(secrets(&said), [""; 0]);
    insider.check(&[
        ("TABLE pg_attribute", DENIED),
        ("SELECT pg_get_viewdef(n::oid) FROM generate_series(16384, 20000) AS n", DENIED),
        ("SELECT table_name FROM information_schema.tables", "notes"),
    ]);
    // The server works as before.
    let (catalog, authority) = insider.server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "fourth"), 1).await;
    commit_notes(&third, 0).await;
}
