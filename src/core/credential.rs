//! What a provider issues, what callers get, and the fingerprint that names it without revealing
//! it.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;

use super::secret::Secret;
use super::time::{BootTime, Stamp, in_seconds};

/// How the credential goes into an `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// No header at all (method `none`).
    None,
    /// RFC 7617: the token is base64 of `user:password`.
    Basic,
    /// RFC 6750.
    Bearer,
}

impl Scheme {
    /// The word in the header; empty for [`Scheme::None`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::None => "",
            Scheme::Basic => "Basic",
            Scheme::Bearer => "Bearer",
        }
    }
}

/// What a caller asks for beyond the profile's default: the part of the key that tells apart the
/// tokens of one profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// Sorted, without repetition; empty for the profile's own scopes.
    pub scopes: Vec<String>,
    /// None for the profile's own audience.
    pub audience: Option<String>,
}

impl Variant {
    /// Whether this is the profile's own credential.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.scopes.is_empty() && self.audience.is_none()
    }
}

/// A credential fresh from a provider: checked, but not yet published.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The bare token. Empty only for [`Scheme::None`].
    pub token: Secret,
    /// How the token is presented.
    pub scheme: Scheme,
    /// The moment *before* the request was sent. This is the latest moment from which the token's
    /// life can safely be counted.
    pub asked_at: Stamp,
    /// The life of the token, counted from `asked_at`. It is never zero.
    pub lifetime: Lifetime,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// The x5t#S256 of the certificate that the token is bound to (RFC 8705 §3.1).
    pub confirmation: Option<String>,
    /// How far the issuer's clock is ahead of the daemon's, in seconds, if the answer had a `Date`.
    pub clock_skew: Option<i64>,
}

/// The difference between the issuer's clock and the daemon's that is told, in seconds: half of
/// what issuers usually tolerate.
pub const SKEW_WORTH_TELLING: u64 = 30;

/// Tells that the issuer's clock is this many seconds ahead, if that matters.
#[must_use]
pub fn skewed(skew: i64) -> Option<String> {
    let off = skew.unsigned_abs();
    let side = if skew > 0 { "ahead of" } else { "behind" };
    (off >= SKEW_WORTH_TELLING).then(|| {
        format!(
            "the identity provider's clock is {} {side} this machine's: compare both with another \
             one, and correct the wrong one (here `timedatectl set-ntp true`)",
            in_seconds(Duration::from_secs(off))
        )
    })
}

/// How long a credential lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The credential does not expire (Basic, static, none).
    Unlimited,
    /// The issuer did not state a lifetime; the profile's default applies.
    Unknown,
    /// The issuer stated this lifetime.
    For(Duration),
}

/// A credential that is served or was served.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The bare token.
    pub token: Secret,
    /// How the token is presented.
    pub scheme: Scheme,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// The x5t#S256 of the certificate that the token is bound to.
    pub confirmation: Option<String>,
    /// Names the credential where it must not be shown.
    pub fingerprint: Fingerprint,
    /// The number of the credential. It grows with each replacement.
    pub generation: u64,
    /// The start of its life: the moment before it was asked for. Its wall time follows the wall
    /// clock when that is set back.
    pub obtained: Stamp,
    /// From this moment on the credential is not served: it is the end of life less the safety
    /// margin. None: it does not expire.
    pub expires: Option<BootTime>,
    /// When its replacement is due. None: it does not expire.
    pub refresh_at: Option<BootTime>,
    /// How far the issuer's clock was ahead of the daemon's, in seconds, if the answer had a
    /// `Date`.
    pub clock_skew: Option<i64>,
}

/// The wall clock may run ahead of the boot clock by this much. Beyond it, the daemon believes that
/// the boot clock stood still (a paused or restored virtual machine). NTP steps below half a minute
/// are common. No margin covers a pause of half a minute, so a larger value would let expired
/// credentials out.
pub const WALL_DRIFT_TOLERATED: Duration = Duration::from_secs(30);

impl Credential {
    /// The time left on the boot clock. None: the credential does not expire.
    #[must_use]
    pub fn ttl(&self, now: Stamp) -> Option<Duration> {
        self.expires.map(|end| end.since(now.boot))
    }

    /// Whether the credential lives on the boot clock, and for at least `min_ttl`.
    #[must_use]
    pub fn lives(&self, now: Stamp, min_ttl: Duration) -> bool {
        self.ttl(now)
            .is_none_or(|left| !left.is_zero() && left >= min_ttl)
    }

    /// Whether the wall clock has run so far ahead that the boot clock may have stood still since
    /// the credential was obtained.
    #[must_use]
    pub fn doubted(&self, now: Stamp) -> bool {
        self.expires.is_some() && now.wall_ahead_since(self.obtained) > WALL_DRIFT_TOLERATED
    }

    /// Whether the credential lives on the wall clock too, and for at least `min_ttl`.
    #[must_use]
    pub fn lives_by_wall(&self, now: Stamp, min_ttl: Duration) -> bool {
        self.expires.is_none_or(|end| {
            let life = end.since(self.obtained.boot);
            let left = life.saturating_sub(now.wall.since(self.obtained.wall));
            !left.is_zero() && left >= min_ttl
        })
    }

    /// Whether the credential may be handed out without further checks.
    #[must_use]
    pub fn servable(&self, now: Stamp, min_ttl: Duration) -> bool {
        self.lives(now, min_ttl) && !self.doubted(now)
    }
}

/// A keyed hash of a credential. A plain hash of a Basic header can be cracked; this one cannot
/// without the daemon's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written by hand: each JSON answer contains a fingerprint, and the formatting machinery
        // takes microseconds for it.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Fingerprint {
    /// Reads the text that Display writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let bytes = text.as_bytes();
        if bytes.len() != 32 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut out = [0; 16];
        for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *slot = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Fingerprint(out))
    }
}

/// Makes fingerprints with one key.
#[derive(Clone)]
pub struct Fingerprinter(hmac::Key);

impl Fingerprinter {
    /// Makes one from `key`, which is random and stays in the daemon.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Fingerprinter {
        Fingerprinter(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The first 128 bits of an HMAC-SHA-256 of scheme and token.
    #[must_use]
    pub fn of(&self, scheme: Scheme, token: &Secret) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(scheme.as_str().as_bytes());
        context.update(b" ");
        context.update(token.expose().as_bytes());
        let tag = context.sign();
        let mut out = [0; 16];
        out.copy_from_slice(&tag.as_ref()[..16]);
        Fingerprint(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_tokens_and_keys_apart_and_read_back() {
        let a = Fingerprinter::new(&[1; 32]);
        let b = Fingerprinter::new(&[2; 32]);
        let token = Secret::new("t".into());
        let one = a.of(Scheme::Bearer, &token);
        assert_eq!(one, a.of(Scheme::Bearer, &token));
        assert_ne!(one, a.of(Scheme::Basic, &token));
        assert_ne!(one, b.of(Scheme::Bearer, &token));
        assert_eq!(Fingerprint::parse(&one.to_string()), Some(one));
        assert_eq!(Fingerprint::parse("xyz"), None);
        assert_eq!(Fingerprint::parse(&"é".repeat(16)), None);
    }
}
