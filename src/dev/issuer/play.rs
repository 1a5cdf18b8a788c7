//! One request from its arrival to its answer: what the script says, else what the endpoint says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::answer::{Answer, Body, Content, Pace, http_date};
use super::form::Form;
use super::record::{Outcome, Recorded};
use super::wire::Peer;
use super::{State, client, documents, locked, token};
use crate::core::time::WallTime;
use crate::dev::faults::{Fault, First, json_text};

/// Bytes of a request body: assertions are a few kilobytes, nobody needs more.
const BODY_MAX: usize = 64 * 1024;

/// Answers a request, or does not, if that is the script.
pub(super) async fn respond(
    state: Arc<State>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<Body> {
    let arrived = state.clock.now();
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    locked(&state.journal).count(path);
    let is_token = state.is_token_path(path);

    let in_flight = is_token.then(|| InFlight::new(&state));
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
        return Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "too large, or cut off\n")
            .into_response(state.clock.now().wall);
    };
    let form = is_token.then(|| Form::parse(&head.headers, &body.to_bytes()));
    let client_id = form.as_ref().and_then(Form::claimed_client);
    let number = form.as_ref().map(|form| {
        let registered = client_id
            .as_ref()
            .and_then(|id| locked(&state.clients).get(id).cloned());
        locked(&state.journal).push(Recorded {
            arrived,
            path: path.to_owned(),
            connection: peer.number,
            client_id: client_id.clone(),
            client_auth: client::method(form, registered.as_ref()).ok(),
            parameters: form.public_parameters(),
            certificate: peer.certificate.as_ref().map(|it| it.thumbprint.clone()),
            outcome: Outcome::Unanswered,
        })
    });

    let faults = locked(&state.script)
        .take(path, is_token, client_id.as_deref())
        .map_or_else(Vec::new, Fault::steps);
    for fault in &faults {
        wait(fault, &peer).await;
    }
    let now = state.clock.now().wall;
    let replaced = faults
        .iter()
        .find_map(|fault| replacement(fault, form.as_ref(), now));
    let (mut answer, outcome) = match (replaced, &form) {
        (Some(answer), _) => (answer, Some(Outcome::Fault)),
        (None, Some(form)) => {
            let (answer, outcome) = token_answer(&state, &head.method, form, &peer);
            (answer, Some(outcome))
        }
        (None, None) => (
            documents::answer(&state, &head.method, path, bearer(&head.headers), &peer),
            None,
        ),
    };
    for fault in faults {
        alter(fault, &mut answer, &state, form.as_ref(), now);
    }
    if let (Some(number), Some(outcome)) = (number, outcome) {
        locked(&state.journal).conclude(number, outcome);
    }

    // Only what takes its time is still in flight from here on: if a whole answer were, a client's next request could
    // arrive before hyper lets go of this one, and two would be counted where there was never more than one.
    let takes_time = answer.pace != Pace::Whole || matches!(answer.content, Content::Endless);
    let response = answer.into_response(now);
    match in_flight.filter(|_| takes_time) {
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

fn token_answer(state: &State, method: &Method, form: &Form, peer: &Peer) -> (Answer, Outcome) {
    if method != Method::POST {
        return (
            method_not_allowed("POST"),
            Outcome::Refused("invalid_request"),
        );
    }
    match token::answer(state, form, peer.certificate.as_ref()) {
        Ok(answer) => (answer, Outcome::Issued),
        Err(refusal) => (
            Answer::oauth_error(refusal.status, refusal.code, refusal.description),
            Outcome::Refused(refusal.code),
        ),
    }
}

/// 405 with the method that would have been right.
pub(super) fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer = Answer::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer
        .headers
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

async fn wait(fault: &Fault, peer: &Peer) {
    match fault {
        Fault::SlowHeaders(time) => tokio::time::sleep(*time).await,
        // A closed semaphore holds nobody any longer.
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

fn replacement(fault: &Fault, form: Option<&Form>, now: WallTime) -> Option<Answer> {
    let answer = match fault {
        Fault::Status {
            status,
            body,
            headers,
        } => {
            let content = Content::Bytes(body.clone().into());
            let mut answer = Answer::new(code(*status), None, content);
            for (name, value) in headers {
                answer.set_header(name, value);
            }
            answer
        }
        Fault::RetryAfter(status, wait) => {
            let mut answer = Answer::text(code(*status), "not now\n");
            answer.set_header("retry-after", &wait.as_secs().to_string());
            answer
        }
        Fault::RetryAfterDate(status, wait) => {
            let mut answer = Answer::text(code(*status), "not now\n");
            answer.set_header("retry-after", &http_date(now.plus(*wait)));
            answer
        }
        Fault::Html200 => Answer::new(
            StatusCode::OK,
            Some("text/html; charset=utf-8"),
            Content::Bytes(Bytes::from_static(
                b"<!doctype html><title>Sign in</title><h1>Sign in</h1>\n",
            )),
        ),
        Fault::OAuthError {
            status,
            code: error,
        } => Answer::oauth_error(code(*status), error, "the script says so"),
        Fault::BigBody(size) => big_body(*size),
        Fault::EndlessBody => {
            Answer::new(StatusCode::OK, Some("application/json"), Content::Endless)
        }
        Fault::Redirect { status, location } => {
            let mut answer = Answer::new(code(*status), None, Content::Bytes(Bytes::new()));
            answer.set_header(LOCATION.as_str(), location);
            answer
        }
        Fault::EchoSecret => echo(form),
        _ => return None,
    };
    Some(answer)
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn big_body(size: usize) -> Answer {
    let (start, end) = (
        r#"{"token_type":"Bearer","expires_in":300,"access_token":""#,
        r#""}"#,
    );
    let filler = "A".repeat(size.saturating_sub(start.len() + end.len()));
    Answer::new(
        StatusCode::OK,
        Some("application/json"),
        Content::Bytes(format!("{start}{filler}{end}").into()),
    )
}

/// What a careless provider does: the code is what was presented, the description is all of it.
fn echo(form: Option<&Form>) -> Answer {
    let mut presented: Vec<&str> = Vec::new();
    if let Some(form) = form {
        if let Some(Ok((_, secret))) = &form.basic {
            presented.push(secret);
        }
        presented.extend(form.get("client_secret"));
        presented.extend(form.get("client_assertion"));
        presented.extend(form.authorization.as_deref());
    }
    let first = presented.first().copied().unwrap_or("nothing");
    Answer::oauth_error(StatusCode::BAD_REQUEST, first, &presented.join(" "))
}

fn alter(fault: Fault, answer: &mut Answer, state: &State, form: Option<&Form>, now: WallTime) {
    match fault {
        Fault::Truncated => answer.pace = Pace::Half,
        Fault::SlowBody(interval) => answer.pace = Pace::Trickle(interval),
        Fault::Field { name, json } => answer.set_field(&name, json),
        Fault::ExtraHeader { name, value } => answer.set_header(&name, &value),
        Fault::Date(skew) => {
            let by = Duration::from_secs(skew.unsigned_abs());
            let told = if skew < 0 {
                WallTime(now.0.saturating_sub(by))
            } else {
                now.plus(by)
            };
            answer.set_header("date", &http_date(told));
        }
        Fault::SameToken { shrinking } => same_token(answer, state, form, shrinking),
        _ => {}
    }
}

fn same_token(answer: &mut Answer, state: &State, form: Option<&Form>, shrinking: bool) {
    let (Some(form), Some(token)) = (form, answer.field("access_token")) else {
        return;
    };
    let now = state.clock.now().boot;
    let key = json_text(&format!(
        "{:?}{:?}",
        form.claimed_client(),
        form.public_parameters()
    ));
    let fresh = First {
        token: token.to_owned(),
        at: now,
    };
    let first = locked(&state.script).first(key, fresh);
    answer.set_field("access_token", Some(first.token));
    if shrinking {
        let left = state.token_lifetime.saturating_sub(now.since(first.at));
        answer.set_field("expires_in", Some(left.as_secs().to_string()));
    }
}

/// Counts a token request while it lives.
struct InFlight(Arc<State>);

impl InFlight {
    fn new(state: &Arc<State>) -> InFlight {
        let now = state.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        state.max_in_flight.fetch_max(now, Ordering::Relaxed);
        InFlight(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A challenge of RFC 6750 §3.
pub(super) fn bearer_challenge(error: Option<&'static str>) -> Answer {
    let mut answer = Answer::json(vec![("error", error.unwrap_or("no token").into())]);
    answer.status = StatusCode::UNAUTHORIZED;
    let challenge = match error {
        None => "Bearer realm=\"tokend dev\"".to_owned(),
        Some(error) => format!("Bearer realm=\"tokend dev\", error=\"{error}\""),
    };
    answer.set_header(WWW_AUTHENTICATE.as_str(), &challenge);
    answer
}
