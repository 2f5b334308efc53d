//! The network of a run: messages between devices and the server, late, held up, lost or cut.
//!
//! Within one direction of one connection messages keep their order, as TCP keeps it; between directions and
//! connections they do not. A connection that lost a message breaks before it delivers a later one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use farshore_api::envelope;
use farshore_sync_core::wire::{Frame as _, ServerFrame};
use test_chance::Chance;
use tokio::sync::Notify;

use self::ends::End;
use self::narrate::narrate;
use self::pipe::{Pipe, PipeState};
use crate::time::Timeline;

mod ends;
mod narrate;
mod pipe;

pub use ends::{Broken, ClientEnd, ServerEnd};
pub use narrate::narrate_frames;

/// How a server frame begins that gives a device other scopes.
const SCOPES_FRAME: [u8; 2] = [0x82, 0x05];
/// How a client frame begins that carries a token: tokens are signed with fresh randomness and kept out of the trace.
const TOKEN_FRAME: [u8; 2] = [0x82, 0x05];

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From a device to the server.
    Up,
    /// From the server to a device.
    Down,
}

/// What becomes of messages in one direction of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They arrive.
    #[default]
    Open,
    /// They wait, and arrive once the way is open again.
    Held,
    /// They vanish, and nobody is told.
    Lost,
}

/// What becomes of attempts to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialling {
    /// They reach the server.
    #[default]
    Works,
    /// They fail at once.
    Refused,
    /// Nothing ever comes back.
    Silent,
}

/// Something that held bytes of a tenant that has no business there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// Where they were found.
    pub place: String,
    /// The tenant whose bytes they are.
    pub of_tenant: usize,
}

/// What a message says of how far a device has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// From now on it has other scopes.
    OtherScopes,
    /// It has all rows of the scopes that it was given last.
    AllOfThem,
    Nothing,
}

/// What the network carried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Messages either way.
    pub messages: u64,
    /// Frames to devices, each of which was searched for words of other tenants.
    pub scanned_frames: u64,
    /// Their bytes.
    pub scanned_bytes: u64,
}

/// Rows that were sent to a device although it was suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwarranted {
    /// The device.
    pub device: usize,
    /// How long after its suspension, in milliseconds.
    pub after_ms: u64,
}

/// A suspension takes effect within this time, in milliseconds.
pub const SUSPENSION_LIMIT_MS: u64 = 1_000;

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

/// Waits until any device takes a message.
#[derive(Debug, Clone)]
pub struct Deliveries(Arc<Notify>);

impl Deliveries {
    /// The next one; those since the last time count as one.
    pub async fn next(&self) {
        self.0.notified().await;
    }
}

struct State {
    timeline: Timeline,
    seed: u64,
    latency_ms: (u64, u64),
    devices: BTreeMap<usize, Weather>,
    links: Vec<Link>,
    dialled: BTreeMap<usize, u64>,
    trace: BTreeMap<(usize, u64), blake3::Hasher>,
    /// The secret word of each tenant, and the tenant of each device.
    canaries: Vec<Vec<u8>>,
    tenants: BTreeMap<usize, usize>,
    leaks: Vec<Leak>,
    sent: Sent,
    /// Since when devices have been suspended, in milliseconds of the run.
    suspended: BTreeMap<usize, u64>,
    unwarranted: Vec<Unwarranted>,
    /// How many messages each device has taken.
    delivered: BTreeMap<usize, u64>,
    deliveries: Deliveries,
    /// Connections on which other scopes were sent, and no checkpoint of them yet.
    rescoped: BTreeSet<(usize, u64)>,
    /// Devices that have heard so, by their connection.
    unfilled: BTreeMap<usize, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    up: Flow,
    down: Flow,
    dialling: Dialling,
}

struct Link {
    device: usize,
    up: Weak<Pipe>,
    down: Weak<Pipe>,
}

impl Network {
    /// A network on which everything works, with latencies between two numbers of milliseconds.
    #[must_use]
    pub fn new(timeline: Timeline, seed: u64, latency_ms: (u64, u64)) -> Self {
        Self(Arc::new(Mutex::new(State {
            timeline,
            seed,
            latency_ms,
            devices: BTreeMap::new(),
            links: Vec::new(),
            dialled: BTreeMap::new(),
            trace: BTreeMap::new(),
            canaries: Vec::new(),
            tenants: BTreeMap::new(),
            leaks: Vec::new(),
            sent: Sent::default(),
            suspended: BTreeMap::new(),
            unwarranted: Vec::new(),
            delivered: BTreeMap::new(),
            deliveries: Deliveries(Arc::new(Notify::new())),
            rescoped: BTreeSet::new(),
            unfilled: BTreeMap::new(),
        })))
    }

    /// The word that only one tenant's data holds. Tenants are numbered in the order of these calls.
    pub fn watch_for(&self, canary: &str) {
        self.lock().canaries.push(canary.as_bytes().to_vec());
    }

    /// Says to which tenant a device belongs.
    pub fn belongs(&self, device: usize, tenant: usize) {
        self.lock().tenants.insert(device, tenant);
    }

    /// Whether attempts of a device to connect work now.
    #[must_use]
    pub fn dialling(&self, device: usize) -> Dialling {
        self.lock().devices.get(&device).copied().unwrap_or_default().dialling
    }

    /// Says what becomes of attempts of a device to connect.
    pub fn set_dialling(&self, device: usize, dialling: Dialling) {
        self.lock().devices.entry(device).or_default().dialling = dialling;
    }

    /// Makes the two ends of a connection of a device.
    #[must_use]
    pub fn connect(&self, device: usize) -> (ClientEnd, ServerEnd) {
        let mut state = self.lock();
        let weather = state.devices.get(&device).copied().unwrap_or_default();
        let number = state.dialled.entry(device).or_default();
        *number += 1;
        let number = *number;
        state.unfilled.remove(&device);
        let pipe = |direction, flow| {
            let part = (device as u64) << 32 | number << 1 | u64::from(direction == Direction::Up);
            Arc::new(Pipe {
                network: Arc::downgrade(&self.0),
                device,
                number,
                direction,
                state: Mutex::new(PipeState::new(flow, Chance::apart(state.seed, part))),
            })
        };
        let (up, down) = (pipe(Direction::Up, weather.up), pipe(Direction::Down, weather.down));
        state.links.retain(|link| link.up.strong_count() + link.down.strong_count() > 0);
        state.links.push(Link { device, up: Arc::downgrade(&up), down: Arc::downgrade(&down) });
        let client = End { incoming: Arc::clone(&down), outgoing: Arc::clone(&up), sleep: None };
        let server = End { incoming: up, outgoing: down, sleep: None };
        (ClientEnd(client), ServerEnd(server))
    }

    /// How often a device has connected.
    #[must_use]
    pub fn dialled(&self, device: usize) -> u64 {
        self.lock().dialled.get(&device).copied().unwrap_or_default()
    }

    /// How long one way takes this time.
    #[must_use]
    pub fn latency(&self, chance: &mut Chance) -> Duration {
        let (least, most) = self.lock().latency_ms;
        Duration::from_millis(chance.between(least, most))
    }

    /// Breaks every connection of a device. What was under way is gone.
    pub fn cut(&self, device: usize) {
        self.each_pipe(device, |_, pipe| pipe.break_off());
    }

    /// Says what becomes of messages of a device from now on.
    pub fn set_flow(&self, device: usize, direction: Direction, flow: Flow) {
        {
            let mut state = self.lock();
            let weather = state.devices.entry(device).or_default();
            match direction {
                Direction::Up => weather.up = flow,
                Direction::Down => weather.down = flow,
            }
        }
        self.each_pipe(device, |at, pipe| {
            if at == direction {
                pipe.set_flow(flow);
            }
        });
    }

    /// Lets the server hear no more of the connections that a device has now, not even that they end.
    pub fn vanish(&self, device: usize) {
        self.each_pipe(device, |_, pipe| pipe.set_flow(Flow::Lost));
    }

    /// The next message in a direction arrives in part, and its connection breaks.
    pub fn truncate_next(&self, device: usize, direction: Direction) {
        self.each_pipe(device, |at, pipe| {
            if at == direction {
                pipe.lock().truncate_next = true;
            }
        });
    }

    /// Makes everything work again for a device.
    pub fn heal(&self, device: usize) {
        self.each_pipe(device, |_, pipe| pipe.lock().truncate_next = false);
        self.set_dialling(device, Dialling::Works);
        self.set_flow(device, Direction::Up, Flow::Open);
        self.set_flow(device, Direction::Down, Flow::Open);
    }

    /// Whether a connection of a device has swallowed a message, and the device has not found out yet: what it says
    /// of itself means nothing before it has.
    #[must_use]
    pub fn has_holes(&self) -> bool {
        let links: Vec<_> = {
            let state = self.lock();
            let ways = state.links.iter().map(|link| link.up.upgrade().zip(link.down.upgrade()));
            ways.flatten().collect()
        };
        links.iter().any(|(up, down)| {
            let (up, down) = (up.lock(), down.lock());
            let used = !down.broken && !down.reader_gone;
            used && (up.lost_something || down.lost_something)
        })
    }

    /// Messages that held bytes of another tenant.
    #[must_use]
    pub fn leaks(&self) -> Vec<Leak> {
        self.lock().leaks.clone()
    }

    /// How many messages a device has taken: without a further one, and without a write of its own, it shows what it
    /// showed before.
    #[must_use]
    pub fn delivered(&self, device: usize) -> u64 {
        self.lock().delivered.get(&device).copied().unwrap_or_default()
    }

    /// Whether a device has heard of other scopes, and of no checkpoint of them: it cannot have caught up.
    #[must_use]
    pub fn is_unfilled(&self, device: usize) -> bool {
        self.lock().unfilled.contains_key(&device)
    }

    /// What tells that devices have taken messages.
    #[must_use]
    pub fn deliveries(&self) -> Deliveries {
        self.lock().deliveries.clone()
    }

    /// What was carried so far.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.lock().sent
    }

    /// From now on a device is suspended, or is not.
    pub fn suspend(&self, device: usize, suspended: bool) {
        let mut state = self.lock();
        let now_ms = state.timeline.elapsed_ms();
        if suspended {
            state.suspended.entry(device).or_insert(now_ms);
        } else {
            state.suspended.remove(&device);
        }
    }

    /// Rows that were sent to suspended devices.
    #[must_use]
    pub fn unwarranted(&self) -> Vec<Unwarranted> {
        self.lock().unwarranted.clone()
    }

    /// A hash over every message of every connection, with its time.
    #[must_use]
    pub fn trace(&self) -> [u8; 32] {
        let mut all = blake3::Hasher::new();
        for (link, hasher) in &self.lock().trace {
            all.update(&(link.0 as u64).to_le_bytes());
            all.update(&link.1.to_le_bytes());
            all.update(hasher.finalize().as_bytes());
        }
        *all.finalize().as_bytes()
    }

    fn each_pipe(&self, device: usize, mut act: impl FnMut(Direction, &Pipe)) {
        let state = self.lock();
        let links = state.links.iter().filter(|link| link.device == device);
        let pipes: Vec<_> = links
            .flat_map(|link| {
                [(Direction::Up, link.up.upgrade()), (Direction::Down, link.down.upgrade())]
            })
            .collect();
        drop(state);
        for (direction, pipe) in pipes {
            if let Some(pipe) = pipe {
                act(direction, &pipe);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Network").finish_non_exhaustive()
    }
}

impl State {
    fn record(&mut self, pipe: &Pipe, message: &[u8]) -> Says {
        self.sent.messages += 1;
        let opened = envelope::open(message);
        let frame = opened.as_deref().unwrap_or_default();
        narrate(self.timeline.elapsed_ms(), pipe, frame);
        let hasher = self.trace.entry((pipe.device, pipe.number)).or_default();
        hasher.update(&self.timeline.elapsed_ms().to_le_bytes());
        hasher.update(&[pipe.direction as u8]);
        if pipe.direction == Direction::Up && frame.starts_with(&TOKEN_FRAME) {
            hasher.update(b"token");
        } else {
            hasher.update(frame);
        }
        if pipe.direction == Direction::Down {
            self.sent.scanned_frames += 1;
            self.sent.scanned_bytes += frame.len() as u64;
            self.look_for_unwarranted(pipe.device, frame);
            let own = self.tenants.get(&pipe.device).copied();
            let foreign = (0..self.canaries.len()).filter(|tenant| Some(*tenant) != own);
            for tenant in foreign {
                if holds(frame, &self.canaries[tenant]) {
                    let place = format!("a frame to device {}", pipe.device);
                    self.leaks.push(Leak { place, of_tenant: tenant });
                }
            }
            return self.says((pipe.device, pipe.number), frame);
        }
        Says::Nothing
    }

    fn says(&mut self, connection: (usize, u64), frame: &[u8]) -> Says {
        if frame.starts_with(&SCOPES_FRAME) {
            self.rescoped.insert(connection);
            return Says::OtherScopes;
        }
        let is_checkpoint = |frame: ServerFrame| matches!(frame, ServerFrame::Page(page) if page.checkpoint.is_some());
        if self.rescoped.contains(&connection)
            && ServerFrame::from_bytes(frame).is_ok_and(is_checkpoint)
        {
            self.rescoped.remove(&connection);
            return Says::AllOfThem;
        }
        Says::Nothing
    }

    fn deliver(&mut self, pipe: &Pipe, says: Says) {
        *self.delivered.entry(pipe.device).or_default() += 1;
        match says {
            Says::OtherScopes => {
                self.unfilled.insert(pipe.device, pipe.number);
            }
            Says::AllOfThem if self.unfilled.get(&pipe.device) == Some(&pipe.number) => {
                self.unfilled.remove(&pipe.device);
            }
            Says::AllOfThem | Says::Nothing => {}
        }
        self.deliveries.0.notify_one();
    }
}

impl State {
    fn look_for_unwarranted(&mut self, device: usize, frame: &[u8]) {
        let Some(since_ms) = self.suspended.get(&device) else { return };
        let after_ms = self.timeline.elapsed_ms() - since_ms;
        if after_ms > SUSPENSION_LIMIT_MS
            && let Ok(ServerFrame::Page(page)) = ServerFrame::from_bytes(frame)
            && !page.rows.is_empty()
        {
            self.unwarranted.push(Unwarranted { device, after_ms });
        }
    }
}

/// Whether a word stands in some bytes.
#[must_use]
pub fn holds(bytes: &[u8], word: &[u8]) -> bool {
    let Some(first) = word.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(word) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
