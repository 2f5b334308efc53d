//! The table and the JSON.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::drive::Drive;
use crate::legs::Readings;
use crate::outcome::Outcome;

/// What something costs at one size.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Point {
    pub size: usize,
    pub cost: f64,
}

/// What something costs at several sizes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Growth {
    /// The cost of what.
    pub cost: String,
    /// The sizes of what.
    pub of: String,
    pub points: Vec<Point>,
}

impl Growth {
    /// How steep the cost rises with the size on logarithmic scales, by least squares.
    pub fn slope(&self) -> f64 {
        let logs = self.points.iter().map(|point| ((point.size as f64).ln(), point.cost.ln()));
        let logs: Vec<(f64, f64)> = logs.collect();
        let count = logs.len() as f64;
        let (sizes, costs) =
            logs.iter().fold((0.0, 0.0), |sum, log| (sum.0 + log.0, sum.1 + log.1));
        let (size, cost) = (sizes / count, costs / count);
        let rise: f64 = logs.iter().map(|log| (log.0 - size) * (log.1 - cost)).sum();
        rise / logs.iter().map(|log| (log.0 - size).powi(2)).sum::<f64>()
    }
}

/// One figure, with that of a peer where there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// The bench, and after a dot what of it, unless it is the main figure.
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// What it is compared with.
    pub reference: Option<String>,
    pub reference_value: Option<f64>,
    /// The value by that of the reference.
    pub ratio: Option<f64>,
    /// What the reader has to know before the value counts, such as a peer that is not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// What the figure is the slope of, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// How it was measured, and how far the runs were apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Figure {
    /// A figure without a peer.
    pub fn alone(name: &str, value: f64, unit: &str) -> Self {
        let (name, unit) = (name.to_owned(), unit.to_owned());
        Self {
            name,
            value,
            unit,
            reference: None,
            reference_value: None,
            ratio: None,
            remark: None,
            growth: None,
            note: String::new(),
        }
    }

    /// How the cost of something grows with sizes of something.
    pub fn of_growth(name: &str, cost: &str, of: &str, points: Vec<Point>) -> Self {
        let growth = Growth { cost: cost.to_owned(), of: of.to_owned(), points };
        let slope = growth.slope();
        Self { growth: Some(growth), ..Self::alone(name, slope, "log-log slope") }
    }

    /// A figure with the same figure of a peer.
    pub fn against(
        name: &str,
        value: f64,
        unit: &str,
        reference: &str,
        reference_value: f64,
    ) -> Self {
        let ratio = (reference_value != 0.0).then(|| value / reference_value);
        Self {
            reference: Some(reference.to_owned()),
            reference_value: Some(reference_value),
            ratio,
            ..Self::alone(name, value, unit)
        }
    }

    /// Rows a second of two legs that ran in turns.
    pub fn of_rates(name: &str, ours: &Readings, reference: &str, theirs: &Readings) -> Self {
        Self::of_legs(name, "rows/s", ours, reference, theirs)
    }

    /// Two legs that ran in turns.
    pub fn of_legs(
        name: &str,
        unit: &str,
        ours: &Readings,
        reference: &str,
        theirs: &Readings,
    ) -> Self {
        let note = format!(
            "{name}: ours {}, reference {}, ratio of neighbours {}",
            ours.describe(),
            theirs.describe(),
            ours.describe_ratios(theirs)
        );
        let figure = Self::against(name, ours.median(), unit, reference, theirs.median());
        figure.noted(note)
    }

    /// The figure with a further remark in the table.
    pub fn remarked(self, remark: impl Into<String>) -> Self {
        let (before, remark) = (self.remark, remark.into());
        let remark = before.map_or_else(|| remark.clone(), |before| format!("{before}; {remark}"));
        Self { remark: Some(remark), ..self }
    }

    /// Says how busy generator and server were, and where the generator was the bottleneck, that nothing counts.
    pub fn driven_by(self, drive: &Drive) -> Self {
        let about =
            if self.note.is_empty() { self.name.clone() + ":" } else { self.note.clone() + ";" };
        let figure = self.noted(format!("{about} in the last run: {}", drive.last()));
        match drive.why_not_to_count() {
            Some(why) => figure.remarked(why),
            None => figure,
        }
    }

    /// The figure with a note.
    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// Prints what the table has no room for.
pub fn print_notes(figures: &[Figure]) {
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        println!("  {}", figure.note);
    }
}

/// Prints all figures.
pub fn print_table(figures: &[Figure]) {
    let head = ["name", "value", "unit", "reference", "reference value", "ratio", "remark"]
        .map(str::to_owned);
    let line_of = |figure: &Figure| {
        [
            figure.name.clone(),
            rounded(figure.value),
            figure.unit.clone(),
            figure.reference.clone().unwrap_or_default(),
            figure.reference_value.map(rounded).unwrap_or_default(),
            figure.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
            figure.remark.clone().unwrap_or_default(),
        ]
    };
    let lines: Vec<_> = std::iter::once(head).chain(figures.iter().map(line_of)).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    println!();
    for line in &lines {
        let cells = line.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
            0 | 2 | 3 | 6 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Writes all figures.
pub fn write_json(path: &Path, figures: &[Figure]) -> Outcome {
    let text = serde_json::to_string_pretty(figures)?;
    let written = fs::write(path, text + "\n");
    written.map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Three digits are more than a machine repeats.
pub fn rounded(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_tells_what_stays_from_what_grows() {
        let slope = |costs: [f64; 3]| {
            let points = costs.into_iter().zip([3, 30, 300]);
            let points = points.map(|(cost, size)| Point { size, cost }).collect();
            Figure::of_growth("growth.row", "us a row", "rows", points).value
        };
        assert!(slope([5.0, 5.0, 5.0]).abs() < 1e-9);
        assert!((slope([5.0, 50.0, 500.0]) - 1.0).abs() < 1e-9);
        assert!((slope([400.0, 40.0, 4.0]) + 1.0).abs() < 1e-9);
    }
}
