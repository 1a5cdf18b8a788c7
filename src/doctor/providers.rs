//! Checks identity providers: how far requests get with each of them, and how its clock compares
//! with this machine's.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::check::{Examined, plural};
use super::report::DoctorReport;
use crate::app::assembly::surroundings;
use crate::cli::complaint::human;
use crate::clock::Clock;
use crate::core::credential::SKEW_WORTH_TELLING;
use crate::core::oauth::withhold::place;
use crate::core::profile::{Endpoint, Idp, Method};
use crate::core::secret::Secret;
use crate::core::time::WallTime;
use crate::material::{self, ClientIdentity, Trust};
use crate::provider::Shared;
use crate::provider::oauth2::probe::{Probe, probe};

pub const AREA: &str = "identity providers";
const CLOCK: &str = "clock";

/// At most this many identity providers are asked at the same time. Hardly anybody has more, and
/// only then do hanging ones delay the others.
const AT_ONCE: usize = 64;

/// Largest tolerable difference of clocks, in seconds. Beyond it most issuers refuse assertions,
/// and tokens are expired on arrival or outlive what their issuer thinks.
const SKEW_INTOLERABLE: u64 = 300;

/// At most this many profiles are named. Further ones are only counted.
const NAMED: usize = 5;

/// A route to an identity provider, and all profiles that use it.
pub struct IdpRoute {
    idp: Idp,
    /// None if it cannot be read, which the profile's findings report.
    trust: Option<Trust>,
    /// The identity of the first profile that has one. Only `tokend check --online` tells whether
    /// each profile's is accepted.
    identity: Option<ClientIdentity>,
    /// The secrets of all its profiles. No message shows them, even if the identity provider
    /// repeats them.
    secrets: Vec<Secret>,
    profiles: Vec<String>,
}

/// Every distinct route to an identity provider.
pub fn ways(examined: &Examined) -> Vec<IdpRoute> {
    let mut ways: Vec<IdpRoute> = Vec::new();
    let now = Clock::system().now().wall;
    for one in &examined.checked {
        let Method::OAuth2(oauth) = &one.profile.method else {
            continue;
        };
        let name = one.profile.name.to_string();
        let identity = one.material.as_ref().and_then(|it| it.identity.clone());
        let secret = one.material.as_ref().and_then(|it| it.secret.clone());
        let idp = &oauth.idp;
        let known = ways.iter_mut().find(|way| {
            way.idp.endpoint == idp.endpoint
                && way.idp.http == idp.http
                && way.idp.trust == idp.trust
                && way.idp.allow_insecure_http == idp.allow_insecure_http
        });
        match known {
            Some(way) => {
                way.profiles.push(name);
                way.secrets.extend(secret);
                way.identity = way.identity.take().or(identity);
            }
            None => ways.push(IdpRoute {
                idp: idp.clone(),
                trust: material::trust(&idp.trust, &surroundings(), now)
                    .ok()
                    .map(|(trust, _)| trust),
                identity,
                secrets: secret.into_iter().collect(),
                profiles: vec![name],
            }),
        }
    }
    ways
}

/// Probes all routes at the same time, within `timeout` in all.
pub fn look(ways: Vec<IdpRoute>, timeout: Duration) -> DoctorReport {
    let mut report = DoctorReport::default();
    if ways.is_empty() {
        report.well(AREA, "no profile needs one".into());
        return report;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            report.error(
                AREA,
                "",
                format!("nobody can be asked: {error}"),
                "raise the limits of threads and open files",
            );
            return report;
        }
    };
    let found = runtime.block_on(go_all(ways, timeout));
    // A name lookup may still hang.
    runtime.shutdown_background();
    let now = Clock::system().now().wall;
    for (way, found) in &found {
        tell(&mut report, way, found.as_ref(), now, timeout);
    }
    for (way, found) in &found {
        let skew = found.as_ref().and_then(|found| found.clock_skew);
        if let Some(skew) = skew {
            clock(&mut report, way, skew);
        }
    }
    report
}

/// The findings, in the order of the routes.
async fn go_all(ways: Vec<IdpRoute>, timeout: Duration) -> Vec<(IdpRoute, Option<Probe>)> {
    let shared = Shared::new(Clock::system());
    // The fallback for an endless timeout is as far away as clocks go.
    let deadline = Instant::now()
        .checked_add(timeout)
        .unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut going = JoinSet::new();
    for (index, way) in ways.into_iter().enumerate() {
        let (shared, places) = (shared.clone(), places.clone());
        going.spawn(async move {
            let Some(trust) = way.trust.clone() else {
                return (index, way, None);
            };
            let mut found = Probe::default();
            // The deadline drops the probe, and its findings so far stay.
            let _ = timeout_at(deadline, async {
                let _place = places.acquire().await;
                let tls = (&trust, way.identity.as_ref());
                probe(&way.idp, tls, &way.secrets, &shared, &mut found).await;
            })
            .await;
            (index, way, Some(found))
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = going.join_next().await {
        match ended {
            Ok(one) => all.push(one),
            // Nothing cancels the probes. A panic must not look like success.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    all.sort_by_key(|(index, ..)| *index);
    all.into_iter()
        .map(|(_, way, found)| (way, found))
        .collect()
}

impl IdpRoute {
    fn at(&self) -> String {
        let (Endpoint::Issuer(url) | Endpoint::Token(url)) = &self.idp.endpoint;
        place(url)
    }

    /// The configuration key that names the route, in the first profile.
    fn key(&self) -> String {
        let key = match self.idp.endpoint {
            Endpoint::Issuer(_) => "issuer",
            Endpoint::Token(_) => "token_url",
        };
        format!("profiles.{}.{key}", self.profiles[0])
    }

    fn needed_by(&self) -> String {
        let count = self.profiles.len();
        let named = &self.profiles[..count.min(NAMED)];
        let more = match count - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("profile{} {}{more}", plural(count), named.join(", "))
    }
}

fn tell(
    report: &mut DoctorReport,
    way: &IdpRoute,
    found: Option<&Probe>,
    now: WallTime,
    timeout: Duration,
) {
    let at = way.at();
    let key = way.key();
    let Some(found) = found else {
        return report.well(
            AREA,
            format!("{at}: not looked at, since whom to trust there cannot be read"),
        );
    };
    let mut so_far = steps(found);
    if let Some(proxy) = &found.proxy {
        let _ = write!(so_far, " through the proxy {proxy}");
    }
    let affected = format!("needed by {}", way.needed_by());
    // Only the deadline leaves a step unfinished.
    let late = found.doing.is_some() || (found.steps.is_empty() && found.failure.is_none());
    if late {
        let doing = found.doing.unwrap_or("its turn");
        report.error(
            AREA,
            &key,
            format!(
                "{at} gave no answer within {} ({doing} was not over; {})",
                humantime::format_duration(timeout),
                or_nothing(&so_far)
            ),
            format!("check network, firewall and proxy, or raise --timeout; {affected}"),
        );
        return;
    }
    if let Some(failure) = &found.failure {
        let mut message = format!("{} ({})", failure.message, or_nothing(&so_far));
        if let Some(shown) = found.certificates.first() {
            let _ = write!(
                message,
                "; it showed the certificate of {}, valid until {}, and the last of its chain is signed by {}",
                shown.subject,
                shown.end(),
                found
                    .signed_by
                    .as_deref()
                    .unwrap_or("nobody that can be read")
            );
        }
        report.error(
            AREA,
            &key,
            message,
            format!("{affected}; `tokend check --online` makes a whole token request"),
        );
    }
    let mut ends = false;
    for certificate in &found.certificates {
        if let Some(ending) = certificate.ending(now) {
            ends = true;
            report.warning(
                AREA,
                &key,
                format!("{at}: its certificate of {} {ending}", certificate.subject),
                format!("ask the identity provider's operator to renew it; {affected}"),
            );
        }
    }
    if found.failure.is_none() && !ends {
        let certificate = match found.certificates.first() {
            Some(shown) => format!("; certificate of {} until {}", shown.subject, shown.end()),
            None => String::new(),
        };
        report.well(AREA, format!("{at}: {so_far}{certificate}"));
    }
}

fn steps(found: &Probe) -> String {
    let steps: Vec<String> = found
        .steps
        .iter()
        .map(|step| format!("{} {} ms", step.name, step.took.as_millis()))
        .collect();
    steps.join(", ")
}

fn or_nothing(steps: &str) -> &str {
    if steps.is_empty() {
        "no step before it"
    } else {
        steps
    }
}

fn clock(report: &mut DoctorReport, way: &IdpRoute, skew: i64) {
    let at = way.at();
    let off = skew.unsigned_abs();
    if off <= SKEW_WORTH_TELLING {
        return report.well(CLOCK, format!("within {off} s of that of {at}"));
    }
    let side = if skew > 0 { "ahead of" } else { "behind" };
    let message = format!(
        "the clock of {at} is {} {side} this machine's",
        human(Duration::from_secs(off))
    );
    let cure = "if other machines agree with it, set this one's (`timedatectl set-ntp true`, or `chronyc makestep`); else \
                tell the identity provider's operator";
    if off > SKEW_INTOLERABLE {
        report.error(CLOCK, "", message, cure);
    } else {
        report.warning(CLOCK, "", message, cure);
    }
}
