//! How a bench fails: with one line.

use std::error::Error;

/// What went wrong.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What a step of a bench gives.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Goes on only where something holds.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what().into()) }
}
