//! Every seed, and some inputs that are nearly one, for every decoder.

use std::panic::catch_unwind;

use fuzz_targets::mutate::{Chance, input};
use fuzz_targets::seeds;
use fuzz_targets::targets::TARGETS;

/// Inputs of each target.
const INPUTS: u64 = 20_000;

#[test]
fn any_bytes_are_an_error_or_a_value_that_reads_back_the_same() {
    for target in TARGETS {
        let seeds = seeds::of(target.name).unwrap();
        seeds.iter().for_each(|seed| (target.run)(seed));
        let mut chance = Chance::of(1);
        for _ in 0..INPUTS {
            let bytes = input(&seeds, &mut chance);
            let ended = catch_unwind(|| (target.run)(&bytes));
            assert!(ended.is_ok(), "{}: {bytes:x?}", target.name);
        }
    }
}

#[test]
fn every_target_has_seeds_that_it_reads() {
    for (target, fewest) in [("client_frame", 9), ("server_frame", 12), ("schema", 3), ("row", 100)]
    {
        assert!(seeds::of(target).unwrap().len() >= fewest, "{target}");
    }
    for target in TARGETS {
        let name = target.name;
        assert!(seeds::of(name).unwrap().len() > 1, "{name} begins with nothing but emptiness");
    }
}

/// A target that does not survive its inputs is seen: the loop finds a planted panic.
#[test]
fn a_decoder_that_panics_is_found() {
    let planted: fn(&[u8]) = |bytes| assert!(bytes.len() < 3 || bytes[1] != 0x1b, "planted");
    let seeds = seeds::of("client_frame").unwrap();
    let mut chance = Chance::of(1);
    let found = (0..INPUTS).any(|_| {
        let bytes = input(&seeds, &mut chance);
        catch_unwind(|| planted(&bytes)).is_err()
    });
    assert!(found);
}
