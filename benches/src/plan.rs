//! Which benches there are, and what they run with.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::outcome::Outcome;
use crate::report::Figure;
use crate::{
    behind_1000, clock_storage, durable_push, durable_streams, fanout, growth, hot_tenants,
    idle_reconnect, idle_socket, initial_sync, local_write, machine, noisy_neighbour,
    pg_durable_push, pg_fanout, pg_tenants, reconnect_storm, repair, single_write, small_documents,
    tenant_create, tenant_move, text_traces, visible_latency, wire_overhead,
};

/// How often each leg runs.
const PAIRS: usize = 5;
/// Others may pass through, and see nothing.
const REACHABLE: u32 = 0o711;
/// Rows of the small data set: January.
const JANUARY_ROWS: usize = 27_004;
/// Rows of the large data set: the year.
const YEAR_ROWS: usize = 336_776;

/// A bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bench {
    LocalWrite,
    InitialSync,
    DurablePush,
    SingleWrite,
    VisibleLatency,
    Fanout,
    IdleReconnect,
    IdleSocket,
    ReconnectStorm,
    Behind1000,
    Repair,
    WireOverhead,
    ClockStorage,
    NoisyNeighbour,
    HotTenants,
    SmallDocuments,
    TextTraces,
    DurableStreams,
    PgDurablePush,
    PgTenants,
    PgFanout,
    TenantCreate,
    TenantMove,
    Growth,
}

impl Bench {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 24] = [
        Self::LocalWrite,
        Self::InitialSync,
        Self::DurablePush,
        Self::SingleWrite,
        Self::VisibleLatency,
        Self::Fanout,
        Self::IdleReconnect,
        Self::IdleSocket,
        Self::ReconnectStorm,
        Self::Behind1000,
        Self::Repair,
        Self::WireOverhead,
        Self::ClockStorage,
        Self::NoisyNeighbour,
        Self::HotTenants,
        Self::SmallDocuments,
        Self::TextTraces,
        Self::DurableStreams,
        Self::PgDurablePush,
        Self::PgTenants,
        Self::PgFanout,
        Self::TenantCreate,
        Self::TenantMove,
        Self::Growth,
    ];

    /// The name of its row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalWrite => "local_write",
            Self::InitialSync => "initial_sync",
            Self::DurablePush => "durable_push",
            Self::SingleWrite => "single_write",
            Self::VisibleLatency => "visible_latency",
            Self::Fanout => "fanout",
            Self::IdleReconnect => "idle_reconnect",
            Self::IdleSocket => "idle_socket",
            Self::ReconnectStorm => "reconnect_storm",
            Self::Behind1000 => "behind_1000",
            Self::Repair => "repair",
            Self::WireOverhead => "wire_overhead",
            Self::ClockStorage => "clock_storage",
            Self::NoisyNeighbour => "noisy_neighbour",
            Self::HotTenants => "hot_tenants",
            Self::SmallDocuments => "small_documents",
            Self::TextTraces => "text_traces",
            Self::DurableStreams => "durable_streams",
            Self::PgDurablePush => "pg_durable_push",
            Self::PgTenants => "pg_tenants",
            Self::PgFanout => "pg_fanout",
            Self::TenantCreate => "tenant_create",
            Self::TenantMove => "tenant_move",
            Self::Growth => "growth",
        }
    }

    /// The benches with these names; all of them where no name is given. The error names those that there are.
    pub fn named(names: &[String]) -> Result<Vec<Self>, String> {
        if names.is_empty() {
            return Ok(Self::ALL.to_vec());
        }
        let named = |name: &String| {
            let bench = Self::ALL.into_iter().find(|bench| bench.name() == name);
            bench.ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                format!("there is no bench {name:?}; there are {known}")
            })
        };
        names.iter().map(named).collect()
    }

    /// Runs it.
    pub fn run(self, plan: &Plan) -> Outcome<Vec<Figure>> {
        match self {
            Self::LocalWrite => local_write::run(plan),
            Self::InitialSync => initial_sync::run(plan),
            Self::DurablePush => durable_push::run(plan),
            Self::SingleWrite => single_write::run(plan),
            Self::VisibleLatency => visible_latency::run(plan),
            Self::Fanout => fanout::run(plan),
            Self::IdleReconnect => idle_reconnect::run(plan),
            Self::IdleSocket => idle_socket::run(plan),
            Self::ReconnectStorm => reconnect_storm::run(plan),
            Self::Behind1000 => behind_1000::run(plan),
            Self::Repair => repair::run(plan),
            Self::WireOverhead => wire_overhead::run(plan),
            Self::ClockStorage => clock_storage::run(plan),
            Self::NoisyNeighbour => noisy_neighbour::run(plan),
            Self::HotTenants => hot_tenants::run(plan),
            Self::SmallDocuments => small_documents::run(plan),
            Self::TextTraces => text_traces::run(plan),
            Self::DurableStreams => durable_streams::run(plan),
            Self::PgDurablePush => pg_durable_push::run(plan),
            Self::PgTenants => pg_tenants::run(plan),
            Self::PgFanout => pg_fanout::run(plan),
            Self::TenantCreate => tenant_create::run(plan),
            Self::TenantMove => tenant_move::run(plan),
            Self::Growth => growth::run(plan),
        }
    }
}

/// What the benches run with.
#[derive(Debug)]
pub struct Plan {
    home: TempDir,
    /// Whether there is less data and less time.
    pub quick: bool,
    /// How often each leg runs.
    pub pairs: usize,
}

impl Plan {
    pub fn new(quick: bool, dir: Option<&Path>) -> Outcome<Self> {
        let home = match dir {
            Some(dir) => TempDir::with_prefix_in("farshore-benches-", dir)?,
            None => TempDir::with_prefix("farshore-benches-")?,
        };
        Ok(Self { home, quick, pairs: PAIRS })
    }

    /// A new directory for one leg; it is removed when it is dropped.
    pub fn fresh_dir(&self) -> Outcome<TempDir> {
        Ok(TempDir::new_in(self.home.path())?)
    }

    /// Like [`Plan::fresh_dir`], in reach of other users: for a peer that does not run as this one.
    pub fn open_dir(&self) -> Outcome<TempDir> {
        fs::set_permissions(self.home.path(), Permissions::from_mode(REACHABLE))?;
        self.fresh_dir()
    }

    /// How many flights the large data set has.
    pub const fn rows(&self) -> usize {
        if self.quick { JANUARY_ROWS } else { YEAR_ROWS }
    }

    /// What the reader has to know of the run.
    pub fn describe(&self) -> Outcome<String> {
        let fsync = machine::fsync_probe(self.home.path())?;
        let kind = if self.quick { "quick run, not to be quoted; " } else { "" };
        Ok(format!(
            "{kind}{} processors, load average {} before the run; {} writes of 4 KiB with fdatasync: median {:.2} ms, most {:.2} ms\n\
             encryption (SQLCipher) and synchronous=FULL in all legs unless a row says otherwise; \
             {} runs of each leg, in turns; the load comes from processes of its own on the same machine",
            std::thread::available_parallelism()?,
            machine::load_average().map_or_else(|| "unknown".to_owned(), |load| load.to_string()),
            fsync.writes,
            fsync.median_ms,
            fsync.most_ms,
            self.pairs,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benches_are_found_by_name_and_unknown_names_get_a_list() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(Bench::named(&[]).unwrap(), Bench::ALL);
        let two = Bench::named(&names(&["idle_reconnect", "local_write"])).unwrap();
        assert_eq!(two, [Bench::IdleReconnect, Bench::LocalWrite]);
        let error = Bench::named(&names(&["local_writes"])).unwrap_err();
        assert!(error.contains("\"local_writes\"") && error.contains("local_write,"), "{error}");
    }
}
