//! `query`: one SELECT.

use farshore_client::Client;
use farshore_client::store::{QueryRows, SqlValue};
use serde_json::Value as Json;

use crate::failure::Failure;
use crate::json::{self, UuidColumns};
use crate::output::Output;

pub(super) fn run(
    client: &Client,
    sql: &str,
    args: &[String],
    output: Output,
) -> Result<(), Failure> {
    let result = client.query(sql, &parameters(args)?)?;
    say(&result, &UuidColumns::of(&client.schema()), output);
    Ok(())
}

/// Parameters from the command line: JSON, or else text.
pub(super) fn parameters(args: &[String]) -> Result<Vec<SqlValue>, Failure> {
    let parsed =
        |arg: &String| serde_json::from_str(arg).unwrap_or_else(|_| Json::String(arg.clone()));
    json::parameters(&args.iter().map(parsed).collect::<Vec<_>>())
}

/// The rows as an array of objects, or as lines with tabs under the names of the columns.
pub(super) fn say(result: &QueryRows, uuids: &UuidColumns, output: Output) {
    let rows = json::rows(result, uuids);
    output.say(&rows, || {
        let mut lines = vec![result.columns.join("\t")];
        for row in rows.as_array().into_iter().flatten() {
            let cells: Vec<String> =
                result.columns.iter().map(|column| cell(&row[column])).collect();
            lines.push(cells.join("\t"));
        }
        lines.join("\n")
    });
}

fn cell(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        // A tab or a line break in a text must not look like the next cell.
        Json::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    }
}
