//! The client against a daemon that misbehaves.

use std::time::Duration;

use super::fake::{Fake, Reply, TOKEN, json, refusal};
use super::*;

const LONG: Duration = Duration::from_secs(20);

fn client(fake: &Fake) -> Client {
    Client::new(fake.socket().to_owned(), Clock::system())
}

fn query(profile: &str) -> TokenQuery {
    TokenQuery {
        profile: profile.to_owned(),
        ..TokenQuery::default()
    }
}

#[test]
fn the_request_is_one_get_with_everything_encoded() {
    let fake = Fake::new(|_, _| json(200, TOKEN));
    let query = TokenQuery {
        profile: "a/b c?&#é".into(),
        min_ttl: Some(Duration::from_millis(90_500)),
        scopes: vec!["x:read".into(), "y&z=1".into()],
        audience: Some("https://api.example/".into()),
    };
    let credential = client(&fake).token(&query, LONG).unwrap();
    assert_eq!(credential.authorization.expose(), "Bearer tok.en");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        fake.requests(),
        [format!(
            "GET /v1/profiles/a%2Fb%20c%3F%26%23%C3%A9/token?min_ttl=90500ms&scopes=x%3Aread&scopes=y%26z%3D1\
             &audience=https%3A%2F%2Fapi.example%2F HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\
             Accept: application/json\r\nUser-Agent: tokend/{version}\r\n\r\n"
        )]
    );
}

#[test]
fn durations_are_one_number_with_one_unit() {
    assert_eq!(unit_of(Duration::from_secs(3600)), "3600s");
    assert_eq!(unit_of(Duration::from_nanos(1_000_000_001)), "1001ms");
    assert_eq!(unit_of(Duration::ZERO), "0s");
}

#[test]
fn a_connection_that_is_cut_is_tried_once_more_and_only_once() {
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{".to_vec();
    for cut in [Vec::new(), whole] {
        let bytes = cut.clone();
        let fake = Fake::new(move |number, _| match number {
            0 => Reply::Bytes(bytes.clone()),
            _ => json(200, TOKEN),
        });
        assert!(client(&fake).token(&query("p"), LONG).is_ok());
        assert_eq!(fake.requests().len(), 2);

        let fake = Fake::new(move |_, _| Reply::Bytes(cut.clone()));
        let error = client(&fake).token(&query("p"), LONG).unwrap_err();
        assert!(matches!(error, ClientError::Closed(_)), "{error}");
        assert_eq!(fake.requests().len(), 2);
    }
}

#[test]
fn silence_ends_at_the_deadline_wherever_it_begins() {
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{TOKEN}",
        TOKEN.len()
    );
    for length in [0, 10, 30, whole.len() - 1] {
        let begun = whole.as_bytes()[..length].to_vec();
        let fake = Fake::new(move |_, _| Reply::Hang(begun.clone()));
        let clock = Clock::system();
        let before = clock.now().boot;
        let error = client(&fake)
            .token(&query("p"), Duration::from_millis(200))
            .unwrap_err();
        match length {
            // There was not even a sign of life.
            0 => assert!(matches!(error, ClientError::Unreachable { .. }), "{error}"),
            _ => assert!(matches!(error, ClientError::TimedOut(_)), "{error}"),
        }
        let took = clock.now().boot.since(before);
        assert!(
            took >= Duration::from_millis(200) && took < LONG,
            "{took:?}"
        );
    }
}

#[test]
fn the_deadline_covers_the_whole_answer_not_each_read() {
    let clock = Clock::system();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&calls);
    // Each look at the clock costs a second, so that a peer that always has one byte more cannot go
    // on for ever.
    let racing = Clock::given(move || {
        let look = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        clock.now().plus(Duration::from_secs(look))
    });
    let endless = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n{}",
        "x".repeat(3_900_000)
    );
    let fake = Fake::new(move |_, _| Reply::Hang(endless.clone().into_bytes()));
    let client = Client::new(fake.socket().to_owned(), racing);
    let error = client
        .token(&query("p"), Duration::from_secs(30))
        .unwrap_err();
    assert!(matches!(error, ClientError::TimedOut(_)), "{error}");
    assert!(calls.load(std::sync::atomic::Ordering::SeqCst) < 40);
}

#[test]
fn an_answer_that_is_longer_than_a_buffer_is_read_whole() {
    let token = "x".repeat(300_000);
    let body =
        format!(r#"{{"token":"{token}","token_type":"Bearer","authorization":"Bearer {token}"}}"#);
    let fake = Fake::new(move |_, _| json(200, &body));
    let credential = client(&fake).token(&query("p"), LONG).unwrap();
    assert_eq!(credential.token.expose(), token);
}

#[test]
fn refusals_and_strangers_are_told_apart() {
    let fake = Fake::new(|_, _| refusal(404, "NOT_FOUND", "PROFILE_NOT_FOUND", "no such profile"));
    match client(&fake).token(&query("p"), LONG).unwrap_err() {
        ClientError::Refused(refusal) => {
            assert_eq!(refusal.code, "NOT_FOUND");
            assert_eq!(refusal.to_string(), "no such profile (PROFILE_NOT_FOUND)");
        }
        other => panic!("{other}"),
    }
    for reply in [
        (404, "<html>Not Found</html>"),
        (200, "<html>"),
        (204, ""),
        (302, "{}"),
    ] {
        let fake = Fake::new(move |_, _| json(reply.0, reply.1));
        let error = client(&fake).token(&query("p"), LONG).unwrap_err();
        assert!(matches!(error, ClientError::Nonsense { .. }), "{error}");
        assert_eq!(fake.requests().len(), 1, "nonsense is not asked for twice");
    }
}

#[test]
fn status_and_profiles_are_asked_for_and_read() {
    let fake = Fake::new(|_, target| match target {
        "/v1/status" => json(
            200,
            r#"{"version":"1","profiles":[{"name":"a","expires_in":1.5,"later":[]}]}"#,
        ),
        "/v1/status?profile=a%20b" => json(200, r#"{"profiles":[]}"#),
        "/v1/profiles" => json(
            200,
            r#"{"profiles":[{"name":"a","method":"none"},{"name":"b"}]}"#,
        ),
        other => panic!("{other}"),
    });
    let client = client(&fake);
    let status = client.status(None, LONG).unwrap();
    let profile = &status.message.profiles[0];
    assert_eq!(profile.name, "a");
    let expires_in = profile.expires_in.map(|it| (it.seconds, it.nanos));
    assert_eq!(expires_in, Some((1, 500_000_000)));
    assert!(status.json.contains(r#""later":[]"#));
    assert!(
        client
            .status(Some("a b"), LONG)
            .unwrap()
            .message
            .profiles
            .is_empty()
    );
    assert_eq!(client.profiles(LONG).unwrap(), ["a", "b"]);
}

/// Broken by a field that is required without need, or that is optional although nothing makes
/// sense without it.
#[test]
fn a_daemon_of_another_version_may_leave_out_details_and_nothing_else() {
    let ask = |body: &'static str| {
        let fake = Fake::new(move |_, _| json(200, body));
        let client = client(&fake);
        [
            client.status(None, LONG).err(),
            client.explain("p", None, None, LONG).err(),
            client.reload(LONG).err(),
        ]
        .map(|error| match error {
            None => true,
            Some(ClientError::Nonsense { .. }) => false,
            Some(other) => panic!("{other}"),
        })
    };
    assert_eq!(ask("{}"), [false; 3]);
    assert_eq!(ask(r#"{"profiles":[{}],"new":1}"#), [true, false, false]);
    let lines = r#"{"complete":true,"profiles":[{"since":null,"last_error":{"since":"?"}}]}"#;
    assert_eq!(ask(lines), [true, false, true]);
    let explained = r#"{"permitted":true,"decided_by":"none","rules":[],"explanation":[],
        "profile":{},"caller":{"uid":1,"gid":2,"groups":[],"unit":""}}"#;
    assert_eq!(ask(explained), [false, true, false]);
    assert_eq!(
        ask(r#"{"permitted":true,"decided_by":"none","rules":[],"explanation":[],"profile":{}}"#),
        [false; 3]
    );
}
