//! The template that puts a row into a scope.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::Scope;
use crate::value::Value;

/// A scope with column names in braces, such as `site/{site_id}`, or the constant `tenant`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScopeTemplate {
    text: String,
    parts: Vec<Part>,
    /// The one scope of a template without columns.
    constant: Option<Scope>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Column(String),
}

/// Text that is no scope template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "scope template {0:?}: expected text of A-Z, a-z, 0-9 and _ . / : @ - with column names in braces"
)]
pub struct ScopeTemplateError(String);

impl ScopeTemplate {
    /// The columns that the template names.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The scope, where the template names no column.
    #[must_use]
    pub fn constant(&self) -> Option<Scope> {
        self.constant.clone()
    }

    /// The scope of a row; `None` where a named column is empty or does not make a scope.
    pub fn resolve<'v>(&self, value_of: impl Fn(&str) -> Option<Cow<'v, Value>>) -> Option<Scope> {
        if let Some(constant) = &self.constant {
            return Some(constant.clone());
        }
        let mut scope = String::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => scope.push_str(text),
                Part::Column(name) => push_value(&mut scope, &*value_of(name)?)?,
            }
        }
        scope.parse().ok()
    }
}

fn push_value(scope: &mut String, value: &Value) -> Option<()> {
    match value {
        Value::Text(text) if !text.is_empty() => scope.push_str(text),
        Value::Int(int) => write!(scope, "{int}").ok()?,
        Value::Bool(truth) => write!(scope, "{truth}").ok()?,
        Value::Uuid(bytes) => write!(scope, "{}", Uuid::from_bytes(*bytes)).ok()?,
        _ => return None,
    }
    Some(())
}

impl FromStr for ScopeTemplate {
    type Err = ScopeTemplateError;

    fn from_str(text: &str) -> Result<Self, ScopeTemplateError> {
        let bad = || ScopeTemplateError(text.chars().take(120).collect());
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('{') {
                let (name, after) = inner.split_once('}').ok_or_else(bad)?;
                parts.push(Part::Column(name.to_owned()));
                rest = after;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                rest[..end].parse::<Scope>().map_err(|_| bad())?;
                parts.push(Part::Literal(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
        let names_columns = parts.iter().any(|part| matches!(part, Part::Column(_)));
        let constant = if names_columns { None } else { Some(text.parse().map_err(|_| bad())?) };
        Ok(Self { text: text.to_owned(), parts, constant })
    }
}

impl TryFrom<String> for ScopeTemplate {
    type Error = ScopeTemplateError;

    fn try_from(text: String) -> Result<Self, ScopeTemplateError> {
        text.parse()
    }
}

impl From<ScopeTemplate> for String {
    fn from(template: ScopeTemplate) -> Self {
        template.text
    }
}

impl fmt::Display for ScopeTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fall_into_the_scope_of_their_columns() {
        let template: ScopeTemplate = "site/{site_id}".parse().unwrap();
        let of = |value: Value| {
            template.resolve(|name| (name == "site_id").then(|| Cow::Owned(value.clone())))
        };
        assert_eq!(of(Value::Int(7)), Some("site/7".parse().unwrap()));
        assert_eq!(of(Value::from("a b")), None);
        assert_eq!(of(Value::Null), None);
        assert_eq!(template.constant(), None);
        assert_eq!(
            "tenant".parse::<ScopeTemplate>().unwrap().constant(),
            Some("tenant".parse().unwrap())
        );
        for bad in ["", "site/{x", "a b"] {
            assert!(bad.parse::<ScopeTemplate>().is_err(), "{bad}");
        }
    }
}
