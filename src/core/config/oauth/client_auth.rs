//! `client_auth` and what each way needs: secret, certificate, assertion.

use super::{Report, Section, keystore};
use crate::core::config::preset::Preset;
use crate::core::config::schema::ASSERTION;
use crate::core::profile::is_loopback;
use crate::core::profile::{Assertion, AssertionSource, ClientAuth, Endpoint, Idp, SecretRef};

/// Checks how the client proves who it is. `idp_known`: what the identity provider lacks is really not there.
pub(super) fn check(
    report: &mut Report,
    section: &Section,
    idp: Option<&Idp>,
    preset: Option<Preset>,
    idp_known: bool,
) -> Option<ClientAuth> {
    if section.is_broken("client_auth") {
        return None;
    }
    let auth = match section.given_text("client_auth") {
        Some(auth) => auth,
        None if section.has("client_secret") => {
            preset.map_or("client_secret_basic", Preset::default_secret_auth)
        }
        None => {
            nothing(report, section, preset);
            return None;
        }
    };
    if let Some(preset) = preset {
        preset.check_client_auth(report, &section.spot_of("client_auth"), auth);
    }
    let with_secret = auth.starts_with("client_secret");
    let with_assertion = auth.ends_with("_jwt");
    let with_certificate = auth.ends_with("tls_client_auth");
    unused(report, section, auth, with_secret, with_assertion);
    if with_certificate && idp_known {
        certificate(report, section, auth, idp);
    }
    let secret = match with_secret {
        true => secret(report, section, auth),
        false => None,
    };
    Some(match auth {
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

/// Neither `client_auth` nor a secret: what is meant cannot be guessed.
fn nothing(report: &mut Report, section: &Section, preset: Option<Preset>) {
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
            &section.spot_of("client_auth"),
            "neither `client_secret` nor `client_auth` says how the client proves who it is",
        )
        .help(help)
        .if_whole();
}

/// What is written but has no part in this way to prove who the client is.
fn unused(
    report: &mut Report,
    section: &Section,
    auth: &str,
    with_secret: bool,
    with_assertion: bool,
) {
    for (key, used) in [
        ("client_secret", with_secret),
        ("assertion", with_assertion),
    ] {
        if let Some(entry) = section.given(key)
            && !used
        {
            report
                .error(
                    &entry.key,
                    format!("`{key}` is not used by client_auth = \"{auth}\""),
                )
                .help("remove it, or choose another client_auth")
                .if_whole();
        }
    }
}

fn secret(report: &mut Report, section: &Section, auth: &str) -> Option<SecretRef> {
    if !section.has("client_secret") {
        report
            .error(
                &section.spot_of("client_auth"),
                format!("client_auth = \"{auth}\" needs a `client_secret`"),
            )
            .help("for instance client_secret = { file = \"/path\" }")
            .if_whole();
    }
    section.secret("client_secret")
}

fn certificate(report: &mut Report, section: &Section, auth: &str, idp: Option<&Idp>) {
    // Without an identity provider there are errors already, and its certificate is not known.
    let Some(idp) = idp else {
        return;
    };
    let spot = section.spot_of("client_auth");
    let wrong_tls = section.is_broken("tls");
    if idp.identity.is_none() && !wrong_tls && !section.table("tls").is_some_and(names_one) {
        report
            .error(
                &spot,
                format!("client_auth = \"{auth}\" needs a client certificate"),
            )
            .help("tls = { certificate = \"client.pem\", key = \"client.key\" }, or tls.keystore")
            .if_whole();
    }
    let (Endpoint::Issuer(url) | Endpoint::Token(url)) = &idp.endpoint;
    // Towards other machines plain http has been told already.
    if url.scheme() == "http" && is_loopback(url) {
        report.error(
            &spot,
            format!(
                "client_auth = \"{auth}\" needs https://: a certificate is shown in a TLS handshake"
            ),
        );
    }
}

/// Whether a `tls` table at least tries to name a client certificate: what is wrong with it has been told.
fn names_one(tls: &Section) -> bool {
    ["certificate", "key", "keystore"]
        .iter()
        .any(|key| tls.has(key))
}

/// `assertion` for either way that signs one.
fn assertion(
    report: &mut Report,
    profile: &Section,
    auth: &str,
    idp: Option<&Idp>,
    preset: Option<Preset>,
) -> Option<Assertion> {
    let absent = Section::absent(&ASSERTION, profile.spot_of("assertion"));
    if profile.is_broken("assertion") {
        return None;
    }
    let section = profile.table("assertion").unwrap_or(&absent);
    let by_secret = auth == "client_secret_jwt";
    let sources: Vec<&str> = ["key", "keystore", "file"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    let source = if by_secret {
        signed_by_secret(report, section);
        None
    } else {
        match sources.as_slice() {
            [] => {
                report
                    .error(
                        &profile.spot_of("assertion"),
                        "client_auth = \"private_key_jwt\" needs a key to sign with",
                    )
                    .help("assertion = { key = \"client.key\" }, or assertion.keystore, or assertion.file")
                    .if_whole();
                return None;
            }
            [_] => source(section),
            [one, other, ..] => {
                report
                    .error(
                        &section.spot_of(other),
                        format!("`assertion.{other}` and `assertion.{one}` exclude one another"),
                    )
                    .help("remove one of them");
                return None;
            }
        }
    };
    belongs_to_source(report, section, &sources);
    algorithm(report, section, by_secret);
    let has_certificate = section.has("certificate") || section.has("keystore");
    let entra = preset == Some(Preset::Entra) && !by_secret;
    let x5t = match section.has("x5t") {
        true => section.flag("x5t"),
        // Entra ID finds the certificate by its thumbprint.
        false => entra && has_certificate,
    };
    if x5t && !has_certificate && !by_secret {
        report
            .error(
                &section.spot_of("x5t"),
                "`assertion.x5t` needs the certificate",
            )
            .help("assertion.certificate, or a keystore")
            .if_whole();
    }
    if entra && !x5t && section.has("key") {
        report
            .warning(
                &section.spot_of("key"),
                "Entra ID finds the certificate by its thumbprint, and this assertion has none",
            )
            .help("assertion.certificate = \"client.pem\" and x5t = true");
    }
    let audience = section
        .text("audience")
        .or_else(|| preset?.assertion_audience(&idp?.endpoint));
    if !by_secret && source.is_none() {
        return None;
    }
    Some(Assertion {
        source,
        algorithm: section.text("algorithm"),
        kid: section.text("kid"),
        x5t,
        audience,
        lifetime: section.duration("lifetime"),
    })
}

fn source(section: &Section) -> Option<AssertionSource> {
    if let Some(path) = section.path("file") {
        return Some(AssertionSource::File(path));
    }
    if let Some(store) = section.table("keystore") {
        return keystore(store).map(AssertionSource::Store);
    }
    Some(AssertionSource::Pem {
        key: section.path("key")?,
        key_password: section.secret("key_password"),
        certificate: section.path("certificate"),
    })
}

/// The client secret signs: keys and certificates have no part in it.
fn signed_by_secret(report: &mut Report, section: &Section) {
    for name in [
        "key",
        "key_password",
        "certificate",
        "keystore",
        "file",
        "x5t",
    ] {
        if let Some(entry) = section.given(name) {
            report
                .error(
                    &entry.key,
                    format!(
                        "`assertion.{name}` is not used by client_auth = \"client_secret_jwt\""
                    ),
                )
                .help("the client secret signs this assertion");
        }
    }
}

/// Keys that only some sources of an assertion have a use for.
fn belongs_to_source(report: &mut Report, section: &Section, sources: &[&str]) {
    let useless: &[&str] = match sources {
        ["file"] => &[
            "key_password",
            "certificate",
            "algorithm",
            "kid",
            "x5t",
            "audience",
            "lifetime",
        ],
        ["keystore"] => &["key_password", "certificate"],
        _ => return,
    };
    for name in useless {
        if let Some(entry) = section.given(name) {
            report
                .error(
                    &entry.key,
                    format!(
                        "`assertion.{name}` has no effect with `assertion.{}`",
                        sources[0]
                    ),
                )
                .help("remove it");
        }
    }
}

fn algorithm(report: &mut Report, section: &Section, by_secret: bool) {
    let Some(algorithm) = section.given_text("algorithm") else {
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
        .error(&section.spot_of("algorithm"), message)
        .help(help);
}
