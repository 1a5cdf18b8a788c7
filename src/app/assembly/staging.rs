//! Puts what the files say about a profile in its place: at once if nothing is served yet,
//! otherwise after its trial.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::member::{InForce, Member, Staged, Version};
use super::trial::{Trial, has_ended};
use super::{Assembly, invalid_because};
use crate::broker::{IssuerBudget, ProfileHandle, Spec};
use crate::core::certificate::Certificate;
use crate::core::diagnostic::Diagnostic;
use crate::core::failure::FailureKind;
use crate::core::oauth::withhold::origin;
use crate::core::profile::{Endpoint, Invalid, Method, Profile, ProfileName};
use crate::material::{Digest, Material};
use crate::provider;
use crate::registry::RegistryEntry;
use crate::registry::reload::ReloadOutcome;

/// A profile that passed every check that needs no request.
pub struct Prepared {
    profile: Arc<Profile>,
    digest: Digest,
    warnings: Vec<Diagnostic>,
    certificates: Vec<Certificate>,
    /// This has the current assertion, which may be newer than that of a known handle.
    material: Material,
}

/// Whether a definition with its material has a handle already.
pub enum Known {
    /// The live handle.
    Live,
    /// The staged handle.
    Staged,
    /// No handle yet.
    Not(Box<Spec>),
}

impl Prepared {
    fn with_handle(self, handle: Arc<ProfileHandle>, in_force: InForce) -> Version {
        Version {
            profile: self.profile,
            digest: self.digest,
            handle,
            warnings: self.warnings,
            certificates: self.certificates,
            in_force,
        }
    }
}

impl Assembly {
    pub(super) fn prepare(
        &self,
        profile: Arc<Profile>,
        material: Material,
        member: Option<&Member>,
    ) -> Result<(Prepared, Known), Invalid> {
        let prepared = Prepared {
            digest: material.digest,
            warnings: material.warnings.clone(),
            certificates: material.certificates(),
            profile,
            material,
        };
        let (profile, material) = (&prepared.profile, &prepared.material);
        let is = |version: &Version| {
            version.digest == prepared.digest && version.profile.same_credential(profile)
        };
        let staged = member.and_then(|member| member.staged.as_ref());
        let known = match member {
            Some(member) if is(&member.live) => Known::Live,
            _ if staged.is_some_and(|staged| is(&staged.version)) => Known::Staged,
            _ => Known::Not(Box::new(self.spec(profile, material.clone())?)),
        };
        Ok((prepared, known))
    }

    /// Takes a sound profile in. The live version changes only when its successor has delivered, or
    /// when the live one has nothing left to serve.
    pub(super) async fn admit(
        &mut self,
        prepared: Prepared,
        known: Known,
        member: Option<Member>,
    ) -> Member {
        let Some(mut member) = member else {
            return self.add(prepared, known).await;
        };
        member.kept = None;
        let changed = self.in_force_now(ReloadOutcome::Changed);
        match known {
            Known::Live => {
                let material = prepared.material.clone();
                let staged = member.staged.take();
                self.leaving
                    .extend(staged.map(|staged| staged.version.handle));
                let same = prepared.profile.same_definition(&member.live.profile);
                let in_force = if same { member.live.in_force } else { changed };
                member.live = prepared.with_handle(member.live.handle.clone(), in_force);
                member.differs_since = None;
                self.renew(&member.live.handle, &material).await;
                return member;
            }
            Known::Staged => {
                let staged = member.staged.as_mut().expect("it was compared with");
                self.renew(&staged.version.handle, &prepared.material).await;
                staged.version = prepared.with_handle(staged.version.handle.clone(), changed);
            }
            Known::Not(spec) => self.stage(prepared, *spec, &mut member).await,
        }
        member.differs_since.get_or_insert(changed.since);
        self.replace_live(&mut member).await;
        member
    }

    /// Takes over an assertion that another program has renewed. The next renewal uses it. If the
    /// identity provider refused the previous assertion, the broker asks again at once.
    async fn renew(&self, handle: &ProfileHandle, material: &Material) {
        if !handle.provider().is_some_and(|it| it.renewed(material)) {
            return;
        }
        let refused = handle
            .own()
            .view()
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.failure.kind == FailureKind::Permanent);
        if refused {
            self.broker.again(handle).await;
        }
    }

    /// Looks again at profiles whose trials have made progress. A version that has delivered is
    /// promoted. This reads no file.
    pub async fn promote(&mut self, names: &BTreeSet<ProfileName>) {
        let before = self.registry.load_full();
        let mut entries: Vec<Arc<RegistryEntry>> = before.all().into_iter().cloned().collect();
        for entry in &mut entries {
            if names.contains(&entry.name)
                && let Some(mut member) = self.members.remove(&entry.name)
            {
                self.replace_live(&mut member).await;
                *entry = self.enter(entry.name.clone(), member, &[]);
                self.say(entry);
            }
        }
        self.put_in_force(before.admins.clone(), entries, before.warnings.clone())
            .await;
    }

    /// Adds the first version of a profile. It replaces nothing.
    async fn add(&mut self, prepared: Prepared, known: Known) -> Member {
        let Known::Not(mut spec) = known else {
            unreachable!("nothing is known of a profile that is not served")
        };
        let left = self.left.take(&prepared.profile.name);
        if let Some((identity, material)) = spec.keep {
            spec.left = left
                .into_iter()
                .filter(|kept| kept.identity == identity)
                .map(|kept| (kept.variant, kept.credential, kept.material != material))
                .collect();
        }
        let handle = self.broker.add_profile(*spec).await;
        Member::new(prepared.with_handle(handle, self.in_force_now(ReloadOutcome::Added)))
    }

    /// Starts the trial of another version, which replaces any staged one.
    async fn stage(&mut self, prepared: Prepared, mut spec: Spec, member: &mut Member) {
        let before = member.staged.take().map(|staged| staged.version.handle);
        // A wait does not carry over to another server or another client.
        if member.live.profile.same_identity(&prepared.profile) {
            spec.told_to_wait = before
                .as_ref()
                .and_then(|before| before.told_to_wait())
                .or_else(|| member.live.handle.told_to_wait());
        }
        spec.replaces = true;
        self.leaving.extend(before);
        let name = spec.name.clone();
        info!(profile = %name, "new material or definition is being tried");
        let handle = self.broker.add_profile(spec).await;
        let trial = Trial::start(self, name, handle.clone(), member.live.handle.clone());
        let version = prepared.with_handle(handle, self.in_force_now(ReloadOutcome::Changed));
        member.staged = Some(Staged { version, trial });
    }

    /// Puts the staged version in force if it is better than the live one.
    async fn replace_live(&mut self, member: &mut Member) {
        let live = &member.live.handle;
        let Some(mut staged) = member.staged.take_if(|staged| self.is_better(staged, live)) else {
            return;
        };
        let name = &staged.version.profile.name;
        let generation = live.generation();
        self.broker
            .take_over_from(&staged.version.handle, generation)
            .await;
        if self.delivers(&staged.version.handle) {
            info!(profile = %name, "new material or definition in force");
            member.differs_since = None;
        } else {
            info!(profile = %name, "nothing is left of what was in force: new material or definition takes its place untried");
            // A profile that never had a credential has lost nothing, and a reload has no working
            // version to report as kept.
            if generation > 0 || member.unproven.is_some() {
                member.unproven = Some(staged.trial);
            } else {
                member.differs_since = None;
            }
            self.broker.again(&staged.version.handle).await;
        }
        staged.version.in_force = self.in_force_now(ReloadOutcome::Changed);
        let before = std::mem::replace(&mut member.live, staged.version);
        self.leaving.push(before.handle);
    }

    fn in_force_now(&self, outcome: ReloadOutcome) -> InForce {
        InForce {
            outcome,
            since: self.now(),
            look: self.looks,
        }
    }

    /// Whether the new version has proven itself, or nothing is left to lose.
    fn is_better(&self, staged: &Staged, live: &ProfileHandle) -> bool {
        (staged.trial.is_over() && self.delivers(&staged.version.handle))
            || has_ended(&live.own().view(), self.clock.now())
    }

    fn delivers(&self, handle: &ProfileHandle) -> bool {
        handle
            .own()
            .view()
            .servable(self.clock.now(), Duration::ZERO)
            .is_some()
    }

    fn spec(&self, profile: &Profile, material: Material) -> Result<Spec, Invalid> {
        let digest = material.digest;
        let provider = provider::build(profile, material, &self.shared)
            .map_err(|failure| invalid_because(profile, failure.message))?;
        let upstream = match &profile.method {
            Method::OAuth2(oauth2) => Some(IssuerBudget {
                name: account(&oauth2.idp.endpoint),
                max_in_flight: oauth2.idp.max_in_flight,
                max_per_second: oauth2.idp.max_per_second,
            }),
            _ => None,
        };
        Ok(Spec {
            name: profile.name.clone(),
            target: profile.target.clone(),
            rules: profile.refresh.clone(),
            provider,
            upstream,
            told_to_wait: None,
            replaces: false,
            keep: profile
                .identity()
                .map(|identity| (identity, digest.bytes())),
            left: Vec::new(),
        })
    }
}

/// The account at the identity provider that requests are charged to: its server, whether the
/// profile names it by issuer or by token endpoint.
pub(super) fn account(endpoint: &Endpoint) -> String {
    let (Endpoint::Issuer(url) | Endpoint::Token(url)) = endpoint;
    origin(url)
}
