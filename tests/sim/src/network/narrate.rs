//! Frames for people to read.

use std::sync::atomic::{AtomicBool, Ordering};

use farshore_sync_core::mutation::Transaction;
use farshore_sync_core::row::RowState;
use farshore_sync_core::wire::{ClientFrame, Frame as _, RowPayload, ServerFrame};

use super::Direction;
use super::pipe::Pipe;

/// Prints every frame of the runs of this process as it is sent.
static NARRATE: AtomicBool = AtomicBool::new(false);

/// Wants every frame printed from now on.
pub fn narrate_frames() {
    NARRATE.store(true, Ordering::Relaxed);
}

/// Prints a frame, where somebody wants them.
#[expect(clippy::print_stderr, reason = "whoever asks for every frame wants to read them")]
pub(super) fn narrate(now_ms: u64, pipe: &Pipe, frame: &[u8]) {
    if !NARRATE.load(Ordering::Relaxed) {
        return;
    }
    let (device, number) = (pipe.device, pipe.number);
    match pipe.direction {
        Direction::Up => match ClientFrame::from_bytes(frame) {
            Ok(ClientFrame::Push(push)) => {
                let read = push.transactions.iter().map(|bytes| Transaction::decode(bytes));
                let read: Vec<_> = read.collect();
                eprintln!("{now_ms:>8} {device}.{number} > push {} {read:?}", push.settled);
            }
            frame => eprintln!("{now_ms:>8} {device}.{number} > {frame:?}"),
        },
        Direction::Down => match ServerFrame::from_bytes(frame) {
            Ok(ServerFrame::Page(page)) => {
                eprintln!(
                    "{now_ms:>8} {device}.{number} < page {:?} {:?}",
                    page.positions, page.checkpoint
                );
                for row in &page.rows {
                    let (scope, collection, id) = (row.scope, row.collection.0, row.row);
                    match &row.payload {
                        RowPayload::State(bytes) => {
                            eprintln!(
                                "{:>20} {scope}/{collection}/{id} {:?}",
                                "row",
                                RowState::decode(bytes)
                            );
                        }
                        other => eprintln!("{:>20} {scope}/{collection}/{id} {other:?}", "row"),
                    }
                }
                for chunk in &page.chunks {
                    let (collection, id, bytes) =
                        (chunk.collection.0, chunk.row, chunk.change.len());
                    eprintln!(
                        "{:>20} {collection}/{id}.{} {bytes} bytes",
                        "change", chunk.column.0
                    );
                }
            }
            frame => eprintln!("{now_ms:>8} {device}.{number} < {frame:?}"),
        },
    }
}
