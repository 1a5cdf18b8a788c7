//! `tokend.v1.CredentialService` and `AdminService`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::activity::{Activity, Busy};
use super::desk::{Ask, Desk};
use super::error::Denial;
use super::{status, wire};
use crate::broker::Slot;
use crate::core::credential::Fingerprint;
use crate::core::policy::Caller;
use crate::proto::admin_service_server::AdminService;
use crate::proto::credential_service_server::CredentialService;
use crate::proto::{
    Credential, GetStatusRequest, GetStatusResponse, GetTokenRequest, GetTokenResponse,
    ListProfilesRequest, ListProfilesResponse, ProfileSummary, ReportRejectedRequest,
    ReportRejectedResponse, Unavailable, WatchTokenRequest, WatchTokenResponse,
    watch_token_response,
};
use crate::registry::Entry;

/// How often an open stream counts as somebody asking, so that a lazy profile stays awake while it is watched; and how
/// soon a stream notices by itself that it is no longer permitted.
const WATCH_PULSE: Duration = Duration::from_secs(5);

/// `CredentialService` for one connection.
pub struct Credentials {
    pub desk: Arc<Desk>,
    pub caller: Arc<Caller>,
    pub activity: Arc<Activity>,
}

/// `AdminService`.
pub struct Admin(pub Arc<Desk>);

/// Who is asking; put there when the connection was accepted.
pub fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    request
        .extensions()
        .get::<Arc<Caller>>()
        .cloned()
        .ok_or_else(|| Status::internal("the connection has no caller"))
}

/// Keeps the connection from counting as silent while a stream is open.
pub fn busy<T>(request: &Request<T>) -> Option<Busy> {
    request
        .extensions()
        .get::<Arc<Activity>>()
        .map(Activity::stream)
}

#[tonic::async_trait]
impl CredentialService for Credentials {
    async fn get_token(
        &self,
        request: Request<GetTokenRequest>,
    ) -> Result<Response<GetTokenResponse>, Status> {
        let deadline = deadline(&request);
        let GetTokenRequest {
            profile,
            min_ttl,
            scopes,
            audience,
        } = request.into_inner();
        let ask = Ask {
            profile,
            min_ttl: min_ttl_of(min_ttl)?,
            scopes,
            audience,
            deadline,
        };
        let (answer, _, now) = self.desk.token(&self.caller, ask).await?;
        Ok(Response::new(GetTokenResponse {
            credential: answer.encoded.clone(),
            expires_in: answer.credential.ttl(now).map(wire::duration),
        }))
    }

    type WatchTokenStream = Pin<Box<dyn Stream<Item = Result<WatchTokenResponse, Status>> + Send>>;

    async fn watch_token(
        &self,
        request: Request<WatchTokenRequest>,
    ) -> Result<Response<Self::WatchTokenStream>, Status> {
        let wanted = request.into_inner();
        let slot = self.desk.slot(&self.caller, &wanted).await?;
        // One place: a slow reader holds one message and gets the newest next.
        let (events, stream) = mpsc::channel(1);
        let desk = self.desk.clone();
        let (caller, busy) = (self.caller.clone(), self.activity.stream());
        tokio::spawn(async move {
            let _busy = busy;
            watch(desk, caller, wanted, slot, events).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn report_rejected(
        &self,
        request: Request<ReportRejectedRequest>,
    ) -> Result<Response<ReportRejectedResponse>, Status> {
        let request = request.into_inner();
        let reported = self
            .desk
            .report(&self.caller, &request.profile, &request.fingerprint)
            .await?;
        Ok(Response::new(ReportRejectedResponse {
            replaced: reported.replaced,
            retry_after: (!reported.replaced).then(|| wire::duration(reported.retry_after)),
        }))
    }

    async fn list_profiles(
        &self,
        _request: Request<ListProfilesRequest>,
    ) -> Result<Response<ListProfilesResponse>, Status> {
        let now = self.desk.clock.now();
        let profiles = self
            .desk
            .registry
            .load()
            .visible(&self.caller)
            .into_iter()
            .map(|entry| ProfileSummary {
                name: entry.name.to_string(),
                method: entry.method.clone(),
                available: status::available(entry, now),
                target: entry.target.clone().unwrap_or_default(),
            })
            .collect();
        Ok(Response::new(ListProfilesResponse { profiles }))
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let caller = caller(&request)?;
        let registry = self.0.registry.load();
        if !registry.admins.administers(&caller) {
            return Err(Denial::not_admin().into());
        }
        let wanted = request.into_inner().profile;
        let entries: Vec<&Arc<Entry>> = registry
            .all()
            .into_iter()
            .filter(|entry| wanted.is_empty() || entry.name.as_str() == wanted)
            .collect();
        if entries.is_empty() && !wanted.is_empty() {
            return Err(Denial::not_found(&wanted).into());
        }
        Ok(Response::new(status::of(
            &self.0,
            registry.generation,
            &entries,
        )))
    }
}

fn min_ttl_of(duration: Option<prost_types::Duration>) -> Result<Duration, Denial> {
    duration.map_or(Ok(Duration::ZERO), |duration| {
        Duration::try_from(duration)
            .map_err(|_| Denial::bad_request("`min_ttl` is negative or not a valid duration"))
    })
}

/// The caller's deadline (gRPC over HTTP/2, "Timeout": up to eight digits and a unit).
fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value.saturating_mul(3600)),
        "M" => Duration::from_secs(value.saturating_mul(60)),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Sends what is there, then each change, until the reader leaves, the profile goes, or the caller may no longer.
async fn watch(
    desk: Arc<Desk>,
    caller: Arc<Caller>,
    wanted: WatchTokenRequest,
    mut slot: Arc<Slot>,
    events: mpsc::Sender<Result<WatchTokenResponse, Status>>,
) {
    let profile = wanted.profile.as_str();
    let mut views = slot.watch();
    let mut stopping = desk.stopping.clone();
    let mut told = Told::Nothing;
    loop {
        let now = desk.clock.now();
        slot.note_asked(now);
        let permitted = desk.registry.load().permitted(profile, &caller).is_some();
        let view = views.borrow_and_update().clone();
        if view.closed && permitted {
            // Another definition or other material has taken the profile's place: go on with that.
            if let Ok(successor) = desk.slot(&caller, &wanted).await
                && !successor.view().closed
            {
                slot = successor;
                views = slot.watch();
                continue;
            }
        }
        if view.closed || !permitted {
            // A reader that is gone needs no farewell.
            let _ = events.send(Err(Denial::not_found(profile).into())).await;
            return;
        }
        let news = match (view.servable(now, Duration::ZERO), &view.refusal) {
            (Some(answer), _) => {
                let print = answer.credential.fingerprint;
                (told != Told::Credential(print, answer.stale)).then(|| {
                    told = Told::Credential(print, answer.stale);
                    credential_event(&answer.encoded)
                })
            }
            (None, Some(refusal)) => {
                let denial = Denial::refused(profile, refusal);
                (told != Told::Unavailable(denial.reason())).then(|| {
                    told = Told::Unavailable(denial.reason());
                    Some(unavailable_event(&denial))
                })
            }
            (None, None) => None,
        };
        if let Some(Some(event)) = news
            && events.send(Ok(event)).await.is_err()
        {
            return;
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = told_to_stop(&mut stopping) => {
                let _ = events.send(Err(Denial::stopping().into())).await;
                return;
            }
            () = tokio::time::sleep(WATCH_PULSE) => {}
            () = events.closed() => return,
        }
    }
}

/// Comes when the daemon is told to end.
pub async fn told_to_stop(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the other side is gone, which is an end too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// What a stream has said last.
#[derive(PartialEq)]
enum Told {
    Nothing,
    Credential(Fingerprint, bool),
    Unavailable(&'static str),
}

fn credential_event(encoded: &[u8]) -> Option<WatchTokenResponse> {
    // Our own encoding; were it ever not readable, the next change comes all the same.
    let credential = Credential::decode(encoded).ok()?;
    Some(WatchTokenResponse {
        event: Some(watch_token_response::Event::Credential(credential)),
    })
}

fn unavailable_event(denial: &Denial) -> WatchTokenResponse {
    WatchTokenResponse {
        event: Some(watch_token_response::Event::Unavailable(Unavailable {
            reason: denial.reason().to_owned(),
            message: denial.message().to_owned(),
            retry_after: denial.retry_after().map(wire::duration),
        })),
    }
}
