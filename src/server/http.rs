//! The HTTP/1.1 and JSON side of the socket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{Denial, shortened};
use super::grpc::RELOAD_WAIT;
use super::service::{ApiService, CredentialRequest};
use super::session::Session;
use super::{status, wire};
use crate::audit::Action;
use crate::proto::{self, ExplainRequest};
use crate::registry::{ProfileHealth, RegistryEntry};

type SessionExtension = Extension<Arc<Session>>;
type ServiceState = State<Arc<ApiService>>;

/// Names under which this server may be addressed. Any other name means a browser that a foreign
/// name led here.
const HOSTS: [&str; 4] = ["tokend", "localhost", "127.0.0.1", "[::1]"];

/// The largest body of a request, in bytes: a fingerprint and some room.
const BODY_LIMIT: usize = 4096;

/// At most this much of a longer body is read before the answer, in bytes. A client that sends more
/// by mistake sees its connection closed.
const MOST_READ: usize = 1024 * 1024;

pub fn router(service: Arc<ApiService>) -> Router {
    Router::new()
        .route("/v1/profiles", get(profiles))
        .route("/v1/profiles/{name}/token", get(token))
        .route("/v1/profiles/{name}/rejected", post(rejected))
        .route("/v1/profiles/{name}/explain", get(why))
        .route("/v1/status", get(state))
        .route("/v1/reload", post(reload))
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(guard))
        .with_state(service)
}

async fn guard(request: Request, next: Next) -> Response {
    let request = read_wholly(request).await;
    let (headers, uri) = (request.headers().clone(), request.uri().clone());
    guarded(&headers, &uri, async || next.run(request).await).await
}

/// Reads the whole body before anything looks at the request. A client that is still sending when
/// the connection is closed sees a broken pipe instead of the answer (trap 58). Of a body that is
/// too long, just enough is kept to tell that it is.
pub async fn read_wholly(request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let (parts, mut body) = request.into_parts();
    let (mut kept, mut came) = (Vec::new(), 0);
    // A body that breaks off or takes too long is judged by what has arrived.
    while came < MOST_READ
        && let Some(Ok(frame)) = body.frame().await
    {
        let data = frame.into_data().unwrap_or_default();
        came += data.len();
        let room = (BODY_LIMIT + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    Request::from_parts(parts, axum::body::Body::from(kept))
}

/// Keeps browsers out, and keeps answers out of caches.
async fn guarded(
    headers: &HeaderMap,
    uri: &Uri,
    answer: impl AsyncFnOnce() -> Response,
) -> Response {
    let mut response = match refuse(headers, uri) {
        Some(why) => error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "FORBIDDEN", why),
        None => answer().await,
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The reason to refuse a request whatever it asks for, if there is one.
pub fn refuse(headers: &HeaderMap, uri: &Uri) -> Option<&'static str> {
    if is_from_a_browser(headers) {
        return Some(
            "requests with Origin or Sec-Fetch-Site come from a browser, which has no business here",
        );
    }
    let named = headers
        .get_all(header::HOST)
        .iter()
        .map(HeaderValue::as_bytes)
        .chain(
            uri.authority()
                .map(|authority| authority.as_str().as_bytes()),
        );
    let mut any = false;
    for host in named {
        any = true;
        if !is_ours(host) {
            return Some("this Host is not tokend's: use http://tokend/… or http://localhost/…");
        }
    }
    (!any).then_some("a Host header is needed: tokend or localhost")
}

/// Whether the headers include one that only browsers send. `Sec-Fetch-Mode` is not among them:
/// Node's own `fetch` sends it too, and no browser sends it without `Sec-Fetch-Site` (trap 52).
pub fn is_from_a_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers.keys().any(|name| {
            name.as_str().starts_with("sec-fetch-") && name.as_str() != "sec-fetch-mode"
        })
}

fn is_ours(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    HOSTS.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// The profile in `/v1/profiles/NAME/token`, if the path has that form and the name is not escaped.
pub fn token_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/v1/profiles/")?.strip_suffix("/token")?;
    (!name.is_empty() && !name.contains(['/', '%'])).then_some(name)
}

/// Answers `GET /v1/profiles/NAME/token` without a router, because most requests are this one.
pub async fn token_at_once(
    service: &ApiService,
    session: &Session,
    profile: &str,
    headers: &HeaderMap,
    uri: &Uri,
) -> Response {
    guarded(headers, uri, async || {
        credential(service, session, profile.to_owned(), uri.query()).await
    })
    .await
}

async fn token(
    State(service): ServiceState,
    Extension(session): SessionExtension,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response {
    let profile = named(path);
    credential(&service, &session, profile, query.as_deref()).await
}

/// The profile name in the path. A name that is not even text belongs to no profile.
fn named(path: Result<Path<String>, PathRejection>) -> String {
    path.map_or_else(|_| "\u{fffd}".to_owned(), |Path(name)| name)
}

async fn credential(
    service: &ApiService,
    session: &Session,
    profile: String,
    query: Option<&str>,
) -> Response {
    let answer = async {
        let (answer, entry, now) = service.token(session, ask(profile, query)?).await?;
        let body = wire::json(&answer, entry.target.as_deref(), now);
        let kind = HeaderValue::from_static("application/json");
        Ok::<_, Denial>(([(header::CONTENT_TYPE, kind)], body).into_response())
    };
    answer.await.unwrap_or_else(Denial::into_response)
}

fn ask(profile: String, query: Option<&str>) -> Result<CredentialRequest, Denial> {
    let mut ask = CredentialRequest {
        profile,
        ..CredentialRequest::default()
    };
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "min_ttl" => ask.min_ttl = duration("min_ttl", &value)?,
            // Both `scopes=a&scopes=b` and `scopes=a b` are accepted; OAuth writes the second.
            "scopes" => ask.scopes.extend(
                value
                    .split(' ')
                    .filter(|scope| !scope.is_empty())
                    .map(str::to_owned),
            ),
            "audience" => ask.audience = value.into_owned(),
            other => return Err(unknown_parameter(other, "min_ttl, scopes and audience")),
        }
    }
    Ok(ask)
}

fn duration(name: &str, text: &str) -> Result<Duration, Denial> {
    humantime::parse_duration(text).map_err(|_| {
        Denial::bad_request(format!(
            "`{name}` is a duration with its unit, for instance 30s or 5m"
        ))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejection {
    fingerprint: String,
}

async fn rejected(
    State(service): ServiceState,
    Extension(session): SessionExtension,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<Rejection>, JsonRejection>,
) -> Result<Json<Value>, Denial> {
    let Json(body) = body.map_err(|_| {
        Denial::bad_request(
            "the body must be {\"fingerprint\": \"…\"} with Content-Type: application/json",
        )
    })?;
    let reported = service
        .report(&session, &named(path), &body.fingerprint)
        .await?;
    let mut answer = json!({ "replaced": reported.replaced });
    if !reported.replaced {
        answer["retry_after"] = json!(reported.retry_after.as_secs_f64());
    }
    Ok(Json(answer))
}

async fn profiles(
    State(service): ServiceState,
    Extension(session): SessionExtension,
) -> Result<Response, Denial> {
    let look = |service: &ApiService, visible: &[Arc<RegistryEntry>]| {
        Json(proto::json::value(&status::listed(service, visible))).into_response()
    };
    service.survey(&session, false, look).await
}

async fn state(
    State(service): ServiceState,
    Extension(session): SessionExtension,
    RawQuery(query): RawQuery,
) -> Result<Response, Denial> {
    let mut wanted = None;
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "profile" => wanted = Some(value.into_owned()),
            other => return Err(unknown_parameter(other, "profile")),
        }
    }
    // Administrators see every profile, others those that they may use.
    let admin = service.is_admin(&session).await;
    if let Some(wanted) = wanted {
        let found = if admin {
            service.registry.load().get(&wanted).cloned()
        } else {
            service
                .permitted(&session, &wanted)
                .await
                .map(|(entry, _)| entry)
        };
        let entry = found.ok_or_else(|| service.absent(&wanted, admin))?;
        return Ok(Json(status::json(&service, &[entry], admin)).into_response());
    }
    let look = move |service: &ApiService, entries: &[Arc<RegistryEntry>]| {
        Json(status::json(service, entries, admin)).into_response()
    };
    service.survey(&session, admin, look).await
}

/// `wait` says how long to wait for trials at identity providers.
async fn reload(
    State(service): ServiceState,
    Extension(session): SessionExtension,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Denial> {
    let mut wait = RELOAD_WAIT;
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "wait" => wait = duration("wait", &value)?,
            other => return Err(unknown_parameter(other, "wait")),
        }
    }
    let report = service.reload(&session, wait).await?;
    Ok(Json(proto::json::value(&status::reload(&report))))
}

/// `as_user` and `as_unit` say for whom to explain; only administrators may use them.
async fn why(
    State(service): ServiceState,
    Extension(session): SessionExtension,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Denial> {
    let mut wanted = ExplainRequest {
        profile: named(path),
        ..ExplainRequest::default()
    };
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "as_user" => wanted.as_user = value.into_owned(),
            "as_unit" => wanted.as_unit = value.into_owned(),
            other => return Err(unknown_parameter(other, "as_user and as_unit")),
        }
    }
    let answer = service.explain(&session, wanted).await?;
    Ok(Json(proto::json::value(&answer)))
}

fn unknown_parameter(name: &str, known: &str) -> Denial {
    Denial::bad_request(format!(
        "unknown query parameter {:?}: known are {known}",
        shortened(name)
    ))
}

async fn ready(
    State(service): ServiceState,
    Extension(session): SessionExtension,
) -> Result<Response, Denial> {
    service.survey(&session, false, readiness).await
}

fn readiness(service: &ApiService, visible: &[Arc<RegistryEntry>]) -> Response {
    let now = service.clock.now();
    let missing: Vec<Value> = visible
        .iter()
        .filter(|entry| !service.available(entry, now))
        .map(|entry| {
            let (state, message) = match &entry.health {
                ProfileHealth::Invalid(why) => ("invalid", why.clone()),
                ProfileHealth::Managed(handle) => {
                    let view = handle.own().view();
                    if view.state(now).available() {
                        // Only a missing audit record can be the cause then.
                        return json!({
                            "name": entry.name.as_str(),
                            "state": view.state(now).as_str(),
                            "message": status::UNRECORDED,
                        });
                    }
                    let why = view.trouble.as_ref().map_or_else(
                        || match view.answer {
                            Some(_) => "the last credential has ended, and the next one has not come yet",
                            None => "the first credential has not come yet",
                        }
                        .to_owned(),
                        |trouble| trouble.failure.message.clone(),
                    );
                    (view.state(now).as_str(), why)
                }
            };
            json!({ "name": entry.name.as_str(), "state": state, "message": message })
        })
        .collect();
    let status = if missing.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({ "ready": missing.is_empty(), "profiles": missing });
    (status, Json(body)).into_response()
}

async fn metrics(
    State(service): ServiceState,
    Extension(session): SessionExtension,
) -> Result<Response, Denial> {
    service.for_admins(&session, Action::Metrics).await?;
    let kind = HeaderValue::from_static(super::metrics::CONTENT_TYPE);
    let page = service
        .survey(&session, true, super::metrics::render)
        .await?;
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}

async fn nowhere() -> Response {
    let why = "no such path: see GET /v1/profiles/NAME/token, /v1/profiles/NAME/explain, /v1/profiles, /v1/status, /healthz, /readyz, /metrics";
    error(StatusCode::NOT_FOUND, "NOT_FOUND", "PATH_NOT_FOUND", why)
}

async fn wrong_method() -> Response {
    let why = "this path does not take that method: everything is GET, but POST /v1/profiles/NAME/rejected and POST /v1/reload";
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        "UNIMPLEMENTED",
        "METHOD_NOT_ALLOWED",
        why,
    )
}

fn error(status: StatusCode, code: &str, reason: &str, message: &str) -> Response {
    (
        status,
        Json(json!({ "code": code, "reason": reason, "message": message })),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&str, &str)], uri: &str) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                header::HeaderName::try_from(*name).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        refuse(&map, &uri.parse().expect("uri")).is_some()
    }

    #[test]
    fn the_short_way_is_taken_for_plain_names_only() {
        assert_eq!(token_of("/v1/profiles/orders/token"), Some("orders"));
        for path in [
            "/v1/profiles//token",
            "/v1/profiles/token",
            "/v1/profiles/a%62/token",
            "/v1/profiles/a/b/token",
            "/v1/profiles/a/token/",
            "/v1/profiles/a/rejected",
            "/v1/status",
        ] {
            assert_eq!(token_of(path), None, "{path}");
        }
    }

    #[test]
    fn only_our_own_hosts_and_no_browser() {
        for host in [
            "tokend",
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "[::1]",
            "localhost:80",
            "[::1]:8080",
        ] {
            assert!(!refused(&[("host", host)], "/"), "{host}");
        }
        for host in [
            "evil.example",
            "tokend.evil.example",
            "127.0.0.1.evil",
            "",
            "localhost:",
            "::1",
            "localhost:x",
        ] {
            assert!(refused(&[("host", host)], "/"), "{host}");
        }
        assert!(refused(&[], "/"));
        assert!(refused(&[("host", "tokend"), ("host", "evil")], "/"));
        assert!(refused(&[("host", "tokend")], "http://evil.example/"));
        assert!(refused(&[("host", "tokend"), ("origin", "null")], "/"));
        assert!(refused(
            &[("host", "tokend"), ("sec-fetch-site", "none")],
            "/"
        ));
        assert!(refused(
            &[("host", "tokend"), ("sec-fetch-dest", "empty")],
            "/"
        ));
        // Trap 52: Node's own fetch.
        assert!(!refused(
            &[("host", "tokend"), ("sec-fetch-mode", "cors")],
            "/"
        ));
    }
}
