//! How long things took, of which a process can tell another one: an HDR histogram of microseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, Outcome};

/// Longest time that is told from longer ones, in microseconds.
const MOST_US: u64 = 300_000_000;
/// Digits that are kept of each time.
const DIGITS: u8 = 3;

/// How long things took.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_max(MOST_US, DIGITS);
        Self(histogram.expect("the limits of a histogram are within its range"))
    }

    /// Notes one more; what takes longer than the histogram knows counts as the longest.
    pub fn note(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(MOST_US));
    }

    /// Takes in all of another one.
    pub fn add(&mut self, other: &Self) -> Outcome {
        Ok(self.0.add(&other.0)?)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time, in milliseconds, that such a part of them did not exceed.
    pub fn ms_at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The longest, in milliseconds.
    pub fn most_ms(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

impl From<Latencies> for Vec<(u64, u64)> {
    fn from(latencies: Latencies) -> Self {
        let counts = latencies.0.iter_recorded();
        counts.map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

impl TryFrom<Vec<(u64, u64)>> for Latencies {
    type Error = Failure;

    fn try_from(counts: Vec<(u64, u64)>) -> Outcome<Self> {
        let mut latencies = Self::new();
        for (value, count) in counts {
            latencies.0.record_n(value.min(MOST_US), count)?;
        }
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_tells_another_is_the_same_to_three_digits() {
        let mut latencies = Latencies::new();
        for ms in 1..=1_000 {
            latencies.note(Duration::from_millis(ms));
        }
        latencies.note(Duration::from_hours(1));
        let told = serde_json::to_string(&latencies).unwrap();
        let heard: Latencies = serde_json::from_str(&told).unwrap();
        assert_eq!(heard.count(), 1_001);
        for quantile in [0.01, 0.5, 0.99, 1.0] {
            let (told, heard) = (latencies.ms_at(quantile), heard.ms_at(quantile));
            assert!((told - heard).abs() <= told / 1e3, "{told} {heard}");
        }
        assert!((heard.most_ms() - 300_000.0).abs() < 300.0, "{}", heard.most_ms());
    }
}
