//! A request that has arrived whole, and the endpoint's answer to it.

#[cfg(not(feature = "faults"))]
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::answer::IssuerAnswer;
use crate::form::{Form, FormRefusal};
use crate::peer::ConnectionPeer;
use crate::{IssuerState, documents, token};

/// The most bytes of a request body. Assertions are a few kilobytes, and no client needs more.
const BODY_MAX: usize = 64 * 1024;

/// A request. It holds secrets and therefore has no Debug.
pub(crate) struct ParsedRequest {
    pub path: String,
    method: Method,
    pub headers: HeaderMap,
    /// The form of a token request; None for any other request.
    pub form: Option<Form>,
}

impl ParsedRequest {
    /// Reads the whole request.
    ///
    /// # Errors
    /// The body is too long or was cut off; the error is the answer to that.
    pub async fn read(
        state: &IssuerState,
        request: Request<Incoming>,
    ) -> Result<ParsedRequest, IssuerAnswer> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| {
            IssuerAnswer::text(StatusCode::PAYLOAD_TOO_LARGE, "too large, or cut off\n")
        })?;
        let path = head.uri.path().to_owned();
        let form = state
            .is_token_path(&path)
            .then(|| Form::parse(&head.headers, &body.to_bytes()));
        Ok(ParsedRequest {
            path,
            method: head.method,
            headers: head.headers,
            form,
        })
    }

    /// The endpoint's answer.
    ///
    /// # Errors
    /// The endpoint refuses a token request.
    pub fn answer(
        &self,
        state: &IssuerState,
        peer: &ConnectionPeer,
    ) -> Result<IssuerAnswer, FormRefusal> {
        match &self.form {
            Some(_) if self.method != Method::POST => Err(FormRefusal::method()),
            Some(form) => token::answer(state, form, peer.certificate.as_ref()),
            None => {
                let bearer = bearer(&self.headers);
                Ok(documents::answer(
                    state,
                    &self.method,
                    &self.path,
                    bearer,
                    peer,
                ))
            }
        }
    }
}

#[cfg(not(feature = "faults"))]
pub(crate) async fn respond(
    state: Arc<IssuerState>,
    peer: Arc<ConnectionPeer>,
    request: Request<Incoming>,
) -> http::Response<crate::answer::Body> {
    let answer = match ParsedRequest::read(&state, request).await {
        Ok(request) => request
            .answer(&state, &peer)
            .unwrap_or_else(|refusal| IssuerAnswer::refused(&refusal)),
        Err(answer) => answer,
    };
    answer.into_response(state.clock.now())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}
