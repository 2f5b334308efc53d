//! Which servers are too old.

/// The oldest line that is served: views that check the rights of whoever reads them began with it.
const OLDEST_LINE: u32 = 15;
/// The first release of each line in which statistics no longer show rows past row-level security
/// (CVE-2025-8713); lines that are not listed began with it.
const FIRST_SAFE: [(u32, u32); 3] = [(15, 14), (16, 10), (17, 6)];
/// What is open before those.
pub(crate) const OPEN_CVE: &str = "CVE-2025-8713";

/// The version of a server, as `server_version_num` tells it: 150014 is 15.14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion(pub u32);

/// What a version means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is served.
    Fine,
    /// It is served, but has a hole that this release of its line closes.
    Open {
        /// The release.
        closed_in: ServerVersion,
    },
    /// It is not served.
    TooOld,
}

impl ServerVersion {
    pub const fn line(self) -> u32 {
        self.0 / 10_000
    }

    pub fn verdict(self) -> Verdict {
        if self.line() < OLDEST_LINE {
            return Verdict::TooOld;
        }
        let safe = FIRST_SAFE.iter().find(|(line, _)| *line == self.line());
        match safe.map(|(line, release)| Self(line * 10_000 + release)) {
            Some(closed_in) if self < closed_in => Verdict::Open { closed_in },
            _ => Verdict::Fine,
        }
    }
}

impl std::fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.line(), self.0 % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_first_safe_release() {
        for (version, verdict) in [
            (90_624, Verdict::TooOld),
            (140_019, Verdict::TooOld),
            (150_013, Verdict::Open { closed_in: ServerVersion(150_014) }),
            (150_014, Verdict::Fine),
            (150_018, Verdict::Fine),
            (160_009, Verdict::Open { closed_in: ServerVersion(160_010) }),
            (160_010, Verdict::Fine),
            (170_005, Verdict::Open { closed_in: ServerVersion(170_006) }),
            (170_006, Verdict::Fine),
            (180_000, Verdict::Fine),
        ] {
            assert_eq!(ServerVersion(version).verdict(), verdict, "{version}");
        }
        assert_eq!(ServerVersion(150_014).to_string(), "15.14");
    }
}
