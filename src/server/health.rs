//! `grpc.health.v1.Health`: the daemon as a whole, and one service name per profile that the caller may use.

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

use super::desk::Desk;
use super::error::Denial;
use super::grpc::{busy, caller, told_to_stop};
use super::status;
use crate::core::policy::Caller;

/// How often a watched profile is looked at. Health is for supervisors; they poll in seconds.
const WATCH_PULSE: Duration = Duration::from_secs(1);

/// The daemon answers, so these serve; a profile's state is under the profile's own name.
const OURS: [&str; 3] = ["", "tokend.v1.CredentialService", "tokend.v1.AdminService"];

/// Health of the daemon.
#[derive(Clone)]
pub struct HealthDesk(pub Arc<Desk>);

impl HealthDesk {
    fn status(&self, service: &str, caller: &Caller) -> Option<ServingStatus> {
        if OURS.contains(&service) {
            return Some(ServingStatus::Serving);
        }
        let registry = self.0.registry.load();
        let entry = registry.permitted(service, caller)?;
        Some(if status::available(entry, self.0.clock.now()) {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }
}

#[tonic::async_trait]
impl Health for HealthDesk {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let caller = caller(&request)?;
        let service = request.into_inner().service;
        let status = self
            .status(&service, &caller)
            .ok_or_else(|| Denial::not_found(&service))?;
        Ok(Response::new(answer(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let busy = busy(&request);
        let service = request.into_inner().service;
        let desk = self.clone();
        let (events, stream) = mpsc::channel(1);
        let mut stopping = self.0.stopping.clone();
        tokio::spawn(async move {
            let _busy = busy;
            let mut told = None;
            loop {
                // The protocol wants an unknown service to be told as such, and the stream to stay open.
                let status = desk
                    .status(&service, &caller)
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
