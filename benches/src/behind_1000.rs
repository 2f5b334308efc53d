//! `behind_1000`: a device comes back after 1,000 rows scattered over a large copy have changed: what the server
//! sends beyond the rows' values, against set reconciliation that only names them.
//!
//! A row that changed comes whole, as its latest state. The device is a socket that says where it stands; what the
//! SDK does with the rows is not measured here.

use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::connection::{self, Connection, Standing};
use crate::device;
use crate::flights::{self, SCHEMA};
use crate::load::{self, Load, ROWS_PER_TRANSACTION, Shape, Target};
use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;
use crate::set_reconciliation;
use crate::wire_bytes::Account;

const NAME: &str = "behind_1000";
const TENANT: &str = "behind";
const GRANT: &str = "tenant:rw";
const ROWS: usize = 1_000_000;
const QUICK_ROWS: usize = 27_000;
const CHANGED: usize = 1_000;
/// The column that is changed, and to what.
const COLUMN: &str = "dep_delay";
const DELAY: i64 = 777;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows = if plan.quick { QUICK_ROWS } else { ROWS };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    let schema = Schema::parse(SCHEMA)?;
    let ids = flights::ids(rows, device::now_ms())?;
    load::seed(&server, TENANT, &ids, &flights::read(rows.min(plan.rows()))?)?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (url, token) = (connection::socket_url(&server), server.token(TENANT, GRANT)?);
    let hello = connection::hello(&schema, GRANT, Standing::default())?;
    let (_, welcome) = runtime.block_on(Connection::open(&url, &token, &hello))?;
    let standing = Standing { epoch: welcome.epoch, cursor: welcome.head };

    let every = rows / CHANGED;
    let changed: Vec<_> = ids.iter().copied().step_by(every).take(CHANGED).collect();
    let updates =
        load::updates(&schema, ROWS_PER_TRANSACTION, &changed, COLUMN, &Value::Int(DELAY))?;
    let target = Target { server: &server, tenant: TENANT, schema: &schema, grant: GRANT };
    Load::of_transactions(target, Shape::BULK, &updates, CHANGED)?.push()?;

    let hello = connection::hello(&schema, GRANT, standing)?;
    let (account, round_trips) = runtime.block_on(async {
        let (mut connection, _) = Connection::open(&url, &token, &hello).await?;
        let mut account =
            Account { messages: hello.len(), frames: hello.len(), ..Account::default() };
        for message in connection.until_in_step().await? {
            account.add_server_message(&message)?;
        }
        Ok::<_, Failure>((account, connection.said()))
    })?;
    account.holds(CHANGED)?;
    let named = set_reconciliation::of_versions(&ids, every)?;
    let reference = format!(
        "negentropy, which names {CHANGED} of {rows} ids in {} round trips",
        named.round_trips
    );
    let note = format!(
        "{NAME}: {CHANGED} of {rows} rows: values {:.1} bytes a row as CBOR, frames {:.1}, messages {:.1}",
        account.value_bytes(),
        account.value_bytes() + account.overhead(),
        account.sent()
    );
    Ok(vec![
        Figure::against(
            NAME,
            account.overhead(),
            "bytes a row",
            &reference,
            named.bytes as f64 / CHANGED as f64,
        )
        .noted(note),
        Figure::alone("behind_1000.compressed", account.compressed_overhead(), "bytes a row"),
        Figure::against(
            "behind_1000.round_trips",
            round_trips as f64,
            "round trips",
            "negentropy",
            named.round_trips as f64,
        ),
    ])
}
