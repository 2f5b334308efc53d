//! The hybrid logical clock (Kulkarni et al., 2014): 48 bits of milliseconds and a 16-bit counter.
//!
//! It orders conflicting writes and nothing else: the server's order is the seq.
//! The caller brings the wall clock and persists [`Clock::last`] before a stamp is used.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::bugs::{self, Bug};
use crate::ids::DeviceId;

/// How far ahead of the server a stamp may be before it is clamped, in milliseconds.
pub const MAX_FUTURE_DRIFT_MS: u64 = 60_000;

const COUNTER_BITS: u32 = 16;
const MAX_WALL_MS: u64 = (1 << (64 - COUNTER_BITS)) - 1;

/// A point of the hybrid clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    Encode,
    Decode,
)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct Hlc(#[n(0)] pub u64);

impl Hlc {
    /// The point before every write.
    pub const ZERO: Self = Self(0);

    /// The first point of a wall-clock millisecond; later than 48 bits can say is the last one they can.
    #[must_use]
    pub const fn from_wall_ms(wall_ms: u64) -> Self {
        let wall_ms = if wall_ms > MAX_WALL_MS { MAX_WALL_MS } else { wall_ms };
        Self(wall_ms << COUNTER_BITS)
    }

    /// Its milliseconds since 1970.
    #[must_use]
    pub const fn wall_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The next point; the counter overflows into the milliseconds, so it is always later.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.wall_ms(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// An HLC with the device that made it, which breaks ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Stamp {
    /// When.
    #[n(0)]
    pub hlc: Hlc,
    /// By whom.
    #[n(1)]
    pub device: DeviceId,
}

impl Stamp {
    /// The stamp before every write.
    pub const ZERO: Self = Self { hlc: Hlc::ZERO, device: DeviceId::from_bytes([0; 16]) };
}

/// A device's clock: strictly later at every call, whatever the wall clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// Continues after the last point that was persisted.
    #[must_use]
    pub const fn resume(last: Hlc) -> Self {
        Self { last }
    }

    /// The last point given out.
    #[must_use]
    pub const fn last(&self) -> Hlc {
        self.last
    }

    /// The next point at this wall clock.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        let back = bugs::planted(Bug::ClockGoesBack) && wall_ms > 0;
        let least = if back { Hlc::ZERO } else { self.last.next() };
        self.last = least.max(Hlc::from_wall_ms(wall_ms));
        self.last
    }

    /// Takes a later point into account that came from the server, so that the next local write is newer.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }

    /// Adopts the server's correction of a clock that ran ahead: the next point follows the corrected one.
    ///
    /// The server keeps a device's stamps rising by itself, so that going back here never reorders writes.
    pub fn correct(&mut self, corrected: Hlc) {
        self.last = corrected;
    }
}

/// The stamp under which the server stores a transaction of a device.
///
/// A stamp beyond [`MAX_FUTURE_DRIFT_MS`] becomes the time of receipt, or follows `latest_of_rows`, the latest stamp of
/// the rows that the transaction changes: the device has seen those, and its clock ran ahead of them, so that it may
/// not lose to them. A stamp that does not follow the device's last one is moved behind it, so that writes of one
/// device keep their order. Old stamps stay: an offline device delivers late.
#[must_use]
pub fn clamp(
    stamp: Hlc,
    last_of_device: Hlc,
    latest_of_rows: impl FnOnce() -> Hlc,
    server_wall_ms: u64,
) -> Hlc {
    let latest_allowed = Hlc::from_wall_ms(server_wall_ms.saturating_add(MAX_FUTURE_DRIFT_MS));
    let bounded = if stamp > latest_allowed && !bugs::planted(Bug::FutureStampKept) {
        Hlc::from_wall_ms(server_wall_ms).max(latest_of_rows().next())
    } else {
        stamp
    };
    bounded.max(last_of_device.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_still_moves_forward() {
        let mut clock = Clock::resume(Hlc::ZERO);
        let first = clock.tick(1_000_000);
        let second = clock.tick(5);
        assert!(second > first);
        assert_eq!(Clock::resume(second).tick(0), second.next());
    }

    #[test]
    fn the_counter_overflows_into_the_next_millisecond() {
        let mut clock = Clock::resume(Hlc((7 << 16) | 0xffff));
        assert_eq!(clock.tick(7), Hlc(8 << 16));
    }

    #[test]
    fn the_far_future_is_clamped_in_order_and_the_past_is_welcome() {
        let now = 1_700_000_000_000;
        let future = Hlc::from_wall_ms(now + 365 * 86_400_000);
        let untouched = || Hlc::ZERO;
        let first = clamp(future, Hlc::ZERO, untouched, now);
        let second = clamp(future.next(), first, untouched, now);
        assert_eq!(first, Hlc::from_wall_ms(now));
        assert_eq!(second, first.next());
        let old = Hlc::from_wall_ms(now - 30 * 86_400_000);
        assert_eq!(clamp(old, Hlc::ZERO, untouched, now), old);
        let near = Hlc::from_wall_ms(now + MAX_FUTURE_DRIFT_MS);
        assert_eq!(clamp(near, Hlc::ZERO, untouched, now), near);
        let ahead = || near;
        assert_eq!(clamp(future, Hlc::ZERO, ahead, now), near.next(), "what it saw does not win");
        assert_eq!(
            clamp(old, Hlc::ZERO, ahead, now),
            old,
            "only a clock that runs ahead is corrected"
        );
    }

    #[test]
    fn milliseconds_are_the_upper_48_bits_and_end_with_them() {
        assert_eq!(Hlc::from_wall_ms(1), Hlc(0x1_0000));
        assert_eq!(Hlc(0x7_ffff).wall_ms(), 7);
        assert_eq!(format!("{:?}", Hlc(0x7_ffff)), "7+65535");
        let last = Hlc(0xffff_ffff_ffff_0000);
        for wall_ms in [(1 << 48) - 1, 1 << 48, u64::MAX] {
            assert_eq!(Hlc::from_wall_ms(wall_ms), last, "{wall_ms}");
        }
        assert_eq!(Hlc::from_wall_ms((1 << 48) - 2), Hlc(0xffff_ffff_fffe_0000));
        assert_eq!(Hlc(u64::MAX).next(), Hlc(u64::MAX), "there is nothing later");
    }

    #[test]
    fn a_clock_follows_what_it_sees_and_goes_back_where_it_is_corrected() {
        let mut clock = Clock::resume(Hlc(5));
        clock.observe(Hlc(3));
        assert_eq!(clock.last(), Hlc(5), "what is earlier changes nothing");
        clock.observe(Hlc(9));
        assert_eq!((clock.last(), clock.tick(0)), (Hlc(9), Hlc(10)));
        clock.correct(Hlc(2));
        assert_eq!((clock.last(), clock.tick(0)), (Hlc(2), Hlc(3)));
    }

    #[test]
    fn the_last_moment_that_is_not_clamped_is_a_minute_ahead() {
        let now = 1_700_000_000_000;
        let late = Hlc::from_wall_ms(now + 60_000);
        let clamped = |stamp| clamp(stamp, Hlc::ZERO, || Hlc::ZERO, now);
        assert_eq!(clamped(late), late);
        assert_eq!(clamped(late.next()), Hlc::from_wall_ms(now));
        assert_eq!(clamp(Hlc(7), Hlc(7), || Hlc::ZERO, now), Hlc(8), "it follows the last one");
        assert_eq!(clamp(Hlc(8), Hlc(7), || Hlc::ZERO, now), Hlc(8));
    }
}
