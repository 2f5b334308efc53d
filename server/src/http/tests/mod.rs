//! The surface as callers meet it.
//!
//! - [`access`]: who may call what.
//! - [`resources`]: what operators do.
//! - [`problems`]: what is answered to mistakes.
//! - [`socket`]: how a device gets in.
//! - [`limits`]: callers that are slow, endless or unlucky.
//! - [`secrets`]: what metrics and log do not tell.

mod access;
mod limits;
mod problems;
mod resources;
mod secrets;
mod socket;
