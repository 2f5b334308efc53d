//! The end of a run: everything works again, and every queue has to drain.

use super::World;
use crate::oracles::Violation;

/// After the last fault every queue drains within this time, in milliseconds.
const DRAIN_LIMIT_MS: u64 = 180_000;
/// How long everything has to stay quiet before copies are compared, in milliseconds.
const QUIET_MS: u64 = 6_000;
/// How often the end of a run looks whether everything has arrived, in milliseconds.
const DRAIN_LOOK_MS: u64 = 250;

impl World<'_> {
    /// Everything works again, and nobody writes: every queue has to drain.
    pub(super) async fn settle(&mut self) {
        self.platform.disk().fail_calls(0);
        self.platform.start();
        self.let_the_first_see_all();
        for device in 0..self.devices.len() {
            self.network.heal(device);
            self.start(device);
            if self.devices[device].suspended {
                self.suspend(device, false).await;
            }
            let tenant = self.devices[device].tenant;
            if self.devices[device].version > self.versions[tenant] {
                self.upgrade_schema(tenant).await;
            }
        }
        let began_ms = self.timeline.elapsed_ms();
        let mut settled_at_ms = None;
        loop {
            let now_ms = self.timeline.elapsed_ms();
            // A server whose clock was set closes connections once more.
            settled_at_ms = self.is_settled().then(|| settled_at_ms.unwrap_or(now_ms));
            match settled_at_ms {
                Some(at_ms) if now_ms - at_ms >= QUIET_MS => {
                    self.drained_ms = at_ms - began_ms;
                    return;
                }
                None if now_ms - began_ms > DRAIN_LIMIT_MS => return self.stuck(),
                _ => {}
            }
            self.pass(DRAIN_LOOK_MS).await;
            self.help_apps();
            if !self.violations.is_empty() {
                return;
            }
        }
    }

    /// The first device of a tenant gets the newest app that any device has, so that it knows every column.
    fn let_the_first_see_all(&mut self) {
        for first in 0..self.plan.tenants.len() {
            let of_tenant = self.devices.iter().filter(|device| device.tenant == first);
            let newest = of_tenant.map(|device| device.version).max().unwrap_or(1);
            if self.devices[first].version < newest {
                self.crash(first, true);
                self.devices[first].version = newest;
            }
        }
    }

    /// What an app does whose schema was newer than the server's: it connects again.
    fn help_apps(&self) {
        for device in self.devices.iter().filter(|device| device.version > 1) {
            let cause = device.status().and_then(|status| status.cause);
            if cause.is_some_and(|cause| cause.code == "schema_too_new")
                && let Some(client) = device.client()
            {
                // It has a server and tokens; there is nothing that could be missing.
                let _ = client.connect();
            }
        }
    }

    fn is_settled(&self) -> bool {
        !self.network.has_holes()
            && self.devices.iter().all(|device| {
                device
                    .status()
                    .is_some_and(|status| status.synced && status.caught_up && status.in_step)
            })
    }

    fn stuck(&mut self) {
        if self.network.has_holes() {
            let what = "a connection swallows messages, and its device has not given it up";
            self.violations.push(Violation::Stuck(what.to_owned()));
        }
        for device in &self.devices {
            let Some(status) = device.status() else { continue };
            if !(status.synced && status.caught_up && status.in_step) {
                self.violations
                    .push(Violation::Stuck(format!("device {}: {status:?}", device.index)));
            }
        }
    }
}
