//! A caller whose token was verified.

use std::fmt;

use farshore_store::scope::TenantScope;
use farshore_sync_core::ids::{DeviceId, TenantId, UserId};
use farshore_sync_core::wire::Grant;

/// A device of a tenant.
#[derive(Clone, PartialEq, Eq)]
pub struct DevicePrincipal {
    pub(super) scope: TenantScope,
    pub(super) device: DeviceId,
    pub(super) user: UserId,
    pub(super) grants: Vec<Grant>,
    pub(super) token: TokenFacts,
}

/// What remains of the token, so that rights can be computed again.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TokenFacts {
    pub kid: String,
    pub grants: Vec<Grant>,
    pub expires_at_ms: u64,
}

impl DevicePrincipal {
    /// The proof that it may act for its tenant.
    #[must_use]
    pub const fn scope(&self) -> &TenantScope {
        &self.scope
    }

    /// Its tenant.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        self.scope.tenant()
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// The person who uses it.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// What it may read and write: what both its token and its record allow, sorted by scope.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The moment from which its token is no longer good, the leeway for clocks included, in milliseconds
    /// since 1970.
    #[must_use]
    pub const fn expires_at_ms(&self) -> u64 {
        self.token.expires_at_ms
    }
}

impl fmt::Debug for DevicePrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("DevicePrincipal");
        debug.field("tenant", self.tenant()).field("device", &self.device).finish_non_exhaustive()
    }
}

/// An operator of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorPrincipal {
    pub(super) subject: String,
}

impl OperatorPrincipal {
    /// Who it is, for the log.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}
