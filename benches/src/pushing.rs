//! What a generator does with devices that only push: all of them at once, until it is enough, or on time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::generator::{Job, Stage};
use crate::latencies::Latencies;
use crate::load::{Load, ROWS_PER_TRANSACTION};
use crate::outcome::{Failure, Outcome};

/// Pushes everything at once; finds the acknowledged rows a second, from the first push to the last answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Push(pub Vec<Load>);

/// Pushes at once until it is enough and that is noticed with the next answer, or until everything is pushed.
#[derive(Debug, Serialize, Deserialize)]
pub struct PushUntilEnough(pub Vec<Load>);

/// The rows that were acknowledged, and the seconds that this took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Acknowledged {
    pub rows: usize,
    pub seconds: f64,
}

/// Pushes so many times a second, whether the earlier ones are answered or not; finds how long after it was due each
/// was acknowledged.
#[derive(Debug, Serialize, Deserialize)]
pub struct PushOnTime {
    pub load: Load,
    pub per_second: u32,
}

impl Job for Push {
    const NAME: &str = "push";
    type Found = f64;

    fn run(self, stage: Stage<f64>) -> Outcome {
        let rows: usize = self.0.iter().map(|load| load.rows).sum();
        let took = push_all(self.0, || stage.begin(), |_| {})?;
        stage.found(&(rows as f64 / took.as_secs_f64()))
    }
}

impl Job for PushUntilEnough {
    const NAME: &str = "push-until-enough";
    type Found = Acknowledged;

    fn run(self, stage: Stage<Acknowledged>) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stage = Arc::new(stage);
        let found = runtime.block_on(async {
            let devices = connect(self.0).await?;
            stage.begin()?;
            let begun = Instant::now();
            let mut pushing = JoinSet::new();
            for (mut connection, load) in devices {
                let stage = Arc::clone(&stage);
                pushing.spawn(async move {
                    let mut answered = 0;
                    for (at, push) in load.pushes.iter().enumerate() {
                        let oldest = load.to_be_answered_before(at);
                        while answered < oldest {
                            answered = connection.next_answer(answered).await?;
                        }
                        if stage.is_enough() {
                            break;
                        }
                        connection.send(&push.message).await?;
                    }
                    Ok::<_, Failure>(answered as usize * ROWS_PER_TRANSACTION)
                });
            }
            let mut rows = 0;
            while let Some(pushed) = pushing.join_next().await {
                rows += pushed??;
            }
            let seconds = begun.elapsed().as_secs_f64();
            Ok::<_, Failure>(Acknowledged { rows, seconds })
        })?;
        stage.found(&found)
    }
}

impl Job for PushOnTime {
    const NAME: &str = "push-on-time";
    type Found = Latencies;

    fn run(self, stage: Stage<Latencies>) -> Outcome {
        let Self { load, per_second } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let latencies = runtime.block_on(async {
            let mut connection = load.connect().await?;
            stage.begin()?;
            let interval = Duration::from_secs(1) / per_second;
            let started = Instant::now() + interval;
            let due = |number: u64| started + interval * u32::try_from(number).unwrap_or(u32::MAX);
            let mut latencies = Latencies::new();
            let (mut sent, mut answered) = (0, 0);
            let all = load.pushes.len() as u64;
            while answered < all {
                tokio::select! {
                    () = tokio::time::sleep_until(due(sent).into()), if sent < all => {
                        connection.send(&load.pushes[sent as usize].message).await?;
                        sent += 1;
                    }
                    answer = connection.next_answer(answered) => {
                        let before = std::mem::replace(&mut answered, answer?);
                        // Numbers begin with 1.
                        (before..answered).for_each(|number| latencies.note(due(number).elapsed()));
                    }
                }
            }
            Ok::<_, Failure>(latencies)
        })?;
        stage.found(&latencies)
    }
}

/// Connects all, begins, pushes everything and waits until all of it is acknowledged; how long that took from the first
/// push to the last answer. Each answer is told with the number up to which its device is acknowledged.
pub fn push_all(
    loads: Vec<Load>,
    begin: impl FnOnce() -> Outcome,
    acknowledged: impl Fn(u64) + Clone + Send + Sync + 'static,
) -> Outcome<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let devices = connect(loads).await?;
        begin()?;
        let started = Instant::now();
        let mut pushing = JoinSet::new();
        for (connection, load) in devices {
            pushing.spawn(push(connection, load, acknowledged.clone()));
        }
        while let Some(pushed) = pushing.join_next().await {
            pushed??;
        }
        Ok(started.elapsed())
    })
}

/// Connects all of them at once.
async fn connect(loads: Vec<Load>) -> Outcome<Vec<(Connection, Load)>> {
    let mut connecting = JoinSet::new();
    for load in loads {
        connecting.spawn(async move { Ok::<_, Failure>((load.connect().await?, load)) });
    }
    connecting.join_all().await.into_iter().collect()
}

async fn push(mut connection: Connection, load: Load, acknowledged: impl Fn(u64)) -> Outcome {
    let mut answered = 0;
    for (at, push) in load.pushes.iter().enumerate() {
        let oldest = load.to_be_answered_before(at);
        while answered < oldest {
            answered = connection.next_answer(answered).await?;
            acknowledged(answered);
        }
        connection.send(&push.message).await?;
    }
    let last = load.pushes.last().map_or(0, |push| push.last_number);
    while answered < last {
        answered = connection.next_answer(answered).await?;
        acknowledged(answered);
    }
    Ok(())
}
