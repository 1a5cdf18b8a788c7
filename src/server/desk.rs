//! What both languages do: look the profile up for this caller, answer from memory, and otherwise ask the broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::error::{Denial, shortened};
use super::metrics::Answered;
use super::pace::Pace;
use crate::broker::{Answer, Broker, NoAnswer, Reported, Seat, Slot};
use crate::clock::Clock;
use crate::core::credential::{Fingerprint, Variant};
use crate::core::policy::Caller;
use crate::core::time::Stamp;
use crate::proto::WatchTokenRequest;
use crate::registry::reload::{Order, Report};
use crate::registry::{Current, Entry, Standing};

/// Times that a profile may be replaced under a request before that gives up. A reload takes longer than a look-up, so one
/// is usual and more are not.
const SUCCESSORS: usize = 3;

/// Scopes that one request may name.
const SCOPES_PER_REQUEST: usize = 32;

/// Everything that a request needs.
pub struct Desk {
    /// The profiles.
    pub registry: Current,
    /// Gets what is not in memory.
    pub broker: Broker,
    /// Tells the time.
    pub clock: Clock,
    /// When the daemon started.
    pub started: Stamp,
    /// How often one user may ask for what is not in memory.
    pub pace: Pace,
    /// How requests for a credential ended.
    pub answered: Answered,
    /// Where everything can be asked to be read again.
    pub reload: mpsc::Sender<Order>,
    /// Becomes true when the daemon is told to end: streams end then, so that nobody has to wait for them.
    pub stopping: watch::Receiver<bool>,
}

/// What a caller asks for.
#[derive(Debug, Default)]
pub struct Ask {
    /// Name of the profile.
    pub profile: String,
    /// Never answered with less.
    pub min_ttl: Duration,
    /// Scopes beyond the default.
    pub scopes: Vec<String>,
    /// Audience beyond the default; empty for the default.
    pub audience: String,
    /// The caller's own deadline.
    pub deadline: Option<Duration>,
}

impl Desk {
    /// The profile, if this caller may use it and it works.
    pub fn seat(&self, caller: &Caller, profile: &str) -> Result<(Arc<Entry>, Arc<Seat>), Denial> {
        if profile.is_empty() {
            return Err(Denial::bad_request(
                "the request names no profile: set `profile`",
            ));
        }
        let registry = self.registry.load();
        let entry = registry
            .permitted(profile, caller)
            .ok_or_else(|| Denial::not_found(profile))?;
        match &entry.standing {
            Standing::Seated(seat) => Ok((entry.clone(), seat.clone())),
            Standing::Invalid(why) => Err(Denial::invalid(profile, why)),
        }
    }

    /// A credential of the profile, and the moment at which it was judged.
    pub async fn token(
        &self,
        caller: &Caller,
        ask: Ask,
    ) -> Result<(Arc<Answer>, Arc<Entry>, Stamp), Denial> {
        let outcome = self.find(caller, ask).await;
        if let Err(denial) = &outcome {
            self.answered.refused(denial.reason());
        }
        outcome
    }

    async fn find(
        &self,
        caller: &Caller,
        ask: Ask,
    ) -> Result<(Arc<Answer>, Arc<Entry>, Stamp), Denial> {
        for _ in 0..SUCCESSORS {
            let (entry, seat) = self.seat(caller, &ask.profile)?;
            let variant = variant(&entry, &ask.scopes, &ask.audience)?;
            let now = self.clock.now();
            if let Some(answer) = from_memory(&seat, &variant, ask.min_ttl, now) {
                self.answered.from_memory();
                return Ok((answer, entry, now));
            }
            self.admit(caller)?;
            let asked = self.broker.ask(&seat, variant, ask.min_ttl);
            let answer = match ask.deadline {
                Some(deadline) => tokio::time::timeout(deadline, asked)
                    .await
                    .map_err(|_| Denial::deadline(&ask.profile))?,
                None => asked.await,
            };
            let answer = match answer {
                // Its successor may be in force already.
                Err(NoAnswer::Gone) => continue,
                answer => answer.map_err(|why| Denial::of(&ask.profile, why))?,
            };
            // It was right when it was sent. Time may have passed on the way here.
            let now = self.clock.now();
            if !answer.credential.lives(now, Duration::ZERO) {
                return Err(Denial::too_late(&ask.profile));
            }
            self.answered.after_waiting();
            return Ok((answer, entry, now));
        }
        Err(Denial::of(&ask.profile, NoAnswer::Gone))
    }

    /// Has everything read again, and waits at most so long for what is being tried.
    pub async fn reload(&self, caller: &Caller, wait: Duration) -> Result<Arc<Report>, Denial> {
        if !self.registry.load().admins.administers(caller) {
            return Err(Denial::not_admin());
        }
        self.admit(caller)?;
        let (order, mut reports) = Order::new();
        let mut stopping = self.stopping.clone();
        let settled = async {
            if self.reload.send(order).await.is_ok() {
                // An error means that there is nobody to tell any more; what has been told counts.
                let _ = reports
                    .wait_for(|report| report.as_ref().is_some_and(|report| report.settled))
                    .await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(wait, settled) => {}
            _ = stopping.wait_for(|stop| *stop) => return Err(Denial::stopping()),
        }
        let last = reports.borrow().clone();
        last.ok_or_else(Denial::still_reading)
    }

    /// Counts a request that the broker has to deal with.
    fn admit(&self, caller: &Caller) -> Result<(), Denial> {
        self.pace
            .admit(caller.uid, self.clock.now().boot)
            .map_err(Denial::too_fast)
    }

    /// Takes note that an API refused a credential.
    pub async fn report(
        &self,
        caller: &Caller,
        profile: &str,
        fingerprint: &str,
    ) -> Result<Reported, Denial> {
        let mut reported = Err(NoAnswer::Gone);
        for _ in 0..SUCCESSORS {
            let (_, seat) = self.seat(caller, profile)?;
            let fingerprint = Fingerprint::parse(fingerprint).ok_or_else(|| {
                Denial::bad_request(
                    "`fingerprint` is not one of tokend's: send the field of the credential as it is",
                )
            })?;
            self.admit(caller)?;
            reported = self.broker.report(&seat, fingerprint).await;
            if !matches!(reported, Err(NoAnswer::Gone)) {
                break;
            }
        }
        reported.map_err(|why| Denial::of(profile, why))
    }

    /// The slot to watch, for somebody who has not watched it so far.
    pub async fn first_slot(
        &self,
        caller: &Caller,
        wanted: &WatchTokenRequest,
    ) -> Result<Arc<Slot>, Denial> {
        self.seat(caller, &wanted.profile)?;
        self.admit(caller)?;
        self.slot(caller, wanted).await
    }

    /// The slot to watch; watching wakes a sleeping profile. That another has taken its place is nothing that the caller did.
    pub async fn slot(
        &self,
        caller: &Caller,
        wanted: &WatchTokenRequest,
    ) -> Result<Arc<Slot>, Denial> {
        let profile = wanted.profile.as_str();
        let mut slot = Err(NoAnswer::Gone);
        for _ in 0..SUCCESSORS {
            let (entry, seat) = self.seat(caller, profile)?;
            let variant = variant(&entry, &wanted.scopes, &wanted.audience)?;
            slot = self.broker.slot(&seat, variant).await;
            if !matches!(slot, Err(NoAnswer::Gone)) {
                break;
            }
        }
        slot.map_err(|why| Denial::of(profile, why))
    }
}

/// The published credential, if it will do.
fn from_memory(
    seat: &Seat,
    variant: &Variant,
    min_ttl: Duration,
    now: Stamp,
) -> Option<Arc<Answer>> {
    let look = |slot: &Slot| {
        let answer = slot.view().servable(now, min_ttl).cloned()?;
        slot.note_asked(now);
        Some(answer)
    };
    if variant.is_default() {
        look(seat.own())
    } else {
        look(seat.slot(variant)?.as_ref())
    }
}

/// What the caller names beyond the default, as far as the profile allows it.
fn variant(entry: &Entry, scopes: &[String], audience: &str) -> Result<Variant, Denial> {
    if scopes.is_empty() && audience.is_empty() {
        return Ok(Variant::default());
    }
    if scopes.len() > SCOPES_PER_REQUEST {
        return Err(Denial::bad_request(format!(
            "a request may name at most {SCOPES_PER_REQUEST} scopes"
        )));
    }
    if let Some(scope) = scopes
        .iter()
        .find(|scope| !entry.request.scopes.contains(scope))
    {
        return Err(Denial::bad_request(format!(
            "profile {}: the scope {:?} is not among those that `request.scopes` allows",
            entry.name,
            shortened(scope)
        )));
    }
    if !audience.is_empty()
        && !entry
            .request
            .audiences
            .iter()
            .any(|allowed| allowed == audience)
    {
        return Err(Denial::bad_request(format!(
            "profile {}: the audience {:?} is not among those that `request.audiences` allows",
            entry.name,
            shortened(audience)
        )));
    }
    let mut scopes = scopes.to_vec();
    scopes.sort_unstable();
    scopes.dedup();
    Ok(Variant {
        scopes,
        audience: Some(audience.to_owned()).filter(|audience| !audience.is_empty()),
    })
}
