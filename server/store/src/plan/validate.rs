//! Whether a mutation fits the tenant's schema. A misfit is a reason code in the device's quarantine.

use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::ColumnId;
use farshore_sync_core::mutation::{Cells, Mutation, Op};
use farshore_sync_core::reason::{ReasonCode, Refusal};
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::{Collection, Column, ColumnType, DEFAULT_MAX_VALUE_BYTES, Schema};
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::limits::MAX_SET_ELEMENTS;

/// Longest element of a set, in bytes.
pub const MAX_SET_ELEMENT_BYTES: usize = 1 << 10;

/// The collection of a mutation, once the mutation fits it.
pub(super) fn validate<'a>(
    schema: &'a Schema,
    mutation: &Mutation,
) -> Result<&'a Collection, Refusal> {
    let collection = schema.collection(mutation.collection).ok_or_else(|| {
        let message = format!(
            "the tenant's schema {} has no collection {}",
            schema.version, mutation.collection
        );
        Refusal::new(ReasonCode::UnknownCollection, message)
    })?;
    match &mutation.op {
        Op::Insert { cells } | Op::Update { cells } => check_cells(collection, cells)?,
        Op::Delete | Op::Restore => {}
        Op::Increment { column, .. } => expect(collection, *column, ColumnType::Counter)?,
        Op::SetAdd { column, element } => {
            expect(collection, *column, ColumnType::Set)?;
            check_element(collection, *column, element)?;
        }
        Op::SetRemove { column, element, observed } => {
            expect(collection, *column, ColumnType::Set)?;
            if !observed.is_empty() {
                check_element(collection, *column, element)?;
            }
            if observed.len() > MAX_SET_ELEMENTS {
                return Err(refuse(
                    ReasonCode::TooLarge,
                    collection,
                    *column,
                    "the remove names too many adds",
                ));
            }
        }
        Op::Document { column, .. } => expect(collection, *column, ColumnType::Document)?,
        Op::Offer { state } => check_offer(collection, state)?,
    }
    Ok(collection)
}

fn refuse(code: ReasonCode, collection: &Collection, column: ColumnId, problem: &str) -> Refusal {
    let name =
        collection.column(column).map_or_else(|| column.to_string(), |column| column.name.clone());
    Refusal::new(code, format!("{}.{name}: {problem}", collection.name))
}

fn column(collection: &Collection, id: ColumnId) -> Result<&Column, Refusal> {
    collection.column(id).ok_or_else(|| {
        refuse(ReasonCode::UnknownColumn, collection, id, "the tenant's schema has no such column")
    })
}

fn expect(collection: &Collection, id: ColumnId, column_type: ColumnType) -> Result<(), Refusal> {
    if column(collection, id)?.column_type == column_type {
        Ok(())
    } else {
        let problem = format!("the operation is for a {}", column_type.as_str());
        Err(refuse(ReasonCode::TypeMismatch, collection, id, &problem))
    }
}

fn check_cells(collection: &Collection, cells: &Cells) -> Result<(), Refusal> {
    for (id, value) in cells.as_slice() {
        let column = column(collection, *id)?;
        check_value(collection, column, value)?;
        if let Some(missing) =
            collection.group_members(column).find(|other| cells.get(other.column_id()).is_none())
        {
            let problem = format!("it moves together with {}, which is not written", missing.name);
            return Err(refuse(ReasonCode::IncompleteGroup, collection, *id, &problem));
        }
    }
    Ok(())
}

fn check_value(collection: &Collection, column: &Column, value: &Value) -> Result<(), Refusal> {
    let fail = |code, problem: &str| Err(refuse(code, collection, column.column_id(), problem));
    let fits = match (column.column_type, value) {
        (column_type, Value::Null) => column_type.is_scalar(),
        (column_type, value) => column_type.as_str() == value.type_name(),
    };
    if !fits {
        let problem =
            format!("a {} does not fit a {}", value.type_name(), column.column_type.as_str());
        return fail(ReasonCode::TypeMismatch, &problem);
    }
    let bytes = match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    let most_bytes = column.max_bytes.unwrap_or(DEFAULT_MAX_VALUE_BYTES);
    if bytes > most_bytes {
        return fail(ReasonCode::TooLarge, &format!("{bytes} bytes; the limit is {most_bytes}"));
    }
    let number = match value {
        Value::Int(int) | Value::Timestamp(int) => Some(*int as f64),
        Value::Real(real) => Some(real.get()),
        _ => None,
    };
    let below = number.zip(column.min).is_some_and(|(number, min)| number < min);
    let above = number.zip(column.max).is_some_and(|(number, max)| number > max);
    if below || above {
        let bounds = format!("outside of {} to {}", bound(column.min), bound(column.max));
        return fail(ReasonCode::OutOfRange, &bounds);
    }
    Ok(())
}

fn bound(limit: Option<f64>) -> String {
    limit.map_or_else(|| "any".to_owned(), |limit| limit.to_string())
}

fn check_element(
    collection: &Collection,
    column: ColumnId,
    element: &Value,
) -> Result<(), Refusal> {
    let bytes = match element {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    if bytes > MAX_SET_ELEMENT_BYTES {
        return Err(refuse(
            ReasonCode::TooLarge,
            collection,
            column,
            "the element is too long for a set",
        ));
    }
    Ok(())
}

fn check_offer(collection: &Collection, state: &RowState) -> Result<(), Refusal> {
    for cell in &state.cells {
        check_value(collection, column(collection, cell.column)?, &cell.value)?;
    }
    state.counters.keys().try_for_each(|id| expect(collection, *id, ColumnType::Counter))?;
    state.sets.keys().try_for_each(|id| expect(collection, *id, ColumnType::Set))
}

/// The offered row without what an offer may not say: documents come as changes of their own, and no stamp may
/// lie beyond the latest one that the server would accept.
pub(super) fn trusted_part(state: &RowState, latest: Hlc) -> RowState {
    let mut state = state.clone();
    state.documents.clear();
    for cell in &mut state.cells {
        cell.stamp.hlc = cell.stamp.hlc.min(latest);
    }
    if let Some(life) = &mut state.life {
        life.stamp.hlc = life.stamp.hlc.min(latest);
    }
    for entry in state
        .sets
        .values_mut()
        .flat_map(|entries| entries.values_mut())
        .flat_map(|adds| adds.values_mut())
    {
        entry.hlc = entry.hlc.min(latest);
    }
    state
}
