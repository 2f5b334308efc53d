//! Transactions that tenants hold open in their files for further commits, and that end when none comes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::tenant::OpenTenant;

/// How often a tenant's transaction that is held open is looked at: where no commit has come since the last look, it
/// ends.
const LOOK: Duration = Duration::from_millis(4);

/// Who holds a transaction open.
#[derive(Default)]
pub(crate) struct HeldTransactions(Mutex<Holders>);

#[derive(Default)]
struct Holders {
    by: Vec<Holder>,
    /// Whether a thread is there that looks at them.
    is_watched: bool,
}

/// A tenant that holds a transaction open.
struct Holder {
    tenant: Weak<OpenTenant>,
    /// How many commits were in it at the last look.
    commits: u32,
}

impl HeldTransactions {
    /// Sees to it that the transaction which a tenant holds open ends when no further commit comes.
    pub fn watch(self: &Arc<Self>, open: &Arc<OpenTenant>) {
        let mut holders = self.lock();
        if !open.is_looked_at.swap(true, Ordering::AcqRel) {
            holders.by.push(Holder { tenant: Arc::downgrade(open), commits: 0 });
        }
        // Without a runtime the next one tries again, and whoever reads ends the transaction as well.
        if !holders.is_watched
            && let Ok(runtime) = Handle::try_current()
        {
            let all = Arc::clone(self);
            // A thread of the runtime's, because whoever ends that one waits for it: SQLCipher frees what it encrypts
            // with when the process exits.
            drop(runtime.spawn_blocking(move || all.end_what_is_quiet()));
            holders.is_watched = true;
        }
    }

    /// Looks at who holds a transaction open, as long as somebody does, and ends those to which no commit came since the
    /// last look.
    fn end_what_is_quiet(&self) {
        loop {
            std::thread::park_timeout(LOOK);
            let mut quiet = Vec::new();
            let mut holders = self.lock();
            holders.by.retain_mut(|holder| {
                let Some(tenant) = holder.tenant.upgrade() else { return false };
                let before = std::mem::replace(&mut holder.commits, tenant.held_commits());
                let is_quiet = before == holder.commits;
                if is_quiet {
                    tenant.is_looked_at.store(false, Ordering::Release);
                    quiet.push(tenant);
                }
                !is_quiet
            });
            holders.is_watched = !holders.by.is_empty() || !quiet.is_empty();
            let is_over = !holders.is_watched;
            drop(holders);
            if is_over {
                return;
            }
            quiet.iter().for_each(|tenant| tenant.end_held_now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
