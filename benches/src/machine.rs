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
/// How Linux counts processor time in /proc; fixed since 2.6, whatever the kernel's own ticks are.
const TICKS_PER_SECOND: u64 = 100;

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
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// The processor time that a process has used so far; `None` where the system does not say.
pub fn processor_time(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name stands in brackets and may hold anything; the fields after it are numbered from 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
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

    /// In percent of one processor.
    pub fn describe(&self) -> String {
        let used = processor_time(self.process).zip(self.before);
        let percent = used.map(|(now, before)| {
            (now.saturating_sub(before)).as_secs_f64() / self.started.elapsed().as_secs_f64()
                * 100.0
        });
        percent.map_or_else(
            || "not known".to_owned(),
            |percent| format!("{percent:.0} % of one processor"),
        )
    }
}
