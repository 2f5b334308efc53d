//! What the app wants of the driver: a level, not a queue, so that a hundred calls cost no more than the last one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::token::Token;

/// Whether the app wants to be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Wanted {
    /// No.
    #[default]
    Stopped,
    /// Yes.
    Connected,
    /// No, and the driver is to end.
    Ended,
}

/// What the app wants now.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// Whether it wants to be connected.
    pub(super) wanted: Wanted,
    /// A token that it brought.
    pub(super) token: Option<Token>,
    serial: u64,
    granted: u64,
}

/// The place where app and driver meet.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    wish: Mutex<Wish>,
    came: Notify,
    granted: Condvar,
}

impl Wishes {
    /// Changes the wish; the answer names it for [`Wishes::wait_until_granted`].
    pub(super) fn make(&self, change: impl FnOnce(&mut Wish)) -> u64 {
        let mut wish = self.lock();
        change(&mut wish);
        wish.serial += 1;
        self.came.notify_one();
        wish.serial
    }

    /// Blocks until the driver has done what it was asked, or has ended.
    pub(super) fn wait_until_granted(&self, serial: u64) {
        let open = |wish: &mut Wish| wish.granted < serial;
        drop(self.granted.wait_while(self.lock(), open).unwrap_or_else(PoisonError::into_inner));
    }

    /// For the driver: waits for a wish.
    pub(super) async fn next(&self) {
        self.came.notified().await;
    }

    /// For the driver: what is wanted now, and its serial.
    pub(super) fn take(&self) -> (Wanted, Option<Token>, u64) {
        let mut wish = self.lock();
        (wish.wanted, wish.token.take(), wish.serial)
    }

    /// For the driver: all wishes up to this one are done.
    pub(super) fn grant(&self, serial: u64) {
        let mut wish = self.lock();
        wish.granted = wish.granted.max(serial);
        self.granted.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
