//! What one run of the daemon leaves to the next: the published credentials and the last good
//! configuration, as bytes that stay in memory.
//!
//! Version, length and SHA-256 stand in front, so that the reader recognises bytes of another
//! version and truncated bytes. The reader decides what to take back: a credential belongs to a
//! profile that asks the same provider for the same as the same client ([`Kept::identity`]),
//! whatever the profile proves that with now.

pub mod last_good;

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::credential::{Credential, Fingerprint, Scheme, Variant};
use super::profile::ProfileName;
use super::secret::Secret;
use super::time::{BootTime, Stamp, WallTime};

/// The first bytes of every handover. The digit changes whenever the format of the rest changes.
const MAGIC: &[u8; 8] = b"tokend\x001";

/// The lengths of the magic, the length field and the SHA-256.
const HEAD: usize = 8 + 8 + 32;

pub struct Handover {
    /// The key of the fingerprints. It is handed over because callers keep the fingerprints that
    /// they were told.
    pub key: Zeroizing<[u8; 32]>,
    /// The id of the boot whose clock the times are on.
    pub boot: String,
    /// The number of the handover. It grows with each handover of a boot.
    pub number: u64,
    pub kept: Vec<Kept>,
    /// The last good configuration, as [`last_good::LastGood`] writes it. None: there was none, or
    /// an earlier version left the handover.
    pub configuration: Option<Zeroizing<String>>,
}

/// One credential.
#[derive(Clone, Debug)]
pub struct Kept {
    pub profile: ProfileName,
    /// Which of the profile's credentials it is.
    pub variant: Variant,
    /// The identity: who asked whom for what.
    pub identity: [u8; 32],
    /// The material that proved the client.
    pub material: [u8; 32],
    pub credential: Credential,
}

/// Why bytes are no handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableHandover {
    /// The bytes are from another version, or are no handover.
    #[error("it was left by another version")]
    Version,
    /// The bytes are cut off or changed.
    #[error("it is damaged")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    key: [u8; 32],
    boot: &'a str,
    number: u64,
    #[serde(borrow)]
    kept: Vec<KeptCredential<'a>>,
    /// Earlier versions neither write this field nor read it.
    #[serde(default)]
    configuration: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct KeptCredential<'a> {
    profile: &'a str,
    scopes_asked: Vec<String>,
    audience_asked: Option<String>,
    identity: [u8; 32],
    material: [u8; 32],
    /// A token can stand in a header, so nothing in it has to be escaped.
    #[serde(borrow)]
    token: &'a str,
    basic: bool,
    scopes: Vec<String>,
    confirmation: Option<String>,
    fingerprint: String,
    generation: u64,
    obtained_boot: Duration,
    obtained_wall: Duration,
    expires: Option<Duration>,
    refresh_at: Option<Duration>,
    clock_skew: Option<i64>,
}

impl Handover {
    /// The handover as bytes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let written = Written {
            key: *self.key,
            boot: &self.boot,
            number: self.number,
            kept: self.kept.iter().map(line).collect(),
            configuration: self
                .configuration
                .as_deref()
                .map(|text| text.as_str().into()),
        };
        let tokens: usize = self
            .kept
            .iter()
            .map(|kept| kept.credential.token.expose().len())
            .sum();
        // The buffer is large enough from the start, because a growing buffer leaves copies behind.
        // Every character of a text may have to be escaped.
        let texts = self.configuration.as_ref().map_or(0, |text| text.len());
        let room = HEAD + 1024 + tokens + self.kept.len() * 2048 + texts * 2;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        bytes.extend_from_slice(&[0; HEAD]);
        serde_json::to_writer(&mut *bytes, &written).expect("text and numbers can be written");
        finish(&mut bytes);
        bytes
    }

    /// Reads a handover from bytes.
    ///
    /// # Errors
    /// [`UnusableHandover`]
    pub fn decode(bytes: &[u8]) -> Result<Handover, UnusableHandover> {
        let (head, body) = bytes
            .split_at_checked(HEAD)
            .ok_or(UnusableHandover::Damaged)?;
        if &head[..8] != MAGIC {
            return Err(UnusableHandover::Version);
        }
        let sum = digest::digest(&digest::SHA256, body);
        if head[8..16] != (body.len() as u64).to_be_bytes() || &head[16..] != sum.as_ref() {
            return Err(UnusableHandover::Damaged);
        }
        let written: Written<'_> =
            serde_json::from_slice(body).map_err(|_| UnusableHandover::Damaged)?;
        let kept: Option<Vec<Kept>> = written.kept.iter().map(kept).collect();
        Ok(Handover {
            key: Zeroizing::new(written.key),
            boot: written.boot.to_owned(),
            number: written.number,
            kept: kept.ok_or(UnusableHandover::Damaged)?,
            configuration: written
                .configuration
                .map(|text| Zeroizing::new(text.into_owned())),
        })
    }
}

/// Writes the head into the room in front.
fn finish(bytes: &mut [u8]) {
    let (head, body) = bytes.split_at_mut(HEAD);
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&(body.len() as u64).to_be_bytes());
    head[16..].copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
}

fn line(kept: &Kept) -> KeptCredential<'_> {
    let credential = &kept.credential;
    KeptCredential {
        profile: kept.profile.as_str(),
        scopes_asked: kept.variant.scopes.clone(),
        audience_asked: kept.variant.audience.clone(),
        identity: kept.identity,
        material: kept.material,
        token: credential.token.expose(),
        basic: credential.scheme == Scheme::Basic,
        scopes: credential.scopes.clone(),
        confirmation: credential.confirmation.clone(),
        fingerprint: credential.fingerprint.to_string(),
        generation: credential.generation,
        obtained_boot: credential.obtained.boot.0,
        obtained_wall: credential.obtained.wall.0,
        expires: credential.expires.map(|at| at.0),
        refresh_at: credential.refresh_at.map(|at| at.0),
        clock_skew: credential.clock_skew,
    }
}

fn kept(line: &KeptCredential<'_>) -> Option<Kept> {
    Some(Kept {
        profile: ProfileName::parse(line.profile)?,
        variant: Variant {
            scopes: line.scopes_asked.clone(),
            audience: line.audience_asked.clone(),
        },
        identity: line.identity,
        material: line.material,
        credential: Credential {
            token: Secret::new(line.token.to_owned()),
            scheme: if line.basic {
                Scheme::Basic
            } else {
                Scheme::Bearer
            },
            scopes: line.scopes.clone(),
            confirmation: line.confirmation.clone(),
            fingerprint: Fingerprint::parse(&line.fingerprint)?,
            generation: line.generation,
            obtained: Stamp {
                boot: BootTime(line.obtained_boot),
                wall: WallTime(line.obtained_wall),
            },
            expires: line.expires.map(BootTime),
            refresh_at: line.refresh_at.map(BootTime),
            clock_skew: line.clock_skew,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::credential::Fingerprinter;

    fn handover() -> Handover {
        let token = Secret::new("eyJ.t-o_k~e+n/==".into());
        let at = |secs| BootTime(Duration::new(secs, 123_456_789));
        Handover {
            key: Zeroizing::new([7; 32]),
            boot: "a-boot".into(),
            number: 3,
            configuration: Some(Zeroizing::new("{\"text\":\"a = \\\"b\\\"\\n\"}".into())),
            kept: vec![Kept {
                profile: ProfileName::parse("orders").expect("a name"),
                variant: Variant {
                    scopes: vec!["a".into()],
                    audience: Some("b".into()),
                },
                identity: [1; 32],
                material: [2; 32],
                credential: Credential {
                    fingerprint: Fingerprinter::new(&[7; 32]).of(Scheme::Bearer, &token),
                    token,
                    scheme: Scheme::Bearer,
                    scopes: vec!["c".into()],
                    confirmation: Some("d".into()),
                    generation: 9,
                    obtained: Stamp {
                        boot: at(5),
                        wall: WallTime(Duration::from_secs(1_700_000_000)),
                    },
                    expires: Some(at(300)),
                    refresh_at: None,
                    clock_skew: Some(-2),
                },
            }],
        }
    }

    #[test]
    fn what_is_handed_over_comes_back_as_it_was() {
        let before = handover();
        let bytes = before.encode();
        let after = Handover::decode(&bytes).expect("sound");
        assert_eq!((*after.key, after.number), ([7; 32], 3));
        assert_eq!(after.boot, before.boot);
        assert_eq!(after.configuration, before.configuration);
        assert_eq!(format!("{:?}", after.kept), format!("{:?}", before.kept));
        let token = |handover: &Handover| handover.kept[0].credential.token.expose().to_owned();
        assert_eq!(token(&after), token(&before));
    }

    /// Broken by a required field: an upgrade would forget the credentials.
    #[test]
    fn what_an_earlier_version_left_has_no_configuration_and_is_read() {
        let mut earlier = handover();
        earlier.configuration = None;
        let bytes = earlier.encode();
        let text = String::from_utf8(bytes[HEAD..].to_vec()).expect("text");
        let body = text.replace(",\"configuration\":null", "");
        assert_ne!(body, text);
        let mut bytes = vec![0; HEAD];
        bytes.extend_from_slice(body.as_bytes());
        finish(&mut bytes);
        let read = Handover::decode(&bytes).expect("sound");
        assert!(read.configuration.is_none());
        assert_eq!(read.kept.len(), 1);
    }

    /// Broken by `decode` that does not check the sum.
    #[test]
    fn one_bit_or_one_byte_less_is_noticed() {
        let bytes = handover().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(Handover::decode(&damaged).is_err(), "{at}");
            assert!(Handover::decode(&bytes[..at]).is_err(), "{at}");
        }
        let mut other = bytes.to_vec();
        other[7] = b'2';
        assert_eq!(
            Handover::decode(&other).err(),
            Some(UnusableHandover::Version)
        );
    }
}
