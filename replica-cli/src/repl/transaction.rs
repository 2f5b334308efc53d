//! The steps of a `txn`: arrays such as `["inc","stock",ROW,"count",3]`, all in one transaction.

use farshore_client::Client;
use farshore_client::ids::RowId;
use farshore_client::schema::Schema;
use farshore_client::store::{WriteError, WriteTransaction};
use farshore_client::value::Value;
use serde_json::{Map, Value as Json};

use crate::failure::{BAD_REQUEST, Failure};
use crate::json::{self, RowInput};

/// The field of a document that `text` edits where none is named.
const DEFAULT_FIELD: &str = "text";

/// One step, with everything that can be wrong about it found before the transaction begins.
#[derive(Debug, PartialEq)]
enum Step {
    Put { collection: String, input: RowInput },
    Increment { collection: String, row: RowId, column: String, delta: i64 },
    Delete { collection: String, row: RowId },
    Restore { collection: String, row: RowId },
    Get { collection: String, row: RowId },
    Add { collection: String, row: RowId, column: String, element: Value },
    Remove { collection: String, row: RowId, column: String, element: Value },
    Text { collection: String, row: RowId, column: String, edit: TextEdit },
}

#[derive(Debug, PartialEq)]
struct TextEdit {
    position: usize,
    deleted: usize,
    inserted: String,
    field: String,
}

/// Does the steps in one transaction; the results stand in their order.
pub(super) fn run(client: &Client, steps: &[Json]) -> Result<Vec<Json>, Failure> {
    let schema = client.schema();
    let numbered = (0..).zip(steps);
    let steps = numbered.map(|(index, json)| {
        Step::read(&schema, json).map_err(|failure| Failure {
            message: format!("step {index}: {}", failure.message),
            ..failure
        })
    });
    let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
    let results = client.write(|transaction| {
        steps.iter().map(|step| step.run(transaction)).collect::<Result<_, _>>()
    })?;
    Ok(results)
}

impl Step {
    fn read(schema: &Schema, json: &Json) -> Result<Self, Failure> {
        let parts = Parts::of(json)?;
        let collection = parts.text(1, "the collection")?;
        let row = || parts.row(2);
        let column = || parts.text(3, "the column");
        Ok(match parts.text(0, "what to do")?.as_str() {
            "put" => {
                let input =
                    json::row_input(json::collection(schema, &collection)?, parts.object(2)?)?;
                Self::Put { collection, input }
            }
            "inc" => Self::Increment {
                row: row()?,
                column: column()?,
                delta: parts.int(4, "the difference")?,
                collection,
            },
            "del" => Self::Delete { row: row()?, collection },
            "restore" => Self::Restore { row: row()?, collection },
            "get" => Self::Get { row: row()?, collection },
            "add" => {
                Self::Add { row: row()?, column: column()?, element: parts.element(4)?, collection }
            }
            "remove" => Self::Remove {
                row: row()?,
                column: column()?,
                element: parts.element(4)?,
                collection,
            },
            "text" => {
                let edit = TextEdit {
                    position: parts.count(4, "the position")?,
                    deleted: parts.count(5, "how much to delete")?,
                    inserted: parts.text(6, "what to insert")?,
                    field: if parts.has(7) {
                        parts.text(7, "the field")?
                    } else {
                        DEFAULT_FIELD.to_owned()
                    },
                };
                Self::Text { row: row()?, column: column()?, edit, collection }
            }
            other => {
                let known = "put, inc, del, restore, get, add, remove, text";
                return Err(Failure::new(BAD_REQUEST, format!("{other:?} is none of {known}")));
            }
        })
    }

    /// The row's id for `put`, the row for `get`, else null.
    fn run(&self, transaction: &mut WriteTransaction<'_>) -> Result<Json, WriteError> {
        match self {
            Self::Put { collection, input } => {
                let row = transaction.put(collection, input.id, &input.columns())?;
                return Ok(Json::String(row.to_string()));
            }
            Self::Get { collection, row } => {
                let found = transaction.get(collection, *row)?;
                return Ok(found.as_ref().map_or(Json::Null, json::row));
            }
            Self::Increment { collection, row, column, delta } => {
                transaction.increment(collection, *row, column, *delta)?;
            }
            Self::Delete { collection, row } => transaction.delete(collection, *row)?,
            Self::Restore { collection, row } => transaction.restore(collection, *row)?,
            Self::Add { collection, row, column, element } => {
                transaction.set_add(collection, *row, column, element.clone())?;
            }
            Self::Remove { collection, row, column, element } => {
                transaction.set_remove(collection, *row, column, element.clone())?;
            }
            Self::Text { collection, row, column, edit } => {
                let TextEdit { position, deleted, inserted, field } = edit;
                transaction
                    .edit_text(collection, *row, column, field, *position, *deleted, inserted)?;
            }
        }
        Ok(Json::Null)
    }
}

/// The parts of a step.
struct Parts<'a>(&'a [Json]);

impl<'a> Parts<'a> {
    fn of(json: &'a Json) -> Result<Self, Failure> {
        let parts =
            json.as_array().ok_or_else(|| Failure::new(BAD_REQUEST, "a step is an array"))?;
        Ok(Self(parts))
    }

    fn has(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|part| !part.is_null())
    }

    fn part<T>(
        &self,
        index: usize,
        what: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<T, Failure> {
        self.0.get(index).and_then(read).ok_or_else(|| {
            Failure::new(
                BAD_REQUEST,
                format!("{what} is missing or of the wrong kind at position {index}"),
            )
        })
    }

    fn text(&self, index: usize, what: &str) -> Result<String, Failure> {
        self.part(index, what, |json| json.as_str().map(str::to_owned))
    }

    fn int(&self, index: usize, what: &str) -> Result<i64, Failure> {
        self.part(index, what, Json::as_i64)
    }

    fn count(&self, index: usize, what: &str) -> Result<usize, Failure> {
        self.part(index, what, |json| json.as_u64().and_then(|count| usize::try_from(count).ok()))
    }

    fn object(&self, index: usize) -> Result<&'a Map<String, Json>, Failure> {
        self.part(index, "the object of columns", Json::as_object)
    }

    fn row(&self, index: usize) -> Result<RowId, Failure> {
        json::row_id(self.part(index, "the row", Some)?)
    }

    fn element(&self, index: usize) -> Result<Value, Failure> {
        json::element(self.part(index, "the element", Some)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROW: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn read(step: &Json) -> Result<Step, Failure> {
        let schema = r#"{"name":"s","version":1,"collections":[{"name":"stock","scope":"tenant","columns":[
            {"name":"name","type":"text"},{"name":"count","type":"counter"}]}]}"#;
        Step::read(&Schema::parse(schema).unwrap(), step)
    }

    #[test]
    fn steps_are_read_as_the_documentation_writes_them() {
        let (collection, row) = ("stock".to_owned(), ROW.parse().unwrap());
        let put = read(&json!(["put", "stock", {"id": ROW, "name": "bolts"}])).unwrap();
        assert!(matches!(&put, Step::Put { input, .. } if input.id == Some(row)), "{put:?}");
        assert_eq!(
            read(&json!(["inc", "stock", ROW, "count", -3])).unwrap(),
            Step::Increment {
                collection: collection.clone(),
                row,
                column: "count".into(),
                delta: -3
            }
        );
        let text = |edit: TextEdit| Step::Text {
            collection: "notes".into(),
            row,
            column: "body".into(),
            edit,
        };
        let edit = |field: &str| TextEdit {
            position: 4,
            deleted: 1,
            inserted: "x".into(),
            field: field.into(),
        };
        assert_eq!(
            read(&json!(["text", "notes", ROW, "body", 4, 1, "x"])).unwrap(),
            text(edit("text"))
        );
        assert_eq!(
            read(&json!(["text", "notes", ROW, "body", 4, 1, "x", "title"])).unwrap(),
            text(edit("title"))
        );
    }

    #[test]
    fn a_step_that_makes_no_sense_says_what_is_missing() {
        for (step, expected) in [
            (json!("put"), "array"),
            (json!([]), "the collection"),
            (json!(["put", "stock"]), "object of columns"),
            (json!(["put", "nothing", {}]), "no collection"),
            (json!(["put", "stock", {"color": 1}]), "color"),
            (json!(["put", "stock", {"count": 1}]), "inc"),
            (json!(["inc", "stock", ROW, "count"]), "the difference"),
            (json!(["inc", "stock", "7", "count", 1]), "row id"),
            (json!(["text", "notes", ROW, "body", -1, 0, ""]), "the position"),
            (json!(["drop", "stock", ROW]), "none of put"),
        ] {
            let failure = read(&step).unwrap_err();
            assert!(failure.message.contains(expected), "{failure}");
        }
    }
}
