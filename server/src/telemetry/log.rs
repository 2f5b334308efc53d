//! Structured lines on stderr.
//!
//! No line holds a secret: secrets have no `Display` and a `Debug` that hides them, requests are logged by route
//! and status, and the libraries that see whole requests and frames are kept from logging them.

use std::io;
use std::panic;

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{LogConfig, LogFormat};

/// The libraries through which requests, frames and tokens pass: they log what they see from `debug` on.
const KEPT_QUIET: [&str; 8] = [
    "tungstenite=info",
    "tokio_tungstenite=info",
    "hyper=info",
    "hyper_util=info",
    "axum=info",
    "reqwest=info",
    "h2=info",
    // It tells of every connection, which the bus does by itself.
    "async_nats=warn",
];

/// The filter that a `log.level` stands for; `None` where it is not understood.
#[must_use]
pub fn filter(directives: &str) -> Option<EnvFilter> {
    let filter = EnvFilter::builder().parse(directives).ok()?;
    let quiet = KEPT_QUIET
        .iter()
        .map(|directive| directive.parse().expect("a directive that a test reads"));
    Some(quiet.fold(filter, EnvFilter::add_directive))
}

/// Logs to stderr from now on, panics included.
pub fn install(config: &LogConfig) {
    let subscriber = subscriber(config, io::stderr);
    // It fails where the process logs already, as in tests that start several servers: the first one stays.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        log_panics();
    }
}

/// What writes lines to `writer`.
pub fn subscriber<W>(config: &LogConfig, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(&config.level).expect("a configuration holds only filters that were read");
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Text => {
            Box::new(registry.with(fmt::layer().with_ansi(false).with_writer(writer)))
        }
        LogFormat::Json => {
            Box::new(registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)))
        }
    }
}

/// A panic is one line of the log. The message of a panic is ours, never a user's data.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        tracing::error!(place, message, "panic");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::captured_log;

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        captured_log();
        let hook = panic::take_hook();
        log_panics();
        let caught = panic::catch_unwind(|| panic!("the sky fell at {}", 7));
        panic::set_hook(hook);
        caught.unwrap_err();
        let log = captured_log();
        let line = log.lines().find(|line| line.contains("the sky fell at 7")).unwrap();
        assert!(
            line.contains("\"level\":\"ERROR\"") && line.contains("telemetry/log.rs:"),
            "{line}"
        );
    }

    #[test]
    fn what_libraries_see_of_requests_is_never_logged() {
        for level in ["trace", "info,tungstenite=trace"] {
            let directives = filter(level).unwrap().to_string();
            assert!(directives.contains("tungstenite=info"), "{directives}");
            assert!(!directives.contains("tungstenite=trace"), "{directives}");
        }
        assert!(filter("x=y=z").is_none());
    }
}
