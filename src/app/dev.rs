//! `tokend dev`: starts an issuer and a daemon in one folder, with certificates and a configuration
//! that has one profile per method of authentication.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;

use super::configuration::Plan;
use super::daemon::{daemon, finish};
use super::signals::{SignalAction, SignalStreams};
use crate::cli::{DevArgs, exit};
use crate::core::secret::Secret;
use crate::telemetry::{self, Format};
use tokend_issuer::certificates::{Authority, ClientOptions};
use tokend_issuer::client::{CertificateMatch, ClientCredential, RegisteredClient};
use tokend_issuer::clock::WallClock;
use tokend_issuer::{Issuer, IssuerTls, Settings};

/// Short enough to let a developer watch renewals, long enough for a pasted token to still work.
const TOKEN_LIFETIME: Duration = Duration::from_secs(120);

/// The client ids that the issuer has registered.
const SECRET_CLIENT: &str = "tokend-dev";
const CERTIFICATE_CLIENT: &str = "tokend-dev-mtls";
const ASSERTION_CLIENT: &str = "tokend-dev-jwt";

/// The name of the audit file.
const AUDIT: &str = "audit.jsonl";

pub fn run(args: &DevArgs) -> u8 {
    if let Err(why) = telemetry::start(Format::Text) {
        eprintln!("tokend: {why}");
        return exit::USAGE;
    }
    // Signals are caught before anything is made: a stop while keys are being made must remove them
    // all the same. A hang-up stops the daemon too: there is nothing to reload, and after the
    // terminal is closed nobody could stop it.
    let setup = SignalStreams::new(SignalAction::Stop).and_then(|streams| {
        let dev = StateFolder::make(args.dir.as_deref()).and_then(Dev::start)?;
        Ok((streams, dev))
    });
    match setup {
        Ok((streams, dev)) => finish(daemon(&dev.plan(), streams, |socket| dev.tell(socket))),
        Err(error) => {
            eprintln!("tokend: cannot set up the development environment: {error}");
            exit::FINDINGS
        }
    }
}

/// Everything that `dev` made. Dropping it removes all of that again.
struct Dev {
    folder: StateFolder,
    issuer: RunningIssuer,
}

impl Dev {
    fn start(mut folder: StateFolder) -> io::Result<Dev> {
        let authority =
            Authority::new("tokend dev CA", &WallClock::system()).map_err(io::Error::other)?;
        let server = authority
            .server(&["localhost", "127.0.0.1", "::1"])
            .map_err(io::Error::other)?;
        let certificate = authority
            .client(CERTIFICATE_CLIENT, &ClientOptions::default())
            .map_err(io::Error::other)?;
        let assertion = authority
            .client(ASSERTION_CLIENT, &ClientOptions::default())
            .map_err(io::Error::other)?;
        let secret = random_text()?;

        let mut bound = RegisteredClient::new(
            CERTIFICATE_CLIENT,
            ClientCredential::Certificate(CertificateMatch::CommonName(CERTIFICATE_CLIENT.into())),
        );
        bound.bound_tokens = true;
        let issuer = RunningIssuer::start(Settings {
            tls: Some(IssuerTls {
                server,
                client_roots: vec![authority.certificate_pem().to_owned()],
            }),
            clients: vec![
                RegisteredClient::with_secret(SECRET_CLIENT, secret.expose()),
                bound,
                RegisteredClient::new(
                    ASSERTION_CLIENT,
                    ClientCredential::Assertion {
                        public_key: assertion.public_key_pem.clone(),
                    },
                ),
            ],
            token_lifetime: TOKEN_LIFETIME,
            ..Settings::default()
        })?;

        folder.write("ca.pem", authority.certificate_pem())?;
        folder.write("oidc.secret", secret.expose())?;
        folder.write("basic.password", random_text()?.expose())?;
        folder.write("mtls.pem", &certificate.certificate_pem)?;
        folder.write("mtls.key", certificate.key_pem())?;
        folder.write("jwt.key", assertion.key_pem())?;
        folder.write("tokend.toml", &configuration(&issuer.url))?;
        folder.write(AUDIT, "")?;
        Ok(Dev { folder, issuer })
    }

    fn plan(&self) -> Plan {
        Plan {
            config: self.folder.path.join("tokend.toml"),
            socket: Some(self.socket()),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path.join("tokend.sock")
    }

    /// Prints what to do next, in lines to paste.
    fn tell(&self, socket: &Path) {
        let socket = quoted(&socket.display().to_string());
        let program = std::env::current_exe().map_or_else(
            |_| "tokend".to_owned(),
            |path| quoted(&path.display().to_string()),
        );
        let ca = quoted(&self.folder.path.join("ca.pem").display().to_string());
        let api = format!("{}/api/topology", self.issuer.url);
        let text = format!(
            r#"
tokend dev is ready. Profiles: none, basic, oidc, mtls, jwt. Ctrl-C ends it and removes what it made.

  folder   {folder}
  socket   {socket}
  issuer   {issuer}
  audit    {folder}/{AUDIT}

Lines to paste into another terminal:

  TOKEND_SOCKET={socket} {program} token oidc

  curl --silent --unix-socket {socket} http://tokend/v1/profiles/oidc/token

  python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b"GET /v1/profiles/oidc/token HTTP/1.0\r\nHost: tokend\r\n\r\n"); print(s.makefile("rb").read().split(b"\r\n\r\n", 1)[1].decode())' {socket}

An API that takes these tokens:

  TOKEND_SOCKET={socket} {program} token oidc --format curl | curl --silent --cacert {ca} --config - {api}
"#,
            folder = self.folder.path.display(),
            issuer = self.issuer.url,
        );
        // Output may have no reader; the daemon serves all the same.
        let mut out = io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Quotes text for a shell, only where needed.
fn quoted(text: &str) -> String {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-:=@%+".contains(&byte));
    if plain {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn configuration(issuer: &str) -> String {
    format!(
        r#"# Made by `tokend dev`: one profile per way in.

[audit]
sink = "file"
path = "{AUDIT}"

[idp.dev]
issuer = "{issuer}"
tls = {{ ca = "ca.pem" }}

[profiles.none]
method = "none"
target = "{issuer}"

[profiles.basic]
method = "basic"
username = "demo"
password = {{ file = "basic.password" }}

[profiles.oidc]
method = "oauth2"
idp = "dev"
client_id = "{SECRET_CLIENT}"
client_secret = {{ file = "oidc.secret" }}
audience = "dev-api"
scopes = ["read"]

[profiles.mtls]
method = "oauth2"
idp = "dev"
client_id = "{CERTIFICATE_CLIENT}"
client_auth = "tls_client_auth"
tls = {{ certificate = "mtls.pem", key = "mtls.key" }}

[profiles.jwt]
method = "oauth2"
idp = "dev"
client_id = "{ASSERTION_CLIENT}"
client_auth = "private_key_jwt"
assertion = {{ key = "jwt.key" }}
"#
    )
}

/// The issuer, on a thread of its own. To the daemon it is somebody else's server.
struct RunningIssuer {
    url: String,
    /// Dropping this ends the issuer.
    _stop: oneshot::Sender<()>,
}

impl RunningIssuer {
    fn start(settings: Settings) -> io::Result<RunningIssuer> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("dev-issuer".into())
            .spawn(move || {
                runtime.block_on(async {
                    let issuer = match Issuer::start(settings).await {
                        Ok(issuer) => issuer,
                        Err(error) => return drop(tell.send(Err(error))),
                    };
                    if tell.send(Ok(issuer.url().to_owned())).is_ok() {
                        // Dropping the sender makes this an error, which is the signal to stop.
                        let _ = stopped.await;
                    }
                });
            })?;
        let url = told
            .recv()
            .map_err(|_| io::Error::other("the issuer's thread has ended"))??;
        Ok(RunningIssuer { url, _stop: stop })
    }
}

/// A folder, and the files that `dev` put into it.
struct StateFolder {
    path: PathBuf,
    made_folder: bool,
    files: Vec<PathBuf>,
}

impl StateFolder {
    fn make(wanted: Option<&Path>) -> io::Result<StateFolder> {
        let (path, made_folder) = match wanted {
            Some(path) => {
                let path = std::path::absolute(path)?;
                let made = !path.exists();
                if made {
                    fs::DirBuilder::new().mode(0o700).create(&path)?;
                }
                (path, made)
            }
            None => {
                let path = std::env::temp_dir().join(format!("tokend-dev-{}", std::process::id()));
                fs::DirBuilder::new().mode(0o700).create(&path)?;
                (path, true)
            }
        };
        Ok(StateFolder {
            path,
            made_folder,
            files: Vec::new(),
        })
    }

    /// Writes a new file that only its owner can read. A file that exists already is an error.
    fn write(&mut self, name: &str, text: &str) -> io::Result<()> {
        let path = self.path.join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| {
                let cure = if error.kind() == io::ErrorKind::AlreadyExists {
                    "; it is left alone: name another folder with --dir"
                } else {
                    ""
                };
                io::Error::new(error.kind(), format!("{}: {error}{cure}", path.display()))
            })?;
        self.files.push(path);
        file.write_all(text.as_bytes())
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        // Files that others put there stay, and then the folder stays too.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if self.made_folder {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn random_text() -> io::Result<Secret> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let text = bytes.iter().fold(String::new(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    });
    Ok(Secret::new(text))
}
