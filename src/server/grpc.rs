//! `tokend.v1.CredentialService` and `AdminService`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::activity::Busy;
use super::desk::permit::Wanted;
use super::desk::{Ask, Desk};
use super::error::Denial;
use super::guest::Guest;
use super::languages::LONG_ANSWER;
use super::{status, wire};
use crate::audit::Action;
use crate::broker::{Slot, View};
use crate::core::account::Held;
use crate::core::credential::Fingerprint;
use crate::proto::admin_service_server::AdminService;
use crate::proto::credential_service_server::CredentialService;
use crate::proto::{
    Credential, ExplainRequest, ExplainResponse, GetStatusRequest, GetStatusResponse,
    GetTokenRequest, GetTokenResponse, ListProfilesRequest, ListProfilesResponse, ReloadRequest,
    ReloadResponse, ReportRejectedRequest, ReportRejectedResponse, Unavailable, WatchTokenRequest,
    WatchTokenResponse, watch_token_response,
};
use crate::registry::Entry;

/// How often an open stream counts as somebody asking, so that a lazy profile stays awake while it is watched; and how
/// soon a stream notices by itself that it is no longer permitted.
const WATCH_PULSE: Duration = Duration::from_secs(5);

/// How long a reload waits for what is being tried, where the caller does not say.
pub const RELOAD_WAIT: Duration = Duration::from_secs(30);

/// `CredentialService` for one connection.
pub struct Credentials {
    pub desk: Arc<Desk>,
    pub guest: Arc<Guest>,
}

/// `AdminService`.
pub struct Admin(pub Arc<Desk>);

/// Who is asking; put there when the connection was accepted.
pub fn guest<T>(request: &Request<T>) -> Result<Arc<Guest>, Status> {
    request
        .extensions()
        .get::<Arc<Guest>>()
        .cloned()
        .ok_or_else(|| Status::internal("the connection has no caller"))
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
            min_ttl: duration_of("min_ttl", min_ttl)?,
            scopes,
            audience,
            deadline,
        };
        let (answer, _, now) = self.desk.token(&self.guest, ask).await?;
        Ok(Response::new(GetTokenResponse {
            credential: answer.encoded.clone(),
            expires_in: answer.credential.ttl(now).map(wire::duration),
        }))
    }

    type WatchTokenStream = Watching;

    async fn watch_token(
        &self,
        request: Request<WatchTokenRequest>,
    ) -> Result<Response<Self::WatchTokenStream>, Status> {
        let wanted = request.into_inner();
        let asked = Wanted::from(&wanted);
        let slot = self.desk.first_slot(&self.guest, asked).await?;
        let watcher = Watcher {
            desk: self.desk.clone(),
            guest: self.guest.clone(),
            wanted,
            views: slot.watch(),
            slot,
            stopping: self.desk.stopping.clone(),
            told: Told::Nothing,
            _busy: self.guest.activity.stream(),
        };
        Ok(Response::new(Watching(Some(Box::pin(watcher.next())))))
    }

    async fn report_rejected(
        &self,
        request: Request<ReportRejectedRequest>,
    ) -> Result<Response<ReportRejectedResponse>, Status> {
        let request = request.into_inner();
        let reported = self
            .desk
            .report(&self.guest, &request.profile, &request.fingerprint)
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
        let list = self.desk.survey(&self.guest, false, status::listed);
        answer(&self.guest, list.await?)
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let guest = guest(&request)?;
        self.0.for_admins(&guest, Action::GetStatus).await?;
        let wanted = request.into_inner().profile;
        if wanted.is_empty() {
            let look = |desk: &Desk, all: &[Arc<Entry>]| status::of(desk, all);
            let status = self.0.survey(&guest, true, look).await?;
            return answer(&guest, status);
        }
        let entry = self.0.registry.load().get(&wanted).cloned();
        let entry = entry.ok_or_else(|| Denial::not_found(&wanted))?;
        Ok(Response::new(status::of(&self.0, &[entry])))
    }

    async fn reload(
        &self,
        request: Request<ReloadRequest>,
    ) -> Result<Response<ReloadResponse>, Status> {
        let guest = guest(&request)?;
        let wait = match request.into_inner().wait {
            None => RELOAD_WAIT,
            wait => duration_of("wait", wait)?,
        };
        let report = self.0.reload(&guest, wait).await?;
        Ok(Response::new(status::reload(&report)))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let guest = guest(&request)?;
        self.0.for_admins(&guest, Action::Explain).await?;
        let answer = self.0.explain(&guest, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

/// An answer that may be long: charged to the caller's account then, until it has been read.
fn answer<T: Message>(guest: &Guest, message: T) -> Result<Response<T>, Status> {
    let size = message.encoded_len() as u64;
    let mut response = Response::new(message);
    if size > LONG_ANSWER {
        let charge = guest.account.charge(Held::Bytes, size)?;
        response.extensions_mut().insert(Arc::new(charge));
    }
    Ok(response)
}

fn duration_of(name: &str, duration: Option<prost_types::Duration>) -> Result<Duration, Denial> {
    let Some(duration) = duration else {
        return Ok(Duration::ZERO);
    };
    // By hand: the library's own conversion overflows on the least of numbers.
    match (
        u64::try_from(duration.seconds),
        u32::try_from(duration.nanos),
    ) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(Denial::bad_request(format!(
            "`{name}` is negative or not a valid duration"
        ))),
    }
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

/// An open stream: what is there, then each change, until the reader leaves, the profile goes, or the caller may no longer.
///
/// It is driven by its reader, so that a slow one gets the newest next, and an idle one costs no task and no channel: a
/// channel alone reserves room for dozens of messages.
pub struct Watching(Option<Pin<Box<dyn Future<Output = Next> + Send>>>);

/// What comes, and who says what comes after it; None: that was all.
type Next = (Result<WatchTokenResponse, Status>, Option<Watcher>);

impl Stream for Watching {
    type Item = Result<WatchTokenResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let (item, watcher) = ready!(next.as_mut().poll(context));
        self.0 = watcher.map(|watcher| Box::pin(watcher.next()) as _);
        Poll::Ready(Some(item))
    }
}

/// What a stream knows.
struct Watcher {
    desk: Arc<Desk>,
    guest: Arc<Guest>,
    wanted: WatchTokenRequest,
    slot: Arc<Slot>,
    views: watch::Receiver<Arc<View>>,
    stopping: watch::Receiver<bool>,
    told: Told,
    _busy: Busy,
}

impl Watcher {
    /// Waits for something to say.
    async fn next(mut self) -> Next {
        let profile = self.wanted.profile.as_str();
        loop {
            let now = self.desk.clock.now();
            self.slot.note_asked(now);
            let wanted = Wanted::from(&self.wanted);
            let permit = match self.desk.permit(&self.guest, wanted).await {
                Ok(permit) => permit,
                Err(denial) => return (Err(denial.into()), None),
            };
            let view = self.views.borrow_and_update().clone();
            if view.closed {
                // Another definition or other material has taken the profile's place: go on with that, or with what has taken
                // its place meanwhile.
                match self.desk.slot(&self.guest, wanted).await {
                    Ok(successor) => {
                        self.views = successor.watch();
                        self.slot = successor;
                        continue;
                    }
                    Err(denial) => return (Err(denial.into()), None),
                }
            }
            let event = match (view.servable(now, Duration::ZERO), &view.refusal) {
                (Some(answer), _) => {
                    let told = Told::Credential(answer.credential.fingerprint, answer.stale);
                    if self.told == told {
                        None
                    } else {
                        let given = permit.given(answer);
                        if let Err(denial) = self.desk.record(&self.guest, given, now).await {
                            return (Err(denial.into()), None);
                        }
                        self.told = told;
                        Some(credential_event(&answer.encoded))
                    }
                }
                (None, Some(refusal)) => {
                    let denial = Denial::refused(profile, refusal);
                    let told = Told::Unavailable(denial.reason());
                    (self.told != told).then(|| {
                        self.told = told;
                        Some(unavailable_event(&denial))
                    })
                }
                (None, None) => None,
            };
            if let Some(Some(event)) = event {
                return (Ok(event), Some(self));
            }
            tokio::select! {
                // The slot is held here, so its sender lives; a profile that goes says so with its last view.
                _ = self.views.changed() => {}
                () = told_to_stop(&mut self.stopping) => {
                    return (Err(Denial::stopping().into()), None);
                }
                () = tokio::time::sleep(WATCH_PULSE) => {}
            }
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
