//! Checks the bytes of answers with every field and with none. tests/it/answers.rs has those of a
//! running daemon.

use super::*;
use crate::core::time::WallTime;
use crate::proto::{ExplainResponse, ExplainedCaller, ExplainedRule};
use crate::registry::reload::ReloadOutcome;

const MOMENT: WallTime = WallTime(Duration::from_millis(1_700_000_000_007));

fn text(message: &impl serde::Serialize) -> String {
    proto::json::value(message).to_string()
}

fn kept() -> (ProfileName, Reloaded) {
    let kept = Reloaded {
        outcome: ReloadOutcome::Kept,
        why: "why".into(),
        since: MOMENT,
        nothing_left: false,
    };
    (ProfileName::parse("p").expect("a name"), kept)
}

fn full() -> ProfileStatus {
    let (name, kept) = kept();
    ProfileStatus {
        name: "p".into(),
        method: "oauth2".into(),
        state: "stale".into(),
        available: true,
        target: "https://api".into(),
        issuer: "https://idp".into(),
        expires_in: Some(wire::duration(Duration::from_micros(3_599_250_999))),
        next_attempt_in: Some(wire::duration(Duration::from_secs(2))),
        generation: u64::MAX,
        fingerprint: "f".into(),
        last_error: Some(ProfileError {
            reason: "UPSTREAM_REJECTED".into(),
            message: "m\u{1}é".into(),
            oauth_error: "invalid_client".into(),
            since: Some(wire::timestamp(MOMENT)),
            failures: 2,
        }),
        warnings: vec!["w".into()],
        clock_skew: Some(prost_types::Duration {
            seconds: -45,
            nanos: 0,
        }),
        reload: Some(reloaded(&name, &kept)),
        certificates: vec![ProfileCertificate {
            role: "tls.certificate".into(),
            place: "in_use".into(),
            subject: "CN=\"a\"".into(),
            thumbprint: "x5t".into(),
            not_before: Some(wire::timestamp(WallTime(Duration::ZERO))),
            not_after: Some(wire::timestamp(WallTime(Duration::MAX))),
        }],
    }
}

const RELOAD: &str =
    r#""reload":{"message":"why","outcome":"kept","since":"2023-11-14T22:13:20.007Z"}"#;

const CERTIFICATES: &str = concat!(
    r#""certificates":[{"not_after":"9999-12-31T23:59:59.000Z","#,
    r#""not_before":"1970-01-01T00:00:00.000Z","place":"in_use","role":"tls.certificate","#,
    r#""subject":"CN=\"a\"","thumbprint":"x5t"}]"#,
);

#[test]
fn a_profile_with_everything() {
    let expected = [
        r#"{"available":true,"#,
        CERTIFICATES,
        r#","clock_skew":-45,"expires_in":3599.25,"fingerprint":"f","#,
        r#""generation":18446744073709551615,"issuer":"https://idp","#,
        r#""last_error":{"failures":2,"message":"m\u0001é","oauth_error":"invalid_client","#,
        r#""reason":"UPSTREAM_REJECTED","since":"2023-11-14T22:13:20.007Z"},"#,
        r#""method":"oauth2","name":"p","next_attempt_in":2.0,"#,
        RELOAD,
        r#","state":"stale","target":"https://api","warnings":["w"]}"#,
    ];
    assert_eq!(text(&full()), expected.concat());
}

#[test]
fn a_profile_with_nothing() {
    let profile = ProfileStatus {
        last_error: Some(ProfileError::default()),
        reload: full().reload,
        ..ProfileStatus::default()
    };
    let expected = [
        r#"{"available":false,"certificates":[],"fingerprint":"","generation":0,"issuer":"","#,
        r#""last_error":{"failures":0,"message":"","oauth_error":"","reason":"","since":null},"#,
        r#""method":"","name":"","#,
        RELOAD,
        r#","state":"","target":"","warnings":[]}"#,
    ];
    assert_eq!(text(&profile), expected.concat());
}

#[test]
fn limits() {
    let mut limit = LimitStatus {
        name: "streams".into(),
        limit: "64".into(),
        ..LimitStatus::default()
    };
    assert_eq!(text(&limit), r#"{"limit":"64","name":"streams"}"#);
    (limit.used, limit.refused) = (Some(0), Some(u64::MAX));
    limit.reached_by = vec!["uid 1: once".into()];
    assert_eq!(
        text(&limit),
        concat!(
            r#"{"limit":"64","name":"streams","reached_by":["uid 1: once"],"#,
            r#""refused":18446744073709551615,"used":0}"#,
        )
    );
}

#[test]
fn what_became_of_a_reload() {
    let mut report = ReloadReport {
        generation: 7,
        refused: Vec::new(),
        profiles: Vec::new(),
        settled: true,
    };
    assert_eq!(
        text(&reload(&report)),
        r#"{"complete":true,"config_generation":7,"profiles":[],"refused":[]}"#
    );
    report.refused.push("no".into());
    report.profiles.push(kept());
    assert_eq!(
        text(&reload(&report)),
        concat!(
            r#"{"complete":false,"config_generation":7,"profiles":[{"message":"why","#,
            r#""outcome":"kept","profile":"p","since":"2023-11-14T22:13:20.007Z"}],"#,
            r#""refused":["no"]}"#,
        )
    );
}

#[test]
fn an_explanation() {
    let nothing = ProfileStatus {
        reload: full().reload,
        ..ProfileStatus::default()
    };
    let profile = text(&nothing);
    assert!(profile.ends_with(r#","state":"","target":"","warnings":[]}"#));
    let mut answer = ExplainResponse {
        caller: Some(ExplainedCaller::default()),
        profile: Some(nothing),
        ..ExplainResponse::default()
    };
    assert_eq!(
        text(&answer),
        [
            r#"{"caller":{"gid":0,"groups":[],"uid":0,"unit":""},"decided_by":"","#,
            r#""explanation":[],"permitted":false,"profile":"#,
            &profile,
            r#","rules":[]}"#,
        ]
        .concat()
    );
    answer.permitted = true;
    answer.decided_by = "access[0]".into();
    answer.rules = vec![ExplainedRule {
        rule: "{ user = 7 }".into(),
        holds: false,
        why_not: "the user is 9".into(),
    }];
    answer.caller = Some(ExplainedCaller {
        uid: 9,
        gid: u32::MAX,
        groups: vec![4, 5],
        unit: "a.service".into(),
    });
    answer.explanation = vec!["There is.".into()];
    assert_eq!(
        text(&answer),
        [
            r#"{"caller":{"gid":4294967295,"groups":[4,5],"uid":9,"unit":"a.service"},"#,
            r#""decided_by":"access[0]","explanation":["There is."],"permitted":true,"profile":"#,
            &profile,
            r#","rules":[{"holds":false,"rule":"{ user = 7 }","why_not":"the user is 9"}]}"#,
        ]
        .concat()
    );
}
