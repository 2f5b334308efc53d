//! The signing keys of a tenant in SQL.

use async_trait::async_trait;

use super::{Sql, SqlRow, Statement};
use crate::StoreError;
use crate::signing_keys::{SigningAlgorithm, SigningKeyRecord, SigningKeyStore};

const LIST: &str = "SELECT kid, algorithm, sealed_private_key, public_jwk, created_at_ms, \
    retired_at_ms FROM main.signing_keys ORDER BY generation DESC";
const RETIRE: &str = "UPDATE main.signing_keys SET retired_at_ms = $1 WHERE retired_at_ms IS NULL";
const ADD: &str = "INSERT INTO main.signing_keys (generation, kid, algorithm, sealed_private_key, \
    public_jwk, created_at_ms, retired_at_ms) \
    SELECT COALESCE(MAX(generation), 0) + 1, $1, $2, $3, $4, $5, $6 FROM main.signing_keys";

#[async_trait]
impl<T: Sql> SigningKeyStore for T {
    async fn signing_keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        let rows = self.query("read the signing keys", Statement::new(LIST, [])).await?;
        rows.into_iter().map(read).collect()
    }

    async fn rotate_signing_key(&self, key: &SigningKeyRecord) -> Result<(), StoreError> {
        let retire = Statement::new(RETIRE, [key.created_at_ms.into()]);
        let values = [
            key.kid.as_str().into(),
            key.algorithm.as_str().into(),
            key.sealed_private_key.as_slice().into(),
            key.public_jwk.as_str().into(),
            key.created_at_ms.into(),
            key.retired_at_ms.into(),
        ];
        self.execute("rotate the signing key", vec![retire, Statement::new(ADD, values)]).await?;
        Ok(())
    }
}

fn read(mut row: SqlRow) -> Result<SigningKeyRecord, StoreError> {
    let operation = "read a signing key";
    let algorithm: String = row.take(operation, 1)?;
    Ok(SigningKeyRecord {
        kid: row.take(operation, 0)?,
        algorithm: SigningAlgorithm::from_name(&algorithm).ok_or_else(|| StoreError::Damaged {
            operation,
            detail: format!("algorithm {algorithm:?}"),
        })?,
        sealed_private_key: row.take(operation, 2)?,
        public_jwk: row.take(operation, 3)?,
        created_at_ms: row.take(operation, 4)?,
        retired_at_ms: row.take(operation, 5)?,
    })
}
