//! The table at the end.

use std::time::Duration;

use farshore_examples::device::{Device, bytes_below};
use farshore_examples::outcome::{Outcome, ensure_equal};
use farshore_sync_core::ids::CollectionId;

use crate::cast::Cast;

const COLLECTIONS: [&str; 6] = ["airlines", "airports", "planes", "flights", "stock", "notes"];

/// Shows what everybody holds in the end, and how long each chapter took.
pub fn show(cast: &Cast, carla: &Device, chapters: &[(String, Duration)]) -> Outcome {
    let mut lines =
        vec![["", "rows", "documents", "on disk", "sent", "received", "digest"].map(str::to_owned)];
    let digest = cast.server.digest()?.sums;
    for device in [&cast.alice, &cast.bruno, carla] {
        ensure_equal(&format!("the digest on {}", device.name), &digest, &device.digest()?)?;
        lines.push(line_of(device)?);
    }
    let disk = readable(bytes_below(cast.server.data_dir())?);
    let nothing = String::new;
    lines.push([
        "server".to_owned(),
        nothing(),
        nothing(),
        disk,
        nothing(),
        nothing(),
        short(&digest),
    ]);
    println!();
    print_table(&lines);
    println!();
    for (title, took) in chapters {
        println!("{:>6.1} s  {title}", took.as_secs_f64());
    }
    let total: Duration = chapters.iter().map(|(_, took)| *took).sum();
    println!("{:>6.1} s  in all", total.as_secs_f64());
    println!("\nThe server and all three devices hold the same.");
    Ok(())
}

fn line_of(device: &Device) -> Outcome<[String; 7]> {
    let counts = COLLECTIONS.iter().map(|collection| device.count(collection));
    let rows: i64 = counts.sum::<Outcome<i64>>()?;
    let (sent, received) = device.wire_bytes();
    Ok([
        device.name.to_owned(),
        rows.to_string(),
        device.count("notes")?.to_string(),
        readable(device.disk_bytes()?),
        readable(sent),
        readable(received),
        short(&device.digest()?),
    ])
}

/// Enough of a digest to see that two are equal; they were compared whole.
fn short(sums: &[(CollectionId, u128)]) -> String {
    let all = sums.iter().fold(0_u128, |all, (_, sum)| all.wrapping_add(*sum));
    format!("{:016x}", all >> 64)
}

fn readable(bytes: u64) -> String {
    match bytes as f64 {
        bytes @ 1e6.. => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} kB", bytes / 1e3),
    }
}

fn print_table<const N: usize>(lines: &[[String; N]]) {
    let width = |at: usize| lines.iter().map(|line| line[at].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for line in lines {
        let cells = line.iter().zip(widths).enumerate().map(|(at, (cell, width))| {
            if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
