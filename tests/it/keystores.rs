//! Keys and keystores as OpenSSL and Java write them: tokend reads each, and a daemon runs on them.

use std::fs;
use std::process::Command;

use tokend_issuer::certificates::{Authority, ClientOptions, Pair};
use tokend_issuer::client::{CertificateMatch, ClientCredential, RegisteredClient};
use tokend_issuer::clock::WallClock;
use tokend_issuer::{Issuer, IssuerTls, Settings};

use crate::harness::idp;
use crate::harness::{Daemon, PATIENCE, Place, eventually, has, run};

const STORE: &str = "store-password-Zq7";
const KEY: &str = "key-password-Xw4";

fn tools() -> bool {
    has("openssl") && has("keytool")
}

/// A place with the files of both passwords.
fn place() -> Place {
    let place = Place::new();
    place.secret("store.pw", STORE);
    place.secret("key.pw", KEY);
    place
}

/// Runs a program in the folder of a place; spaces separate its arguments.
fn make(place: &Place, line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    let ran = run(command.args(words).current_dir(place.path("")));
    assert_eq!(ran.code, Some(0), "{line}\n{}\n{}", ran.out, ran.err);
}

/// Converts PKCS#12 to JKS. The key has a password of its own.
fn to_jks(place: &Place, p12: &str, alias: &str, jks: &str) {
    make(
        place,
        &format!(
            "keytool -importkeystore -noprompt -srckeystore {p12} -srcstoretype PKCS12 -srcstorepass:file store.pw \
             -srcalias {alias} -destkeystore {jks} -deststoretype JKS -deststorepass:file store.pw -destkeypass:file \
             key.pw"
        ),
    );
}

/// A profile that authenticates with a certificate.
fn profile(name: &str, tls: &str) -> String {
    format!(
        "[profiles.{name}]\nmethod = \"oauth2\"\ntoken_url = \"https://idp.example/token\"\nclient_id = \"it\"\n\
         client_auth = \"tls_client_auth\"\ntls = {{ {tls} }}\n\n"
    )
}

const STORE_PASSWORD: &str = "password = { file = \"store.pw\" }";

/// Makes a key and its certificate in every form, and a profile for each.
fn in_every_form(place: &Place, kind: &str, algorithm: &str, protection: &str) -> String {
    let mut config = String::new();
    make(
        place,
        &format!("openssl genpkey -quiet -algorithm {algorithm} -out {kind}.key"),
    );
    make(
        place,
        &format!(
            "openssl req -x509 -new -key {kind}.key -subj /CN={kind} -days 30 -out {kind}.crt"
        ),
    );
    // This makes PKCS#1 and SEC1. Ed25519 has PKCS#8 only.
    let old = if kind == "ed" { "" } else { "-traditional " };
    make(
        place,
        &format!("openssl pkey -in {kind}.key {old}-out {kind}.old.key"),
    );
    make(
        place,
        &format!(
            "openssl pkcs8 -topk8 {protection} -in {kind}.key -passout file:key.pw -out {kind}.enc.key"
        ),
    );
    for (form, password) in [
        ("", ""),
        (".old", ""),
        (".enc", "key_password = { file = \"key.pw\" }"),
    ] {
        let tls = format!("certificate = \"{kind}.crt\", key = \"{kind}{form}.key\"");
        let tls = [tls.as_str(), password].join(if password.is_empty() { "" } else { ", " });
        config += &profile(&format!("{kind}{}", form.replace('.', "-")), &tls);
    }
    for (form, options) in [
        ("p12", ""),
        ("legacy", "-legacy "),
        (
            "des",
            "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 ",
        ),
        ("nomac", "-nomac "),
    ] {
        make(
            place,
            &format!(
                "openssl pkcs12 -export {options}-inkey {kind}.key -in {kind}.crt -name {kind} -passout \
                 file:store.pw -out {kind}.{form}"
            ),
        );
        let tls = format!("keystore = {{ path = \"{kind}.{form}\", {STORE_PASSWORD} }}");
        config += &profile(&format!("{kind}-{form}"), &tls);
    }
    to_jks(place, &format!("{kind}.p12"), kind, "all.jks");
    let tls = format!(
        "keystore = {{ path = \"all.jks\", alias = \"{kind}\", {STORE_PASSWORD}, key_password = {{ file = \
         \"key.pw\" }} }}, truststore = {{ path = \"trust.{}\", {STORE_PASSWORD} }}",
        if kind == "rsa" { "jks" } else { "p12" }
    );
    config += &profile(&format!("{kind}-jks"), &tls);
    config
}

#[test]
fn what_openssl_and_keytool_write_is_read() {
    if !tools() {
        return;
    }
    let place = place();
    let mut config = String::new();
    let protections = [
        (
            "rsa",
            "RSA -pkeyopt rsa_keygen_bits:2048",
            "-v2 aes-128-cbc -v2prf hmacWithSHA1",
        ),
        (
            "p256",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-v2 aes-256-cbc -v2prf hmacWithSHA512",
        ),
        (
            "p384",
            "EC -pkeyopt ec_paramgen_curve:P-384",
            "-v2 aes-192-cbc",
        ),
        ("ed", "ED25519", "-scrypt"),
    ];
    for (kind, algorithm, protection) in protections {
        config += &in_every_form(&place, kind, algorithm, protection);
    }
    for (kind, name) in [("JKS", "jks"), ("PKCS12", "p12")] {
        make(
            &place,
            &format!(
                "keytool -importcert -noprompt -trustcacerts -alias ca -file rsa.crt -keystore trust.{name} \
                 -storetype {kind} -storepass:file store.pw"
            ),
        );
    }
    make(
        &place,
        "keytool -genkeypair -alias java -keyalg EC -groupname secp384r1 -dname CN=java -keystore java.p12 -storetype \
         PKCS12 -storepass:file store.pw",
    );
    let java = format!("keystore = {{ path = \"java.p12\", {STORE_PASSWORD} }}");
    config += &profile("java", &java);
    place.write("tokend.toml", &config);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);

    what_is_not_read_says_what_to_do(&place);
}

/// The finding is at the configuration key that causes it.
fn what_is_not_read_says_what_to_do(place: &Place) {
    make(
        place,
        "openssl rsa -in rsa.key -traditional -aes128 -passout file:key.pw -out rsa.pem",
    );
    fs::copy(place.path("all.jks"), place.path("store")).expect("copied");
    for (tls, key, cure) in [
        (
            "certificate = \"rsa.crt\", key = \"rsa.pem\", key_password = { file = \"key.pw\" }"
                .to_owned(),
            "tls.key",
            "openssl pkcs8 -topk8",
        ),
        (
            format!("keystore = {{ path = \"all.jks\", {STORE_PASSWORD} }}"),
            "tls.keystore.alias",
            "to one of \"",
        ),
        (
            "keystore = { path = \"rsa.p12\", password = { file = \"key.pw\" } }".to_owned(),
            "tls.keystore",
            "cannot be opened with tls.keystore.password",
        ),
        (
            format!("keystore = {{ path = \"all.jks\", alias = \"rsa\", {STORE_PASSWORD} }}"),
            "tls.keystore",
            "set tls.keystore.key_password",
        ),
        (
            format!("keystore = {{ path = \"trust.p12\", {STORE_PASSWORD} }}"),
            "tls.keystore",
            "no private key",
        ),
    ] {
        place.write("tokend.toml", &profile("it", &tls));
        let ran = place.run(&["check"]);
        let said = ran.out + &ran.err;
        assert_ne!(ran.code, Some(0), "{said}");
        assert!(said.contains(key) && said.contains(cure), "{said}");
    }
}

/// An issuer with mutual TLS and a client `it`, which it knows by the name in the certificate.
fn issuer(authority: &Authority, clients: Vec<RegisteredClient>) -> Issuer {
    idp::with(Settings {
        tls: Some(IssuerTls {
            server: authority.server(&["localhost"]).expect("certificate"),
            client_roots: vec![authority.certificate_pem().to_owned()],
        }),
        clients,
        ..Settings::default()
    })
}

/// Makes a new client certificate in PKCS#12, and replaces the store in one step.
fn client_store(place: &Place, authority: &Authority, name: &str) -> Pair {
    let pair = authority
        .client("it", &ClientOptions::default())
        .expect("certificate");
    place.write("it.crt", &pair.certificate_pem);
    place.write("it.key", pair.key_pem());
    make(
        place,
        "openssl pkcs12 -export -inkey it.key -in it.crt -name it -passout file:store.pw -out new",
    );
    fs::rename(place.path("new"), place.path(name)).expect("renamed");
    pair
}

fn confirmation(daemon: &Daemon) -> String {
    let token = daemon.grpc().token("it").expect("a token");
    token.credential.confirmation
}

#[test]
fn a_daemon_lives_on_keystores_and_follows_them() {
    if !tools() {
        return;
    }
    let authority = Authority::new("root", &WallClock::system()).expect("authority");
    let matching = CertificateMatch::CommonName("it".into());
    let issuer = issuer(
        &authority,
        vec![RegisteredClient {
            bound_tokens: true,
            ..RegisteredClient::new("it", ClientCredential::Certificate(matching))
        }],
    );
    let place = place();
    place.write("ca.pem", authority.certificate_pem());
    make(
        &place,
        "keytool -importcert -noprompt -trustcacerts -alias ca -file ca.pem -keystore trust.jks -storetype JKS \
         -storepass:file store.pw",
    );
    let first = client_store(&place, &authority, "client.store");
    let config = format!(
        "[profiles.it]\nmethod = \"oauth2\"\nissuer = \"{}\"\nclient_id = \"it\"\nclient_auth = \"tls_client_auth\"\n\
         [profiles.it.tls]\ntruststore = {{ path = \"trust.jks\", {STORE_PASSWORD} }}\nkeystore = {{ path = \
         \"client.store\", {STORE_PASSWORD}, key_password = {{ file = \"key.pw\" }} }}\n",
        issuer.url()
    );
    let daemon = place.serve(&config);
    assert_eq!(confirmation(&daemon), first.thumbprint);
    // First another certificate in the same format, then one in the other format under the same
    // name.
    let second = client_store(&daemon.place, &authority, "client.store");
    eventually(PATIENCE, || {
        (confirmation(&daemon) == second.thumbprint).then_some(())
    });
    let third = client_store(&daemon.place, &authority, "third.p12");
    to_jks(&daemon.place, "third.p12", "it", "new.jks");
    fs::rename(
        daemon.place.path("new.jks"),
        daemon.place.path("client.store"),
    )
    .expect("renamed");
    eventually(PATIENCE, || {
        (confirmation(&daemon) == third.thumbprint).then_some(())
    });
    // Half a store, or a wrong password, replaces nothing. The daemon watches the password's file,
    // too.
    let whole = fs::read(daemon.place.path("client.store")).expect("read");
    fs::write(daemon.place.path("client.store"), &whole[..whole.len() / 2]).expect("written");
    eventually(PATIENCE, || {
        daemon
            .log()
            .contains("not a whole JKS keystore")
            .then_some(())
    });
    fs::write(daemon.place.path("client.store"), &whole).expect("written");
    daemon.place.secret("key.pw", "some-other-password");
    eventually(PATIENCE, || {
        daemon.log().contains("does not open").then_some(())
    });
    assert_eq!(confirmation(&daemon), third.thumbprint);
    assert_eq!(daemon.grpc().health("it"), "SERVING");
}

#[test]
fn an_assertion_is_signed_with_the_key_of_a_keystore() {
    if !tools() {
        return;
    }
    let place = place();
    let authority = Authority::new("root", &WallClock::system()).expect("authority");
    let pair = client_store(&place, &authority, "jwt.p12");
    let issuer = idp::issuer(vec![RegisteredClient::new(
        "it",
        ClientCredential::Assertion {
            public_key: pair.certificate_pem.clone(),
        },
    )]);
    let config = idp::idp(&issuer)
        + &format!(
            "[profiles.it]\nmethod = \"oauth2\"\nidp = \"it\"\nclient_id = \"it\"\nclient_auth = \
             \"private_key_jwt\"\nassertion = {{ x5t = true, keystore = {{ path = \"jwt.p12\", {STORE_PASSWORD} }} }}\n"
        );
    let daemon = place.serve(&config);
    let token = daemon.grpc().token("it").expect("a token").credential;
    assert_eq!(idp::claims(&issuer, None, &token.token)["client_id"], "it");
}
