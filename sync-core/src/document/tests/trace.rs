//! Two people typing in one document at once, recorded: every edit at exactly the version that its author saw.

use std::io::Read as _;

use serde::Deserialize;

use super::{ALICE, BOB, Change, Document, open, path, splice};
use crate::document::{ChangeHash, genesis};

/// Up to here each author receives everything at once and edits an older version; from here on only what the edits were made upon.
const LAGGING_TRANSACTIONS: usize = 6_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    end_content: String,
    txns: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    parents: Vec<usize>,
    agent: usize,
    patches: Vec<(usize, usize, String)>,
}

fn read() -> Trace {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/friendsforever.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn two_authors_end_with_the_recorded_text() {
    let trace = read();
    let first = genesis(&super::fields()).unwrap().hash;
    let mut documents = [open(ALICE, &[]), open(BOB, &[])];
    let mut made: Vec<(usize, Change)> = Vec::new();
    let mut delivered = [0, 0];
    let mut deliver = |document: &mut dyn Document, to: usize, made: &[(usize, Change)]| {
        let news = made.iter().skip(delivered[to]).filter(|(agent, _)| *agent != to);
        document.apply(&news.map(|(_, change)| change.clone()).collect::<Vec<_>>()).unwrap();
        delivered[to] = made.len().max(delivered[to]);
    };

    for Transaction { parents, agent, patches } in &trace.txns {
        let document = &mut *documents[*agent];
        let heads: Vec<ChangeHash> = match parents.as_slice() {
            [] => vec![first],
            parents => parents.iter().map(|parent| made[*parent].1.hash).collect(),
        };
        if made.len() < LAGGING_TRANSACTIONS {
            deliver(document, *agent, &made);
        } else if let Some(seen) = parents.iter().filter(|parent| made[**parent].0 != *agent).max()
        {
            deliver(document, *agent, &made[..=*seen]);
        }
        let edits: Vec<_> = patches.iter().map(|(at, gone, new)| splice(*at, *gone, new)).collect();
        made.push((*agent, document.edit_at(&heads, &edits).unwrap().unwrap()));
    }
    for (agent, document) in documents.iter_mut().enumerate() {
        deliver(&mut **document, agent, &made);
        assert_eq!(document.text(&path("text")).unwrap(), trace.end_content);
        assert_eq!(document.change_count(), 26_078);
    }
    assert_eq!(documents[0].heads(), documents[1].heads());
}
