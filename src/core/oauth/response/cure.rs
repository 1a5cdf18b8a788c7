//! What to check when an identity provider refuses the client itself, the likeliest cause first.

use crate::core::profile::client_auth::{Assertion, AssertionSource, Audience, ClientAuth};

/// What may be wrong with a client, as far as the daemon knows.
#[derive(Clone, Copy, Debug)]
pub struct Suspects<'a> {
    /// How the client proves its identity.
    pub auth: &'a ClientAuth,
    /// Whether the issuer is known. Then it is the audience of assertions, unless another is
    /// configured.
    pub issuer_known: bool,
    /// Whether form-urlencoding leaves id and secret unchanged.
    pub plain: bool,
    /// The certificate that the client shows.
    pub certificate: Option<Shown<'a>>,
}

/// A client certificate as the client shows it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The configuration key that names it.
    pub role: &'a str,
    /// The subject of the certificate.
    pub subject: &'a str,
    /// The number of certificates in its chain, itself included.
    pub chain: usize,
}

impl Suspects<'_> {
    /// The cause and the cure.
    pub(super) fn cure(&self) -> String {
        const REFUSED: &str = "the identity provider does not accept";
        match self.auth {
            ClientAuth::PrivateKeyJwt(assertion) => {
                if let Some(AssertionSource::File { .. }) = assertion.source {
                    return format!(
                        "{REFUSED} the client or the assertion in assertion.file: check client_id, that its iss, sub \
                         and aud are what is registered for this client there, that it has not expired, and the clock"
                    );
                }
                let key = match assertion {
                    Assertion { x5t: true, .. } => ", the certificate registered there (x5t)",
                    Assertion { kid: Some(_), .. } => ", the key registered there and its kid",
                    _ => ", the key registered there (kid or x5t, if it is found by one)",
                };
                format!(
                    "{REFUSED} the client or its assertion: {}check client_id{key}, assertion.audience and the clock",
                    self.other_audience(assertion)
                )
            }
            ClientAuth::SecretJwt(_, assertion) => format!(
                "{REFUSED} client id or assertion: {}check client_id, client_secret, assertion.audience, client_auth \
                 and the clock",
                self.other_audience(assertion)
            ),
            ClientAuth::Tls | ClientAuth::SelfSignedTls => self.certificate(),
            ClientAuth::None => format!(
                "{REFUSED} the client: check client_id, and client_auth if it is no public client"
            ),
            ClientAuth::SecretBasic(_) | ClientAuth::SecretBasicPlain(_) => format!(
                "{REFUSED} client id or secret: {}check client_id, client_secret and client_auth",
                self.other_encoding()
            ),
            ClientAuth::SecretPost(_) => format!(
                "{REFUSED} client id or secret: check client_id, client_secret and client_auth"
            ),
        }
    }

    /// The audience to try first, if none is configured: identity providers want one or the other.
    fn other_audience(&self, assertion: &Assertion) -> &'static str {
        match (&assertion.audience, self.issuer_known) {
            (None, true) => {
                "set assertion.audience = \"token_endpoint\" first, since some want that and it was made out to the \
                 issuer; else "
            }
            (None, false) => {
                "set assertion.audience to the issuer's URL first, since some want that and it was made out to \
                 token_url; else "
            }
            (Some(Audience::Issuer | Audience::TokenEndpoint | Audience::Named(_)), _) => "",
        }
    }

    /// The encoding to try first, if the encodings differ.
    fn other_encoding(&self) -> &'static str {
        match self.auth {
            _ if self.plain => "",
            ClientAuth::SecretBasicPlain(_) => {
                "remove basic_encoding = \"plain\" first, since one of them has special characters and RFC 6749 has \
                 them encoded; else "
            }
            _ => {
                "set basic_encoding = \"plain\" first, since one of them has special characters and some do not decode \
                 them; else "
            }
        }
    }

    fn certificate(&self) -> String {
        let (role, subject, chain) = match self.certificate {
            Some(Shown {
                role,
                subject,
                chain,
            }) => (role, format!(" of {subject}"), chain),
            None => ("tls.certificate", String::new(), 0),
        };
        let first = match (self.auth, chain) {
            (ClientAuth::Tls, 1) => format!(
                "{role} is a chain of one certificate, which some take for a self-signed one, so that the CA's \
                 certificate should follow it there; else "
            ),
            (ClientAuth::SelfSignedTls, 2..) => format!(
                "{role} is a chain of {chain} certificates, which some take for one that a CA has signed, so that it \
                 should stand there alone; else "
            ),
            _ => String::new(),
        };
        format!(
            "the identity provider does not accept the client or its certificate{subject}: {first}check client_id, \
             {role} and what is registered for this client there, and that nothing between ends the TLS connection"
        )
    }
}
