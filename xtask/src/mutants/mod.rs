//! `mutants`: small changes to what everything else stands on, each of which a unit test must notice.
//!
//! [cargo-mutants](https://mutants.rs) makes them, in the work tree itself, so that nothing but the changed crate is
//! built again; it takes each of them back. Files with changes that are not committed are therefore left alone.
//!
//! - `outcomes`: what cargo-mutants wrote down.
//! - `page`: `docs/mutants.md`, which lists by name what lives and why, and shows the counts.

mod outcomes;
mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::{preflight, process};

use outcomes::Outcomes;
use page::Page;

/// What installs cargo-mutants; its reports are read as this version writes them.
const INSTALL: &str = "cargo install --locked cargo-mutants@27.1.0";
/// Mutants of one start of cargo-mutants: the time is looked at after each.
const SHARD_MUTANTS: usize = 10;
/// Longest run of the tests of one mutant, in seconds; one that takes longer hangs, which counts as caught.
const TIMEOUT_S: &str = "120";
/// Time where none is given, in minutes.
const MINUTES: u64 = 60;
/// The folder that Linux keeps in memory.
const MEMORY: &str = "/dev/shm";
/// Where cargo-mutants keeps its logs, from the root of the repository.
const LOGS: &str = "target/mutants";

/// Code that is mutated, with the tests that have to notice.
struct Code {
    /// Its name on the command line and on the page.
    name: &'static str,
    package: &'static str,
    /// From the root of the repository; `*` stands for any name.
    files: &'static [&'static str],
    /// Filters of the package's unit tests, and other arguments for them.
    tests: &'static [&'static str],
}

const CODES: &[Code] = &[
    Code {
        name: "clock-and-digest",
        package: "farshore-sync-core",
        files: &["sync-core/src/digest.rs", "sync-core/src/hlc.rs"],
        tests: &["digest", "hlc"],
    },
    Code {
        name: "merge",
        package: "farshore-sync-core",
        files: &[
            "sync-core/src/row/merge.rs",
            "sync-core/src/row/apply.rs",
            "sync-core/src/row.rs",
        ],
        // The merge laws take their time, and what they hold is held by examples too.
        tests: &["row::", "--skip", "properties"],
    },
    Code {
        name: "outbox",
        package: "farshore-client",
        files: &[
            "client-sdk/src/store/outbox.rs",
            "client-sdk/src/store/outcomes.rs",
            "client-sdk/src/store/pending.rs",
        ],
        // Random histories take minutes.
        tests: &["store::", "--skip", "store::tests::properties"],
    },
    Code {
        name: "authorisation",
        package: "farshore-server",
        files: &["server/src/auth/*.rs"],
        tests: &["auth::"],
    },
];

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every mutant that the time allows.
    All,
    /// A few of each code, to see that it runs.
    Few,
}

/// What came of mutants that compile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tried {
    /// Those that a test noticed, also by hanging.
    pub caught: u64,
    /// Those that no test noticed.
    pub alive: u64,
    /// Those among them that the page does not list.
    pub unlisted: u64,
    /// Those that there was no time for, whether they compile or not.
    pub left: u64,
}

impl Tried {
    /// Mutants that were tried.
    pub fn trials(&self) -> u64 {
        self.caught + self.alive
    }

    /// The counts in words.
    pub fn note(&self) -> String {
        let share = percent(self.caught, self.alive);
        let mut note = format!("{} caught ({share}), {} alive", self.caught, self.alive);
        if self.left > 0 {
            note.push_str(&format!(", {} not tried", self.left));
        }
        note
    }
}

/// `caught` of all that compile, in percent.
fn percent(caught: u64, alive: u64) -> String {
    match (caught * 100).checked_div(caught + alive) {
        Some(percent) => format!("{percent} %"),
        None => "none".to_owned(),
    }
}

/// Runs the mutants of one code, or of all, and brings the page up to date with those that were tried whole.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = options(arguments)?;
    let codes: Vec<&Code> =
        CODES.iter().filter(|code| options.name.is_none_or(|name| name == code.name)).collect();
    let (tried, whole) = try_codes(&codes, options.minutes, Extent::All)?;
    let page = Page::read()?;
    whole.iter().fold(page, |page, (code, outcomes)| page.with_row(code, outcomes)).write()?;
    eprintln!("xtask: {}", tried.note());
    match tried.unlisted {
        0 => Ok(()),
        unlisted => Err(Failure::Mutants { unlisted, page: page::PAGE }),
    }
}

/// Runs the mutants of every code; writes no page.
pub fn prove(minutes: u64, extent: Extent) -> Result<Tried, Failure> {
    let (tried, _) = try_codes(&CODES.iter().collect::<Vec<_>>(), minutes, extent)?;
    Ok(tried)
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    name: Option<&'static str>,
    minutes: u64,
}

fn options(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options { name: None, minutes: MINUTES };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--minutes" {
            let text = arguments.next().map_or("", String::as_str);
            options.minutes = text
                .parse()
                .map_err(|_| Failure::Usage(format!("{text:?} is no number of minutes")))?;
        } else if let Some(code) = CODES.iter().find(|code| code.name == argument) {
            options.name = Some(code.name);
        } else {
            let known: Vec<_> = CODES.iter().map(|code| code.name).collect();
            return Err(Failure::Usage(format!("{argument:?} is none of {}", known.join(", "))));
        }
    }
    Ok(options)
}

/// The outcomes of codes that were tried whole, by name.
type Whole = Vec<(&'static str, Outcomes)>;

/// Each code gets its part of the time that is left.
fn try_codes(codes: &[&Code], minutes: u64, extent: Extent) -> Result<(Tried, Whole), Failure> {
    preflight::check(&[preflight::BUILD])?;
    if !process::succeeds(process::cargo(["mutants", "--version"])) {
        return Err(Failure::Missing(format!("cargo-mutants is missing: `{INSTALL}`")));
    }
    let known = Page::read()?.known()?;
    let watch = Watch::start(Duration::from_secs(minutes * 60));
    let (mut sum, mut whole) = (Tried::default(), Whole::new());
    for (at, code) in codes.iter().enumerate() {
        let until = watch.part(codes.len() - at);
        let found = code.run(&watch, until, extent)?;
        let unlisted = known.without(&found.outcomes.alive);
        for mutant in &unlisted {
            eprintln!("xtask: alive and not listed: {mutant}");
        }
        if found.left == 0 {
            for listed in known.gone(code.files, &found.outcomes.alive) {
                eprintln!("xtask: listed and not alive: {listed}");
            }
        }
        sum.caught += found.outcomes.caught;
        sum.alive += found.outcomes.alive.len() as u64;
        sum.unlisted += unlisted.len() as u64;
        sum.left += found.left as u64;
        if found.left == 0 {
            whole.push((code.name, found.outcomes));
        }
    }
    Ok((sum, whole))
}

/// What came of a code's mutants, as far as there was time.
struct Found {
    outcomes: Outcomes,
    left: usize,
}

impl Code {
    fn run(&self, watch: &Watch, until: Duration, extent: Extent) -> Result<Found, Failure> {
        self.require_committed()?;
        let mut list = self.command();
        list.args(["--list", "--json"]);
        let total = outcomes::listed(&process::output(list)?)?;
        // Each shard has mutants of every file, so that those for which there was time are a fair part.
        let shards = total.div_ceil(SHARD_MUTANTS);
        let wanted = if extent == Extent::Few { shards.min(1) } else { shards };
        let mut found = Outcomes::default();
        for shard in 0..wanted {
            if shard > 0 && watch.passed() > until {
                break;
            }
            found.add(self.run_shard(shard, shards)?);
        }
        let left = total.saturating_sub(found.mutants());
        eprintln!("xtask: {}", page::row(self.name, &found, left));
        Ok(Found { outcomes: found, left })
    }

    fn run_shard(&self, shard: usize, shards: usize) -> Result<Outcomes, Failure> {
        let logs = process::root().join(LOGS).join(self.name).join(shard.to_string());
        fs::create_dir_all(&logs)
            .map_err(|source| Failure::Write { path: logs.clone(), source })?;
        // The tests are run without a mutant once: later shards know that they pass.
        let baseline = if shard == 0 { "run" } else { "skip" };
        let shard = format!("{shard}/{shards}");
        let mut run = self.command();
        run.args(["--in-place", "--baseline", baseline, "--timeout", TIMEOUT_S]);
        run.args(["--shard", shard.as_str(), "--sharding", "round-robin", "--output"]).arg(&logs);
        // No other target of the package is built.
        run.args(["--cargo-arg=--lib", "--", "--"]).args(self.tests);
        // A property that a mutant breaks is neither kept for later runs nor made smaller.
        run.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0");
        // Stores that sync to a disk take many times as long.
        if Path::new(MEMORY).is_dir() {
            run.env("TMPDIR", MEMORY);
        }
        match process::run(run) {
            // Some are alive, or some hang.
            Ok(()) | Err(Failure::Ended { code: Some(2 | 3), .. }) => {}
            Err(failure) => return Err(failure),
        }
        Outcomes::read(&logs.join("mutants.out/outcomes.json"))
    }

    /// `cargo mutants` for these files.
    fn command(&self) -> Command {
        let mut command = process::cargo(["mutants", "--package", self.package]);
        for file in self.files {
            command.args(["--file", file]);
        }
        command
    }

    /// A mutant that was not taken back, because the machine went down, is a change that is not committed too.
    fn require_committed(&self) -> Result<(), Failure> {
        let mut status = Command::new("git");
        status.current_dir(process::root()).args(["status", "--porcelain", "--"]).args(self.files);
        let changed = process::output(status)?;
        if changed.trim().is_empty() {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "commit or stash first what mutants would be planted into:\n{changed}"
        )))
    }
}

/// How much time has passed since a start, and how much there is.
struct Watch {
    started: Instant,
    whole: Duration,
}

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "mutants are tried as long as there is time")]
    fn start(whole: Duration) -> Self {
        Self { started: Instant::now(), whole }
    }

    fn passed(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the next of so many equal parts of what is left is over.
    fn part(&self, of: usize) -> Duration {
        let passed = self.passed();
        let parts = u32::try_from(of.max(1)).unwrap_or(u32::MAX);
        passed + self.whole.saturating_sub(passed) / parts
    }
}

/// Where the page is.
fn page_path() -> PathBuf {
    process::root().join(page::PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, Failure> {
        options(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_wrong_ones_are_named() {
        let all = Options { name: None, minutes: MINUTES };
        assert_eq!(read(&[]).unwrap(), all);
        let merge = Options { name: Some("merge"), minutes: 5 };
        assert_eq!(read(&["merge", "--minutes", "5"]).unwrap(), merge);
        for wrong in [&["marge"][..], &["--minutes"], &["--minutes", "many"], &["--fast"]] {
            assert!(matches!(read(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn every_file_that_is_mutated_is_there_and_every_code_has_its_row() {
        let page = Page::read().unwrap();
        for code in CODES {
            assert!(page.has_row(code.name), "{}", code.name);
            for file in code.files {
                let path = process::root().join(file);
                let there = if file.contains('*') { path.parent().unwrap() } else { &path };
                assert!(there.exists(), "{file}");
            }
        }
    }

    #[test]
    fn what_the_page_lists_is_in_files_that_are_mutated() {
        let known = Page::read().unwrap().known().unwrap();
        let files: Vec<_> = CODES.iter().flat_map(|code| code.files).copied().collect();
        assert_eq!(known.outside(&files), Vec::<String>::new());
    }

    #[test]
    fn the_note_counts_what_compiles() {
        let mut tried = Tried { caught: 17, alive: 3, unlisted: 0, left: 0 };
        assert_eq!((tried.trials(), tried.note().as_str()), (20, "17 caught (85 %), 3 alive"));
        tried.left = 4;
        assert_eq!(tried.note(), "17 caught (85 %), 3 alive, 4 not tried");
        assert_eq!(Tried::default().note(), "0 caught (none), 0 alive");
    }
}
