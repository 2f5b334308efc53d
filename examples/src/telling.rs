//! The lines and progress bars that a story shows: lines on stdout, progress on stderr.
//!
//! Where stderr is no terminal, long work shows two plain lines instead of a bar.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar is drawn, per second.
const DRAWS_PER_SECOND: u8 = 10;

/// Tells a story in chapters, and remembers how long each one took.
#[derive(Debug, Default)]
pub struct Telling {
    chapters: Vec<(String, Duration)>,
    running: Option<(String, Instant)>,
}

impl Telling {
    /// Begins a chapter, which ends the one before.
    pub fn chapter(&mut self, title: &str) {
        self.end();
        let number = self.chapters.len() + 1;
        println!("\n{number}. {title}");
        self.running = Some((title.to_owned(), Instant::now()));
    }

    /// Ends the chapter.
    pub fn end(&mut self) {
        if let Some((title, started)) = self.running.take() {
            self.chapters.push((title, started.elapsed()));
        }
    }

    /// One line of the chapter.
    pub fn line(&self, line: impl AsRef<str>) {
        println!("   {}", line.as_ref());
    }

    /// The chapter that is being told.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.running.as_ref().map(|(title, _)| title.as_str())
    }

    /// The chapters that are over, with the time that each took.
    #[must_use]
    pub fn chapters(&self) -> &[(String, Duration)] {
        &self.chapters
    }

    /// Shows that something long has begun.
    #[must_use]
    pub fn progress(&self, label: &str, total: usize) -> Progress {
        Progress::new(label, total)
    }
}

/// Something long that is under way.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    label: String,
    on_terminal: bool,
    started: Instant,
}

impl Progress {
    fn new(label: &str, total: usize) -> Self {
        let on_terminal = stderr().is_terminal();
        let target = if on_terminal {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)
        } else {
            eprintln!("   {label}: {total} ..");
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let style = ProgressStyle::with_template("   {msg} {wide_bar} {pos}/{len} {elapsed}")
            .expect("the template has known keys only");
        bar.set_style(style);
        bar.set_message(label.to_owned());
        Self { bar, label: label.to_owned(), on_terminal, started: Instant::now() }
    }

    /// So many are done in all.
    pub fn reached(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// So many more are done.
    pub fn advance(&self, more: u64) {
        self.bar.inc(more);
    }

    /// It is over; says how long it took.
    pub fn finish(self) -> Duration {
        let took = self.started.elapsed();
        self.bar.finish_and_clear();
        if !self.on_terminal {
            eprintln!("   {}: done in {:.1} s", self.label, took.as_secs_f64());
        }
        took
    }
}
