//! One folder on the file system of the tests: what is done to its files, and which call fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

/// The name of a file in the folder of its disk.
pub type Name = Arc<str>;

/// The index of the log is shared memory, not content.
const SHARED_MEMORY_ENDING: &str = "-shm";

/// How the names of logs end.
const LOG_ENDING: &str = "-wal";

/// Every folder with a disk.
static DISKS: RwLock<Vec<(PathBuf, Arc<Shared>)>> = RwLock::new(Vec::new());

/// What is done to the files of a disk, in its order.
#[derive(Debug, Clone)]
pub enum Op {
    /// A file came into being.
    Create(Name),
    /// Bytes were written.
    Write {
        /// The file.
        file: Name,
        /// Where, in bytes from its beginning.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file got another length.
    Truncate {
        /// The file.
        file: Name,
        /// Its length, in bytes.
        bytes: u64,
    },
    /// A file was synced.
    Sync(Name),
    /// A sync failed: what was written since the last one is lost, and no later sync brings it to the disk.
    SyncFailed(Name),
    /// A file was removed.
    Remove {
        /// The file.
        file: Name,
        /// Whether its folder was synced.
        durable: bool,
    },
    /// The workload asks for step `n`; its effect may be seen from here on.
    Begin(u64),
    /// Step `n` was acknowledged; its effect must be seen from here on.
    End(u64),
}

/// What was done to a disk since the recording began.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The files as they were, all of it durable.
    pub base: BTreeMap<Name, Vec<u8>>,
    /// What was done.
    pub ops: Vec<Op>,
}

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Syncing a file.
    Sync,
    /// Changing a length.
    Truncate,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// An error of the device; nothing was done. A failed sync loses what was written since the last one.
    IoError,
    /// There is no room; nothing was done.
    Full,
    /// There is room for a part: the first half of the bytes is written.
    Short,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The call works again when it is tried again.
    Once,
    /// Every later call of the kind fails too, until [`Disk::heal`].
    UntilHealed,
}

/// A fault that waits for its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of call fails.
    pub call: Call,
    /// Which one from now on, the next one being 1.
    pub nth: u64,
    /// How it fails.
    pub how: How,
    /// Whether later ones fail too.
    pub repeat: Repeat,
}

/// Whether syncs reach the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    /// They do.
    Real,
    /// They return at once: for folders that need not survive the machine, which a recording or an image never must.
    Skipped,
}

/// A folder whose files are watched, until this is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    folder: PathBuf,
    syncs: Syncs,
    state: Mutex<State>,
    /// Held while a log is changed and that is noted, so that nobody looks at it in between.
    changing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    recording: bool,
    log: Log,
    calls: BTreeMap<Call, u64>,
    fault: Option<Fault>,
    struck: u64,
    /// The logs of databases, which the stores also write without SQLite.
    logs: BTreeSet<Name>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Goes,
    Fails(How),
}

impl Disk {
    /// Watches a folder and everything below it.
    ///
    /// # Errors
    /// Where the folder is not there.
    pub fn attach(folder: &Path, syncs: Syncs) -> io::Result<Self> {
        // SQLite resolves links before it opens a file.
        let folder = folder.canonicalize()?;
        let state = Mutex::default();
        let changing = Mutex::default();
        let shared = Arc::new(Shared { folder: folder.clone(), syncs, state, changing });
        let mut disks = DISKS.write().unwrap_or_else(PoisonError::into_inner);
        disks.push((folder.clone(), Arc::clone(&shared)));
        Ok(Self { folder, shared })
    }

    /// Begins to record; what is in the folder now counts as durable.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn record(&self) -> io::Result<()> {
        let mut base = BTreeMap::new();
        read_files(&self.folder, &self.folder, &mut base)?;
        let names: Vec<Name> = base.keys().cloned().collect();
        let mut state = self.shared.state();
        state.log = Log { base, ops: Vec::new() };
        state.recording = true;
        drop(state);
        names.iter().for_each(|name| self.shared.leave(name));
        Ok(())
    }

    /// Ends the recording.
    #[must_use]
    pub fn stop(&self) -> Log {
        self.shared.look_at_logs();
        let mut state = self.shared.state();
        state.recording = false;
        std::mem::take(&mut state.log)
    }

    /// Notes that a step was asked for.
    pub fn begin(&self, step: u64) {
        self.shared.note(Op::Begin(step));
    }

    /// Notes that a step was acknowledged.
    pub fn end(&self, step: u64) {
        self.shared.look_at_logs();
        self.shared.note(Op::End(step));
    }

    /// Lets a call fail; replaces the fault before.
    pub fn inject(&self, fault: Fault) {
        let mut state = self.shared.state();
        state.calls.clear();
        state.struck = 0;
        state.fault = Some(fault);
    }

    /// From here on every call works.
    pub fn heal(&self) {
        self.shared.state().fault = None;
    }

    /// How many calls the last fault struck.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.state().struck
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut disks = DISKS.write().unwrap_or_else(PoisonError::into_inner);
        disks.retain(|(_, disk)| !Arc::ptr_eq(disk, &self.shared));
    }
}

/// The disk of a file, and the file's name there.
pub(crate) fn disk_of(path: &Path) -> Option<(Arc<Shared>, Name)> {
    let disks = DISKS.read().unwrap_or_else(PoisonError::into_inner);
    let (folder, disk) = disks.iter().find(|(folder, _)| path.starts_with(folder))?;
    let name = path.strip_prefix(folder).ok()?.to_str()?;
    Some((Arc::clone(disk), name.into()))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a sync is passed on to the system.
    pub fn syncs(&self) -> bool {
        self.syncs == Syncs::Real
    }

    /// Records what was done.
    pub fn note(&self, op: Op) {
        let mut state = self.state();
        if state.recording {
            state.log.ops.push(op);
        }
    }

    /// Records what was written to a log without SQLite since it was last left.
    ///
    /// It shows in the file's time of modification, and counts as synced: no more can be told from outside. So it is
    /// asked for before SQLite does something to the log, and [`Shared::leave`] sets the time back afterwards. Nobody else
    /// may do either until the guard goes.
    pub fn look_at(&self, name: &Name) -> Option<MutexGuard<'_, ()>> {
        if !self.watches(name) {
            return None;
        }
        let alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.join(&**name);
        let is_changed = |log: fs::Metadata| log.modified().is_ok_and(|at| at != UNIX_EPOCH);
        if fs::metadata(&path).is_ok_and(is_changed)
            && let Ok(bytes) = fs::read(&path)
        {
            self.note(Op::Truncate { file: Arc::clone(name), bytes: bytes.len() as u64 });
            self.note(Op::Write { file: Arc::clone(name), offset: 0, bytes: bytes.into() });
            self.note(Op::Sync(Arc::clone(name)));
            self.leave(name);
        }
        Some(alone)
    }

    /// Lets the next look at a log see what is written from here on.
    pub fn leave(&self, name: &Name) {
        if self.watches(name) {
            let log = fs::File::options().write(true).open(self.folder.join(&**name));
            // A log that was removed meanwhile needs no look.
            let _ = log.and_then(|log| log.set_modified(UNIX_EPOCH));
            self.state().logs.insert(Arc::clone(name));
        }
    }

    fn watches(&self, name: &Name) -> bool {
        name.ends_with(LOG_ENDING) && self.state().recording
    }

    fn look_at_logs(&self) {
        let logs = self.state().logs.clone();
        logs.iter().for_each(|name| drop(self.look_at(name)));
    }

    /// Counts a call and decides what becomes of it.
    pub fn call(&self, call: Call) -> Verdict {
        let mut state = self.state();
        let Some(fault) = state.fault.filter(|fault| fault.call == call) else {
            return Verdict::Goes;
        };
        let count = state.calls.entry(call).or_default();
        *count += 1;
        let strikes = match fault.repeat {
            Repeat::Once => *count == fault.nth,
            Repeat::UntilHealed => *count >= fault.nth,
        };
        if strikes {
            state.struck += 1;
            Verdict::Fails(fault.how)
        } else {
            Verdict::Goes
        }
    }

    /// Whether a file of this disk is there.
    pub fn exists(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }
}

fn read_files(root: &Path, folder: &Path, files: &mut BTreeMap<Name, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_files(root, &path, files)?;
            continue;
        }
        let name = path.strip_prefix(root).ok().and_then(Path::to_str);
        let name = name.ok_or(io::ErrorKind::InvalidFilename)?;
        if !name.ends_with(SHARED_MEMORY_ENDING) {
            files.insert(name.into(), fs::read(&path)?);
        }
    }
    Ok(())
}
