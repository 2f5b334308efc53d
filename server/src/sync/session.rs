//! One device's connection as a state machine: events in, effects out. The service drives it; it does no I/O.
//!
//! Invariants:
//! - Rows go out in the order of their seq within a scope, and a checkpoint goes out only when every scope that
//!   the device may read is at its seq.
//! - A page that may hold the effect of the device's own push goes out after the answer to that push, so that
//!   the device never counts a pending change twice.
//! - What a device may do is what the last authorisation said; a change of it stops pages until the device has
//!   said where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use farshore_store::pushed::PushedTransaction;
use farshore_store::sync::{
    DevicePush, Greeting, Head, PageRead, PageRequest, PushResult, ScopeRead,
};
use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::{Sum, Totals};
use farshore_sync_core::ids::{CollectionId, DeviceId, Scope};
use farshore_sync_core::wire::limits::{
    MAX_ROWS_PER_PAGE, MAX_TRANSACTION_BYTES, PAGE_TARGET_BYTES,
};
use farshore_sync_core::wire::{
    BucketListing, Checkpoint, ClientFrame, Fault, FaultCode, Grant, Hello, PROTOCOL_VERSION, Page,
    PositionUpdate, Refill, ScopePosition, ServerFrame, Welcome, scopes_hash,
};
use minicbor::bytes::{ByteArray, ByteVec};

use super::audience::Heard;
use super::pace::in_parts;
use super::page;
use super::update::Update;

/// Pushes of one connection that the lane may hold; the socket is not read beyond them.
pub const MAX_PUSHES_WITH_LANE: u64 = 4;

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// A frame came.
    Frame(ClientFrame),
    /// What [`Effect::LoadStanding`] asked for.
    Standing(Greeting),
    /// The lane answered the oldest push.
    Answered(PushResult),
    /// What [`Effect::ReadPage`] asked for.
    Page(PageRead),
    /// The lane committed what concerns the session.
    Update(Heard),
    /// Up to this seq nothing concerns the session but what it was told.
    Told(u64),
    /// Updates were missed: the next page comes from the store.
    Lagged,
    /// The device was authorised anew.
    Authorised(Authority),
    /// The answer to [`Effect::Compare`] or [`Effect::Repair`].
    Answer(ServerFrame),
    /// Time passed.
    Tick,
}

/// What a session wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame.
    Send(ServerFrame),
    /// Send a page that is shared with every session of the same scopes.
    SendShared(Arc<Update>),
    /// Bring [`Event::Standing`].
    LoadStanding,
    /// Hand a push to the lane.
    Submit(DevicePush),
    /// Bring [`Event::Page`].
    ReadPage(PageRequest),
    /// Find the collections in which the device differs, and answer with their buckets.
    Compare(Vec<(Scope, CollectionId, Sum)>),
    /// Find the rows in which buckets of the device differ, and answer with them.
    Repair(Vec<BucketListing>),
    /// Verify a fresh token of the device.
    Verify(String),
    /// Say why and close.
    Close(Fault),
}

/// What a device may do, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// What it may do.
    pub grants: Vec<Grant>,
    /// Until when, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// How long a session waits.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For Hello.
    pub hello_ms: u64,
    /// For any frame before it asks for one.
    pub heartbeat_ms: u64,
    /// For any frame before it takes the connection for dead.
    pub silence_ms: u64,
}

/// One device's connection.
#[derive(Debug)]
pub struct Session {
    device: DeviceId,
    waits: Waits,
    part_bytes: usize,
    grants: Vec<Grant>,
    grants_hash: Sum,
    expires_at_ms: u64,
    hello: Option<Hello>,
    /// What Welcome said; 0 before it.
    epoch: u64,
    stream: Stream,
    /// Pushes handed to the lane, and answered by it.
    submitted: u64,
    answered: u64,
    reading: bool,
    /// The page that is being read was asked for before the rights changed: it is thrown away.
    read_is_stale: bool,
    /// A page that waits for the answers to the pushes up to a number.
    parked: Option<(PageRead, u64)>,
    checkpoint_wanted: bool,
    /// The horizon that the pages since the device said where it stands were read above.
    horizon: u64,
    /// The seq of the last checkpoint that was sent.
    told: u64,
    /// The seq that a checkpoint has to reach for the device to see its own pushes confirmed.
    owed: u64,
    /// The seq of the newest commit that the session was told of.
    heard_of: u64,
    totals: Totals,
    heard_at_ms: u64,
    pinged: bool,
}

/// What the device receives.
#[derive(Debug)]
enum Stream {
    /// Nothing before Hello is answered.
    Waiting,
    /// Nothing before the device has said where each scope stands, so many times: once for each time that it was
    /// told its scopes.
    AwaitingResume(u32),
    /// Pages from the store, from these positions.
    CatchingUp(BTreeMap<Scope, Reach>),
    /// The lane's updates, after this seq.
    InStep(u64),
}

/// How far the device has got in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    /// The seq up to which it has the rows.
    rows: u64,
    /// The seq up to which it has the document changes of every row: see [`ScopeRead::changes_after`].
    changes: u64,
}

impl Reach {
    /// A device that holds everything up to a seq.
    const fn checkpoint(seq: u64) -> Self {
        Self { rows: seq, changes: seq }
    }

    /// Whether deletions after it were purged. Who holds nothing misses none.
    const fn is_below(self, horizon: u64) -> bool {
        self.rows != 0 && self.rows < horizon
    }

    /// A device in the middle of a catch-up whose beginning is not known any more.
    const fn amid(seq: u64) -> Self {
        Self { rows: seq, changes: 0 }
    }
}

impl Session {
    /// A session that has just been authenticated. A push of more than `part_bytes` is submitted in parts, as if the
    /// device had sent several.
    #[must_use]
    pub fn new(
        device: DeviceId,
        authority: Authority,
        waits: Waits,
        part_bytes: usize,
        now_ms: u64,
    ) -> Self {
        let Authority { grants, expires_at_ms } = authority;
        Self {
            device,
            waits,
            part_bytes,
            grants_hash: scopes_hash(&grants),
            grants,
            expires_at_ms,
            hello: None,
            epoch: 0,
            stream: Stream::Waiting,
            submitted: 0,
            answered: 0,
            reading: false,
            read_is_stale: false,
            parked: None,
            checkpoint_wanted: false,
            horizon: 0,
            told: 0,
            owed: 0,
            heard_of: 0,
            totals: Totals::new(),
            heard_at_ms: now_ms,
            pinged: false,
        }
    }

    /// Whether the next frame may be read: Hello is not being answered, and the lane does not hold too many pushes of
    /// this device. A device does not wait for Welcome before it pushes on; its frames wait in its socket.
    #[must_use]
    pub const fn may_read(&self) -> bool {
        let answering_hello = self.hello.is_some() && matches!(self.stream, Stream::Waiting);
        !answering_hello && self.submitted - self.answered < MAX_PUSHES_WITH_LANE
    }

    /// How many commits the device lacks that asks for a page, as far as is known: it is one row for each at least.
    #[must_use]
    pub fn behind(&self, request: &PageRequest) -> u64 {
        let least = request.scopes.iter().map(|scope| scope.after).min();
        least.map_or(0, |least| self.heard_of.saturating_sub(least))
    }

    /// What identifies the scopes of this session, for shared pages.
    #[must_use]
    pub const fn grants_hash(&self) -> Sum {
        self.grants_hash
    }

    /// The scopes and rights of this session, sorted.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// When the session wants [`Event::Tick`] at the latest, in milliseconds since 1970.
    #[must_use]
    pub fn next_tick_ms(&self) -> u64 {
        let silence = match (&self.hello, self.pinged) {
            (None, _) => self.waits.hello_ms,
            (Some(_), true) => self.waits.silence_ms,
            (Some(_), false) => self.waits.heartbeat_ms,
        };
        (self.heard_at_ms + silence).min(self.expires_at_ms)
    }

    /// Takes an event in and says what to do, in order.
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let result = match event {
            Event::Frame(frame) => {
                self.heard_at_ms = now_ms;
                self.pinged = false;
                self.frame(frame, &mut effects)
            }
            Event::Standing(standing) => self.standing(&standing, now_ms, &mut effects),
            Event::Answered(result) => self.answered(result, &mut effects),
            Event::Page(read) if read.head.epoch != self.epoch => Err(begun_anew()),
            Event::Page(read) => {
                self.reading = false;
                if !std::mem::take(&mut self.read_is_stale) {
                    self.parked = Some((read, self.submitted));
                    self.release(&mut effects)
                } else {
                    Ok(())
                }
            }
            Event::Update(heard) if heard.update.begins_anew() => Err(begun_anew()),
            Event::Update(heard) => {
                self.update(heard, &mut effects);
                Ok(())
            }
            Event::Told(seq) => {
                self.in_step_with(seq);
                Ok(())
            }
            Event::Lagged => {
                self.lagged();
                Ok(())
            }
            Event::Authorised(authority) => {
                self.authorised(authority, &mut effects);
                Ok(())
            }
            Event::Answer(frame) => {
                self.checkpoint_wanted |= matches!(frame, ServerFrame::Repair(_));
                effects.push(Effect::Send(frame));
                Ok(())
            }
            Event::Tick => self.tick(now_ms, &mut effects),
        };
        match result {
            Ok(()) => {
                self.read_on(&mut effects);
                if self.owed > self.told {
                    self.tell(self.owed, &mut effects);
                }
            }
            Err(fault) => effects.push(Effect::Close(fault)),
        }
        effects
    }

    fn frame(&mut self, frame: ClientFrame, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        match frame {
            ClientFrame::Hello(hello) if self.hello.is_none() => {
                if hello.protocol != PROTOCOL_VERSION {
                    let message =
                        format!("this server speaks version {PROTOCOL_VERSION} of the protocol");
                    return Err(fault(FaultCode::UnsupportedVersion, message));
                }
                self.hello = Some(hello);
                effects.push(Effect::LoadStanding);
                Ok(())
            }
            ClientFrame::Ping(nonce) => {
                effects.push(Effect::Send(ServerFrame::Pong(nonce)));
                // A quiet device learns how far it is in step, so that its cursor does not fall below the horizon.
                self.tell(0, effects);
                Ok(())
            }
            ClientFrame::Pong(_) => Ok(()),
            _ if matches!(self.stream, Stream::Waiting) => Err(fault(
                FaultCode::Protocol,
                "Hello comes first, and once, and is answered before anything else",
            )),
            ClientFrame::Hello(_) => Err(fault(FaultCode::Protocol, "Hello comes once")),
            ClientFrame::Resume(positions) => self.resume(positions),
            ClientFrame::Push(push) => self.push(push.settled, push.transactions, effects),
            ClientFrame::Compare(totals) => {
                effects.push(Effect::Compare(totals));
                Ok(())
            }
            ClientFrame::Buckets(listings) => {
                effects.push(Effect::Repair(listings));
                Ok(())
            }
            ClientFrame::Token(token) => {
                effects.push(Effect::Verify(token));
                Ok(())
            }
        }
    }

    fn standing(
        &mut self,
        standing: &Greeting,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let Some(hello) = &mut self.hello else { return Ok(()) };
        if hello.schema_version > standing.schema_version {
            let message = format!(
                "the app's schema is version {}, the tenant's {}: register it with `farshore schema apply`",
                hello.schema_version, standing.schema_version
            );
            return Err(fault(FaultCode::SchemaTooNew, message));
        }
        self.epoch = standing.head.epoch;
        self.heard_of = self.heard_of.max(standing.head.seq);
        let refill = refill(hello, standing.head);
        let same_scopes = hello.scopes_hash == self.grants_hash;
        let fresh = hello.cursor == 0 && hello.positions.is_empty();
        let knows_key = hello.epoch == standing.head.epoch;
        let welcome = Welcome {
            server_time_ms: now_ms,
            epoch: standing.head.epoch,
            head: standing.head.seq,
            high_water: standing.progress.high_water,
            schema_version: standing.schema_version,
            grants: (!same_scopes || refill != Refill::No).then(|| self.grants.clone()),
            digest_key: (!knows_key).then(|| ByteArray::from(standing.digest_key.0)),
            refill,
        };
        effects.push(Effect::Send(ServerFrame::Welcome(welcome)));
        let all_at = |seq: u64| {
            let granted = self.grants.iter();
            granted.map(|grant| (grant.scope.clone(), Reach::checkpoint(seq))).collect()
        };
        self.stream = if fresh || refill != Refill::No {
            Stream::CatchingUp(all_at(0))
        } else if !same_scopes {
            Stream::AwaitingResume(1)
        } else if hello.positions.is_empty() {
            Stream::CatchingUp(all_at(hello.cursor))
        } else {
            let mut positions: BTreeMap<Scope, Reach> = all_at(hello.cursor);
            let said = hello.positions.drain(..);
            positions.extend(said.map(|position| (position.scope, Reach::amid(position.seq))));
            Stream::CatchingUp(positions)
        };
        self.checkpoint_wanted = true;
        let (settled, transactions) = (hello.settled, std::mem::take(&mut hello.transactions));
        if transactions.is_empty() { Ok(()) } else { self.push(settled, transactions, effects) }
    }

    fn resume(&mut self, positions: Vec<ScopePosition>) -> Result<(), Fault> {
        match &mut self.stream {
            // It answers scopes that have changed again since; the answer to those is on its way.
            Stream::AwaitingResume(due @ 2..) => {
                *due -= 1;
                return Ok(());
            }
            Stream::AwaitingResume(_) => {}
            Stream::Waiting | Stream::CatchingUp(_) | Stream::InStep(_) => {
                return Err(fault(
                    FaultCode::Protocol,
                    "Resume answers scopes that changed, and nothing else",
                ));
            }
        }
        // What the device holds as it answers: the last checkpoint of this connection, or the one that it came with.
        let cursor = self.hello.as_ref().map_or(0, |hello| hello.cursor);
        let checkpoint = if self.told > 0 { self.told } else { cursor };
        let mut wanted: BTreeMap<Scope, Reach> =
            self.grants.iter().map(|grant| (grant.scope.clone(), Reach::checkpoint(0))).collect();
        for position in positions {
            if let Some(reach) = wanted.get_mut(&position.scope) {
                *reach = if position.seq == checkpoint {
                    Reach::checkpoint(checkpoint)
                } else {
                    Reach::amid(position.seq)
                };
            }
        }
        self.stream = Stream::CatchingUp(wanted);
        self.checkpoint_wanted = true;
        self.horizon = 0;
        Ok(())
    }

    fn push(
        &mut self,
        settled: u64,
        transactions: Vec<ByteVec>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let mut last = 0;
        let mut read = Vec::with_capacity(transactions.len());
        for bytes in &transactions {
            if bytes.len() > MAX_TRANSACTION_BYTES {
                let message = format!(
                    "the transaction after {last} is longer than {MAX_TRANSACTION_BYTES} bytes"
                );
                return Err(fault(FaultCode::Protocol, message));
            }
            let transaction = PushedTransaction::read(bytes)
                .filter(|transaction| transaction.number() > last)
                .ok_or_else(|| {
                    fault(FaultCode::Protocol, "transaction numbers rise within a push")
                })?;
            last = transaction.number();
            read.push(transaction);
        }
        for transactions in in_parts(read, self.part_bytes) {
            self.submitted += 1;
            effects.push(Effect::Submit(DevicePush {
                device: self.device,
                epoch: self.epoch,
                grants: self.grants.clone(),
                settled,
                transactions,
            }));
        }
        Ok(())
    }

    fn answered(&mut self, result: PushResult, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        self.answered += 1;
        let (outcomes, forked) = match result {
            PushResult::Answered(outcomes) => (outcomes, None),
            PushResult::Forked { answered, number } => (answered, Some(number)),
        };
        self.owed = outcomes.iter().map(|outcome| outcome.seq).fold(self.owed, u64::max);
        if !outcomes.is_empty() {
            effects.push(Effect::Send(ServerFrame::Outcomes(outcomes)));
        }
        if let Some(number) = forked {
            let message = format!(
                "transaction {number} came before with other content: this device id is in use twice"
            );
            return Err(fault(FaultCode::ReplicaForked, message));
        }
        self.release(effects)
    }

    /// Sends a page that was read, once every push that it may hold has been answered.
    fn release(&mut self, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        let Some((read, after)) = self.parked.take() else { return Ok(()) };
        if self.answered < after && !bugs::planted(Bug::PageBeforeAnswer) {
            self.parked = Some((read, after));
            return Ok(());
        }
        let Stream::CatchingUp(positions) = &mut self.stream else { return Ok(()) };
        let moved = read.head.horizon > self.horizon && !bugs::planted(Bug::PurgeOvertakesCatchUp);
        if moved && positions.values().any(|held| held.is_below(read.head.horizon)) {
            return Err(fault(
                FaultCode::BelowHorizon,
                "deletions that the device had not come to yet were purged",
            ));
        }
        self.horizon = read.head.horizon;
        let mut page = Page::default();
        for changed in read.rows {
            page::append(&mut page, &self.grants, changed);
        }
        for (index, ((_, held), seq)) in (0..).zip(positions.iter_mut().zip(&read.positions)) {
            if !read.complete && held.rows != *seq {
                page.positions.push(PositionUpdate { scope: index, seq: *seq });
            }
            held.rows = *seq;
            if bugs::planted(Bug::ChangesAfterPosition) {
                held.changes = *seq;
            }
        }
        if read.complete || bugs::planted(Bug::CheckpointTooEarly) {
            self.totals = read.totals;
            page.checkpoint =
                Some(Checkpoint { seq: read.head.seq, root: page::root(&self.totals) });
            self.stream = Stream::InStep(read.head.seq);
            self.checkpoint_wanted = false;
            self.told = read.head.seq;
            // A commit that came while the page was being read, or waited, may not be in it.
            if self.heard_of > read.head.seq && !bugs::planted(Bug::MissedCommitForgotten) {
                self.lagged();
            }
        }
        effects.push(Effect::Send(ServerFrame::Page(page)));
        Ok(())
    }

    fn update(&mut self, Heard { update, after }: Heard, effects: &mut Vec<Effect>) {
        self.heard_of = self.heard_of.max(update.seq());
        let Stream::InStep(seq) = self.stream else { return };
        if update.seq() <= seq {
            return;
        }
        if after > seq || !update.is_shareable() {
            return self.lagged();
        }
        update.add_totals(&mut self.totals, &self.grants);
        self.stream = Stream::InStep(update.seq());
        // Of rows that the device may not read it need not hear: its last checkpoint stays valid.
        if update.rows_for(&self.grants) > 0 {
            self.told = update.seq();
            effects.push(Effect::SendShared(update));
        }
    }

    /// Nothing concerns the session up to a seq but what it has, where it has everything up to an earlier one.
    const fn in_step_with(&mut self, passed: u64) {
        if let Stream::InStep(seq) = &mut self.stream
            && passed > *seq
        {
            *seq = passed;
        }
    }

    /// Sends a checkpoint without rows, where the device is in step up to a seq and has not been told.
    fn tell(&mut self, at_least: u64, effects: &mut Vec<Effect>) {
        if let Stream::InStep(seq) = self.stream
            && seq >= at_least
            && seq > self.told
        {
            self.told = seq;
            let checkpoint = Some(Checkpoint { seq, root: page::root(&self.totals) });
            effects.push(Effect::Send(ServerFrame::Page(Page { checkpoint, ..Page::default() })));
        }
    }

    /// The page that [`Effect::SendShared`] stands for, for this session's scopes.
    #[must_use]
    pub fn shared_page(&self, update: &Update) -> ServerFrame {
        ServerFrame::Page(update.page_for(&self.grants, page::root(&self.totals)))
    }

    fn lagged(&mut self) {
        if let Stream::InStep(seq) = self.stream {
            let granted = self.grants.iter();
            let positions = granted.map(|grant| (grant.scope.clone(), Reach::checkpoint(seq)));
            self.stream = Stream::CatchingUp(positions.collect());
        }
    }

    fn authorised(&mut self, authority: Authority, effects: &mut Vec<Effect>) {
        let Authority { grants, expires_at_ms } = authority;
        self.expires_at_ms = expires_at_ms;
        if grants == self.grants {
            return;
        }
        self.grants_hash = scopes_hash(&grants);
        self.grants = grants;
        self.totals.clear();
        self.parked = None;
        self.read_is_stale = self.reading && !bugs::planted(Bug::PageOfOldRights);
        let due = match self.stream {
            Stream::AwaitingResume(due) => due + 1,
            Stream::Waiting | Stream::CatchingUp(_) | Stream::InStep(_) => 1,
        };
        if !matches!(self.stream, Stream::Waiting) {
            self.stream = Stream::AwaitingResume(due);
            effects.push(Effect::Send(ServerFrame::Scopes(self.grants.clone())));
        }
    }

    fn tick(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        if now_ms >= self.expires_at_ms {
            return Err(fault(FaultCode::Unauthenticated, "the access token expired"));
        }
        let silence_ms = now_ms.saturating_sub(self.heard_at_ms);
        let limit_ms =
            if self.hello.is_none() { self.waits.hello_ms } else { self.waits.silence_ms };
        if silence_ms >= limit_ms {
            return Err(fault(FaultCode::Silent, "no frame for too long"));
        }
        if silence_ms >= self.waits.heartbeat_ms && !self.pinged && self.hello.is_some() {
            self.pinged = true;
            effects.push(Effect::Send(ServerFrame::Ping(now_ms)));
        }
        Ok(())
    }

    /// Asks for the next page, where one is due and none is on its way.
    fn read_on(&mut self, effects: &mut Vec<Effect>) {
        if self.checkpoint_wanted {
            self.lagged();
        }
        if let Stream::CatchingUp(positions) = &self.stream
            && !self.reading
            && self.parked.is_none()
        {
            self.reading = true;
            let scopes = positions.iter().map(|(scope, reach)| ScopeRead {
                scope: scope.clone(),
                after: reach.rows,
                changes_after: reach.changes,
            });
            effects.push(Effect::ReadPage(PageRequest {
                scopes: scopes.collect(),
                target_bytes: PAGE_TARGET_BYTES,
                max_rows: MAX_ROWS_PER_PAGE,
            }));
        }
    }
}

/// Whether the device has to be filled anew.
fn refill(hello: &Hello, head: Head) -> Refill {
    if hello.epoch == 0 {
        return Refill::No;
    }
    let held = hello.positions.iter().map(|position| position.seq).chain([hello.cursor]);
    let same_epoch = hello.epoch == head.epoch || bugs::planted(Bug::EpochNotChecked);
    let below = |seq| seq != 0 && seq < head.horizon && !bugs::planted(Bug::HorizonNotChecked);
    if !same_epoch || held.clone().any(|seq| seq > head.seq) {
        Refill::NewEpoch
    } else if held.into_iter().any(below) {
        Refill::BelowHorizon
    } else {
        Refill::No
    }
}

/// The connection stands on what is no more; the device finds out what has changed when it says Hello again.
pub(super) fn begun_anew() -> Fault {
    fault(FaultCode::BegunAnew, "the tenant was restored or moved; connect again")
}

/// A fault without a time for the next attempt.
pub(super) fn fault(code: FaultCode, message: impl Into<String>) -> Fault {
    Fault { code, message: message.into(), retry_after_ms: None }
}
