//! `put` and `get`: one row.

use std::io::{Read as _, stdin};

use farshore_client::Client;
use serde_json::{Value as Json, json};

use super::pretty;
use crate::failure::{BAD_REQUEST, Failure};
use crate::json;
use crate::output::Output;
use crate::repl::MAX_LINE_BYTES;

pub(super) fn put(
    client: &Client,
    collection: &str,
    columns: &str,
    id: Option<String>,
    output: Output,
) -> Result<(), Failure> {
    let mut object = object(columns)?;
    if let Some(id) = id {
        object.insert("id".to_owned(), Json::String(id));
    }
    let schema = client.schema();
    let input = json::row_input(json::collection(&schema, collection)?, &object)?;
    let row =
        client.write(|transaction| transaction.put(collection, input.id, &input.columns()))?;
    output.say(&json!({"id": row.to_string()}), || row.to_string());
    Ok(())
}

pub(super) fn get(
    client: &Client,
    collection: &str,
    row: &str,
    output: Output,
) -> Result<(), Failure> {
    let id = json::row_id(&json!(row))?;
    let missing = || Failure::new("row_missing", format!("{collection}: there is no row {id}"));
    let found = json::row(&client.row(collection, id)?.ok_or_else(missing)?);
    output.say(&found, || pretty(&found));
    Ok(())
}

/// A JSON object from the command line, or from stdin.
fn object(argument: &str) -> Result<serde_json::Map<String, Json>, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        Failure::new(BAD_REQUEST, format!("the columns are no JSON object: {error}"))
    };
    let mut text = String::new();
    let argument = match argument {
        "-" => {
            stdin().take(MAX_LINE_BYTES).read_to_string(&mut text).map_err(|error| bad(&error))?;
            &text
        }
        argument => argument,
    };
    serde_json::from_str(argument).map_err(|error| bad(&error))
}
