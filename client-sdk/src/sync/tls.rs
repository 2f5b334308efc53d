//! TLS of the sync socket: rustls with the roots of the web, or with one root certificate of the app's own.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::Connector;

/// Longest root certificate file, in bytes.
pub const MAX_ROOT_PEM_BYTES: usize = 256 << 10;

/// Why a root certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The text is longer than [`MAX_ROOT_PEM_BYTES`].
    #[error("the root certificate file is longer than {MAX_ROOT_PEM_BYTES} bytes")]
    TooLong,
    /// The text holds no certificate in PEM.
    #[error("the root certificate file holds no certificate in PEM form")]
    NoCertificate,
    /// A certificate cannot be used as a root.
    #[error("the root certificate is not usable: {0}")]
    Unusable(String),
}

/// What opens TLS connections that trust these roots and no others.
pub(crate) fn trust_only(pem: &str) -> Result<Connector, RootError> {
    if pem.len() > MAX_ROOT_PEM_BYTES {
        return Err(RootError::TooLong);
    }
    let unusable = |error: &dyn std::fmt::Display| RootError::Unusable(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(RootError::NoCertificate);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(matches!(trust_only(""), Err(RootError::NoCertificate)));
        assert!(matches!(trust_only("hello"), Err(RootError::NoCertificate)));
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(trust_only(damaged), Err(RootError::Unusable(_))));
        assert!(matches!(trust_only(&"x".repeat(MAX_ROOT_PEM_BYTES + 1)), Err(RootError::TooLong)));
    }
}
