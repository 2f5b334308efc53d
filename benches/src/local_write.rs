//! `local_write`: rows a second that an app writes through the SDK, 100 in a transaction, against the same rows
//! written into SQLCipher by hand.

use std::time::Instant;

use crate::device;
use crate::flights::{self, COLLECTION, Flight};
use crate::legs::in_turns;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::sqlite::{Encryption, Raw};

const ROWS_PER_TRANSACTION: usize = 100;
/// Enough for the tree to grow beyond the page cache.
const ROWS: usize = 100_000;
const QUICK_ROWS: usize = 20_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows = if plan.quick { QUICK_ROWS } else { ROWS };
    let flights = flights::read(rows)?;
    let ids = flights::ids(rows, device::now_ms())?;
    let mut ours = || through_the_sdk(plan, &flights);
    let mut by_hand = || {
        let dir = plan.fresh_dir()?;
        let mut raw = Raw::create(&dir.path().join("raw.db"), Encryption::On, &flights[0])?;
        raw.insert(&ids, &flights, ROWS_PER_TRANSACTION)
    };
    let [ours, theirs] = in_turns(
        "local_write",
        plan.pairs,
        [("the SDK", &mut ours), ("SQLCipher by hand", &mut by_hand)],
    )?;
    let reference = "SQLCipher by hand, same columns and transactions";
    Ok(vec![Figure::of_rates("local_write", &ours, reference, &theirs)])
}

fn through_the_sdk(plan: &Plan, flights: &[Flight]) -> Outcome<f64> {
    let dir = plan.fresh_dir()?;
    let client = device::offline(dir.path())?;
    let started = Instant::now();
    for batch in flights.chunks(ROWS_PER_TRANSACTION) {
        client.write(|transaction| {
            for flight in batch {
                transaction.insert(COLLECTION, None, flight)?;
            }
            Ok(())
        })?;
    }
    let took = started.elapsed();
    let found = device::integer(&client, "SELECT count(*) FROM flights")?;
    ensure(usize::try_from(found) == Ok(flights.len()), || format!("{found} rows were written"))?;
    client.close()?;
    Ok(flights.len() as f64 / took.as_secs_f64())
}
