//! Every mistake in a configuration gets one line that says where, which key, and what is expected.

use super::*;

/// The first error of a file and an environment, or the configuration.
fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farshore.toml");
    std::fs::write(&path, file).unwrap();
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&path), environment).map_err(|error| {
        let line = error.to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        line.replace(&path.display().to_string(), "FILE")
    })
}

#[test]
fn the_defaults_are_a_configuration_and_every_key_is_read() {
    let settings = Settings::defaults();
    Config::from_settings(&settings).unwrap();
    assert_eq!(settings.unread(), Vec::<&str>::new());
}

#[test]
fn a_file_overrides_the_defaults_and_the_environment_overrides_the_file() {
    let file = "[server]\nlisten = \"0.0.0.0:1\"\nmax_connections = 9_000\n";
    let config =
        load(file, &[("FARSHORE_SERVER__LISTEN", "0.0.0.0:2"), ("FARSHORE_MASTER_KEY", "x")])
            .unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.max_connections, 9_000);
    let config = load("", &[("FARSHORE_STORE__MAX_OPEN_TENANTS", "1_234")]).unwrap();
    assert_eq!(config.store.max_open_tenants.get(), 1_234);
}

#[test]
fn what_is_wrong_in_a_file_is_one_line() {
    for (file, expected) in [
        ("[server\n", "FILE:1: "),
        ("[server]\nlisten = \"0.0.0.0:1\"\nlisten = \"0.0.0.0:2\"\n", "FILE:3: duplicate key"),
        ("port = 1\n", "FILE: port: there is no such key"),
        ("[server]\nlissten = \"x\"\n", "FILE: server.lissten: there is no such key"),
        ("[server.tls]\ncert = \"x\"\n", "FILE: server.tls: there is no such key"),
        ("[server]\nlisten = 7400\n", "FILE: server.listen: expected a text in quotes, found 7400"),
        ("[server]\nlisten = \"here\"\n", "FILE: server.listen: expected an address with a port"),
        (
            "[server]\nmax_connections = \"9\"\n",
            "FILE: server.max_connections: expected a whole number, found \"9\"",
        ),
        (
            "[store]\nmax_open_tenants = 0\n",
            "FILE: store.max_open_tenants: expected a whole number from 1 to",
        ),
        (
            "[store]\nmax_open_tenants = -1\n",
            "FILE: store.max_open_tenants: expected a whole number from 1 to",
        ),
        (
            "[store]\nkind = \"mysql\"\n",
            "FILE: store.kind: expected \"sqlite\" or \"postgres\", found \"mysql\"",
        ),
        ("[store]\ndata_dir = \"\"\n", "FILE: store.data_dir: expected a directory"),
        (
            "[log]\nformat = \"xml\"\n",
            "FILE: log.format: expected \"text\" or \"json\", found \"xml\"",
        ),
        ("[log]\nlevel = \"x=y=z\"\n", "FILE: log.level: expected error, warn,"),
        ("[tokens]\nissuer_url = \"farshore/\"\n", "FILE: tokens.issuer_url: expected a URL"),
        (
            "[tokens]\ndevice_max_s = 3600\n",
            "the defaults: tokens.device_default_s: expected a whole number from",
        ),
        (
            "[sync]\nsilence_limit_ms = 20_000\n",
            "FILE: sync.silence_limit_ms: expected a whole number from 30000",
        ),
        (
            "[server]\ntenant_domain = \"Sync..com\"\n",
            "FILE: server.tenant_domain: expected a domain",
        ),
    ] {
        let error = load(file, &[]).unwrap_err();
        assert!(error.starts_with(expected), "{file}\n{error}\n{expected}");
    }
}

#[test]
fn what_is_wrong_in_the_environment_names_the_variable() {
    for (name, value, expected) in [
        ("FARSHORE_SERVER__PORT", "1", "FARSHORE_SERVER__PORT: server.port: there is no such key"),
        (
            "FARSHORE_SERVER__LISTEN",
            "x",
            "FARSHORE_SERVER__LISTEN: server.listen: expected an address",
        ),
        (
            "FARSHORE_SYNC__HEARTBEAT_MS",
            "soon",
            "FARSHORE_SYNC__HEARTBEAT_MS: sync.heartbeat_ms: expected a whole",
        ),
    ] {
        let error = load("", &[(name, value)]).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn postgres_is_a_choice_with_a_url() {
    let chosen = "[store]\nkind = \"postgres\"\n";
    let url = ("FARSHORE_POSTGRES__URL", "postgres://us:s3cret@db.example:6432/farshore");
    let config = load(chosen, &[url, ("FARSHORE_POSTGRES__MAX_CONNECTIONS", "7")]).unwrap();
    let StoreKind::Postgres(postgres) = &config.store.kind else { panic!("{config:?}") };
    assert_eq!(postgres.url.to_string(), "postgres://us@db.example:6432/farshore");
    assert_eq!(postgres.limits.max_connections.get(), 7);
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(matches!(load("", &[url]).unwrap().store.kind, StoreKind::Sqlite));
    assert_eq!(
        load(chosen, &[]).unwrap_err(),
        "the defaults: postgres.url: it does not begin with postgres:// or postgresql://"
    );
    for wrong in
        ["mysql://us:s3cret@db", "postgres://us:s3cret@db:port/x", "postgres://us:s3cret@db?x=y"]
    {
        let error = load(chosen, &[("FARSHORE_POSTGRES__URL", wrong)]).unwrap_err();
        assert!(error.starts_with("FARSHORE_POSTGRES__URL: postgres.url: "), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let mut settings = Settings::defaults();
    settings.add_environment([(url.0.to_owned(), url.1.to_owned())]).unwrap();
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error =
        Config::load(Some(Path::new("/nowhere/farshore.toml")), []).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/farshore.toml: cannot be read: "), "{error}");
}

#[test]
fn every_key_is_documented() {
    let guide = include_str!("../../../docs/configuration.md");
    let settings = Settings::defaults();
    let missing: Vec<_> =
        settings.unread().into_iter().filter(|key| !guide.contains(&format!("`{key}`"))).collect();
    assert_eq!(missing, Vec::<&str>::new(), "keys that docs/configuration.md does not name");
}
