//! The wire between one device and the server: bytes go through unchanged and are counted.
//!
//! Where the server is gone, the wire takes connections and ends them at once, as a network does.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What goes through at a time, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// A wire. It ends with the process.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    carried: Arc<Carried>,
}

/// How many bytes went through, HTTP and WebSocket framing included.
#[derive(Debug, Default)]
struct Carried {
    up: AtomicU64,
    down: AtomicU64,
}

impl Wire {
    /// Lays a wire to a server.
    ///
    /// # Errors
    /// Where the system has no port.
    pub fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let carried = Arc::new(Carried::default());
        let counting = Arc::clone(&carried);
        thread::spawn(move || {
            for device in listener.incoming().map_while(Result::ok) {
                // A server that is gone: dropping the connection is all that can be said.
                if let Ok(server) = TcpStream::connect(server) {
                    carry(device, server, &counting);
                }
            }
        });
        Ok(Self { address, carried })
    }

    /// The URL to give to the device.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes from the device to the server, and from the server to the device.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.carried.up.load(Ordering::Relaxed), self.carried.down.load(Ordering::Relaxed))
    }
}

fn carry(device: TcpStream, server: TcpStream, carried: &Arc<Carried>) {
    let (Ok(from_device), Ok(from_server)) = (device.try_clone(), server.try_clone()) else {
        return;
    };
    let (up, down) = (Arc::clone(carried), Arc::clone(carried));
    thread::spawn(move || pour(from_device, server, &up.up));
    thread::spawn(move || pour(from_server, device, &down.down));
}

/// Until one side ends; then the other one is ended as well.
fn pour(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    // Small frames must not wait for larger ones.
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
