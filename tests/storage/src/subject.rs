//! What the campaigns need of a store under test.

use std::path::Path;

/// Everything that a store shows, line by line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation(pub Vec<String>);

impl Observation {
    /// The first line in which another one differs.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        let lines = self.0.len().max(other.0.len());
        let none = String::new();
        let line = |of: &Self, at: usize| of.0.get(at).unwrap_or(&none).chars().take(400).collect();
        let differing = (0..lines).find(|at| self.0.get(*at) != other.0.get(*at));
        differing.map_or_else(String::new, |at| {
            let (wanted, found): (String, String) = (line(self, at), line(other, at));
            format!("line {at}: wanted {wanted:?}, found {found:?}")
        })
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It says that what is stored is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// It says that there is no room.
    #[error("full: {0}")]
    Full(String),
    /// It says that the device failed.
    #[error("input or output: {0}")]
    Device(String),
    /// It says anything else.
    #[error("{0}")]
    Other(String),
    /// It shows what cannot be.
    #[error("unsound: {0}")]
    Unsound(String),
}

/// A store under test, with what drives it.
pub trait Subject: Sized + Send + Sync {
    /// Its name in reports.
    const NAME: &'static str;
    /// The open store.
    type Store;

    /// Whether one that is made with the same seed does the same to a copy of the folder. Then what a recorded run shows is
    /// observed in another run: reading is more than looking, where a store brings what it has together for a reader.
    const RUNS_ALIKE: bool = false;

    /// Whether a file belongs to the same as another one that was damaged, so that it stays as it was when that is told.
    /// In a folder of several tenants, the others go on.
    #[must_use]
    fn belongs_together(_damaged: &str, _file: &str) -> bool {
        true
    }

    /// Makes a store in an empty folder and closes it.
    ///
    /// # Errors
    /// [`Problem`].
    fn create(folder: &Path, seed: u64) -> Result<Self, Problem>;

    /// Opens what is in a folder, as the next process does.
    ///
    /// # Errors
    /// [`Problem`].
    fn open(&self, folder: &Path) -> Result<Self::Store, Problem>;

    /// Closes it.
    ///
    /// # Errors
    /// [`Problem`].
    fn close(&self, store: Self::Store) -> Result<(), Problem>;

    /// Does what is done now and then, and changes nothing that shows.
    ///
    /// # Errors
    /// [`Problem`].
    fn tidy(&self, store: &Self::Store) -> Result<(), Problem>;

    /// One transaction; it is acknowledged when this returns without an error, and tried again after one.
    ///
    /// # Errors
    /// [`Problem`].
    fn step(&mut self, store: &Self::Store, step: u64) -> Result<(), Problem>;

    /// Everything that it shows, and that its sums are those of its rows.
    ///
    /// # Errors
    /// [`Problem`].
    fn observe(&self, store: &Self::Store) -> Result<Observation, Problem>;

    /// Goes on after a crash during step `begun`: what is acknowledged outside is recognised, new work is taken.
    ///
    /// # Errors
    /// [`Problem`].
    fn goes_on(&self, store: &Self::Store, found: u64, begun: u64) -> Result<(), Problem>;
}
