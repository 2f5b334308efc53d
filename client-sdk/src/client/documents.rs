//! Reading documents: their texts, their JSON, and which changes they hold.

use farshore_sync_core::document::{ChangeHash, DocumentPath};
use farshore_sync_core::ids::RowId;

use super::Client;
use crate::store::QueryError;

impl Client {
    /// A text of a document; `None` where there is no such live row.
    ///
    /// # Errors
    /// [`QueryError::Document`] where the document has no text at `path`, and see [`QueryError`].
    pub fn document_text(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
        path: &DocumentPath,
    ) -> Result<Option<String>, QueryError> {
        self.inner.store.get()?.document_text(collection, row, column, path)
    }

    /// A document as JSON; `None` where there is no such live row.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn document_json(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
    ) -> Result<Option<serde_json::Value>, QueryError> {
        self.inner.store.get()?.document_json(collection, row, column)
    }

    /// The newest changes of a document: the version that an editor shows, to be edited with
    /// [`crate::store::WriteTransaction::edit_document_at`]. `None` where there is no such live row.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn document_heads(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
    ) -> Result<Option<Vec<ChangeHash>>, QueryError> {
        self.inner.store.get()?.document_heads(collection, row, column)
    }

    /// Those of some changes that have not arrived in a document; `None` where there is no such live row.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn document_missing(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
        changes: &[ChangeHash],
    ) -> Result<Option<Vec<ChangeHash>>, QueryError> {
        self.inner.store.get()?.document_missing(collection, row, column, changes)
    }
}
