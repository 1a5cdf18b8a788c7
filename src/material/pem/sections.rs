//! Finds lines that look like a section of a PEM file but would be ignored. Parsers skip every line
//! that does not begin a section in exactly their way, so a chain would silently lack a certificate
//! (trap 53).

/// The byte order mark of UTF-8. It is harmless at the start of a file, and an obstacle anywhere
/// else.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The labels of private keys, plain or encrypted.
const KEYS: [&str; 4] = [
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
];

/// The labels that may stand beside keys in a file, and those that OpenSSL and HAProxy put before
/// and after them.
const BESIDE: [&str; 3] = ["CERTIFICATE", "EC PARAMETERS", "DH PARAMETERS"];

/// Longest label that is shown, in bytes. The longest registered one has 26.
const LONGEST_LABEL: usize = 40;

/// The bytes without a byte order mark at the start.
pub(super) fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// Finds the first line that looks like the begin or end of a section but is not taken as one.
/// Returns the message that follows the file's name, or None if every section is taken.
pub(super) fn left_out(pem: &[u8]) -> Option<String> {
    // With or without a byte order mark.
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'-', 0, ..] | [0, b'-', ..] = pem {
        return Some(
            "is UTF-16 text, as Windows writes it: write it anew as UTF-8 or ASCII".into(),
        );
    }
    let text = String::from_utf8_lossy(pem);
    let mut open: Option<(usize, &str)> = None;
    for (index, line) in lines(&text).enumerate() {
        let number = index + 1;
        let Some(rest) = after_marker(line) else {
            continue;
        };
        let begins = exact(line, "-----BEGIN ").filter(|(_, after)| after.trim_end().is_empty());
        let ends = exact(line, "-----END ").filter(|(_, after)| after_marker(after).is_none());
        let cure = match (begins, ends, open) {
            (Some((label, _)), _, None) => match cure(label) {
                None => {
                    open = Some((number, label));
                    continue;
                }
                Some(cure) => cure,
            },
            (_, Some((label, _)), Some((_, begun))) if label == begun => {
                open = None;
                continue;
            }
            (None, None, _) if is_last(line, &text) && !rest.contains("---") => {
                return Some(
                    "is not whole PEM, perhaps written only in part: write it anew".into(),
                );
            }
            (Some(_), _, Some((begun, _))) => {
                return Some(format!(
                    "line {number}: {} stands where the section of line {begun} has not ended: write the file anew, \
                     each section with its END line",
                    shown(rest)
                ));
            }
            (None, None, Some((begun, _))) => {
                return Some(format!(
                    "line {number}: {} is no END line as it has to be, so that the section of line {begun} is not whole \
                     PEM: write the file anew, each section with its END line alone on its line",
                    shown(rest)
                ));
            }
            (_, Some(_), _) => {
                "ends a section that did not begin so: write the BEGIN line and the END line of a section alike"
            }
            (None, None, None) => {
                "would be left out: write it as -----BEGIN LABEL----- or -----END LABEL-----, alone on its line, \
                 without spaces, a byte order mark or anything else before it"
            }
        };
        return Some(format!("line {number}: {} {cure}", shown(rest)));
    }
    None
}

/// The number of private keys, provided no section is ignored.
pub(super) fn keys(pem: &[u8]) -> usize {
    let text = String::from_utf8_lossy(pem);
    lines(&text)
        .filter_map(|line| exact(line, "-----BEGIN "))
        .filter(|(label, _)| KEYS.contains(label))
        .count()
}

/// The lines as editors count them, whichever system's line breaks the file has.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Whether the file ends with this line.
fn is_last(line: &str, text: &str) -> bool {
    line.as_bytes().as_ptr_range().end == text.as_bytes().as_ptr_range().end
}

/// The label, and what follows its dashes.
fn exact<'a>(line: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(start)?.split_once("-----")
}

/// The text from BEGIN or END on, if the line seems to have such a marker: one after dashes of any
/// kind and number, or a misspelt one between dashes.
fn after_marker(line: &str) -> Option<&str> {
    let is_dash = |c: char| {
        matches!(c, '-' | '_') || ('\u{2010}'..='\u{2015}').contains(&c) || c == '\u{2212}'
    };
    let mut dashes = 0;
    for (at, c) in line.char_indices() {
        if is_dash(c) {
            dashes += 1;
            continue;
        }
        if dashes >= 2 {
            let rest = line[at..].trim_start();
            let word = rest
                .split(|c: char| !c.is_ascii_alphabetic())
                .next()
                .unwrap_or_default();
            // In small letters it may be an ordinary remark.
            let upper = rest.to_ascii_uppercase();
            let says = ["CERT", "KEY", "PKCS"]
                .iter()
                .any(|what| upper.contains(what))
                && rest.trim_end().ends_with(is_dash);
            if word.starts_with("BEGIN") || word.starts_with("END") || says {
                return Some(rest);
            }
        }
        dashes = 0;
    }
    None
}

/// The part of the marker that may be shown. Text that is no label may belong to a key.
fn shown(rest: &str) -> String {
    let label = |text: &str| {
        let fits = (1..=LONGEST_LABEL).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b" .#".contains(&byte));
        fits.then(|| text.to_owned())
    };
    let closed = rest.find(|c: char| c == '-' || !c.is_ascii());
    let known = || {
        let body = rest.strip_prefix("BEGIN ").or(rest.strip_prefix("END "))?;
        let known = KEYS.iter().chain(&BESIDE);
        let label = known.copied().find(|known| body.starts_with(known))?;
        Some(format!("{}{label}", &rest[..rest.len() - body.len()]))
    };
    let name = closed.and_then(|at| label(rest[..at].trim_end()));
    match name.or_else(known) {
        Some(name) => format!("-----{name}-----"),
        None => "what looks like the BEGIN or END of a section".into(),
    }
}

/// How to fix a section that is never taken. None for a section that is.
fn cure(label: &str) -> Option<&'static str> {
    if KEYS.contains(&label) || BESIDE.contains(&label) {
        return None;
    }
    Some(match label {
        "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => {
            "would be left out: write it as CERTIFICATE (openssl x509 -in FILE)"
        }
        "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => {
            "would be left out: write its certificates as CERTIFICATE (openssl pkcs7 -in FILE -print_certs)"
        }
        "OPENSSH PRIVATE KEY" | "DSA PRIVATE KEY" => {
            "is a kind of key that is not read: write it as PRIVATE KEY (PKCS#8)"
        }
        _ => {
            "would be left out, since only CERTIFICATE, PRIVATE KEY, RSA PRIVATE KEY, EC PRIVATE KEY and ENCRYPTED PRIVATE \
             KEY are read: correct the label, or take that section out"
        }
    })
}
