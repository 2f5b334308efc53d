//! Counters for Prometheus.
//!
//! Labels are bounded: their values are names that stand in the code, never ids, tenants or texts of a request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The content type of what [`Metrics::text`] gives.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that the server counts. Clones count into the same places.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Sync sockets that are open.
    pub connections_open: Gauge,
    /// Sync sockets that were opened.
    pub connections: Counter,
    /// Sync sockets that were not accepted, by reason.
    pub connections_refused: Family<ReasonLabel, Counter>,
    /// Frames, by direction and kind.
    pub frames: Family<FrameLabel, Counter>,
    /// Bytes of WebSocket messages, by direction.
    pub message_bytes: Family<DirectionLabel, Counter>,
    /// Transactions that devices pushed and that were applied or refused.
    pub transactions: Counter,
    /// Rows that commits wrote.
    pub rows_written: Counter,
    /// Rows that were sent to devices.
    pub rows_sent: Counter,
    /// Refused transactions, by reason code.
    pub refusals: Family<CodeLabel, Counter>,
    /// Connections that the server closed, by fault code.
    pub faults: Family<CodeLabel, Counter>,
    /// How long group commits took until they were durable.
    pub commit_duration: Histogram,
    /// How long group commits waited for their turn among those of all tenants.
    pub commit_wait: Histogram,
    /// How long tenants that push more than they may were held back.
    pub held_back: Counter<f64, AtomicU64>,
    /// How many pushes a group commit held.
    pub commit_pushes: Histogram,
    /// Answered HTTP requests, by route and status.
    pub http_requests: Family<RouteLabel, Counter>,
    /// Tombstones and departures that were purged.
    pub tombstones_purged: Counter,
    /// Whether the bus between nodes is up; 0 where there is none.
    pub bus_up: Gauge,
    /// Notices on the bus, by direction.
    pub bus_notices: Family<DirectionLabel, Counter>,
    /// Connections to databases, by place (`home` or the name of a cluster, of which an operator adds a handful) and
    /// state.
    pub pool_connections: Family<PoolLabel, Gauge>,
    /// Looks at where a tenant stands, which make up for notices that are lost.
    pub bus_looks: Counter,
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a device.
    In,
    /// To a device.
    Out,
}

impl Direction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// A direction and a kind of frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FrameLabel {
    direction: &'static str,
    kind: &'static str,
}

/// A direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabel {
    direction: &'static str,
}

/// A pool of connections, and what of it is counted: `open`, `idle` or `limit`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabel {
    place: String,
    state: &'static str,
}

/// A stable code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    code: &'static str,
}

/// Why a connection was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// A route, by its pattern, and the status of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    route: String,
    status: u16,
}

impl Metrics {
    /// Everything at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            connections_open: Gauge::default(),
            connections: Counter::default(),
            connections_refused: Family::default(),
            frames: Family::default(),
            message_bytes: Family::default(),
            transactions: Counter::default(),
            rows_written: Counter::default(),
            rows_sent: Counter::default(),
            refusals: Family::default(),
            faults: Family::default(),
            // From 0.25 ms to 8 s.
            commit_duration: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            commit_wait: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            held_back: Counter::default(),
            commit_pushes: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            bus_up: Gauge::default(),
            bus_notices: Family::default(),
            bus_looks: Counter::default(),
            pool_connections: Family::default(),
            http_requests: Family::default(),
            tombstones_purged: Counter::default(),
        };
        metrics.registry = Arc::new(metrics.registered());
        metrics
    }

    /// Counts a frame.
    pub fn frame(&self, direction: Direction, kind: &'static str) {
        self.frames.get_or_create(&FrameLabel { direction: direction.as_str(), kind }).inc();
    }

    /// Counts the bytes of a WebSocket message.
    pub fn message(&self, direction: Direction, bytes: usize) {
        let label = DirectionLabel { direction: direction.as_str() };
        self.message_bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    /// Counts a notice on the bus between nodes.
    pub fn bus_notice(&self, direction: Direction) {
        let label = DirectionLabel { direction: direction.as_str() };
        self.bus_notices.get_or_create(&label).inc();
    }

    /// Shows how pools of connections are used now: of each place what is open, idle and allowed.
    pub fn pools(&self, pools: impl IntoIterator<Item = (String, [u32; 3])>) {
        self.pool_connections.clear();
        for (place, figures) in pools {
            for (state, figure) in ["open", "idle", "limit"].into_iter().zip(figures) {
                let label = PoolLabel { place: place.clone(), state };
                self.pool_connections.get_or_create(&label).set(figure.into());
            }
        }
    }

    /// Counts a refused transaction.
    pub fn refusal(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts a connection that the server closed.
    pub fn fault(&self, code: &'static str) {
        self.faults.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts a connection that was not accepted.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts an answer. `route` is a pattern of the router, never the path of a request.
    pub fn http_request(&self, route: &str, status: u16) {
        self.http_requests.get_or_create(&RouteLabel { route: route.to_owned(), status }).inc();
    }

    /// Everything in the text format of OpenMetrics.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to memory cannot fail");
        out
    }

    fn registered(&self) -> Registry {
        let mut all = Registry::with_prefix("farshore");
        all.register(
            "connections_open",
            "Sync sockets that are open",
            self.connections_open.clone(),
        );
        all.register("connections", "Sync sockets that were opened", self.connections.clone());
        all.register(
            "connections_refused",
            "Sync sockets that were not accepted",
            self.connections_refused.clone(),
        );
        all.register("frames", "Frames of the sync protocol", self.frames.clone());
        all.register_with_unit(
            "message",
            "WebSocket messages",
            Unit::Bytes,
            self.message_bytes.clone(),
        );
        all.register("transactions", "Transactions that devices pushed", self.transactions.clone());
        all.register("rows_written", "Rows that commits wrote", self.rows_written.clone());
        all.register("rows_sent", "Rows that were sent to devices", self.rows_sent.clone());
        all.register("refusals", "Refused transactions", self.refusals.clone());
        all.register("faults", "Connections that the server closed", self.faults.clone());
        let duration = self.commit_duration.clone();
        all.register_with_unit(
            "commit_duration",
            "Time until a group commit was durable",
            Unit::Seconds,
            duration,
        );
        all.register_with_unit(
            "commit_wait",
            "Time that a group commit waited for its turn",
            Unit::Seconds,
            self.commit_wait.clone(),
        );
        all.register_with_unit(
            "held_back",
            "Time that tenants which push more than they may were held back",
            Unit::Seconds,
            self.held_back.clone(),
        );
        all.register("commit_pushes", "Pushes of a group commit", self.commit_pushes.clone());
        all.register("http_requests", "Answered HTTP requests", self.http_requests.clone());
        all.register(
            "tombstones_purged",
            "Tombstones that were purged",
            self.tombstones_purged.clone(),
        );
        all.register("bus_up", "Whether the bus between nodes is up", self.bus_up.clone());
        all.register("bus_notices", "Notices on the bus", self.bus_notices.clone());
        all.register("pool_connections", "Connections to databases", self.pool_connections.clone());
        all.register("bus_looks", "Looks at where a tenant stands", self.bus_looks.clone());
        all
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_into_the_same_places() {
        let metrics = Metrics::new();
        let clone = metrics.clone();
        clone.connections_open.inc();
        clone.frame(Direction::In, "hello");
        clone.message(Direction::Out, 300);
        clone.refusal("permission_denied");
        clone.commit_duration.observe(0.002);
        clone.http_request("/t/{tenant}/.well-known/jwks.json", 200);
        let text = metrics.text();
        for line in [
            "farshore_connections_open 1",
            "farshore_frames_total{direction=\"in\",kind=\"hello\"} 1",
            "farshore_message_bytes_total{direction=\"out\"} 300",
            "farshore_refusals_total{code=\"permission_denied\"} 1",
            "farshore_commit_duration_seconds_count 1",
            "farshore_http_requests_total{route=\"/t/{tenant}/.well-known/jwks.json\",status=\"200\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
