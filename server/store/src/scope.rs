//! The proof that a caller may touch a tenant.

use std::fmt;

use farshore_sync_core::ids::TenantId;

/// The right to name a tenant. A catalog hands out one, at its opening, and nothing else makes another:
/// the server keeps it where principals are authenticated and workflows start.
pub struct ScopeAuthority(());

impl ScopeAuthority {
    /// For back-ends: the authority that goes out with a newly opened catalog.
    #[must_use]
    pub const fn for_new_catalog() -> Self {
        Self(())
    }

    /// The scope of a tenant whose principal was authenticated, or on whose behalf a workflow runs.
    #[must_use]
    pub fn scope(&self, tenant: TenantId) -> TenantScope {
        TenantScope { tenant }
    }
}

impl fmt::Debug for ScopeAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeAuthority")
    }
}

/// The proof that the caller acts for this tenant. Every way to a store asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TenantScope {
    tenant: TenantId,
}

impl TenantScope {
    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}
