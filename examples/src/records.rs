//! The rows of the data files, typed by the schema.
//!
//! The files are part of the program, so that it runs from any folder.

use std::io::Read;

use farshore_sync_core::schema::{Collection, ColumnType, Schema};
use farshore_sync_core::value::Value;
use flate2::read::GzDecoder;

use crate::SCHEMA;
use crate::outcome::{Outcome, ensure};

const AIRLINES: &[u8] = include_bytes!("../data/airlines.csv");
const AIRPORTS: &[u8] = include_bytes!("../data/airports.csv");
const PLANES: &[u8] = include_bytes!("../data/planes.csv");
const FLIGHTS: &[u8] = include_bytes!("../data/flights-2013-01.csv.gz");

/// How the files write a missing value.
const MISSING: &str = "NA";

/// The rows of one collection.
#[derive(Debug, Clone)]
pub struct Records {
    /// The collection's name.
    pub collection: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Records {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Each row as the SDK takes it: the names of columns with their values.
    pub fn rows(&self) -> impl Iterator<Item = Vec<(&str, Value)>> {
        self.rows
            .iter()
            .map(|row| self.columns.iter().map(String::as_str).zip(row.iter().cloned()).collect())
    }

    /// Divides the rows into those of which an integer column holds for something, and the others.
    ///
    /// # Panics
    /// Where there is no such column of integers.
    #[must_use]
    pub fn divided(self, column: &str, belongs: impl Fn(i64) -> bool) -> (Self, Self) {
        let at = self.columns.iter().position(|name| name == column).expect("a column of the file");
        let (yes, no) = self.rows.into_iter().partition(|row| match row[at] {
            Value::Int(int) => belongs(int),
            _ => panic!("{column} is not a column of integers"),
        });
        let part = |rows| Self { rows, columns: self.columns.clone(), ..self };
        (part(yes), part(no))
    }
}

/// 16 airlines.
///
/// # Errors
/// None, unless the file was altered; so for the others.
pub fn airlines() -> Outcome<Records> {
    read("airlines", AIRLINES)
}

/// 1,458 airports.
///
/// # Errors
/// As for [`airlines`].
pub fn airports() -> Outcome<Records> {
    read("airports", AIRPORTS)
}

/// 3,322 planes.
///
/// # Errors
/// As for [`airlines`].
pub fn planes() -> Outcome<Records> {
    read("planes", PLANES)
}

/// The 27,004 flights of January 2013.
///
/// # Errors
/// As for [`airlines`].
pub fn flights() -> Outcome<Records> {
    read("flights", GzDecoder::new(FLIGHTS))
}

fn read(name: &'static str, file: impl Read) -> Outcome<Records> {
    let schema = Schema::parse(SCHEMA)?;
    let collection = schema.collection_named(name).ok_or("no such collection")?;
    let mut reader = csv::Reader::from_reader(file);
    let columns: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let types = types_of(collection, &columns)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let cells = record.iter().zip(&types).map(|(text, column_type)| value(text, *column_type));
        rows.push(cells.collect::<Outcome<_>>()?);
    }
    ensure(!rows.is_empty(), || format!("{name} is empty"))?;
    Ok(Records { collection: name, columns, rows })
}

fn types_of(collection: &Collection, columns: &[String]) -> Outcome<Vec<ColumnType>> {
    let of = |name: &String| match collection.column_named(name) {
        Some(column) => Ok(column.column_type),
        None => Err(format!("{} has no column {name}", collection.name).into()),
    };
    columns.iter().map(of).collect()
}

fn value(text: &str, column_type: ColumnType) -> Outcome<Value> {
    Ok(match column_type {
        _ if text == MISSING => Value::Null,
        ColumnType::Int => Value::Int(text.parse()?),
        ColumnType::Real => Value::from(text.parse::<f64>()?),
        ColumnType::Timestamp => Value::Timestamp(microseconds(text)?),
        _ => Value::from(text),
    })
}

/// Reads `2013-01-01T10:00:00Z`, the one form that the files have.
fn microseconds(text: &str) -> Outcome<i64> {
    let part = |range: std::ops::Range<usize>| -> Outcome<i64> {
        Ok(text.get(range).ok_or_else(|| format!("{text:?} is no time"))?.parse()?)
    };
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let seconds = part(11..13)? * 3_600 + part(14..16)? * 60 + part(17..19)?;
    Ok((days_since_1970(year, month, day) * 86_400 + seconds) * 1_000_000)
}

/// Counts from 1 March, so that the leap day is the last of its year.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 306 + 5) / 10 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_have_as_many_rows_as_they_say() {
        let files = [airlines(), airports(), planes(), flights()];
        let lengths = files.map(|file| file.unwrap().len());
        assert_eq!(lengths, [16, 1_458, 3_322, 27_004]);
    }

    #[test]
    fn values_have_the_types_of_the_schema() {
        let flights = flights().unwrap();
        let first = flights.rows().next().unwrap();
        let of = |name| first.iter().find(|(column, _)| *column == name).unwrap().1.clone();
        assert_eq!(of("carrier"), Value::from("UA"));
        assert_eq!(of("dep_time"), Value::Int(517));
        assert_eq!(of("time_hour"), Value::Timestamp(1_357_034_400_000_000));
        let missing = flights.rows().flatten().filter(|(_, value)| *value == Value::Null).count();
        assert!(missing > 0);
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        for (date, days) in [((1970, 1, 1), 0), ((2000, 2, 29), 11_016), ((2013, 1, 1), 15_706)] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days);
        }
    }

    #[test]
    fn rows_are_divided_by_a_column() {
        let (first, others) = flights().unwrap().divided("day", |day| day == 1);
        assert_eq!((first.len(), others.len()), (842, 26_162));
    }
}
