//! Everything that is wrong: answers that hold secrets, files and definitions that cannot be used.

use std::fs;

use tokend_issuer::faults::Fault;

use super::paths::secret_in_url;
use super::secret;
use crate::harness::Place;

/// The target of a redirect. The daemon never connects to it.
const ELSEWHERE: &str = "127.0.0.1:9";

fn status(status: u16, kind: &str, body: String) -> Fault {
    Fault::Status {
        status,
        body,
        headers: vec![
            ("Content-Type".into(), kind.into()),
            (
                "WWW-Authenticate".into(),
                format!("Bearer error=\"{}\"", secret("challenge")),
            ),
            ("Retry-After".into(), secret("after")),
            ("Set-Cookie".into(), secret("cookie")),
        ],
    }
}

/// An OAuth error with this code.
fn json(code: &str) -> String {
    serde_json::json!({
        "error": code, "error_description": format!("AADSTS7000215: {} is wrong", secret("description")),
        "error_uri": format!("https://e/{}", secret("uri")), "trace": secret("trace"), "refresh_token": secret("refresh"),
    })
    .to_string()
}

fn field(name: &str, text: String) -> Fault {
    Fault::field(name, Some(&serde_json::json!(text).to_string()))
}

/// Answers of the token endpoint with secrets in every place that has room for one. The daemon must
/// repeat nothing of them.
pub fn bodies() -> Vec<(&'static str, Fault)> {
    vec![
        (
            "b400",
            status(400, "application/json", json(&secret("code"))),
        ),
        (
            "b400-client",
            status(400, "application/json", json("invalid_client")),
        ),
        (
            "b401",
            status(401, "application/json", json("invalid_client")),
        ),
        (
            "b403",
            status(403, "text/html", format!("<p>{}", secret("html"))),
        ),
        ("b404", status(404, "text/plain", secret("plain"))),
        ("b405", status(405, &secret("kind"), secret("plain"))),
        ("b429", status(429, "application/json", json("slow_down"))),
        (
            "b500",
            status(500, "application/json", json("server_error")),
        ),
        ("b503", status(503, "text/plain", secret("plain"))),
        (
            "b200",
            status(200, "application/json", json("invalid_scope")),
        ),
        (
            "b200-torn",
            status(
                200,
                "application/json",
                format!("{{\"access_token\": \"{}", secret("torn")),
            ),
        ),
        (
            "b200-list",
            status(200, "application/json", format!("[\"{}\"]", secret("list"))),
        ),
        ("b200-kind", status(200, &secret("kind"), secret("plain"))),
        (
            "f-blank",
            Fault::token(Some(&format!("{} x", secret("blank")))),
        ),
        (
            "f-break",
            Fault::token(Some(&format!("{}\r\nX: y", secret("break")))),
        ),
        ("f-type", field("token_type", secret("type"))),
        ("f-expires", field("expires_in", secret("expires"))),
        (
            "f-scope",
            Fault::field("scope", Some(&format!("[\"{}\"]", secret("scope")))),
        ),
        // The client's own secret.
        (
            "f-scopes",
            field("scope", format!("read {}", secret("f-scopes"))),
        ),
        ("f-back", Fault::token(Some(&secret("f-back")))),
        ("t-half", Fault::Truncated),
        ("t-hang", Fault::Hang),
        ("t-close", Fault::CloseConnection),
        (
            "t-elsewhere",
            Fault::Redirect {
                status: 307,
                location: format!("https://{ELSEWHERE}/?code={}", secret("location")),
            },
        ),
    ]
}

/// The words in the answers above.
pub const SAID: [&str; 20] = [
    "challenge",
    "after",
    "cookie",
    "description",
    "uri",
    "trace",
    "refresh",
    "code",
    "html",
    "plain",
    "kind",
    "torn",
    "list",
    "blank",
    "break",
    "type",
    "expires",
    "scope",
    "location",
    "extra",
];

/// Writes the files of [`unusable`].
fn write_unusable(place: &Place) {
    for name in ["other", "line", "bytes", "url", "list", "typo", "number"] {
        place.secrets.add(&secret(name));
    }
    let key = fs::read_to_string(place.path("rsa.key")).expect("there");
    place.write("torn.key", &key[..key.len() / 2]);
    place.write(
        "torn.enc",
        &fs::read_to_string(place.path("sealed.enc")).expect("there")[..600],
    );
    place.write("other.pw", &secret("other"));
    place.write("line.secret", &format!("{}\nmore\n", secret("line")));
    fs::write(
        place.path("bytes.secret"),
        [secret("bytes").as_bytes(), b"\xff"].concat(),
    )
    .expect("written");
    let store = fs::read(place.path("stored.p12")).expect("there");
    fs::write(place.path("torn.p12"), &store[..store.len() / 2]).expect("written");
}

/// Unusable material: files that are torn, swapped or encrypted with another password, and
/// definitions with a secret in the wrong place.
pub fn unusable(place: &Place) -> Vec<(&'static str, String)> {
    write_unusable(place);
    let tls = |keys: &str| {
        format!(
            "method = \"oauth2\"\nidp = \"it\"\nclient_id = \"u\"\nclient_auth = \"tls_client_auth\"\ntls = {{ {keys} }}\n"
        )
    };
    let with =
        |more: &str| format!("method = \"oauth2\"\nidp = \"it\"\nclient_id = \"u\"\n{more}\n");
    vec![
        (
            "u-torn",
            tls("certificate = \"rsa.crt\", key = \"torn.key\""),
        ),
        (
            "u-torn-sealed",
            tls(
                "certificate = \"sealed.crt\", key = \"torn.enc\", key_password = { file = \"sealed.pw\" }",
            ),
        ),
        ("u-pair", tls("certificate = \"ec.crt\", key = \"rsa.key\"")),
        (
            "u-swapped",
            tls("certificate = \"rsa.key\", key = \"rsa.crt\""),
        ),
        (
            "u-secret",
            tls("certificate = \"by-form.secret\", key = \"by-form.secret\""),
        ),
        (
            "u-password",
            tls(
                "certificate = \"sealed.crt\", key = \"sealed.enc\", key_password = { file = \"other.pw\" }",
            ),
        ),
        (
            "u-store",
            tls("keystore = { path = \"stored.p12\", password = { file = \"other.pw\" } }"),
        ),
        (
            "u-torn-store",
            tls("keystore = { path = \"torn.p12\", password = { file = \"stored.pw\" } }"),
        ),
        (
            "u-no-store",
            tls("keystore = { path = \"rsa.key\", password = { file = \"stored.pw\" } }"),
        ),
        ("u-line", with("client_secret = { file = \"line.secret\" }")),
        (
            "u-bytes",
            with("client_secret = { file = \"bytes.secret\" }"),
        ),
        (
            "u-list",
            with(&format!("client_secret = [\"{}\"]", secret("list"))),
        ),
        (
            "u-typo",
            with(&format!("client_sceret = \"{}\"", secret("typo"))),
        ),
        (
            "u-number",
            with(&format!(
                "client_secret = {{ file = [\"{}\"] }}",
                secret("number")
            )),
        ),
        (
            "u-url",
            with(&format!(
                "http = {{ proxy = \"http://u:{}@h\" }}",
                secret_in_url()
            )),
        ),
        (
            "u-key-is-secret",
            with("client_auth = \"private_key_jwt\"\nassertion = { key = \"by-form.secret\" }"),
        ),
    ]
}
