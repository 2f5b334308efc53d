//! What goes on beside the other commands: waits, syncs and watches, each on a thread of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use farshore_client::live::{LiveResult, LiveSubscription};
use farshore_client::store::SqlValue;
use farshore_client::{Classified as _, Client, Goal};
use serde_json::{Value as Json, json};

use super::lines::Answers;
use crate::failure::{BAD_REQUEST, Failure};
use crate::json::{self, UuidColumns};

/// Waits, syncs and watches at the same time.
pub(super) const MAX_IN_BACKGROUND: usize = 256;

/// What goes on.
pub(super) struct Background {
    client: Client,
    answers: Answers,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    waits: Vec<JoinHandle<()>>,
    watches: Vec<(Json, LiveSubscription)>,
}

impl Background {
    pub(super) fn new(client: Client, answers: Answers) -> Self {
        Self { client, answers, tasks: Mutex::default() }
    }

    /// Answers when the goal is reached, or when the time is over.
    pub(super) fn wait(&self, id: Json, goal: Goal, timeout_ms: u64) -> Result<(), Failure> {
        self.spawn(move |client, answers| {
            match client.wait_for(goal, Duration::from_millis(timeout_ms)) {
                Ok(status) => answers.ok(&id, json!({"status": json::status(client, &status)})),
                Err(error) => answers.failed(&id, &error.into()),
            }
        })
    }

    /// Answers when everything is in step, or when the time is over.
    pub(super) fn sync(&self, id: Json, timeout_ms: u64) -> Result<(), Failure> {
        self.spawn(move |client, answers| {
            match client.sync_once(Duration::from_millis(timeout_ms)) {
                Ok(report) => answers.ok(&id, json!({"sync": json::sync_report(&report)})),
                Err(error) => answers.failed(&id, &error.into()),
            }
        })
    }

    /// Answers, and then tells of each result.
    pub(super) fn watch(&self, id: Json, sql: &str, params: &[SqlValue]) -> Result<(), Failure> {
        let mut tasks = self.tasks()?;
        if tasks.watches.iter().any(|(other, _)| *other == id) {
            return Err(Failure::new(
                BAD_REQUEST,
                format!("there is a watch with the id {id} already"),
            ));
        }
        let results = self.client.live(sql, params)?;
        self.answers.ok(&id, json!({"watch": id}));
        let (answers, uuids) = (self.answers.clone(), UuidColumns::of(&self.client.schema()));
        let watch = id.clone();
        let subscription =
            results.on_change(move |result| answers.write(&event(&watch, &result, &uuids)));
        tasks.watches.push((id, subscription));
        Ok(())
    }

    /// Ends a watch.
    pub(super) fn unwatch(&self, id: &Json) -> Result<(), Failure> {
        let mut tasks = self.lock();
        let before = tasks.watches.len();
        tasks.watches.retain(|(other, _)| other != id);
        if tasks.watches.len() == before {
            return Err(Failure::new(
                "no_such_watch",
                format!("there is no watch with the id {id}"),
            ));
        }
        Ok(())
    }

    /// Lets waits and syncs come to their end, and ends the watches.
    pub(super) fn finish(&self) {
        let tasks = std::mem::take(&mut *self.lock());
        for wait in tasks.waits {
            // A thread that panicked has printed why.
            let _ = wait.join();
        }
    }

    fn spawn(&self, task: impl FnOnce(&Client, &Answers) + Send + 'static) -> Result<(), Failure> {
        let mut tasks = self.tasks()?;
        let (client, answers) = (self.client.clone(), self.answers.clone());
        let spawned =
            thread::Builder::new().name("wait".into()).spawn(move || task(&client, &answers));
        let thread = spawned.map_err(|error| Failure::new("no_threads", error.to_string()))?;
        tasks.waits.push(thread);
        Ok(())
    }

    /// The tasks, if there is room for one more.
    fn tasks(&self) -> Result<MutexGuard<'_, Tasks>, Failure> {
        let mut tasks = self.lock();
        tasks.waits.retain(|wait| !wait.is_finished());
        if tasks.waits.len() + tasks.watches.len() >= MAX_IN_BACKGROUND {
            return Err(Failure::new(
                "too_many",
                format!("{MAX_IN_BACKGROUND} waits and watches are under way"),
            ));
        }
        Ok(tasks)
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(watch: &Json, result: &LiveResult, uuids: &UuidColumns) -> Json {
    match result {
        Ok(rows) => json!({"event": "rows", "watch": watch, "rows": json::rows(rows, uuids)}),
        Err(error) => {
            json!({"event": "error", "watch": watch, "code": error.code(), "message": error.to_string()})
        }
    }
}
