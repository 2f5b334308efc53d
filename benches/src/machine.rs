//! What the machine gives: the disk's fsync, the memory and the processor time of processes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::outcome::Outcome;

/// Writes of one probe.
const PROBE_WRITES: usize = 100;
/// Bytes of one write: a page of SQLite.
const PROBE_BYTES: usize = 4 << 10;

/// How long the disk takes to make a small write durable.
#[derive(Debug, Clone, Copy)]
pub struct Fsync {
    pub writes: usize,
    pub median_ms: f64,
    pub most_ms: f64,
}

/// Appends to a file and waits for the disk, each time.
pub fn fsync_probe(dir: &Path) -> Outcome<Fsync> {
    let path = dir.join("fsync-probe");
    let mut file = File::create(&path)?;
    let page = [0x5a; PROBE_BYTES];
    let mut times = Vec::with_capacity(PROBE_WRITES);
    for _ in 0..PROBE_WRITES {
        let started = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(&path)?;
    times.sort_by(f64::total_cmp);
    Ok(Fsync {
        writes: PROBE_WRITES,
        median_ms: times[PROBE_WRITES / 2],
        most_ms: times[PROBE_WRITES - 1],
    })
}

/// The most memory that a process has held so far, in MiB; `None` where the system does not say.
pub fn peak_memory_mib(process: u32) -> Option<f64> {
    status_mib(process, "VmHWM:")
}

fn status_mib(process: u32, key: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// The memory of its own that a process holds now, in MiB: neither its program nor files; `None` where the system does
/// not say.
pub fn own_memory_mib(process: u32) -> Option<f64> {
    status_mib(process, "RssAnon:")
}

/// Lets [`peak_memory_mib`] begin anew, where the system can.
pub fn forget_peak(process: u32) -> Outcome {
    Ok(fs::write(format!("/proc/{process}/clear_refs"), "5")?)
}

/// How many threads wanted a processor in the last minute, on average; `None` where the system does not say.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// How many files this process, and what it starts, may have open; `None` where the system does not say.
pub fn most_open_files() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The processor time that a process has used so far; `None` where the system does not say.
pub fn processor_time(process: u32) -> Option<Duration> {
    // Nanoseconds on a processor stand first; threads that have ended are not counted any more.
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
        let Ok(times) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        nanoseconds += times.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// How busy a process is between two looks.
#[derive(Debug)]
pub struct Busy {
    process: u32,
    started: Instant,
    before: Option<Duration>,
}

impl Busy {
    pub fn of(process: u32) -> Self {
        Self { process, started: Instant::now(), before: processor_time(process) }
    }

    /// How much of one processor it used since then; `None` where the system does not say.
    pub fn share(&self) -> Option<f64> {
        let (now, before) = processor_time(self.process).zip(self.before)?;
        Some(now.saturating_sub(before).as_secs_f64() / self.started.elapsed().as_secs_f64())
    }

    /// In percent of one processor.
    pub fn describe(&self) -> String {
        percent(self.share().unwrap_or(f64::NAN))
    }
}

/// A part of a processor in percent; what is not a number is not known.
pub fn percent(share: f64) -> String {
    if share.is_nan() {
        return "not known".to_owned();
    }
    format!("{:.0} % of one processor", share * 100.0)
}
