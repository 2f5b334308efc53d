//! Both devices connect, and the server is killed while they push. It starts again; nobody else has to do anything.

use farshore_client::Status;
use farshore_examples::device::Device;
use farshore_examples::outcome::{Outcome, ensure};
use farshore_examples::telling::Telling;

use crate::apart::EarlyTransactions;
use crate::cast::Cast;

pub fn in_mid_sync(cast: &mut Cast, early: EarlyTransactions, telling: &Telling) -> Outcome {
    let waiting = cast.devices().map(unanswered);
    let all: u64 = waiting.iter().sum();
    telling.line(format!("{all} transactions wait on the devices"));

    cast.alice.client.connect()?;
    let is_early_answered = |status: &Status| status.unanswered + early.0 <= waiting[0];
    cast.alice.wait_until("the server has what Alice wrote first", is_early_answered)?;
    cast.bruno.client.connect()?;
    cast.bruno
        .wait_until("the server has something of Bruno", |status| status.unanswered < waiting[1])?;
    cast.server.kill()?;

    for device in cast.devices() {
        device.wait_until("the connection is gone", |status| !status.is_connected())?;
    }
    let left: u64 = cast.devices().map(unanswered).iter().sum();
    ensure(0 < left && left < all, || {
        format!("the server was to be killed in the middle, but {left} of {all} were unanswered")
    })?;
    telling.line(format!("SIGKILL when {} of them were acknowledged", all - left));

    cast.server.restart()?;
    let progress = telling.progress("transactions of both", usize::try_from(all)?);
    for device in cast.devices() {
        device.wait_until("everything is sent", |status| {
            progress.reached(all - cast.devices().map(unanswered).iter().sum::<u64>());
            status.synced
        })?;
    }
    cast.converge()?;
    let took = progress.finish();
    cast.server.scrub()?;
    telling.line(format!(
        "the server is back; {:.1} s later all three hold the same",
        took.as_secs_f64()
    ));
    Ok(())
}

fn unanswered(device: &Device) -> u64 {
    device.client.status().unanswered
}
