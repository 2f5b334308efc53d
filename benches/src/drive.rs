//! Runs that are driven by a generator: how busy it was, and how busy the server was meanwhile, over all runs of a row.

use crate::generator::{Generator, Job};
use crate::machine::{Busy, percent};
use crate::outcome::Outcome;

/// A generator has one thread that makes load; where it is busier than this, it is the bottleneck.
const MOST_GENERATOR_SHARE: f64 = 0.85;

/// How busy both sides were.
#[derive(Debug, Default)]
pub struct Drive {
    /// The busiest generator of all runs, in parts of a processor.
    busiest: f64,
    last: String,
}

impl Drive {
    /// Lets a generator do its job against servers, by their processes.
    pub fn run<J: Job>(&mut self, job: &J, servers: &[u32]) -> Outcome<J::Found> {
        let mut generator = Generator::start(job)?;
        let busy = Both::of(&[generator.process()], servers);
        generator.go()?;
        let found = generator.found()?;
        self.note(&busy);
        Ok(found)
    }

    /// Notes how busy both sides have been since `busy` was taken.
    pub fn note(&mut self, busy: &Both) {
        let shares = |of: &[Busy]| of.iter().map(|busy| busy.share().unwrap_or(f64::NAN)).collect();
        let (generators, servers): (Vec<f64>, Vec<f64>) =
            (shares(&busy.generators), shares(&busy.servers));
        self.busiest = generators.iter().copied().fold(self.busiest, f64::max);
        let described = |shares: &[f64]| {
            let shares: Vec<String> = shares.iter().map(|share| percent(*share)).collect();
            shares.join(" and ")
        };
        self.last = format!("generator {}, server {}", described(&generators), described(&servers));
    }

    /// How busy both sides were in the last run.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Why no run counts, where a generator was the bottleneck of one.
    pub fn why_not_to_count(&self) -> Option<String> {
        (self.busiest > MOST_GENERATOR_SHARE).then(|| {
            format!(
                "does not count: a generator, which has one thread, took {}",
                percent(self.busiest)
            )
        })
    }
}

/// How busy generators and servers are from now on.
#[derive(Debug)]
pub struct Both {
    generators: Vec<Busy>,
    servers: Vec<Busy>,
}

impl Both {
    pub fn of(generators: &[u32], servers: &[u32]) -> Self {
        let busy = |processes: &[u32]| processes.iter().copied().map(Busy::of).collect();
        Self { generators: busy(generators), servers: busy(servers) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_whose_generator_is_the_bottleneck_does_not_count() {
        let mut drive = Drive { busiest: 0.6, last: String::new() };
        assert_eq!(drive.why_not_to_count(), None);
        drive.busiest = 0.97;
        let why = drive.why_not_to_count().unwrap();
        assert!(why.contains("does not count") && why.contains("97 %"), "{why}");
    }
}
