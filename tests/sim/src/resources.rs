//! What the process holds: open files and memory. Runs give back what they took, however many there are.

use std::fs;

/// Open files more than before that are no leak: the standard library and the runtime keep a few.
pub const MOST_MORE_FILES: u64 = 16;
/// Memory more than before that is no leak, in bytes: what allocators keep of the largest run.
pub const MOST_MORE_BYTES: u64 = 256 << 20;

/// What the process holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Open files, sockets included.
    pub files: u64,
    /// Resident memory, in bytes.
    pub bytes: u64,
}

impl Resources {
    /// What it holds now; `None` where the system does not say it in `/proc`.
    #[must_use]
    pub fn now() -> Option<Self> {
        let files = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = resident.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(Self { files, bytes: kilobytes << 10 })
    }

    /// What was not given back since an earlier moment, in words.
    #[must_use]
    pub fn kept_since(&self, before: &Self) -> Vec<String> {
        let mut kept = Vec::new();
        let files = self.files.saturating_sub(before.files);
        if files > MOST_MORE_FILES {
            kept.push(format!("{files} more files are open than before"));
        }
        let bytes = self.bytes.saturating_sub(before.bytes);
        if bytes > MOST_MORE_BYTES {
            kept.push(format!("{} MiB of memory more are held than before", bytes >> 20));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_stay_open_are_seen() {
        let before = Resources::now().expect("Linux has /proc");
        let file = || fs::File::open("/dev/null").unwrap();
        let few: Vec<_> = (0..4).map(|_| file()).collect();
        assert_eq!(Resources::now().unwrap().kept_since(&before), [""; 0]);
        let many: Vec<_> = (0..3 * MOST_MORE_FILES).map(|_| file()).collect();
        assert_eq!(Resources::now().unwrap().kept_since(&before).len(), 1);
        drop((few, many));
    }

    #[test]
    fn memory_that_is_kept_is_seen() {
        let before = Resources { files: 0, bytes: 1 << 30 };
        let grown = |by: u64| Resources { files: 0, bytes: (1 << 30) + by };
        assert_eq!(grown(MOST_MORE_BYTES).kept_since(&before), [""; 0]);
        assert_eq!(grown(MOST_MORE_BYTES + 1).kept_since(&before).len(), 1);
        assert!(Resources::now().expect("Linux has /proc").bytes > 1 << 20);
    }
}
