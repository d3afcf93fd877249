//! TLS for every kind: rustls with ring, authorities of the system or of a file.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::job::Failure;

/// What is checked of the other side's certificate, as libpq names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// `require`, `prefer`: encrypted, but it may be anybody.
    Nothing,
    /// `verify-ca`: signed by an authority that is trusted, under whatever name.
    Authority,
    /// `verify-full`: also the name.
    Full,
}

/// The configuration of a client. `authorities`: a file with PEM certificates; none: those of the system.
pub fn client_config(verify: Verify, authorities: Option<&str>) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(format!("TLS cannot be set up: {error}")))?;
    if verify == Verify::Nothing {
        let anybody = Arc::new(Lenient { inner: None, provider });
        return Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()));
    }
    let roots = Arc::new(authorities.map_or_else(system_authorities, authorities_of)?);
    if verify == Verify::Full {
        return Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()));
    }
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| Failure::new(format!("TLS cannot be set up: {error}")))?;
    let lenient = Arc::new(Lenient { inner: Some(inner), provider });
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(lenient).with_no_client_auth()))
}

fn system_authorities() -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failure::new("the system has no certificates of authorities")
            .hint("Install ca-certificates, or name a file with the authority's certificate."));
    }
    Ok(roots)
}

fn authorities_of(file: &str) -> Result<RootCertStore, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot read the certificates in {file}: {error}"))
            .hint("It must be a file with PEM certificates that the server's operating system user may read.")
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"there is none"));
    }
    Ok(roots)
}

/// Checks less than everything: who signed, without the name; or nothing. Signatures of the handshake always.
#[derive(Debug)]
struct Lenient {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
