//! Every cap of the protocol, in one place. Both sides refuse what is beyond them with a typed error.

/// Longest WebSocket message, in bytes, as sent.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Longest frame after decompression, in bytes.
pub const MAX_FRAME_BYTES: usize = 8 << 20;
/// Largest transaction, in bytes.
pub const MAX_TRANSACTION_BYTES: usize = 2 << 20;
/// Most mutations of a transaction.
pub const MAX_MUTATIONS_PER_TRANSACTION: usize = 10_000;
/// Most transactions of one push.
pub const MAX_TRANSACTIONS_PER_PUSH: usize = 4_096;
/// Bytes of transactions after which a push is sent; a single larger transaction still goes alone.
pub const PUSH_TARGET_BYTES: usize = 256 << 10;
/// Most transactions that a device has sent and not had answered.
pub const MAX_TRANSACTIONS_IN_FLIGHT: usize = 8_192;
/// Largest row, in bytes of its canonical encoding.
pub const MAX_ROW_BYTES: usize = 1 << 20;
/// Most cells, counters, sets or documents of a row.
pub const MAX_CELLS: usize = 512;
/// Most elements that a set remembers, removed ones included.
pub const MAX_SET_ELEMENTS: usize = 4_096;
/// Bytes of rows and document changes after which a page is sent.
pub const PAGE_TARGET_BYTES: usize = 512 << 10;
/// Most rows of a page.
pub const MAX_ROWS_PER_PAGE: usize = 4_096;
/// Most scopes of one device.
pub const MAX_SCOPES_PER_DEVICE: usize = 1_000;
/// Most totals that a comparison names.
pub const MAX_TOTALS: usize = 20_000;
/// Most bucket listings in one repair request.
pub const MAX_BUCKETS_PER_REPAIR: usize = 512;
/// Most row hashes in one repair request.
pub const MAX_HASHES_PER_REPAIR: usize = 400_000;
/// Longest access token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;
/// Longest sentence in an error or a refusal, in bytes.
pub const MAX_SENTENCE_BYTES: usize = 1_024;
/// Silence after which a side sends a ping, in milliseconds.
pub const HEARTBEAT_MS: u64 = 15_000;
/// Silence after which a side takes the connection for dead, in milliseconds.
pub const SILENCE_LIMIT_MS: u64 = 40_000;
