//! HTTP/1.1 requests that are nearly right: their lines, paths, queries, headers and bodies. The
//! daemon answers with HTTP that no cache may keep, or closes the connection.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokend_fuzz::daemon::{DAEMON, Manner};
use tokend_fuzz::http1::answers;
use tokend_fuzz::script::Script;
use tokend_fuzz::secrets::assert_not_forbidden;

const METHODS: [&str; 8] = [
    "GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PUT", "get", "PRI",
];
const PATHS: [&str; 16] = [
    "/v1/profiles/fixed/token",
    "/v1/profiles/fetched/token",
    "/v1/profiles/other/token",
    "/v1/profiles/open/token",
    "/v1/profiles/slow/token",
    "/v1/profiles/failing/token",
    "/v1/profiles/rejected/token",
    "/v1/profiles/invalid/token",
    "/v1/profiles/fetched/rejected",
    "/v1/profiles",
    "/v1/status",
    "/v1/reload",
    "/metrics",
    "/readyz",
    "/healthz",
    "http://tokend/v1/profiles/%66ixed/token",
];
const PARAMETERS: [&str; 8] = [
    "min_ttl=1s",
    "min_ttl=",
    "scopes=read",
    "scopes=read%20write",
    "audience=api",
    "profile=other",
    "wait=1s",
    "wait=",
];
const VERSIONS: [&str; 8] = [
    "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "",
];
const HEADERS: [&str; 16] = [
    "Host: tokend",
    "Host: LOCALHOST:80",
    "Host: evil.example",
    "Content-Type: application/json",
    "Content-Type: application/grpc",
    "Content-Type: text/plain",
    "Expect: 100-continue",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Origin: null",
    "Sec-Fetch-Mode: cors",
    "Transfer-Encoding: gzip, chunked",
    "Content-Length: 18446744073709551616",
    "Accept-Encoding: gzip",
    "Range: bytes=0-1",
];
/// The most requests on one connection. More of them would find too little for the time they take.
const MOST_REQUESTS: usize = 8;
/// Bodies of requests. The daemon's fingerprints have 32 digits.
const BODIES: [&str; 4] = [
    "{\"fingerprint\":\"00000000000000000000000000000000\"}",
    "{\"fingerprint\":\"\\u0030\"}",
    "{\"fingerprint\":[[[[[[[[",
    "{}",
];

/// Writes any bytes. Returns false: it is unknown whether they are a sound request.
fn anything(script: &mut Script<'_>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(script.text());
    false
}

/// Writes a request. Returns whether it is sound and ends where it says. The daemon closes the
/// connection after one that does not; answers that a slow reader has not read yet are then cut
/// off.
fn request(script: &mut Script<'_>, out: &mut Vec<u8>) -> bool {
    let mut sound = true;
    match script.byte() {
        byte @ 0..240 => {
            let method = METHODS[usize::from(byte % 8)];
            sound &= !["CONNECT", "PRI"].contains(&method);
            out.extend_from_slice(method.as_bytes());
        }
        _ => sound &= anything(script, out),
    }
    out.push(b' ');
    match script.byte() {
        byte @ 0..160 => out.extend_from_slice(PATHS[usize::from(byte % 16)].as_bytes()),
        160..224 => {
            out.extend_from_slice(b"/v1/profiles/");
            sound &= anything(script, out);
            out.extend_from_slice(script.choice(&[&b"/token"[..], b"/rejected", b""]));
        }
        _ => sound &= anything(script, out),
    }
    let parameters = script.byte() % 8;
    for number in 0..parameters {
        out.push(if number == 0 { b'?' } else { b'&' });
        match script.byte() {
            byte @ 0..192 => out.extend_from_slice(PARAMETERS[usize::from(byte % 8)].as_bytes()),
            _ => sound &= anything(script, out),
        }
    }
    out.push(b' ');
    let version = script.choice(&VERSIONS);
    sound &= ["HTTP/1.1", "HTTP/1.0"].contains(&version);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\r\n");
    // The daemon requires one header, so it is there most of the time.
    if script.byte() < 240 {
        out.extend_from_slice(b"Host: tokend\r\n");
    }
    for _ in 0..script.byte() % 8 {
        match script.byte() {
            byte @ 0..192 => {
                let header = HEADERS[usize::from(byte % 16)];
                sound &= !header.starts_with("Transfer-") && !header.starts_with("Content-Length");
                out.extend_from_slice(header.as_bytes());
            }
            192..224 => {
                sound = false;
                out.extend_from_slice(script.text());
                out.extend_from_slice(b": ");
                out.extend_from_slice(script.text());
            }
            _ => sound &= anything(script, out),
        }
        out.extend_from_slice(b"\r\n");
    }
    let how = script.byte();
    let body = match script.byte() {
        byte @ 0..128 => BODIES[usize::from(byte % 4)].as_bytes(),
        _ => script.long_text(),
    };
    match how % 8 {
        // No body.
        0..3 => out.extend_from_slice(b"\r\n"),
        // A body as long as its header says.
        3..6 => {
            let length = body.len();
            out.extend_from_slice(
                format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
                    .as_bytes(),
            );
            out.extend_from_slice(body);
        }
        6 => {
            out.extend_from_slice(
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            let size = usize::from(how >> 3) + 1;
            for chunk in body.chunks(size) {
                out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        }
        // A body of another length.
        _ => {
            sound = false;
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", script.byte()).as_bytes());
            out.extend_from_slice(body);
        }
    }
    sound
}

// The input is a manner and then raw bytes, or requests one after the other.
fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let manner = Manner::of(&mut script);
    let mut out = Vec::new();
    let mut sound = true;
    if script.byte() % 4 == 3 {
        sound = false;
        out.extend_from_slice(script.rest());
    }
    for _ in 0..MOST_REQUESTS {
        if !script.is_over() {
            sound &= request(&mut script, &mut out);
        }
    }
    let heard = DAEMON.hears(manner, &out);
    assert_not_forbidden(&heard, "what was heard");
    if out.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        return;
    }
    let answers = answers(&heard);
    for answer in &answers {
        answer.check();
        assert!(
            answer.complete || !manner.patient || manner.deaf || !sound,
            "half an answer: {answer}"
        );
    }
});
