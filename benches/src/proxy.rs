//! What goes over the wire between a device and the server: a TCP proxy that notes every piece and its direction.
//!
//! It tells the HTTP upgrade from what comes after it, which are the WebSocket's messages with their framing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::outcome::Outcome;

/// What goes through at a time, in bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// What ends the head of a request and of an answer.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Which way a piece went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// What one connection carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes of the HTTP upgrade, both ways.
    pub upgrade: usize,
    /// Bytes from the device after the upgrade, framing included.
    pub up: usize,
    /// Bytes from the server after the upgrade, framing included.
    pub down: usize,
    /// How often the device spoke and the server then answered, after the upgrade.
    pub round_trips: usize,
}

/// What connections carried since the last [`Proxy::take`].
#[derive(Debug, Default)]
struct Transcript {
    carried: Carried,
    heads: [Vec<u8>; 2],
    head_is_over: [bool; 2],
    last: Option<Direction>,
    open: usize,
}

/// A proxy; it ends with the process.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    transcript: Arc<Mutex<Transcript>>,
}

impl Proxy {
    /// Lays one to a server. One connection at a time goes through it.
    pub fn to(server: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let transcript = Arc::new(Mutex::new(Transcript::default()));
        let noting = Arc::clone(&transcript);
        thread::spawn(move || {
            for device in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect(server) {
                    carry(device, server, &noting);
                }
            }
        });
        Ok(Self { address, transcript })
    }

    /// The URL to give to the device.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether a connection is open.
    pub fn is_open(&self) -> bool {
        lock(&self.transcript).open > 0
    }

    /// What was carried since the last time.
    pub fn take(&self) -> Carried {
        std::mem::take(&mut lock(&self.transcript).carried)
    }
}

impl Transcript {
    /// A connection opens: it begins with an upgrade again.
    fn begin(&mut self) {
        let (carried, open) = (self.carried, self.open + 1);
        *self = Self { carried, open, ..Self::default() };
    }

    fn note(&mut self, direction: Direction, piece: &[u8]) {
        let side = direction as usize;
        let after_head = if self.head_is_over[side] {
            piece.len()
        } else {
            self.heads[side].extend_from_slice(piece);
            let head = &self.heads[side];
            let Some(at) = head.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD)
            else {
                return;
            };
            let length = at + END_OF_HEAD.len();
            let after = head.len() - length;
            self.carried.upgrade += length;
            self.head_is_over[side] = true;
            after
        };
        if after_head == 0 {
            return;
        }
        match direction {
            Direction::Up => self.carried.up += after_head,
            Direction::Down => {
                self.carried.down += after_head;
                self.carried.round_trips += usize::from(self.last == Some(Direction::Up));
            }
        }
        self.last = Some(direction);
    }
}

fn carry(device: TcpStream, server: TcpStream, transcript: &Arc<Mutex<Transcript>>) {
    let (Ok(from_device), Ok(from_server)) = (device.try_clone(), server.try_clone()) else {
        return;
    };
    let (up, down) = (Arc::clone(transcript), Arc::clone(transcript));
    lock(transcript).begin();
    thread::spawn(move || pour(from_device, server, Direction::Up, &up));
    thread::spawn(move || {
        pour(from_server, device, Direction::Down, &down);
        lock(&down).open -= 1;
    });
}

fn pour(
    mut from: TcpStream,
    mut to: TcpStream,
    direction: Direction,
    transcript: &Mutex<Transcript>,
) {
    // Small frames must not wait for larger ones.
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        // Noted before it is passed on, so that an answer never stands before its question.
        lock(transcript).note(direction, &buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn lock(transcript: &Mutex<Transcript>) -> MutexGuard<'_, Transcript> {
    transcript.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upgrade_is_told_from_messages_and_round_trips_are_counted() {
        let mut transcript = Transcript::default();
        transcript.note(Direction::Up, b"GET / HTTP/1.1\r\n");
        transcript.note(Direction::Up, b"\r\nhello");
        transcript.note(Direction::Down, b"HTTP/1.1 101\r\n\r\n");
        transcript.note(Direction::Down, b"welcome");
        transcript.note(Direction::Down, b"page");
        transcript.note(Direction::Up, b"bye");
        let expected = Carried { upgrade: 18 + 16, up: 8, down: 11, round_trips: 1 };
        assert_eq!(transcript.carried, expected);
    }
}
