//! Carrying out what the replica asks: one request, one database transaction.

use farshore_sync_core::replica::{StoreReply, StoreRequest};

use super::error::Failure;
use super::transaction::Tx;

impl Tx<'_> {
    /// Carries out one request; the caller commits.
    pub(super) fn carry_out(
        &mut self,
        request: StoreRequest,
        now_ms: u64,
    ) -> Result<StoreReply, Failure> {
        Ok(match request {
            StoreRequest::Load => StoreReply::Loaded(self.standing()),
            StoreRequest::Outbox { after, max_bytes, max_transactions } => {
                StoreReply::Outbox(self.unanswered_after(after, max_bytes, max_transactions)?)
            }
            StoreRequest::Adopt(welcome) => match self.adopt(&welcome, now_ms)? {
                Ok(positions) => StoreReply::Adopted { positions },
                Err(_forked) => StoreReply::Forked,
            },
            StoreRequest::AdoptGrants(grants) => {
                self.adopt_grants(grants, now_ms)?;
                StoreReply::Adopted { positions: self.positions() }
            }
            StoreRequest::Page(page) => {
                let stored = self.page(&page, now_ms)?;
                StoreReply::PageStored {
                    checkpoint: stored.checkpoint,
                    outbox_grew: stored.outbox_grew,
                }
            }
            StoreRequest::Outcomes(outcomes) => {
                StoreReply::Settled { settled: self.outcomes(&outcomes, now_ms)? }
            }
            StoreRequest::Totals => StoreReply::Totals(self.totals()),
            StoreRequest::Sums(sums) => StoreReply::Listings(self.differing_buckets(&sums)?),
            StoreRequest::Repair(repair) => StoreReply::Repaired(self.repair(&repair)?),
        })
    }
}
