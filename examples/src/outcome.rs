//! How a story ends early: with one line that says what differs, or what did not work.

use std::error::Error;
use std::fmt::Debug;

/// What went wrong. Programs need no more of it than its line.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What a step of a story gives.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Goes on only where two things are equal.
///
/// # Errors
/// Says what differs.
pub fn ensure_equal<T: PartialEq + Debug>(what: &str, expected: &T, found: &T) -> Outcome {
    if expected == found {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, found {found:?}").into())
}

/// Goes on only where something holds.
///
/// # Errors
/// Says what does not hold.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what().into()) }
}
