//! The tokio runtime that the SDK's tasks run on: the app's, or a small one of the SDK's own.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of the SDK's own runtime that run tasks.
pub const WORKER_THREADS: usize = 1;
/// Threads of the SDK's own runtime that may block: the store, callbacks.
pub const MAX_BLOCKING_THREADS: usize = 16;

/// How long the end of the last client waits for store calls that are under way.
pub const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A runtime.
pub(super) struct SdkRuntime {
    handle: Handle,
    own: Option<Runtime>,
}

impl SdkRuntime {
    /// The app's runtime, or a new one.
    pub(super) fn start(given: Option<Handle>) -> io::Result<Self> {
        if let Some(handle) = given {
            return Ok(Self { handle, own: None });
        }
        let own = Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name("farshore")
            .enable_all()
            .build()?;
        Ok(Self { handle: own.handle().clone(), own: Some(own) })
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for SdkRuntime {
    /// Waits for store calls that are under way: a process that ends while one of them encrypts crashes, because
    /// SQLCipher frees what it encrypts with at the exit. In a task of another runtime, where waiting is not
    /// allowed, they end by themselves.
    fn drop(&mut self) {
        let Some(own) = self.own.take() else { return };
        if Handle::try_current().is_ok() {
            own.shutdown_background();
        } else {
            own.shutdown_timeout(END_TIMEOUT);
        }
    }
}
