//! `method = "oauth2"`: the identity provider with what the profile overrides, and the token request.

mod client_auth;

use url::Url;

use super::gather::Gathered;
use super::preset::{self, Preset};
use super::report::{Owner, Report, Spot, shorten};
use super::schema::{HTTP, IDP, TLS, Table};
use super::section::Section;
use super::values;
use crate::core::profile::{
    Endpoint, GrantType, Http, IdentitySource, Idp, Keystore, OAuth2, TrustSource, is_loopback,
};

/// What of an `[idp]`'s `tls` gives way when the profile says one of the keys on the left.
const TLS_GIVES_WAY: &[(&[&str], &[&str])] = &[
    (&["ca", "truststore"], &["ca", "truststore"]),
    (
        &["keystore"],
        &["certificate", "key", "key_password", "keystore"],
    ),
    (&["certificate", "key"], &["keystore"]),
    // The password is that of the key that is replaced.
    (&["key"], &["key_password"]),
];

/// Pairs of `tls` that say the same thing in two ways.
const TLS_EITHER_OR: &[(&str, &str)] = &[
    ("ca", "truststore"),
    ("certificate", "keystore"),
    ("key", "keystore"),
    ("key_password", "keystore"),
];

/// Checks an `[idp.NAME]` by itself, be it used or not.
pub(super) fn check_idp(report: &mut Report, idp: &Section) {
    either_or(report, idp, &[("issuer", "token_url")]);
    if let Some(tls) = idp.table("tls") {
        either_or(report, tls, TLS_EITHER_OR);
    }
}

/// Checks an oauth2 profile. None, or any error that is told, means that it cannot be used.
pub(super) fn check(
    report: &mut Report,
    gathered: &Gathered,
    section: &Section,
    preset: Option<Preset>,
) -> Option<OAuth2> {
    if let Some(grant) = section.given_text("grant")
        && grant != "client_credentials"
    {
        let message = format!("grant = \"{grant}\" is not supported by this version of tokend");
        report
            .error(&section.spot_of("grant"), message)
            .help("only \"client_credentials\" is");
    }
    if let Some(preset) = preset {
        preset.check_request(report, section);
    }
    let shared = shared_idp(report, gathered, section);
    let idp = match shared {
        Ok(shared) => idp(report, section, shared, preset),
        Err(()) => None,
    };
    let client_auth = client_auth::check(report, section, idp.as_ref(), preset, shared.is_ok());
    let audience = section
        .text("audience")
        .or_else(|| Some(preset?.default_audience()?.to_owned()));
    Some(OAuth2 {
        idp: idp?,
        grant: GrantType::ClientCredentials,
        client_id: section.text("client_id")?,
        client_auth: client_auth?,
        scopes: preset::plain(section.texts("scopes")),
        audience,
        resource: preset::plain(section.texts("resource")),
        extra: section.map("extra"),
    })
}

/// The `[idp.NAME]` that the profile names; Err when it names one that is of no use, which has been told.
fn shared_idp<'g>(
    report: &mut Report,
    gathered: &'g Gathered,
    section: &Section,
) -> Result<Option<&'g Section>, ()> {
    let Some(name) = section.given_text("idp") else {
        return if section.has("idp") {
            Err(())
        } else {
            Ok(None)
        };
    };
    let spot = section.spot_of("idp");
    let Some(idp) = gathered.idps.get(name) else {
        let help = match values::nearest(name, gathered.idps.keys().map(String::as_str)) {
            Some(nearest) => format!("did you mean \"{}\"?", shorten(nearest)),
            None => "define it, or say issuer or token_url here".into(),
        };
        report
            .error(&spot, format!("there is no [idp.{}]", shorten(name)))
            .help(help);
        return Err(());
    };
    if report.is_broken(idp.spot.place.file) {
        let place = report.describe(idp.spot.place);
        report.error(
            &spot,
            format!(
                "[idp.{}] at {place} cannot be used: its file is not TOML",
                shorten(name)
            ),
        );
        return Err(());
    }
    Ok(Some(idp))
}

/// The identity provider as this profile sees it.
fn idp(
    report: &mut Report,
    section: &Section,
    shared: Option<&Section>,
    preset: Option<Preset>,
) -> Option<Idp> {
    let owner = &section.spot.owner;
    let absent = Section::absent(&IDP, section.spot.clone());
    let base = shared.unwrap_or(&absent);
    let insecure = match section.has("allow_insecure_http") {
        true => section.flag("allow_insecure_http"),
        false => base.flag("allow_insecure_http"),
    };
    either_or(report, section, &[("issuer", "token_url")]);
    let endpoint = endpoint(report, section, base, preset, insecure);

    let http = overlay(
        &HTTP,
        base.table("http"),
        section.table("http"),
        &[],
        section,
    );
    let tls = overlay(
        &TLS,
        base.table("tls"),
        section.table("tls"),
        TLS_GIVES_WAY,
        section,
    );
    either_or(report, &tls, TLS_EITHER_OR);
    let identity = identity(report, &tls, owner);
    if identity.is_some() {
        let key = match tls.has("certificate") {
            true => "certificate",
            false => "keystore",
        };
        let spot = tls.spot_of(key).owned_by(owner);
        if let Some(preset) = preset {
            preset.check_identity(report, &spot);
        }
        if section.text("bound_tokens").as_deref() != Some("refuse") {
            report
                .warning(
                    &spot,
                    "tokens may be bound to this certificate (RFC 8705 §3): where the API checks that, callers need the certificate too",
                )
                .help("bound_tokens = \"refuse\" makes such a token an error");
        }
    }
    Some(Idp {
        endpoint: endpoint?,
        max_in_flight: base.small("max_in_flight"),
        max_per_second: preset
            .and_then(Preset::default_max_per_second)
            .filter(|_| !base.has("max_per_second"))
            .unwrap_or_else(|| base.small("max_per_second")),
        http: Http {
            connect_timeout: http.duration("connect_timeout"),
            timeout: http.duration("timeout"),
            proxy: http.url("proxy"),
        },
        trust: trust(&tls),
        identity,
        allow_insecure_http: insecure,
    })
}

/// Where token requests go: what the profile says, else what `[idp]` says, else what the preset knows.
fn endpoint(
    report: &mut Report,
    section: &Section,
    base: &Section,
    preset: Option<Preset>,
    insecure: bool,
) -> Option<Endpoint> {
    let owner = &section.spot.owner;
    let says = |section: &Section| section.has("issuer") || section.has("token_url");
    let source = match says(section) {
        true => section,
        false => base,
    };
    if !says(source) {
        let known = preset.and_then(Preset::default_endpoint);
        if known.is_none() {
            report
                .error(
                    &section.spot_of("issuer"),
                    "neither `issuer` nor `token_url` says where to ask for tokens",
                )
                .help("or name an [idp.NAME] that does: idp = \"NAME\"")
                .if_whole();
        }
        return known;
    }
    let key = match source.has("token_url") {
        true => "token_url",
        false => "issuer",
    };
    let url = source.url(key)?;
    let spot = source.spot_of(key).owned_by(owner);
    in_the_clear(report, &spot, key, &url, insecure);
    let endpoint = match key {
        "token_url" => Endpoint::Token(url),
        _ => Endpoint::Issuer(url),
    };
    if let Some(preset) = preset {
        preset.check_endpoint(report, &spot, owner, &endpoint);
    }
    Some(endpoint)
}

/// Secrets do not leave the machine unencrypted, unless somebody says that he means it.
fn in_the_clear(report: &mut Report, spot: &Spot, key: &str, url: &Url, insecure: bool) {
    if url.scheme() == "https" || is_loopback(url) {
        return;
    }
    if insecure {
        report.warning(
            spot,
            format!("`{key}` is http://: secrets and tokens cross the network in the clear"),
        );
    } else {
        report
            .error(spot, format!("`{key}` is http:// and not on this machine"))
            .help("use https://, or say allow_insecure_http = true");
    }
}

/// One table over the other, key by key.
fn overlay(
    schema: &'static Table,
    base: Option<&Section>,
    over: Option<&Section>,
    gives_way: &[(&[&'static str], &[&'static str])],
    profile: &Section,
) -> Section {
    let mut merged = match base {
        Some(base) => base.clone(),
        None => Section::absent(schema, profile.spot.clone()),
    };
    let Some(over) = over else {
        return merged;
    };
    for (said, dropped) in gives_way {
        if said.iter().any(|key| over.has(key)) {
            for key in *dropped {
                merged.entries.remove(key);
            }
        }
    }
    merged.spot = over.spot.clone();
    for (key, entry) in &over.entries {
        merged.entries.insert(key, entry.clone());
    }
    merged
}

/// Tells of pairs of which only one can be meant. Those that stand in an `[idp]` are told there, not in each profile.
fn either_or(report: &mut Report, section: &Section, pairs: &[(&str, &str)]) {
    for (one, other) in pairs {
        let (Some(first), Some(second)) = (section.given(one), section.given(other)) else {
            continue;
        };
        let own = section.spot.owner.clone();
        let in_idp = |owner: &Owner| matches!(owner, Owner::Idp(_));
        if in_idp(&first.key.owner) && in_idp(&second.key.owner) && !in_idp(&own) {
            continue;
        }
        report
            .error(
                &second.key.owned_by(&own),
                format!("`{other}` and `{one}` exclude one another"),
            )
            .help("remove one of them");
    }
}

/// The client's own certificate.
fn identity(report: &mut Report, tls: &Section, owner: &Owner) -> Option<IdentitySource> {
    if tls.has("keystore") {
        return keystore(tls.table("keystore")?).map(IdentitySource::Store);
    }
    for (one, other) in [
        ("certificate", "key"),
        ("key", "certificate"),
        ("key_password", "key"),
    ] {
        if let Some(entry) = tls.given(one)
            && !tls.has(other)
        {
            report
                .error(
                    &entry.key.owned_by(owner),
                    format!("`tls.{one}` without `tls.{other}`"),
                )
                .if_whole();
        }
    }
    Some(IdentitySource::Pem {
        certificate: tls.path("certificate")?,
        key: tls.path("key")?,
        key_password: tls.secret("key_password"),
    })
}

fn trust(tls: &Section) -> TrustSource {
    if let Some(path) = tls.path("ca") {
        return TrustSource::Pem(path);
    }
    match tls.table("truststore").and_then(keystore) {
        Some(store) => TrustSource::Store(store),
        None => TrustSource::System,
    }
}

fn keystore(section: &Section) -> Option<Keystore> {
    Some(Keystore {
        path: section.path("path")?,
        password: section.secret("password"),
        alias: section.text("alias"),
        key_password: section.secret("key_password"),
    })
}
