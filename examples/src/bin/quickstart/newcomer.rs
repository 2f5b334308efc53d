//! A third device joins and pulls everything.

use std::path::Path;
use std::time::Instant;

use farshore_examples::device::Device;
use farshore_examples::outcome::{Outcome, ensure_equal};
use farshore_examples::telling::Telling;

use crate::cast::{Cast, holds_what};
use crate::import::{AIRLINES, AIRPORTS, FLIGHTS, PLANES};
use crate::together;

/// The flight that stayed deleted.
const DELETED: usize = 1;

pub fn join(home: &Path, cast: &Cast, telling: &Telling) -> Outcome<Device> {
    let carla = Device::set_up(home, "carla", &cast.server)?;
    let started = Instant::now();
    carla.client.connect()?;
    holds_what(&cast.server, &carla)?;
    let took = started.elapsed();
    let mut rows = 0;
    for (collection, expected) in [
        ("airlines", AIRLINES),
        ("airports", AIRPORTS),
        ("planes", PLANES),
        ("flights", FLIGHTS - DELETED),
        ("stock", 1),
        ("notes", 1),
    ] {
        let found = carla.count(collection)?;
        ensure_equal(&format!("{collection} on carla"), &i64::try_from(expected)?, &found)?;
        rows += found;
    }
    ensure_equal("the text on carla", &together::text(&cast.alice)?, &together::text(&carla)?)?;
    let rate = rows as f64 / took.as_secs_f64();
    telling.line(format!(
        "carla has {rows} rows and the document after {:.1} s: {rate:.0} rows a second",
        took.as_secs_f64()
    ));
    Ok(carla)
}
