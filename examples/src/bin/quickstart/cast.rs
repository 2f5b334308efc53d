//! Who takes part: a server and two devices, and how they come to hold the same.

use farshore_client::store::SqlValue;
use farshore_examples::device::Device;
use farshore_examples::outcome::{Outcome, ensure, ensure_equal};
use farshore_examples::server::Server;

/// The server and the two devices that write.
pub struct Cast {
    pub server: Server,
    pub alice: Device,
    pub bruno: Device,
}

impl Cast {
    pub const fn devices(&self) -> [&Device; 2] {
        [&self.alice, &self.bruno]
    }

    /// Waits until both devices hold what the server holds, and makes sure that they do.
    pub fn converge(&self) -> Outcome {
        self.devices().into_iter().try_for_each(all_is_sent)?;
        self.devices().into_iter().try_for_each(|device| holds_what(&self.server, device))
    }
}

/// Waits until everything that a device wrote is on the server and came back.
fn all_is_sent(device: &Device) -> Outcome {
    device.wait_until("everything is sent", |status| status.synced).map(|_| ())
}

/// Waits until a device has everything that the server has, and compares their digests.
pub fn holds_what(server: &Server, device: &Device) -> Outcome {
    let digest = server.digest()?;
    let status = device.wait_until("everything is here", |status| {
        status.caught_up && status.cursor >= digest.seq
    })?;
    ensure(status.in_step, || format!("{} is not in step with the server", device.name))?;
    let what = format!("the digest on {} as on the server", device.name);
    ensure_equal(&what, &digest.sums, &device.digest()?)
}

/// Makes sure that a SELECT gives one value on each of the devices.
pub fn ensure_on_all(
    devices: &[&Device],
    select: &str,
    params: &[SqlValue],
    expected: &SqlValue,
) -> Outcome {
    devices.iter().try_for_each(|device| {
        let what = format!("`{select}` on {}", device.name);
        ensure_equal(&what, expected, &device.value(select, params)?)
    })
}
