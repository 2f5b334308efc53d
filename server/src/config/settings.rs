//! Values in layers: the defaults, then a file, then the environment, then the command line.
//!
//! The defaults are `default.toml`, which also says which keys there are and of which type. Whoever reads a
//! value says what it may be; a refused one is reported with the layer that it came from.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::{Table, Value};

use super::error::{ConfigError, Origin};

/// The defaults, with a comment on each key.
pub const DEFAULTS: &str = include_str!("default.toml");
/// What the name of an environment variable begins with that sets a key.
const VARIABLE_PREFIX: &str = "FARSHORE_";
/// What stands between section and key in the name of a variable.
const VARIABLE_SEPARATOR: &str = "__";

/// Every key, as `section.key`, with its value and where that was set.
pub struct Settings {
    values: BTreeMap<String, (Value, Origin)>,
    read: RefCell<BTreeSet<String>>,
}

impl Settings {
    /// The defaults alone.
    #[must_use]
    pub fn defaults() -> Self {
        let table: Table = DEFAULTS.parse().expect("default.toml is TOML, which a test checks");
        let values = keys(&table).map(|(key, value)| (key, (value.clone(), Origin::Default)));
        Self { values: values.collect(), read: RefCell::default() }
    }

    /// Lays a file over what is there.
    ///
    /// # Errors
    /// Where it cannot be read, is not TOML, or sets a key that does not exist or to another type.
    pub fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table: Table = text.parse().map_err(|error| syntax_error(path, &text, &error))?;
        for (key, value) in keys(&table) {
            self.set(key, value.clone(), Origin::File(path.to_owned()))?;
        }
        Ok(())
    }

    /// Lays environment variables over what is there; those that are not `FARSHORE_SECTION__KEY` are passed by.
    ///
    /// # Errors
    /// Where one sets a key that does not exist or to another type.
    pub fn add_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, text) in variables {
            let Some(key) =
                name.strip_prefix(VARIABLE_PREFIX).and_then(|n| n.split_once(VARIABLE_SEPARATOR))
            else {
                continue;
            };
            let key = format!("{}.{}", key.0, key.1).to_ascii_lowercase();
            let value = self.value_of_text(&key, text);
            self.set(key, value, Origin::Environment(name))?;
        }
        Ok(())
    }

    /// Lays one option of the command line over what is there.
    ///
    /// # Errors
    /// As for a file.
    pub fn add_option(
        &mut self,
        key: &str,
        option: &'static str,
        text: &str,
    ) -> Result<(), ConfigError> {
        let value = self.value_of_text(key, text.to_owned());
        self.set(key.to_owned(), value, Origin::Option(option))
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// Where it is outside of them.
    pub fn number(&self, key: &str, bounds: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let value = self.value(key);
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        number.filter(|number| bounds.contains(number)).ok_or_else(|| {
            self.invalid(key, format!("a whole number from {} to {}", bounds.start(), bounds.end()))
        })
    }

    /// The same for what is counted or allocated.
    ///
    /// # Errors
    /// Where it is outside of the bounds.
    pub fn size(&self, key: &str, bounds: RangeInclusive<u64>) -> Result<usize, ConfigError> {
        let number = self.number(key, bounds)?;
        usize::try_from(number).map_err(|_| self.invalid(key, "less than this machine can address"))
    }

    /// The same for what there must be one of.
    ///
    /// # Errors
    /// Where it is zero or more than `most`.
    pub fn count(&self, key: &str, most: u64) -> Result<NonZeroUsize, ConfigError> {
        let size = self.size(key, 1..=most)?;
        Ok(NonZeroUsize::new(size).expect("the bounds begin at 1"))
    }

    /// The same for what fits into 32 bits.
    ///
    /// # Errors
    /// Where it is outside of the bounds.
    pub fn small(&self, key: &str, bounds: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let number = self.number(key, u64::from(*bounds.start())..=u64::from(*bounds.end()))?;
        Ok(u32::try_from(number).expect("the bounds have 32 bits"))
    }

    /// A text as it stands.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.value(key).as_str().expect("a value has the type of its default")
    }

    /// A text that stands for something else.
    ///
    /// # Errors
    /// Where `parse` does not take it.
    pub fn parsed<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        parse(self.text(key)).ok_or_else(|| self.invalid(key, expected))
    }

    /// A text that may hold a password: what is wrong with it is said without it.
    ///
    /// # Errors
    /// What `parse` says.
    pub fn secret<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        parse(self.text(key)).map_err(|problem| ConfigError::InvalidSecret {
            origin: self.values[key].1.clone(),
            key: key.to_owned(),
            problem: problem.to_string(),
        })
    }

    /// The error that says what a key takes.
    #[must_use]
    pub fn invalid(&self, key: &str, expected: impl Into<String>) -> ConfigError {
        let (value, origin) = &self.values[key];
        invalid(origin.clone(), key, expected, value)
    }

    /// The keys that nobody asked for.
    #[must_use]
    pub fn unread(&self) -> Vec<&str> {
        let read = self.read.borrow();
        self.values.keys().filter(|key| !read.contains(*key)).map(String::as_str).collect()
    }

    fn value(&self, key: &str) -> &Value {
        self.read.borrow_mut().insert(key.to_owned());
        &self.values.get(key).expect("every key that is read has a default").0
    }

    /// Reads a text as the type that the key has; what cannot be read stays text and is refused for it.
    fn value_of_text(&self, key: &str, text: String) -> Value {
        let number = || text.replace('_', "").parse().ok().map(Value::Integer);
        let default = self.values.get(key).map(|(value, _)| value);
        match default {
            Some(Value::Integer(_)) => number().unwrap_or(Value::String(text)),
            _ => Value::String(text),
        }
    }

    fn set(&mut self, key: String, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let Some(place) = self.values.get_mut(&key) else {
            return Err(ConfigError::UnknownKey { origin, key });
        };
        if place.0.same_type(&value) {
            *place = (value, origin);
            return Ok(());
        }
        let expected = if place.0.is_integer() { "a whole number" } else { "a text in quotes" };
        Err(invalid(origin, &key, expected, &value))
    }
}

impl fmt::Debug for Settings {
    /// Where each key was set; a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.values.iter().map(|(key, (_, origin))| (key, origin))).finish()
    }
}

fn invalid(origin: Origin, key: &str, expected: impl Into<String>, found: &Value) -> ConfigError {
    let found = match found {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        other => format!("a {}", other.type_str()),
    };
    ConfigError::Invalid { origin, key: key.to_owned(), expected: expected.into(), found }
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    ConfigError::Syntax { path: path.to_owned(), line, problem: error.message().replace('\n', " ") }
}

/// The keys of a file as `section.key`. A key outside of a section, or a table inside of one, is a key as well,
/// so that it is found unknown rather than passed by.
fn keys(table: &Table) -> impl Iterator<Item = (String, &Value)> {
    table.iter().flat_map(|(section, value)| match value.as_table() {
        Some(keys) => keys.iter().map(|(key, value)| (format!("{section}.{key}"), value)).collect(),
        None => vec![(section.clone(), value)],
    })
}
