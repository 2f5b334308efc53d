//! What happens in a run, decided beforehand: a plan is drawn from a seed, and the same plan gives the same run.
//!
//! A plan is plain data, so that a failing one can be made smaller step by step.

use farshore_sync_core::wire::Rights;
use test_chance::Chance;

use crate::disk::DiskProfile;
use crate::network::{Dialling, Direction, Flow};
use crate::shape::Shape;

/// Most steps of a plan.
pub const MAX_STEPS: u64 = 120;
/// Most devices of a plan.
pub const MAX_DEVICES: u64 = 5;
const DAY_MS: i64 = 86_400_000;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed that it was drawn from; what happens by chance within the run comes from it too.
    pub seed: u64,
    /// Least and most latency of the network, in milliseconds.
    pub latency_ms: (u64, u64),
    /// How the server's disk behaves.
    pub disk: DiskProfile,
    /// Age from which tombstones may be purged, in milliseconds.
    pub retention_ms: u64,
    /// How long tokens are valid, in milliseconds.
    pub token_life_ms: u64,
    /// The tenants' data.
    pub tenants: Vec<Shape>,
    /// The devices; the first one of each tenant may always do everything, so that it sees all in the end.
    pub devices: Vec<DevicePlan>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// In runs that judge causal consistency, the one kind of fault.
    pub causal: Option<CausalFault>,
}

/// The kinds of faults of runs that judge causal consistency: one of them in each, as in the Jepsen test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CausalFault {
    /// None.
    None,
    /// Connections break.
    Disconnect,
    /// Messages wait or vanish, one way or both, and attempts to connect fail.
    Partition,
    /// Messages arrive in part.
    Truncate,
    /// The power of devices fails.
    KillDevice,
    /// The server ends in the middle of what it does.
    KillServer,
    /// The server's disk fails.
    Disk,
    /// Clocks are set by days.
    Clock,
    /// Devices are suspended for a while.
    Suspend,
}

impl CausalFault {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Disconnect,
        Self::Partition,
        Self::Truncate,
        Self::KillDevice,
        Self::KillServer,
        Self::Disk,
        Self::Clock,
        Self::Suspend,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Disconnect => "disconnect",
            Self::Partition => "partition",
            Self::Truncate => "truncate",
            Self::KillDevice => "kill device",
            Self::KillServer => "kill server",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Suspend => "suspend",
        }
    }

    const fn faults(self) -> &'static [Fault] {
        match self {
            Self::None => &[],
            Self::Disconnect => &[Fault::Cut],
            Self::Partition => &[Fault::Flow, Fault::Dial],
            Self::Truncate => &[Fault::Truncate],
            Self::KillDevice => &[Fault::CrashDevice],
            Self::KillServer => &[Fault::CrashServer],
            Self::Disk => &[Fault::FailDisk],
            Self::Clock => &[Fault::DeviceClock, Fault::ServerClock],
            Self::Suspend => &[Fault::Suspend],
        }
    }
}

/// A device.
#[derive(Debug, Clone)]
pub struct DevicePlan {
    /// Its tenant.
    pub tenant: usize,
    /// What it may do at first.
    pub rights: Vec<Option<Rights>>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// How long nothing else happens before it, in milliseconds.
    pub after_ms: u64,
    /// What happens.
    pub action: Action,
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum Action {
    /// An app makes a transaction.
    Write {
        /// The device.
        device: usize,
        /// What the transaction does.
        ops: Vec<Op>,
    },
    /// The connections of a device break.
    Cut {
        /// The device.
        device: usize,
    },
    /// Messages of a device wait, vanish or arrive from now on.
    Flow {
        /// The device.
        device: usize,
        /// Which way.
        direction: Direction,
        /// What becomes of them.
        flow: Flow,
    },
    /// The next message of a device arrives in part, and its connection breaks.
    Truncate {
        /// The device.
        device: usize,
        /// Which way.
        direction: Direction,
    },
    /// Attempts of a device to connect fail, or work again.
    Dial {
        /// The device.
        device: usize,
        /// What becomes of them.
        dialling: Dialling,
    },
    /// The network of a device works again.
    Heal {
        /// The device.
        device: usize,
    },
    /// The power of a device fails; the server may or may not notice that its connection ended.
    CrashDevice {
        /// The device.
        device: usize,
        /// Whether the server notices.
        noticed: bool,
    },
    /// A device that is off is switched on.
    StartDevice {
        /// The device.
        device: usize,
    },
    /// The server ends in the middle of what it does.
    CrashServer,
    /// The server starts again.
    StartServer,
    /// The next calls of the server's disk fail.
    FailDisk {
        /// How many.
        calls: u64,
    },
    /// The wall clock of a device is set.
    DeviceClock {
        /// The device.
        device: usize,
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// The wall clock of the server is set, as a time service would: the tenant's order of writes hangs on it.
    ServerClock {
        /// How far from the right time, in milliseconds.
        off_ms: i64,
    },
    /// A device may do something else from now on.
    Grant {
        /// The device.
        device: usize,
        /// What it may do in each scope.
        rights: Vec<Option<Rights>>,
    },
    /// A device may not sync for now, or may again.
    Suspend {
        /// The device.
        device: usize,
        /// Whether it is suspended.
        suspended: bool,
    },
    /// The second version of the schema is registered.
    UpgradeSchema {
        /// The tenant.
        tenant: usize,
    },
    /// The app of a device is replaced by one that was built with the second version of the schema.
    UpgradeApp {
        /// The device.
        device: usize,
    },
    /// Old tombstones are purged.
    Purge,
    /// A backup is taken.
    BackUp,
    /// The server is replaced by its backup.
    Restore,
    /// The app of a device writes again what was refused, or gives it up.
    Review {
        /// The device.
        device: usize,
        /// Which entry of the quarantine.
        pick: u64,
        /// Whether it is written again.
        again: bool,
    },
}

/// One part of a transaction.
#[derive(Debug, Clone)]
pub struct Op {
    /// What is done.
    pub kind: OpKind,
    /// Chance for everything that depends on what is there then.
    pub pick: u64,
}

/// What a transaction can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// A new row.
    Insert,
    /// Columns of a row are written.
    Update,
    /// A counter goes up.
    Increment,
    /// A set gets an element.
    SetAdd,
    /// A set loses an element.
    SetRemove,
    /// A text in a document grows.
    Type,
    /// A row is deleted.
    Delete,
    /// A deleted row comes back.
    Restore,
    /// A row goes to another site.
    Move,
    /// Several rows that belong together.
    Batch,
    /// Registers are read, and most times some are written.
    Registers,
}

/// Kinds of faults; a plan has some of them only, so that each can show what the others would hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Flow,
    Truncate,
    Dial,
    CrashDevice,
    CrashServer,
    FailDisk,
    DeviceClock,
    ServerClock,
    Grant,
    Suspend,
    Schema,
    Purge,
    Restore,
    Review,
}

const FAULTS: [Fault; 15] = [
    Fault::Cut,
    Fault::Flow,
    Fault::Truncate,
    Fault::Dial,
    Fault::CrashDevice,
    Fault::CrashServer,
    Fault::FailDisk,
    Fault::DeviceClock,
    Fault::ServerClock,
    Fault::Grant,
    Fault::Suspend,
    Fault::Schema,
    Fault::Purge,
    Fault::Restore,
    Fault::Review,
];

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let chance = &mut Chance::of(seed);
        let tenants: Vec<Shape> = (0..chance.between(1, 2)).map(|_| Shape::draw(chance)).collect();
        let count = chance.between(2, MAX_DEVICES).max(tenants.len() as u64) as usize;
        let devices: Vec<DevicePlan> = (0..count)
            .map(|at| {
                let tenant = at % tenants.len();
                let scopes = tenants[tenant].scopes().len();
                let all = at < tenants.len() || chance.once_in(2);
                let rights =
                    if all { vec![Some(Rights::Write); scopes] } else { rights(scopes, chance) };
                DevicePlan { tenant, rights }
            })
            .collect();
        let mut plan = Self {
            seed,
            latency_ms: *chance
                .pick(&[(0, 1), (1, 20), (5, 120), (50, 900)])
                .expect("there are some"),
            disk: DiskProfile {
                read_ms: chance.below(12),
                commit_ms: chance.below(30),
                page_bytes: *chance.pick(&[200, 1_000, 8_000, 1 << 20]).expect("there are some"),
                page_rows: *chance.pick(&[1, 3, 10, 4_096]).expect("there are some"),
            },
            retention_ms: chance.between(1, 60_000),
            token_life_ms: *chance.pick(&[65_000, 200_000, 86_400_000]).expect("there are some"),
            tenants,
            devices,
            steps: Vec::new(),
            causal: None,
        };
        plan.steps = plan.draw_steps(chance);
        plan
    }

    /// The plan of a seed that judges causal consistency.
    #[must_use]
    pub fn draw_causal(seed: u64) -> Self {
        let chance = &mut Chance::apart(seed, 0x00ca_05a1);
        let tenants = vec![Shape::registers(chance)];
        let everything = vec![Some(Rights::Write); tenants[0].scopes().len()];
        let device = DevicePlan { tenant: 0, rights: everything };
        let devices = vec![device; chance.between(2, MAX_DEVICES) as usize];
        let faults = CausalFault::ALL;
        let causal = faults[(seed % faults.len() as u64) as usize];
        let mut plan = Self { tenants, devices, causal: Some(causal), ..Self::draw(seed) };
        let pace_ms = *chance.pick(&[5, 50, 1_000]).expect("there are some");
        let steps = (0..chance.between(20, MAX_STEPS)).map(|_| {
            let after_ms = chance.below(pace_ms);
            let fault = chance.once_in(5).then(|| chance.pick(causal.faults()).copied()).flatten();
            let action = match fault {
                Some(fault) => plan.draw_fault(fault, chance),
                None => Action::Write {
                    device: plan.device(chance),
                    ops: vec![Op { kind: OpKind::Registers, pick: chance.next() }],
                },
            };
            Step { after_ms, action }
        });
        let steps = steps.collect();
        plan.steps = steps;
        plan
    }

    /// Whether messages may arrive in part: then either side may say that the other broke the protocol.
    #[must_use]
    pub fn is_about_truncation(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Truncate { .. }))
    }

    fn draw_steps(&self, chance: &mut Chance) -> Vec<Step> {
        let mut faults: Vec<Fault> = FAULTS.into_iter().filter(|_| chance.once_in(3)).collect();
        // Who lost the right to write what a backup lacks cannot offer it again: that loss is no fault.
        let restores = faults.contains(&Fault::Restore);
        // And a tombstone that is purged before every device has met the restored server cannot tell a deletion from a
        // loss.
        let apart = [Fault::Grant, Fault::Purge];
        faults.retain(|fault| !restores || !apart.contains(fault));
        let per_fault = chance.between(2, 8);
        let pace_ms = *chance.pick(&[5, 50, 1_000, 10_000]).expect("there are some");
        let steps = chance.between(10, MAX_STEPS);
        let mut drawn = Vec::new();
        for _ in 0..steps {
            let after_ms =
                if chance.once_in(25) { chance.below(90_000) } else { chance.below(pace_ms) };
            let action = if chance.once_in(per_fault)
                && let Some(fault) = chance.pick(&faults).copied()
            {
                self.draw_fault(fault, chance)
            } else {
                self.draw_write(chance)
            };
            drawn.push(Step { after_ms, action });
        }
        drawn
    }

    fn device(&self, chance: &mut Chance) -> usize {
        chance.below(self.devices.len() as u64) as usize
    }

    fn draw_write(&self, chance: &mut Chance) -> Action {
        let device = self.device(chance);
        let count = if chance.once_in(12) { chance.between(5, 30) } else { chance.between(1, 3) };
        let ops = (0..count).map(|_| {
            let kind = match chance.below(20) {
                0..4 => OpKind::Insert,
                4..8 => OpKind::Update,
                8..11 => OpKind::Increment,
                11 => OpKind::SetAdd,
                12 => OpKind::SetRemove,
                13..15 => OpKind::Type,
                15 => OpKind::Delete,
                16 => OpKind::Restore,
                17 => OpKind::Move,
                _ => OpKind::Batch,
            };
            Op { kind, pick: chance.next() }
        });
        Action::Write { device, ops: ops.collect() }
    }

    fn draw_fault(&self, fault: Fault, chance: &mut Chance) -> Action {
        let device = self.device(chance);
        let direction = if chance.once_in(2) { Direction::Up } else { Direction::Down };
        match fault {
            Fault::Cut => Action::Cut { device },
            Fault::Flow => match chance.below(5) {
                0 | 1 => Action::Flow { device, direction, flow: Flow::Held },
                2 => Action::Flow { device, direction, flow: Flow::Lost },
                _ => Action::Heal { device },
            },
            Fault::Truncate => Action::Truncate { device, direction },
            Fault::Dial => match chance.below(4) {
                0 => Action::Dial { device, dialling: Dialling::Refused },
                1 => Action::Dial { device, dialling: Dialling::Silent },
                _ => Action::Heal { device },
            },
            Fault::CrashDevice if chance.once_in(2) => Action::StartDevice { device },
            Fault::CrashDevice => Action::CrashDevice { device, noticed: chance.once_in(2) },
            Fault::CrashServer if chance.once_in(2) => Action::StartServer,
            Fault::CrashServer => Action::CrashServer,
            Fault::FailDisk => Action::FailDisk { calls: chance.between(1, 4) },
            Fault::DeviceClock => Action::DeviceClock { device, by_ms: clock_jump(chance) },
            Fault::ServerClock => Action::ServerClock { off_ms: clock_drift(chance) / 4 },
            Fault::Grant => {
                let tenant = self.devices[device].tenant;
                let rights = rights(self.tenants[tenant].scopes().len(), chance);
                Action::Grant { device, rights }
            }
            Fault::Suspend => Action::Suspend { device, suspended: chance.once_in(2) },
            Fault::Schema if chance.once_in(3) => {
                Action::UpgradeSchema { tenant: self.devices[device].tenant }
            }
            Fault::Schema => Action::UpgradeApp { device },
            Fault::Purge => Action::Purge,
            Fault::Restore if chance.once_in(2) => Action::BackUp,
            Fault::Restore => Action::Restore,
            Fault::Review => {
                Action::Review { device, pick: chance.next(), again: chance.once_in(2) }
            }
        }
    }
}

fn rights(scopes: usize, chance: &mut Chance) -> Vec<Option<Rights>> {
    let drawn = (0..scopes).map(|_| match chance.below(4) {
        0 => None,
        1 => Some(Rights::Read),
        _ => Some(Rights::Write),
    });
    drawn.collect()
}

fn clock_jump(chance: &mut Chance) -> i64 {
    let days = i64::try_from(chance.below(800)).unwrap_or_default() - 400;
    days * DAY_MS + clock_drift(chance)
}

fn clock_drift(chance: &mut Chance) -> i64 {
    i64::try_from(chance.below(240_000)).unwrap_or_default() - 120_000
}
