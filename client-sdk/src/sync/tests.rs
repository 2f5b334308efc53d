//! The driver against a server whose every word the test decides, over a real socket.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use farshore_sync_core::digest::Sum;
use farshore_sync_core::replica::{Cause, Phase, RetryPolicy, StoreRequest};
use farshore_sync_core::wire::{
    Checkpoint, ClientFrame, Fault, FaultCode, Page, PushOutcome, Refill, ServerFrame, Welcome,
};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::board::{Board, Shown};
use super::claims::tests::forge;
use super::connection::Route;
use super::driver::{DriverHandle, DriverParts, StoreCalls};
use super::owner::Owner;
use super::token::{Token, TokenSource};
use super::{ServerAddress, TokenReason};
use crate::environment::OsEnvironment;
use script::{ScriptedServer, ScriptedStore};

mod script;

const DEVICE: &str = "0198c0de-0000-7000-8000-000000000001";
/// Nothing here takes longer, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

fn token(serial: u32) -> String {
    forge(&format!(r#"{{"sub":"{DEVICE}","tid":"demo","jti":"{serial}"}}"#))
}

/// A driver under test, its store and its server.
struct Bench {
    driver: DriverHandle,
    board: Arc<Board>,
    store: Arc<ScriptedStore>,
    commits: Arc<Notify>,
    server: ScriptedServer,
}

impl Bench {
    async fn start(tokens: TokenSource) -> Self {
        let server = ScriptedServer::listen().await;
        let (store, board, commits) =
            (Arc::new(ScriptedStore::default()), Arc::<Board>::default(), Arc::default());
        let parts = DriverParts {
            store: Arc::clone(&store) as _,
            store_calls: StoreCalls::BlockingThreads,
            environment: Arc::new(OsEnvironment::default()),
            route: Route::WebSocket {
                address: ServerAddress::parse(&server.url()).unwrap(),
                trust: None,
            },
            tokens,
            owner: Owner { device: DEVICE.parse().unwrap(), tenant: None },
            board: Arc::clone(&board),
            commits: Arc::clone(&commits),
            retry: RetryPolicy { first_ms: 1, most_ms: 20 },
        };
        let driver = DriverHandle::start(&Handle::current(), parts);
        Self { driver, board, store, commits, server }
    }

    async fn with_fixed_token() -> Self {
        Self::start(TokenSource::fixed(&token(1)).unwrap()).await
    }

    /// Waits until the board shows what is wanted.
    async fn shows(&self, what: &str, wanted: impl Fn(&Shown) -> bool) -> Shown {
        let waiting = async {
            loop {
                let (version, shown) = self.board.look();
                if wanted(&shown) {
                    return shown;
                }
                self.board.changed_beyond(version).await;
            }
        };
        in_time(what, waiting).await
    }

    async fn shows_phase(&self, phase: Phase) -> Shown {
        self.shows(&format!("{phase:?}"), |shown| shown.replica.phase == phase).await
    }
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

fn welcome() -> ServerFrame {
    ServerFrame::Welcome(Welcome {
        server_time_ms: 1_700_000_000_000,
        epoch: 1,
        head: 9,
        high_water: 0,
        schema_version: 1,
        grants: None,
        digest_key: None,
        refill: Refill::No,
    })
}

fn checkpoint(seq: u64) -> ServerFrame {
    let checkpoint = Some(Checkpoint { seq, root: Sum(0) });
    ServerFrame::Page(Page { checkpoint, ..Page::default() })
}

#[tokio::test]
async fn hello_carries_the_outbox_and_a_later_commit_is_pushed() {
    let mut bench = Bench::with_fixed_token().await;
    bench.store.commit(1, b"first");
    bench.driver.connect();
    let mut peer = bench.server.accept().await;
    assert_eq!(peer.authorization, format!("Bearer {}", token(1)));
    let ClientFrame::Hello(hello) = peer.receive().await else { panic!() };
    assert_eq!(hello.transactions.len(), 1);
    peer.send(&welcome()).await;
    peer.send(&checkpoint(9)).await;
    let live = bench.shows_phase(Phase::Live).await;
    assert_eq!(live.replica.checkpoint, Some(9));

    bench.store.commit(2, b"second");
    bench.commits.notify_one();
    let ClientFrame::Push(push) = peer.receive().await else { panic!() };
    assert_eq!(push.transactions.len(), 1);
    let outcome = PushOutcome { number: 2, seq: 10, refused: None, corrected: None };
    peer.send(&ServerFrame::Outcomes(vec![outcome])).await;
    in_time("the outcome is stored", bench.store.saw(|r| matches!(r, StoreRequest::Outcomes(_))))
        .await;
}

#[tokio::test]
async fn downloads_go_on_while_the_server_takes_nothing() {
    let mut bench = Bench::with_fixed_token().await;
    // More than every buffer between the two sides holds, and incompressible.
    let transaction = script::noise(200 << 10);
    for number in 1..=200 {
        bench.store.commit(number, &transaction);
    }
    bench.driver.connect();
    let mut peer = bench.server.accept().await;
    // From here on the server reads nothing and sends a lot.
    peer.send(&welcome()).await;
    for seq in 1..=500 {
        in_time("the client takes pages", peer.send(&checkpoint(seq))).await;
    }
    bench.shows("the last page", |shown| shown.replica.checkpoint == Some(500)).await;
    let pushed = bench.store.outbox_position();
    assert!(pushed < 200, "the outbox is not read into memory: {pushed} of 200");

    // And the uploads go on as soon as the server reads.
    let mut received = 0;
    while received < 200 {
        received += match peer.receive().await {
            ClientFrame::Hello(hello) => hello.transactions.len(),
            ClientFrame::Push(push) => push.transactions.len(),
            other => panic!("{other:?}"),
        };
    }
}

#[tokio::test]
async fn a_refused_token_waits_for_another_one() {
    let mut bench = Bench::with_fixed_token().await;
    bench.driver.connect();
    let body =
        r#"{"type":"t","title":"t","status":401,"detail":"revoked","code":"unauthenticated"}"#;
    bench.server.answer("401 Unauthorized", body).await;
    let shown = bench.shows_phase(Phase::Waiting).await;
    assert_eq!(shown.replica.cause, Some(Cause::Unauthenticated("revoked".into())));
    assert_eq!(shown.retry_at_ms, None);

    bench.driver.bring(Token::read(&token(2)).unwrap());
    let peer = bench.server.accept().await;
    assert_eq!(peer.authorization, format!("Bearer {}", token(2)));
}

#[tokio::test]
async fn a_source_is_asked_for_another_token_when_one_is_refused() {
    let source = TokenSource::callback(|reason| async move {
        Ok(token(if reason == TokenReason::Refused { 2 } else { 1 }))
    });
    let mut bench = Bench::start(source).await;
    bench.driver.connect();
    bench.server.answer("401 Unauthorized", "").await;
    let mut peer = bench.server.accept().await;
    assert_eq!(peer.authorization, format!("Bearer {}", token(2)));
    peer.receive().await;
    peer.send(&welcome()).await;
    let message = "revoked in the stream".to_owned();
    peer.send(&ServerFrame::Fault(Fault {
        code: FaultCode::Unauthenticated,
        message,
        retry_after_ms: None,
    }))
    .await;
    bench.shows("the refusal", |shown| matches!(shown.replica.cause, Some(Cause::Fault(_)))).await;
}

#[tokio::test]
async fn a_token_for_another_device_never_reaches_the_server() {
    let other = forge(r#"{"sub":"0198c0de-0000-7000-8000-00000000000f","tid":"demo"}"#);
    let bench =
        Bench::start(TokenSource::callback(move |_| std::future::ready(Ok(other.clone())))).await;
    bench.driver.connect();
    let shown = bench.shows("the mismatch", |shown| shown.mismatch.is_some()).await;
    assert!(matches!(shown.replica.cause, Some(Cause::Unauthenticated(_))), "{shown:?}");
    assert_eq!(bench.server.connections(), 0);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_later() {
    let mut bench = Bench::with_fixed_token().await;
    bench.driver.connect();
    bench.server.answer("503 Service Unavailable\r\nRetry-After: 0", "").await;
    let shown = bench.shows("the answer", |shown| shown.replica.cause.is_some()).await;
    assert!(
        matches!(shown.replica.cause, Some(Cause::Fault(fault)) if fault.code == FaultCode::Overloaded)
    );
    bench.server.accept().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_comes_back_by_itself() {
    let mut bench = Bench::with_fixed_token().await;
    bench.driver.connect();
    for _ in 0..3 {
        let mut peer = bench.server.accept().await;
        assert!(matches!(peer.receive().await, ClientFrame::Hello(_)));
    }
    bench.driver.disconnect();
    assert_eq!(bench.board.look().1.replica.phase, Phase::Stopped);
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    for message in [
        script::text("hello"),
        script::binary(&[]),
        script::binary(&[0, 0xff]),
        script::binary(&[9]),
    ] {
        let mut bench = Bench::with_fixed_token().await;
        bench.driver.connect();
        let mut peer = bench.server.accept().await;
        peer.send_raw(message).await;
        bench
            .shows("the breach", |shown| matches!(shown.replica.cause, Some(Cause::Protocol(_))))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_waits_for_the_write_that_is_under_way() {
    let mut bench = Bench::with_fixed_token().await;
    bench.driver.connect();
    let mut peer = bench.server.accept().await;
    peer.receive().await;
    bench.store.shut(true);
    peer.send(&welcome()).await;
    in_time("the store is called", bench.store.saw(|r| matches!(r, StoreRequest::Adopt(_)))).await;
    let driver = bench.driver;
    let ending = tokio::task::spawn_blocking(move || driver.end());
    assert!(!ending.is_finished());
    bench.store.shut(false);
    in_time("the driver ends", ending).await.unwrap();
    assert_eq!(bench.store.under_way(), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_to_a_dropped_driver_is_left() {
    let mut bench = Bench::with_fixed_token().await;
    bench.driver.connect();
    let mut peer = bench.server.accept().await;
    peer.receive().await;
    drop(bench.driver);
    in_time("the socket ends", peer.ended()).await;
}
