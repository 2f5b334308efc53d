//! What operators see of a running server.
//!
//! - [`log`]: structured lines on stderr, without secrets.
//! - [`metrics`]: counters for Prometheus, without tenants.

pub mod log;
pub mod metrics;
