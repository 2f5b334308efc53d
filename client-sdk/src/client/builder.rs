//! Making a client: what the app gives is checked here, before any file is touched.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use farshore_sync_core::ids::{DeviceId, TenantId};
use farshore_sync_core::replica::RetryPolicy;
use farshore_sync_core::schema::{Schema, SchemaError};
use tokio::runtime::Handle;

use super::identity::{self, Known};
use super::owner_file::{self, OwnerFileError};
use super::runtime::SdkRuntime;
use super::{Client, Settings};
use crate::environment::{Environment, OsEnvironment};
use crate::store::{CreateMode, OpenError, Store, StoreOptions};
use crate::sync::{
    InvalidAddress, Owner, OwnerError, RootError, Route, ServerAddress, StoreCalls, Token,
    TokenError, TokenReason, TokenSource, Transport, trust_only,
};
use crate::vault::KeyVault;

/// The store's name where the app gives none.
pub const DEFAULT_NAME: &str = "replica";

/// Why there is no client. The files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The app did not say something that has no default.
    #[error("a client needs {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// The schema is not well-formed.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The server's URL cannot be read.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// The root certificate cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Only the token could say which device this is, and there is none.
    #[error("it is not known which device this is: {0}")]
    Token(#[from] TokenError),
    /// The store, the app and the token do not mean the same device or tenant.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The file that says whose the store is cannot be used.
    #[error(transparent)]
    OwnerFile(#[from] OwnerFileError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system gave no randomness for a device id.
    #[error("no randomness for a device id")]
    Randomness,
    /// The system gave no threads.
    #[error("no threads to run on: {0}")]
    Runtime(std::io::Error),
}

/// A schema as an app may have it.
pub enum SchemaSource {
    /// The JSON of a schema file.
    Json(String),
    /// A checked schema.
    Checked(Arc<Schema>),
}

impl From<&str> for SchemaSource {
    fn from(json: &str) -> Self {
        Self::Json(json.to_owned())
    }
}

impl From<String> for SchemaSource {
    fn from(json: String) -> Self {
        Self::Json(json)
    }
}

impl From<Schema> for SchemaSource {
    fn from(schema: Schema) -> Self {
        Self::Checked(Arc::new(schema))
    }
}

impl From<Arc<Schema>> for SchemaSource {
    fn from(schema: Arc<Schema>) -> Self {
        Self::Checked(schema)
    }
}

/// Collects what a client needs: at least a directory, a schema and a vault.
pub struct ClientBuilder {
    dir: Option<PathBuf>,
    name: Option<String>,
    schema: Option<SchemaSource>,
    vault: Option<Arc<dyn KeyVault>>,
    create: CreateMode,
    known: Known,
    server: Option<String>,
    root_certificate: Option<String>,
    transport: Option<Arc<dyn Transport>>,
    store_calls: StoreCalls,
    tokens: Option<TokenSource>,
    retry: RetryPolicy,
    environment: Option<Arc<dyn Environment>>,
    runtime: Option<Handle>,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            dir: None,
            name: None,
            schema: None,
            vault: None,
            create: CreateMode::default(),
            known: Known::default(),
            server: None,
            root_certificate: None,
            transport: None,
            store_calls: StoreCalls::default(),
            tokens: None,
            retry: RetryPolicy::default(),
            environment: None,
            runtime: None,
        }
    }

    /// Where the files are. The directory is made where it is missing.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What the files and the vault's entry are called; [`DEFAULT_NAME`] where left out.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whose data it is, on a device with several users: the files are called `<tenant>.<user>`.
    /// [`crate::Users`] lists them.
    #[must_use]
    pub fn user(mut self, tenant: TenantId, user: impl Display) -> Self {
        self.name = Some(crate::users::store_name(&tenant, &user.to_string()));
        self.known.tenant = Some(tenant);
        self
    }

    /// The app's schema: the JSON of a schema file, or a [`Schema`].
    #[must_use]
    pub fn schema(mut self, schema: impl Into<SchemaSource>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Where the key of the database is kept.
    #[must_use]
    pub fn vault(mut self, vault: Arc<dyn KeyVault>) -> Self {
        self.vault = Some(vault);
        self
    }

    /// Whether the store may, must or must not be there already; it is created where it is missing if left out.
    #[must_use]
    pub const fn create(mut self, create: CreateMode) -> Self {
        self.create = create;
        self
    }

    /// The server's URL, such as `https://sync.example.com`. Without one the client stays offline.
    #[must_use]
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.server = Some(url.into());
        self
    }

    /// The only root certificate to trust, in PEM, instead of the roots of the web.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<String>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Another way to the server than the SDK's own sockets; the server's URL and the root certificate mean nothing
    /// then.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Where calls of the store run that the sync makes; on threads that may block if left out.
    #[must_use]
    pub const fn store_calls(mut self, store_calls: StoreCalls) -> Self {
        self.store_calls = store_calls;
        self
    }

    /// Where access tokens come from.
    #[must_use]
    pub fn token(mut self, tokens: TokenSource) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Which device this is, where no token says so yet.
    #[must_use]
    pub const fn device(mut self, device: DeviceId) -> Self {
        self.known.device = Some(device);
        self
    }

    /// How long to wait between attempts to connect.
    #[must_use]
    pub const fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Other clocks and randomness than the system's.
    #[must_use]
    pub fn environment(mut self, environment: Arc<dyn Environment>) -> Self {
        self.environment = Some(environment);
        self
    }

    /// The app's tokio runtime, with time and I/O enabled; the client starts a small one of its own where left out.
    /// Whoever waits for the client must not do so on the only thread of this runtime.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Opens the store, and creates it where it is missing. It does not connect.
    ///
    /// It blocks, and must not be called from an async task.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(mut self) -> Result<Client, BuildError> {
        let missing = |what| BuildError::Missing { what };
        let dir = self.dir.take().ok_or_else(|| missing("a directory"))?;
        let schema = match self.schema.take().ok_or_else(|| missing("a schema"))? {
            SchemaSource::Json(json) => Arc::new(Schema::parse(&json)?),
            SchemaSource::Checked(schema) => schema,
        };
        let vault = self.vault.take().ok_or_else(|| missing("a key vault"))?;
        let name = self.name.take().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let route = self.route()?;
        let environment =
            self.environment.take().unwrap_or_else(|| Arc::new(OsEnvironment::default()));
        let runtime = SdkRuntime::start(self.runtime.take()).map_err(BuildError::Runtime)?;

        self.known.stored = owner_file::read(&dir, &name)?;
        let found = self.find_owner(runtime.handle())?;
        let device = match &found {
            Some(owner) => owner.device,
            None => identity::generated(&*environment).ok_or(BuildError::Randomness)?,
        };
        let options = StoreOptions { dir, name, device, schema, vault, create: self.create };
        let (store, options) = open(options, found.is_some())?;
        let tenant = found.and_then(|owner| owner.tenant);
        let owner = Owner { device: options.device, tenant };
        if self.known.stored.as_ref() != Some(&owner) {
            owner_file::write(&options.dir, &options.name, &owner)?;
        }
        let (retry, store_calls) = (self.retry, self.store_calls);
        let settings = Settings { options, route, retry, store_calls };
        Ok(Client::new(store, settings, owner, self.tokens, environment, runtime))
    }

    fn route(&self) -> Result<Option<Route>, BuildError> {
        let trust = self.root_certificate.as_deref().map(trust_only).transpose()?;
        if let Some(transport) = &self.transport {
            return Ok(Some(Route::Given(Arc::clone(transport))));
        }
        let Some(url) = &self.server else { return Ok(None) };
        Ok(Some(Route::WebSocket { address: ServerAddress::parse(url)?, trust }))
    }

    /// Asks the token only where it may be needed: an app must start offline.
    fn find_owner(&mut self, runtime: &Handle) -> Result<Option<Owner>, BuildError> {
        let is_known = self.known.stored.is_some() || self.known.device.is_some();
        if let Some(tokens) = self.tokens.clone()
            && (tokens.answers_offline() || !is_known)
        {
            match fetch(&tokens, runtime) {
                Ok(token) => self.known.claims = Some(token.claims().clone()),
                Err(_) if is_known => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.known.owner()?)
    }
}

/// Opens the store. Where nobody says whose it is, a store that is there already knows it.
fn open(
    mut options: StoreOptions,
    owner_is_known: bool,
) -> Result<(Store, StoreOptions), OpenError> {
    match Store::open(options.clone()) {
        Err(OpenError::OtherDevice { found, .. }) if !owner_is_known => {
            options.device = found;
            Ok((Store::open(options.clone())?, options))
        }
        opened => Ok((opened?, options)),
    }
}

/// Blocks on a thread that may.
fn fetch(tokens: &TokenSource, runtime: &Handle) -> Result<Token, TokenError> {
    let (answer, answered) = std::sync::mpsc::sync_channel(1);
    let tokens = tokens.clone();
    runtime.spawn(async move { answer.send(tokens.fetch(TokenReason::Connect).await) });
    answered.recv().unwrap_or(Err(TokenError::Timeout))
}
