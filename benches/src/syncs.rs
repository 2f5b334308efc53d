//! How often a process asks the disk to make something durable, counted by the kernel: the tracepoints of `fsync`
//! and `fdatasync`, through `perf stat`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::outcome::Outcome;

const EVENTS: &str = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";

/// How often perf is asked to begin.
const ATTEMPTS: usize = 5;

/// A count that is under way.
#[derive(Debug)]
pub struct Syncs {
    perf: Child,
    counted: PathBuf,
}

impl Syncs {
    /// Begins to count; an error says what is missing. A thread that ends while the counters are set up makes perf give up,
    /// so it is asked a few times.
    pub fn of(process: u32, dir: &Path) -> Outcome<Self> {
        let mut counting = Self::begin(process, dir);
        for _ in 1..ATTEMPTS {
            if counting.is_ok() {
                break;
            }
            counting = Self::begin(process, dir);
        }
        counting
    }

    fn begin(process: u32, dir: &Path) -> Outcome<Self> {
        let counted = dir.join("syncs");
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-e", EVENTS, "-p", &process.to_string(), "-o"]);
        // The count lasts as long as this program, which ends with its input.
        perf.arg(&counted).args(["--", "cat"]);
        perf.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let missing = "no counts of fsync: needs `perf` and the right to trace";
        let mut syncs = Self { perf: perf.spawn().map_err(|_| missing)?, counted };
        // What comes back says that the counters run.
        let (input, output) = (syncs.perf.stdin.as_mut(), syncs.perf.stdout.as_mut());
        let (Some(input), Some(output)) = (input, output) else { return Err(missing.into()) };
        input.write_all(b"ready\n").map_err(|_| missing)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.trim_end() == "ready" { Ok(syncs) } else { Err(missing.into()) }
    }

    /// Ends the count and gives it.
    pub fn count(mut self) -> Outcome<u64> {
        drop(self.perf.stdin.take());
        self.perf.wait()?;
        let mut sum = 0;
        for line in
            fs::read_to_string(&self.counted)?.lines().filter(|line| line.contains("sys_enter"))
        {
            sum += line.split(',').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(sum)
    }
}

impl Drop for Syncs {
    fn drop(&mut self) {
        // It ends by itself when its input does; one that has ended already is as good.
        drop(self.perf.stdin.take());
        let _ = self.perf.wait();
    }
}
