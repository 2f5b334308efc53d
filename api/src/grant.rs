//! Scopes with rights as people and tokens write them: `site/7:r` to read, `site/7:rw` to read and write.

use farshore_sync_core::ids::{IdError, Scope};
use farshore_sync_core::wire::{Grant, Rights};

const WRITE_SUFFIX: &str = ":rw";
const READ_SUFFIX: &str = ":r";

/// Reads `SCOPE:rw` or `SCOPE:r`; a scope without a suffix is for reading.
///
/// # Errors
/// Where what stands in front of the suffix is no scope.
pub fn parse_grant(text: &str) -> Result<Grant, IdError> {
    let (scope, rights) = if let Some(scope) = text.strip_suffix(WRITE_SUFFIX) {
        (scope, Rights::Write)
    } else {
        (text.strip_suffix(READ_SUFFIX).unwrap_or(text), Rights::Read)
    };
    scope.parse::<Scope>().map(|scope| Grant { scope, rights })
}

/// Writes a grant, always with its suffix, so that a scope that ends like one stays what it is.
#[must_use]
pub fn grant_text(grant: &Grant) -> String {
    let suffix = match grant.rights {
        Rights::Read => READ_SUFFIX,
        Rights::Write => WRITE_SUFFIX,
    };
    format!("{}{suffix}", grant.scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_a_scope_with_an_optional_suffix() {
        for (text, scope, rights) in [
            ("tenant", "tenant", Rights::Read),
            ("tenant:r", "tenant", Rights::Read),
            ("site/7:rw", "site/7", Rights::Write),
            ("odd:rw:r", "odd:rw", Rights::Read),
        ] {
            let grant = parse_grant(text).unwrap();
            assert_eq!((grant.scope.as_str(), grant.rights), (scope, rights), "{text}");
            assert_eq!(parse_grant(&grant_text(&grant)).unwrap(), grant);
        }
        for bad in ["", ":rw", "a b:rw"] {
            assert!(parse_grant(bad).is_err(), "{bad}");
        }
    }
}
