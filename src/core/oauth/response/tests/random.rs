//! Random answers of the token endpoint.

use proptest::prelude::*;

use super::*;

/// JSON that is nearly an answer, so that the random bodies get past the parser.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(|text| json!(text)),
        Just(json!("Bearer")),
        Just(json!(jwt(
            &json!({ "exp": u64::MAX, "iat": -1, "cnf": {} })
        ))),
        Just(Value::Null),
    ];
    const NAMES: [&str; 6] = [
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "error",
        "error_description",
    ];
    let object = proptest::collection::vec((proptest::sample::select(&NAMES[..]), scalar), 0..8)
        .prop_map(|fields| {
            let fields: Map<String, Value> = fields
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect();
            Value::Object(fields).to_string().into_bytes()
        });
    prop_oneof![any::<Vec<u8>>(), object]
}

proptest! {
    #[test]
    fn whatever_comes_there_is_no_panic_and_no_bad_token(
        status in prop_oneof![Just(200_u16), any::<u16>()],
        content_type in any::<Option<String>>(),
        content_encoding in any::<Option<String>>(),
        date in proptest::option::of(prop_oneof![Just(DATE.to_owned()), any::<String>(), "[A-Za-z0-9,: -]{0,40}"]),
        retry_after in any::<Option<String>>(),
        location in any::<Option<String>>(),
        body in proptest::option::of(bodies()),
        refuse_bound: bool,
    ) {
        let response = Response {
            status,
            content_type: content_type.as_deref(),
            content_encoding: content_encoding.as_deref(),
            date: date.as_deref(),
            retry_after: retry_after.as_deref(),
            location: location.as_deref(),
            body: body.as_deref(),
        };
        match ask_with(&response, refuse_bound) {
            Ok(issued) => {
                prop_assert_eq!(status, 200);
                prop_assert!(fits_header(issued.token.expose()));
                if let Lifetime::For(life) = issued.lifetime {
                    prop_assert!(!life.is_zero() && life <= Duration::from_secs(365 * 86_400));
                }
            }
            Err(failure) => {
                prop_assert!(!failure.message.chars().any(char::is_control));
                prop_assert!(failure.message.len() < 1000);
            }
        }
    }
}
