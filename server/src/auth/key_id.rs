//! Names of keys: `tenant.demo.RS256.<thumbprint>` or `operator.EdDSA.<thumbprint>`.
//!
//! The name says whose the key is and how it signs, and the thumbprint (RFC 7638) which key it is. A token's `kid`
//! only ever selects a key among those of the owner that it names; it never builds a path or an address.

use std::fmt;

use farshore_store::signing_keys::SigningAlgorithm;
use farshore_sync_core::ids::TenantId;

/// Longest name of a key, in bytes: every part at its longest.
pub const MAX_KEY_ID_BYTES: usize = 128;

/// Who signs with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOwner {
    /// A tenant signs tokens for its devices.
    Tenant(TenantId),
    /// The platform signs tokens for its operators.
    Operators,
}

impl KeyOwner {
    /// The name of a key of this owner.
    #[must_use]
    pub fn key_id(&self, algorithm: SigningAlgorithm, thumbprint: &str) -> String {
        format!("{self}.{}.{thumbprint}", algorithm_name(algorithm))
    }

    /// Whose key a name belongs to; `None` where it is no name of a key.
    #[must_use]
    pub fn of_key_id(kid: &str) -> Option<Self> {
        if kid.len() > MAX_KEY_ID_BYTES {
            return None;
        }
        let parts: Vec<&str> = kid.split('.').collect();
        match parts.as_slice() {
            ["tenant", tenant, _algorithm, _thumbprint] => tenant.parse().ok().map(Self::Tenant),
            ["operator", _algorithm, _thumbprint] => Some(Self::Operators),
            _ => None,
        }
    }

    /// The `iss` of this owner's tokens.
    #[must_use]
    pub fn issuer(&self, issuer_url: &str) -> String {
        match self {
            Self::Tenant(tenant) => format!("{issuer_url}/t/{tenant}"),
            Self::Operators => format!("{issuer_url}/operators"),
        }
    }
}

impl fmt::Display for KeyOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant.{tenant}"),
            Self::Operators => f.write_str("operator"),
        }
    }
}

/// The name of an algorithm in headers and key sets.
#[must_use]
pub const fn algorithm_name(algorithm: SigningAlgorithm) -> &'static str {
    match algorithm {
        SigningAlgorithm::Rs256 => "RS256",
        SigningAlgorithm::EdDsa => "EdDSA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_its_owner_and_nowhere_else() {
        let demo = KeyOwner::Tenant("demo".parse().unwrap());
        let kid = demo.key_id(SigningAlgorithm::Rs256, "abc");
        assert_eq!(kid, "tenant.demo.RS256.abc");
        assert_eq!(KeyOwner::of_key_id(&kid), Some(demo));
        let kid = KeyOwner::Operators.key_id(SigningAlgorithm::EdDsa, "abc");
        assert_eq!(KeyOwner::of_key_id(&kid), Some(KeyOwner::Operators));
        let of_length = |bytes: usize| format!("{:a<bytes$}", "tenant.demo.RS256.");
        let longest = KeyOwner::of_key_id(&of_length(MAX_KEY_ID_BYTES));
        assert_eq!(longest, Some(KeyOwner::Tenant("demo".parse().unwrap())));
        let (long, longer) = (of_length(MAX_KEY_ID_BYTES + 1), of_length(2 * MAX_KEY_ID_BYTES));
        for bad in [
            "",
            "demo",
            "tenant.demo.RS256",
            "tenant.../../x.RS256.a",
            "tenant.de%00mo.RS256.a",
            &long,
            &longer,
        ] {
            assert_eq!(KeyOwner::of_key_id(bad), None, "{bad}");
        }
    }
}
