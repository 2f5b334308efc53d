//! Two people who type into one document at the same time, as it once happened.
//!
//! The recording has one entry for each keystroke, with the entries that its author had seen: its parents. Entries
//! that one author typed in a row, and that nobody else refers to, make one [`Span`]; so a span is what its author
//! could write in one transaction, and every version that somebody later saw is the end of a span.

use farshore_sync_core::document::DocumentEdit;
use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::outcome::{Outcome, ensure};

const FRIENDS_FOREVER: &[u8] = include_bytes!("../data/friendsforever.json.gz");

/// How many people type.
pub const AUTHORS: usize = 2;

/// The recording.
#[derive(Debug)]
pub struct Trace {
    /// What was typed, in an order in which parents come first.
    pub spans: Vec<Span>,
    /// How many keystrokes there are.
    pub edits: usize,
    /// How many of them join two lines of history.
    pub merges: usize,
    /// The text when everything was merged.
    pub end_content: String,
}

/// What one author typed in a row.
#[derive(Debug)]
pub struct Span {
    /// Who: 0 or 1.
    pub author: usize,
    /// The spans that the author had seen last; none at the very beginning.
    pub parents: Vec<usize>,
    /// What was typed; positions are those of the text that the author saw.
    pub edits: Vec<DocumentEdit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    end_content: String,
    txns: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    parents: Vec<usize>,
    agent: usize,
    patches: Vec<(usize, usize, String)>,
}

/// Reads the recording; the edits are of the text `field` of a document.
///
/// # Errors
/// None, unless the file was altered.
pub fn friends_forever(field: &str) -> Outcome<Trace> {
    let file: File = serde_json::from_reader(GzDecoder::new(FRIENDS_FOREVER))?;
    let entries = file.txns;
    ensure(entries.iter().all(|entry| entry.agent < AUTHORS), || "a third author".into())?;
    let mut followers = vec![0; entries.len()];
    for parent in entries.iter().flat_map(|entry| &entry.parents) {
        followers[*parent] += 1;
    }
    let edits = entries.iter().map(|entry| entry.patches.len()).sum();
    let merges = entries.iter().filter(|entry| entry.parents.len() > 1).count();
    let mut spans: Vec<Span> = Vec::new();
    // Which span an entry became part of.
    let mut span_of: Vec<usize> = Vec::with_capacity(entries.len());
    for entry in entries {
        let continued = match entry.parents[..] {
            [parent] if followers[parent] == 1 => Some(span_of[parent]),
            _ => None,
        };
        let edits = entry.patches.into_iter().map(|patch| splice(field, patch));
        match continued.filter(|span| spans[*span].author == entry.agent) {
            Some(span) => {
                spans[span].edits.extend(edits);
                span_of.push(span);
            }
            None => {
                span_of.push(spans.len());
                let parents = entry.parents.iter().map(|parent| span_of[*parent]).collect();
                spans.push(Span { author: entry.agent, parents, edits: edits.collect() });
            }
        }
    }
    Ok(Trace { spans, edits, merges, end_content: file.end_content })
}

fn splice(field: &str, (position, delete, insert): (usize, usize, String)) -> DocumentEdit {
    DocumentEdit::SpliceText { path: [field].into(), position, delete, insert }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_every_edit_and_refer_to_earlier_spans() {
        let trace = friends_forever("text").unwrap();
        assert_eq!((trace.edits, trace.merges), (26_078, 2_258));
        assert_eq!(trace.spans.iter().map(|span| span.edits.len()).sum::<usize>(), trace.edits);
        for (index, span) in trace.spans.iter().enumerate() {
            assert!(span.parents.iter().all(|parent| *parent < index));
        }
        assert_eq!(trace.spans.iter().filter(|span| span.parents.is_empty()).count(), 1);
        assert_eq!(trace.spans.len(), 3_727);
    }

    #[test]
    fn an_author_has_always_seen_what_the_author_wrote() {
        let trace = friends_forever("text").unwrap();
        let mut last = [None; AUTHORS];
        // The spans of each author that a span has seen, the newest of them.
        let mut seen: Vec<[Option<usize>; AUTHORS]> = Vec::new();
        for (index, span) in trace.spans.iter().enumerate() {
            let mut mine = [None; AUTHORS];
            for parent in &span.parents {
                for author in 0..AUTHORS {
                    mine[author] = mine[author].max(seen[*parent][author]);
                }
            }
            assert_eq!(mine[span.author], last[span.author]);
            mine[span.author] = Some(index);
            last[span.author] = Some(index);
            seen.push(mine);
        }
    }
}
