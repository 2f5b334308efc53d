//! The schema and the role of a tenant, and statements that name them.
//!
//! The characters of a [`TenantId`] are `[a-z0-9-]`, so that quoting one is putting quotes around it.

use farshore_store::sync_core::ids::TenantId;

/// What stands in statements for the schema of the tenant; SQLite knows a tenant's file by the same name.
const PLACEHOLDER: &str = "main.";

/// The names of one tenant, quoted for statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub tenant: TenantId,
    /// The schema, with the point behind it.
    qualifier: String,
}

impl Names {
    pub fn new(tenant: TenantId) -> Self {
        let qualifier = format!("\"tenant_{tenant}\".");
        Self { tenant, qualifier }
    }

    /// The names of a copy that arrives beside the tenant.
    pub fn arriving(tenant: TenantId) -> Self {
        let qualifier = format!("\"arriving_{tenant}\".");
        Self { tenant, qualifier }
    }

    /// The schema, quoted.
    pub fn schema(&self) -> &str {
        self.qualifier.trim_end_matches('.')
    }

    /// The schema of the views on the tenant's collections, quoted. It is another one since a collection may be called
    /// like a table.
    pub fn views(&self) -> String {
        format!("\"rows_{}\"", self.tenant)
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
    pub fn of(&self, tenant: &TenantId) -> String {
        format!("\"farshore_{}_{tenant}\"", self.platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_the_schema_of_its_tenant() {
        let names = Names::new("acme-2".parse().unwrap());
        assert_eq!(
            names.qualify("SELECT d.remain.x FROM main.devices d, main.marks"),
            "SELECT d.remain.x FROM \"tenant_acme-2\".devices d, \"tenant_acme-2\".marks"
        );
        assert_eq!(names.schema(), "\"tenant_acme-2\"");
    }

    #[test]
    fn the_longest_names_fit_into_an_identifier() {
        const IDENTIFIER_BYTES: usize = 63;
        let longest: TenantId = "a".repeat(40).parse().unwrap();
        let role = Roles::new("0123abcd").of(&longest);
        assert!(role.trim_matches('"').len() <= IDENTIFIER_BYTES);
        assert!(Names::new(longest).schema().trim_matches('"').len() <= IDENTIFIER_BYTES);
    }
}
