//! Copies of tenants that arrive beside them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use farshore_store::catalog::CatalogError;
use farshore_store::copy::{Arrival, Arriving, Record};
use farshore_store::sync_core::ids::TenantId;
use farshore_store::{SharedTenantStore, StoreError};

use crate::catalog::Shared;
use crate::data_key::DataKey;
use crate::failure::file_error;
use crate::files::{Existence, TenantFiles};
use crate::tenant::{Ending, OpenTenant, SqliteTenant, blocking};

/// The copy of each tenant that began to arrive last.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<HashMap<TenantId, Weak<OpenTenant>>>);

impl Arrivals {
    /// Makes a copy the last one of its tenant, and ends the one before it.
    fn begin(&self, tenant: TenantId, open: &Arc<OpenTenant>) {
        let mut arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.retain(|_, arriving| arriving.strong_count() > 0);
        arrivals.insert(tenant, Arc::downgrade(open));
    }

    /// The copy that arrives now. Its file must be closed before another one takes its name.
    fn last(&self, tenant: &TenantId) -> Option<Arc<OpenTenant>> {
        let arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.get(tenant).and_then(Weak::upgrade)
    }
}

/// A copy that arrives in a file of its own.
struct SqliteArrival {
    shared: Arc<Shared>,
    tenant: TenantId,
    arriving: Arriving,
    open: Arc<OpenTenant>,
}

#[async_trait]
impl Arrival for SqliteArrival {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        SqliteTenant(Arc::clone(&self.open)).put(records).await
    }

    fn store(&self) -> SharedTenantStore {
        Arc::new(SqliteTenant(Arc::clone(&self.open)))
    }

    async fn finish(self: Box<Self>) -> Result<SharedTenantStore, CatalogError> {
        let Self { shared, tenant, arriving, open } = *self;
        let finish = move || shared.finish_arrival(tenant, arriving, &open);
        let open = blocking("finish a copy", finish).await??;
        Ok(Arc::new(SqliteTenant(open)))
    }
}

impl Shared {
    /// Begins to take a copy in. Blocks.
    pub fn receive(
        self: Arc<Self>,
        tenant: TenantId,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        let operation = "receive a copy";
        let gate = self.tenants.gate(&tenant);
        let passage = gate.pass();
        let files = self.files(&tenant);
        self.check_arrival(&files, &tenant, arriving)?;
        if let Some(earlier) = self.arrivals.last(&tenant) {
            earlier.end(Ending::PushedAside);
        }
        let cleared = match arriving {
            // What an earlier copy left that came as far as its key.
            Arriving::Returning => files.remove_data(),
            Arriving::New | Arriving::Replacing => files.clear_arrival(),
        };
        cleared.map_err(file_error(operation, &self.folder))?;
        let key = match arriving {
            Arriving::New | Arriving::Returning => {
                DataKey::generate().map_err(|error| StoreError::database(operation, error))?
            }
            Arriving::Replacing => self.data_key(&files, &tenant)?,
        };
        self.make_database(&files.arriving(), &key, 0)
            .map_err(|failure| failure.during(operation))?;
        let open = OpenTenant::open(files.arriving(), key, Arc::clone(&self.config), None)?;
        let open = Arc::new(open);
        self.arrivals.begin(tenant.clone(), &open);
        drop(passage);
        Ok(Box::new(SqliteArrival { shared: self, tenant, arriving, open }))
    }

    fn check_arrival(
        &self,
        files: &TenantFiles,
        tenant: &TenantId,
        arriving: Arriving,
    ) -> Result<(), CatalogError> {
        let tenant = tenant.clone();
        match (self.existence(files)?, arriving) {
            (Existence::Erased, _) => Err(CatalogError::Erased { tenant }),
            (Existence::Present, Arriving::New | Arriving::Returning) => {
                Err(CatalogError::TenantExists { tenant })
            }
            (Existence::Elsewhere(cluster), Arriving::New | Arriving::Replacing) => {
                Err(CatalogError::Elsewhere { tenant, cluster })
            }
            (Existence::Unknown, Arriving::Replacing | Arriving::Returning) => {
                Err(CatalogError::UnknownTenant { tenant })
            }
            (Existence::Unknown, Arriving::New)
            | (Existence::Present, Arriving::Replacing)
            | (Existence::Elsewhere(_), Arriving::Returning) => Ok(()),
        }
    }

    /// Gives a copy that arrived the place of its tenant. Blocks, also until reads of that tenant have ended: the last
    /// connection to a database takes its log away by name.
    fn finish_arrival(
        &self,
        tenant: TenantId,
        arriving: Arriving,
        arrived: &OpenTenant,
    ) -> Result<Arc<OpenTenant>, CatalogError> {
        let operation = "finish a copy";
        let gate = self.tenants.gate(&tenant);
        let mut passage = gate.pass();
        let files = self.files(&tenant);
        self.check_arrival(&files, &tenant, arriving)?;
        arrived.close_whole().map_err(|failure| failure.during(operation))?;
        files.arrived().map_err(file_error(operation, &self.folder))?;
        match arriving {
            Arriving::New | Arriving::Returning => {
                arrived.key().store(&files.key(), &self.master, &tenant)?;
            }
            Arriving::Replacing => {
                if let Some(replaced) = passage.open() {
                    replaced.wait_for_readers();
                    replaced.end(Ending::BegunAnew);
                }
                self.tenants.forget(&tenant);
                files.make_way().map_err(file_error(operation, &self.folder))?;
                self.forget_records(&tenant);
            }
        }
        let open = self.open_files(&files, &tenant, &mut passage)?;
        drop(passage);
        // Whoever opens a tenant that returns is to find out where it is.
        if arriving != Arriving::Returning {
            self.tenants.keep(tenant, Arc::clone(&open));
        }
        Ok(open)
    }
}
