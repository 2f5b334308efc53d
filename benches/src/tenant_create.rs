//! `tenant_create`: milliseconds to create a tenant in each store, durably, against the same tables made by hand: an
//! encrypted file, and a schema in one transaction through the same driver.

use std::time::{Duration, Instant};

use farshore_store::catalog::Catalog;
use farshore_store::scope::ScopeAuthority;
use farshore_store::sealing::MasterKey;
use farshore_store_postgres::{PostgresCatalog, PostgresConfig};
use farshore_store_sqlite::{SqliteCatalog, SqliteConfig};

use crate::device;
use crate::driver::Driver;
use crate::flights;
use crate::legs::in_turns;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::postgres::Postgres;
use crate::report::Figure;
use crate::sqlite::Raw;

/// Tenants of one run, whose mean is its reading.
const TENANTS: usize = 20;
const QUICK_TENANTS: usize = 5;
const SQLITE_TABLES: &str = include_str!("../../server/store-sqlite/src/migrations/1.sql");
const POSTGRES_TABLES: &str = include_str!("../../server/store-postgres/src/migrations/1.sql");
const UNIT: &str = "ms";

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let tenants = if plan.quick { QUICK_TENANTS } else { TENANTS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let master = || MasterKey::from_slice(&[7; 32]).ok_or("a master key has 32 bytes");
    let per_tenant = |took: Duration| took.as_secs_f64() * 1_000.0 / tenants as f64;
    let mut number = 0;
    let mut create = |catalog: &dyn Catalog, authority: &ScopeAuthority| {
        let first = number;
        number += tenants;
        runtime.block_on(async {
            let started = Instant::now();
            for number in first..number {
                let scope = authority.scope(format!("tenant-{number}").parse()?);
                catalog.create(&scope, device::now_ms()).await?;
            }
            Ok(per_tenant(started.elapsed()))
        })
    };

    let (files, by_hand) = (plan.fresh_dir()?, plan.fresh_dir()?);
    let (sqlite, authority) = SqliteCatalog::open(SqliteConfig::new(files.path()), master()?)?;
    let like = flights::read(1)?;
    let mut number_by_hand = 0;
    let [ours, raw] = in_turns(
        "tenant_create on SQLite",
        plan.pairs,
        [
            ("store", &mut || create(&sqlite, &authority)),
            ("by hand", &mut || {
                let started = Instant::now();
                for _ in 0..tenants {
                    number_by_hand += 1;
                    let path = by_hand.path().join(format!("{number_by_hand}.db"));
                    Raw::create_tables(&path, &like[0], SQLITE_TABLES)?;
                }
                Ok(per_tenant(started.elapsed()))
            }),
        ],
    )?;
    let reference = "an encrypted file with the same tables, by hand";
    let mut figures = vec![Figure::of_legs("tenant_create", UNIT, &ours, reference, &raw)];

    let cluster = plan.open_dir()?;
    let postgres = Postgres::start(&cluster)?;
    let config = PostgresConfig::new(postgres.fresh_database("ours")?.parse()?);
    let (catalog, authority) = runtime.block_on(PostgresCatalog::open(config, &master()?))?;
    let driver = Driver::new(&postgres.fresh_database("by_hand")?)?;
    let [ours, raw] = in_turns(
        "tenant_create on Postgres",
        plan.pairs,
        [
            ("store", &mut || create(&catalog, &authority)),
            ("by hand", &mut || {
                let mut took = Duration::ZERO;
                for _ in 0..tenants {
                    number_by_hand += 1;
                    let schema = format!("by_hand_{number_by_hand}");
                    let tables = POSTGRES_TABLES.replace("main.", &format!("{schema}."));
                    took += driver.run(&format!("CREATE SCHEMA {schema};\n{tables}"))?;
                }
                Ok(per_tenant(took))
            }),
        ],
    )?;
    let reference = "a schema with the same tables, by hand";
    figures.push(Figure::of_legs("tenant_create.postgres", UNIT, &ours, reference, &raw));
    Ok(figures)
}
