//! Bytes that are nearly those of a seed, the same for the same numbers.

/// Changes of one input at most.
const CHANGES: u64 = 6;
/// Bytes that an input grows to at most.
const LONGEST_BYTES: usize = 1 << 14;
/// Values at which lengths and numbers of encodings turn.
const EDGES: [u8; 12] = [0, 1, 0x17, 0x18, 0x1b, 0x1f, 0x7f, 0x80, 0x9f, 0xbf, 0xfe, 0xff];

/// A small generator (SplitMix64); the same seed gives the same numbers everywhere.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c908)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below a bound; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or_default()
    }
}

/// One input: a seed with some changes, or two seeds in one.
#[must_use]
pub fn input(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.next() % CHANGES {
        let at = chance.below(bytes.len() + 1);
        match chance.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = chance.next().to_le_bytes()[0],
            2 if at < bytes.len() => bytes[at] = EDGES[chance.below(EDGES.len())],
            3 => bytes.truncate(at),
            4 => {
                let end = (at + 1 + chance.below(8)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            5 => {
                let inserted = chance.next().to_le_bytes();
                let length = 1 + chance.below(inserted.len());
                bytes.splice(at..at, inserted[..length].iter().copied());
            }
            6 => {
                let end = (at + chance.below(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = chance.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            7 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => {
                let count = 1 + chance.below(8);
                let edge = EDGES[chance.below(EDGES.len())];
                bytes.splice(at..at, std::iter::repeat_n(edge, count));
            }
        }
    }
    bytes.truncate(LONGEST_BYTES);
    bytes
}
