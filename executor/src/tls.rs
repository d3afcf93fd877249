//! TLS for every kind: rustls with ring, authorities of the system or of a file.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_name, WebPkiServerVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
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
        let anybody = Arc::new(Verifier { checks: None, provider });
        return Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()));
    }
    let (roots, named) = match authorities {
        Some(file) => authorities_of(file)?,
        None => (system_authorities()?, Vec::new()),
    };
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| Failure::new(format!("TLS cannot be set up: {error}")))?;
    let checks = Some(Checks { inner, named, name: verify == Verify::Full });
    let verifier = Arc::new(Verifier { checks, provider });
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Read once: it takes some milliseconds.
fn system_authorities() -> Result<Arc<RootCertStore>, Failure> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = SYSTEM.get() {
        return Ok(roots.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failure::new("the system has no certificates of authorities")
            .hint("Install ca-certificates, or name a file with the authority's certificate."));
    }
    Ok(SYSTEM.get_or_init(|| Arc::new(roots)).clone())
}

type Certificates = Vec<CertificateDer<'static>>;

fn authorities_of(file: &str) -> Result<(Arc<RootCertStore>, Certificates), Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot read the certificates in {file}: {error}"))
            .hint("It must be a file with PEM certificates that the server's operating system user may read.")
    };
    let mut roots = RootCertStore::empty();
    let mut named = Vec::new();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate.clone()).map_err(|error| wrong(&error))?;
        named.push(certificate);
    }
    if roots.is_empty() {
        return Err(wrong(&"there is none"));
    }
    Ok((Arc::new(roots), named))
}

/// Checks what `Verify` says. Signatures of the handshake always.
#[derive(Debug)]
struct Verifier {
    /// None: it may be anybody.
    checks: Option<Checks>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Checks {
    inner: Arc<WebPkiServerVerifier>,
    /// The certificates of the file itself: a server that shows one of these is trusted, whoever signed it.
    named: Certificates,
    /// Whether the name must be right.
    name: bool,
}

impl Checks {
    /// A certificate that signs itself is an authority and a server's at once, which webpki takes for neither.
    fn verify_named(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let bad = |error| Error::InvalidCertificate(error);
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
        let now = i64::try_from(now.as_secs()).map_err(|_| bad(CertificateError::Expired))?;
        let validity = parsed.validity();
        if now < validity.not_before.timestamp() {
            return Err(bad(CertificateError::NotValidYet));
        }
        if now > validity.not_after.timestamp() {
            return Err(bad(CertificateError::Expired));
        }
        match self.name {
            true => verify_server_name(&ParsedCertificate::try_from(certificate)?, name),
            false => Ok(()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(checks) = &self.checks else { return Ok(ServerCertVerified::assertion()) };
        if checks.named.iter().any(|named| named == certificate) {
            return checks.verify_named(certificate, name, now).map(|()| ServerCertVerified::assertion());
        }
        match checks.inner.verify_server_cert(certificate, between, name, ocsp, now) {
            // The name is looked at last, when all else is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !checks.name => Ok(ServerCertVerified::assertion()),
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
