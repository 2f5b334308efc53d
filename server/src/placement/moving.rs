//! A tenant on its way from one database to another.
//!
//! The steps, each of which may be the last one before the process ends:
//!
//! 1. Home notes where the tenant goes, and a token: of several attempts the last one counts.
//! 2. A copy arrives in the other database, is read back and counted anew, while the tenant takes writes. So does what
//!    was written meanwhile, until that is little.
//! 3. The tenant is frozen where it is, on every node; it is read as ever. The rest arrives.
//! 4. The copy becomes a tenant there, which nobody looks for yet.
//! 5. Home says that the tenant is there: from here on it is, and it takes writes.
//! 6. Sessions begin anew, and what was left behind is dropped.
//!
//! Until step 5 a failure thaws the tenant where it is. An attempt that was killed is made again from the first step, by
//! the next start of a server or by whoever asks again.

use std::sync::Arc;
use std::time::Duration;

use farshore_store::catalog::{Catalog, CatalogError};
use farshore_store::copy::{Arriving, CopyError};
use farshore_store::placement::{MoveToken, Place, RegistryError};
use farshore_store::scope::TenantScope;
use farshore_store::{SharedTenantStore, StoreError};
use farshore_sync_core::ids::TenantId;
use tokio::time::Instant;

use super::PlacedCatalog;
use super::carrying::{Carried, Phase, Progress};

/// Records that are little enough to be copied while the tenant is frozen.
const FEW_RECORDS: u64 = 5_000;
/// Most copies of what was written during the one before. Where more is written than is copied they do not end by
/// themselves.
const MAX_LIVE_PASSES: u32 = 8;

/// How often the last step is tried before the operator is asked.
const SWITCH_ATTEMPTS: u32 = 5;
/// Time between two attempts.
const SWITCH_PAUSE: Duration = Duration::from_secs(1);

/// Why a tenant was not moved. It is where it was then, and takes writes.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// It is there.
    #[error("{tenant} is in {at} already")]
    AlreadyThere {
        /// The tenant.
        tenant: TenantId,
        /// Where it is.
        at: Place,
    },
    /// It is being moved to somewhere else.
    #[error("{tenant} is being moved to {to}; finish that, or take it back by moving it to {at}")]
    MovingElsewhere {
        /// The tenant.
        tenant: TenantId,
        /// Where it is.
        at: Place,
        /// Where it goes.
        to: Place,
    },
    /// There is another tenant of that name.
    #[error("{to} has another tenant called {tenant}, of somebody else's")]
    Taken {
        /// The name.
        tenant: TenantId,
        /// Where.
        to: Place,
    },
    /// Whether the last step happened is not known.
    #[error(
        "{tenant} is frozen: its copy is in {to}, and home does not say whether the move is done; \
         move it to {to} again once home answers"
    )]
    Undecided {
        /// The tenant.
        tenant: TenantId,
        /// Where it goes.
        to: Place,
    },
    /// What was copied before does not lead to where the tenant stands now.
    #[error("{tenant} was purged or began a new epoch while it was copied; move it again")]
    Overturned {
        /// The tenant.
        tenant: TenantId,
    },
    /// The copy is not what was sent.
    #[error(transparent)]
    Copy(CopyError),
    /// A place is not there, refuses or fails.
    #[error(transparent)]
    Registry(RegistryError),
}

impl From<RegistryError> for MoveError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<CatalogError> for MoveError {
    fn from(error: CatalogError) -> Self {
        Self::Registry(error.into())
    }
}

impl From<StoreError> for MoveError {
    fn from(error: StoreError) -> Self {
        Self::Registry(error.into())
    }
}

impl From<CopyError> for MoveError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Catalog(error) => error.into(),
            error @ CopyError::Differs { .. } => Self::Copy(error),
        }
    }
}

/// A tenant that was moved.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Where it was.
    pub from: Place,
    /// Where it is.
    pub to: Place,
    /// Living rows that were copied; one that was written meanwhile counts again.
    pub rows: u64,
    /// How long it took no writes.
    pub frozen_for: Duration,
}

impl PlacedCatalog {
    /// How far this node has come with the move of a tenant.
    #[must_use]
    pub fn progress(&self, tenant: &TenantId) -> Option<Arc<Progress>> {
        self.progress.get(tenant)
    }

    /// Moves a tenant, or takes a move back where it goes to where the tenant is. Sessions are to begin anew on success.
    ///
    /// # Errors
    /// See [`MoveError`].
    pub async fn move_to(&self, scope: &TenantScope, to: &Place) -> Result<Moved, MoveError> {
        let tenant = scope.tenant();
        let placement = self.home.placement(scope).await?;
        let from = placement.at.clone();
        match placement.moving_to {
            None if from == *to => {
                return Err(MoveError::AlreadyThere { tenant: tenant.clone(), at: from });
            }
            Some(elsewhere) if elsewhere != *to && from != *to => {
                let tenant = tenant.clone();
                return Err(MoveError::MovingElsewhere { tenant, at: from, to: elsewhere });
            }
            None | Some(_) => {}
        }
        let source = self.at(&from).await?.open(scope).await?;
        let target = self.at(to).await?;
        let token = new_token()?;
        if from == *to {
            self.home.begin_move(scope, to, token).await?;
            // Whoever froze it for a move that was killed cannot thaw it any more.
            source.freeze(token).await?;
            self.take_back(scope, &source, &from, token).await;
            return Ok(Moved { to: from.clone(), from, rows: 0, frozen_for: Duration::ZERO });
        }
        let arriving = self.how_it_arrives(scope, to, &*target, &source).await?;
        self.home.begin_move(scope, to, token).await?;
        let progress = self.progress.begin(tenant);
        let moved = self.carry(scope, (&from, to), &source, (&*target, arriving), token, &progress);
        let moved = moved.await;
        self.progress.end(tenant, &progress);
        match &moved {
            Ok(_) => self.leave(scope, &from).await,
            Err(MoveError::Undecided { .. }) => {}
            Err(_) => self.take_back(scope, &source, &from, token).await,
        }
        moved
    }

    /// Steps 2 to 5.
    async fn carry(
        &self,
        scope: &TenantScope,
        (from, to): (&Place, &Place),
        source: &SharedTenantStore,
        (target, arriving): (&dyn Catalog, Arriving),
        token: MoveToken,
        progress: &Progress,
    ) -> Result<Moved, MoveError> {
        let arrival = target.receive(scope, arriving).await?;
        let mut carried = Carried::new(scope.tenant(), source, arrival, progress);
        for _ in 0..MAX_LIVE_PASSES {
            if carried.pass().await? <= FEW_RECORDS {
                break;
            }
        }
        progress.enter(Phase::Switching);
        let frozen_at = Instant::now();
        source.freeze(token).await?;
        carried.pass().await?;
        let rows = carried.rows;
        carried.finish().await?;
        self.switch(scope, from, to, token).await?;
        let frozen_for = frozen_at.elapsed();
        Ok(Moved { from: from.clone(), to: to.clone(), rows, frozen_for })
    }

    /// Says at home that the tenant is there. Where home fails in the middle of it, it is asked what it did.
    async fn switch(
        &self,
        scope: &TenantScope,
        from: &Place,
        to: &Place,
        token: MoveToken,
    ) -> Result<(), MoveError> {
        for _ in 0..SWITCH_ATTEMPTS {
            match self.home.end_move(scope, to, token).await {
                Ok(()) => return Ok(()),
                Err(RegistryError::Catalog(CatalogError::Store(error))) => {
                    tracing::warn!(tenant = %scope.tenant(), %error, "home did not say whether a move is done");
                }
                Err(RegistryError::Overtaken { tenant }) => {
                    // Perhaps by ourselves, in an attempt whose answer was lost.
                    return match self.home.placement(scope).await {
                        Ok(placement) if placement.at == *to => Ok(()),
                        _ => Err(RegistryError::Overtaken { tenant }.into()),
                    };
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(SWITCH_PAUSE).await;
        }
        tracing::error!(tenant = %scope.tenant(), %from, %to, "a move is undecided");
        Err(MoveError::Undecided { tenant: scope.tenant().clone(), to: to.clone() })
    }

    /// Whether the tenant is new where it goes to. What an earlier move left there of it is replaced; somebody else's
    /// tenant of the same name is not.
    async fn how_it_arrives(
        &self,
        scope: &TenantScope,
        to: &Place,
        target: &dyn Catalog,
        source: &SharedTenantStore,
    ) -> Result<Arriving, MoveError> {
        if *to == Place::Home {
            return Ok(Arriving::Returning);
        }
        match target.open(scope).await {
            Err(CatalogError::UnknownTenant { .. }) => Ok(Arriving::New),
            Ok(there) if there.digest_key().await? == source.digest_key().await? => {
                Ok(Arriving::Replacing)
            }
            Ok(_) => Err(MoveError::Taken { tenant: scope.tenant().clone(), to: to.clone() }),
            Err(error) => Err(error.into()),
        }
    }

    /// The tenant stays where it is.
    async fn take_back(
        &self,
        scope: &TenantScope,
        source: &SharedTenantStore,
        from: &Place,
        token: MoveToken,
    ) {
        let tenant = scope.tenant();
        if let Err(error) = source.thaw(token).await {
            tracing::error!(%tenant, %error, "a tenant could not be thawed; move it to where it is");
            return;
        }
        match self.home.end_move(scope, from, token).await {
            Ok(()) | Err(RegistryError::Overtaken { .. }) => {}
            Err(error) => tracing::error!(%tenant, %error, "a move could not be taken back"),
        }
    }

    /// Drops what is left behind of a tenant that was moved.
    async fn leave(&self, scope: &TenantScope, from: &Place) {
        let left = async {
            self.places().pop(scope.tenant());
            self.at(from).await?.release(scope).await.map_err(RegistryError::from)
        };
        if let Err(error) = left.await {
            // It does not count: the next move to there replaces it.
            tracing::error!(tenant = %scope.tenant(), %from, %error, "a tenant left something behind");
        }
    }
}

fn new_token() -> Result<MoveToken, StoreError> {
    let mut token = [0; 16];
    aws_lc_rs::rand::fill(&mut token)
        .map_err(|error| StoreError::database("begin to move a tenant", error))?;
    Ok(MoveToken(token))
}
