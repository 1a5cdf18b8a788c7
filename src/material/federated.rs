//! An assertion that another program makes and renews in a file (workload identity federation).

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ReadyAssertion;
use super::certificate::printable;
use super::reading::MaterialReader;
use crate::core::certificate::Certificate;
use crate::core::oauth::federated::{self, AssertionFacts, JWT_BEARER, JWT_SPIFFE};
use crate::core::time::WallTime;

/// The configuration key that names the file.
const ROLE: &str = "assertion.file";

/// The first characters of every JWT: `{"` in base64url.
const JWT_BEGINS: &str = "eyJ";

/// Reads the assertion, and checks that it can be one and has not expired. `kind` is the assertion
/// type that it is sent as.
pub(super) fn read(
    path: &Path,
    kind: &str,
    reader: &mut MaterialReader<'_>,
) -> Option<ReadyAssertion> {
    let is_jwt = matches!(kind, JWT_BEARER | JWT_SPIFFE);
    let named = |text: &str| {
        is_jwt
            .then(|| federated::read(text).ok().flatten())
            .flatten()
    };
    let assertion = reader.renewed_file(ROLE, path, |text| named(text).as_ref().map(about))?;
    let place = path.display();
    if is_jwt && let Err(why) = federated::read(assertion.expose()) {
        // What begins as a JWT does is a broken one. Something else may be what this identity
        // provider wants, and only the provider knows.
        if assertion.expose().starts_with(JWT_BEGINS) {
            reader.problem(ROLE, format!("{place} {why}"));
            return None;
        }
        reader.warning(ROLE, format!("{place} {why}"));
    }
    let Some(named) = named(assertion.expose()) else {
        return Some(ReadyAssertion {
            assertion,
            facts: None,
        });
    };
    let missing = named.missing(kind);
    if !missing.is_empty() {
        reader.warning(ROLE, format!(
            "the assertion in {place} lacks {}, which identity providers want (RFC 7523 §3): see to whoever \
             makes it",
            missing.join(", ")
        ));
    }
    let facts = facts(&named, assertion.expose());
    if let Some(facts) = &facts
        && reader.now > facts.not_after
    {
        reader.problem(ROLE, format!(
            "the assertion of {} in {place} has expired on {}: see whether whoever renews it still does, and \
             check the clock of this machine",
            facts.subject,
            facts.end()
        ));
        return None;
    }
    Some(ReadyAssertion { assertion, facts })
}

/// The facts that stay the same when the assertion is renewed.
fn about(named: &AssertionFacts) -> String {
    format!("{:?}", (&named.issuer, &named.subject, &named.audiences))
}

/// The facts for expiry warnings. None if the assertion does not say when it ends.
fn facts(named: &AssertionFacts, assertion: &str) -> Option<Certificate> {
    let wall = |seconds| WallTime(Duration::from_secs(seconds));
    let expires = named.expires?;
    let text = |claim: &Option<String>| printable(claim.as_deref().unwrap_or("nobody"));
    let print = digest::digest(&digest::SHA256, assertion.as_bytes());
    Some(Certificate {
        is_assertion: true,
        role: ROLE,
        subject: format!("{} (of {})", text(&named.subject), text(&named.issuer)),
        thumbprint: URL_SAFE_NO_PAD.encode(print),
        not_before: wall(named.issued.unwrap_or(expires)),
        // The assertion is no longer valid at the moment that it names (RFC 7519 §4.1.4).
        not_after: wall(expires.saturating_sub(1)),
    })
}
