//! `method = "oauth2"`: the identity provider with the profile's own settings, and the token
//! request.

mod client_auth;

use url::Url;

use super::finding::shorten;
use super::gather::Gathered;
use super::preset::{self, Preset};
use super::read::missing;
use super::report::ConfigReport;
use super::schema::{KeySchema, KeySpec, Table, assertion, http, idp, keystore, profile, tls};
use super::section::Section;
use super::spot::{Owner, Spot};
use super::values;
use crate::core::profile::{
    Endpoint, GrantType, Http, IdentitySource, Idp, Keystore, OAuth2, TrustSource, is_loopback,
};

/// If a profile's `tls` has one of the keys on the left, it replaces the keys on the right of the
/// `[idp]`'s `tls`.
static TLS_GIVES_WAY: &[(&[&KeySpec], &[&KeySpec])] = &[
    (
        &[&tls::CA.spec, &tls::TRUSTSTORE.spec],
        &[&tls::CA.spec, &tls::TRUSTSTORE.spec],
    ),
    (
        &[&tls::KEYSTORE.spec],
        &[
            &tls::CERTIFICATE.spec,
            &tls::KEY.spec,
            &tls::KEY_PASSWORD.spec,
            &tls::KEYSTORE.spec,
        ],
    ),
    (
        &[&tls::CERTIFICATE.spec, &tls::KEY.spec],
        &[&tls::KEYSTORE.spec],
    ),
    // The password belongs to the key that is replaced.
    (&[&tls::KEY.spec], &[&tls::KEY_PASSWORD.spec]),
];

/// Pairs of `tls` keys that say the same in two ways.
static TLS_EITHER_OR: &[(&KeySpec, &KeySpec)] = &[
    (&tls::CA.spec, &tls::TRUSTSTORE.spec),
    (&tls::CERTIFICATE.spec, &tls::KEYSTORE.spec),
    (&tls::KEY.spec, &tls::KEYSTORE.spec),
    (&tls::KEY_PASSWORD.spec, &tls::KEYSTORE.spec),
];

/// Checks an `[idp.NAME]` by itself, whether a profile uses it or not.
pub(super) fn check_idp(report: &mut ConfigReport, idp: &Section) {
    either_or(report, idp, &[(&idp::ISSUER, &idp::TOKEN_URL)]);
    if let Some(tls) = idp.table(&idp::TLS) {
        either_or(report, tls, TLS_EITHER_OR);
    }
}

/// Checks an oauth2 profile. The profile cannot be used if this returns None or reports an error.
pub(super) fn check(
    report: &mut ConfigReport,
    gathered: &Gathered,
    section: &Section,
    preset: Option<Preset>,
) -> Option<OAuth2> {
    let shared = shared_idp(report, gathered, section);
    let preset = preset.filter(|it| {
        let url = stated(section, shared.ok().flatten()).and_then(|it| it.url());
        url.is_none_or(|url| it.knows_idp(&url))
    });
    if let Some(preset) = preset {
        preset.check_request(report, section);
    }
    let idp = match shared {
        Ok(shared) => idp(report, section, shared, preset),
        Err(()) => None,
    };
    let client_auth = client_auth::check(report, section, idp.as_ref(), preset, shared.is_ok());
    let audience = section
        .get(&profile::AUDIENCE)
        .or_else(|| Some(preset?.default_audience()?.to_owned()));
    Some(OAuth2 {
        idp: idp?,
        grant: GrantType::ClientCredentials,
        client_id: client_id(report, section)?,
        client_auth: client_auth?,
        scopes: preset::plain(section.get(&profile::SCOPES)),
        audience,
        resource: preset::plain(section.get(&profile::RESOURCE)),
        extra: section.get(&profile::EXTRA),
    })
}

/// The client id. Empty if an assertion from `assertion.file` names the client.
fn client_id(report: &mut ConfigReport, section: &Section) -> Option<String> {
    let assertion = section.table(&profile::ASSERTION);
    let named = assertion.is_some_and(|it| it.has(&assertion::FILE));
    match section.get(&profile::CLIENT_ID) {
        None if named && !section.has(&profile::CLIENT_ID) => Some(String::new()),
        None if !section.has(&profile::CLIENT_ID) => {
            missing(report, section, &profile::CLIENT_ID);
            None
        }
        given => given,
    }
}

/// The `[idp.NAME]` that the profile names. Err if it names one that cannot be used; that has been
/// reported.
fn shared_idp<'g>(
    report: &mut ConfigReport,
    gathered: &'g Gathered,
    section: &Section,
) -> Result<Option<&'g Section>, ()> {
    let Some(name) = section.get(&profile::IDP) else {
        return if section.has(&profile::IDP) {
            Err(())
        } else {
            Ok(None)
        };
    };
    let spot = section.spot_of(&profile::IDP);
    let Some(idp) = gathered.idps.get(&name) else {
        let help = match values::nearest(&name, gathered.idps.keys().map(String::as_str)) {
            Some(nearest) => format!("did you mean \"{}\"?", shorten(nearest)),
            None => "define it, or say issuer or token_url here".into(),
        };
        report
            .error(&spot, format!("there is no [idp.{}]", shorten(&name)))
            .help(help);
        return Err(());
    };
    if report.is_broken(idp.spot.place.file) {
        let place = report.describe(idp.spot.place);
        report.error(
            &spot,
            format!(
                "[idp.{}] at {place} cannot be used: its file is not TOML",
                shorten(&name)
            ),
        );
        return Err(());
    }
    Ok(Some(idp))
}

/// The identity provider with this profile's settings.
fn idp(
    report: &mut ConfigReport,
    section: &Section,
    shared: Option<&Section>,
    preset: Option<Preset>,
) -> Option<Idp> {
    let owner = &section.spot.owner;
    let absent = Section::absent(&idp::TABLE, section.spot.clone());
    let base = shared.unwrap_or(&absent);
    let insecure = match section.has(&profile::ALLOW_INSECURE_HTTP) {
        true => section.get(&profile::ALLOW_INSECURE_HTTP),
        false => base.get(&idp::ALLOW_INSECURE_HTTP),
    };
    either_or(report, section, &[(&profile::ISSUER, &profile::TOKEN_URL)]);
    let endpoint = endpoint(report, section, base, preset, insecure);

    let http = overlay(
        &http::TABLE,
        base.table(&idp::HTTP),
        section.table(&profile::HTTP),
        &[],
        section,
    );
    let tls = overlay(
        &tls::TABLE,
        base.table(&idp::TLS),
        section.table(&profile::TLS),
        TLS_GIVES_WAY,
        section,
    );
    either_or(report, &tls, TLS_EITHER_OR);
    let identity = identity(report, &tls, owner);
    if identity.is_some() {
        let key: &KeySpec = match tls.has(&tls::CERTIFICATE) {
            true => &tls::CERTIFICATE,
            false => &tls::KEYSTORE,
        };
        let spot = tls.spot_of(key).owned_by(owner);
        if let Some(preset) = preset {
            preset.check_identity(report, &spot);
        }
        if section.get(&profile::BOUND_TOKENS) != "refuse" {
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
        max_in_flight: base.get(&idp::MAX_IN_FLIGHT),
        max_per_second: preset
            .and_then(Preset::default_max_per_second)
            .filter(|_| !base.has(&idp::MAX_PER_SECOND))
            .unwrap_or_else(|| base.get(&idp::MAX_PER_SECOND)),
        http: Http {
            connect_timeout: http.get(&http::CONNECT_TIMEOUT),
            timeout: http.get(&http::TIMEOUT),
            proxy: http.get(&http::PROXY),
        },
        trust: trust(&tls),
        identity,
        allow_insecure_http: insecure,
    })
}

/// Where a configuration says the address for token requests.
struct StatedEndpoint<'a> {
    section: &'a Section,
    key: &'static KeySchema<Option<Url>>,
    is_token_url: bool,
}

impl StatedEndpoint<'_> {
    fn url(&self) -> Option<Url> {
        self.section.get(self.key)
    }
}

/// Finds the address for token requests: in the profile, else in `[idp]`.
fn stated<'a>(section: &'a Section, base: Option<&'a Section>) -> Option<StatedEndpoint<'a>> {
    let places = [
        (Some(section), &profile::TOKEN_URL, true),
        (Some(section), &profile::ISSUER, false),
        (base, &idp::TOKEN_URL, true),
        (base, &idp::ISSUER, false),
    ];
    places.into_iter().find_map(|(table, key, is_token_url)| {
        let section = table.filter(|table| table.has(key))?;
        Some(StatedEndpoint {
            section,
            key,
            is_token_url,
        })
    })
}

/// The address for token requests: as stated, else from the preset.
fn endpoint(
    report: &mut ConfigReport,
    section: &Section,
    base: &Section,
    preset: Option<Preset>,
    insecure: bool,
) -> Option<Endpoint> {
    let owner = &section.spot.owner;
    let Some(stated) = stated(section, Some(base)) else {
        let known = preset.and_then(Preset::default_endpoint);
        if known.is_none() {
            report
                .error(
                    &section.spot_of(&profile::ISSUER),
                    "neither `issuer` nor `token_url` says where to ask for tokens",
                )
                .help("or name an [idp.NAME] that does: idp = \"NAME\"")
                .if_whole();
        }
        return known;
    };
    let url = stated.url()?;
    let spot = stated.section.spot_of(stated.key).owned_by(owner);
    in_the_clear(report, &spot, stated.key.spec.name, &url, insecure);
    let endpoint = match stated.is_token_url {
        true => Endpoint::Token(url),
        false => Endpoint::Issuer(url),
    };
    if let Some(preset) = preset {
        preset.check_endpoint(report, &spot, owner, &endpoint);
    }
    Some(endpoint)
}

/// Refuses to send secrets over plain HTTP to another machine, unless the configuration allows it.
fn in_the_clear(report: &mut ConfigReport, spot: &Spot, key: &str, url: &Url, insecure: bool) {
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

/// Lays one table over the other, key by key.
fn overlay(
    schema: &'static Table,
    base: Option<&Section>,
    over: Option<&Section>,
    gives_way: &[(&[&KeySpec], &[&KeySpec])],
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
                merged.entries.remove(key.name);
            }
        }
    }
    merged.spot = over.spot.clone();
    for (key, entry) in &over.entries {
        merged.entries.insert(key, entry.clone());
    }
    merged
}

/// Reports pairs of which only one key can be meant. Pairs in an `[idp]` are reported there, not in
/// each profile.
fn either_or(report: &mut ConfigReport, section: &Section, pairs: &[(&KeySpec, &KeySpec)]) {
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
                format!("`{}` and `{}` exclude one another", other.name, one.name),
            )
            .help("remove one of them");
    }
}

/// The client's own certificate.
fn identity(report: &mut ConfigReport, tls: &Section, owner: &Owner) -> Option<IdentitySource> {
    if tls.has(&tls::KEYSTORE) {
        return keystore(tls.table(&tls::KEYSTORE)?).map(IdentitySource::Store);
    }
    let together: [(&KeySpec, &KeySpec); 3] = [
        (&tls::CERTIFICATE, &tls::KEY),
        (&tls::KEY, &tls::CERTIFICATE),
        (&tls::KEY_PASSWORD, &tls::KEY),
    ];
    for (one, other) in together {
        if let Some(entry) = tls.given(one)
            && !tls.has(other)
        {
            report
                .error(
                    &entry.key.owned_by(owner),
                    format!("`tls.{}` without `tls.{}`", one.name, other.name),
                )
                .if_whole();
        }
    }
    Some(IdentitySource::Pem {
        certificate: tls.get(&tls::CERTIFICATE)?,
        key: tls.get(&tls::KEY)?,
        key_password: tls.get(&tls::KEY_PASSWORD),
    })
}

fn trust(tls: &Section) -> TrustSource {
    if let Some(path) = tls.get(&tls::CA) {
        return TrustSource::Pem(path);
    }
    match tls.table(&tls::TRUSTSTORE).and_then(keystore) {
        Some(store) => TrustSource::Store(store),
        None => TrustSource::System,
    }
}

fn keystore(section: &Section) -> Option<Keystore> {
    Some(Keystore {
        path: section.get(&keystore::PATH)?,
        password: section.get(&keystore::PASSWORD),
        alias: section.get(&keystore::ALIAS),
        key_password: section.get(&keystore::KEY_PASSWORD),
    })
}
