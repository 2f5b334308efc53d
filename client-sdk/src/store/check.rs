//! Whether what the app writes fits its schema: the server would refuse it with the same code, only later.

use farshore_sync_core::ids::ColumnId;
use farshore_sync_core::mutation::Cells;
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::{Column, ColumnType, DEFAULT_MAX_VALUE_BYTES};
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::limits::{MAX_ROW_BYTES, MAX_SET_ELEMENTS};

use super::WriteError;
use super::layout::{CollectionLayout, ColumnLayout};
use super::typed::fits;

/// Longest element of a set, in bytes; the server's limit.
pub const MAX_SET_ELEMENT_BYTES: usize = 1 << 10;

/// The cells of a write by names, without those that its groups still lack.
pub(super) fn cells<'v>(
    layout: &'v CollectionLayout,
    values: &'v [(&str, Value)],
) -> Result<Vec<(ColumnId, &'v Value)>, WriteError> {
    let mut cells = Vec::with_capacity(values.len());
    let mut next = 0;
    for (name, value) in values {
        // Most apps name columns in the order of the schema.
        let at = if layout.is_named(next, name) { next } else { place_of(layout, name)? };
        next = at + 1;
        let column = &layout.columns[at];
        check_value(layout, &column.column, value)?;
        cells.push((column.id, value));
    }
    Ok(cells)
}

/// Completes the column groups (a group moves as one, so that columns left out keep their values) and sorts: of two
/// cells for one column the later one stays.
pub(super) fn complete<'v>(
    layout: &'v CollectionLayout,
    mut cells: Vec<(ColumnId, &'v Value)>,
    row: Option<&'v RowState>,
) -> Vec<(ColumnId, &'v Value)> {
    for at in 0..cells.len() {
        let group = layout.column(cells[at].0).map_or(&[][..], |at| &layout.columns[at].group);
        for member in group.iter().map(|at| &layout.columns[*at]) {
            if !cells.iter().any(|(column, _)| *column == member.id) {
                let kept = row.and_then(|row| row.value(member.id)).unwrap_or(&member.default);
                cells.push((member.id, kept));
            }
        }
    }
    if !cells.is_sorted_by(|(before, _), (after, _)| before < after) {
        cells.reverse();
        cells.sort_by_key(|(column, _)| *column);
        cells.dedup_by_key(|(column, _)| *column);
    }
    cells
}

/// Cells that a mutation holds on to.
pub(super) fn owned(cells: &[(ColumnId, &Value)]) -> Cells {
    Cells::new(cells.iter().map(|(column, value)| (*column, (*value).clone())).collect())
}

/// A column that the app may name.
pub(super) fn named<'l>(
    layout: &'l CollectionLayout,
    name: &str,
) -> Result<&'l ColumnLayout, WriteError> {
    Ok(&layout.columns[place_of(layout, name)?])
}

fn place_of(layout: &CollectionLayout, name: &str) -> Result<usize, WriteError> {
    layout.named(name).ok_or_else(|| WriteError::UnknownColumn {
        collection: layout.name().to_owned(),
        column: name.to_owned(),
    })
}

/// A column that the app may name, of one type.
pub(super) fn named_of<'l>(
    layout: &'l CollectionLayout,
    name: &str,
    column_type: ColumnType,
) -> Result<&'l ColumnLayout, WriteError> {
    let column = named(layout, name)?;
    if column.column.column_type == column_type {
        Ok(column)
    } else {
        let problem = format!(
            "the operation is for a {}, not for a {}",
            column_type.as_str(),
            column.column.column_type.as_str()
        );
        Err(invalid(layout, &column.column, ReasonCode::TypeMismatch, problem))
    }
}

pub(super) fn check_element(
    layout: &CollectionLayout,
    column: &Column,
    element: &Value,
) -> Result<(), WriteError> {
    let bytes = value_bytes(element);
    if bytes > MAX_SET_ELEMENT_BYTES {
        let problem = format!("an element of {bytes} bytes; the limit is {MAX_SET_ELEMENT_BYTES}");
        return Err(invalid(layout, column, ReasonCode::TooLarge, problem));
    }
    Ok(())
}

/// Whether the row that a write makes is one that the server takes.
pub(super) fn check_row(layout: &CollectionLayout, state: &RowState) -> Result<(), WriteError> {
    if let Some((column, _)) =
        state.sets.iter().find(|(_, elements)| elements.len() > MAX_SET_ELEMENTS)
        && let Some(at) = layout.column(*column)
    {
        let problem = format!("the set would remember more than {MAX_SET_ELEMENTS} elements");
        return Err(invalid(layout, &layout.columns[at].column, ReasonCode::TooLarge, problem));
    }
    if approximate_bytes(state) > MAX_ROW_BYTES {
        let bytes = state.encode().len();
        if bytes > MAX_ROW_BYTES {
            return Err(WriteError::TooLarge {
                what: "bytes of the row",
                found: bytes,
                limit: MAX_ROW_BYTES,
            });
        }
    }
    Ok(())
}

/// The columns of the row's scope do not make one.
pub(super) fn no_scope(layout: &CollectionLayout) -> WriteError {
    let column = layout.collection.scope.columns().next().unwrap_or_default().to_owned();
    let problem =
        format!("the row would be in no scope: {} needs a value", layout.collection.scope);
    WriteError::Invalid {
        collection: layout.name().to_owned(),
        column,
        code: ReasonCode::NoScope,
        problem,
    }
}

fn check_value(
    layout: &CollectionLayout,
    column: &Column,
    value: &Value,
) -> Result<(), WriteError> {
    if !fits(column.column_type, value) {
        let problem =
            format!("a {} does not fit a {}", value.type_name(), column.column_type.as_str());
        return Err(invalid(layout, column, ReasonCode::TypeMismatch, problem));
    }
    let (bytes, most) = (value_bytes(value), column.max_bytes.unwrap_or(DEFAULT_MAX_VALUE_BYTES));
    if bytes > most {
        let problem = format!("{bytes} bytes; the limit is {most}");
        return Err(invalid(layout, column, ReasonCode::TooLarge, problem));
    }
    let number = match value {
        Value::Int(int) | Value::Timestamp(int) => Some(*int as f64),
        Value::Real(real) => Some(real.get()),
        _ => None,
    };
    let outside = number.is_some_and(|number| {
        column.min.is_some_and(|min| number < min) || column.max.is_some_and(|max| number > max)
    });
    if outside {
        let bound =
            |limit: Option<f64>| limit.map_or_else(|| "any".to_owned(), |limit| limit.to_string());
        let problem = format!("outside of {} to {}", bound(column.min), bound(column.max));
        return Err(invalid(layout, column, ReasonCode::OutOfRange, problem));
    }
    Ok(())
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// An upper bound of the row's encoding that costs no encoding: most rows are far below the limit.
fn approximate_bytes(state: &RowState) -> usize {
    let cells: usize = state.cells.iter().map(|cell| 64 + value_bytes(&cell.value)).sum();
    let counters: usize = state.counters.values().map(|totals| 64 * totals.len()).sum();
    let elements = state.sets.values().flatten();
    let sets: usize =
        elements.map(|(element, adds)| 64 + value_bytes(element) + 64 * adds.len()).sum();
    256 + cells + counters + sets + 64 * state.documents.len()
}

fn invalid(
    layout: &CollectionLayout,
    column: &Column,
    code: ReasonCode,
    problem: String,
) -> WriteError {
    WriteError::Invalid {
        collection: layout.name().to_owned(),
        column: column.name.clone(),
        code,
        problem,
    }
}
