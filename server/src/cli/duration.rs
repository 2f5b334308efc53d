//! Spans of time as people write them: `90s`, `15m`, `12h`, `30d`.

use std::str::FromStr;

/// A span of whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) =
            text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => 0,
        };
        let span = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
        span.filter(|span| *span > 0)
            .map(Self)
            .ok_or_else(|| "expected a span such as 90s, 15m, 12h or 30d".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(text.parse(), Ok(Seconds(seconds)));
        }
        for bad in [
            "",
            "s",
            "30",
            "0d",
            "1w",
            "-1d",
            "1d2h",
            "99999999999999999999d",
            "9999999999999999999d",
        ] {
            assert!(bad.parse::<Seconds>().is_err(), "{bad}");
        }
    }
}
