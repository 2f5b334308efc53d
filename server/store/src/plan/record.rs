//! A plan as a record: what a journal keeps of a commit, so that it can be written again without being decided again.
//!
//! A record is read by the program that wrote it or by a newer one: fields may be added, and none changes its meaning.

use std::collections::BTreeMap;

use farshore_sync_core::digest::Sum;
use farshore_sync_core::document::ChangeHash;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId, Scope};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::{ChunkWrite, Departure, DeviceMark, Plan, RowWrite, StoredOutcome};
use crate::sync::Committed;

#[derive(Encode, Decode)]
struct Writes {
    #[n(0)]
    seq_before: u64,
    #[n(1)]
    seq: u64,
    #[n(2)]
    rows: Vec<Row>,
    #[n(3)]
    departures: Vec<Left>,
    #[n(4)]
    chunks: Vec<Chunk>,
    #[n(5)]
    resequenced: Vec<(CollectionId, RowId, u64)>,
    #[n(6)]
    digests: Vec<(Scope, CollectionId, BTreeMap<u8, Sum>)>,
    #[n(7)]
    devices: Vec<(DeviceId, u64, u64, Hlc)>,
    #[n(8)]
    outcomes: Vec<(DeviceId, ByteArray<16>, ByteVec)>,
}

#[derive(Encode, Decode)]
struct Row {
    #[n(0)]
    collection: CollectionId,
    #[n(1)]
    id: RowId,
    #[n(2)]
    scope: Scope,
    #[n(3)]
    seq: u64,
    #[n(4)]
    state: ByteVec,
    #[n(5)]
    deleted: bool,
    #[n(6)]
    written_at_ms: u64,
}

#[derive(Encode, Decode)]
struct Left {
    #[n(0)]
    scope: Scope,
    #[n(1)]
    collection: CollectionId,
    #[n(2)]
    id: RowId,
    #[n(3)]
    seq: u64,
    #[n(4)]
    written_at_ms: u64,
}

#[derive(Encode, Decode)]
struct Chunk {
    #[n(0)]
    collection: CollectionId,
    #[n(1)]
    id: RowId,
    #[n(2)]
    column: ColumnId,
    #[n(3)]
    hash: ByteArray<32>,
    #[n(4)]
    seq: u64,
    #[n(5)]
    bytes: ByteVec,
}

impl Plan {
    /// Everything that the plan writes.
    #[must_use]
    pub fn to_record(&self) -> Vec<u8> {
        let rows = self.rows.iter().map(|row| Row {
            collection: row.key.0,
            id: row.key.1,
            scope: row.scope.clone(),
            seq: row.seq,
            state: row.state.clone().into(),
            deleted: row.deleted,
            written_at_ms: row.written_at_ms,
        });
        let departures = self.departures.iter().map(|left| Left {
            scope: left.scope.clone(),
            collection: left.key.0,
            id: left.key.1,
            seq: left.seq,
            written_at_ms: left.written_at_ms,
        });
        let chunks = self.chunks.iter().map(|chunk| Chunk {
            collection: chunk.key.0.0,
            id: chunk.key.0.1,
            column: chunk.key.1,
            hash: chunk.key.2.0.into(),
            seq: chunk.seq,
            bytes: chunk.bytes.clone().into(),
        });
        let digests = self.digests.iter();
        let devices = self.devices.iter();
        let outcomes = self.outcomes.iter();
        let writes = Writes {
            seq_before: self.committed.seq_before,
            seq: self.committed.seq,
            rows: rows.collect(),
            departures: departures.collect(),
            chunks: chunks.collect(),
            resequenced: self.resequenced.iter().map(|(key, seq)| (key.0, key.1, *seq)).collect(),
            digests: digests
                .map(|((scope, of), sums)| (scope.clone(), *of, sums.clone()))
                .collect(),
            devices: devices
                .map(|(device, mark)| (*device, mark.high_water, mark.settled, mark.last_stamp))
                .collect(),
            outcomes: outcomes
                .map(|(device, stored)| {
                    (*device, stored.content.into(), stored.answer_bytes().into())
                })
                .collect(),
        };
        minicbor::to_vec(&writes).expect("writing to memory cannot fail")
    }

    /// The plan that a record was made of, without the answer to whoever asked for it; `None` where it is no record.
    #[must_use]
    pub fn from_record(record: &[u8]) -> Option<Self> {
        let writes: Writes = minicbor::decode(record).ok()?;
        let committed = Committed {
            seq_before: writes.seq_before,
            seq: writes.seq,
            results: Vec::new(),
            rows: Vec::new(),
            totals: Vec::new(),
            documents_came_anew: false,
        };
        let rows = writes.rows.into_iter().map(|row| RowWrite {
            key: (row.collection, row.id),
            scope: row.scope,
            seq: row.seq,
            state: row.state.into(),
            deleted: row.deleted,
            written_at_ms: row.written_at_ms,
        });
        let departures = writes.departures.into_iter().map(|left| Departure {
            scope: left.scope,
            key: (left.collection, left.id),
            seq: left.seq,
            written_at_ms: left.written_at_ms,
        });
        let chunks = writes.chunks.into_iter().map(|chunk| ChunkWrite {
            key: ((chunk.collection, chunk.id), chunk.column, ChangeHash(chunk.hash.into())),
            seq: chunk.seq,
            bytes: chunk.bytes.into(),
        });
        let resequenced = writes.resequenced.into_iter();
        let digests = writes.digests.into_iter();
        let mark = |(device, high_water, settled, last_stamp)| {
            (device, DeviceMark { high_water, settled, last_stamp })
        };
        let outcome = |(device, content, answer): (DeviceId, ByteArray<16>, ByteVec)| {
            Some((device, StoredOutcome::from_stored(&content[..], &answer[..])?))
        };
        Some(Self {
            committed,
            rows: rows.collect(),
            departures: departures.collect(),
            chunks: chunks.collect(),
            resequenced: resequenced.map(|(of, id, seq)| ((of, id), seq)).collect(),
            digests: digests.map(|(scope, of, sums)| ((scope, of), sums)).collect(),
            devices: writes.devices.into_iter().map(mark).collect(),
            outcomes: writes.outcomes.into_iter().map(outcome).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use farshore_sync_core::wire::PushOutcome;

    use super::*;

    fn plan_with_everything() -> Plan {
        let row = |byte| (CollectionId(3), RowId::from_bytes([byte; 16]));
        let scope: Scope = "site/oslo".parse().unwrap();
        let device = DeviceId::from_bytes([7; 16]);
        let outcome = PushOutcome { number: 4, seq: 12, refused: None, corrected: None };
        Plan {
            committed: Committed {
                seq_before: 10,
                seq: 12,
                results: Vec::new(),
                rows: Vec::new(),
                totals: Vec::new(),
                documents_came_anew: false,
            },
            rows: vec![RowWrite {
                key: row(1),
                scope: scope.clone(),
                seq: 11,
                state: vec![0, 255, 3],
                deleted: true,
                written_at_ms: 1_700_000_000_000,
            }],
            departures: vec![Departure {
                scope: scope.clone(),
                key: row(2),
                seq: 12,
                written_at_ms: 5,
            }],
            chunks: vec![ChunkWrite {
                key: (row(1), ColumnId(9), ChangeHash([8; 32])),
                seq: 11,
                bytes: vec![1; 300],
            }],
            resequenced: vec![(row(1), 11)],
            digests: BTreeMap::from([((scope, CollectionId(3)), BTreeMap::from([(255, Sum(6))]))]),
            devices: vec![(
                device,
                DeviceMark { high_water: 4, settled: 3, last_stamp: Hlc(1 << 60) },
            )],
            outcomes: vec![(device, StoredOutcome { content: [5; 16], outcome })],
        }
    }

    #[test]
    fn a_record_holds_everything_that_a_plan_writes() {
        let plan = plan_with_everything();
        let read = Plan::from_record(&plan.to_record()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{plan:?}"));
    }

    #[test]
    fn what_was_cut_off_is_no_record() {
        let record = plan_with_everything().to_record();
        for length in 0..record.len() {
            assert!(Plan::from_record(&record[..length]).is_none(), "{length} bytes");
        }
    }
}
