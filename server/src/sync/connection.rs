//! The task that drives one session over its socket.

use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Message;
use bytes::Bytes;
use farshore_api::envelope;
use farshore_store::sync::PageRequest;
use farshore_store::{SharedTenantStore, StoreError};
use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::wire::{ClientFrame, Fault, FaultCode, Frame, ServerFrame};
use futures_util::{Sink, SinkExt, Stream, StreamExt, stream};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{broadcast, mpsc};
use tokio::task;
use tokio::time::{Instant, Interval, Sleep, sleep};

use super::audience::Attendance;
use super::lane::{Answer, LaneHandle, Submission, Submitter};
use super::repair;
use super::service::{Newest, SyncService};
use super::session::{Authority, Effect, Event, Session, Waits, begun_anew, fault};
use super::turns::{SMALL_MESSAGE_BYTES, Turn};
use super::under_way::{Done, UnderWay};
use crate::auth::{AuthError, DevicePrincipal};
use crate::telemetry::metrics::Direction;

/// When an overloaded or failing server wants to be asked again, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;
/// Reads and checks that one connection may have under way; the socket is not read beyond them.
const MAX_WORK_PER_CONNECTION: usize = 8;
/// What a row or a document change of a page is counted for before the page is written, in bytes.
const ABOUT_BYTES_PER_ENTRY: usize = 128;
/// What the socket's error says first when a message is longer than it may be. The type of the error is hidden.
const TOO_LONG: &str = "Space limit exceeded";

/// What carries the messages of one device: the server's WebSocket, or a network of the simulator's.
pub trait Socket:
    Stream<Item = Result<Message, axum::Error>> + Sink<Message, Error = axum::Error> + Send + Unpin
{
}

impl<S> Socket for S where
    S: Stream<Item = Result<Message, axum::Error>>
        + Sink<Message, Error = axum::Error>
        + Send
        + Unpin
{
}

/// One connected device.
pub(super) struct Connection<S> {
    service: SyncService,
    principal: DevicePrincipal,
    socket: S,
    store: SharedTenantStore,
    lane: Arc<LaneHandle>,
    session: Session,
    submitter: Submitter,
    answers: mpsc::Receiver<Answer>,
    updates: Attendance,
    under_way: UnderWay,
    newest: Newest,
    /// The turn of the page that has just been read, until it is a message.
    page_turn: Option<Turn>,
    unflushed_bytes: usize,
}

/// What rarely wakes a connection, and the time: they wait in the same futures from one event to the next, as to wait
/// anew would be much of what an event costs.
struct Wakers<'w, R> {
    rare: Pin<&'w mut R>,
    tick: Pin<&'w mut Sleep>,
}

/// What rarely wakes a connection.
enum Rare {
    /// A newer connection of the device has greeted.
    Superseded,
    /// The server is shutting down.
    Draining,
    /// What the device may do has to be read again.
    Reauthorise,
}

/// Why a connection ends.
enum End {
    /// The device closed, or its network did.
    Gone,
    /// The server closes, and says why.
    Fault(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<S: Socket> Connection<S> {
    /// What serves a device; none where its tenant's store does not open, which the device is told.
    pub(super) async fn open(
        service: SyncService,
        principal: DevicePrincipal,
        mut socket: S,
    ) -> Option<Box<Self>> {
        let tenant = principal.scope().tenant().clone();
        let store = match service.shared.catalog.open(principal.scope()).await {
            Ok(store) => store,
            Err(error) => {
                tracing::error!(%tenant, %error, "a tenant's store does not open");
                let fault = Fault { retry_after_ms: Some(RETRY_AFTER_MS), ..internal() };
                let _ = socket.send(message(&ServerFrame::Fault(fault))).await;
                return None;
            }
        };
        let lane = service.lane(&tenant, &store);
        let (submitter, answers) = Submitter::new();
        let newest = service.queue_up(&tenant, principal.device());
        let limits = &service.shared.limits;
        let waits = Waits {
            hello_ms: limits.hello_timeout_ms,
            heartbeat_ms: limits.heartbeat_ms,
            silence_ms: limits.silence_limit_ms,
        };
        let now_ms = service.shared.clock.now_ms();
        let part_bytes = limits.most_commit_bytes();
        let (device, authority) = (principal.device(), authority(&principal));
        let session = Session::new(device, authority, waits, part_bytes, now_ms);
        let updates = lane.updates(session.grants(), session.grants_hash());
        Some(Box::new(Self {
            service,
            principal,
            socket,
            store,
            lane,
            session,
            submitter,
            answers,
            updates,
            under_way: UnderWay::default(),
            newest,
            page_turn: None,
            unflushed_bytes: 0,
        }))
    }

    /// Serves the device until either side closes.
    pub(super) async fn serve(mut self: Box<Self>) {
        // What wakes it goes before its claim to be the newest, which is forgotten with the last that watches it.
        let end = {
            let rare = rare_wakers(&self.service, &self.lane, &self.newest);
            let (rare, tick) = (pin!(rare), pin!(sleep(Duration::ZERO)));
            self.run(Wakers { rare, tick }).await
        };
        // The last words take more room than a quiet connection does.
        Box::pin(self.close(end)).await;
    }

    async fn run<R: Stream<Item = Rare>>(&mut self, mut wakers: Wakers<'_, R>) -> End {
        loop {
            let event = match self.next_event(&mut wakers).await {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(end) => return end,
            };
            if matches!(event, Event::Frame(ClientFrame::Hello(_))) {
                self.newest.take_over();
            }
            for event in self.with_what_was_told(event).into_iter().flatten() {
                let now_ms = self.service.shared.clock.now_ms();
                for effect in self.session.handle(event, now_ms) {
                    if let Err(end) = self.carry_out(effect).await {
                        return end;
                    }
                }
            }
            if self.updates.grants_hash() != self.session.grants_hash() {
                let session = &self.session;
                self.updates = self.lane.updates(session.grants(), session.grants_hash());
            }
            // A page that waits for an answer keeps nobody else from reading.
            self.page_turn = None;
        }
    }

    /// An event, and how far the session is in step, as nobody wakes it for what does not concern it.
    fn with_what_was_told(&self, event: Event) -> [Option<Event>; 2] {
        let told = self.updates.told().map(Event::Told);
        // What was told counts what was just taken.
        if matches!(event, Event::Update(_) | Event::Lagged) {
            [Some(event), told]
        } else {
            [told, Some(event)]
        }
    }

    /// Answers come first: what a device pushed is answered before any page that may show it. What there is to say goes
    /// out when there is nothing more to say at once, and before the device is heard again.
    async fn next_event<R: Stream<Item = Rare>>(
        &mut self,
        wakers: &mut Wakers<'_, R>,
    ) -> Result<Option<Event>, End> {
        let due = self.due();
        if due < wakers.tick.deadline() {
            wakers.tick.as_mut().reset(due);
        }
        let message = tokio::select! {
            biased;
            Some(rare) = wakers.rare.next() => return match rare {
                Rare::Superseded => {
                    Err(fault(FaultCode::Superseded, "a newer connection of this device").into())
                }
                Rare::Draining => {
                    let mut fault = fault(FaultCode::ShuttingDown, "the server is shutting down");
                    fault.retry_after_ms = Some(RETRY_AFTER_MS);
                    Err(fault.into())
                }
                Rare::Reauthorise => {
                    self.reauthorise();
                    Ok(None)
                }
            },
            Some(answer) = self.answers.recv() => return match answer {
                Ok(result) => Ok(Some(Event::Answered(result))),
                Err(error) => Err(store_fault(&error).into()),
            },
            done = self.under_way.next() => return match done? {
                Done::Event(event) => Ok(Some(*event)),
                Done::Page(page, turn) => {
                    self.page_turn = turn;
                    Ok(Some(Event::Page(*page)))
                }
                Done::Principal(principal) => {
                    let event = Event::Authorised(authority(&principal));
                    self.principal = *principal;
                    Ok(Some(event))
                }
            },
            heard = self.updates.next() => return match heard {
                Ok(heard) => Ok(Some(Event::Update(heard))),
                Err(broadcast::error::RecvError::Lagged(_)) => Ok(Some(Event::Lagged)),
                Err(broadcast::error::RecvError::Closed) => Err(End::Fault(internal())),
            },
            () = ready(()), if self.unflushed_bytes > 0 => {
                self.flush().await?;
                return Ok(None);
            }
            message = self.socket.next(), if self.may_read() => message,
            () = wakers.tick.as_mut() => {
                let due = self.due();
                wakers.tick.as_mut().reset(due);
                return Ok((due <= Instant::now()).then_some(Event::Tick));
            }
        };
        self.received(message).await
    }

    /// When the session wants a tick.
    fn due(&self) -> Instant {
        let wait_ms =
            self.session.next_tick_ms().saturating_sub(self.service.shared.clock.now_ms());
        Instant::now() + Duration::from_millis(wait_ms)
    }

    /// What a device may have under way is bounded: it waits in its own socket for the rest.
    fn may_read(&self) -> bool {
        self.session.may_read() && self.under_way.len() < MAX_WORK_PER_CONNECTION
    }

    async fn received(
        &mut self,
        message: Option<Result<Message, axum::Error>>,
    ) -> Result<Option<Event>, End> {
        let bytes = match message {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(None),
            Some(Ok(Message::Text(_))) => return Err(protocol("frames are binary").into()),
            Some(Err(error)) if error.to_string().starts_with(TOO_LONG) => {
                return Err(protocol("the message is too long").into());
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
        };
        self.service.shared.metrics.message(Direction::In, bytes.len());
        let tenant = self.principal.scope().tenant();
        let turn = self.service.shared.large_messages.take(tenant, bytes.len()).await;
        let frame = aside(bytes.len() > SMALL_MESSAGE_BYTES, || {
            let frame = envelope::open(&bytes).map_err(|error| protocol(error.to_string()))?;
            ClientFrame::from_bytes(&frame).map_err(|error| protocol(error.to_string()))
        })?;
        drop(turn);
        self.service.shared.metrics.frame(Direction::In, frame.kind());
        Ok(Some(Event::Frame(frame)))
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), End> {
        match effect {
            Effect::Send(frame) => self.send_frame(&frame).await,
            Effect::SendShared(update) => {
                let session = &self.session;
                let prepare = || {
                    let make = || seal(&session.shared_page(&update));
                    let bytes = update.message(session.grants_hash(), make);
                    (bytes, update.rows_for(session.grants()))
                };
                let principal = &self.principal;
                let (bytes, rows) = self.service.prepare(principal, update.rows(), prepare).await;
                let metrics = &self.service.shared.metrics;
                metrics.frame(Direction::Out, "page");
                metrics.rows_sent.inc_by(rows as u64);
                self.send(Message::Binary(bytes)).await
            }
            Effect::Submit(push) => {
                let (from, grants_hash) = (self.submitter.clone(), self.session.grants_hash());
                let submission = Submission { push, from, grants_hash };
                let taken = pin!(self.lane.submit(submission));
                let taken = self.under_way.meanwhile(taken).await;
                taken.map_err(|_| End::Fault(internal()))
            }
            Effect::Close(fault) => Err(fault.into()),
            Effect::Verify(token) => {
                self.verify(token);
                Ok(())
            }
            Effect::ReadPage(request) => {
                self.read_page(request);
                Ok(())
            }
            effect => {
                self.read(effect);
                Ok(())
            }
        }
    }

    /// Reads a page for a device that is far behind when it is its tenant's turn, and makes a message of it in the same
    /// turn, so that few pages are held at once however many devices are filled.
    fn read_page(&self, request: PageRequest) {
        let behind = usize::try_from(self.session.behind(&request)).unwrap_or(usize::MAX);
        let about_bytes = behind.min(request.max_rows) * ABOUT_BYTES_PER_ENTRY;
        let (store, turns) = (Arc::clone(&self.store), self.service.shared.pages.clone());
        let tenant = self.principal.scope().tenant().clone();
        self.under_way.start(async move {
            let turn = turns.take(&tenant, about_bytes).await;
            let page = store.page(request).await.map_err(|error| store_fault(&error))?;
            Ok(Done::Page(Box::new(page), Some(turn)))
        });
    }

    /// Starts what only reads the store.
    fn read(&self, effect: Effect) {
        let store = Arc::clone(&self.store);
        let (device, grants) = (self.principal.device(), self.session.grants().to_vec());
        let work = async move {
            let event = match effect {
                Effect::LoadStanding => Event::Standing(store.greeting(device).await?),
                Effect::Compare(totals) => {
                    Event::Answer(repair::compare(store.as_ref(), &grants, totals).await?)
                }
                Effect::Repair(listings) => {
                    Event::Answer(repair::repair(store.as_ref(), &grants, listings).await?)
                }
                Effect::Send(_)
                | Effect::SendShared(_)
                | Effect::ReadPage(_)
                | Effect::Submit(_)
                | Effect::Verify(_)
                | Effect::Close(_) => Event::Tick,
            };
            Ok(event)
        };
        self.under_way.start(async move {
            let event: Result<Event, StoreError> = work.await;
            event.map(|event| Done::Event(Box::new(event))).map_err(|error| store_fault(&error))
        });
    }

    fn reauthorise(&self) {
        if bugs::planted(Bug::RightsCheckedOnce) {
            return;
        }
        let (authenticator, principal) =
            (self.service.shared.authenticator.clone(), self.principal.clone());
        self.under_way.start(async move {
            let renewed = authenticator.reauthorise(&principal).await;
            renewed
                .map(|principal| Done::Principal(Box::new(principal)))
                .map_err(|error| auth_fault(&error))
        });
    }

    fn verify(&self, token: String) {
        let (authenticator, principal) =
            (self.service.shared.authenticator.clone(), self.principal.clone());
        self.under_way.start(async move {
            let renewed = authenticator.device(&token).await.map_err(|error| auth_fault(&error))?;
            if renewed.device() != principal.device() || renewed.scope() != principal.scope() {
                return Err(fault(
                    FaultCode::Unauthenticated,
                    "the fresh token is for another device",
                ));
            }
            Ok(Done::Principal(Box::new(renewed)))
        });
    }

    async fn send_frame(&mut self, frame: &ServerFrame) -> Result<(), End> {
        let metrics = &self.service.shared.metrics;
        metrics.frame(Direction::Out, frame.kind());
        let (rows, entries) = match frame {
            ServerFrame::Page(page) => (page.rows.len(), page.rows.len() + page.chunks.len()),
            _ => (0, 0),
        };
        metrics.rows_sent.inc_by(rows as u64);
        let make = || message(frame);
        let message = self.service.prepare(&self.principal, entries, make).await;
        self.page_turn = None;
        self.send(message).await
    }

    /// Queues a message; a device that does not read what waits for it is given up.
    async fn send(&mut self, message: Message) -> Result<(), End> {
        let bytes = length(&message);
        self.service.shared.metrics.message(Direction::Out, bytes);
        self.unflushed_bytes += bytes;
        let limit = self.send_limit();
        let fed = pin!(tokio::time::timeout(limit, self.socket.feed(message)));
        match self.under_way.meanwhile(fed).await {
            Ok(Ok(())) if self.unflushed_bytes > self.service.shared.limits.session_queue_bytes => {
                self.flush().await
            }
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.unflushed_bytes == 0 {
            return Ok(());
        }
        self.unflushed_bytes = 0;
        let limit = self.send_limit();
        let flushed = pin!(tokio::time::timeout(limit, self.socket.flush()));
        match self.under_way.meanwhile(flushed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    fn send_limit(&self) -> Duration {
        Duration::from_millis(self.service.shared.limits.silence_limit_ms)
    }

    async fn close(&mut self, end: End) {
        if let End::Fault(fault) = end {
            self.service.shared.metrics.fault(fault.code.as_str());
            tracing::info!(
                tenant = %self.principal.scope().tenant(),
                device = %self.principal.device(),
                code = fault.code.as_str(),
                reason = %fault.message,
                "closing a connection"
            );
            // The device may be gone already; there is nobody else to tell, and no reason to wait for it.
            let limit = self.send_limit();
            let last_words = async {
                let _ = self.send_frame(&ServerFrame::Fault(fault)).await;
                let _ = self.socket.send(Message::Close(None)).await;
            };
            let _ = tokio::time::timeout(limit, last_words).await;
        }
    }
}

impl SyncService {
    /// Makes a message of so many rows and document changes: a large one when it is the tenant's turn, so that few are
    /// held in all their forms at once, and aside.
    async fn prepare<T>(
        &self,
        principal: &DevicePrincipal,
        entries: usize,
        make: impl FnOnce() -> T,
    ) -> T {
        let about_bytes = entries * ABOUT_BYTES_PER_ENTRY;
        let _turn = self.shared.large_messages.take(principal.scope().tenant(), about_bytes).await;
        aside(about_bytes > SMALL_MESSAGE_BYTES, make)
    }
}

/// Works without holding up the other connections of this thread, which another thread takes over for large work. Where
/// there is only this one, as in the simulator, it works all the same.
fn aside<T>(is_large: bool, work: impl FnOnce() -> T) -> T {
    if is_large && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        task::block_in_place(work)
    } else {
        work()
    }
}

fn seal(frame: &ServerFrame) -> Bytes {
    Bytes::from(envelope::seal(&frame.to_bytes()))
}

fn message(frame: &ServerFrame) -> Message {
    Message::Binary(seal(frame))
}

fn length(message: &Message) -> usize {
    match message {
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

fn protocol(what: impl Into<String>) -> Fault {
    fault(FaultCode::Protocol, what)
}

fn internal() -> Fault {
    fault(FaultCode::Internal, "the server failed; its log says why")
}

fn store_fault(error: &StoreError) -> Fault {
    if matches!(error, StoreError::BegunAnew) {
        return begun_anew();
    }
    if matches!(error, StoreError::Frozen) {
        let moving = fault(FaultCode::Moving, "the tenant is being moved and takes no writes");
        return Fault { retry_after_ms: Some(RETRY_AFTER_MS), ..moving };
    }
    tracing::error!(%error, "a store failed under a session");
    Fault { retry_after_ms: Some(RETRY_AFTER_MS), ..internal() }
}

fn auth_fault(error: &AuthError) -> Fault {
    fault(error.fault_code(), error.to_string())
}

fn authority(principal: &DevicePrincipal) -> Authority {
    Authority { grants: principal.grants().to_vec(), expires_at_ms: principal.expires_at_ms() }
}

/// Everything that rarely wakes a connection.
fn rare_wakers(
    service: &SyncService,
    lane: &LaneHandle,
    newest: &Newest,
) -> impl Stream<Item = Rare> + Send + use<> {
    let superseded = newest.superseded();
    let mut draining = service.draining();
    let drained = async move {
        // Without a service there is nobody left who drains.
        if draining.wait_for(|draining| *draining).await.is_err() {
            pending::<()>().await;
        }
    };
    let reauthorise =
        (lane.authority(), reauthorise_interval(service.shared.limits.reauthorise_interval_ms));
    let superseded = stream::once(superseded).map(|()| Rare::Superseded);
    let drained = stream::once(drained).map(|()| Rare::Draining);
    let reauthorise = stream::unfold(reauthorise, |(mut changed, mut interval)| async move {
        tokio::select! {
            biased;
            Ok(()) = changed.changed() => {}
            _ = interval.tick() => {}
        }
        Some((Rare::Reauthorise, (changed, interval)))
    });
    stream::select(stream::select(superseded, drained), reauthorise)
}

fn reauthorise_interval(interval_ms: u64) -> Interval {
    let period = Duration::from_millis(interval_ms.max(1));
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}
