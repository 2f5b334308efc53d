//! The one place that reads environment variables.

/// The variable that holds the master key, 64 hexadecimal digits.
pub const MASTER_KEY_VARIABLE: &str = "FARSHORE_MASTER_KEY";

/// The variables of the process whose names and values are text.
#[must_use]
pub fn variables() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The value of one variable.
#[must_use]
pub fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    variables.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.as_str())
}
