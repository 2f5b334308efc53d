//! Syncing: what carries a replica's frames to a server and back.
//!
//! The thinking is done by the state machine of sync-core; here are the task that drives it and what it needs.
//!
//! | file | subject |
//! |---|---|
//! | `driver` | the task: events to the machine, effects from it |
//! | `connection` | one socket, read and written independently |
//! | `outgoing` | the bounded queue of frames to write |
//! | `refusal` | what it means that a socket could not be opened |
//! | `address`, `tls` | where the server is and whom to trust |
//! | `token`, `claims` | access tokens, where they come from and what they say |
//! | `tokens` | which token is in use, refused or due |
//! | `owner` | whose replica it is |
//! | `wish` | what the app wants of the driver |
//! | `board` | what the driver shows |

mod address;
mod board;
mod claims;
mod connection;
mod driver;
mod outgoing;
mod owner;
mod refusal;
mod tls;
mod token;
mod tokens;
mod wish;

#[cfg(test)]
mod tests;

pub use address::{InvalidAddress, MAX_SERVER_URL_BYTES, ServerAddress};
pub(crate) use board::{Board, Shown};
#[cfg(test)]
pub(crate) use claims::tests::forged_token;
pub use claims::{Claims, ClaimsError};
pub(crate) use connection::Route;
pub use connection::{
    CONNECT_TIMEOUT_MS, MAX_INCOMING_FRAMES, READ_BUFFER_BYTES, Socket, SocketFuture, Transport,
};
pub use driver::StoreCalls;
pub(crate) use driver::{DriverHandle, DriverParts, ReplicaStore};
pub use outgoing::{CLOSE_TIMEOUT_MS, MAX_OUTGOING_FRAMES, OUTGOING_TARGET_BYTES};
pub use owner::{Owner, OwnerError};
pub use refusal::{DEFAULT_RETRY_AFTER_MS, MAX_RETRY_AFTER_S};
pub(crate) use tls::trust_only;
pub use tls::{MAX_ROOT_PEM_BYTES, RootError};
pub(crate) use token::Token;
pub use token::{TOKEN_TIMEOUT_MS, TokenError, TokenFuture, TokenReason, TokenSource};
pub use tokens::RENEW_BEFORE_EXPIRY_MS;
