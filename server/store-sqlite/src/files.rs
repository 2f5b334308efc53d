//! The files of one tenant and the order in which they come and go.
//!
//! | file | what it says |
//! |---|---|
//! | `<id>.db.creating` | a creation that has not got as far as its key: it is thrown away by the next one |
//! | `<id>.key` | the tenant exists |
//! | `<id>.db` | its data |
//! | `<id>.place` | where the tenant is, if it is not here or is being moved |
//! | `<id>.erased` | it was erased; its id is not used again |
//! | `<id>.db.arriving` | a copy that has not arrived as a whole: it is thrown away by the next one |
//! | `<id>.db.replaced` | what a copy took the place of, on its way out |
//!
//! Creation: the database under its first name, the key, the second name. Erasure: the marker, the key, the
//! data. A copy that arrived goes the way of a creation, under the tenant's key where it replaces one: its first name,
//! the database that was there out of the way, the second name. Each step is durable before the next begins, so that a
//! crash in between is finished by whoever comes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farshore_store::placement::{ClusterName, Place, Placement};
use farshore_store::sync_core::ids::TenantId;

use crate::durable;
use crate::registry::PlaceFile;

const KEY_EXTENSION: &str = "key";
const MARKER_EXTENSION: &str = "erased";
const PLACE_EXTENSION: &str = "place";

/// Where the files of one tenant are.
#[derive(Debug, Clone)]
pub(crate) struct TenantFiles {
    folder: PathBuf,
    tenant: TenantId,
}

/// Whether a tenant exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Existence {
    Unknown,
    Present,
    /// It is registered here, and is in a cluster of databases. What is here of it does not count.
    Elsewhere(ClusterName),
    Erased,
}

impl TenantFiles {
    pub const fn new(folder: PathBuf, tenant: TenantId) -> Self {
        Self { folder, tenant }
    }

    /// The sealed key.
    pub fn key(&self) -> PathBuf {
        self.with_ending(KEY_EXTENSION)
    }

    /// The encrypted database.
    pub fn database(&self) -> PathBuf {
        self.with_ending("db")
    }

    /// The encrypted database before the tenant exists.
    pub fn creating(&self) -> PathBuf {
        self.with_ending("db.creating")
    }

    /// The encrypted database of a copy before it arrived as a whole.
    pub fn arriving(&self) -> PathBuf {
        self.with_ending("db.arriving")
    }

    fn replaced(&self) -> PathBuf {
        self.with_ending("db.replaced")
    }

    /// The file that says where the tenant is.
    pub fn place_path(&self) -> PathBuf {
        self.with_ending(PLACE_EXTENSION)
    }

    /// What that file says, where there is one.
    pub fn place(&self) -> io::Result<Option<PlaceFile>> {
        PlaceFile::read(&self.place_path())
    }

    /// The tenant.
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn marker(&self) -> PathBuf {
        self.with_ending(MARKER_EXTENSION)
    }

    fn with_ending(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.tenant))
    }

    pub fn existence(&self) -> io::Result<Existence> {
        if self.marker().try_exists()? {
            Ok(Existence::Erased)
        } else if let Some(PlaceFile {
            placement: Placement { at: Place::Cluster(cluster), .. },
            ..
        }) = self.place()?
        {
            Ok(Existence::Elsewhere(cluster))
        } else if self.key().try_exists()? {
            Ok(Existence::Present)
        } else {
            Ok(Existence::Unknown)
        }
    }

    /// Throws away what a creation left that never got as far as its key: nobody can read it.
    pub fn clear_creation(&self) -> io::Result<()> {
        remove_database(&self.creating())
    }

    /// Throws away what a copy left that never arrived.
    pub fn clear_arrival(&self) -> io::Result<()> {
        remove_database(&self.arriving())
    }

    /// Gives a copy that arrived, and is closed, the name of a creation that only lacks its second name.
    pub fn arrived(&self) -> io::Result<()> {
        self.clear_creation()?;
        fs::rename(self.arriving(), self.creating())?;
        durable::sync_folder(&self.folder)
    }

    /// Moves the database of the tenant, which nobody has open any more, out of the way of the one that arrived.
    pub fn make_way(&self) -> io::Result<()> {
        remove_database(&self.replaced())?;
        fs::rename(self.database(), self.replaced())?;
        durable::sync_folder(&self.folder)
    }

    /// Gives the database of a tenant that has its key its second name, where it does not have it yet.
    pub fn finish_creation(&self) -> io::Result<()> {
        if self.creating().try_exists()? && !self.database().try_exists()? {
            // A log that a database left here that made way belongs to that one, and would be taken for this one's.
            remove_companions(&self.database())?;
            fs::rename(self.creating(), self.database())?;
            durable::sync_folder(&self.folder)?;
        }
        remove_database(&self.replaced())
    }

    /// Erases the tenant: once the key is gone, the data is noise. Repeating it does no harm.
    pub fn erase(&self) -> io::Result<()> {
        if !self.marker().try_exists()? {
            durable::create(&self.marker(), b"")?;
        }
        self.remove_data()
    }

    /// Removes the key and then the data. Repeating it does no harm.
    pub fn remove_data(&self) -> io::Result<()> {
        durable::shred(&self.key())?;
        durable::sync_folder(&self.folder)?;
        for database in [self.database(), self.creating(), self.arriving(), self.replaced()] {
            remove_database(&database)?;
        }
        durable::sync_folder(&self.folder)
    }
}

/// Every tenant that exists in a folder, sorted.
pub(crate) fn tenants_in(folder: &Path) -> io::Result<Vec<TenantId>> {
    let mut tenants = Vec::new();
    for files in with_extension(folder, KEY_EXTENSION)? {
        if files.existence()? == Existence::Present {
            tenants.push(files.tenant);
        }
    }
    for files in placed_in(folder)? {
        if matches!(files.existence()?, Existence::Elsewhere(_)) {
            tenants.push(files.tenant);
        }
    }
    tenants.sort();
    Ok(tenants)
}

/// The files of the tenants that are elsewhere, or moved once.
pub(crate) fn placed_in(folder: &Path) -> io::Result<Vec<TenantFiles>> {
    with_extension(folder, PLACE_EXTENSION)
}

/// Removes what moves that were interrupted left of tenants that are elsewhere.
pub(crate) fn finish_moves(folder: &Path) -> io::Result<()> {
    for files in placed_in(folder)? {
        if matches!(files.existence()?, Existence::Elsewhere(_)) && files.key().try_exists()? {
            files.remove_data()?;
        }
    }
    Ok(())
}

/// Finishes the erasures that a crash interrupted.
pub(crate) fn finish_erasures(folder: &Path) -> io::Result<()> {
    for files in with_extension(folder, MARKER_EXTENSION)? {
        if files.key().try_exists()? || files.database().try_exists()? {
            files.erase()?;
        }
    }
    Ok(())
}

/// Throws away what copies left that never arrived.
pub(crate) fn clear_arrivals(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "arriving") {
            remove_database(&path)?;
        }
    }
    Ok(())
}

fn with_extension(folder: &Path, extension: &str) -> io::Result<Vec<TenantFiles>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.filter(|_| path.extension().is_some_and(|of| of == extension));
        if let Some(tenant) = stem.and_then(|stem| stem.parse().ok()) {
            found.push(TenantFiles::new(folder.to_owned(), tenant));
        }
    }
    Ok(found)
}

fn remove_database(path: &Path) -> io::Result<()> {
    durable::remove(path)?;
    remove_companions(path)
}

fn remove_companions(path: &Path) -> io::Result<()> {
    for companion in ["-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(companion);
        durable::remove(Path::new(&name))?;
    }
    Ok(())
}
