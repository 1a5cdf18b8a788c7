//! One request from its arrival to its answer: what the script says, else what the endpoint says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::Fault;
use super::pace::Pace;
use super::record::{RecordedRequest, RequestOutcome, public_parameters};
use super::script::RepeatedToken;
use crate::answer::{Body, Content, IssuerAnswer, http_date, json_text};
use crate::endpoint::ParsedRequest;
use crate::form::Form;
use crate::peer::ConnectionPeer;
use crate::{IssuerState, client, locked};

/// Answers a request, or does not, if that is the script.
pub(crate) async fn respond(
    state: Arc<IssuerState>,
    peer: Arc<ConnectionPeer>,
    request: Request<Incoming>,
) -> Response<Body> {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests measure what is between two requests"
    )]
    let arrived = Instant::now();
    let path = request.uri().path();
    locked(&state.faults.journal).count(path);
    let in_flight = state.is_token_path(path).then(|| InFlight::new(&state));
    let request = match ParsedRequest::read(&state, request).await {
        Ok(request) => request,
        Err(answer) => return Pace::Whole.applied(answer.into_bytes(state.clock.now())),
    };
    let form = request.form.as_ref();
    let number = form.map(|form| record(&state, &peer, arrived, &request.path, form));

    let client_id = form.and_then(Form::claimed_client);
    let faults = locked(&state.faults.script)
        .take(&request.path, form.is_some(), client_id.as_deref())
        .map_or_else(Vec::new, Fault::steps);
    for fault in &faults {
        wait(fault, &peer).await;
    }
    let now = state.clock.now();
    let replaced = faults
        .iter()
        .find_map(|fault| Some((replacement(fault, &request, now)?, fault)));
    let mut pace = faults.iter().fold(Pace::Whole, |pace, fault| match fault {
        Fault::Truncated => Pace::Half,
        Fault::SlowBody(interval) => Pace::Trickle(*interval),
        _ => pace,
    });
    let (mut answer, outcome) = match replaced {
        Some((answer, fault)) => {
            if matches!(fault, Fault::EndlessBody) {
                pace = Pace::Endless;
            }
            (answer, RequestOutcome::Fault)
        }
        None => match request.answer(&state, &peer) {
            Ok(answer) => (answer, RequestOutcome::Issued),
            Err(refusal) => (
                IssuerAnswer::refused(&refusal),
                RequestOutcome::Refused(refusal.code),
            ),
        },
    };
    for fault in faults {
        alter(fault, &mut answer, &state, form, now);
    }
    if let Some(number) = number {
        locked(&state.faults.journal).conclude(number, outcome);
    }

    // From here on only an answer that takes its time still counts as in flight. If a whole answer
    // counted, a client's next request could arrive before hyper lets go of this one, and the
    // issuer would count two where there was never more than one.
    let response = pace.applied(answer.into_bytes(now));
    match in_flight.filter(|_| pace != Pace::Whole) {
        None => response,
        Some(in_flight) => response.map(|body| {
            body.map_frame(move |frame| {
                let _still_here = &in_flight;
                frame
            })
            .boxed_unsync()
        }),
    }
}

/// Records a token request. The returned number is for recording its outcome.
fn record(
    state: &IssuerState,
    peer: &ConnectionPeer,
    arrived: Instant,
    path: &str,
    form: &Form,
) -> u64 {
    let client_id = form.claimed_client();
    let registered = client_id
        .as_ref()
        .and_then(|id| locked(&state.clients).get(id).cloned());
    locked(&state.faults.journal).push(RecordedRequest {
        arrived,
        path: path.to_owned(),
        connection: peer.number,
        client_id,
        client_auth: client::method(form, registered.as_ref()).ok(),
        parameters: public_parameters(form),
        certificate: peer.certificate.as_ref().map(|it| it.thumbprint.clone()),
        outcome: RequestOutcome::Unanswered,
    })
}

async fn wait(fault: &Fault, peer: &ConnectionPeer) {
    match fault {
        Fault::SlowHeaders(time) => tokio::time::sleep(*time).await,
        // A closed semaphore no longer holds any request back.
        Fault::Hold(permits) => {
            if let Ok(permit) = permits.acquire().await {
                permit.forget();
            }
        }
        Fault::Hang => std::future::pending().await,
        Fault::CloseConnection => {
            peer.close.notify_one();
            std::future::pending().await
        }
        _ => {}
    }
}

fn replacement(fault: &Fault, request: &ParsedRequest, now: Duration) -> Option<IssuerAnswer> {
    let answer = match fault {
        Fault::Status {
            status,
            body,
            headers,
        } => {
            let content = Content::Bytes(body.clone().into());
            let mut answer = IssuerAnswer::new(code(*status), None, content);
            for (name, value) in headers {
                answer.set_header(name, value);
            }
            answer
        }
        Fault::RetryAfter(status, wait) => {
            let mut answer = IssuerAnswer::text(code(*status), "not now\n");
            answer.set_header("retry-after", &wait.as_secs().to_string());
            answer
        }
        Fault::RetryAfterDate(status, wait) => {
            let mut answer = IssuerAnswer::text(code(*status), "not now\n");
            answer.set_header("retry-after", &http_date(now.saturating_add(*wait)));
            answer
        }
        Fault::Html200 => IssuerAnswer::new(
            StatusCode::OK,
            Some("text/html; charset=utf-8"),
            Content::Bytes(Bytes::from_static(
                b"<!doctype html><title>Sign in</title><h1>Sign in</h1>\n",
            )),
        ),
        Fault::OAuthError {
            status,
            code: error,
        } => IssuerAnswer::oauth_error(code(*status), error, "the script says so"),
        Fault::BigBody(size) => big_body(*size),
        // `Pace::Endless` sends another body instead of this one.
        Fault::EndlessBody => IssuerAnswer::json(Vec::new()),
        Fault::Redirect { status, location } => {
            let mut answer = IssuerAnswer::new(code(*status), None, Content::Bytes(Bytes::new()));
            answer.set_header(LOCATION.as_str(), location);
            answer
        }
        Fault::EchoSecret => echo(request),
        _ => return None,
    };
    Some(answer)
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn big_body(size: usize) -> IssuerAnswer {
    let (start, end) = (
        r#"{"token_type":"Bearer","expires_in":300,"access_token":""#,
        r#""}"#,
    );
    let filler = "A".repeat(size.saturating_sub(start.len() + end.len()));
    IssuerAnswer::new(
        StatusCode::OK,
        Some("application/json"),
        Content::Bytes(format!("{start}{filler}{end}").into()),
    )
}

/// Answers as a careless provider does: the error code repeats what was presented as secret, the
/// description repeats all of it.
fn echo(request: &ParsedRequest) -> IssuerAnswer {
    let authorization = request.headers.get(AUTHORIZATION);
    let authorization = authorization.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let mut presented: Vec<&str> = Vec::new();
    if let Some(form) = &request.form {
        if let Some(Ok((_, secret))) = &form.basic {
            presented.push(secret);
        }
        presented.extend(form.get("client_secret"));
        presented.extend(form.get("client_assertion"));
        presented.extend(authorization.as_deref());
    }
    let first = presented.first().copied().unwrap_or("nothing");
    IssuerAnswer::oauth_error(StatusCode::BAD_REQUEST, first, &presented.join(" "))
}

fn alter(
    fault: Fault,
    answer: &mut IssuerAnswer,
    state: &IssuerState,
    form: Option<&Form>,
    now: Duration,
) {
    match fault {
        Fault::Field { name, json } => answer.set_field(&name, json),
        Fault::ExtraHeader { name, value } => answer.set_header(&name, &value),
        Fault::Date(skew) => {
            let by = Duration::from_secs(skew.unsigned_abs());
            let told = if skew < 0 {
                now.saturating_sub(by)
            } else {
                now.saturating_add(by)
            };
            answer.set_header("date", &http_date(told));
        }
        Fault::SameToken { shrinking } => same_token(answer, state, form, shrinking),
        _ => {}
    }
}

fn same_token(
    answer: &mut IssuerAnswer,
    state: &IssuerState,
    form: Option<&Form>,
    shrinking: bool,
) {
    let (Some(form), Some(token)) = (form, answer.field("access_token")) else {
        return;
    };
    let now = state.clock.now();
    let key = json_text(&format!(
        "{:?}{:?}",
        form.claimed_client(),
        public_parameters(form)
    ));
    let fresh = RepeatedToken {
        token: token.to_owned(),
        at: now,
    };
    let first = locked(&state.faults.script).first(key, fresh);
    answer.set_field("access_token", Some(first.token));
    if shrinking {
        let left = state
            .token_lifetime
            .saturating_sub(now.saturating_sub(first.at));
        answer.set_field("expires_in", Some(left.as_secs().to_string()));
    }
}

/// Counts a token request while it lives.
struct InFlight(Arc<IssuerState>);

impl InFlight {
    fn new(state: &Arc<IssuerState>) -> InFlight {
        let now = state.faults.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        state.faults.max_in_flight.fetch_max(now, Ordering::Relaxed);
        InFlight(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.faults.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl IssuerAnswer {
    pub fn field(&self, name: &str) -> Option<&str> {
        match &self.content {
            Content::Fields(fields) => fields
                .iter()
                .find(|(field, _)| field == name)
                .map(|(_, json)| json.as_str()),
            _ => None,
        }
    }

    /// Sets, adds or removes a field. Does nothing if the answer is not a JSON object.
    pub fn set_field(&mut self, name: &str, json: Option<String>) {
        let Content::Fields(fields) = &mut self.content else {
            return;
        };
        match (fields.iter().position(|(field, _)| field == name), json) {
            (Some(at), Some(json)) => fields[at].1 = json,
            (Some(at), None) => drop(fields.remove(at)),
            (None, Some(json)) => fields.push((name.to_owned(), json)),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_added_and_removed_in_place() {
        let mut answer = IssuerAnswer::json(vec![("a", 1.into()), ("b", "x".into())]);
        answer.set_field("a", Some("1e99".into()));
        answer.set_field("b", None);
        answer.set_field("c", Some("nonsense".into()));
        let body = answer.into_bytes(Duration::ZERO).into_body();
        assert_eq!(body, r#"{"a":1e99,"c":nonsense}"#);
    }
}
