//! What every decoder and parser must survive: any bytes at all are an error or a value that reads back the same.
//!
//! - [`targets`]: one function for each decoder; a panic is a finding.
//! - [`seeds`]: what a run begins with: the golden frames, the crashers of automerge, samples of our own, and what was
//!   found before (`fuzz/corpus`).
//! - [`mutate`]: bytes that are nearly those of a seed.
//!
//! `fuzz/` builds the same targets for libFuzzer; the loop here needs nothing but a compiler, so tests run it too.

pub mod mutate;
pub mod seeds;
pub mod targets;
