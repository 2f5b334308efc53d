//! The command line against a running server, in one process.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory as _;

use super::*;
use crate::app::demo::DEMO_SCHEMA;
use crate::clock::SystemClock;
use crate::config::{Config, Settings};
use crate::run::data_dir::DataDir;
use crate::run::{Preparation, Server, master_key};

/// Runs a command against the server of a data directory.
async fn farshore(data_dir: &Path, words: &str) -> Result<(), String> {
    let data_dir = data_dir.to_str().unwrap().to_owned();
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let ran = tokio::task::spawn_blocking(move || {
        let words = ["farshore".to_owned()]
            .into_iter()
            .chain(words)
            .chain(["--data-dir".to_owned(), data_dir]);
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        run(cli.command).map_err(|error| error.to_string())
    });
    ran.await.unwrap()
}

async fn refusal(data_dir: &Path, words: &str) -> String {
    let line = farshore(data_dir, words).await.expect_err(words);
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_work_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut config = Config::from_settings(&Settings::defaults()).unwrap();
    config.store.data_dir.clone_from(&data_dir);
    config.server.listen = "127.0.0.1:0".parse().unwrap();

    let nobody = refusal(&data_dir, "tenant list").await;
    assert!(nobody.starts_with("no server is running on "), "{nobody}");

    let locked = DataDir::lock(&data_dir).unwrap();
    let key = master_key::find_or_create(&locked, &config.store, &[]).unwrap();
    let clock = Arc::new(SystemClock);
    let server = Server::start(config, locked, key, clock, Preparation::default()).await.unwrap();
    let url = server.url();
    let schema = dir.path().join("schema.json");
    fs::write(&schema, DEMO_SCHEMA).unwrap();
    let device = "01890a5d-ac96-774b-bcce-b302099a8057";
    for words in [
        "tenant create acme --algorithm EdDSA",
        "tenant list",
        "tenant list --json",
        &format!("schema apply --tenant acme {}", schema.display()),
        "schema show --tenant acme",
        &format!(
            "token --tenant acme --device {device} --scope tenant:rw --scope site/7 --expires-in 30d"
        ),
        "token --tenant acme --scope tenant --json",
        "token --tenant acme --scope tenant --count 3",
        "device list --tenant acme",
        &format!("device suspend --tenant acme {device}"),
        &format!("device resume --tenant acme {device}"),
        &format!("device grant --tenant acme {device} --scope site/7:rw"),
        "keys rotate --tenant acme --algorithm EdDSA",
        "keys list --tenant acme",
        "digest --tenant acme --scope tenant",
        "scrub --tenant acme",
    ] {
        farshore(&data_dir, words).await.unwrap_or_else(|error| panic!("{words}: {error}"));
    }
    for (words, said) in [
        ("tenant create acme", "the tenant acme exists already (tenant_exists)"),
        ("schema show --tenant nobody", "there is no tenant nobody (tenant_not_found)"),
        (
            "schema apply --tenant acme /nowhere.json",
            "/nowhere.json: No such file or directory (os error 2)",
        ),
        ("tenant erase acme --confirm other", "to erase acme, name it again with --confirm acme"),
        ("tenant list --url http://127.0.0.1:1", "no server answers at http://127.0.0.1:1: "),
    ] {
        let line = refusal(&data_dir, words).await;
        assert!(line.starts_with(said), "{line}");
    }
    farshore(&data_dir, "tenant erase acme --confirm acme").await.unwrap();
    server.stop().await;
    // A server that was killed leaves its file behind.
    fs::write(data_dir.join("server.json"), format!("{{\"url\":\"{url}\",\"pid\":1}}")).unwrap();
    let gone = refusal(&data_dir, "tenant list").await;
    assert!(gone.starts_with(&format!("no server answers at {url}: ")), "{gone}");
}
