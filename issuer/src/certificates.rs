//! Throw-away authorities and certificates, made in memory. A caller that needs files writes them.

use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
    SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use secrecy::{ExposeSecret as _, SecretString};

use crate::clock::WallClock;

/// How long authorities and server certificates live: longer than any session of `tokend dev`,
/// short enough that a forgotten one is worth nothing.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// Certificates start this long ago, so that a peer whose clock is a little behind accepts them.
const BACKDATED: Duration = Duration::from_secs(300);

/// A certification authority. Its key exists only as long as this value.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    /// The part of a leaf's chain between the leaf and the root, in PEM; empty for a root.
    chain_pem: String,
    clock: WallClock,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Chain in PEM, own certificate first, without the root.
    pub certificate_pem: String,
    /// PKCS#8 in PEM.
    pub(crate) key_pem: SecretString,
    /// SubjectPublicKeyInfo in PEM: what an issuer registers for `private_key_jwt`.
    pub public_key_pem: String,
    /// x5t#S256 of the certificate: base64url of its SHA-256 (RFC 8705 §3.1).
    pub thumbprint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratedKeyKind {
    /// P-256
    Ec,
    /// 2048 bits; takes a noticeable fraction of a second to make.
    Rsa,
    /// Ed25519
    Ed25519,
}

/// What a client certificate is like. Default: P-256, valid for a day, no alternative name.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// When the certificate starts, in seconds from now; may be negative. Default: -300.
    pub not_before: i64,
    /// How long the certificate is valid, counted from *now*; zero therefore makes an expired one.
    pub lifetime: Duration,
    pub key: GeneratedKeyKind,
    /// A URI as subject alternative name, for instance a SPIFFE ID.
    pub san_uri: Option<String>,
}

impl Pair {
    /// The certificate's key as PKCS#8 in PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        self.key_pem.expose_secret()
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            not_before: -300,
            lifetime: Duration::from_secs(24 * 3600),
            key: GeneratedKeyKind::Ec,
            san_uri: None,
        }
    }
}

impl Authority {
    /// A root with a new P-256 key, valid for 30 days from `clock`'s now.
    ///
    /// # Errors
    /// rcgen fails, for instance because a name cannot be encoded. This holds for every function
    /// here.
    pub fn new(common_name: &str, clock: &WallClock) -> Result<Authority, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(common_name, clock);
        let certificate = params.self_signed(&key)?;
        Ok(Authority {
            issuer: Issuer::new(params, key),
            certificate_pem: certificate.pem(),
            chain_pem: String::new(),
            clock: clock.clone(),
        })
    }

    /// An authority below this one. The chains of certificates that it signs contain its
    /// certificate.
    pub fn intermediate(&self, common_name: &str) -> Result<Authority, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(common_name, &self.clock);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Authority {
            issuer: Issuer::new(params, key),
            certificate_pem: certificate.pem(),
            chain_pem: certificate.pem() + &self.chain_pem,
            clock: self.clock.clone(),
        })
    }

    /// A server certificate for DNS names and IP addresses, valid for 30 days.
    pub fn server(&self, names: &[&str]) -> Result<Pair, Error> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone())?;
        let common_name = names.first().map_or("server", String::as_str);
        let now = self.clock.now();
        name_and_time(
            &mut params,
            common_name,
            now.saturating_sub(BACKDATED),
            now.saturating_add(LONG),
        );
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(self.pair(&certificate, &key))
    }

    /// A client certificate with this subject.
    pub fn client(&self, common_name: &str, options: &ClientOptions) -> Result<Pair, Error> {
        let (params, key) = client_params(common_name, options, &self.clock)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(self.pair(&certificate, &key))
    }

    /// The authority's own certificate, which a peer trusts.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    fn pair(&self, certificate: &Certificate, key: &KeyPair) -> Pair {
        pair(certificate, key, &self.chain_pem)
    }
}

/// A self-signed client certificate (`self_signed_tls_client_auth`, RFC 8705 §2.2).
pub fn self_signed(
    common_name: &str,
    options: &ClientOptions,
    clock: &WallClock,
) -> Result<Pair, Error> {
    let (params, key) = client_params(common_name, options, clock)?;
    let certificate = params.self_signed(&key)?;
    Ok(pair(&certificate, &key, ""))
}

/// x5t#S256 of a certificate in DER (RFC 8705 §3.1).
#[must_use]
pub fn thumbprint(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, der))
}

fn pair(certificate: &Certificate, key: &KeyPair, chain_pem: &str) -> Pair {
    Pair {
        certificate_pem: certificate.pem() + chain_pem,
        key_pem: key.serialize_pem().into(),
        public_key_pem: key.public_key_pem(),
        thumbprint: thumbprint(certificate.der()),
    }
}

fn authority_params(common_name: &str, clock: &WallClock) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = clock.now();
    name_and_time(
        &mut params,
        common_name,
        now.saturating_sub(BACKDATED),
        now.saturating_add(LONG),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn client_params(
    common_name: &str,
    options: &ClientOptions,
    clock: &WallClock,
) -> Result<(CertificateParams, KeyPair), Error> {
    let key = match options.key {
        GeneratedKeyKind::Ec => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        GeneratedKeyKind::Rsa => KeyPair::generate_for(&PKCS_RSA_SHA256)?,
        GeneratedKeyKind::Ed25519 => ed25519()?,
    };
    let mut params = CertificateParams::default();
    let now = clock.now();
    let shift = Duration::from_secs(options.not_before.unsigned_abs());
    let starts = if options.not_before < 0 {
        now.saturating_sub(shift)
    } else {
        now.saturating_add(shift)
    };
    name_and_time(
        &mut params,
        common_name,
        starts,
        now.saturating_add(options.lifetime),
    );
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Some(uri) = &options.san_uri {
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    }
    Ok((params, key))
}

/// rcgen would make PKCS#8 version 2, which OpenSSL 3.0 and others cannot read.
fn ed25519() -> Result<KeyPair, Error> {
    let document = Ed25519KeyPair::generate()
        .and_then(|pair| pair.to_pkcs8v1())
        .map_err(|_| Error::KeyGenerationUnavailable)?;
    let der = PrivatePkcs8KeyDer::from(document.as_ref());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
}

fn name_and_time(
    params: &mut CertificateParams,
    common_name: &str,
    starts: Duration,
    ends: Duration,
) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // X.509 dates have whole seconds only, and the last second is still valid (RFC 5280 §4.1.2.5).
    params.not_before = epoch + Duration::from_secs(starts.as_secs());
    params.not_after = epoch + Duration::from_secs(ends.as_secs().saturating_sub(1));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    if params.key_usages.is_empty() {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    fn der(pem: &str) -> Vec<Vec<u8>> {
        Pem::iter_from_buffer(pem.as_bytes())
            .map(|pem| pem.unwrap().contents)
            .collect()
    }

    #[test]
    fn a_leaf_carries_its_intermediate_but_not_the_root() {
        let clock = WallClock::system();
        let root = Authority::new("root", &clock).unwrap();
        let middle = root.intermediate("middle").unwrap();
        let leaf = middle.client("leaf", &ClientOptions::default()).unwrap();
        let chain = der(&leaf.certificate_pem);
        assert_eq!(chain.len(), 2);
        assert_eq!(thumbprint(&chain[0]), leaf.thumbprint);
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let (_, middle) = X509Certificate::from_der(&chain[1]).unwrap();
        assert_eq!(leaf.issuer(), middle.subject());
        assert_eq!(leaf.subject().to_string(), "CN=leaf");
        assert!(middle.is_ca() && !leaf.is_ca());
    }

    #[test]
    fn options_are_in_the_certificate() {
        let clock = WallClock::system();
        let now = clock.now().as_secs().cast_signed();
        let root = Authority::new("root", &clock).unwrap();
        for (key, oid) in [
            (GeneratedKeyKind::Ec, "1.2.840.10045.2.1"),
            (GeneratedKeyKind::Rsa, "1.2.840.113549.1.1.1"),
            (GeneratedKeyKind::Ed25519, "1.3.101.112"),
        ] {
            let options = ClientOptions {
                not_before: 60,
                lifetime: Duration::from_secs(600),
                key,
                san_uri: Some("spiffe://example.org/worker".into()),
            };
            let pair = root.client("worker", &options).unwrap();
            let chain = der(&pair.certificate_pem);
            let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
            assert_eq!(leaf.public_key().algorithm.algorithm.to_string(), oid);
            let validity = leaf.validity();
            assert!((now + 60..now + 63).contains(&validity.not_before.timestamp()));
            assert!((now + 599..now + 602).contains(&validity.not_after.timestamp()));
            let names = leaf.subject_alternative_name().unwrap().unwrap();
            assert_eq!(
                names.value.general_names,
                [GeneralName::URI("spiffe://example.org/worker")]
            );
            assert!(pair.key_pem().contains("BEGIN PRIVATE KEY"));
            assert!(pair.public_key_pem.contains("BEGIN PUBLIC KEY"));
        }
    }
}
