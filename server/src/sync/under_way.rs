//! What a connection has under way beside its socket: reads of the store, and checks of who the device is.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use farshore_store::sync::PageRead;
use farshore_sync_core::wire::Fault;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::session::Event;
use super::turns::Turn;
use crate::auth::DevicePrincipal;

/// Something that a session asked for and that takes its time.
type Work = Pin<Box<dyn Future<Output = Result<Done, Fault>> + Send>>;

/// What came of it.
pub(super) enum Done {
    Event(Box<Event>),
    /// With the turn in which it becomes a message, unless the device was too slow for it.
    Page(Box<PageRead>, Option<Turn>),
    Principal(Box<DevicePrincipal>),
}

#[derive(Default)]
pub(super) struct UnderWay {
    running: FuturesUnordered<Work>,
    finished: VecDeque<Result<Done, Fault>>,
}

impl UnderWay {
    pub(super) fn start(&self, work: impl Future<Output = Result<Done, Fault>> + Send + 'static) {
        self.running.push(Box::pin(work));
    }

    /// How much there is, finished or not.
    pub(super) fn len(&self) -> usize {
        self.running.len() + self.finished.len()
    }

    /// What is finished next; nothing ever, where nothing is under way. Nothing is lost where this is given up.
    pub(super) async fn next(&mut self) -> Result<Done, Fault> {
        if let Some(done) = self.finished.pop_front() {
            return done;
        }
        match self.running.next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Waits for something that may take long, such as a slow device, while the work goes on: whoever has a turn and
    /// does not use it keeps others from theirs. A page that is read meanwhile gives its turn back.
    pub(super) async fn meanwhile<T>(&mut self, mut wait: Pin<&mut impl Future<Output = T>>) -> T {
        loop {
            tokio::select! {
                biased;
                over = &mut wait => return over,
                Some(done) = self.running.next(), if !self.running.is_empty() => {
                    self.finished.push_back(done.map(|done| match done {
                        Done::Page(page, _) => Done::Page(page, None),
                        other => other,
                    }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use farshore_store::sync::Head;
    use farshore_sync_core::digest::Totals;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::sync::turns::Turns;

    const LARGE: usize = 1 << 20;

    #[test]
    fn whoever_waits_for_a_slow_device_keeps_no_turn() {
        let (turns, tenant) = (Turns::new(1, 1 << 10), "acme".parse().unwrap());
        let first = turns.take(&tenant, LARGE).now_or_never().unwrap();
        let mut under_way = UnderWay::default();
        let (own, of) = (turns.clone(), tenant.clone());
        under_way.start(async move {
            let turn = own.take(&of, LARGE).await;
            let head = Head { seq: 1, epoch: 1, horizon: 0 };
            let (rows, positions) = (Vec::new(), Vec::new());
            let page = PageRead { head, rows, positions, complete: true, totals: Totals::new() };
            Ok(Done::Page(Box::new(page), Some(turn)))
        });
        assert!(under_way.next().now_or_never().is_none(), "the turn is another's");
        drop(first);
        assert!(turns.take(&tenant, LARGE).now_or_never().is_none(), "the page is next");
        let slow_device = std::pin::pin!(std::future::pending::<()>());
        assert!(under_way.meanwhile(slow_device).now_or_never().is_none());
        assert!(turns.take(&tenant, LARGE).now_or_never().is_some());
        assert_eq!(under_way.len(), 1);
        let done = under_way.next().now_or_never();
        assert!(matches!(done, Some(Ok(Done::Page(_, None)))));
        assert_eq!(under_way.len(), 0);
    }
}
