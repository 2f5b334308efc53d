//! Legs in turns: one run of each, then again, so that a machine that slows down slows all of them down.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};

use crate::outcome::Outcome;

/// One leg: it runs once and gives its figure.
pub type Leg<'a> = &'a mut dyn FnMut() -> Outcome<f64>;

/// What one leg gave in each of its runs.
#[derive(Debug, Clone)]
pub struct Readings(Vec<f64>);

impl Readings {
    /// From readings that were taken one by one.
    pub fn new(readings: Vec<f64>) -> Self {
        assert!(!readings.is_empty(), "a leg runs at least once");
        Self(readings)
    }

    /// The one in the middle; the mean of two.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
    }

    /// The least and the most.
    pub fn range(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }

    /// The range as people read it.
    pub fn describe(&self) -> String {
        let (least, most) = self.range();
        format!("{least:.0} to {most:.0}")
    }

    /// The range of the ratios of runs that were next to each other.
    pub fn describe_ratios(&self, reference: &Self) -> String {
        let ratios = self.0.iter().zip(&reference.0).map(|(ours, theirs)| ours / theirs);
        let (least, most) = Self::new(ratios.collect()).range();
        format!("{least:.2} to {most:.2}")
    }
}

/// Runs each leg so many times, in turns.
pub fn in_turns<const N: usize>(
    label: &str,
    times: usize,
    legs: [(&str, Leg<'_>); N],
) -> Outcome<[Readings; N]> {
    let bar = progress(label, times * N);
    let (names, mut legs): (Vec<_>, Vec<_>) = legs.into_iter().unzip();
    let mut readings = [const { Vec::new() }; N];
    for _ in 0..times {
        for (leg, (name, found)) in legs.iter_mut().zip(names.iter().zip(&mut readings)) {
            bar.set_message(format!("{label}: {name}"));
            found.push(leg()?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(readings.map(Readings::new))
}

/// A bar on stderr; a plain line where that is no terminal.
pub fn progress(label: &str, total: usize) -> ProgressBar {
    let target = if stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        eprintln!("  {label} ..");
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    let style = ProgressStyle::with_template("  {msg} {wide_bar} {pos}/{len} {elapsed}")
        .expect("the template has known keys only");
    bar.set_style(style);
    bar.set_message(label.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Readings::new(vec![9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(Readings::new(vec![4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        assert_eq!(Readings::new(vec![4.0, 1.0, 2.0]).range(), (1.0, 4.0));
    }

    #[test]
    fn legs_run_in_turns() {
        let order = std::cell::RefCell::new(Vec::new());
        let run = |name: f64| {
            order.borrow_mut().push(name);
            Ok(name)
        };
        let legs: [(&str, Leg<'_>); 2] = [("a", &mut || run(1.0)), ("b", &mut || run(2.0))];
        let [ours, theirs] = in_turns("test", 2, legs).unwrap();
        assert_eq!(*order.borrow(), [1.0, 2.0, 1.0, 2.0]);
        assert_eq!((ours.median(), theirs.median()), (1.0, 2.0));
    }
}
