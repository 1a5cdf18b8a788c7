//! Sends any bytes as the message of every method, in a gRPC frame that is right or wrong. The
//! answer must be a gRPC status, and with OK the message that the method promises.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokend::proto;
use tokend_fuzz::daemon::{DAEMON, Manner};
use tokend_fuzz::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, Stream, frame, literal, message,
    streams,
};
use tokend_fuzz::script::Script;
use tokend_fuzz::secrets::assert_not_forbidden;
use tonic_health::pb::HealthCheckResponse;
use tonic_reflection::pb::v1::ServerReflectionResponse;

struct Method {
    path: &'static str,
    /// The method answers with one message and then ends.
    unary: bool,
    /// Whether these bytes are a message that the method answers with.
    answers: fn(&[u8]) -> bool,
}

const fn method(path: &'static str, unary: bool, answers: fn(&[u8]) -> bool) -> Method {
    Method {
        path,
        unary,
        answers,
    }
}

fn is<T: Message + Default>(bytes: &[u8]) -> bool {
    T::decode(bytes).is_ok()
}

const METHODS: [Method; 10] = [
    method("/tokend.v1.CredentialService/GetToken", true, |bytes| {
        proto::GetTokenResponse::decode(bytes)
            .is_ok_and(|answer| is::<proto::Credential>(&answer.credential))
    }),
    method(
        "/tokend.v1.CredentialService/WatchToken",
        false,
        is::<proto::WatchTokenResponse>,
    ),
    method(
        "/tokend.v1.CredentialService/ReportRejected",
        true,
        is::<proto::ReportRejectedResponse>,
    ),
    method(
        "/tokend.v1.CredentialService/ListProfiles",
        true,
        is::<proto::ListProfilesResponse>,
    ),
    method(
        "/tokend.v1.AdminService/GetStatus",
        true,
        is::<proto::GetStatusResponse>,
    ),
    method(
        "/tokend.v1.AdminService/Reload",
        true,
        is::<proto::ReloadResponse>,
    ),
    method(
        "/grpc.health.v1.Health/Check",
        true,
        is::<HealthCheckResponse>,
    ),
    method(
        "/grpc.health.v1.Health/Watch",
        false,
        is::<HealthCheckResponse>,
    ),
    method(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        false,
        is::<ServerReflectionResponse>,
    ),
    // The messages of both versions are the same.
    method(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        false,
        is::<ServerReflectionResponse>,
    ),
];

const TIMEOUTS: [&[u8]; 8] = [
    b"",
    b"1S",
    b"0n",
    b"99999999H",
    b"18446744073709551615M",
    b"-1S",
    b"1",
    b"\xff",
];
/// The most calls on one connection. More of them would find too little for the time they take.
const MOST_CALLS: usize = 8;
const ENCODINGS: [&[u8]; 4] = [b"", b"identity", b"gzip", b"nonsense"];

fn call(script: &mut Script<'_>, out: &mut Vec<u8>, stream: u32) -> &'static Method {
    let method = &METHODS[usize::from(script.byte()) % METHODS.len()];
    let mut block = Vec::new();
    let mut field = |name: &[u8], value: &[u8]| {
        if !value.is_empty() {
            literal(&mut block, false, name, value);
        }
    };
    field(b":method", b"POST");
    field(b":scheme", b"http");
    field(b":path", method.path.as_bytes());
    field(b":authority", b"tokend");
    field(b"content-type", b"application/grpc");
    field(b"te", b"trailers");
    field(b"grpc-timeout", script.choice(&TIMEOUTS));
    field(b"grpc-encoding", script.choice(&ENCODINGS));
    frame(out, HEADERS, END_HEADERS, stream, &block);

    let mut payload = Vec::new();
    let framing = script.byte();
    let text = script.long_text();
    match framing % 8 {
        // A correct message, once and twice.
        0..4 => message(&mut payload, 0, text),
        4 => {
            message(&mut payload, 0, text);
            message(&mut payload, 0, text);
        }
        // A message that claims to be compressed.
        5 => message(&mut payload, 1, text),
        // A message with a wrong length.
        6 => {
            payload.push(0);
            payload.extend_from_slice(&script.number().to_be_bytes());
            payload.extend_from_slice(text);
        }
        _ => payload.extend_from_slice(text),
    }
    // Larger frames are not allowed, and DATA may be cut anywhere.
    let size = [16_384, 1_000, 7][usize::from(framing >> 4) % 3];
    for part in payload.chunks(size) {
        frame(out, DATA, 0, stream, part);
    }
    frame(out, DATA, END_STREAM, stream, b"");
    method
}

fn check(method: &Method, stream: &Stream, settled: bool) {
    stream.check();
    if stream.sections.is_empty() {
        assert!(
            !settled || !method.unary || stream.reset,
            "no answer from {}",
            method.path
        );
        return;
    }
    assert!(stream.is_grpc(), "{stream:?}");
    let status = stream.grpc_status();
    if settled && method.unary {
        assert!(
            status.is_some(),
            "{} has no status: {stream:?}",
            method.path
        );
    }
    let mut data = stream.data.as_slice();
    let mut messages = 0;
    while let Some((&[compressed, a, b, c, d], rest)) = data.split_first_chunk::<5>() {
        assert_eq!(compressed, 0, "nobody asked for that");
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some((message, rest)) = rest.split_at_checked(length) else {
            break;
        };
        assert!(
            (method.answers)(message),
            "{}: {}",
            method.path,
            message.escape_ascii()
        );
        messages += 1;
        data = rest;
    }
    if method.unary
        && let Some(status) = status
    {
        assert_eq!(messages, usize::from(status == 0), "{stream:?}");
    }
}

// The input is a manner and then calls, one after the other.
fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let manner = Manner::of(&mut script);
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, b"");
    let (mut calls, mut stream) = (Vec::new(), 1);
    while !script.is_over() && calls.len() < MOST_CALLS {
        calls.push((stream, call(&mut script, &mut out, stream)));
        stream += 2;
    }
    let heard = DAEMON.hears(manner, &out);
    assert_not_forbidden(&heard, "what was heard");
    let streams = streams(&heard);
    // Beyond this number, bytes wait for a window.
    let settled = manner.patient && !manner.deaf && out.len() < 60_000;
    for (number, method) in calls {
        if let Some(stream) = streams.get(&number) {
            check(method, stream, settled);
        } else {
            assert!(!settled || !method.unary, "no answer from {}", method.path);
        }
    }
});
