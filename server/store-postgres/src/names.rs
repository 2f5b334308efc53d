//! The schema and the role of a tenant, and statements that name them.
//!
//! Whoever may ask a Postgres anything may read the names of all schemas, roles and policies in it: taking away the
//! rights on the catalogues does not help, since `16400::regnamespace::text` reads past them. So none of these is
//! called after its tenant. A [`TenantKey`] stands in its place, which chance gave and `farshore.tenants` translates;
//! that table is for the platform alone.
//!
//! The characters of a key are `[0-9a-f]`, so that quoting one is putting quotes around it.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use farshore_store::sync_core::ids::TenantId;

/// Bytes of a key: enough for millions of tenants, none of which gets the key of another one or can guess it.
const KEY_BYTES: usize = 8;

/// What stands in statements for the schema of the tenant; SQLite knows a tenant's file by the same name.
const PLACEHOLDER: &str = "main.";

/// What a tenant is called where other tenants may look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantKey(String);

impl TenantKey {
    /// A new one.
    pub fn random() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut bytes)?;
        Ok(Self(HEXLOWER.encode(&bytes)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A number that chance gave too.
    pub fn number(&self) -> u64 {
        u64::from_str_radix(&self.0, 16).expect("a key is a number of 16 digits")
    }
}

impl FromStr for TenantKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let decoded = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAKey)?;
        if decoded.len() == KEY_BYTES { Ok(Self(text.to_owned())) } else { Err(NotAKey) }
    }
}

impl fmt::Display for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something else stands where a key should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of a tenant is {} hexadecimal digits", 2 * KEY_BYTES)]
pub(crate) struct NotAKey;

/// The names of one tenant, quoted for statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub tenant: TenantId,
    pub key: TenantKey,
    /// The schema, with the point behind it.
    qualifier: String,
}

impl Names {
    pub fn new(tenant: TenantId, key: TenantKey) -> Self {
        let qualifier = format!("\"tenant_{key}\".");
        Self { tenant, key, qualifier }
    }

    /// The schema, quoted.
    pub fn schema(&self) -> &str {
        self.qualifier.trim_end_matches('.')
    }

    /// The schema of the views on the tenant's collections, quoted. It is another one since a collection may be called
    /// like a table.
    pub fn views(&self) -> String {
        format!("\"rows_{}\"", self.key)
    }

    /// A statement whose tables are named `main.table`, on the tables of this tenant.
    pub fn qualify(&self, statement: &str) -> String {
        let mut qualified = String::with_capacity(statement.len() + 8 * self.qualifier.len());
        let mut rest = statement;
        while let Some(at) = rest.find(PLACEHOLDER) {
            let (before, after) = rest.split_at(at);
            qualified.push_str(before);
            let is_name_so_far = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            qualified.push_str(if is_name_so_far { PLACEHOLDER } else { &self.qualifier });
            rest = &after[PLACEHOLDER.len()..];
        }
        qualified.push_str(rest);
        qualified
    }
}

/// The roles of one platform. Roles belong to the whole cluster of databases, so they carry the platform's own id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles {
    platform: String,
}

impl Roles {
    /// The roles of a platform by its id, which is hexadecimal.
    pub fn new(platform: &str) -> Self {
        Self { platform: platform.to_owned() }
    }

    /// The role that owns the tables of all tenants, quoted. It does not sign in, and nothing runs as it but
    /// migrations.
    pub fn owner(&self) -> String {
        format!("\"farshore_{}\"", self.platform)
    }

    /// The role of one tenant, quoted.
    pub fn of(&self, tenant: &TenantKey) -> String {
        format!("\"farshore_{}_{tenant}\"", self.platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_the_schema_of_its_tenant() {
        let key = "0123456789abcdef".parse().unwrap();
        let names = Names::new("acme-2".parse().unwrap(), key);
        assert_eq!(
            names.qualify("SELECT d.remain.x FROM main.devices d, main.marks"),
            "SELECT d.remain.x FROM \"tenant_0123456789abcdef\".devices d, \
             \"tenant_0123456789abcdef\".marks"
        );
        assert_eq!(names.schema(), "\"tenant_0123456789abcdef\"");
        assert_eq!(names.views(), "\"rows_0123456789abcdef\"");
        assert_eq!(
            Roles::new("0123abcd").of(&names.key),
            "\"farshore_0123abcd_0123456789abcdef\"",
            "far from the 63 bytes that an identifier has"
        );
    }

    #[test]
    fn a_key_is_hexadecimal_digits_and_nothing_else() {
        let key = TenantKey::random().unwrap();
        assert_eq!(key.as_str().parse(), Ok(key));
        for text in
            ["", "acme", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef00", "\";--"]
        {
            assert_eq!(text.parse::<TenantKey>(), Err(NotAKey), "{text}");
        }
    }
}
