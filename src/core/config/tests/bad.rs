//! Wrong inputs, each with its message and place.

use super::*;

/// The configuration, the line and column of its one error, and parts of message and help.
#[rustfmt::skip]
const ONE_ERROR: &[(&str, u32, u32, &str)] = &[
    // the file as a whole
    ("[server\n", 1, 8, "not TOML: unclosed table, expected `]`"),
    ("x = 1\n", 1, 1, "unknown key `x`"),
    ("[servr]\n", 1, 2, "did you mean [server]?"),
    ("server = 1\n", 1, 1, "`server` must be a table"),
    ("profiles = []\n", 1, 1, "`profiles` must be a table"),
    // server, audit
    ("[server]\nsocket = 5\n", 2, 10, "expected a path as a string, found an integer"),
    ("[server]\nsocket = \"\"\n", 2, 10, "must not be empty"),
    ("[server]\nsocket_mode = 660\n", 2, 15, "such as \"0660\", found an integer"),
    ("[server]\nsocket_mode = \"0999\"\n", 2, 15, "three or four octal digits"),
    ("[server]\nsocket_mode = \"4755\"\n", 2, 15, "three or four octal digits"),
    ("[server]\nsocket_mode = \"+66\"\n", 2, 15, "three or four octal digits"),
    ("[server]\nmetrics_listen = \"localhost\"\n", 2, 18, "not an IP address with a port"),
    ("[server]\nadmins = [{ }]\n", 2, 11, "without a key"),
    ("[server]\nadmins = [\"ops\"]\n", 2, 11, "an access rule is a table, found string"),
    ("[server]\nadmins = { user = \"ops\" }\n", 2, 10, "put it into brackets"),
    ("[server]\nadmins = [{ usr = \"ops\" }]\n", 2, 13, "did you mean `user`?"),
    ("[server]\nadmins = [{ user = \"\" }]\n", 2, 20, "must not be empty"),
    ("[server]\nadmins = [{ user = 4294967295 }]\n", 2, 20, "between 0 and 4294967294"),
    ("[server]\nadmins = [{ user = \"4294967295\" }]\n", 2, 20, "between 0 and 4294967294"),
    ("[server]\nadmins = [{ user = -1 }]\n", 2, 20, "between 0 and 4294967294"),
    ("[server]\nadmins = [{ unit = 5 }]\n", 2, 20, "expected a string, found an integer"),
    ("[server]\nadmins = [{ unit = \"a b\" }]\n", 2, 20, "name of a systemd unit"),
    ("[server.limits]\nconnections = 0\n", 2, 15, "between 1 and 1000000"),
    ("[server.limits]\nconnections = 99999999999999999999\n", 2, 15, "between 1 and 1000000"),
    ("[server.limits]\nidle_timeout = 600\n", 2, 16, "idle_timeout = \"600s\""),
    ("[server.limits]\nidle_timeout = \"600\"\n", 2, 16, "is not a duration"),
    ("[server.limits]\nidle_timeout = \"10y\"\n", 2, 16, "between 1s and 7days"),
    ("[audit]\nsink = \"syslog\"\n", 2, 8, "one of journald, file"),
    ("[audit]\nsink = \"file\"\n", 2, 8, "needs a `path`"),
    ("[audit]\npath = \"a\"\n", 2, 8, "belongs to `sink = \"file\"`"),
    // idp
    ("[idp.a]\nissuer = \"https://a.example\"\ntoken_url = \"https://a.example/t\"\n", 3, 1, "exclude one another"),
    ("[idp.a]\nmax_in_flight = 0\n", 2, 17, "between 1 and 1000"),
    ("[idp.a]\nclient_id = \"x\"\n", 2, 1, "it is a key of `profiles.NAME`"),
    ("[idp.a]\nhttp = { proxy = \"socks5://p:1\" }\n", 2, 18, "https:// or http://"),
    ("[idp.a]\ntls = { ca = \"a\", truststore = { path = \"b\" } }\n", 2, 19, "exclude one another"),
    ("[idp.a]\ntls = { truststore = { } }\n", 2, 9, "`path` is missing"),
    ("idp.a = 5\n", 1, 5, "must be a table"),
    // profiles
    ("[profiles.\"a b\"]\nmethod = \"none\"\n", 1, 11, "cannot be the name of a profile"),
    ("profiles.a = 5\n", 1, 10, "must be a table"),
    ("[profiles.a]\n", 1, 11, "one of none, basic, static, oauth2, exec"),
    ("[profiles.a]\nmethod = \"oauth\"\n", 2, 10, "did you mean \"oauth2\"?"),
    ("[profiles.a]\nmethod = \"exec\"\n", 1, 11, "`command` is missing"),
    ("[profiles.a]\nmethod = \"exec\"\ncommand = []\n", 3, 11, "must not be empty"),
    ("[profiles.a]\nmethod = \"exec\"\ncommand = \"/x\"\n", 3, 11, "put it into brackets"),
    ("[profiles.a]\nmethod = \"exec\"\ncommand = [\"x\"]\n", 3, 12, "absolute path of a program"),
    ("[profiles.a]\nmethod = \"exec\"\ncommand = [\"/x\", \"a\\u0000\"]\n", 3, 18, "NUL"),
    ("[profiles.a]\nmethod = \"exec\"\ncommand = [\"/x\"]\nenv = { \"A=B\" = \"c\" }\n", 4, 9, "name of an environment variable"),
    ("[profiles.a]\nmethod = \"exec\"\ncommand = [\"/x\"]\nformat = \"aws\"\n", 4, 10, "one of auto, tokend, google, k8s, token"),
    ("[profiles.a]\nmethod = \"exec\"\ncommand = [\"/x\"]\ntimeout = \"0s\"\n", 4, 11, "between 100ms and 10m"),
    ("[profiles.a]\nmethod = \"none\"\ncommand = [\"/x\"]\n", 3, 1, "belongs to method = \"exec\""),
    ("[profiles.a]\nmethod = \"plugin\"\nsocket = \"x\"\n", 2, 10, "not supported by this version"),
    ("[profiles.a]\nmethod = \"none\"\nusername = \"x\"\n", 3, 1, "belongs to method = \"basic\""),
    ("[profiles.a]\nmethod = \"none\"\ntarget = \"https://api.example\"\n", 3, 10, "allow_remote_without_auth = true"),
    ("[profiles.a]\nmethod = \"none\"\ntarget = \"localhost:8080\"\n", 3, 10, "https:// or http://"),
    ("[profiles.a]\nmethod = \"none\"\ntarget = \"api.example/v2\"\n", 3, 10, "begins with https://"),
    ("[profiles.a]\nmethod = \"basic\"\npassword = { file = \"x\" }\n", 1, 11, "`username` is missing"),
    ("[profiles.a]\nmethod = \"basic\"\nusername = \"a:b\"\npassword = { file = \"x\" }\n", 3, 12, "must not have a colon"),
    ("[profiles.a]\nmethod = \"static\"\ntoken = { }\n", 3, 9, "exactly one of file, credential and env"),
    ("[profiles.a]\nmethod = \"static\"\ntoken = { file = \"a\", env = \"B\" }\n", 3, 9, "exactly one of file, credential and env"),
    ("[profiles.a]\nmethod = \"static\"\ntoken = { credential = \"a/b\" }\n", 3, 24, "not a path"),
    ("[profiles.a]\nmethod = \"static\"\ntoken = { fil = \"a\" }\n", 3, 11, "did you mean `file`?"),
    ("[profiles.a]\nmethod = \"static\"\ntoken = \"\"\n", 3, 9, "must not be empty"),
    ("[profiles.a]\nmethod = \"static\"\ntoken = 7\n", 3, 9, "found an integer"),
    ("[profiles.a]\nmethod = \"none\"\naccess = \"worker\"\n", 3, 10, "put it into brackets"),
    ("[profiles.a]\nmethod = \"none\"\nrefresh = { at = 0.99 }\n", 3, 18, "between 0.1 and 0.95"),
    ("[profiles.a]\nmethod = \"none\"\nrefresh = { at = nan }\n", 3, 18, "between 0.1 and 0.95"),
    ("[profiles.a]\nmethod = \"none\"\nrefresh = { margin = \"6m\" }\n", 3, 22, "between 0s and 5m"),
    ("[profiles.a]\nmethod = \"none\"\nrefresh = { min_interval = \"99ms\" }\n", 3, 28, "between 100ms and 1h"),
    ("[profiles.a]\nmethod = \"none\"\nrefresh = { eager = \"yes\" }\n", 3, 21, "expected true or false, found a string"),
    ("[profiles.ä]\nmethod = \"none\"\n", 1, 11, "not TOML"),
    ("[profiles.\"ä\"]\nmethod = \"none\"\n", 1, 11, "cannot be the name"),
];

/// The same for what comes after `[profiles.p]`, method, issuer and client_id: the lines begin at
/// 5.
#[rustfmt::skip]
const ONE_OAUTH2_ERROR: &[(&str, u32, u32, &str)] = &[
    ("", 1, 11, "\"none\" for a public client"),
    ("client_secret = { file = \"s\" }\nclient_auth = \"none\"", 5, 1, "`client_secret` is not used by client_auth = \"none\""),
    ("client_auth = \"client_secret_basic\"", 5, 15, "needs a `client_secret`"),
    ("client_auth = \"tls_client_auth\"", 5, 15, "needs a client certificate"),
    ("client_auth = \"private_key_jwt\"", 1, 11, "needs a key to sign with"),
    ("client_auth = \"private_key_jwt\"\nassertion = { key = \"a\", file = \"b\" }", 6, 33, "exclude one another"),
    ("client_auth = \"private_key_jwt\"\nassertion = { file = \"b\", kid = \"k\" }", 6, 27, "no effect with `assertion.file`"),
    ("client_auth = \"private_key_jwt\"\nassertion = { key = \"b\", x5t = true }", 6, 32, "needs the certificate"),
    ("client_auth = \"private_key_jwt\"\nassertion = { key = \"b\", algorithm = \"HS256\" }", 6, 38, "a private key cannot sign with HS256"),
    ("client_auth = \"client_secret_jwt\"\nclient_secret = { file = \"s\" }\nassertion = { algorithm = \"RS256\" }", 7, 27, "a client secret cannot sign with RS256"),
    ("client_auth = \"client_secret_jwt\"\nclient_secret = { file = \"s\" }\nassertion = { key = \"k\" }", 7, 15, "not used by client_auth = \"client_secret_jwt\""),
    ("client_auth = \"none\"\nassertion = { key = \"k\" }", 6, 1, "not used by client_auth = \"none\""),
    ("client_auth = \"none\"\ntls = { certificate = \"c\" }", 6, 9, "`tls.certificate` without `tls.key`"),
    ("client_auth = \"none\"\ntls = { key = \"c\" }", 6, 9, "`tls.key` without `tls.certificate`"),
    ("client_auth = \"none\"\ntls = { keystore = { path = \"c\", alias = \"\" } }", 6, 42, "must not be empty"),
    ("client_auth = \"none\"\nscopes = [\"a b\"]", 6, 11, "one list item for each scope: [\"a\", \"b\"]"),
    ("client_auth = \"none\"\nscopes = \"a\"", 6, 10, "put it into brackets"),
    ("client_auth = \"none\"\nscopes = [\"a\\\\\"]", 6, 11, "RFC 6749"),
    ("client_auth = \"none\"\nscopes = [1]", 6, 11, "expected strings in the list, found integer"),
    ("client_auth = \"none\"\nresource = [\"x\"]", 6, 13, "RFC 8707"),
    ("client_auth = \"none\"\nresource = [\"https://x/#a\"]", 6, 13, "RFC 8707"),
    ("client_auth = \"none\"\nextra = { scope = \"x\" }", 6, 11, "use `scopes`"),
    ("client_auth = \"none\"\nextra = { x = 1 }", 6, 15, "expected a string, found integer"),
    ("client_auth = \"none\"\nidp = \"corp\"", 6, 7, "there is no [idp.corp]"),
    ("client_auth = \"none\"\ntoken_url = \"https://x/\"", 6, 1, "exclude one another"),
    ("client_auth = \"none\"\ngrant = \"refresh_token\"", 6, 9, "not supported by this version"),
    ("client_auth = \"none\"\ngrant = \"token_exchange\"", 6, 9, "not supported by this version"),
    ("client_auth = \"none\"\ngrant = \"jwt_bearer\"", 6, 9, "not supported by this version"),
    ("client_auth = \"none\"\ntimeout = \"3s\"", 6, 1, "it is a key of `http`"),
    ("client_auth = \"none\"\nbound_tokens = \"drop\"", 6, 16, "one of serve, refuse"),
    ("client_auth = \"none\"\npreset = \"camunda\"", 6, 10, "one of camunda-saas"),
];

#[track_caller]
fn assert_one(text: &str, line: u32, column: u32, part: &str) {
    let outcome = one(text);
    let errors = errors(&outcome);
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    let said = format!("{} / {}", errors[0].message, errors[0].help);
    assert!(said.contains(part), "{text}\n{said}\nlacks {part}");
    assert_eq!(
        (errors[0].line, errors[0].column),
        (line, column),
        "{text}\n{said}"
    );
}

#[test]
fn each_mistake_is_told_once_and_at_its_place() {
    for (text, line, column, part) in ONE_ERROR {
        assert_one(text, *line, *column, part);
    }
}

#[test]
fn each_mistake_of_an_oauth2_profile_is_told_once_and_at_its_place() {
    for (lines, line, column, part) in ONE_OAUTH2_ERROR {
        assert_one(&oauth2_with(lines), *line, *column, part);
    }
}

#[test]
fn urls_of_the_identity_provider() {
    for (line, part) in [
        ("issuer = \"http://idp.example\"", "`issuer` is http://"),
        (
            "token_url = \"http://10.0.0.1/t\"",
            "`token_url` is http://",
        ),
        (
            "issuer = \"https://u:hunter2@idp.example\"",
            "must not have a user or password",
        ),
        (
            "issuer = \"https://idp.example/#x\"",
            "must not have a fragment",
        ),
        (
            "issuer = \"https://idp.example/?x=1\"",
            "must not have a query",
        ),
        ("issuer = \"idp.example\"", "begins with https://"),
        ("issuer = \"ftp://idp.example\"", "https:// or http://"),
        ("", "neither `issuer` nor `token_url`"),
        (
            "token_url = \"http://localhost/t\"\nclient_auth = \"tls_client_auth\"\ntls = { certificate = \"c\", key = \"k\" }",
            "needs https://",
        ),
    ] {
        let auth = if line.contains("client_auth") {
            ""
        } else {
            "client_auth = \"none\""
        };
        let text =
            format!("[profiles.p]\nmethod = \"oauth2\"\nclient_id = \"c\"\n{line}\n{auth}\n");
        let outcome = one(&text);
        let errors = errors(&outcome);
        assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
        let said = format!("{} / {}", errors[0].message, errors[0].help);
        assert!(said.contains(part), "{text}\n{said}\nlacks {part}");
        assert!(!errors[0].to_string().contains("hunter2"), "{}", errors[0]);
    }
}

#[test]
fn plain_http_beyond_this_machine_only_when_somebody_says_so() {
    let text = |flag: &str| {
        format!(
            "[profiles.p]\nmethod = \"oauth2\"\nclient_id = \"c\"\nclient_auth = \"none\"\nissuer = \"http://idp.example\"\n{flag}"
        )
    };
    assert_eq!(errors(&one(&text(""))).len(), 1);
    let outcome = one(&text("allow_insecure_http = true\n"));
    assert!(oauth2(&outcome, "p").idp.allow_insecure_http);
    assert_eq!(warnings(&outcome).len(), 1);
    assert_eq!(profile(&outcome, "p").warnings.len(), 1);
}

#[test]
fn seven_different_mistakes_are_seven_findings() {
    let outcome = one(concat!(
        "[server]\n",
        "sokcet = \"/run/x\"\n",
        "[profiles.a]\n",
        "method = \"basic\"\n",
        "username = 5\n",
        "[profiles.b]\n",
        "method = \"oauth2\"\n",
        "issuer = \"http://idp.example\"\n",
        "client_id = \"c\"\n",
        "client_auth = \"tls_client_auth\"\n",
        "refresh = { at = 7, margin = 5 }\n",
    ));
    let places: Vec<_> = errors(&outcome)
        .iter()
        .map(|e| (e.line, e.path.clone()))
        .collect();
    let expected = [
        (2, "server.sokcet"),
        (3, "profiles.a.password"),
        (5, "profiles.a.username"),
        (8, "profiles.b.issuer"),
        (10, "profiles.b.client_auth"),
        (11, "profiles.b.refresh.at"),
        (11, "profiles.b.refresh.margin"),
    ]
    .map(|(line, path)| (line, path.to_owned()));
    assert_eq!(places, expected);
}

#[test]
fn a_syntax_error_does_not_hide_the_others() {
    let outcome = one(
        "[server]\nsokcet = 1\nsocket = \n[server.limits]\nconnections = 0\n[profiles.a]\nmethod = \"none\" x\n",
    );
    assert!(outcome.config.is_none());
    let lines: Vec<u32> = errors(&outcome).iter().map(|e| e.line).collect();
    assert_eq!(lines, [2, 3, 5, 7], "{:#?}", outcome.findings);
}

#[test]
fn columns_count_characters_and_windows_line_ends_do_not_matter() {
    let outcome =
        one("[profiles.p]\r\nmethod = \"none\"\r\naccess = [{ user = \"äöü\", usr = 1 }]\r\n");
    let found = errors(&outcome)[0];
    assert_eq!((found.line, found.column), (3, 27));
    assert_eq!(
        found.snippet.as_deref(),
        Some("access = [{ user = \"äöü\", usr = …")
    );
}

/// Trap 24. Broken by a reader that skips unknown keys in any one of the tables.
#[test]
fn trap_24_an_unknown_key_is_an_error_in_every_table() {
    let profile = |more: &str| {
        format!(
            "[profiles.a]\nmethod = \"oauth2\"\ntoken_url = \"https://x/\"\nclient_id = \"a\"\n{more}\n"
        )
    };
    let public = |more: &str| profile(&format!("client_auth = \"none\"\n{more}"));
    for (text, known) in [
        ("sevrer = 1\n".to_owned(), "server"),
        ("[server]\nscoket = \"s\"\n".to_owned(), "socket"),
        (
            "[server.limits]\nconections = 9\n".to_owned(),
            "connections",
        ),
        ("[server]\nadmins = [{ usr = 7 }]\n".to_owned(), "user"),
        ("[audit]\nsnik = \"file\"\n".to_owned(), "sink"),
        (
            "[idp.x]\nissuer = \"https://x/\"\nisuer = 1\n".to_owned(),
            "issuer",
        ),
        (public("acces = []"), "access"),
        (
            public("access = [{ user = 7, untit = \"a.service\" }]"),
            "unit",
        ),
        (public("http = { timeuot = \"1s\" }"), "timeout"),
        (public("tls = { certifcate = \"c\" }"), "certificate"),
        (
            public("tls = { keystore = { path = \"k\", pasword = \"p\" } }"),
            "password",
        ),
        (public("refresh = { eagr = true }"), "eager"),
        (public("request = { scope = [] }"), "scopes"),
        (
            profile(
                "client_auth = \"private_key_jwt\"\nassertion = { key = \"k\", algoritm = \"RS256\" }",
            ),
            "algorithm",
        ),
        (profile("client_secret = { fil = \"s\" }"), "file"),
    ] {
        let outcome = one(&text);
        let said: Vec<String> = errors(&outcome)
            .iter()
            .map(|error| format!("{} / {}", error.message, error.help))
            .collect();
        assert!(
            said.iter()
                .any(|said| said.contains("unknown key") && said.contains(known)),
            "{text}\n{said:?}"
        );
    }
}
