//! `clock_storage`: what a device stores for each row of 19 columns besides its values: clocks, digests and what else
//! syncing needs, against the 428 bytes a row that cr-sqlite was measured to add to a table of 7 columns.
//!
//! Counted twice: the columns that hold clock and digest, and the pages of the whole database against those of
//! SQLCipher by hand with the same rows.

use crate::device;
use crate::flights::{self, SCHEMA};
use crate::load;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;
use crate::sqlite::{self, Encryption, Raw};

const NAME: &str = "clock_storage";
const TENANT: &str = "clocks";
const ROWS: usize = 100_000;
const QUICK_ROWS: usize = 20_000;
/// 20,000 rows of 7 columns in `@vlcn.io/crsqlite-wasm`: 103 bytes a row as a plain table, 428 more as a replicated one.
const CR_SQLITE_BYTES: f64 = 428.0;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows = if plan.quick { QUICK_ROWS } else { ROWS };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    let (ids, flights) = (flights::ids(rows, device::now_ms())?, flights::read(rows)?);
    load::seed(&server, TENANT, &ids, &flights)?;

    let dir = plan.fresh_dir()?;
    let client = device::of_tenant(dir.path(), &server.url(), &server.token(TENANT, "tenant:rw")?)?;
    let report = client.sync_once(device::PATIENCE)?;
    ensure(report.complete, || format!("the device did not fill: {:?}", report.cause))?;
    client.close()?;
    let file = device::behind_the_sdk(dir.path())?;
    let select = "SELECT count(*), sum(length(fs_meta) + ifnull(length(fs_sum), 0) + ifnull(length(fs_pending), 0))
                  FROM fs_rows_flights";
    let (found, bytes): (i64, i64) =
        file.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    ensure(usize::try_from(found) == Ok(rows), || format!("{found} rows arrived"))?;
    let stored = sqlite::used_bytes(&file)?;

    let raw_dir = plan.fresh_dir()?;
    let mut raw = Raw::create(&raw_dir.path().join("raw.db"), Encryption::On, &flights[0])?;
    raw.insert(&ids, &flights, rows)?;
    let plain = raw.used_bytes()?;
    let each = |bytes: i64| bytes as f64 / rows as f64;
    let note = format!(
        "{NAME}: {rows} rows: the database {:.1} bytes a row, SQLCipher by hand {:.1}",
        each(stored),
        each(plain)
    );
    let reference = "cr-sqlite as published: 7 columns, not encrypted";
    Ok(vec![
        Figure::against(
            NAME,
            bytes as f64 / rows as f64,
            "bytes a row",
            reference,
            CR_SQLITE_BYTES,
        )
        .noted(note),
        Figure::against(
            "clock_storage.database",
            each(stored) - each(plain),
            "bytes a row beyond the rows by hand",
            reference,
            CR_SQLITE_BYTES,
        ),
    ])
}
