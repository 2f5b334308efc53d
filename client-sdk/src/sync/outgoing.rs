//! Frames on their way out: a bounded queue and the task that writes them to the socket.
//!
//! Whoever queues never waits: the driver must go on taking frames in while the network takes none, or both sides
//! could wait for each other. It reads transactions from the outbox only while [`Outgoing::has_room`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farshore_api::envelope;
use farshore_sync_core::wire::{ClientFrame, Frame as _};
use futures_util::{Sink, SinkExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Most frames that wait to be written. Far more than an honest exchange queues.
pub const MAX_OUTGOING_FRAMES: usize = 64;
/// Bytes of waiting frames from which on the outbox is not read further.
pub const OUTGOING_TARGET_BYTES: usize = 512 << 10;
/// How long saying goodbye may take, in milliseconds.
pub const CLOSE_TIMEOUT_MS: u64 = 1_000;

/// The queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    frames: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    written: Notify,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// The queue is full: the server does not read.
    #[error("the server takes no more frames")]
    Full,
    /// The connection is gone.
    #[error("the connection is gone")]
    Gone,
}

impl Outgoing {
    /// A queue whose frames go into `sink`. When the queue is dropped, the socket is closed politely; `failed` is
    /// called once if writing fails.
    pub(super) fn start<S>(sink: S, failed: impl FnOnce(Error) + Send + 'static) -> Self
    where
        S: Sink<Message, Error = Error> + Unpin + Send + 'static,
    {
        let (frames, queue) = mpsc::channel(MAX_OUTGOING_FRAMES);
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(write(sink, queue, Arc::clone(&waiting), failed));
        Self { frames, waiting }
    }

    /// Queues a frame.
    pub(super) fn send(&self, frame: &ClientFrame) -> Result<(), SendError> {
        let bytes = frame.to_bytes();
        let length = bytes.len();
        self.waiting.bytes.fetch_add(length, Ordering::Relaxed);
        self.frames.try_send(bytes).map_err(|refused| {
            self.waiting.bytes.fetch_sub(length, Ordering::Relaxed);
            match refused {
                mpsc::error::TrySendError::Full(_) => SendError::Full,
                mpsc::error::TrySendError::Closed(_) => SendError::Gone,
            }
        })
    }

    /// Whether more of the outbox may be queued.
    pub(super) fn has_room(&self) -> bool {
        // Half of the slots stay free for frames that answer the server.
        self.waiting.bytes.load(Ordering::Relaxed) < OUTGOING_TARGET_BYTES
            && self.frames.capacity() > MAX_OUTGOING_FRAMES / 2
    }

    /// Waits until [`Outgoing::has_room`].
    pub(super) async fn room(&self) {
        while !self.has_room() {
            self.waiting.written.notified().await;
        }
    }
}

async fn write<S>(
    mut sink: S,
    mut queue: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<Waiting>,
    failed: impl FnOnce(Error),
) where
    S: Sink<Message, Error = Error> + Unpin,
{
    while let Some(frame) = queue.recv().await {
        let written = sink.send(Message::Binary(envelope::seal(&frame).into())).await;
        waiting.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        // One waiter, and a permit is kept for it, so no wake-up is lost.
        waiting.written.notify_one();
        if let Err(error) = written {
            return failed(error);
        }
    }
    // The connection is given up either way; what is not said in time is left unsaid.
    let _ = timeout(Duration::from_millis(CLOSE_TIMEOUT_MS), sink.close()).await;
}
