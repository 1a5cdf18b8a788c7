//! `client_auth`, and what each way needs: a secret, a certificate or an assertion.

use super::{ConfigReport, Section, keystore};
use crate::core::config::preset::Preset;
use crate::core::config::schema::{KeySpec, assertion, profile, tls};
use crate::core::oauth::federated::{JWT_BEARER, JWT_SPIFFE};
use crate::core::profile::client_auth::{Assertion, AssertionSource, Audience, ClientAuth, Kid};
use crate::core::profile::is_loopback;
use crate::core::profile::{Endpoint, Idp, SecretRef};

/// Checks how the client proves its identity. `idp_known`: whether a key that the identity provider
/// lacks is really missing.
pub(super) fn check(
    report: &mut ConfigReport,
    section: &Section,
    idp: Option<&Idp>,
    preset: Option<Preset>,
    idp_known: bool,
) -> Option<ClientAuth> {
    if section.is_broken(&profile::CLIENT_AUTH) {
        return None;
    }
    let auth = match section.get(&profile::CLIENT_AUTH) {
        Some(auth) => auth,
        None if section.has(&profile::CLIENT_SECRET) => {
            preset.map_or("client_secret_basic", Preset::default_secret_auth)
        }
        None => {
            nothing(report, section, preset);
            return None;
        }
    };
    if let Some(preset) = preset {
        preset.check_client_auth(report, &section.spot_of(&profile::CLIENT_AUTH), auth);
    }
    let with_secret = auth.starts_with("client_secret");
    let with_assertion = auth.ends_with("_jwt");
    let with_certificate = auth.ends_with("tls_client_auth");
    unused(report, section, auth, with_secret, with_assertion);
    let plain = basic_is_plain(report, section, auth);
    if with_certificate && idp_known {
        certificate(report, section, auth, idp);
    }
    let secret = match with_secret {
        true => secret(report, section, auth),
        false => None,
    };
    Some(match auth {
        "client_secret_basic" if plain => ClientAuth::SecretBasicPlain(secret?),
        "client_secret_basic" => ClientAuth::SecretBasic(secret?),
        "client_secret_post" => ClientAuth::SecretPost(secret?),
        "client_secret_jwt" => {
            let assertion = assertion(report, section, auth, idp, preset);
            ClientAuth::SecretJwt(secret?, assertion?)
        }
        "private_key_jwt" => {
            ClientAuth::PrivateKeyJwt(assertion(report, section, auth, idp, preset)?)
        }
        "tls_client_auth" => ClientAuth::Tls,
        "self_signed_tls_client_auth" => ClientAuth::SelfSignedTls,
        _ => ClientAuth::None,
    })
}

/// Reports that there is neither `client_auth` nor a secret, so that the way cannot be guessed.
fn nothing(report: &mut ConfigReport, section: &Section, preset: Option<Preset>) {
    let help = match preset {
        Some(Preset::Saas) => "client_secret = { file = \"…\" }",
        _ => {
            "client_secret = { file = \"…\" }; or client_auth = \"private_key_jwt\" with an assertion; or \
             client_auth = \"tls_client_auth\" or \"self_signed_tls_client_auth\" with tls.certificate and tls.key; or \
             client_auth = \"none\" for a public client"
        }
    };
    report
        .error(
            &section.spot_of(&profile::CLIENT_AUTH),
            "neither `client_secret` nor `client_auth` says how the client proves who it is",
        )
        .help(help)
        .if_whole();
}

/// Reports keys that this way of client authentication does not use.
fn unused(
    report: &mut ConfigReport,
    section: &Section,
    auth: &str,
    with_secret: bool,
    with_assertion: bool,
) {
    let keys: [(&KeySpec, bool); 3] = [
        (&profile::CLIENT_SECRET, with_secret),
        (&profile::BASIC_ENCODING, auth == "client_secret_basic"),
        (&profile::ASSERTION, with_assertion),
    ];
    for (key, used) in keys {
        if let Some(entry) = section.given(key)
            && !used
        {
            report
                .error(
                    &entry.key,
                    format!("`{}` is not used by client_auth = \"{auth}\"", key.name),
                )
                .help("remove it, or choose another client_auth")
                .if_whole();
        }
    }
}

/// Whether id and secret go into the header as they are.
fn basic_is_plain(report: &mut ConfigReport, section: &Section, auth: &str) -> bool {
    let plain = section.get(&profile::BASIC_ENCODING) == "plain";
    let id = section.get(&profile::CLIENT_ID).unwrap_or_default();
    if plain && auth == "client_secret_basic" && id.contains(':') {
        report
            .error(
                &section.spot_of(&profile::CLIENT_ID),
                "must not have a colon with basic_encoding = \"plain\": the secret would begin there (RFC 7617 §2)",
            )
            .help("remove basic_encoding, or use client_auth = \"client_secret_post\"");
    }
    plain
}

fn secret(report: &mut ConfigReport, section: &Section, auth: &str) -> Option<SecretRef> {
    if !section.has(&profile::CLIENT_SECRET) {
        report
            .error(
                &section.spot_of(&profile::CLIENT_AUTH),
                format!("client_auth = \"{auth}\" needs a `client_secret`"),
            )
            .help("for instance client_secret = { file = \"/path\" }")
            .if_whole();
    }
    section.get(&profile::CLIENT_SECRET)
}

fn certificate(report: &mut ConfigReport, section: &Section, auth: &str, idp: Option<&Idp>) {
    // Without an identity provider there are errors already, and its certificate is unknown.
    let Some(idp) = idp else {
        return;
    };
    let spot = section.spot_of(&profile::CLIENT_AUTH);
    let wrong_tls = section.is_broken(&profile::TLS);
    if idp.identity.is_none() && !wrong_tls && !section.table(&profile::TLS).is_some_and(names_one)
    {
        report
            .error(
                &spot,
                format!("client_auth = \"{auth}\" needs a client certificate"),
            )
            .help("tls = { certificate = \"client.pem\", key = \"client.key\" }, or tls.keystore")
            .if_whole();
    }
    let (Endpoint::Issuer(url) | Endpoint::Token(url)) = &idp.endpoint;
    // Plain HTTP to other machines has been reported already.
    if url.scheme() == "http" && is_loopback(url) {
        report.error(
            &spot,
            format!(
                "client_auth = \"{auth}\" needs https://: a certificate is shown in a TLS handshake"
            ),
        );
    }
}

/// Whether a `tls` table at least tries to name a client certificate. Its errors have been
/// reported.
fn names_one(tls: &Section) -> bool {
    tls.has(&tls::CERTIFICATE) || tls.has(&tls::KEY) || tls.has(&tls::KEYSTORE)
}

/// `assertion`, for both ways that sign one.
fn assertion(
    report: &mut ConfigReport,
    profile: &Section,
    auth: &str,
    idp: Option<&Idp>,
    preset: Option<Preset>,
) -> Option<Assertion> {
    if profile.is_broken(&profile::ASSERTION) {
        return None;
    }
    let section = &profile.table_or_absent(&profile::ASSERTION);
    let by_secret = auth == "client_secret_jwt";
    let all: [&KeySpec; 3] = [&assertion::KEY, &assertion::KEYSTORE, &assertion::FILE];
    let sources: Vec<&KeySpec> = all.into_iter().filter(|key| section.has(key)).collect();
    let source = if by_secret {
        signed_by_secret(report, section);
        None
    } else {
        match sources.as_slice() {
            [] => {
                report
                    .error(
                        &profile.spot_of(&profile::ASSERTION),
                        "client_auth = \"private_key_jwt\" needs a key to sign with",
                    )
                    .help(
                        "assertion = { key = \"client.key\" }, or assertion.keystore, \
                         or assertion.file",
                    )
                    .if_whole();
                return None;
            }
            [_] => source(section),
            [one, other, ..] => {
                let (one, name) = (one.name, other.name);
                report
                    .error(
                        &section.spot_of(other),
                        format!("`assertion.{name}` and `assertion.{one}` exclude one another"),
                    )
                    .help("remove one of them");
                return None;
            }
        }
    };
    belongs_to_source(report, section, &sources);
    algorithm(report, section, by_secret);
    let x5t = thumbprint(report, section, by_secret, preset);
    let audience = audience(report, section, idp, preset);
    let kid = kid(report, section, by_secret);
    if !by_secret && source.is_none() {
        return None;
    }
    Some(Assertion {
        source,
        algorithm: section.get(&assertion::ALGORITHM).map(str::to_owned),
        kid,
        x5t,
        audience,
        lifetime: section.get(&assertion::LIFETIME),
    })
}

/// The audience of the assertion.
fn audience(
    report: &mut ConfigReport,
    section: &Section,
    idp: Option<&Idp>,
    preset: Option<Preset>,
) -> Option<Audience> {
    let named = match section.get(&assertion::AUDIENCE) {
        Some(named) => named,
        None => {
            return preset?
                .assertion_audience(&idp?.endpoint)
                .map(Audience::Named);
        }
    };
    Some(match named.as_str() {
        "issuer" => {
            if let Some(Endpoint::Token(_)) = idp.map(|idp| &idp.endpoint) {
                report
                    .error(
                        &section.spot_of(&assertion::AUDIENCE),
                        "`assertion.audience` = \"issuer\", and with `token_url` nobody says who that is",
                    )
                    .help("the issuer's URL itself, or `issuer` instead of `token_url`")
                    .if_whole();
            }
            Audience::Issuer
        }
        "token_endpoint" => Audience::TokenEndpoint,
        _ => Audience::Named(named),
    })
}

/// The key identifier of the assertion's header.
fn kid(report: &mut ConfigReport, section: &Section, by_secret: bool) -> Option<Kid> {
    let named = section.get(&assertion::KID).map(Kid::Named);
    if !section.get(&assertion::KID_THUMBPRINT) {
        return named;
    }
    let spot = section.spot_of(&assertion::KID_THUMBPRINT);
    if named.is_some() {
        report
            .error(
                &spot,
                "`assertion.kid_thumbprint` and `assertion.kid` exclude one another",
            )
            .help("remove one of them");
    }
    // A secret has no public key. That has been reported.
    (!by_secret).then_some(Kid::Thumbprint)
}

/// Whether the assertion's header names the certificate by its thumbprints.
fn thumbprint(
    report: &mut ConfigReport,
    section: &Section,
    by_secret: bool,
    preset: Option<Preset>,
) -> bool {
    let has_certificate = section.has(&assertion::CERTIFICATE) || section.has(&assertion::KEYSTORE);
    let entra = preset == Some(Preset::Entra) && !by_secret;
    let x5t = match section.has(&assertion::X5T) {
        true => section.get(&assertion::X5T),
        // Entra ID finds the certificate by its thumbprint.
        false => entra && has_certificate,
    };
    if x5t && !has_certificate && !by_secret {
        report
            .error(
                &section.spot_of(&assertion::X5T),
                "`assertion.x5t` needs the certificate",
            )
            .help("assertion.certificate, or a keystore")
            .if_whole();
    }
    if entra && !x5t && section.has(&assertion::KEY) {
        report
            .warning(
                &section.spot_of(&assertion::KEY),
                "Entra ID finds the certificate by its thumbprint, and this assertion has none",
            )
            .help("assertion.certificate = \"client.pem\" and x5t = true");
    }
    x5t
}

fn source(section: &Section) -> Option<AssertionSource> {
    if let Some(path) = section.get(&assertion::FILE) {
        let kind = match section.get(&assertion::TYPE) {
            Some(name) if name == "jwt-spiffe" => JWT_SPIFFE.to_owned(),
            Some(uri) if uri != "jwt-bearer" => uri,
            _ => JWT_BEARER.to_owned(),
        };
        return Some(AssertionSource::File { path, kind });
    }
    if let Some(store) = section.table(&assertion::KEYSTORE) {
        return keystore(store).map(AssertionSource::Store);
    }
    Some(AssertionSource::Pem {
        key: section.get(&assertion::KEY)?,
        key_password: section.get(&assertion::KEY_PASSWORD),
        certificate: section.get(&assertion::CERTIFICATE),
    })
}

/// Reports keys and certificates that are not used because the client secret signs.
fn signed_by_secret(report: &mut ConfigReport, section: &Section) {
    let useless: [&KeySpec; 8] = [
        &assertion::KEY,
        &assertion::KEY_PASSWORD,
        &assertion::CERTIFICATE,
        &assertion::KEYSTORE,
        &assertion::FILE,
        &assertion::TYPE,
        &assertion::KID_THUMBPRINT,
        &assertion::X5T,
    ];
    for key in useless {
        if let Some(entry) = section.given(key) {
            report
                .error(
                    &entry.key,
                    format!(
                        "`assertion.{}` is not used by client_auth = \"client_secret_jwt\"",
                        key.name
                    ),
                )
                .help("the client secret signs this assertion");
        }
    }
}

/// Reports keys that only some sources of an assertion use.
fn belongs_to_source(report: &mut ConfigReport, section: &Section, sources: &[&KeySpec]) {
    let [source] = sources else {
        return;
    };
    let useless: &[&KeySpec] = if source.name == assertion::FILE.name {
        &[
            &assertion::KEY_PASSWORD,
            &assertion::CERTIFICATE,
            &assertion::ALGORITHM,
            &assertion::KID,
            &assertion::KID_THUMBPRINT,
            &assertion::X5T,
            &assertion::AUDIENCE,
            &assertion::LIFETIME,
        ]
    } else if source.name == assertion::KEYSTORE.name {
        &[
            &assertion::KEY_PASSWORD,
            &assertion::CERTIFICATE,
            &assertion::TYPE,
        ]
    } else {
        &[&assertion::TYPE]
    };
    for key in useless {
        if let Some(entry) = section.given(key) {
            report
                .error(
                    &entry.key,
                    format!(
                        "`assertion.{}` has no effect with `assertion.{}`",
                        key.name, source.name
                    ),
                )
                .help("remove it");
        }
    }
}

fn algorithm(report: &mut ConfigReport, section: &Section, by_secret: bool) {
    let Some(algorithm) = section.get(&assertion::ALGORITHM) else {
        return;
    };
    if algorithm.starts_with("HS") == by_secret {
        return;
    }
    let message = match by_secret {
        true => format!("a client secret cannot sign with {algorithm}"),
        false => format!("a private key cannot sign with {algorithm}"),
    };
    let help = match by_secret {
        true => "HS256, HS384 or HS512",
        false => "for instance RS256, PS256 or ES256",
    };
    report
        .error(&section.spot_of(&assertion::ALGORITHM), message)
        .help(help);
}
