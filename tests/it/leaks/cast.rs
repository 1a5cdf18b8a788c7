//! The profiles of these tests: every kind with every kind of secret, both sound ones and those
//! that cannot be used.

use std::process::Command;

use tokend_issuer::certificates::{Authority, ClientOptions, GeneratedKeyKind, Pair};
use tokend_issuer::client::{CertificateMatch, ClientCredential, RegisteredClient};
use tokend_issuer::clock::WallClock;
use tokend_issuer::{Issuer, IssuerTls, Settings};

use super::secret;
use crate::harness::{Place, idp, run};

/// Profiles that get a credential. Each has a secret of its own, which is named after the profile.
pub struct Cast {
    pub issuer: Issuer,
    pub place: Place,
    /// `[idp.it]`, over TLS.
    pub idp: String,
    pub profiles: Vec<(&'static str, String)>,
    /// Private keys in PEM, each with the name of its profile.
    pub keys: Vec<(&'static str, String)>,
    authority: Authority,
}

impl Cast {
    /// Adds a client with a secret in a file.
    pub fn with_file(&mut self, name: &'static str, more: &str) {
        let client = RegisteredClient::with_secret(name, &secret(name));
        self.issuer.set_client(client);
        self.place.secret(&format!("{name}.secret"), &secret(name));
        let more = format!("client_secret = {{ file = \"{name}.secret\" }}\n{more}");
        self.oauth2(name, &more);
    }

    /// Adds a profile that asks the issuer.
    pub fn oauth2(&mut self, name: &'static str, more: &str) {
        let config = format!("method = \"oauth2\"\nidp = \"it\"\nclient_id = \"{name}\"\n{more}\n");
        self.profiles.push((name, config));
    }

    pub fn config(&self) -> String {
        let profiles = self.profiles.iter();
        let profiles = profiles.map(|(name, text)| format!("\n[profiles.{name}]\n{text}"));
        self.idp.clone() + &profiles.collect::<String>()
    }

    /// Gives another secret or key to every profile that can have one. The place is one in which
    /// all of them are served.
    pub fn rotate(&mut self, place: &Place) {
        for name in ["by-header", "by-form", "by-hmac", "password", "fixed"] {
            let next = secret(&format!("next-{name}"));
            self.issuer
                .set_client(RegisteredClient::with_secret(name, &next));
            place.secret(&format!("{name}.secret"), &next);
        }
        for (name, key) in [
            ("ec", GeneratedKeyKind::Ec),
            ("rsa", GeneratedKeyKind::Rsa),
            ("mtls", GeneratedKeyKind::Ec),
        ] {
            let options = ClientOptions {
                key,
                ..ClientOptions::default()
            };
            let pair = self.authority.client(name, &options).expect("certificate");
            put(place, name, &pair);
            let public_key = pair.public_key_pem;
            if name != "mtls" {
                let credential = ClientCredential::Assertion { public_key };
                self.issuer
                    .set_client(RegisteredClient::new(name, credential));
            }
        }
        for (_, config) in &mut self.profiles {
            *config = config.replace(&secret("literal"), &secret("next-literal"));
        }
        let literal = secret("next-literal");
        place.secrets.add(&literal);
        self.issuer
            .set_client(RegisteredClient::with_secret("literal", &literal));
        place.write("tokend.toml", &self.config());
    }

    /// Makes a certificate with its key, both in files. The client signs assertions or handshakes
    /// with them.
    fn pair(&mut self, name: &'static str, key: GeneratedKeyKind) -> Pair {
        let options = ClientOptions {
            key,
            ..ClientOptions::default()
        };
        let pair = self.authority.client(name, &options).expect("certificate");
        put(&self.place, name, &pair);
        self.keys.push((name, pair.key_pem().to_owned()));
        pair
    }
}

/// Writes a pair into its files.
fn put(place: &Place, name: &str, pair: &Pair) {
    place.write(&format!("{name}.crt"), &pair.certificate_pem);
    place.write(&format!("{name}.key"), pair.key_pem());
    place.secrets.add_lines(pair.key_pem());
}

/// Every kind of profile and of client authentication. Needs openssl.
pub fn sound() -> Cast {
    let authority = Authority::new("root", &WallClock::system()).expect("authority");
    let issuer = idp::with(Settings {
        tls: Some(IssuerTls {
            server: authority.server(&["localhost"]).expect("certificate"),
            client_roots: vec![authority.certificate_pem().to_owned()],
        }),
        ..Settings::default()
    });
    let place = Place::new();
    place.write("ca.pem", authority.certificate_pem());
    let mut cast = Cast {
        idp: idp::idp(&issuer) + "tls = { ca = \"ca.pem\" }\n",
        issuer,
        place,
        profiles: Vec::new(),
        keys: Vec::new(),
        authority,
    };
    for (name, how) in [
        ("by-header", "client_secret_basic"),
        ("by-form", "client_secret_post"),
        ("by-hmac", "client_secret_jwt"),
    ] {
        cast.with_file(name, &format!("client_auth = \"{how}\""));
    }
    let literal = secret("literal");
    cast.place.secrets.add(&literal);
    cast.issuer
        .set_client(RegisteredClient::with_secret("literal", &literal));
    cast.oauth2("literal", &format!("client_secret = \"{literal}\""));
    for (name, key) in [("ec", GeneratedKeyKind::Ec), ("rsa", GeneratedKeyKind::Rsa)] {
        let public_key = cast.pair(name, key).public_key_pem;
        let credential = ClientCredential::Assertion { public_key };
        cast.issuer
            .set_client(RegisteredClient::new(name, credential));
        let assertion = format!("assertion = {{ key = \"{name}.key\" }}");
        cast.oauth2(
            name,
            &format!("client_auth = \"private_key_jwt\"\n{assertion}"),
        );
    }
    certificates(&mut cast);
    for (name, keys) in [
        ("password", "method = \"basic\"\nusername = \"u\"\npassword"),
        ("fixed", "method = \"static\"\ntoken"),
    ] {
        cast.place.secret(&format!("{name}.secret"), &secret(name));
        let config = format!("{keys} = {{ file = \"{name}.secret\" }}\n");
        cast.profiles.push((name, config));
    }
    cast
}

/// Adds profiles with a certificate; their keys are plain, encrypted, and in a keystore.
fn certificates(cast: &mut Cast) {
    for (name, key) in [
        ("mtls", GeneratedKeyKind::Ec),
        ("sealed", GeneratedKeyKind::Rsa),
        ("stored", GeneratedKeyKind::Ec),
    ] {
        cast.pair(name, key);
        let subject = CertificateMatch::CommonName(name.into());
        let credential = ClientCredential::Certificate(subject);
        cast.issuer
            .set_client(RegisteredClient::new(name, credential));
        cast.place.secret(&format!("{name}.pw"), &secret(name));
    }
    openssl(
        &cast.place,
        "pkcs8 -topk8 -in sealed.key -passout file:sealed.pw -out sealed.enc",
    );
    openssl(
        &cast.place,
        "pkcs12 -export -inkey stored.key -in stored.crt -passout file:stored.pw -out stored.p12",
    );
    let mtls = "client_auth = \"tls_client_auth\"\ntls =";
    for (name, files) in [
        ("mtls", "certificate = \"mtls.crt\", key = \"mtls.key\""),
        (
            "sealed",
            "certificate = \"sealed.crt\", key = \"sealed.enc\", key_password = { file = \"sealed.pw\" }",
        ),
        (
            "stored",
            "keystore = { path = \"stored.p12\", password = { file = \"stored.pw\" } }",
        ),
    ] {
        cast.oauth2(name, &format!("{mtls} {{ {files} }}"));
    }
}

/// Runs openssl in the folder of a place; spaces separate its arguments.
fn openssl(place: &Place, line: &str) {
    let mut command = Command::new("openssl");
    let ran = run(command.args(line.split(' ')).current_dir(place.path("")));
    assert_eq!(ran.code, Some(0), "{line}\n{}", ran.err);
}
