//! A wire between a device and a server that can be cut, stalled in one direction, slowed and counted.
//!
//! A stalled direction is a half-open connection: bytes go in and nothing comes out, and neither end is told.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the device to the server.
    Up,
    /// From the server to the device.
    Down,
}

/// The wire. Dropping it cuts it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    refusing: bool,
    delay: Duration,
    up: Lane,
    down: Lane,
    connections: u64,
    open: Vec<(TcpStream, TcpStream)>,
}

#[derive(Debug, Default)]
struct Lane {
    /// How many bytes may still pass; all where there is no number.
    budget: Option<u64>,
    passed: u64,
}

impl State {
    const fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl Proxy {
    /// A wire to a server.
    ///
    /// # Panics
    /// Where there is no port.
    #[must_use]
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Mutex::new(upstream);
        let shared =
            Arc::new(Shared { upstream, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Where devices find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where devices find it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection.
    pub fn cut(&self) {
        for (device, server) in self.shared.lock().open.drain(..) {
            let _ = device.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Closes every connection, and takes no more of them until [`Proxy::accept`].
    pub fn refuse(&self) {
        self.shared.change(|state| state.refusing = true);
        self.cut();
    }

    /// Leads to another server from now on, and closes every connection to the one before.
    ///
    /// # Panics
    /// Where the thread that accepts has panicked.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap() = upstream;
        self.cut();
    }

    /// Takes connections again.
    pub fn accept(&self) {
        self.shared.change(|state| state.refusing = false);
    }

    /// Nothing passes this way any more, and neither end is told.
    pub fn stall(&self, direction: Direction) {
        self.stall_after(direction, 0);
    }

    /// So many more bytes pass this way, and then nothing.
    pub fn stall_after(&self, direction: Direction, bytes: u64) {
        self.shared.change(|state| state.lane(direction).budget = Some(bytes));
    }

    /// Lets everything pass again, what waited first.
    pub fn flow(&self, direction: Direction) {
        self.shared.change(|state| state.lane(direction).budget = None);
    }

    /// Holds every piece back for so long.
    pub fn delay(&self, delay: Duration) {
        self.shared.change(|state| state.delay = delay);
    }

    /// Whether the bytes of [`Proxy::stall_after`] have passed.
    #[must_use]
    pub fn is_stalled(&self, direction: Direction) -> bool {
        self.shared.lock().lane(direction).budget == Some(0)
    }

    /// How many bytes have passed.
    #[must_use]
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.lock().lane(direction).passed
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| state.closed = true);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until bytes may pass, and says how many of these.
    fn admitted(&self, direction: Direction, bytes: usize) -> Option<usize> {
        let state = self.lock();
        let delay = state.delay;
        let stalled = |state: &mut State| !state.closed && state.lane(direction).budget == Some(0);
        let mut state = self.changed.wait_while(state, stalled).unwrap();
        if !delay.is_zero() {
            let unchanged = |state: &mut State| !state.closed && state.delay == delay;
            state = self.changed.wait_timeout_while(state, delay, unchanged).unwrap().0;
        }
        let closed = state.closed;
        let lane = state.lane(direction);
        let admitted =
            lane.budget.map_or(bytes, |budget| bytes.min(usize::try_from(budget).unwrap()));
        lane.budget = lane.budget.map(|budget| budget - admitted as u64);
        lane.passed += admitted as u64;
        (!closed).then_some(admitted)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((device, _)) = listener.accept() {
        {
            let mut state = shared.lock();
            if state.closed {
                return;
            }
            if state.refusing {
                continue;
            }
            state.connections += 1;
        }
        let upstream = *shared.upstream.lock().unwrap();
        let Ok(server) = TcpStream::connect(upstream) else { continue };
        let _ = device.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let ends = || (device.try_clone().unwrap(), server.try_clone().unwrap());
        shared.lock().open.push(ends());
        for direction in [Direction::Up, Direction::Down] {
            let ((device, server), shared) = (ends(), Arc::clone(shared));
            thread::spawn(move || match direction {
                Direction::Up => pass(device, server, direction, &shared),
                Direction::Down => pass(server, device, direction, &shared),
            });
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, direction: Direction, shared: &Shared) {
    let mut buffer = [0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let Some(admitted) = shared.admitted(direction, rest.len()) else { return };
            if to.write_all(&rest[..admitted]).is_err() {
                return;
            }
            rest = &rest[admitted..];
        }
    }
    // An end that closes into a stalled wire is not heard on the other side.
    if shared.admitted(direction, 0).is_some() {
        let _ = to.shutdown(Shutdown::Write);
    }
}
