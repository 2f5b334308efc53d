//! Whose replica a client opens: what is stored, what the app says and what its token says must agree.

use farshore_sync_core::ids::{DeviceId, TenantId};

use crate::environment::Environment;
use crate::sync::{Claims, Owner, OwnerError};

/// What is known of the owner before the store is opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// From the owner file.
    pub(super) stored: Option<Owner>,
    /// From the app.
    pub(super) device: Option<DeviceId>,
    /// From the app.
    pub(super) tenant: Option<TenantId>,
    /// From the access token.
    pub(super) claims: Option<Claims>,
}

impl Known {
    /// Whose replica it is; `None` where nothing says so.
    ///
    /// # Errors
    /// Where two of them differ. What was there first is taken for the truth.
    pub(super) fn owner(&self) -> Result<Option<Owner>, OwnerError> {
        let stored_device = self.stored.as_ref().map(|owner| owner.device);
        let stored_tenant = self.stored.as_ref().and_then(|owner| owner.tenant.clone());
        let claimed_device = self.claims.as_ref().map(|claims| claims.device);
        let claimed_tenant = self.claims.as_ref().map(|claims| claims.tenant.clone());
        let device = agreed([stored_device, self.device, claimed_device])
            .map_err(|(stored, given)| OwnerError::Device { stored, given })?;
        let tenant = agreed([stored_tenant, self.tenant.clone(), claimed_tenant])
            .map_err(|(stored, given)| OwnerError::Tenant { stored, given })?;
        Ok(device.map(|device| Owner { device, tenant }))
    }
}

/// A device id that nobody gave: a later token must be for it. `None` where the system has no randomness.
pub(super) fn generated(environment: &dyn Environment) -> Option<DeviceId> {
    let mut entropy = [0; 10];
    entropy[..8].copy_from_slice(&environment.entropy()?.to_le_bytes());
    entropy[8..].copy_from_slice(&environment.entropy()?.to_le_bytes()[..2]);
    Some(DeviceId::from_parts(environment.wall_ms(), &entropy))
}

/// The one value that all who say something say, or the first two that differ.
fn agreed<T: PartialEq + Clone>(said: [Option<T>; 3]) -> Result<Option<T>, (T, T)> {
    let mut said = said.into_iter().flatten();
    let Some(first) = said.next() else { return Ok(None) };
    match said.find(|other| *other != first) {
        Some(other) => Err((first, other)),
        None => Ok(Some(first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::OsEnvironment;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 16])
    }

    fn claims(n: u8, tenant: &str) -> Option<Claims> {
        Some(Claims { device: device(n), tenant: tenant.parse().unwrap(), expires_at_ms: None })
    }

    #[test]
    fn the_token_names_the_owner_of_a_new_store() {
        let known = Known { claims: claims(1, "demo"), ..Known::default() };
        let owner = Owner { device: device(1), tenant: Some("demo".parse().unwrap()) };
        assert_eq!(known.owner().unwrap(), Some(owner));
        assert_eq!(Known::default().owner().unwrap(), None);
    }

    #[test]
    fn somebody_elses_token_or_id_is_refused_by_name() {
        let stored = Some(Owner { device: device(1), tenant: Some("demo".parse().unwrap()) });
        let known = |device, claims| Known { stored: stored.clone(), device, claims, tenant: None };
        assert!(known(Some(device(1)), claims(1, "demo")).owner().is_ok());
        let other_device = OwnerError::Device { stored: device(1), given: device(2) };
        assert_eq!(known(Some(device(2)), None).owner().unwrap_err(), other_device);
        assert_eq!(known(None, claims(2, "demo")).owner().unwrap_err(), other_device);
        let other_tenant =
            OwnerError::Tenant { stored: "demo".parse().unwrap(), given: "acme".parse().unwrap() };
        assert_eq!(known(None, claims(1, "acme")).owner().unwrap_err(), other_tenant);
    }

    #[test]
    fn a_store_that_was_made_offline_learns_its_tenant_from_the_first_token() {
        let stored = Some(Owner { device: device(1), tenant: None });
        let known = Known { stored, claims: claims(1, "demo"), ..Known::default() };
        assert_eq!(known.owner().unwrap().unwrap().tenant, Some("demo".parse().unwrap()));
    }

    #[test]
    fn generated_ids_differ() {
        let environment = OsEnvironment::default();
        assert_ne!(generated(&environment).unwrap(), generated(&environment).unwrap());
    }
}
