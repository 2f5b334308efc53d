//! Which connection a transaction gets, and what becomes of it.

use std::time::Duration;

use sqlx::Row as _;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::connections::PoolFigures;
use crate::database::{Database, Pace, Transaction};
use crate::failure::Failure;

/// Long enough for whatever a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A database with this many connections, and for how long a transaction waits for one.
fn database(server: &Server, connections: u32, acquire_timeout_ms: u32) -> Arc<Database> {
    let mut config = server.config.clone();
    config.limits.max_connections = NonZeroU32::new(connections).unwrap();
    config.limits.acquire_timeout_ms = acquire_timeout_ms;
    Database::new(config)
}

/// A transaction near a place, and the process of the server that runs it.
async fn begin(database: &Database, home: u64) -> (Transaction, i32) {
    let begun = database.begin_near(home, "BEGIN", Pace::Hot, "SELECT pg_backend_pid()::text");
    let (transaction, rows) = begun.await.unwrap();
    let process: &str = rows.last().unwrap().try_get(0).unwrap();
    let process = process.parse().unwrap();
    (transaction, process)
}

async fn end(transaction: Transaction) {
    transaction.end(Ok::<_, Failure>(())).await.unwrap();
}

#[tokio::test]
async fn a_tenant_comes_back_to_its_connection_or_goes_elsewhere() {
    let server = Server::new();
    let database = database(&server, 3, 10_000);
    let mut at_home = Vec::new();
    for home in 0..3 {
        let (transaction, process) = begin(&database, home).await;
        end(transaction).await;
        at_home.push(process);
    }
    for home in [2, 0, 1, 1] {
        // Numbers are counted around.
        let (transaction, process) = begin(&database, home + 3).await;
        assert_eq!(process, at_home[usize::try_from(home).unwrap()]);
        end(transaction).await;
    }
    let (first, process) = begin(&database, 1).await;
    let (second, elsewhere) = begin(&database, 1).await;
    assert_eq!([process, elsewhere], [at_home[1], at_home[2]]);
    assert_eq!(database.figures(), PoolFigures { open: 3, idle: 1, limit: 3 });
    end(first).await;
    end(second).await;
    assert_eq!(database.figures(), PoolFigures { open: 3, idle: 3, limit: 3 });
}

#[tokio::test]
async fn who_hangs_up_in_a_transaction_leaves_the_connection_as_it_was() {
    let server = Server::new();
    let database = database(&server, 1, 10_000);
    let (transaction, process) = begin(&database, 0).await;
    end(transaction).await;
    server.run("CREATE TABLE public.left_behind (number integer); GRANT ALL ON public.left_behind TO PUBLIC");
    for number in 0..20 {
        let (mut transaction, _) = begin(&database, 0).await;
        let slow = format!(
            "INSERT INTO public.left_behind VALUES ({number});SELECT set_config('farshore.tenant', 'x', true);\
             SELECT pg_sleep(0.02)"
        );
        // At another moment each time: before it is sent, while it runs, and after it ended.
        let waited = timeout(Duration::from_millis(2 * number), transaction.script(slow)).await;
        assert!(number > 0 || waited.is_err());
        drop(transaction);
        let opening = "SELECT pg_backend_pid()::text, \
            coalesce(current_setting('farshore.tenant', true), ''), \
            (SELECT count(*) FROM public.left_behind)::text";
        let (transaction, rows) = database.begin("BEGIN", Pace::Hot, opening).await.unwrap();
        let found = |column| rows.last().unwrap().try_get::<&str, _>(column).unwrap().to_owned();
        assert_eq!(
            [found(0), found(1), found(2)],
            [process.to_string(), String::new(), "0".to_owned()]
        );
        end(transaction).await;
    }
}

#[tokio::test]
async fn who_hangs_up_in_a_long_statement_does_not_keep_the_place() {
    let server = Server::new();
    let database = database(&server, 1, 10_000);
    let (mut transaction, process) = begin(&database, 0).await;
    let asked =
        timeout(Duration::from_millis(50), transaction.script("SELECT pg_sleep(60)".to_owned()));
    assert!(asked.await.is_err());
    drop(transaction);
    let (transaction, another) = begin(&database, 0).await;
    assert_ne!(process, another);
    end(transaction).await;
}

#[test]
fn who_goes_with_the_whole_runtime_leaves_no_transaction_behind() {
    let server = Server::new();
    let database = database(&server, 1, 10_000);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (transaction, _) = first.block_on(begin(&database, 0));
    // Dropped inside of a runtime that ends before it takes anything back.
    first.block_on(async { drop(transaction) });
    drop(first);
    assert_eq!(database.figures(), PoolFigures { open: 0, idle: 0, limit: 1 });
}

/// Begins transactions at these homes one after the other while all connections are taken; returns the order in which
/// they get one, by their place in the list.
async fn order(database: &Arc<Database>, homes: &[u64], then_free: Transaction) -> Vec<usize> {
    let (turns, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for (number, home) in homes.iter().copied().enumerate() {
        let (database, turns) = (Arc::clone(database), turns.clone());
        tasks.push(tokio::spawn(async move {
            let (transaction, _) = begin(&database, home).await;
            turns.send(number).unwrap();
            end(transaction).await;
        }));
        // Each stands in the queue before the next one comes.
        yield_now().await;
    }
    drop(turns);
    end(then_free).await;
    let mut got = Vec::new();
    while let Some(number) = timeout(PATIENCE, order.recv()).await.unwrap() {
        got.push(number);
    }
    for task in tasks {
        task.await.unwrap();
    }
    got
}

#[tokio::test]
async fn a_place_goes_to_who_is_at_home_there_and_then_to_the_others() {
    let server = Server::new();
    let database = database(&server, 2, 10_000);
    let (taken, _) = begin(&database, 0).await;
    let (freed, _) = begin(&database, 1).await;
    assert_eq!(order(&database, &[0, 1, 0, 1], freed).await, [1, 3, 0, 2]);
    end(taken).await;
}

#[tokio::test]
async fn who_has_waited_for_half_of_its_time_comes_first() {
    let server = Server::new();
    let database = database(&server, 2, 6_000);
    let (taken, _) = begin(&database, 0).await;
    let (freed, _) = begin(&database, 1).await;
    let waiting = |home| {
        let database = Arc::clone(&database);
        tokio::spawn(async move { begin(&database, home).await })
    };
    let first = waiting(0);
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    let second = waiting(1);
    yield_now().await;
    end(freed).await;
    let (transaction, _) = timeout(PATIENCE, first).await.unwrap().unwrap();
    assert!(!second.is_finished());
    end(transaction).await;
    end(timeout(PATIENCE, second).await.unwrap().unwrap().0).await;
    end(taken).await;
}

#[tokio::test]
async fn a_place_is_not_lost_with_who_gives_up_waiting() {
    let server = Server::new();
    let database = database(&server, 1, 100);
    for _ in 0..3 {
        let (taken, _) = begin(&database, 0).await;
        let refused = database.begin("BEGIN", Pace::Hot, "").await;
        assert!(matches!(refused, Err(Failure::NoConnection { timeout_ms: 100 })));
        end(taken).await;
    }
    assert_eq!(database.figures(), PoolFigures { open: 1, idle: 1, limit: 1 });
}
