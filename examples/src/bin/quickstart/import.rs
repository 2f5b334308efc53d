//! Both devices are offline and import the rest of the month, each another part of it.

use farshore_examples::device::Device;
use farshore_examples::outcome::Outcome;
use farshore_examples::records::{self, Records};
use farshore_examples::telling::Telling;

use crate::cast::Cast;

/// Alice imports the flights of the days until this one, Bruno those after it.
const LAST_DAY_OF_ALICE: i64 = 16;

/// How many rows of each collection there are in the end, but for the flights that were deleted.
pub const AIRLINES: usize = 16;
pub const AIRPORTS: usize = 1_458;
pub const PLANES: usize = 3_322;
pub const FLIGHTS: usize = 27_004;

pub fn both(cast: &Cast, telling: &Telling) -> Outcome {
    let (_, later) = records::flights()?.divided("day", |day| day == 1);
    let (until, after) = later.divided("day", |day| day <= LAST_DAY_OF_ALICE);
    let parts_of_alice = [records::airlines()?, records::airports()?, until];
    let parts_of_bruno = [records::planes()?, after];
    import(&cast.alice, &parts_of_alice, telling)?;
    import(&cast.bruno, &parts_of_bruno, telling)
}

fn import(device: &Device, parts: &[Records], telling: &Telling) -> Outcome {
    let rows: usize = parts.iter().map(Records::len).sum();
    let progress = telling.progress(&format!("{} imports", device.name), rows);
    for records in parts {
        device.import(records, &progress)?;
    }
    let took = progress.finish();
    let names: Vec<_> =
        parts.iter().map(|part| format!("{} {}", part.len(), part.collection)).collect();
    let rate = rows as f64 / took.as_secs_f64();
    telling.line(format!("{} wrote {}: {rate:.0} rows a second", device.name, names.join(", ")));
    Ok(())
}
