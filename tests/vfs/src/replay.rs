//! The files as a power cut may leave them.
//!
//! What was synced is there. Of what was written since, a disk may have kept all, nothing, or any part: a sector is
//! there or not, in whatever order the writes came. The entry of a new file is durable once the file was synced, as
//! SQLite syncs the folder with it; a removal without a sync of the folder may be undone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use test_chance::Chance;

use crate::disk::{Log, Name, Op};

/// What disks write as a whole, in bytes: a sector of old ones, and a page of new ones.
pub const SECTORS_BYTES: [u64; 2] = [512, 4096];

/// How a power cut treats what was written and not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Nothing of it is there.
    SyncedOnly,
    /// All of it is there.
    AllWritten,
    /// All of it is there but for the last write, which is torn at a sector of this many bytes.
    Torn(u64),
    /// Any of the writes are there, some of them torn.
    Reordered,
}

impl Crash {
    /// Every way.
    pub const ALL: [Self; 5] = [
        Self::SyncedOnly,
        Self::AllWritten,
        Self::Torn(SECTORS_BYTES[0]),
        Self::Torn(SECTORS_BYTES[1]),
        Self::Reordered,
    ];
}

/// The files of a disk after a power cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image(pub BTreeMap<Name, Vec<u8>>);

impl Image {
    /// Writes the files into a folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        for (name, content) in &self.0 {
            let path = folder.join(&**name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, content)?;
        }
        Ok(())
    }
}

/// A record that is played from its beginning.
#[derive(Debug)]
pub struct Replay<'l> {
    log: &'l Log,
    played: usize,
    files: Vec<File>,
    /// The names as programs see them, and as a power cut leaves them.
    live: BTreeMap<Name, usize>,
    durable: BTreeMap<Name, usize>,
    /// The last step that was asked for, and the last one that was acknowledged.
    begun: u64,
    ended: u64,
}

#[derive(Debug, Clone, Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    Truncate(u64),
}

impl<'l> Replay<'l> {
    /// Before the first operation.
    #[must_use]
    pub fn of(log: &'l Log) -> Self {
        let mut replay = Self {
            log,
            played: 0,
            files: Vec::new(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            begun: 0,
            ended: 0,
        };
        for (name, content) in &log.base {
            replay.live.insert(Arc::clone(name), replay.files.len());
            let (live, durable) = (content.clone(), content.clone());
            replay.files.push(File { live, durable, pending: Vec::new() });
        }
        replay.durable.clone_from(&replay.live);
        replay
    }

    /// Plays the next operation; `None` at the end.
    pub fn step(&mut self) -> Option<&'l Op> {
        let op = self.log.ops.get(self.played)?;
        self.played += 1;
        match op {
            Op::Create(name) => {
                self.live_file(name);
            }
            Op::Write { file, offset, bytes } => {
                self.change(file, Change::Write(*offset, Arc::clone(bytes)));
            }
            Op::Truncate { file, bytes } => self.change(file, Change::Truncate(*bytes)),
            Op::Sync(name) => {
                let at = self.live_file(name);
                let File { durable, pending, .. } = &mut self.files[at];
                pending.drain(..).for_each(|change| apply(durable, &change));
                self.durable.insert(Arc::clone(name), at);
            }
            Op::SyncFailed(name) => {
                let at = self.live_file(name);
                self.files[at].pending.clear();
            }
            Op::Remove { file, durable } => {
                self.live.remove(file);
                if *durable {
                    self.durable.remove(file);
                }
            }
            Op::Begin(step) => self.begun = *step,
            Op::End(step) => self.ended = *step,
        }
        Some(op)
    }

    /// How many operations were played.
    #[must_use]
    pub const fn played(&self) -> usize {
        self.played
    }

    /// The steps that a reader may find: the first was acknowledged, the last was asked for.
    #[must_use]
    pub fn steps(&self) -> std::ops::RangeInclusive<u64> {
        self.ended..=self.begun.max(self.ended)
    }

    /// The files if the power is cut now.
    #[must_use]
    pub fn image(&self, crash: Crash, chance: &mut Chance) -> Image {
        let content = |at: &usize| &self.files[*at];
        let whole = |names: &BTreeMap<Name, usize>, of: &dyn Fn(usize, &File) -> Vec<u8>| {
            let files = names.iter().map(|(name, at)| (Arc::clone(name), of(*at, content(at))));
            Image(files.collect())
        };
        match crash {
            Crash::SyncedOnly => whole(&self.durable, &|_, file| file.durable.clone()),
            Crash::AllWritten => whole(&self.live, &|_, file| file.live.clone()),
            Crash::Torn(sector) => {
                let torn = self.last_written();
                let draw = chance.next();
                whole(&self.live, &|at, file| file.torn(Some(at) == torn, sector, draw))
            }
            Crash::Reordered => {
                let mut names = BTreeMap::new();
                let known = self.live.keys().chain(self.durable.keys());
                for name in known {
                    let (live, durable) = (self.live.get(name), self.durable.get(name));
                    let kept = if live == durable || chance.once_in(2) { live } else { durable };
                    if let Some(at) = kept {
                        names.insert(Arc::clone(name), *at);
                    }
                }
                let files = names.iter();
                Image(files.map(|(name, at)| (name.clone(), content(at).subset(chance))).collect())
            }
        }
    }

    fn change(&mut self, name: &Name, change: Change) {
        let at = self.live_file(name);
        apply(&mut self.files[at].live, &change);
        self.files[at].pending.push(change);
    }

    fn live_file(&mut self, name: &Name) -> usize {
        *self.live.entry(Arc::clone(name)).or_insert_with(|| {
            self.files.push(File::default());
            self.files.len() - 1
        })
    }

    /// The file of the last operation that was played, where that was a write.
    fn last_written(&self) -> Option<usize> {
        match self.log.ops.get(self.played.checked_sub(1)?)? {
            Op::Write { file, .. } => self.live.get(file).copied(),
            _ => None,
        }
    }
}

impl File {
    /// Everything that is pending; the last write in part, where it is the one that is torn.
    fn torn(&self, torn: bool, sector: u64, draw: u64) -> Vec<u8> {
        let mut content = self.durable.clone();
        let whole = if torn { self.pending.len().saturating_sub(1) } else { self.pending.len() };
        self.pending[..whole].iter().for_each(|change| apply(&mut content, change));
        match self.pending.get(whole) {
            Some(Change::Write(offset, bytes)) => {
                let cuts = cuts(*offset, bytes.len(), sector);
                let cut = cuts[usize::try_from(draw % cuts.len() as u64).unwrap_or_default()];
                if draw.rotate_left(7).is_multiple_of(2) {
                    write_at(&mut content, *offset, &bytes[..cut]);
                } else {
                    write_at(&mut content, *offset + cut as u64, &bytes[cut..]);
                }
            }
            Some(change @ Change::Truncate(_)) => apply(&mut content, change),
            None => {}
        }
        content
    }

    /// Some of what is pending, some of that in part.
    fn subset(&self, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.durable.clone();
        // Sometimes nearly all of it and sometimes nearly nothing.
        let (kept, of) = [(1, 8), (1, 2), (7, 8)][usize::try_from(chance.below(3)).unwrap_or(0)];
        for change in &self.pending {
            if chance.below(of) >= kept {
                continue;
            }
            match change {
                Change::Write(offset, bytes) if chance.once_in(4) => {
                    let cuts = cuts(*offset, bytes.len(), SECTORS_BYTES[0]);
                    for part in cuts.windows(2).filter(|_| chance.once_in(2)) {
                        write_at(&mut content, *offset + part[0] as u64, &bytes[part[0]..part[1]]);
                    }
                }
                change => apply(&mut content, change),
            }
        }
        content
    }
}

/// Where a write can be torn: its beginning, the edges of sectors of the file in it, and its end.
fn cuts(offset: u64, length: usize, sector: u64) -> Vec<usize> {
    let end = offset + length as u64;
    let first = (offset / sector + 1) * sector;
    let edges = (first..end).step_by(usize::try_from(sector).unwrap_or(usize::MAX));
    let within = edges.map(|edge| usize::try_from(edge - offset).unwrap_or(length));
    std::iter::once(0).chain(within).chain([length]).collect()
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => write_at(content, *offset, bytes),
        Change::Truncate(bytes) => content.resize(usize::try_from(*bytes).unwrap_or(0), 0),
    }
}

fn write_at(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).expect("files of tests fit into memory");
    let end = start + bytes.len();
    if bytes.is_empty() {
        return;
    }
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, bytes: &[u8]) -> Op {
        Op::Write { file: "f".into(), offset, bytes: bytes.into() }
    }

    fn at(ops: Vec<Op>, crash: Crash) -> Option<Vec<u8>> {
        let log = Log { base: BTreeMap::new(), ops };
        let mut replay = Replay::of(&log);
        while replay.step().is_some() {}
        replay.image(crash, &mut Chance::of(1)).0.remove("f")
    }

    #[test]
    fn what_was_not_synced_may_be_lost_and_may_be_there() {
        let ops = || vec![write(0, b"one"), Op::Sync("f".into()), write(0, b"two"), write(3, b"!")];
        assert_eq!(at(ops(), Crash::SyncedOnly).unwrap(), b"one");
        assert_eq!(at(ops(), Crash::AllWritten).unwrap(), b"two!");
    }

    #[test]
    fn a_sync_that_failed_once_is_not_made_good_by_the_next() {
        let (sync, failed) = (|| Op::Sync("f".into()), || Op::SyncFailed("f".into()));
        let ops =
            vec![write(0, b"one"), sync(), write(0, b"two"), failed(), write(3, b"!"), sync()];
        assert_eq!(at(ops.clone(), Crash::SyncedOnly).unwrap(), b"one!");
        assert_eq!(at(ops, Crash::AllWritten).unwrap(), b"two!");
    }

    #[test]
    fn a_new_file_is_there_once_it_was_synced_and_a_removal_may_be_undone() {
        let new = vec![Op::Create("f".into()), write(0, b"one")];
        assert_eq!(at(new.clone(), Crash::SyncedOnly), None);
        let mut removed = new;
        removed.extend([Op::Sync("f".into()), Op::Remove { file: "f".into(), durable: false }]);
        assert_eq!(at(removed.clone(), Crash::SyncedOnly).unwrap(), b"one");
        assert_eq!(at(removed, Crash::AllWritten), None);
    }

    #[test]
    fn a_write_is_torn_at_the_sectors_of_the_file() {
        assert_eq!(cuts(100, 1_000, 512), [0, 412, 924, 1_000]);
        assert_eq!(cuts(4_096, 4_096, 4_096), [0, 4_096]);
        assert_eq!(cuts(0, 24, 512), [0, 24]);
    }

    #[test]
    fn reordered_writes_are_any_of_them() {
        let log = Log {
            base: BTreeMap::from([("f".into(), vec![0; 4])]),
            ops: (0..4).map(|at| write(at, &[1])).collect(),
        };
        let mut replay = Replay::of(&log);
        while replay.step().is_some() {}
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            seen.insert(replay.image(Crash::Reordered, &mut Chance::of(seed)).0["f"].clone());
        }
        assert!(seen.len() > 12, "of 16 combinations: {}", seen.len());
    }
}
