//! Where the replica stands: the one row of `fs_state`.

use farshore_sync_core::digest::DigestKey;
use farshore_sync_core::hlc::{Clock, Hlc};
use farshore_sync_core::ids::DeviceId;
use farshore_sync_core::wire::Refill;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::error::Failure;

/// What the store remembers of itself and of the server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Progress {
    pub device: DeviceId,
    /// The last stamp that was given out or seen.
    pub clock: Clock,
    /// The latest stamp that the server's rows showed.
    pub seen: Hlc,
    /// The number of the next local transaction.
    pub next_number: u64,
    /// The transaction up to which all answers are recorded.
    pub settled: u64,
    /// The highest transaction that was answered, or of which the server said that it had decided on it.
    pub answered_through: u64,
    /// The server's epoch; 0 before the first contact.
    pub epoch: u64,
    /// The seq of the last checkpoint; 0 before the first, and while a refill is under way.
    pub cursor: u64,
    /// Whether a checkpoint was ever reached.
    pub filled: bool,
    /// Whether the copy is being filled anew.
    pub refill: Refill,
    /// How many pages are staged.
    pub staged: u64,
    /// Transactions without an answer.
    pub unanswered: u64,
    /// Transactions in the outbox.
    pub unconfirmed: u64,
    /// Transactions in the quarantine.
    pub quarantined: u64,
    /// Stamps that the server corrected.
    pub corrections: u64,
    /// By how much it moved the last of them.
    pub last_correction_ms: i64,
    /// How often a change of a document was given up; see [`super::documents::actor`].
    pub actor_generation: u64,
    /// When old graves were last looked for, by the server's clock.
    pub swept_ms: u64,
    /// What the server's clock showed when it last welcomed this device, in milliseconds since 1970; 0 before that.
    pub server_ms: u64,
    /// The tenant's digest key, once the server has told it.
    pub digest_key: Option<DigestKey>,
}

const COLUMNS: &str = "device, clock, seen, next_number, settled, answered_through, epoch, cursor, filled, refill, staged, \
     unanswered, unconfirmed, quarantined, corrections, last_correction_ms, actor_generation, swept_ms, server_ms, \
     digest_key";

impl Progress {
    /// Where a new store stands.
    pub(super) const fn new(device: DeviceId) -> Self {
        Self {
            device,
            clock: Clock::resume(Hlc::ZERO),
            seen: Hlc::ZERO,
            next_number: 1,
            settled: 0,
            answered_through: 0,
            epoch: 0,
            cursor: 0,
            filled: false,
            refill: Refill::No,
            staged: 0,
            unanswered: 0,
            unconfirmed: 0,
            quarantined: 0,
            corrections: 0,
            last_correction_ms: 0,
            actor_generation: 0,
            swept_ms: 0,
            server_ms: 0,
            digest_key: None,
        }
    }

    /// Whether pages become visible as they come: nothing was ever whole.
    pub(super) fn fills_progressively(&self) -> bool {
        !self.filled && self.refill == Refill::No
    }

    /// The key of the digests. Before the server has told it nothing is compared, so that any key will do.
    pub(super) fn digest_key(&self) -> DigestKey {
        self.digest_key.clone().unwrap_or(DigestKey([0; 32]))
    }

    pub(super) fn load(connection: &Connection) -> Result<Self, Failure> {
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM fs_state WHERE one = 1"))?;
        let progress = statement.query_row([], |row| Ok(read(row)));
        progress.optional()?.ok_or_else(|| Failure::damaged("fs_state is empty"))?
    }

    pub(super) fn save(&self, connection: &Connection) -> Result<(), Failure> {
        let mut statement = connection.prepare_cached(&format!(
            "INSERT OR REPLACE INTO fs_state (one, {COLUMNS}) \
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)"
        ))?;
        statement.execute(params![
            self.device.as_bytes(),
            to_sql(self.clock.last().0),
            to_sql(self.seen.0),
            to_sql(self.next_number),
            to_sql(self.settled),
            to_sql(self.answered_through),
            to_sql(self.epoch),
            to_sql(self.cursor),
            self.filled,
            match self.refill {
                Refill::No => 0,
                Refill::BelowHorizon => 1,
                Refill::NewEpoch => 2,
            },
            to_sql(self.staged),
            to_sql(self.unanswered),
            to_sql(self.unconfirmed),
            to_sql(self.quarantined),
            to_sql(self.corrections),
            self.last_correction_ms,
            to_sql(self.actor_generation),
            to_sql(self.swept_ms),
            to_sql(self.server_ms),
            self.digest_key.as_ref().map(|key| key.0),
        ])?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> Result<Progress, Failure> {
    let number = |at: usize| row.get(at).map(from_sql);
    let refill = match row.get(9)? {
        0 => Refill::No,
        1 => Refill::BelowHorizon,
        2 => Refill::NewEpoch,
        other => return Err(Failure::damaged(format!("fs_state: refill {other}"))),
    };
    let key: Option<[u8; 32]> = row.get(19)?;
    Ok(Progress {
        device: DeviceId::from_bytes(row.get(0)?),
        clock: Clock::resume(Hlc(number(1)?)),
        seen: Hlc(number(2)?),
        next_number: number(3)?,
        settled: number(4)?,
        answered_through: number(5)?,
        epoch: number(6)?,
        cursor: number(7)?,
        filled: row.get(8)?,
        refill,
        staged: number(10)?,
        unanswered: number(11)?,
        unconfirmed: number(12)?,
        quarantined: number(13)?,
        corrections: number(14)?,
        last_correction_ms: row.get(15)?,
        actor_generation: number(16)?,
        swept_ms: number(17)?,
        server_ms: number(18)?,
        digest_key: key.map(DigestKey),
    })
}

/// SQLite's integers are signed: an unsigned one keeps its bits.
pub(super) const fn to_sql(value: u64) -> i64 {
    value.cast_signed()
}

/// The integer that [`to_sql`] wrote.
pub(super) const fn from_sql(value: i64) -> u64 {
    value.cast_unsigned()
}
