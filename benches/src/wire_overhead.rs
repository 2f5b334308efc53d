//! `wire_overhead`: bytes of a new row with 19 columns beyond its values, to a device that is in step, before and
//! after compression, in transactions of 100 rows and of one. What a device sends is counted as well.

use farshore_sync_core::schema::Schema;

use crate::connection::{self, Connection, Standing};
use crate::device;
use crate::flights::{self, SCHEMA};
use crate::load::{Load, Shape, Target};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;
use crate::wire_bytes::Account;

const NAME: &str = "wire_overhead";
const GRANT: &str = "tenant:rw";
const ROWS: usize = 2_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let bulk = measure(&server, "wire-bulk", Shape::BULK)?;
    let single = measure(&server, "wire-single", Shape::ONE_BY_ONE)?;
    let mut figures = Vec::new();
    let said = [("", "100 rows a transaction", bulk), (".single", "one row a transaction", single)];
    for (suffix, what, [up, down]) in said {
        for (direction, account) in [("", down), (".up", up)] {
            let name = format!("{NAME}{suffix}{direction}");
            let note = format!(
                "{name}: {what}: values {:.1} bytes a row as CBOR, frames {:.1}, messages {:.1}",
                account.value_bytes(),
                account.value_bytes() + account.overhead(),
                account.sent()
            );
            figures.push(Figure::alone(&name, account.overhead(), "bytes a row").noted(note));
            let compressed = format!("{name}.compressed");
            let overhead = account.compressed_overhead();
            figures.push(Figure::alone(&compressed, overhead, "bytes a row"));
        }
    }
    Ok(figures)
}

/// What one device sent, and what another one received of it.
fn measure(server: &Server, tenant: &str, shape: Shape) -> Outcome<[Account; 2]> {
    server.create_tenant(tenant, SCHEMA)?;
    let schema = Schema::parse(SCHEMA)?;
    let (ids, flights) = (flights::ids(ROWS, device::now_ms())?, flights::read(ROWS)?);
    let target = Target { server, tenant, schema: &schema, grant: GRANT };
    let load = Load::prepare(target, shape, &ids, &flights)?;
    let mut up = Account::default();
    for message in load.messages() {
        up.add_device_message(message)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (url, token) = (connection::socket_url(server), server.token(tenant, GRANT)?);
    let hello = connection::hello(&schema, GRANT, Standing::default())?;
    let receiving = runtime.block_on(async {
        let (mut connection, _) = Connection::open(&url, &token, &hello).await?;
        connection.until_in_step().await?;
        Ok::<_, crate::outcome::Failure>(tokio::spawn(async move {
            let mut down = Account::default();
            while down.rows < ROWS {
                down.add_server_message(&connection.next_message().await?)?;
            }
            Ok::<_, crate::outcome::Failure>(down)
        }))
    })?;
    load.push()?;
    let down = runtime.block_on(receiving)??;
    up.holds(ROWS)?;
    down.holds(ROWS)?;
    Ok([up, down])
}
