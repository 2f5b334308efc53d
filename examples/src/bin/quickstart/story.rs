//! The story, chapter by chapter.

use std::path::Path;

use farshore_examples::outcome::Outcome;
use farshore_examples::telling::Telling;

use crate::{apart, crash, import, newcomer, office, refused, report, together};

/// Tells it, with every file below `home`. It ends early where anything is not as it has to be.
pub fn tell(home: &Path, telling: &mut Telling) -> Outcome {
    telling.chapter("A server, a tenant, and two devices that share a first day of data");
    let mut cast = office::open(home, telling)?;
    let flights = office::pick_flights(&cast)?;

    telling.chapter("Offline: Alice works on the flights of that day");
    let stock = office::stock(&cast)?;
    let early = apart::alice_works(&cast, &flights, stock, telling)?;

    telling.chapter("Offline: both import the rest of the month");
    import::both(&cast, telling)?;

    telling.chapter("Offline: Bruno works on the same flights");
    apart::bruno_works(&cast, &flights, stock, telling)?;

    telling.chapter("Both connect, and the server is killed while they push");
    crash::in_mid_sync(&mut cast, early, telling)?;
    apart::both_agree(&cast, &flights, stock, telling)?;

    telling.chapter("What the server refused");
    refused::discard_and_resubmit(&cast, &flights, telling)?;

    telling.chapter("Two people type into one document");
    together::type_it(&cast, telling)?;

    telling.chapter("A third device joins");
    let carla = newcomer::join(home, &cast, telling)?;
    telling.end();

    report::show(&cast, &carla, telling.chapters())
}
