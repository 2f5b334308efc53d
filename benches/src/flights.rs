//! The data: the departures from New York's airports in 2013, with 19 columns.

use farshore_sync_core::ids::RowId;
use farshore_sync_core::schema::{ColumnType, Schema};
use farshore_sync_core::value::Value;
use flate2::read::GzDecoder;

use crate::outcome::{Outcome, ensure};

const FILE: &[u8] = include_bytes!("../data/flights.csv.gz");
/// How the file writes a missing value.
const MISSING: &str = "NA";
/// Columns of a flight.
pub const COLUMNS: usize = 19;
/// The collection's name.
pub const COLLECTION: &str = "flights";
/// The schema of the examples, in which all flights are in one scope.
pub const SCHEMA: &str = include_str!("../../examples/schemas/flights.json");
/// A schema in which each site's flights are in a scope of their own.
pub const SCHEMA_BY_SITE: &str = include_str!("../schemas/flights-by-site.json");

/// One flight as the SDK takes it.
pub type Flight = Vec<(&'static str, Value)>;

/// The names of the columns, in the order of the file and of the schemas.
pub const NAMES: [&str; COLUMNS] = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
];

/// The first so many flights of the year.
pub fn read(rows: usize) -> Outcome<Vec<Flight>> {
    let types = types()?;
    let mut reader = csv::Reader::from_reader(GzDecoder::new(FILE));
    ensure(reader.headers()? == NAMES.as_slice(), || "the file's columns are others".into())?;
    let flights = reader.records().take(rows).map(|record| {
        let record = record?;
        let cells = NAMES.into_iter().zip(record.iter().zip(types));
        cells.map(|(name, (text, column_type))| Ok((name, value(text, column_type)?))).collect()
    });
    let flights: Vec<Flight> = flights.collect::<Outcome<_>>()?;
    ensure(flights.len() == rows, || format!("the file has {} flights only", flights.len()))?;
    Ok(flights)
}

/// So many ids as a device makes them, in order.
pub fn ids(count: usize, now_ms: u64) -> Outcome<Vec<RowId>> {
    // A hundred of them share a millisecond, as on a device that imports.
    let id = |number: usize| {
        let mut entropy = [0; 10];
        getrandom::fill(&mut entropy[2..])?;
        // The first twelve bits count; the four above them give way to the version.
        entropy[..2].copy_from_slice(&((number % 100) as u16).to_be_bytes());
        Ok(RowId::from_parts(now_ms + (number / 100) as u64, &entropy))
    };
    (0..count).map(id).collect()
}

/// The ids of some devices' rows, device by device, as they make them when they write at the same time, each so many at
/// once: what the devices write in one moment lies together.
pub fn ids_of_devices(
    devices: usize,
    rows_per_device: usize,
    at_once: usize,
    now_ms: u64,
) -> Outcome<Vec<RowId>> {
    ensure(rows_per_device.is_multiple_of(at_once), || "a transaction is not whole".into())?;
    let made = ids(devices * rows_per_device, now_ms)?;
    let of_device = |device: usize| {
        let made = &made;
        (0..rows_per_device).map(move |row| {
            let (moment, within) = (row / at_once, row % at_once);
            made[(moment * devices + device) * at_once + within]
        })
    };
    Ok((0..devices).flat_map(of_device).collect())
}

fn types() -> Outcome<[ColumnType; COLUMNS]> {
    let schema = Schema::parse(SCHEMA)?;
    let flights = schema.collection_named(COLLECTION).ok_or("no flights")?;
    let of = |name| flights.column_named(name).map(|column| column.column_type);
    let types: Option<Vec<_>> = NAMES.into_iter().map(of).collect();
    Ok(types.and_then(|types| types.try_into().ok()).ok_or("the schema's columns are others")?)
}

fn value(text: &str, column_type: ColumnType) -> Outcome<Value> {
    Ok(match column_type {
        _ if text == MISSING => Value::Null,
        ColumnType::Int => Value::Int(text.parse()?),
        ColumnType::Timestamp => Value::Timestamp(microseconds(text)?),
        _ => Value::from(text),
    })
}

/// Reads `2013-01-01T10:00:00Z`, the one form that the file has: all of it is in 2013.
fn microseconds(text: &str) -> Outcome<i64> {
    const DAYS_BEFORE_2013: i64 = 15_706;
    const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let part = |range: std::ops::Range<usize>| -> Outcome<i64> {
        Ok(text.get(range).ok_or_else(|| format!("{text:?} is no time"))?.parse()?)
    };
    let (year, month) = (part(0..4)?, part(5..7)?);
    // The last evening of the year is in 2014 in UTC.
    let before_year = DAYS_BEFORE_2013 + (year - 2013) * 365;
    let days = before_year + DAYS_BEFORE_MONTH[usize::try_from(month - 1)?] + part(8..10)? - 1;
    let seconds = part(11..13)? * 3_600 + part(14..16)? * 60 + part(17..19)?;
    Ok((days * 86_400 + seconds) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flights_have_the_types_of_the_schema() {
        let flights = read(27_004).unwrap();
        assert_eq!(flights.len(), 27_004);
        assert_eq!(flights[0][3], ("dep_time", Value::Int(517)));
        assert_eq!(flights[0][18], ("time_hour", Value::Timestamp(1_357_034_400_000_000)));
        assert!(read(336_777).is_err());
    }

    #[test]
    fn devices_that_write_together_have_ids_between_each_other() {
        let ids = ids_of_devices(3, 4, 2, 1_700_000_000_000).unwrap();
        let mut by_moment: Vec<&RowId> = Vec::new();
        for moment in 0..2 {
            by_moment.extend((0..3).flat_map(|device| &ids[device * 4 + moment * 2..][..2]));
        }
        assert!(by_moment.is_sorted(), "first everybody's first transaction, then the second");
        assert!(ids_of_devices(3, 5, 2, 0).is_err());
    }

    #[test]
    fn ids_rise() {
        let ids = ids(1_000, 1_700_000_000_000).unwrap();
        assert!(ids.is_sorted());
    }

    #[test]
    fn both_schemas_are_well_formed() {
        Schema::parse(SCHEMA).unwrap();
        Schema::parse(SCHEMA_BY_SITE).unwrap();
    }
}
