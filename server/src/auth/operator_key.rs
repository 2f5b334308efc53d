//! The key of the platform's operators: `operator.key` in the data directory, sealed with the master key.
//!
//! Who can read both is the operator. The server verifies with it; the command line mints with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farshore_store::sealing::MasterKey;
use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use serde::{Deserialize, Serialize};

use super::claims::{OPERATOR_AUDIENCE, OperatorClaims, seconds, unique_token_name};
use super::error::KeyError;
use super::key_id::KeyOwner;
use super::signing_key::{self, SigningKey};
use super::verifying_key::VerifyingKey;
use crate::config::TokenConfig;
use crate::whole_file;

/// The file's name in the data directory.
pub const OPERATOR_KEY_FILE: &str = "operator.key";

/// Why the operators' key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OperatorKeyError {
    /// There is none: no server ever started on this directory.
    #[error("{}: there is no operator key; start the server on this directory first", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written there.
    #[error("{}: the operator key is damaged", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The master key does not open it, or it is damaged.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
}

/// The file, as JSON. The private half in it is sealed.
#[derive(Serialize, Deserialize)]
struct Stored {
    kid: String,
    sealed_private_key: String,
    public_jwk: serde_json::Value,
    created_at_ms: u64,
}

/// The operators' key.
#[derive(Debug)]
pub struct OperatorKey {
    /// The half that mints.
    signing: SigningKey,
    /// The half that verifies.
    verifying: VerifyingKey,
}

impl OperatorKey {
    /// The key of a data directory; made where there is none.
    ///
    /// # Errors
    /// Where it does not open, or cannot be written.
    pub fn open_or_create(
        data_dir: &Path,
        master_key: &MasterKey,
        now_ms: u64,
    ) -> Result<Self, OperatorKeyError> {
        match Self::open(data_dir, master_key) {
            Err(OperatorKeyError::Missing { path }) => {
                let record = signing_key::generate(
                    &KeyOwner::Operators,
                    SigningAlgorithm::EdDsa,
                    master_key,
                    now_ms,
                )
                .map_err(|source| OperatorKeyError::Key { path: path.clone(), source })?;
                whole_file::write(&path, text(&record).as_bytes())
                    .map_err(|source| OperatorKeyError::File { path, source })?;
                Self::open(data_dir, master_key)
            }
            other => other,
        }
    }

    /// The key of a data directory.
    ///
    /// # Errors
    /// Where there is none, or it does not open.
    pub fn open(data_dir: &Path, master_key: &MasterKey) -> Result<Self, OperatorKeyError> {
        let path = data_dir.join(OPERATOR_KEY_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OperatorKeyError::Missing { path });
            }
            Err(source) => return Err(OperatorKeyError::File { path, source }),
        };
        let record =
            parse(&text).ok_or_else(|| OperatorKeyError::Unreadable { path: path.clone() })?;
        let halves = SigningKey::open(&record, master_key).and_then(|signing| {
            Ok(Self {
                signing,
                verifying: VerifyingKey::from_record(&KeyOwner::Operators, &record)?,
            })
        });
        halves.map_err(|source| OperatorKeyError::Key { path, source })
    }

    /// The half that verifies.
    #[must_use]
    pub const fn verifying(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// A token with which an operator calls the server.
    ///
    /// # Errors
    /// Where the key cannot sign.
    pub fn mint(
        &self,
        subject: &str,
        tokens: &TokenConfig,
        now_ms: u64,
    ) -> Result<String, KeyError> {
        let now_s = seconds(now_ms);
        self.signing.sign(&OperatorClaims {
            iss: KeyOwner::Operators.issuer(&tokens.issuer_url),
            sub: subject.to_owned(),
            aud: OPERATOR_AUDIENCE.to_owned(),
            iat: now_s,
            nbf: now_s,
            exp: now_s + seconds(tokens.operator_ms),
            jti: unique_token_name()?,
        })
    }
}

fn parse(text: &str) -> Option<SigningKeyRecord> {
    let stored: Stored = serde_json::from_str(text).ok()?;
    Some(SigningKeyRecord {
        kid: stored.kid,
        algorithm: SigningAlgorithm::EdDsa,
        sealed_private_key: data_encoding::HEXLOWER
            .decode(stored.sealed_private_key.as_bytes())
            .ok()?,
        public_jwk: stored.public_jwk.to_string(),
        created_at_ms: stored.created_at_ms,
        retired_at_ms: None,
    })
}

/// The text of the file.
fn text(record: &SigningKeyRecord) -> String {
    let jwk =
        serde_json::from_str(&record.public_jwk).expect("the JWK of a key that was just made");
    let stored = Stored {
        kid: record.kid.clone(),
        sealed_private_key: data_encoding::HEXLOWER.encode(&record.sealed_private_key),
        public_jwk: jwk,
        created_at_ms: record.created_at_ms,
    };
    serde_json::to_string_pretty(&stored).expect("plain fields")
}
