//! A bit of a file that lay still is another one: in a page, in the log's header, in the head or the data of one of its
//! frames, or in a key file.
//!
//! The store says that it is damaged, or it shows everything as it was. It never shows anything else, and where it does
//! not open, it leaves every file as it found it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fault_vfs::{Crash, Disk, Image, Replay, Syncs};
use test_chance::Chance;

use crate::crashes::Report;
use crate::subject::{Observation, Problem, Subject};
use crate::workload::{Recording, scratch};

/// What the heads of key files make of a flipped bit: they say which master key sealed the file, and in which format it
/// is, and cannot be told from files of which that is true.
const OTHERS: [&str; 2] = ["the master key does not fit", "this version reads up to"];
/// Failures that a report tells in full.
const TOLD: usize = 20;
/// The last commits of a log that nothing proves: see `farshore_log_check`.
const UNPROVEN: usize = 2;
/// The header of a log, in bytes.
const LOG_HEADER_BYTES: usize = 32;
/// The head of a frame of the log, in bytes.
const FRAME_HEAD_BYTES: usize = 24;
/// A frame of the log with its page, in bytes.
const FRAME_BYTES: usize = FRAME_HEAD_BYTES + 4096;
/// The beginning of a database that is salt or header, in bytes.
const DATABASE_HEAD_BYTES: usize = 100;

/// What is at a place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Region {
    /// The salt and the header of the database.
    DatabaseHead,
    /// A page of the database.
    Page,
    /// The header of the log.
    LogHeader,
    /// The head of a frame.
    FrameHead,
    /// The page in a frame.
    FrameData,
    /// Any other file.
    KeyFile,
}

/// How the trials of one region ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// The store said that it is damaged.
    pub told: usize,
    /// It showed everything as it was.
    pub intact: usize,
    /// In the last two commits of the log: it took them for commits that a crash cut off.
    pub cut_off: usize,
    /// It showed something else, or failed without saying why.
    pub wrong: usize,
}

/// Flips one bit in each trial until `go_on` says no. The store lies as it was closed, or as a kill left it with its
/// log, in turn.
///
/// # Errors
/// Those of the file system that holds the stores.
pub fn run<S: Subject>(
    recording: &Recording<S>,
    trials: usize,
    seed: u64,
    go_on: &impl Fn(usize) -> bool,
) -> io::Result<(Report, BTreeMap<Region, Ends>)> {
    let lying = lying_still(recording);
    let shown = recording.shown.last().expect("the first is there");
    let scratch = scratch()?;
    let base = scratch.path().canonicalize()?;
    let _disk = Disk::attach(&base, Syncs::Skipped)?;
    let (mut report, mut ends) = (Report::default(), BTreeMap::<Region, Ends>::new());
    for trial in 0..trials {
        let mut chance = Chance::apart(seed, trial as u64);
        let mut image = lying[trial % lying.len()].clone();
        let (region, name, place) = flip(&mut image, &mut chance);
        let folder = base.join(trial.to_string());
        image.write_to(&folder)?;
        let judged = judge(recording, (region, &name), &image, &folder, shown);
        std::fs::remove_dir_all(&folder)?;
        let of_region = ends.entry(region).or_default();
        match judged {
            Ok(End::Told) => of_region.told += 1,
            Ok(End::Intact) => of_region.intact += 1,
            Ok(End::CutOff) => of_region.cut_off += 1,
            Err(problem) => {
                of_region.wrong += 1;
                report.failed += 1;
                if report.failures.len() < TOLD {
                    let told = format!("{}: {region:?} {place}, trial {trial}", S::NAME);
                    report.failures.push(format!("{told}, seed {seed}: {problem}"));
                }
            }
        }
        report.images = trial + 1;
        if !go_on(report.images) {
            break;
        }
    }
    Ok((report, ends))
}

enum End {
    Told,
    Intact,
    CutOff,
}

/// The files at the end of the run: as a kill after the last step leaves them, and closed.
fn lying_still<S>(recording: &Recording<S>) -> [Image; 2] {
    let mut replay = Replay::of(&recording.log);
    let last = recording.shown.len() as u64 - 1;
    while *replay.steps().start() < last && replay.step().is_some() {}
    let killed = replay.image(Crash::AllWritten, &mut Chance::of(0));
    while replay.step().is_some() {}
    [killed, replay.image(Crash::AllWritten, &mut Chance::of(0))]
}

/// Flips a bit somewhere: each file and each region has its turn, however small.
fn flip(image: &mut Image, chance: &mut Chance) -> (Region, Arc<str>, String) {
    let names: Vec<_> =
        image.0.iter().filter(|(_, content)| !content.is_empty()).map(|(name, _)| name).collect();
    let name = chance.pick(&names).copied().cloned().expect("a store has files");
    let content = image.0.get_mut(&name).expect("it was listed");
    let length = content.len() as u64;
    let within = |chance: &mut Chance, from: usize, bytes: usize| {
        let end = content.len().min(from + bytes);
        usize::try_from(chance.between(from as u64, end as u64 - 1)).unwrap_or_default()
    };
    let (region, at) = if name.ends_with("-wal") {
        let frames = (content.len() - LOG_HEADER_BYTES.min(content.len())) / FRAME_BYTES;
        let frame = usize::try_from(chance.below(frames.max(1) as u64)).unwrap_or_default();
        let start = LOG_HEADER_BYTES + frame * FRAME_BYTES;
        match chance.below(5) {
            0 => (Region::LogHeader, within(chance, 0, LOG_HEADER_BYTES)),
            1 | 2 if frames > 0 => (Region::FrameHead, within(chance, start, FRAME_HEAD_BYTES)),
            _ if frames > 0 => {
                (Region::FrameData, within(chance, start + FRAME_HEAD_BYTES, FRAME_BYTES))
            }
            _ => (Region::LogHeader, within(chance, 0, LOG_HEADER_BYTES)),
        }
    } else if name.ends_with(".db") {
        match chance.below(4) {
            0 => (Region::DatabaseHead, within(chance, 0, DATABASE_HEAD_BYTES)),
            _ => (Region::Page, within(chance, DATABASE_HEAD_BYTES, content.len())),
        }
    } else {
        (Region::KeyFile, usize::try_from(chance.below(length)).unwrap_or_default())
    };
    let bit = chance.below(8);
    content[at] ^= 1 << bit;
    let place = format!("{name} byte {at} of {length} bit {bit}");
    (region, name, place)
}

fn judge<S: Subject>(
    recording: &Recording<S>,
    (region, damaged): (Region, &str),
    image: &Image,
    folder: &Path,
    shown: &Observation,
) -> Result<End, String> {
    let subject = &recording.subject;
    let store = match subject.open(folder) {
        Ok(store) => store,
        Err(Problem::Damaged(told)) => {
            return match files_differ::<S>(damaged, image, folder) {
                Some(name) => Err(format!("it does not open, and {name} is not as it was: {told}")),
                None => Ok(End::Told),
            };
        }
        Err(Problem::Other(text))
            if region == Region::KeyFile && OTHERS.iter().any(|other| text.contains(other)) =>
        {
            return Ok(End::Told);
        }
        Err(other) => return Err(format!("it does not open, and says {other:?}")),
    };
    let found = subject.observe(&store);
    let closed = subject.close(store);
    match found {
        Ok(found) if found == *shown => Ok(End::Intact),
        Ok(found) => {
            let earlier = recording.shown.iter().rposition(|shown| *shown == found);
            let last = recording.shown.len() - 1;
            let in_log = matches!(region, Region::FrameHead | Region::FrameData);
            if in_log && earlier.is_some_and(|step| step + UNPROVEN >= last) {
                return Ok(End::CutOff);
            }
            Err(match earlier {
                Some(step) => format!("it shows step {step} of {last} and says nothing"),
                None => format!("it shows what never was: {}", shown.difference(&found)),
            })
        }
        Err(Problem::Damaged(_)) => {
            drop(closed);
            Ok(End::Told)
        }
        Err(other) => Err(format!("it opens, and says {other:?}")),
    }
}

/// The first file that is not as the image has it, of those that belong to the damaged one.
fn files_differ<S: Subject>(damaged: &str, image: &Image, folder: &Path) -> Option<String> {
    let mut files = image.0.iter().filter(|(name, _)| S::belongs_together(damaged, name));
    let differs = files.find(|(name, content)| {
        // A log that is empty says no more than none.
        std::fs::read(folder.join(&***name)).unwrap_or_default() != **content
    });
    differs.map(|(name, _)| name.to_string())
}
