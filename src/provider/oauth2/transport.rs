//! One HTTP exchange, bounded in size, and its failures in words.
//!
//! The words are ours. Texts of other libraries are shown only if they are fixed. Other texts, such
//! as server names from certificates, could repeat what the server knows about us (trap 32).

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use rustls::{AlertDescription, CertificateError};
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use crate::core::failure::Failure;
use crate::core::oauth::response::LONGEST_BODY;
use crate::tls::flaw::Flaw;

const UNRESOLVED: &str =
    "its host name cannot be resolved: check the name, DNS, and whether a proxy is needed";

/// The name of this client in the issuer's log.
pub(super) const USER_AGENT: &str = concat!("tokend/", env!("CARGO_PKG_VERSION"));

/// The answer of a server.
pub(super) struct HttpReply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// None if the body was longer than [`LONGEST_BODY`], or broke off while the status already
    /// said enough.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

pub(super) struct NoReply {
    pub(super) failure: Failure,
    /// True if there was not even a connection.
    pub(super) unconnected: bool,
}

/// Sends a request and reads at most [`LONGEST_BODY`] bytes of the answer. Past that it closes the
/// connection.
///
/// A kept connection that is closed just as it is used again says nothing about the identity
/// provider. In that case the request is sent once more, if it may be `repeated`. `opened` counts
/// the connections that were opened.
pub(super) async fn send(
    request: RequestBuilder,
    repeated: bool,
    opened: Arc<AtomicUsize>,
) -> Result<HttpReply, reqwest::Error> {
    let again = if repeated { request.try_clone() } else { None };
    let before = opened.load(Ordering::Relaxed);
    let mut response = match (request.send().await, again) {
        (Err(error), Some(again))
            if was_closed(&error) && opened.load(Ordering::Relaxed) == before =>
        {
            again.send().await?
        }
        (outcome, _) => outcome?,
    };
    let status = response.status().as_u16();
    // The whole memory is allocated at once: a token is in it, and growing would leave copies
    // behind.
    let mut body = Zeroizing::new(Vec::with_capacity(LONGEST_BODY));
    let body = loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_BODY => break None,
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break Some(body),
            Err(error) if is_whole(response.headers(), &body, &error) => break Some(body),
            Err(error) if status == 200 => return Err(error),
            Err(_) => break None,
        }
    };
    Ok(HttpReply {
        status,
        headers: std::mem::take(response.headers_mut()),
        body,
    })
}

/// Whether an answer that broke off is whole all the same. Some servers end an answer without a
/// length by closing the connection, and leave TLS's own farewell (close_notify, RFC 8446 §6.1)
/// out. JSON that was cut short is no JSON.
fn is_whole(headers: &HeaderMap, body: &[u8], error: &reqwest::Error) -> bool {
    let closed =
        find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
    let delimited = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    closed && !delimited && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// Whether the connection ended before there was an answer.
fn was_closed(error: &reqwest::Error) -> bool {
    use io::ErrorKind as K;
    let reset = |kind| matches!(kind, K::ConnectionReset | K::BrokenPipe | K::UnexpectedEof);
    !error.is_timeout()
        && (find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message)
            || find::<io::Error>(error).is_some_and(|error| reset(error.kind())))
}

/// The route that a request took.
pub(super) struct Route {
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    /// The words about a proxy on the route, or about one that is left out. May be empty.
    pub(super) through: String,
    pub(super) with_certificate: bool,
}

/// Explains why there was no answer. The failure is transient unless the server refused our
/// certificate, which needs another certificate.
pub(super) fn explain(error: &reqwest::Error, at: &str, way: &Route) -> Failure {
    if let Some(tls) = find::<rustls::Error>(error) {
        return explain_tls(tls, at, way);
    }
    let why = if error.is_dns() {
        UNRESOLVED.into()
    } else if error.is_timeout() && error.is_connect() {
        return unconnected(at, way);
    } else if error.is_timeout() {
        return too_late(at, way);
    } else if let Some(io) = find::<io::Error>(error) {
        explain_io(io)
    } else if let Some(hyper) = find::<hyper::Error>(error) {
        improper(hyper)
    } else if error.is_connect() {
        "no connection: check host, port, firewall and proxy".into()
    } else {
        "the exchange broke off: it is tried again by itself".into()
    };
    unreached(at, way, &why)
}

/// Explains why there was no answer on an established connection.
pub(super) fn explain_exchange(error: &hyper::Error, at: &str, way: &Route) -> Failure {
    if let Some(tls) = find::<rustls::Error>(error) {
        return explain_tls(tls, at, way);
    }
    let why = match find::<io::Error>(error) {
        Some(io) => explain_io(io),
        None => improper(error),
    };
    unreached(at, way, &why)
}

/// The texts of hyper are fixed.
fn improper(error: &hyper::Error) -> String {
    format!("the answer is no proper HTTP ({error}): check scheme, port and proxy")
}

/// Explains why there is no connection, if the HTTP client did not make it.
pub(super) fn explain_connection(error: &io::Error, at: &str, way: &Route) -> Failure {
    match find::<rustls::Error>(error) {
        Some(tls) => explain_tls(tls, at, way),
        None => unreached(at, way, &explain_io(error)),
    }
}

/// The name of the host, or of the proxy on the way to it, cannot be resolved.
pub(super) fn unresolved(at: &str, way: &Route) -> Failure {
    unreached(at, way, UNRESOLVED)
}

/// There was no connection in time.
pub(super) fn unconnected(at: &str, way: &Route) -> Failure {
    let why = format!(
        "no connection within {}: check host, port, firewall and proxy, or raise http.connect_timeout",
        humantime::format_duration(way.connect_timeout)
    );
    unreached(at, way, &why)
}

/// There was no complete answer in time.
pub(super) fn too_late(at: &str, way: &Route) -> Failure {
    let (through, within) = (&way.through, humantime::format_duration(way.timeout));
    Failure::transient(format!(
        "{at} gave no complete answer within {within}{through}: the identity provider is slow or hangs; if it stays, \
         see its log, or raise http.timeout"
    ))
}

/// There is no connection, or none any more.
pub(super) fn unreached(at: &str, way: &Route, why: &str) -> Failure {
    let through = &way.through;
    Failure::transient(format!("{at} cannot be reached{through}: {why}"))
}

/// Explains what went wrong on a connection.
pub(super) fn explain_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "the connection was refused: check host and port, and that it is running".into()
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => {
            "the connection was closed in the middle: check scheme, port and proxy, and the log of the identity \
             provider"
                .into()
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no route to it: check network and proxy".into()
        }
        // The text of the kind is fixed, the text of the error may not be.
        kind => format!("the network failed ({kind}): check host, port, firewall and proxy"),
    }
}

fn explain_tls(error: &rustls::Error, at: &str, way: &Route) -> Failure {
    let certificate = |why: &str| {
        Failure::transient(format!(
            "the TLS certificate of {at} cannot be trusted: {why}"
        ))
    };
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            // A CA that was made anew under its old name appears as a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => certificate(
                "its issuer is unknown; set tls.ca to the CA's certificate, or add it to the system's roots",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => certificate(
                "it has expired; ask the identity provider's operator, and check the clock of this machine",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                certificate("it is not valid yet; check the clock of this machine")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                certificate(
                    "it was issued for another host name; use the name that the certificate has, or let it be issued \
                     for this one",
                )
            }
            CertificateError::Revoked => {
                certificate("it has been revoked; ask the identity provider's operator")
            }
            CertificateError::Other(error) if error.0.is::<Flaw>() => {
                certificate(&error.0.to_string())
            }
            // Only the name of the verifier's own error is known, since its type belongs to another
            // crate.
            CertificateError::Other(error)
                if format!("{error:?}").contains("CaUsedAsEndEntity") =>
            {
                certificate(
                    "it is a CA's certificate (CA:TRUE), and a CA may not be a server at once; let the CA sign a \
                     certificate for the server, or make the self-signed one anew without CA (openssl req -x509 \
                     -addext basicConstraints=critical,CA:FALSE), and name the signer as tls.ca",
                )
            }
            _ => certificate(
                "it does not pass the check (wrong purpose or form); ask the identity provider's operator",
            ),
        },
        rustls::Error::AlertReceived(alert) if refuses_us(*alert, way.with_certificate) => {
            let cure = if way.with_certificate {
                "check that tls.certificate (or the one in tls.keystore) is valid, complete with its chain, and known to the identity provider"
            } else {
                "it wants one: set tls.certificate and tls.key, or tls.keystore"
            };
            Failure::permanent(format!(
                "{at} refused our client certificate in the TLS handshake ({alert:?}): {cure}"
            ))
        }
        rustls::Error::AlertReceived(alert) => Failure::transient(format!(
            "{at} ended the TLS handshake ({alert:?}): check host and port, and the log of the identity provider"
        )),
        rustls::Error::InvalidMessage(_) => Failure::transient(format!(
            "{at} does not speak TLS: check scheme (http or https) and port"
        )),
        rustls::Error::PeerIncompatible(why) => Failure::transient(format!(
            "{at} offers no TLS 1.2 or 1.3 that fits ({why:?}): ask the identity provider's operator"
        )),
        rustls::Error::General(_) => Failure::transient(format!(
            "TLS to {at} failed, most likely because the system's root certificates cannot be read: install \
             ca-certificates, or set tls.ca"
        )),
        _ => Failure::transient(format!(
            "TLS to {at} failed: check host and port, and the log of the identity provider"
        )),
    }
}

/// Whether the alert is about the client's certificate (RFC 8446 §6.2). `certificate_required` says
/// so outright. The others mean it if the client presented one.
fn refuses_us(alert: AlertDescription, with_certificate: bool) -> bool {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired | A::NoCertificate => true,
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => with_certificate,
        _ => false,
    }
}

/// The first error of a type in the chain of causes. This looks inside of `io::Error` too, whose
/// `source` skips the error that it carries.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
