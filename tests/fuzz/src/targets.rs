//! One function for each decoder. What it takes apart it puts together again: the second reading must be the first.

use std::collections::BTreeMap;

use farshore_sync_core::document;
use farshore_sync_core::ids::{Scope, TenantId};
use farshore_sync_core::mutation::Transaction;
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::{ClientFrame, Frame, ServerFrame};

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder under `fuzz/corpus`.
    pub name: &'static str,
    /// Gives it some bytes; a panic is a finding.
    pub run: fn(&[u8]),
}

/// Every decoder.
pub const TARGETS: &[Target] = &[
    Target { name: "client_frame", run: client_frame },
    Target { name: "server_frame", run: server_frame },
    Target { name: "row", run: row },
    Target { name: "transaction", run: transaction },
    Target { name: "change_chunk", run: change_chunk },
    Target { name: "schema", run: schema },
    Target { name: "log", run: log },
    #[cfg(feature = "programs")]
    Target { name: "pushed", run: programs::pushed },
    #[cfg(feature = "programs")]
    Target { name: "token", run: programs::token },
    #[cfg(feature = "programs")]
    Target { name: "config", run: programs::config },
];

/// Frames of devices.
pub fn client_frame(bytes: &[u8]) {
    frame::<ClientFrame>(bytes);
}

/// Frames of the server.
pub fn server_frame(bytes: &[u8]) {
    frame::<ServerFrame>(bytes);
}

fn frame<F: Frame + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(read) = F::from_bytes(bytes) {
        let again = F::from_bytes(&read.to_bytes()).expect("what was read can be written");
        // A frame has floats only inside of rows, which are bytes here: equality holds.
        assert_eq!(again, read, "what was written reads back the same");
    }
}

/// Rows, which have one encoding.
pub fn row(bytes: &[u8]) {
    if let Ok(read) = RowState::decode(bytes) {
        assert_eq!(read.encode(), bytes, "a row has one encoding");
    }
}

/// Transactions as devices queue and push them.
pub fn transaction(bytes: &[u8]) {
    let number = Transaction::peek_number(bytes);
    if let Ok(read) = Transaction::decode(bytes) {
        assert_eq!(number, Some(read.number), "the number can be read alone");
        let written = read.encode();
        let again = Transaction::decode(&written).expect("what was read can be written");
        assert_eq!(again.encode(), written, "what was written reads back the same");
    }
}

/// Document changes: inspected as the server does, and opened as the device does.
pub fn change_chunk(bytes: &[u8]) {
    let Ok(change) = document::inspect(bytes) else { return };
    let again = document::inspect(&change.bytes).expect("what was inspected is a change");
    assert_eq!((again.hash, again.deps), (change.hash, change.deps.clone()));
    let root = BTreeMap::from([("text".to_owned(), document::FieldKind::Text)]);
    let genesis = document::genesis(&root);
    let changes = std::iter::once(change.bytes.as_slice());
    if let Ok(opened) = document::open([5; 16], genesis.as_ref(), changes) {
        let _ = opened.to_json();
    }
}

/// Schemas, scopes and names of tenants.
pub fn schema(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(scope) = text.parse::<Scope>() {
        assert_eq!(scope.as_str(), text);
    }
    if let Ok(tenant) = text.parse::<TenantId>() {
        assert_eq!(tenant.as_str(), text);
    }
    if let Ok(read) = Schema::parse(text) {
        let written = read.to_json();
        let again = Schema::parse(&written).expect("what was read can be written");
        assert_eq!(again.to_json(), written, "what was written reads back the same");
        assert!(read.check_successor(&again).is_err(), "a version follows an earlier one only");
    }
}

/// Write-ahead logs that a crash left.
pub fn log(bytes: &[u8]) {
    farshore_log_check::check(bytes).expect("memory can be read");
}

/// The parsers of the server and the SDK.
#[cfg(feature = "programs")]
pub mod programs {
    use farshore_client::TokenSource;
    use farshore_server::auth::verifying_key::UnverifiedToken;
    use farshore_server::config::{Config, Settings};
    use farshore_store::pushed::PushedTransaction;

    /// Pushed transactions, with their document changes inspected.
    pub fn pushed(bytes: &[u8]) {
        if let Some(read) = PushedTransaction::read(bytes) {
            assert_eq!(read.encoded_bytes(), bytes.len());
        }
    }

    /// Tokens, as the server and the device read them before anything is believed.
    pub fn token(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(token) = UnverifiedToken::new(text) {
            let _ = token.key_id();
        }
        let _ = TokenSource::fixed(text);
    }

    /// Configuration: settings as lines of `key = value`.
    pub fn config(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let mut settings = Settings::defaults();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let variables = pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        if settings.add_environment(variables).is_ok() {
            let _ = Config::from_settings(&settings);
        }
    }
}
