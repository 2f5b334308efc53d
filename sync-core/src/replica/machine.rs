//! The machine itself.

use minicbor::bytes::ByteVec;

use super::{
    Cause, Checked, ClientFrame, Effect, Event, Hello, MAX_TRANSACTIONS_IN_FLIGHT,
    PROTOCOL_VERSION, PUSH_TARGET_BYTES, Phase, Push, RetryPolicy, ServerFrame, Standing, Status,
    StoreReply, StoreRequest, is_final, limits,
};
use crate::bugs::{self, Bug};
use crate::wire::FaultCode;

/// Comparisons in one connection after which a difference is only reported: repair did not help.
pub const MAX_REPAIRS_PER_CONNECTION: u32 = 5;

/// The device's half of the protocol.
#[derive(Debug)]
pub struct Replica {
    retry: RetryPolicy,
    status: Status,
    /// What the app last saw of `status`.
    shown: Status,
    link: Link,
    failures: u32,
    timer_at_ms: Option<u64>,
}

/// The connection.
#[derive(Debug)]
enum Link {
    Down,
    Opening,
    Up(Session),
}

/// What a connection remembers.
#[derive(Debug)]
struct Session {
    /// Whether Hello went out: nothing else may precede it.
    greeted: bool,
    standing: Option<Standing>,
    settled: u64,
    sent_through: u64,
    answered_through: u64,
    in_flight: usize,
    /// An outbox request is with the store.
    reading_outbox: bool,
    /// Another local commit came while the outbox was being read, or the window was full.
    more_in_outbox: bool,
    awaiting_resume: bool,
    comparing: bool,
    heard_at_ms: u64,
    pinged_at_ms: Option<u64>,
}

impl Session {
    const fn new(now_ms: u64) -> Self {
        Self {
            greeted: false,
            standing: None,
            settled: 0,
            sent_through: 0,
            answered_through: 0,
            in_flight: 0,
            reading_outbox: false,
            more_in_outbox: false,
            awaiting_resume: false,
            comparing: false,
            heard_at_ms: now_ms,
            pinged_at_ms: None,
        }
    }
}

impl Replica {
    /// A replica that is stopped.
    #[must_use]
    pub fn new(retry: RetryPolicy) -> Self {
        Self {
            retry,
            status: Status::default(),
            shown: Status::default(),
            link: Link::Down,
            failures: 0,
            timer_at_ms: None,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// Takes an event in and says what to do, in order. `entropy` is for the jitter of retries.
    pub fn handle(&mut self, event: Event, now_ms: u64, entropy: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.dispatch(event, now_ms, entropy, &mut effects);
        self.set_timer(&mut effects);
        if self.status != self.shown {
            self.shown = self.status.clone();
            effects.push(Effect::Status(self.status.clone()));
        }
        effects
    }

    fn dispatch(&mut self, event: Event, now_ms: u64, entropy: u64, effects: &mut Vec<Effect>) {
        match event {
            Event::Start if self.status.phase == Phase::Stopped => self.open(effects),
            Event::Start if self.status.phase == Phase::Waiting => self.open(effects),
            Event::Start => {}
            Event::Stop => self.stop(effects),
            Event::Opened => self.opened(now_ms, effects),
            Event::Closed(cause) => self.closed(cause, now_ms, entropy, effects),
            Event::Frame(frame) => self.frame(*frame, now_ms, entropy, effects),
            Event::LocalCommit
                if bugs::planted(Bug::RetryOnWriteOnly) && self.status.phase == Phase::Waiting =>
            {
                self.open(effects);
            }
            Event::LocalCommit => self.read_outbox(effects),
            Event::Token(token) => self.token(token, effects),
            Event::Timer => self.timer(now_ms, entropy, effects),
            Event::Stored(reply) => self.stored(reply, now_ms, entropy, effects),
            Event::StoreFailed(what) => self.fail(Cause::Store(what), now_ms, entropy, effects),
        }
    }

    fn open(&mut self, effects: &mut Vec<Effect>) {
        self.status.phase = Phase::Connecting;
        self.status.retry_at_ms = None;
        self.link = Link::Opening;
        effects.push(Effect::Open);
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Down) {
            effects.push(Effect::Close);
        }
        self.link = Link::Down;
        self.failures = 0;
        self.status = Status { repairs: self.status.repairs, ..Status::default() };
    }

    fn opened(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Opening) {
            self.link = Link::Up(Session::new(now_ms));
            self.status.phase = Phase::CatchingUp;
            self.status.checkpoint = None;
            self.status.repairs = 0;
            effects.push(Effect::Store(StoreRequest::Load));
        }
    }

    fn closed(&mut self, cause: Cause, now_ms: u64, entropy: u64, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Down) {
            return;
        }
        self.link = Link::Down;
        self.failures = self.failures.saturating_add(1);
        self.status.phase = Phase::Waiting;
        self.status.checkpoint = None;
        self.status.retry_at_ms = (!is_final(&cause) && !bugs::planted(Bug::RetryOnWriteOnly))
            .then(|| now_ms + self.retry.delay_ms(self.failures, &cause, entropy));
        self.status.cause = Some(cause);
        let _ = effects;
    }

    /// Gives the connection up for a reason found on this side.
    fn fail(&mut self, cause: Cause, now_ms: u64, entropy: u64, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Down) {
            effects.push(Effect::Close);
            self.closed(cause, now_ms, entropy, effects);
        }
    }

    fn token(&mut self, token: String, effects: &mut Vec<Effect>) {
        match &self.link {
            Link::Up(session) if session.greeted => {
                effects.push(Effect::Send(ClientFrame::Token(token)));
            }
            // A refused token was the only thing in the way.
            Link::Down if self.status.phase == Phase::Waiting => self.open(effects),
            _ => {}
        }
    }

    fn timer(&mut self, now_ms: u64, entropy: u64, effects: &mut Vec<Effect>) {
        self.timer_at_ms = None;
        match &mut self.link {
            Link::Down if self.status.retry_at_ms.is_some_and(|at| at <= now_ms) => {
                self.open(effects);
            }
            Link::Up(session) => {
                let silence_ms = now_ms.saturating_sub(session.heard_at_ms);
                if bugs::planted(Bug::SilenceEndured) && silence_ms >= limits::HEARTBEAT_MS {
                    session.heard_at_ms = now_ms;
                } else if silence_ms >= limits::SILENCE_LIMIT_MS {
                    self.fail(Cause::Silent, now_ms, entropy, effects);
                } else if silence_ms >= limits::HEARTBEAT_MS
                    && session.pinged_at_ms.is_none()
                    && session.greeted
                {
                    session.pinged_at_ms = Some(now_ms);
                    effects.push(Effect::Send(ClientFrame::Ping(now_ms)));
                }
            }
            _ => {}
        }
    }

    fn set_timer(&mut self, effects: &mut Vec<Effect>) {
        let wanted = match &self.link {
            Link::Down => self.status.retry_at_ms,
            Link::Opening => None,
            Link::Up(session) if session.pinged_at_ms.is_some() => {
                Some(session.heard_at_ms + limits::SILENCE_LIMIT_MS)
            }
            Link::Up(session) => Some(session.heard_at_ms + limits::HEARTBEAT_MS),
        };
        // A timer that fires early sets itself again, so that a busy connection costs no timer at each frame.
        let unset = match (wanted, self.timer_at_ms) {
            (Some(wanted), Some(set)) => {
                wanted < set || matches!(self.link, Link::Down) && wanted != set
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        if let (true, Some(at_ms)) = (unset, wanted) {
            self.timer_at_ms = Some(at_ms);
            effects.push(Effect::SetTimer(at_ms));
        }
    }

    fn frame(&mut self, frame: ServerFrame, now_ms: u64, entropy: u64, effects: &mut Vec<Effect>) {
        let Link::Up(session) = &mut self.link else { return };
        session.heard_at_ms = now_ms;
        session.pinged_at_ms = None;
        match frame {
            ServerFrame::Welcome(welcome) => {
                session.awaiting_resume = welcome.grants.is_some()
                    && welcome.refill == crate::wire::Refill::No
                    && session.standing.as_ref().is_some_and(|standing| !standing.is_fresh());
                effects.push(Effect::Store(StoreRequest::Adopt(welcome)));
            }
            ServerFrame::Page(page) => effects.push(Effect::Store(StoreRequest::Page(page))),
            ServerFrame::Outcomes(outcomes) => {
                session.in_flight = session.in_flight.saturating_sub(outcomes.len());
                if let Some(last) = outcomes.last() {
                    session.answered_through = session.answered_through.max(last.number);
                }
                effects.push(Effect::Store(StoreRequest::Outcomes(outcomes)));
            }
            ServerFrame::Sums(sums) => effects.push(Effect::Store(StoreRequest::Sums(sums))),
            ServerFrame::Repair(repair) => {
                effects.push(Effect::Store(StoreRequest::Repair(repair)));
            }
            ServerFrame::Scopes(grants) => {
                session.awaiting_resume = true;
                // What it reached was a checkpoint of the scopes of before.
                if !bugs::planted(Bug::OldScopesCaughtUp) {
                    self.status.phase = Phase::CatchingUp;
                    self.status.checkpoint = None;
                }
                effects.push(Effect::Store(StoreRequest::AdoptGrants(grants)));
            }
            ServerFrame::Fault(fault) => {
                let cause = if fault.code == FaultCode::ReplicaForked {
                    Cause::Forked
                } else {
                    Cause::Fault(fault)
                };
                self.fail(cause, now_ms, entropy, effects);
            }
            ServerFrame::Ping(nonce) => effects.push(Effect::Send(ClientFrame::Pong(nonce))),
            ServerFrame::Pong(_) => {}
        }
    }

    fn stored(&mut self, reply: StoreReply, now_ms: u64, entropy: u64, effects: &mut Vec<Effect>) {
        let Link::Up(session) = &mut self.link else { return };
        match reply {
            StoreReply::Loaded(standing) => {
                session.settled = standing.settled;
                session.sent_through = standing.settled;
                session.standing = Some(standing);
                self.read_outbox(effects);
            }
            StoreReply::Outbox(transactions) => self.send_outbox(transactions, effects),
            StoreReply::Adopted { positions } => {
                if std::mem::take(&mut session.awaiting_resume)
                    && !bugs::planted(Bug::ResumeNotSent)
                {
                    effects.push(Effect::Send(ClientFrame::Resume(positions)));
                }
            }
            StoreReply::Forked => self.fail(Cause::Forked, now_ms, entropy, effects),
            StoreReply::PageStored { checkpoint, outbox_grew } => {
                if let Some(checked) = checkpoint {
                    self.checkpoint(checked, effects);
                }
                if outbox_grew {
                    self.read_outbox(effects);
                }
            }
            StoreReply::Settled { settled } => {
                session.settled = session.settled.max(settled);
                if session.more_in_outbox {
                    self.read_outbox(effects);
                }
            }
            StoreReply::Totals(totals) => effects.push(Effect::Send(ClientFrame::Compare(totals))),
            StoreReply::Listings(listings) => {
                if listings.is_empty() {
                    // The pages that came before the sums already mended it.
                    session.comparing = false;
                    self.status.in_step = true;
                } else {
                    effects.push(Effect::Send(ClientFrame::Buckets(listings)));
                }
            }
            StoreReply::Repaired(_) => session.comparing = false,
        }
    }

    fn checkpoint(&mut self, checked: Checked, effects: &mut Vec<Effect>) {
        let Link::Up(session) = &mut self.link else { return };
        self.failures = 0;
        self.status.phase = Phase::Live;
        self.status.cause = None;
        self.status.checkpoint = Some(checked.seq);
        self.status.in_step = checked.in_step;
        if !checked.in_step
            && !session.comparing
            && self.status.repairs < MAX_REPAIRS_PER_CONNECTION
        {
            session.comparing = true;
            self.status.repairs += 1;
            effects.push(Effect::Store(StoreRequest::Totals));
        }
    }

    fn read_outbox(&mut self, effects: &mut Vec<Effect>) {
        let Link::Up(session) = &mut self.link else { return };
        if session.standing.is_none() {
            return;
        }
        let room = MAX_TRANSACTIONS_IN_FLIGHT
            .saturating_sub(session.in_flight)
            .min(limits::MAX_TRANSACTIONS_PER_PUSH);
        if session.reading_outbox || room == 0 {
            session.more_in_outbox = true;
            return;
        }
        session.reading_outbox = true;
        session.more_in_outbox = false;
        effects.push(Effect::Store(StoreRequest::Outbox {
            after: session.sent_through,
            max_bytes: PUSH_TARGET_BYTES,
            max_transactions: room,
        }));
    }

    fn send_outbox(&mut self, transactions: Vec<(u64, Vec<u8>)>, effects: &mut Vec<Effect>) {
        let Link::Up(session) = &mut self.link else { return };
        session.reading_outbox = false;
        session.in_flight += transactions.len();
        let read_some = !transactions.is_empty();
        if let Some((last, _)) = transactions.last() {
            session.sent_through = *last;
        }
        let transactions: Vec<ByteVec> =
            transactions.into_iter().map(|(_, bytes)| bytes.into()).collect();
        if !session.greeted {
            session.greeted = true;
            if let Some(standing) = &session.standing {
                effects.push(Effect::Send(ClientFrame::Hello(hello(standing, transactions))));
            }
        } else if read_some {
            effects.push(Effect::Send(ClientFrame::Push(Push {
                settled: session.settled,
                transactions,
            })));
        }
        if read_some || session.more_in_outbox {
            self.read_outbox(effects);
        }
    }
}

impl Standing {
    /// Whether the device holds nothing of the server yet, so that every scope starts from the beginning.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.cursor == 0 && self.positions.is_empty()
    }
}

fn hello(standing: &Standing, transactions: Vec<ByteVec>) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        schema_version: standing.schema_version,
        epoch: standing.epoch,
        scopes_hash: standing.scopes_hash,
        cursor: standing.cursor,
        positions: standing.positions.clone(),
        settled: standing.settled,
        next_number: standing.next_number,
        transactions,
    }
}
