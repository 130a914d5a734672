//! The trust in certificates of registries: those that the system trusts, and those that the operator names.
//!
//! A certificate that the operator names may be the registry's own, also if it is one of an authority
//! (`CA:TRUE`), as `openssl req -x509` makes them. Go takes those, and so does BuildKit.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// Trusts what the system trusts, and some certificates.
#[derive(Debug)]
struct Trusting {
    system: Verifier,
    named: Vec<CertificateDer<'static>>,
}

/// TLS that trusts what the system trusts, and the `named` certificates.
///
/// # Errors
/// Where a certificate cannot be read.
pub fn trusting(named: &[CertificateDer<'static>]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Trusting::new(named, Arc::clone(&provider))?;
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.dangerous();
    let config = config.with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

// === impl Trusting ===

impl Trusting {
    fn new(
        named: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        Ok(Self {
            system: Verifier::new_with_extra_roots(named.iter().cloned(), provider)?,
            named: named.to_vec(),
        })
    }
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.system.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // rustls has no error of its own for an authority's certificate. It checks the validity period
            // first.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.named.iter().any(|named| named == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.system
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.system
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.system.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate that is signed by itself.
    fn certificate(is_ca: IsCa) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["registry.example".to_owned()]).unwrap();
        params.is_ca = is_ca;
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_named_certificate_is_trusted_for_its_names_and_its_time() {
        for is_ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::NoCa] {
            let named = certificate(is_ca);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let trusting = Trusting::new(std::slice::from_ref(&named), provider).unwrap();
            let verify = |shown: &CertificateDer<'_>, host: &'static str, year: u64| {
                let host = ServerName::try_from(host).unwrap();
                let now = Duration::from_secs((year - 1970) * 31_557_600);
                let now = UnixTime::since_unix_epoch(now);
                trusting
                    .verify_server_cert(shown, &[], &host, &[], now)
                    .map(|_| ())
            };
            assert_eq!(
                verify(&named, "registry.example", 2026),
                Ok(()),
                "{is_ca:?}"
            );
            for (shown, host, year) in [
                (&named, "other.example", 2026),
                (&named, "registry.example", 2035),
                (&certificate(is_ca), "registry.example", 2026),
            ] {
                let refused = verify(shown, host, year);
                let Err(Error::InvalidCertificate(_)) = refused else {
                    panic!("{host} in {year}: {refused:?}")
                };
            }
        }
    }
}
