//! When to try again: a timer with jitter, never the next write.

use super::Cause;
use crate::wire::FaultCode;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Before the second attempt, in milliseconds.
    pub first_ms: u64,
    /// At most, in milliseconds.
    pub most_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_ms: 250, most_ms: 30_000 }
    }
}

impl RetryPolicy {
    /// How long to wait after so many failures in a row: doubling, with half of it by chance.
    #[must_use]
    pub fn delay_ms(&self, failures: u32, cause: &Cause, entropy: u64) -> u64 {
        let doubled =
            self.first_ms.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.most_ms);
        let half = (doubled / 2).max(1);
        let jittered = half + entropy % half;
        match cause {
            Cause::Fault(fault) => {
                jittered.max(fault.retry_after_ms.unwrap_or(0).min(self.most_ms * 10))
            }
            _ => jittered,
        }
    }
}

/// Whether trying again cannot help: only the app or the operator can.
#[must_use]
pub fn is_final(cause: &Cause) -> bool {
    match cause {
        Cause::Unauthenticated(_) | Cause::Forked => true,
        Cause::Fault(fault) => matches!(
            fault.code,
            FaultCode::UnsupportedVersion
                | FaultCode::Unauthenticated
                | FaultCode::ReplicaForked
                | FaultCode::SchemaTooNew
                | FaultCode::Superseded
        ),
        _ => false,
    }
}
