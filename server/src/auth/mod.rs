//! Who is calling, proven: tokens in, principals out.
//!
//! A principal has no public constructor, and a tenant's scope comes from a principal or from a workflow alone,
//! so whoever holds one went through here.
//!
//! - [`principal`]: a device of a tenant, or an operator of the platform.
//! - [`authenticator`]: from a token to a principal, and again while a connection lasts.
//! - [`claims`]: what tokens say.
//! - [`key_id`]: names of keys, bound to their owner, their algorithm and the key itself.
//! - [`signing_key`]: private halves: made, sealed, opened, used.
//! - [`verifying_key`]: public halves, and the checks that come with a signature.
//! - [`operator_key`]: the key of the platform's operators, a sealed file.
//! - [`error`]: why a token was refused.

pub mod authenticator;
pub mod claims;
pub mod error;
pub mod key_id;
pub mod operator_key;
pub mod principal;
pub mod signing_key;
pub mod verifying_key;

pub use authenticator::Authenticator;
pub use error::{AuthError, KeyError};
pub use principal::{DevicePrincipal, OperatorPrincipal};

#[cfg(test)]
mod tests;
