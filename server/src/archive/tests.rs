//! Archives come back whole, or say why not.

use farshore_store::copy::{ChangeRecord, Record, StandingRecord};
use farshore_store::sealing::{MASTER_KEY_BYTES, MasterKey};

use super::*;

fn key(byte: u8) -> MasterKey {
    MasterKey::from_slice(&[byte; MASTER_KEY_BYTES]).unwrap()
}

fn records() -> Vec<Record> {
    let standing =
        StandingRecord { seq: 3, horizon: 0, epoch: 9, digest_key: [1; 32], created_at_ms: 5 };
    let row = |seq: u64| {
        Record::Change(ChangeRecord {
            scope: "tenant".to_owned(),
            seq,
            kind: 0,
            collection: 1,
            id: [seq as u8; 16],
            written_at_ms: seq,
            has_chunks: false,
            state: b"a row that nobody else may read".to_vec(),
        })
    };
    std::iter::once(Record::Standing(standing)).chain((1..=3).map(row)).collect()
}

/// An archive in three frames, and where each of them ends.
fn archive() -> (Vec<u8>, Vec<usize>) {
    let (mut writer, mut bytes) =
        ArchiveWriter::begin(&"acme".parse().unwrap(), 77, &key(1)).unwrap();
    let mut ends = vec![bytes.len()];
    let records = records();
    for records in [&records[..2], &records[2..]] {
        bytes.extend(writer.frame(records));
        ends.push(bytes.len());
    }
    let (last, contents) = writer.finish();
    assert_eq!((contents.rows, contents.records), (3, 4));
    bytes.extend(last);
    ends.push(bytes.len());
    (bytes, ends)
}

/// Reads an archive that comes in pieces of some length.
fn read(bytes: &[u8], piece: usize, master_key: MasterKey) -> Result<Vec<Record>, ArchiveError> {
    let mut reader = ArchiveReader::new(master_key);
    let (mut all, mut label) = (Vec::new(), None);
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.step()? {
                Step::More => break,
                Step::Label(read) => label = Some(read),
                Step::Records(records) => all.extend(records),
                Step::End(contents) => assert_eq!(contents.records, all.len() as u64),
            }
        }
    }
    reader.finish()?;
    let label = label.unwrap();
    assert_eq!((&*label.tenant, label.made_at_ms), ("acme", 77));
    Ok(all)
}

#[test]
fn an_archive_comes_back_in_whatever_pieces_it_comes() {
    let (bytes, _) = archive();
    for piece in [1, 7, 64, bytes.len()] {
        assert_eq!(read(&bytes, piece, key(1)).unwrap(), records());
    }
    let readable = b"a row that nobody";
    assert!(!bytes.windows(readable.len()).any(|window| window == readable));
}

#[test]
fn another_master_key_is_named() {
    assert_eq!(read(&archive().0, 64, key(2)), Err(ArchiveError::WrongMasterKey));
}

#[test]
fn every_altered_byte_is_noticed() {
    let (bytes, _) = archive();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert!(read(&altered, bytes.len(), key(1)).is_err(), "byte {at}");
    }
}

#[test]
fn every_cut_is_noticed_and_so_is_what_follows() {
    let (bytes, ends) = archive();
    for length in 0..bytes.len() {
        let cut = read(&bytes[..length], 64, key(1));
        assert!(cut.is_err(), "cut at {length}");
    }
    let after_two = read(&bytes[..ends[2]], 64, key(1));
    assert_eq!(after_two, Err(ArchiveError::CutOff { frames: 2 }));
    assert_eq!(read(&[&bytes[..], &[0]].concat(), 64, key(1)), Err(ArchiveError::Longer));
}

#[test]
fn frames_left_out_or_swapped_are_noticed() {
    let (bytes, ends) = archive();
    let left_out = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
    assert_eq!(read(&left_out, 64, key(1)), Err(ArchiveError::Damaged { frame: 1 }));
    let swapped =
        [&bytes[..ends[0]], &bytes[ends[1]..ends[2]], &bytes[ends[0]..ends[1]], &bytes[ends[2]..]];
    assert!(read(&swapped.concat(), 64, key(1)).is_err());
}

#[test]
fn what_is_no_archive_is_named() {
    assert_eq!(read(b"PK\x03\x04 a zip", 64, key(1)), Err(ArchiveError::NoArchive));
    assert_eq!(read(b"", 64, key(1)), Err(ArchiveError::CutOff { frames: 0 }));
    let (mut newer, _) = archive();
    newer[MAGIC.len()] = 9;
    assert_eq!(read(&newer, 64, key(1)), Err(ArchiveError::NewerFormat { found: 9 }));
    let endless = [&MAGIC[..], &[VERSION], &u32::MAX.to_le_bytes()].concat();
    assert_eq!(read(&endless, 64, key(1)), Err(ArchiveError::Damaged { frame: 0 }));
}
