//! `grpc.health.v1.Health`: one service name for the daemon as a whole, and one for each profile
//! that the caller may use.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::error::{Denial, shortened};
use super::grpc::{session, told_to_stop};
use super::service::ApiService;
use super::session::Session;
use crate::audit::Action;
use crate::core::policy::Decision;

/// How often a watched profile is checked. Health is for supervisors, which poll in seconds.
const WATCH_PULSE: Duration = Duration::from_secs(1);

/// These names serve as long as the daemon answers. A profile's state is under the profile's own
/// name.
const OURS: [&str; 3] = ["", "tokend.v1.CredentialService", "tokend.v1.AdminService"];

#[derive(Clone)]
pub struct HealthService(pub Arc<ApiService>);

impl HealthService {
    async fn status(&self, service: &str, session: &Session) -> Option<ServingStatus> {
        if OURS.contains(&service) {
            return Some(match self.0.closed() {
                None => ServingStatus::Serving,
                Some(_) => ServingStatus::NotServing,
            });
        }
        if self.0.closed().is_some() {
            return Some(ServingStatus::NotServing);
        }
        let (entry, _) = self.0.permitted(session, service).await?;
        Some(if self.0.available(&entry, self.0.clock.now()) {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let session = session(&request)?;
        let service = request.into_inner().service;
        match self.status(&service, &session).await {
            Some(status) => Ok(Response::new(answer(status))),
            None => {
                let audit = &self.0.audit;
                audit.denied(&session.peer, Action::Health, &service, Decision::Denied);
                Err(Denial::not_found(&service).into())
            }
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let session = session(&request)?;
        let busy = session.activity.stream();
        // No profile has a longer name, and the stream keeps this text.
        let service = shortened(&request.into_inner().service);
        let health = self.clone();
        let (events, stream) = mpsc::channel(1);
        let mut stopping = self.0.stopping.clone();
        tokio::spawn(async move {
            let _busy = busy;
            let mut told = None;
            loop {
                // The protocol demands that an unknown service is reported as such, and the stream
                // stays open.
                let status = health
                    .status(&service, &session)
                    .await
                    .unwrap_or(ServingStatus::ServiceUnknown);
                if told != Some(status) {
                    told = Some(status);
                    if events.send(Ok(answer(status))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(WATCH_PULSE) => {}
                    () = events.closed() => return,
                    () = told_to_stop(&mut stopping) => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
