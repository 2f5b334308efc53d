//! What a copy must show once everything has arrived.

use super::{
    ADDED_DEFAULT, BTreeMap, BTreeSet, Cell, ColumnValue, Deed, Fate, History, Role, RowKey, Shape,
    TEXT_FIELD, Value, View, Violation,
};

/// Judges what a copy with every right shows against what apps did, without the rows that had to be set aside.
#[must_use]
pub fn judge(shape: &Shape, history: &History, view: &View) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut view = view.clone();
    view.retain(|row, _| !history.set_aside.contains(row));
    let (history, view) = (&history.without_set_aside(), &view);
    rows(history, view, &mut found);
    scalars(history, view, &mut found);
    counters(history, view, &mut found);
    sets(history, view, &mut found);
    texts(history, view, &mut found);
    batches(shape, view, &mut found);
    found
}

/// Rows that were made and never deleted are there; refused ones, and deleted ones that nobody brought back, are not.
fn rows(history: &History, view: &View, found: &mut Vec<Violation>) {
    let mut inserted: BTreeMap<&RowKey, Fate> = BTreeMap::new();
    let (mut deleted, mut restored) = (BTreeMap::new(), BTreeSet::new());
    for (deed, fate) in history.effective() {
        match deed {
            Deed::Insert { row, .. } => {
                let best = inserted.entry(row).or_insert(fate);
                *best = (*best).min(fate);
            }
            Deed::Delete { row } => {
                let best = deleted.entry(row).or_insert(fate);
                *best = (*best).min(fate);
            }
            Deed::Restore { row } => {
                restored.insert(row);
            }
            _ => {}
        }
    }
    for (row, fate) in &inserted {
        let certain = *fate == Fate::Accepted && !deleted.contains_key(row);
        if certain && !view.contains_key(*row) {
            found.push(Violation::LostWrite(format!(
                "the row {row:?} was inserted and is not there"
            )));
        }
    }
    for (row, fate) in deleted {
        if fate == Fate::Accepted && !restored.contains(row) && view.contains_key(row) {
            found.push(Violation::CameBack(format!("the row {row:?} was deleted and is there")));
        }
    }
    for row in view.keys().filter(|row| !inserted.contains_key(row)) {
        found.push(Violation::CameBack(format!("nobody's accepted transaction inserted {row:?}")));
    }
}

/// A value, what it was written over, and what became of the transaction.
type Written<'a> = (&'a Value, Option<&'a Value>, Fate);

/// A scalar is what some accepted write made it, and not what another accepted write replaced having seen it.
fn scalars(history: &History, view: &View, found: &mut Vec<Violation>) {
    let mut written: BTreeMap<&Cell, Vec<Written<'_>>> = BTreeMap::new();
    for (deed, fate) in history.effective() {
        if let Deed::Write { cell, value, over } = deed {
            written.entry(cell).or_default().push((value, over.as_ref(), fate));
        }
    }
    let anew = written_anew(history);
    for (row, columns) in view {
        for (column, shown) in columns {
            let ColumnValue::Scalar(shown) = shown else { continue };
            let cell = (row.clone(), column.clone());
            let writes = written.get(&cell).map_or(&[][..], Vec::as_slice);
            let certain = writes.iter().any(|(_, _, fate)| *fate == Fate::Accepted);
            let count = writes.iter().filter(|(value, ..)| *value == shown).count();
            if count == 0 {
                let blank = matches!(shown, Value::Null | Value::Int(ADDED_DEFAULT));
                if certain && blank {
                    found.push(Violation::LostWrite(format!(
                        "{cell:?} was written and is {shown:?}"
                    )));
                } else if !blank {
                    found.push(Violation::CameBack(format!(
                        "nobody's accepted write made {cell:?} {shown:?}"
                    )));
                }
                continue;
            }
            // A value that several writes gave says nothing about their order.
            let unique = count == 1 && !matches!(shown, Value::Null | Value::Bool(_));
            let unique = unique && !anew.contains(&(&cell, shown));
            let replaced = writes.iter().find(|(value, over, fate)| {
                let counts = *fate == Fate::Accepted && !anew.contains(&(&cell, *value));
                counts && *over == Some(shown) && *value != shown
            });
            if let (true, Some((value, ..))) = (unique, replaced) {
                let what = format!(
                    "{cell:?} is {shown:?} although that was seen and replaced by {value:?}"
                );
                found.push(Violation::CameBack(what));
            }
        }
    }
}

/// Values and elements that may have come back, or may be gone for what they replaced; see [`History::written_anew`].
fn written_anew(history: &History) -> BTreeSet<(&Cell, &Value)> {
    let values = history.written_anew().filter_map(|deed| match deed {
        Deed::Write { cell, value, .. } => Some((cell, value)),
        Deed::SetAdd { cell, element } => Some((cell, element)),
        _ => None,
    });
    values.collect()
}

fn counters(history: &History, view: &View, found: &mut Vec<Violation>) {
    let mut sums: BTreeMap<&Cell, (i64, i64)> = BTreeMap::new();
    for (deed, fate) in history.effective() {
        if let Deed::Add { cell, delta } = deed {
            let (least, most) = sums.entry(cell).or_default();
            let certain = fate == Fate::Accepted;
            *least += if certain { *delta } else { (*delta).min(0) };
            *most += if certain { *delta } else { (*delta).max(0) };
        }
    }
    for (row, columns) in view {
        for (column, shown) in columns {
            let ColumnValue::Counter(shown) = shown else { continue };
            let cell = (row.clone(), column.clone());
            let (least, mut most) = sums.get(&cell).copied().unwrap_or_default();
            if history.restored {
                // What was counted and not answered before a restore counts again where others offered it first.
                most = i64::MAX;
            }
            if !(least..=most).contains(shown) {
                let what = format!("{cell:?} is {shown}, and {least} to {most} were added");
                found.push(Violation::NotOnce(what));
            }
        }
    }
}

fn sets(history: &History, view: &View, found: &mut Vec<Violation>) {
    let (mut added, mut removed) = (BTreeMap::new(), BTreeMap::new());
    for (deed, fate) in history.effective() {
        let (into, cell, element) = match deed {
            Deed::SetAdd { cell, element } => (&mut added, cell, element),
            Deed::SetRemove { cell, element } => (&mut removed, cell, element),
            _ => continue,
        };
        let best = into.entry((cell, element)).or_insert(fate);
        *best = (*best).min(fate);
    }
    let anew = written_anew(history);
    for ((cell, element), fate) in &added {
        let Some(ColumnValue::Set(shown)) = view.get(&cell.0).and_then(|row| row.get(&cell.1))
        else {
            continue;
        };
        let (there, gone) = (shown.contains(element), removed.get(&(*cell, *element)));
        if !there && *fate == Fate::Accepted && gone.is_none() {
            found.push(Violation::LostWrite(format!(
                "{element:?} was added to {cell:?} and is not there"
            )));
        }
        if there && gone == Some(&Fate::Accepted) && !anew.contains(&(*cell, *element)) {
            found.push(Violation::CameBack(format!(
                "{element:?} was removed from {cell:?} and is there"
            )));
        }
    }
    for (row, columns) in view {
        for (column, shown) in columns {
            let ColumnValue::Set(shown) = shown else { continue };
            let cell = (row.clone(), column.clone());
            for element in shown.iter().filter(|element| !added.contains_key(&(&cell, *element))) {
                let what = format!("nobody's accepted transaction added {element:?} to {cell:?}");
                found.push(Violation::CameBack(what));
            }
        }
    }
}

/// Each word that was typed stands in its text once.
fn texts(history: &History, view: &View, found: &mut Vec<Violation>) {
    let text = |cell: &Cell| match view.get(&cell.0)?.get(&cell.1)? {
        ColumnValue::Document(json) => json.get(TEXT_FIELD)?.as_str(),
        _ => None,
    };
    let deleted = history.effective().filter_map(|(deed, _)| match deed {
        Deed::Delete { row } => Some(row),
        _ => None,
    });
    let deleted: BTreeSet<&RowKey> = deleted.filter(|_| history.restored).collect();
    let mut typed: BTreeMap<(&Cell, &str), Fate> = BTreeMap::new();
    for (deed, fate) in history.effective() {
        if let Deed::Type { cell, word } = deed
            && !deleted.contains(&cell.0)
        {
            let best = typed.entry((cell, word)).or_insert(fate);
            *best = (*best).min(fate);
        }
    }
    for ((cell, word), fate) in &typed {
        let Some(text) = text(cell) else {
            if view.contains_key(&cell.0) {
                found.push(Violation::LostWrite(format!("{cell:?} shows no text")));
            }
            continue;
        };
        match (text.matches(word).count(), fate) {
            (1, _) | (0, Fate::Doubtful) => {}
            (0, _) => {
                found.push(Violation::LostWrite(format!(
                    "{word} was typed into {cell:?} and is not there"
                )));
            }
            (times, _) => {
                found.push(Violation::NotOnce(format!("{word} stands {times} times in {cell:?}")));
            }
        }
    }
    for deed in history.refused() {
        if let Deed::Type { cell, word } = deed
            && !typed.contains_key(&(cell, word.as_str()))
            && text(cell).is_some_and(|text| text.contains(word.as_str()))
        {
            found.push(Violation::CameBack(format!("{word} was refused and stands in {cell:?}")));
        }
    }
}

/// Rows that were inserted by one transaction are all there, or none is.
pub(super) fn batches(shape: &Shape, view: &View, found: &mut Vec<Violation>) {
    let mut seen: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for collection in shape.collections.iter().filter(|known| known.role == Role::Batches) {
        for (_, columns) in view.iter().filter(|(row, _)| row.0 == collection.name) {
            let int = |name: &str| match columns.get(name) {
                Some(ColumnValue::Scalar(Value::Int(int))) => *int,
                _ => -1,
            };
            let entry = seen.entry(int("batch")).or_insert((0, int("size")));
            entry.0 += 1;
        }
    }
    for (batch, (there, size)) in seen {
        if there != size {
            found.push(Violation::Torn(format!(
                "{there} of the {size} rows of transaction {batch}"
            )));
        }
    }
}
