//! What each row of the table means, and what it is to reach.

use crate::plan::Bench;

/// What a reader has to know of a row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What was measured, against what: one sentence.
    pub meaning: &'static str,
    /// What it is to reach.
    pub reach: &'static str,
}

impl Bench {
    /// What its row means.
    #[expect(clippy::too_many_lines, reason = "it is a table")]
    pub const fn row(self) -> Row {
        let (meaning, reach) = match self {
            Self::LocalWrite => (
                "Rows a second that an app writes through the SDK, 100 in a transaction, against the same rows into SQLCipher by hand.",
                "ratio at least 0.6",
            ),
            Self::InitialSync => (
                "Rows a second from the server into a new encrypted device until a query has counted them, against a bulk insert into SQLCipher by hand.",
                "ratio at least 0.3 and 100,000 rows/s; device at most 200 MiB; server for 20 at once at most 1.3 times one",
            ),
            Self::DurablePush => (
                "Acknowledged rows a second from 16 devices in transactions of 100, against SQLite by hand with the same transactions.",
                "ratio at least 0.6",
            ),
            Self::SingleWrite => (
                "Acknowledged transactions of one row a second from 64 devices of one tenant, each waiting for its answer, against pgbench with 64 clients.",
                "ratio at least 1.0",
            ),
            Self::VisibleLatency => (
                "From when a write is due on one device until a live query on another one shows it, 200 writes a second for two minutes, open loop, with 100 others connected that all receive it; `.1000`: with 1,000 others, in ten sites, of which one receives it.",
                "p50 at most 4 ms, p99 at most 20 ms; no slope: the median of the last quarter as that of the first",
            ),
            Self::Fanout => (
                "From when a write is due until each of 1,000 subscribed devices has it, against nats-server passing the same bytes on.",
                "p99 ratio at most 3",
            ),
            Self::IdleReconnect => (
                "Bytes with which a device that is up to date finds that out, against set reconciliation of the same ids.",
                "1 round trip, at most 250 bytes, less than 1 ms of the server's processor",
            ),
            Self::IdleSocket => (
                "User-space memory of the server for one connected, quiet device: the slope from 1,000 to 8,000 of them.",
                "at most 16 KiB",
            ),
            Self::ReconnectStorm => (
                "Devices a second that are in step again when 8,000 lose and find their network at once, and the server's memory at its highest.",
                "at least 2,000/s, memory at most 1.3 times steady",
            ),
            Self::Behind1000 => (
                "Bytes beyond the values for each of 1,000 rows scattered over 1,000,000 that changed while a device was away, against negentropy naming them.",
                "at most 28 bytes a row, 1 round trip",
            ),
            Self::Repair => (
                "What goes over the wire to find one row that was altered in the device's file, among 1,000,000, and to make both copies the same; `.server`: altered in the server's file, whose copy decides.",
                "2 round trips, at most 64 KiB",
            ),
            Self::WireOverhead => (
                "Bytes of a new row beyond its values, in frames before compression; `.compressed`: messages beyond the values, both compressed; `.up`: from the device.",
                "at most 32 bytes a row",
            ),
            Self::ClockStorage => (
                "Bytes that a device stores for each row besides its 19 values, for clocks and digests, against what cr-sqlite was measured to add.",
                "at most 48 bytes a row",
            ),
            Self::NoisyNeighbour => (
                "How long 99 of 100 writes of a tenant take while another tenant wants more than ten times the 1 MB a second that the server is told to give it (`sync.tenant_bytes_per_second`), against the same writes alone on a server that is at rest before; `unlimited`: where that one takes all that there is.",
                "ratio at most 1.3",
            ),
            Self::HotTenants => (
                "Acknowledged transactions of one row a second from 1,000 devices in as many tenants, against as many devices in one tenant; fsyncs counted by the kernel.",
                "ratio at least 0.9; at most 0.05 fsyncs a row",
            ),
            Self::SmallDocuments => (
                "What 10,000 documents of 8 fields take after 20 edits each, on the server and on the device, and what each of those edits sends, `.lone_edit`: one that is sent by itself, `.idle_memory`: between half of the documents and all; beside automerge, yrs and loro alone, in memory.",
                "reported; an edit at most 80 bytes; idle 0",
            ),
            Self::TextTraces => (
                "Seconds to type a recorded paper through the SDK, sync it and read it on another device, against the same changes with automerge alone.",
                "ratio at most 1.3",
            ),
            Self::DurableStreams => (
                "Durable appends of 256 bytes a second from 50 writers that each wait for the answer, against the crate durable-streams in `wal` mode; `.by_hand`: against a server that only puts what comes over the same sockets into a table of SQLCipher, durably; `.by_hand_journalled`: into a journal in SQLCipher first.",
                "ratio at least 0.8",
            ),
            Self::PgDurablePush => (
                "Acknowledged rows a second from 16 devices in transactions of 100 with the tenants in Postgres, against UNNEST inserts of the same rows through the same driver, over one connection; `.concurrent`: over 16.",
                "ratio at least 0.5",
            ),
            Self::PgTenants => (
                "Acknowledged rows a second from 1,000 devices in as many tenants of one Postgres, in transactions of 100 that each wait for the answer, against as many devices in one tenant; `.single`: transactions of one row.",
                "ratio at least 0.9",
            ),
            Self::PgFanout => (
                "Acknowledged rows a second from 16 devices of one tenant over two nodes with a bus, against one node without, all on one machine.",
                "ratio at least 0.8",
            ),
            Self::TenantCreate => (
                "Milliseconds to create a tenant in each store, against the same tables made by hand.",
                "ratio at most 3",
            ),
            Self::TenantMove => (
                "Rows a second of a tenant that moves from SQLite to Postgres, copied and read back; `.back`: from Postgres to SQLite; `.backup`: into an archive; `.frozen`: how long a quiet tenant takes no writes in a move.",
                "reported",
            ),
            Self::Growth => (
                "How the cost of one operation grows with 10 and 100 times as many rows, sockets, subscribers or tenants: the slope on logarithmic scales, 0 where it stays the same.",
                "at most 0.1",
            ),
        };
        Row { meaning, reach }
    }
}
