//! `tokend.v1.CredentialService` and `AdminService`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::accounts::LONG_ANSWER;
use super::activity::Busy;
use super::error::Denial;
use super::service::permit::Wanted;
use super::service::{ApiService, CredentialRequest};
use super::session::Session;
use super::{status, wire};
use crate::audit::Action;
use crate::broker::{Slot, View};
use crate::core::account::Resource;
use crate::core::credential::Fingerprint;
use crate::proto::admin_service_server::AdminService;
use crate::proto::credential_service_server::CredentialService;
use crate::proto::{
    Credential, ExplainRequest, ExplainResponse, GetStatusRequest, GetStatusResponse,
    GetTokenRequest, GetTokenResponse, ListProfilesRequest, ListProfilesResponse, ReloadRequest,
    ReloadResponse, ReportRejectedRequest, ReportRejectedResponse, Unavailable, WatchTokenRequest,
    WatchTokenResponse, watch_token_response,
};
use crate::registry::RegistryEntry;

/// How often an open stream counts as a request, so that a lazy profile stays awake while it is
/// watched. This is also how soon a stream notices by itself that it is no longer permitted.
const WATCH_PULSE: Duration = Duration::from_secs(5);

/// How long a reload waits for trials when the caller does not say.
pub const RELOAD_WAIT: Duration = Duration::from_secs(30);

/// `CredentialService` for one connection.
pub struct Credentials {
    pub service: Arc<ApiService>,
    pub session: Arc<Session>,
}

pub struct Admin(pub Arc<ApiService>);

/// The session of the caller. It was attached when the connection was accepted.
pub fn session<T>(request: &Request<T>) -> Result<Arc<Session>, Status> {
    request
        .extensions()
        .get::<Arc<Session>>()
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
        let ask = CredentialRequest {
            profile,
            min_ttl: duration_of("min_ttl", min_ttl)?,
            scopes,
            audience,
            deadline,
        };
        let (answer, _, now) = self.service.token(&self.session, ask).await?;
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
        let slot = self.service.first_slot(&self.session, asked).await?;
        let watcher = Watcher {
            service: self.service.clone(),
            session: self.session.clone(),
            wanted,
            views: slot.watch(),
            slot,
            stopping: self.service.stopping.clone(),
            told: LastSent::Nothing,
            _busy: self.session.activity.stream(),
        };
        Ok(Response::new(Watching(Some(Box::pin(watcher.next())))))
    }

    async fn report_rejected(
        &self,
        request: Request<ReportRejectedRequest>,
    ) -> Result<Response<ReportRejectedResponse>, Status> {
        let request = request.into_inner();
        let reported = self
            .service
            .report(&self.session, &request.profile, &request.fingerprint)
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
        let list = self.service.survey(&self.session, false, status::listed);
        answer(&self.session, list.await?)
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let session = session(&request)?;
        self.0.for_admins(&session, Action::GetStatus).await?;
        let wanted = request.into_inner().profile;
        if wanted.is_empty() {
            let look = |service: &ApiService, all: &[Arc<RegistryEntry>]| status::of(service, all);
            let status = self.0.survey(&session, true, look).await?;
            return answer(&session, status);
        }
        let entry = self.0.registry.load().get(&wanted).cloned();
        let entry = entry.ok_or_else(|| self.0.absent(&wanted, true))?;
        Ok(Response::new(status::of(&self.0, &[entry])))
    }

    async fn reload(
        &self,
        request: Request<ReloadRequest>,
    ) -> Result<Response<ReloadResponse>, Status> {
        let session = session(&request)?;
        let wait = match request.into_inner().wait {
            None => RELOAD_WAIT,
            wait => duration_of("wait", wait)?,
        };
        let report = self.0.reload(&session, wait).await?;
        Ok(Response::new(status::reload(&report)))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let session = session(&request)?;
        self.0.for_admins(&session, Action::Explain).await?;
        let answer = self.0.explain(&session, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

/// Encodes an answer that may be long. A long one is charged to the caller's account until it has
/// been read.
fn answer<T: Message>(session: &Session, message: T) -> Result<Response<T>, Status> {
    let size = message.encoded_len() as u64;
    let mut response = Response::new(message);
    if size > LONG_ANSWER {
        let charge = session.account.charge(Resource::Bytes, size)?;
        response.extensions_mut().insert(Arc::new(charge));
    }
    Ok(response)
}

fn duration_of(name: &str, duration: Option<prost_types::Duration>) -> Result<Duration, Denial> {
    let Some(duration) = duration else {
        return Ok(Duration::ZERO);
    };
    // Converted by hand: the library's own conversion overflows on the smallest number.
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

/// An open stream. It sends the current state, then each change, until the reader leaves, the
/// profile goes, or the caller loses its permission.
///
/// The reader drives it. So a slow reader gets the newest state next, and an idle stream costs no
/// task and no channel; a channel alone reserves room for dozens of messages.
pub struct Watching(Option<Pin<Box<dyn Future<Output = WatchStep> + Send>>>);

/// The next message, and the watcher that produces the one after it. None means that the stream is
/// at its end.
type WatchStep = (Result<WatchTokenResponse, Status>, Option<Watcher>);

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

/// The state of an open stream.
struct Watcher {
    service: Arc<ApiService>,
    session: Arc<Session>,
    wanted: WatchTokenRequest,
    slot: Arc<Slot>,
    views: watch::Receiver<Arc<View>>,
    stopping: watch::Receiver<bool>,
    told: LastSent,
    _busy: Busy,
}

impl Watcher {
    /// Waits for the next message.
    async fn next(mut self) -> WatchStep {
        let profile = self.wanted.profile.as_str();
        loop {
            let now = self.service.clock.now();
            self.slot.note_asked(now);
            let wanted = Wanted::from(&self.wanted);
            let permit = match self.service.permit(&self.session, wanted).await {
                Ok(permit) => permit,
                Err(denial) => return (Err(denial.into()), None),
            };
            let view = self.views.borrow_and_update().clone();
            if view.closed {
                // Another definition or other material has replaced the profile: go on with the
                // current version.
                match self.service.slot(&self.session, wanted).await {
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
                    let told = LastSent::Credential(answer.credential.fingerprint, answer.stale);
                    if self.told == told {
                        None
                    } else {
                        let given = permit.given(answer);
                        if let Err(denial) = self.service.record(&self.session, given, now).await {
                            return (Err(denial.into()), None);
                        }
                        self.told = told;
                        Some(credential_event(&answer.encoded))
                    }
                }
                (None, Some(refusal)) => {
                    let denial = Denial::refused(profile, refusal);
                    let told = LastSent::Unavailable(denial.reason());
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
                // The sender lives as long as the slot, which is held here. A profile that goes
                // says so with its last view.
                _ = self.views.changed() => {}
                () = told_to_stop(&mut self.stopping) => {
                    return (Err(Denial::stopping().into()), None);
                }
                () = tokio::time::sleep(WATCH_PULSE) => {}
            }
        }
    }
}

/// Completes when the daemon is told to end.
pub async fn told_to_stop(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// What the stream has sent last.
#[derive(PartialEq)]
enum LastSent {
    Nothing,
    Credential(Fingerprint, bool),
    Unavailable(&'static str),
}

fn credential_event(encoded: &[u8]) -> Option<WatchTokenResponse> {
    // The daemon encoded this itself. Were it ever unreadable, the next change would still come.
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
