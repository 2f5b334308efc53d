//! One way of a connection: messages wait, vanish, come in part or arrive.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use test_chance::Chance;
use tokio::time::Instant;

use super::ends::Broken;
use super::{Direction, Flow, Says, State};

/// Bytes that one direction of a connection takes before the writer has to wait.
const WINDOW_BYTES: usize = 256 << 10;

/// One direction of one connection.
pub(super) struct Pipe {
    pub network: Weak<Mutex<State>>,
    pub device: usize,
    pub number: u64,
    pub direction: Direction,
    pub state: Mutex<PipeState>,
}

pub(super) struct PipeState {
    pub queue: VecDeque<(Instant, Item)>,
    pub last_at: Instant,
    pub bytes: usize,
    pub flow: Flow,
    pub lost_something: bool,
    pub truncate_next: bool,
    pub broken: bool,
    pub reader_gone: bool,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
    pub chance: Chance,
}

#[derive(Debug)]
pub(super) enum Item {
    Message(Bytes, Says),
    /// The message came in part, and nothing after it.
    Cut(Bytes),
    Close,
}

impl PipeState {
    pub fn new(flow: Flow, chance: Chance) -> Self {
        Self {
            queue: VecDeque::new(),
            last_at: Instant::now(),
            bytes: 0,
            flow,
            lost_something: false,
            truncate_next: false,
            broken: false,
            reader_gone: false,
            reader: None,
            writer: None,
            chance,
        }
    }

    /// Whether a writer finds out that nobody reads: not through a way on which everything vanishes.
    pub fn is_over(&self) -> bool {
        self.broken || (self.reader_gone && self.flow != Flow::Lost)
    }

    pub fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

impl Pipe {
    pub fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn break_off(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.queue.clear();
        state.wake_reader();
        state.wake_writer();
    }

    pub fn set_flow(&self, flow: Flow) {
        let mut state = self.lock();
        let must_break = flow != Flow::Lost && state.lost_something;
        if must_break && state.chance.once_in(2) {
            // Nobody is told: the connection stays a hole until one side gives it up.
            return;
        }
        state.flow = flow;
        state.wake_reader();
        drop(state);
        if must_break {
            self.break_off();
        }
    }

    pub fn latency(&self, state: &mut PipeState) -> Duration {
        let (least, most) = self.network.upgrade().map_or((0, 0), |network| {
            network.lock().unwrap_or_else(PoisonError::into_inner).latency_ms
        });
        Duration::from_millis(state.chance.between(least, most))
    }

    pub fn put(&self, item: Item) {
        let mut state = self.lock();
        if state.broken || state.reader_gone {
            return;
        }
        if state.flow == Flow::Lost {
            state.lost_something = true;
            return;
        }
        let at = (Instant::now() + self.latency(&mut state)).max(state.last_at);
        state.last_at = at;
        let item = match item {
            Item::Message(bytes, _) if state.truncate_next && !bytes.is_empty() => {
                state.truncate_next = false;
                let kept = state.chance.below(bytes.len() as u64) as usize;
                Item::Cut(bytes.slice(..kept))
            }
            item => item,
        };
        if let Item::Message(bytes, _) | Item::Cut(bytes) = &item {
            state.bytes += bytes.len();
        }
        state.queue.push_back((at, item));
        state.wake_reader();
    }

    pub fn send(&self, message: Bytes) -> Result<(), Broken> {
        {
            let state = self.lock();
            if state.is_over() {
                return Err(Broken);
            }
        }
        let says = match self.network.upgrade() {
            Some(network) => {
                network.lock().unwrap_or_else(PoisonError::into_inner).record(self, &message)
            }
            None => Says::Nothing,
        };
        self.put(Item::Message(message, says));
        Ok(())
    }

    pub fn delivered(&self, item: &Item) {
        if self.direction == Direction::Down
            && let Some(network) = self.network.upgrade()
        {
            let says = match item {
                Item::Message(_, says) => *says,
                Item::Cut(_) | Item::Close => Says::Nothing,
            };
            network.lock().unwrap_or_else(PoisonError::into_inner).deliver(self, says);
        }
    }

    pub fn poll_room(&self, context: &Context<'_>) -> Poll<Result<(), Broken>> {
        let mut state = self.lock();
        if state.is_over() {
            return Poll::Ready(Err(Broken));
        }
        if state.bytes < WINDOW_BYTES {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }
}
