//! Whose replica a store is: one device of one tenant, for good.

use farshore_sync_core::ids::{DeviceId, TenantId};

use super::claims::Claims;

/// The device, and the tenant where it is known, whose data a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The device.
    pub device: DeviceId,
    /// The tenant; unknown until the first token.
    pub tenant: Option<TenantId>,
}

/// Somebody else's token or id was given for a replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// Another device.
    #[error(
        "this replica is device {stored}, and what was given is for device {given}; each device needs a store of its own"
    )]
    Device {
        /// Whose store it is.
        stored: DeviceId,
        /// What the token says, or the app.
        given: DeviceId,
    },
    /// Another tenant.
    #[error(
        "this replica belongs to tenant {stored}, and what was given is for tenant {given}; each tenant needs a store of its own"
    )]
    Tenant {
        /// Whose store it is.
        stored: TenantId,
        /// What the token says, or the app.
        given: TenantId,
    },
}

impl OwnerError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Device { .. } => "wrong_device",
            Self::Tenant { .. } => "wrong_tenant",
        }
    }
}

impl Owner {
    /// Whether a token is for this replica.
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), OwnerError> {
        if claims.device != self.device {
            return Err(OwnerError::Device { stored: self.device, given: claims.device });
        }
        match &self.tenant {
            Some(stored) if *stored != claims.tenant => {
                Err(OwnerError::Tenant { stored: stored.clone(), given: claims.tenant.clone() })
            }
            _ => Ok(()),
        }
    }
}
