//! Tests of the store: one file for each subject, over one small server in memory.

mod documents;
mod failures;
mod fills;
mod graves;
mod harness;
mod local;
mod outbox;
mod properties;
mod quarantine;
mod reads;
mod rebase;
mod refills;
mod repair;
mod scopes;
mod server;
mod upgrades;
