//! The forms that a secret has on its way, and in which it could appear elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The least length of a form. A shorter one could belong to any text.
const SHORTEST: usize = 8;

/// The text itself and its common encodings, alone or as a part of a longer text.
pub fn forms(text: &str) -> BTreeSet<String> {
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let json = serde_json::Value::from(text).to_string();
    let hex = text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("in memory");
        hex
    });
    let mut forms = BTreeSet::from([
        form.replace('+', "%20"),
        form,
        json[1..json.len() - 1].to_owned(),
        text.escape_debug().to_string(),
        hex.to_uppercase(),
        hex,
    ]);
    // In base64, a text before the secret such as `user:` shifts it by zero, one or two bytes.
    // Characters that the secret shares with its neighbours are left out.
    for before in 0..3 {
        let bytes = [&[0; 2][..before], text.as_bytes()].concat();
        let whole = bytes.len() * 8 / 6;
        for encoded in [
            STANDARD_NO_PAD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            forms.insert(encoded[[0, 2, 3][before]..whole].to_owned());
        }
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms.insert(text.to_owned());
    forms
}
