//! Tells a write-ahead log of SQLite that is damaged from one that was cut off by a crash.
//!
//! SQLite reads a log up to the first frame that is not as it was written and forgets the rest without a word: it
//! takes the place for the end that a crash left. A flipped bit in the middle of a log so takes acknowledged
//! transactions along. The difference shows in what follows: with `synchronous = FULL` nothing is written after a commit
//! before that commit is on the disk. A frame that is chained to a commit *behind* the broken place therefore proves
//! that the place was whole once.
//!
//! What cannot be told: damage to the very last commit, which nothing follows, looks like a commit that was cut off.
//!
//! [`make_durable`] is for the other thing that a log cannot tell: a sync that failed may have dropped what it should
//! have brought to the disk, while reads still find it in memory. A process that opens such a log believes in commits
//! that the next power cut takes away, and whatever was acknowledged after them too. Writing the log again brings it
//! to the disk for certain. [`move_again`] does the same for what was moved from a log into its database.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#walformat>. An encrypted database encrypts the pages in its
//! log; the heads of frames and the checksums, which are over the encrypted pages, stay readable.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// The header of a log, in bytes.
const HEADER_BYTES: usize = 32;
/// The head of a frame, in bytes.
const FRAME_HEAD_BYTES: usize = 24;
/// The part of a frame's head that its checksum covers, in bytes.
const CHECKED_HEAD_BYTES: usize = 8;
/// The first four bytes, where the checksums read the log as little-endian words.
const MAGIC: u32 = 0x377f_0682;
/// The version of the format.
const VERSION: u32 = 3_007_000;
/// The smallest and the largest page, in bytes.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65_536;
/// A log is read again before it is called damaged: another process may have begun it anew meanwhile.
const LOOKS: usize = 2;

/// How much of a log is written again at a time, in bytes.
const REWRITTEN_BYTES: usize = 1 << 20;
/// Why a log need not be written again: it is not there, or nothing can be written at all.
const MAKES_NO_DIFFERENCE: [io::ErrorKind; 5] = [
    io::ErrorKind::NotFound,
    io::ErrorKind::StorageFull,
    io::ErrorKind::QuotaExceeded,
    io::ErrorKind::ReadOnlyFilesystem,
    io::ErrorKind::PermissionDenied,
];

/// What a log says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogState {
    /// Everything that was acknowledged is readable, as far as a log can tell.
    Sound,
    /// Its header is not what was written.
    HeaderDamaged,
    /// A frame is not what was written, and a later commit followed it; the first frame is 1.
    FrameDamaged(u64),
}

/// Looks at the log of the database at `path`, before SQLite opens it. A log that is not there is sound.
///
/// # Errors
/// Those of the file system.
pub fn check_log_of(path: &Path) -> io::Result<LogState> {
    let name = log_of(path);
    let look = || match File::open(&name) {
        Ok(file) => check(BufReader::with_capacity(*PAGE_BYTES.end(), file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LogState::Sound),
        Err(error) => Err(error),
    };
    let first = look()?;
    for _ in 1..LOOKS {
        if first != LogState::Sound && look()? != first {
            return Ok(LogState::Sound);
        }
    }
    Ok(first)
}

/// Looks at the bytes of a log.
///
/// # Errors
/// Those of the reader.
pub fn check(mut log: impl Read) -> io::Result<LogState> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut log, &mut header)? {
        return Ok(LogState::Sound);
    }
    let Some(format) = Format::read(&header) else {
        // SQLite syncs the header before the first frame: frames without one were written with one.
        let mut frames = [0; FRAME_HEAD_BYTES];
        let blank = header.iter().all(|byte| *byte == 0);
        let empty = !fill(&mut log, &mut frames)?;
        return Ok(if blank || empty { LogState::Sound } else { LogState::HeaderDamaged });
    };
    let mut frame = vec![0; FRAME_HEAD_BYTES + format.page_bytes];
    let mut before = Before { checksum: format.checksum, commits: false };
    let mut broken = None;
    let mut number = 0;
    while fill(&mut log, &mut frame)? {
        number += 1;
        let chained = format.is_chained(before.checksum, &frame);
        match broken {
            None if !chained => broken = Some(number),
            Some(at) if chained && before.commits => return Ok(LogState::FrameDamaged(at)),
            _ => {}
        }
        before = Before { checksum: pair(&frame, 16), commits: word(&frame, 4) != 0 };
    }
    Ok(LogState::Sound)
}

/// Writes the log of the database at `path` again, byte for byte where it is, and syncs it. The caller holds SQLite's
/// write lock, so that nobody appends meanwhile. A log that is not there or empty is durable.
///
/// A disk that is full or may not be written takes no new commits either, and is left as it is.
///
/// # Errors
/// Those of the file system.
pub fn make_durable(path: &Path) -> io::Result<()> {
    write_again(path, None)
}

/// Does what [`make_durable`] does up to a number of frames, where SQLite says that the log ends, and cuts off what is
/// behind: commits that failed, which the next opening would take for good.
///
/// # Errors
/// Those of the file system.
pub fn make_durable_to(path: &Path, frames: u64) -> io::Result<()> {
    write_again(path, Some(frames))
}

fn write_again(path: &Path, frames: Option<u64>) -> io::Result<()> {
    let open = File::options().read(true).write(true).open(log_of(path));
    let rewritten = open.and_then(|mut log| {
        if let Some(frames) = frames {
            let end = end_of(&mut log, frames)?;
            if log.metadata()?.len() > end {
                log.set_len(end)?;
            }
            log.rewind()?;
        }
        let mut chunk = vec![0; REWRITTEN_BYTES];
        loop {
            let read = log.read(&mut chunk)?;
            if read == 0 {
                return log.sync_all();
            }
            log.seek(SeekFrom::Current(-i64::try_from(read).map_err(io::Error::other)?))?;
            log.write_all(&chunk[..read])?;
        }
    });
    match rewritten {
        Err(error) if !MAKES_NO_DIFFERENCE.contains(&error.kind()) => Err(error),
        _ => Ok(()),
    }
}

/// Writes what the first frames of a log hold into its database, byte for byte as SQLite did when it moved them, and
/// syncs that. SQLite syncs the database only once all of the log is moved: where that sync fails, what was moved before
/// is neither on the disk nor moved again. The caller holds SQLite's write lock, and nobody may read from before these
/// frames: `frames` are those that SQLite calls moved.
///
/// `database` is the file at `path`. On Unix whoever closes it gives up the locks that the process has on it, so it
/// stays open as long as SQLite has it open.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::InvalidData`] where the log does not hold so many frames.
pub fn move_again(mut database: &File, path: &Path, frames: u64) -> io::Result<()> {
    if frames == 0 {
        return Ok(());
    }
    let mut log = BufReader::with_capacity(*PAGE_BYTES.end(), File::open(log_of(path))?);
    let mut header = [0; HEADER_BYTES];
    log.read_exact(&mut header)?;
    let format = Format::read(&header).ok_or(io::ErrorKind::InvalidData)?;
    let mut frame = vec![0; FRAME_HEAD_BYTES + format.page_bytes];
    let mut checksum = format.checksum;
    let mut newest = BTreeMap::new();
    for number in 0..frames {
        log.read_exact(&mut frame)?;
        if !format.is_chained(checksum, &frame) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        checksum = pair(&frame, 16);
        newest.insert(word(&frame, 0), number);
    }
    for (page, number) in newest {
        log.seek(SeekFrom::Start(HEADER_BYTES as u64 + number * frame.len() as u64))?;
        log.read_exact(&mut frame)?;
        let before = u64::from(page).checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
        database.seek(SeekFrom::Start(before * format.page_bytes as u64))?;
        database.write_all(&frame[FRAME_HEAD_BYTES..])?;
    }
    database.sync_all()
}

/// Where so many frames of a log end, in bytes.
fn end_of(log: &mut File, frames: u64) -> io::Result<u64> {
    let mut header = [0; HEADER_BYTES];
    if frames == 0 || !fill(log, &mut header)? {
        return Ok(0);
    }
    let format = Format::read(&header).ok_or(io::ErrorKind::InvalidData)?;
    Ok((HEADER_BYTES as u64) + frames * (FRAME_HEAD_BYTES + format.page_bytes) as u64)
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// What the next frame builds on.
struct Before {
    checksum: (u32, u32),
    commits: bool,
}

struct Format {
    big_endian: bool,
    page_bytes: usize,
    salt: (u32, u32),
    checksum: (u32, u32),
}

impl Format {
    /// What the header says; `None` where it is not one, or not as it was written.
    fn read(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (magic, version) = (word(header, 0), word(header, 4));
        let page_bytes = usize::try_from(word(header, 8)).ok()?;
        let format = Self {
            big_endian: magic & 1 == 1,
            page_bytes,
            salt: pair(header, 16),
            checksum: pair(header, 24),
        };
        let sane = magic & !1 == MAGIC
            && version == VERSION
            && page_bytes.is_power_of_two()
            && PAGE_BYTES.contains(&page_bytes);
        let sum = format.sum((0, 0), &header[..24]);
        (sane && sum == format.checksum).then_some(format)
    }

    /// Whether a frame belongs to this log and is as it was written, after the frame with this checksum.
    fn is_chained(&self, before: (u32, u32), frame: &[u8]) -> bool {
        if pair(frame, 8) != self.salt {
            return false;
        }
        let head = self.sum(before, &frame[..CHECKED_HEAD_BYTES]);
        self.sum(head, &frame[FRAME_HEAD_BYTES..]) == pair(frame, 16)
    }

    fn sum(&self, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let word = |bytes: [u8; 4]| {
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let (words, _) = bytes.as_chunks::<4>();
        for two in words.chunks_exact(2) {
            first = first.wrapping_add(word(two[0])).wrapping_add(second);
            second = second.wrapping_add(word(two[1])).wrapping_add(first);
        }
        (first, second)
    }
}

/// A number of the header or of a frame's head, which are big-endian.
fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at..].first_chunk().expect("heads are longer than their numbers");
    u32::from_be_bytes(*bytes)
}

fn pair(bytes: &[u8], at: usize) -> (u32, u32) {
    (word(bytes, at), word(bytes, at + 4))
}

/// Fills a buffer; whether there was as much.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;
    const FRAME: usize = FRAME_HEAD_BYTES + PAGE;

    /// A log as SQLite writes it: transactions of some frames each.
    fn log(transactions: &[usize]) -> Vec<u8> {
        let words = [MAGIC, VERSION, PAGE as u32, 0, 11, 12];
        let mut log: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let format =
            Format { big_endian: false, page_bytes: PAGE, salt: (11, 12), checksum: (0, 0) };
        let mut sum = format.sum((0, 0), &log);
        let push = |log: &mut Vec<u8>, (first, second): (u32, u32)| {
            log.extend([first.to_be_bytes(), second.to_be_bytes()].concat());
        };
        push(&mut log, sum);
        for (at, frames) in transactions.iter().enumerate() {
            for frame in 1..=*frames {
                let size: u32 = if frame == *frames { 9 } else { 0 };
                let head = [(frame as u32).to_be_bytes(), size.to_be_bytes()].concat();
                let page = vec![at as u8 + 1; PAGE];
                sum = format.sum(format.sum(sum, &head), &page);
                log.extend(&head);
                push(&mut log, (11, 12));
                push(&mut log, sum);
                log.extend(page);
            }
        }
        log
    }

    fn state(log: &[u8]) -> LogState {
        check(log).unwrap()
    }

    #[test]
    fn a_log_is_sound_wherever_it_is_cut() {
        let whole = log(&[2, 1, 3]);
        for length in 0..=whole.len() {
            assert_eq!(state(&whole[..length]), LogState::Sound, "{length} bytes");
        }
    }

    #[test]
    fn a_flipped_bit_before_the_last_commit_is_told() {
        let whole = log(&[2, 1, 3]);
        // The third frame is a commit, and the fourth is chained to it: every bit of the first two transactions
        // counts, but for the checksum of that commit, without which nothing proves what followed it.
        for bit in 0..(HEADER_BYTES + 3 * FRAME) * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let commit = HEADER_BYTES + 2 * FRAME;
            let unproven = (commit + 4..commit + 8).contains(&(bit / 8))
                || (commit + 16..commit + 24).contains(&(bit / 8));
            let told = state(&flipped) != LogState::Sound;
            assert!(told || unproven, "byte {} of {}", bit / 8, whole.len());
        }
    }

    #[test]
    fn the_last_commit_may_be_torn_in_any_way() {
        let whole = log(&[2, 1, 4]);
        let last = HEADER_BYTES + 3 * FRAME;
        for missing in 0..4 {
            for keep_head in [0, FRAME_HEAD_BYTES] {
                let mut torn = whole.clone();
                let from = last + missing * FRAME;
                torn[from + keep_head..from + FRAME].fill(0);
                assert_eq!(state(&torn), LogState::Sound, "frame {missing} of the last four");
            }
        }
    }

    #[test]
    fn what_an_earlier_log_left_behind_the_end_is_no_damage() {
        let (earlier, mut later) = (log(&[1, 1, 1, 1, 1, 1]), log(&[2, 1]));
        // The earlier log had other salts.
        let mut behind = earlier[later.len()..].to_vec();
        for frame in behind.chunks_mut(FRAME) {
            frame[8] ^= 1;
        }
        later.extend(behind);
        assert_eq!(state(&later), LogState::Sound);
    }

    #[test]
    fn commits_that_failed_and_were_overwritten_are_no_damage() {
        let (first, second, kept) = (log(&[1, 6]), log(&[1, 3]), log(&[1, 1]));
        // Two commits failed at their sync one after the other, the longer one first; a third one succeeded.
        let mut log = first;
        for over in [second, kept] {
            log[..over.len()].copy_from_slice(&over);
        }
        assert_eq!(state(&log), LogState::Sound);
    }

    #[test]
    fn a_log_that_is_made_durable_is_written_and_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store.db");
        make_durable(&database).unwrap();
        let log: Vec<u8> = (0..3 * REWRITTEN_BYTES / 2).map(|at| (at % 251) as u8).collect();
        std::fs::write(log_of(&database), &log).unwrap();
        let file = File::options().write(true).open(log_of(&database)).unwrap();
        let long_ago = std::time::UNIX_EPOCH;
        file.set_modified(long_ago).unwrap();
        make_durable(&database).unwrap();
        assert!(std::fs::read(log_of(&database)).unwrap() == log);
        assert_ne!(file.metadata().unwrap().modified().unwrap(), long_ago, "it was written");
    }

    #[test]
    fn what_lies_behind_the_end_of_a_log_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store.db");
        let whole = log(&[2, 1, 3]);
        for (frames, kept) in [(6, whole.len()), (3, HEADER_BYTES + 3 * FRAME), (0, 0)] {
            std::fs::write(log_of(&database), &whole).unwrap();
            make_durable_to(&database, frames).unwrap();
            assert!(std::fs::read(log_of(&database)).unwrap() == whole[..kept], "{frames} frames");
        }
    }

    #[test]
    fn what_was_moved_is_moved_again_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        // The pages of three transactions: 1 and 2, then 1, then 1 to 3.
        std::fs::write(log_of(&path), log(&[2, 1, 3])).unwrap();
        let moved = |frames| {
            std::fs::write(&path, [9; 4 * PAGE]).unwrap();
            let database = File::options().write(true).open(&path).unwrap();
            move_again(&database, &path, frames).unwrap();
            let pages = std::fs::read(&path).unwrap();
            pages.chunks(PAGE).map(|page| page[0]).collect::<Vec<_>>()
        };
        assert_eq!(moved(0), [9, 9, 9, 9]);
        assert_eq!(moved(2), [1, 1, 9, 9]);
        assert_eq!(moved(3), [2, 1, 9, 9]);
        assert_eq!(moved(6), [3, 3, 3, 9]);
    }

    #[test]
    fn nothing_is_moved_from_a_log_that_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let whole = log(&[2, 1, 3]);
        let mut flipped = whole.clone();
        flipped[HEADER_BYTES + 2 * FRAME + FRAME_HEAD_BYTES] ^= 1;
        for (what, log) in
            [("cut", &whole[..whole.len() - 1]), ("flipped", &flipped), ("empty", &[])]
        {
            std::fs::write(log_of(&path), log).unwrap();
            std::fs::write(&path, [9; 4 * PAGE]).unwrap();
            let database = File::options().write(true).open(&path).unwrap();
            move_again(&database, &path, 6).unwrap_err();
            assert_eq!(std::fs::read(&path).unwrap(), [9; 4 * PAGE], "{what}");
        }
    }

    #[test]
    fn a_header_without_frames_is_no_damage_and_one_that_is_garbage_before_frames_is() {
        let mut whole = log(&[2, 1]);
        assert_eq!(state(&[7; HEADER_BYTES]), LogState::Sound);
        whole[..HEADER_BYTES].fill(0);
        assert_eq!(state(&whole), LogState::Sound);
        whole[..HEADER_BYTES].fill(7);
        assert_eq!(state(&whole), LogState::HeaderDamaged);
    }
}
