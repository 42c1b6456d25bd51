//! TLS as PostgreSQL's programs use it: often encrypted without looking at the certificate, checked when asked to.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::store::StoreError;

/// Whether the way to a server over TCP is encrypted.
pub(super) enum Tls {
    Off,
    /// When the server can, and without when that fails.
    Prefer(Arc<ClientConfig>),
    Require(Arc<ClientConfig>),
}

/// Whose signature a server's certificate must carry.
pub(super) enum Roots {
    System,
    File(String),
}

/// Encrypts, and believes any certificate.
pub(super) fn unchecked(at_once: bool) -> Result<Arc<ClientConfig>, StoreError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    config(provider, Arc::new(Unchecked(algorithms)), at_once)
}

/// Encrypts, and believes only certificates signed by `roots`; with `name` only those made for the host of the address.
pub(super) fn checked(roots: &Roots, name: bool, at_once: bool) -> Result<Arc<ClientConfig>, StoreError> {
    let own = match roots {
        Roots::System => Vec::new(),
        Roots::File(path) => certificates(path)?,
    };
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        Roots::File(_) => store.add_parsable_certificates(own.iter().cloned()),
    };
    let provider = provider();
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build();
    let chain = chain.map_err(|_| {
        let place = match roots {
            Roots::System => "this machine has no trusted root certificates; install the package ca-certificates, or",
            Roots::File(_) => "the file sslrootcert holds no root certificate that can be used;",
        };
        StoreError::Schema(format!("{place} name the file with the root of the database server as sslrootcert=FILE"))
    })?;
    config(provider, Arc::new(Checked { chain, own, name }), at_once)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    at_once: bool,
) -> Result<Arc<ClientConfig>, StoreError> {
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions
        .map_err(|error| StoreError::Schema(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    if at_once {
        // Without it a server takes such a beginning for a mistake.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Arc::new(config))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let told = |why: &dyn Display| StoreError::Schema(format!("sslrootcert={path} of the database address: {why}"));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| told(&error))?.collect();
    let found = found.map_err(|error| told(&error))?;
    if found.is_empty() { Err(told(&"there is no certificate in it")) } else { Ok(found) }
}

#[derive(Debug)]
struct Unchecked(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[derive(Debug)]
struct Checked {
    chain: Arc<WebPkiServerVerifier>,
    /// What stands in the file `sslrootcert`. PostgreSQL's manual makes a certificate that is its own root, and its users
    /// put that very certificate here: then it is the server's, whatever a chain would have to look like.
    own: Vec<CertificateDer<'static>>,
    name: bool,
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.own.iter().any(|own| own[..] == certificate[..]) {
            if self.name {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        // The name is looked at last: an error about it means that everything else is good.
        match self.chain.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Why a handshake with `host` failed, as a sentence.
pub(super) fn refusal(error: &io::Error, host: &str) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(reason)) = cause else {
        return format!("no TLS with the database server {host}: {error}");
    };
    let why = match reason {
        CertificateError::UnknownIssuer => {
            "nobody whom we trust has signed it; name the file with its root in the database address as sslrootcert=FILE"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is made for another name; write the name that it is made for as the host of the database address, or \
             sslmode=verify-ca, which does not look at names"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        other => other.to_string(),
    };
    format!("the certificate of the database server {host} is refused: {why}")
}

/// What ties a login to this very TLS session (`tls-server-end-point`, RFC 5929): the certificate's digest under the
/// hash function of its own signature. `None` for a signature that names no such function.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (whole, _) = element(certificate)?;
    let (_, after_body) = element(whole)?;
    let (algorithm, _) = element(after_body)?;
    let (name, _) = element(algorithm)?;
    let digest = match name {
        // RSA with MD5 and SHA-1, ECDSA with SHA-1: such weak ones are replaced by SHA-256.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => {
            Sha256::digest(certificate).to_vec()
        }
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => Sha256::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => {
            Sha384::digest(certificate).to_vec()
        }
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => {
            Sha512::digest(certificate).to_vec()
        }
        _ => return None,
    };
    Some(digest)
}

/// The content of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, length], rest) = der.split_first_chunk::<2>()?;
    if length < 0x80 {
        return rest.split_at_checked(usize::from(length));
    }
    let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f)).filter(|(bytes, _)| bytes.len() <= 4)?;
    rest.split_at_checked(length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &[u8] = include_bytes!("../../../tests/tls/server.crt");

    #[test]
    fn a_login_is_tied_to_the_digest_of_the_certificate() {
        let certificate = CertificateDer::from_pem_slice(SERVER).expect("a certificate");
        let digest = end_point(&certificate).expect("signed with ECDSA and SHA-256");
        assert_eq!(hex::encode(digest), "8ed388154e9d5b36081e7747797d9682b522f8d380bddd4865a20408504968cf");
    }

    #[test]
    fn what_is_no_certificate_ties_nothing() {
        let broken: [&[u8]; 6] = [&[], &[0x30], &[0x30, 0x84, 1], &[0x30, 3, 1, 2], &[0x30, 0x80], &[0xff; 40]];
        for bytes in broken {
            assert_eq!(end_point(bytes), None);
        }
    }
}
