//! Sections that a PEM parser would ignore, and invisible characters in a secret.

use super::*;

/// A certificate damaged in every way that hides it from a parser. Each has the line number that
/// the message gives, with `before` lines in front of it, and what the message shows.
fn spoilt(next: &str, before: usize) -> Vec<(String, usize, &'static str)> {
    let relabelled = |label: &str| next.replace("CERTIFICATE", label);
    let begin = "-----BEGIN CERTIFICATE-----";
    let (line, last) = (before + 1, before + next.lines().count());
    vec![
        (format!("\u{feff}{next}"), line, begin),
        (format!("  {next}"), line, begin),
        (format!("\t{next}"), line, begin),
        (format!("\u{200b}{next}"), line, begin),
        (format!("# {next}"), line, begin),
        (next.replace("-----", "----"), line, begin),
        (next.replace("-----", "—–-"), line, begin),
        (next.replace("-----", "_____"), line, begin),
        (
            next.replacen("BEGIN", "begin", 1),
            line,
            "-----begin CERTIFICATE-----",
        ),
        (
            next.replacen("BEGIN", "BEGN", 1),
            line,
            "-----BEGN CERTIFICATE-----",
        ),
        (next.replacen("-----BEGIN", "----- BEGIN", 1), line, begin),
        (
            next.replacen(begin, "-----BEGIN CERTIFICATE", 1),
            line,
            begin,
        ),
        (
            next.replacen(begin, "", 1),
            last,
            "-----END CERTIFICATE-----",
        ),
        (
            next.replacen("\n-----END", "\n -----END", 1),
            last,
            "-----END CERTIFICATE-----",
        ),
        (
            next.replacen("-----END CERT", "-----END TRUSTED CERT", 1),
            last,
            "-----END TRUSTED CERTIFICATE-----",
        ),
        (next.replace('\n', ""), line, begin),
        (
            relabelled("TRUSTED CERTIFICATE"),
            line,
            "-----BEGIN TRUSTED CERTIFICATE-----",
        ),
        (
            relabelled("X509 CERTIFICATE"),
            line,
            "-----BEGIN X509 CERTIFICATE-----",
        ),
        (relabelled("PKCS7"), line, "-----BEGIN PKCS7-----"),
        (relabelled("X509 CRL"), line, "-----BEGIN X509 CRL-----"),
        (relabelled("CERTIFCATE"), line, "-----BEGIN CERTIFCATE-----"),
        (
            relabelled("certificate"),
            line,
            "-----BEGIN certificate-----",
        ),
    ]
}

/// Trap 53.
#[test]
fn a_section_that_would_be_left_out_is_named_with_line_and_label() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let certificate = folder.certificate("cert.pem", &key, 2020, 2030);
    let good = fs::read_to_string(&certificate)
        .unwrap()
        .replace("\r\n", "\n");
    let other = folder.certificate("other.pem", &KeyPair::generate().unwrap(), 2020, 2030);
    let next = fs::read_to_string(other).unwrap().replace("\r\n", "\n");
    let key = key.serialize_pem().replace("\r\n", "\n");
    let at = |text: &str| text.lines().count();
    for (after, line, label) in spoilt(&next, at(&good)) {
        for (place, text) in [
            (line, format!("{good}{after}")),
            (line, format!("{good}{after}{key}")),
        ] {
            for text in [
                text.clone(),
                text.replace('\n', "\r\n"),
                text.replace('\n', "\r"),
            ] {
                let path = folder.write("both.pem", &text);
                for source in [
                    (
                        pair(&path, &folder.write("key.pem", &key)),
                        TrustSource::System,
                    ),
                    (None, TrustSource::Pem(path.clone())),
                ] {
                    let message = only(of(&oauth2(ClientAuth::None, source.0, source.1)));
                    let expected = format!("both.pem line {place}: {label} ");
                    assert!(message.contains(&expected), "{expected}: {message}");
                }
                let in_key = folder.write("key.pem", &text);
                let message = only(of(&oauth2(
                    ClientAuth::None,
                    pair(&certificate, &in_key),
                    TrustSource::System,
                )));
                let expected = format!("key.pem line {place}: {label} ");
                assert!(message.contains(&expected), "{expected}: {message}");
            }
        }
    }
}

/// Trap 53.
#[test]
fn trap_53_a_section_that_is_glued_to_the_end_line_is_named() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let certificate = folder.certificate("cert.pem", &key, 2020, 2030);
    let good = fs::read_to_string(&certificate).unwrap();
    let key = key.serialize_pem();
    let at = |text: &str| text.lines().count();
    let glued = format!("{}{good}", good.trim_end());
    let message = only(of(&oauth2(
        ClientAuth::None,
        None,
        TrustSource::Pem(folder.write("ca.pem", glued)),
    )));
    assert!(
        message.contains(&format!("ca.pem line {}: ", at(&good))),
        "{message}"
    );
    let glued = format!("{}{key}", good.trim_end());
    let path = folder.write("key.pem", glued);
    let message = only(of(&oauth2(
        ClientAuth::None,
        pair(&certificate, &path),
        TrustSource::System,
    )));
    assert!(
        message.contains(&format!("key.pem line {}: ", at(&good))),
        "{message}"
    );
}

#[test]
fn a_byte_order_mark_and_remarks_are_no_obstacle_and_a_line_of_a_key_is_never_shown() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let certificate = folder.certificate("cert.pem", &key, 2020, 2030);
    let good = fs::read_to_string(&certificate).unwrap();
    let key = key.serialize_pem();
    let with = |certificate: String, key: String| {
        let (certificate, key) = (
            folder.write("c.pem", certificate),
            folder.write("k.pem", key),
        );
        of(&oauth2(
            ClientAuth::Tls,
            pair(&certificate, &key),
            TrustSource::Pem(certificate),
        ))
    };
    let remark =
        "Bag Attributes\nsubject=CN = front-end service\n# ---- begin of the chain ----\n\n";
    for before in [
        "\u{feff}",
        remark,
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
    ] {
        let read = with(format!("{before}{good}"), format!("{before}{key}"));
        assert!(read.is_ok(), "{before}: {read:?}");
    }
    assert!(with(format!("{key}{good}"), format!("{good}{key}")).is_ok());
    let secret = key.lines().nth(1).unwrap();
    let one_line = key.replace(['\r', '\n'], "");
    for bad in [
        one_line.clone(),
        one_line.replace("KEY-----", "KEY"),
        one_line.replace("PRIVATE KEY-----", ""),
        key.replacen("-----\n", "\n", 1),
    ] {
        let message = with(good.clone(), bad + "\n").unwrap_err().join("\n");
        assert!(message.contains("k.pem line 1: "), "{message}");
        assert!(!message.contains(&secret[..12]), "{message}");
    }
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        for mark in ["\u{feff}", ""] {
            let wide = format!("{mark}{good}");
            let wide: Vec<u8> = wide.encode_utf16().flat_map(order).collect();
            let ca = TrustSource::Pem(folder.write("wide.pem", wide));
            let message = only(of(&oauth2(ClientAuth::None, None, ca)));
            assert!(message.contains("is UTF-16 text"), "{message}");
        }
    }
    let other = KeyPair::generate().unwrap().serialize_pem();
    let message = with(good, format!("{key}{other}")).unwrap_err().join("\n");
    assert!(message.contains("more than one private key"), "{message}");
}

#[test]
fn what_nobody_sees_in_a_secret_is_told() {
    let folder = Folder::new();
    for (content, expected) in [
        (
            "\u{feff}MarkerSecret-0123456789",
            "begins with a byte order mark",
        ),
        (
            "MarkerSecret-\u{feff}0123456789",
            "invisible character (U+FEFF)",
        ),
        (
            "MarkerSecret-\u{200b}0123456789",
            "invisible character (U+200B)",
        ),
        (
            "MarkerSecret-0123456789\u{a0}",
            "invisible character (U+00A0)",
        ),
        (
            "MarkerSecret-0123456789\u{202c}",
            "invisible character (U+202C)",
        ),
        ("MarkerSecret-0123456789 ", "ends with a space"),
        (" MarkerSecret-0123456789\n", "begins or ends with a space"),
    ] {
        let path = folder.write("secret", content);
        let source = SecretRef::File(path.clone());
        let asked = oauth2(ClientAuth::SecretPost(source), None, TrustSource::System);
        let warnings = texts(&of(&asked).unwrap().warnings);
        assert_eq!(warnings.len(), 1, "{content:?}: {warnings:?}");
        let start = format!("client_secret: {} ", path.display());
        assert!(warnings[0].starts_with(&start), "{warnings:?}");
        assert!(warnings[0].contains(expected), "{warnings:?}");
        assert!(!warnings[0].contains("Marker"), "{warnings:?}");
    }
    let seen = SecretRef::File(folder.write("secret", "MarkerSecret-\u{f6}0123456789"));
    let asked = oauth2(ClientAuth::SecretPost(seen), None, TrustSource::System);
    assert!(of(&asked).unwrap().warnings.is_empty());
    let message = only(token(folder.write("token", "MarkerSecret-0123456789\0")));
    assert!(message.contains("(U+0000)"), "{message}");
    let method = Method::Basic {
        username: "u".into(),
        password: SecretRef::Literal(Secret::new("pass w\u{f6}rd".into())),
    };
    assert!(of(&profile(method)).unwrap().warnings.is_empty());
}

/// A problem of this process alone differs from one that everybody has: doctor relies on that.
#[test]
fn a_problem_has_its_key_and_says_for_whom_it_holds() {
    use crate::core::diagnostic::Scope;
    let folder = Folder::new();
    let link = folder.0.path().join("link");
    std::os::unix::fs::symlink(folder.write("token", "secret"), &link).unwrap();
    let mut cases = vec![
        (SecretRef::File("/nonexistent".into()), Scope::Machine),
        (SecretRef::Credential("it".into()), Scope::Environment),
        (
            SecretRef::Env("TOKEND_IS_NOT_SET".into()),
            Scope::Environment,
        ),
    ];
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(&link, Some(4711), None).unwrap();
        cases.push((SecretRef::File(link), Scope::User));
    }
    for (token, scope) in cases {
        let asked = profile(Method::Static { token });
        let problems = read(&asked, &Surroundings::default(), NOW).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(
            (problems[0].key.as_str(), problems[0].scope),
            ("token", scope)
        );
        assert!(
            problems[0].to_string().starts_with("token: "),
            "{problems:?}"
        );
    }
}
