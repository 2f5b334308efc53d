//! What a start says where the database is not as it must be, and that the next start goes on from there.

use std::net::TcpListener;

use farshore_store::StoreError;
use farshore_store::catalog::{Catalog as _, CatalogError};
use farshore_store::conformance::sample_tenant_named;

use super::*;
use crate::{DatabaseUrl, DatabaseUrlError, OpenError};

/// The error of a start, which is one line and holds no password.
async fn refused(server: &Server, url: &str) -> OpenError {
    let mut config = server.config.clone();
    config.url = url.parse().unwrap();
    config.limits.acquire_timeout_ms = 5_000;
    let error = PostgresCatalog::open(config.clone(), &server.master).await.unwrap_err();
    let password = url.split(':').nth(2).unwrap().split('@').next().unwrap();
    for text in [error.to_string(), format!("{error:?}"), format!("{config:?}")] {
        assert!(!text.contains(password), "{text}");
    }
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
    error
}

#[test]
fn what_is_no_url_is_named_without_being_shown() {
    let parse = |text: &str| text.parse::<DatabaseUrl>().unwrap_err();
    assert_eq!(parse("mysql://me:secret@host/db"), DatabaseUrlError::Scheme);
    assert_eq!(parse(""), DatabaseUrlError::Scheme);
    let unknown = parse("postgres://me:secret@host/db?sslmod=secret");
    assert_eq!(unknown, DatabaseUrlError::UnknownParameter { name: "sslmod".to_owned() });
    for text in ["postgres://me:secret@host:port/db", "postgres://me:secret@host/db?sslmode=secret"]
    {
        let error = parse(text);
        assert!(matches!(error, DatabaseUrlError::Malformed { .. }), "{error:?}");
    }
    let url: DatabaseUrl = "postgres://me:secret@host:99/db".parse().unwrap();
    assert_eq!(url.to_string(), "postgres://me@host:99/db");
    assert_eq!(format!("{url:?}"), "DatabaseUrl(postgres://me@host:99/db)");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_refuses_us_is_named() {
    let server = Server::new();
    let (before, place) = server.database.url().rsplit_once('@').unwrap();
    let name = server.database.name();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("postgres://me:s3cret@{}/db", closed.local_addr().unwrap());
    drop(closed);
    let error = refused(&server, &elsewhere).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");

    let error = refused(&server, &format!("postgres://{name}:wr0ng@{place}")).await;
    assert!(matches!(error, OpenError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("password authentication failed"), "{error}");

    let nowhere = format!("{before}@{}/no_such_database", place.split('/').next().unwrap());
    let error = refused(&server, &nowhere).await;
    assert!(matches!(error, OpenError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("\"no_such_database\" does not exist"), "{error}");
}

#[tokio::test]
async fn somebody_who_never_answers_is_given_up() {
    let server = Server::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = server.config.clone();
    config.limits.acquire_timeout_ms = 200;
    config.url =
        format!("postgres://me:s3cret@{}/db", silent.local_addr().unwrap()).parse().unwrap();
    let error = PostgresCatalog::open(config, &server.master).await.unwrap_err();
    assert!(error.to_string().ends_with("no answer within 200 ms"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_which() {
    let server = Server::new();
    let name = server.database.name();
    for take_away in [
        format!("ALTER ROLE {name} NOCREATEROLE"),
        format!("ALTER DATABASE {name} OWNER TO CURRENT_USER; ALTER ROLE {name} CREATEROLE"),
    ] {
        server.run(&take_away);
        let error = refused(&server, server.database.url()).await;
        assert!(matches!(error, OpenError::Rights { .. }), "{error}");
        // What it says to run is what helps.
        let line = error.to_string();
        let advice = line.split("as a superuser, run: ").nth(1).unwrap();
        server.run(advice);
        if take_away.contains("NOCREATEROLE") {
            server.run(&format!("ALTER ROLE {name} NOCREATEROLE"));
        }
    }
    let (catalog, authority) = server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
}

#[tokio::test]
async fn a_schema_of_somebody_else_is_left_alone() {
    let server = Server::new();
    server.run("CREATE SCHEMA farshore; CREATE TABLE farshore.platform (theirs int)");
    let error = refused(&server, server.database.url()).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    server.run("DROP TABLE farshore.platform");
    let error = refused(&server, server.database.url()).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    server.run("DROP SCHEMA farshore");
    server.catalog().await;
}

#[tokio::test]
async fn a_missing_extension_is_named_and_nothing_else_is_needed() {
    let server = Server::new();
    server.run("DROP EXTENSION plpgsql");
    let error = refused(&server, server.database.url()).await;
    assert!(matches!(error, OpenError::Extension { .. }), "{error}");
    let line = error.to_string();
    server.run(line.split("as a superuser, run: ").nth(1).unwrap());
    let (catalog, authority) = server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    assert_eq!(server.run("SELECT string_agg(extname, ' ') FROM pg_extension"), "plpgsql");
}

#[tokio::test]
async fn another_master_key_does_not_open() {
    let server = Server::new();
    server.catalog().await;
    let error = PostgresCatalog::open(server.config.clone(), &master_key(2)).await.unwrap_err();
    let OpenError::Catalog { source: CatalogError::WrongMasterKey { .. }, .. } = error else {
        panic!("{error}")
    };
    server.catalog().await;
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_left_alone() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    server.run("UPDATE tenant_demo.standing SET format = 99");
    let (catalog, authority) = server.catalog().await;
    let error = catalog.open(&scope(&authority, "demo")).await.err().unwrap();
    let CatalogError::Store(StoreError::NewerFormat { found: 99, .. }) = error else {
        panic!("{error}")
    };
    server.run("UPDATE farshore.platform SET format = 98");
    let error = PostgresCatalog::open(server.config.clone(), &server.master).await.unwrap_err();
    assert!(error.to_string().contains("has format 98"), "{error}");
}

#[tokio::test]
async fn a_tenant_whose_schema_is_gone_is_damaged_and_not_unknown() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let schema = server.names("demo").schema().to_owned();
    server.run(&format!("DROP SCHEMA {schema} CASCADE"));
    let (catalog, authority) = server.catalog().await;
    let error = catalog.open(&scope(&authority, "demo")).await.err().unwrap();
    assert!(matches!(error, CatalogError::Store(StoreError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains(&format!("{schema} of demo")), "{error}");
}

#[tokio::test]
async fn several_nodes_start_on_an_empty_database_at_once() {
    let server = Server::new();
    let starts = (0..4).map(|_| {
        let (config, master) = (server.config.clone(), server.master.clone());
        tokio::spawn(async move { PostgresCatalog::open(config, &master).await.map(drop) })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
}
