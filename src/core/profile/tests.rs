//! What stays on this machine.

use super::*;

#[test]
fn loopback_is_what_cannot_leave_the_machine() {
    for (text, expected) in [
        ("http://127.0.0.1:8080", true),
        ("http://127.255.0.9/", true),
        ("http://[::1]:1/", true),
        ("http://LOCALHOST/x", true),
        ("http://localhost.example/", false),
        ("http://128.0.0.1/", false),
        ("http://0.0.0.0/", false),
        ("http://127.0.0.1.example/", false),
    ] {
        let url = url::Url::parse(text).expect("a URL");
        assert_eq!(is_loopback(&url), expected, "{text}");
    }
}
