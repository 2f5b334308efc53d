//! The two ends of a connection, as the SDK and the server take them for a socket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ws;
use futures_util::{Sink, Stream};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite;

use super::Flow;
use super::pipe::{Item, Pipe};

/// One end of a connection.
pub(super) struct End {
    pub incoming: Arc<Pipe>,
    pub outgoing: Arc<Pipe>,
    pub sleep: Option<Pin<Box<Sleep>>>,
}

/// The connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection broke")]
pub struct Broken;

/// The device's end of a connection.
pub struct ClientEnd(pub(super) End);

/// The server's end of a connection.
pub struct ServerEnd(pub(super) End);

impl End {
    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item, Broken>>> {
        loop {
            let deadline = {
                let mut state = self.incoming.lock();
                if state.broken {
                    return Poll::Ready(Some(Err(Broken)));
                }
                state.reader = Some(context.waker().clone());
                match state.queue.front() {
                    Some((at, _)) if state.flow != Flow::Held => {
                        if *at <= Instant::now() {
                            let (_, item) = state.queue.pop_front().expect("it was just looked at");
                            if let Item::Message(bytes, _) | Item::Cut(bytes) = &item {
                                state.bytes -= bytes.len();
                            }
                            state.wake_writer();
                            drop(state);
                            self.incoming.delivered(&item);
                            return Poll::Ready(Some(Ok(item)));
                        }
                        *at
                    }
                    _ => return Poll::Pending,
                }
            };
            // One that sleeps until then goes on: what arrives in the same millisecond keeps the order in which it was
            // sent, whoever looked in between.
            let sleep = match &mut self.sleep {
                Some(sleep) if sleep.deadline() == deadline => sleep,
                other => other.insert(Box::pin(tokio::time::sleep_until(deadline))),
            };
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// A message that came in part ends its connection.
    fn cut_here(&self) {
        self.incoming.break_off();
        self.outgoing.break_off();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.outgoing.put(Item::Close);
        let mut incoming = self.incoming.lock();
        incoming.reader_gone = true;
        incoming.wake_writer();
    }
}

fn client_error(broken: Broken) -> tungstenite::Error {
    tungstenite::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionReset, broken))
}

impl Stream for ClientEnd {
    type Item = Result<tungstenite::Message, tungstenite::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|item| {
            Some(match item? {
                Ok(Item::Message(bytes, _)) => Ok(tungstenite::Message::Binary(bytes)),
                Ok(Item::Cut(bytes)) => {
                    self.0.cut_here();
                    Ok(tungstenite::Message::Binary(bytes))
                }
                Ok(Item::Close) => Ok(tungstenite::Message::Close(None)),
                Err(broken) => Err(client_error(broken)),
            })
        })
    }
}

impl Sink<tungstenite::Message> for ClientEnd {
    type Error = tungstenite::Error;

    fn poll_ready(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        self.0.outgoing.poll_room(context).map_err(client_error)
    }

    fn start_send(self: Pin<&mut Self>, message: tungstenite::Message) -> Result<(), Self::Error> {
        match message {
            tungstenite::Message::Binary(bytes) => {
                self.0.outgoing.send(bytes).map_err(client_error)
            }
            tungstenite::Message::Close(_) => {
                self.0.outgoing.put(Item::Close);
                Ok(())
            }
            tungstenite::Message::Text(_)
            | tungstenite::Message::Ping(_)
            | tungstenite::Message::Pong(_)
            | tungstenite::Message::Frame(_) => Ok(()),
        }
    }

    fn poll_flush(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        self.0.outgoing.poll_room(context).map_err(client_error)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.outgoing.put(Item::Close);
        Poll::Ready(Ok(()))
    }
}

impl Stream for ServerEnd {
    type Item = Result<ws::Message, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|item| {
            Some(match item? {
                Ok(Item::Message(bytes, _)) => Ok(ws::Message::Binary(bytes)),
                Ok(Item::Cut(bytes)) => {
                    self.0.cut_here();
                    Ok(ws::Message::Binary(bytes))
                }
                Ok(Item::Close) => Ok(ws::Message::Close(None)),
                Err(broken) => Err(axum::Error::new(broken)),
            })
        })
    }
}

impl Sink<ws::Message> for ServerEnd {
    type Error = axum::Error;

    fn poll_ready(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        self.0.outgoing.poll_room(context).map_err(axum::Error::new)
    }

    fn start_send(self: Pin<&mut Self>, message: ws::Message) -> Result<(), Self::Error> {
        match message {
            ws::Message::Binary(bytes) => self.0.outgoing.send(bytes).map_err(axum::Error::new),
            ws::Message::Close(_) => {
                self.0.outgoing.put(Item::Close);
                Ok(())
            }
            ws::Message::Text(_) | ws::Message::Ping(_) | ws::Message::Pong(_) => Ok(()),
        }
    }

    fn poll_flush(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        self.0.outgoing.poll_room(context).map_err(axum::Error::new)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.outgoing.put(Item::Close);
        Poll::Ready(Ok(()))
    }
}
