//! `tokend token PROFILE`: prints nothing but the credential on standard output, in the form that
//! the reader needs.
//!
//! A profile of method `none` has no credential. Forms that make a header then print nothing and
//! succeed. Forms whose reader needs a token fail.

use std::io::Write;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::paths::Lookup;
use super::{TokenArgs, TokenFormat, complaint, exit, print};
use crate::client::{Client, ClientError, CredentialAnswer, TokenQuery};

/// kubectl uses this to name the API version that it wants (JSON, an ExecCredential with only
/// `spec`).
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";
/// Google's libraries use this to name the type of token that they will present (AIP-4117).
const GOOGLE_TYPE: &str = "GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE";

/// Output with a credential. It is wiped after it was written.
type WipedText = Zeroizing<String>;

/// The form of the output, with what the reader's environment says about it.
#[derive(Clone, Copy)]
enum OutputFormat {
    Token,
    Header,
    Json,
    Curl,
    K8sExec { api_version: &'static str },
    GoogleExecutable { token_type: &'static str },
}

/// The reason why nothing can be printed.
enum PrintError {
    /// The daemon did not give the credential.
    NotGiven(ClientError),
    /// The reader could not use the credential.
    Unfit { exit: u8, message: String },
}

/// Runs the command; `client` is Err when no socket could be named. Returns the exit status.
pub fn run(
    args: &TokenArgs,
    client: Result<Client, ClientError>,
    environment: Lookup<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let profile = Some(args.profile.as_str());
    let (problem, client) = match client {
        Ok(client) => match obtain(args, &client, environment) {
            Ok(Some(text)) => return print(out, &text, err).err().unwrap_or(exit::DONE),
            Ok(None) => {
                complaint::line(
                    err,
                    profile,
                    "sends no Authorization header (method none): nothing to print",
                );
                return exit::DONE;
            }
            Err(problem) => (problem, Some(client)),
        },
        Err(error) => (PrintError::NotGiven(error), None),
    };
    let (code, exit, message) = match &problem {
        PrintError::NotGiven(error) => {
            complaint::error(err, profile, error, client.as_ref());
            (code_name(error), exit::code_of(error), error.to_string())
        }
        PrintError::Unfit { exit, message } => {
            complaint::line(err, profile, message);
            ("FAILED_PRECONDITION", *exit, message.clone())
        }
    };
    if format(args) == TokenFormat::GoogleExecutable {
        let failure = GoogleFailure {
            version: 1,
            success: false,
            code,
            message: &message,
        };
        // The exit status already tells the failure, so an absent reader changes nothing.
        let _ = print(out, &line_of(&failure, message.len()), err);
    }
    exit
}

fn format(args: &TokenArgs) -> TokenFormat {
    match (args.header, args.json) {
        (true, _) => TokenFormat::Header,
        (_, true) => TokenFormat::Json,
        _ => args.format,
    }
}

/// The code for programs: a gRPC status code, or one of our own.
fn code_name(error: &ClientError) -> &str {
    match error {
        ClientError::Refused(refusal) => &refusal.code,
        ClientError::TimedOut(_) => "DEADLINE_EXCEEDED",
        ClientError::Unreachable { .. }
        | ClientError::Unbelieved { .. }
        | ClientError::Closed(_)
        | ClientError::Nonsense { .. } => "DAEMON_UNREACHABLE",
    }
}

/// The whole output. None if the profile has nothing to print and the form allows that.
fn obtain(
    args: &TokenArgs,
    client: &Client,
    environment: Lookup<'_>,
) -> Result<Option<WipedText>, PrintError> {
    let form = form(format(args), environment)?;
    let query = TokenQuery {
        profile: args.profile.clone(),
        min_ttl: args.min_ttl,
        scopes: args.scopes.clone(),
        audience: args.audience.clone(),
    };
    let credential = client
        .token(&query, args.timeout)
        .map_err(PrintError::NotGiven)?;
    render(form, &credential)
}

/// The form of the output. The environment is read only for forms whose reader uses it.
fn form(format: TokenFormat, environment: Lookup<'_>) -> Result<OutputFormat, PrintError> {
    Ok(match format {
        TokenFormat::Token => OutputFormat::Token,
        TokenFormat::Header => OutputFormat::Header,
        TokenFormat::Json => OutputFormat::Json,
        TokenFormat::Curl => OutputFormat::Curl,
        TokenFormat::K8sExec => OutputFormat::K8sExec {
            api_version: exec_version(environment)?,
        },
        TokenFormat::GoogleExecutable => OutputFormat::GoogleExecutable {
            token_type: google_type(environment)?,
        },
    })
}

fn exec_version(environment: Lookup<'_>) -> Result<&'static str, PrintError> {
    #[derive(Deserialize)]
    struct ExecInfo {
        #[serde(rename = "apiVersion")]
        api_version: String,
    }
    const V1: &str = "client.authentication.k8s.io/v1";
    const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";
    let Some(text) = environment(EXEC_INFO).filter(|text| !text.is_empty()) else {
        return Ok(V1);
    };
    let info = text
        .to_str()
        .and_then(|text| serde_json::from_str::<ExecInfo>(text).ok());
    match info.as_ref().map(|info| info.api_version.as_str()) {
        Some(V1) => Ok(V1),
        Some(V1BETA1) => Ok(V1BETA1),
        Some(other) => Err(PrintError::Unfit {
            exit: exit::USAGE,
            message: format!(
                "{EXEC_INFO} asks for apiVersion {other}; only {V1} and {V1BETA1} are known"
            ),
        }),
        None => Err(PrintError::Unfit {
            exit: exit::USAGE,
            message: format!("{EXEC_INFO} holds no ExecCredential"),
        }),
    }
}

fn google_type(environment: Lookup<'_>) -> Result<&'static str, PrintError> {
    const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
    const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
    let wanted = environment(GOOGLE_TYPE).unwrap_or_default();
    match wanted.to_string_lossy().as_ref() {
        "" | JWT => Ok(JWT),
        ID_TOKEN => Ok(ID_TOKEN),
        other => Err(PrintError::Unfit {
            exit: exit::USAGE,
            message: format!(
                "{GOOGLE_TYPE} asks for {other}; only {JWT} and {ID_TOKEN} can be had"
            ),
        }),
    }
}

fn render(
    form: OutputFormat,
    credential: &CredentialAnswer,
) -> Result<Option<WipedText>, PrintError> {
    let (token, header) = (credential.token.expose(), credential.authorization.expose());
    let line = |parts: &[&str]| Some(joined(parts));
    Ok(match form {
        OutputFormat::Json => line(&[credential.json.expose(), "\n"]),
        OutputFormat::Token | OutputFormat::Header | OutputFormat::Curl if credential.is_none() => {
            None
        }
        OutputFormat::Token => line(&[token, "\n"]),
        OutputFormat::Header => line(&["Authorization: ", header, "\n"]),
        OutputFormat::Curl => line(&["header = \"Authorization: ", &curl_quoted(header), "\"\n"]),
        OutputFormat::K8sExec { api_version } => {
            bearer(credential)?;
            let exec = ExecCredential {
                api_version,
                kind: "ExecCredential",
                status: ExecStatus {
                    token,
                    expiration_timestamp: credential
                        .expires_at
                        .map(|at| humantime::format_rfc3339_seconds(at).to_string()),
                },
            };
            Some(line_of(&exec, token.len()))
        }
        OutputFormat::GoogleExecutable { token_type } => {
            bearer(credential)?;
            let success = GoogleSuccess {
                version: 1,
                success: true,
                token_type,
                id_token: token,
                expiration_time: credential
                    .expires_at
                    .and_then(|at| Some(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())),
            };
            Some(line_of(&success, token.len()))
        }
    })
}

/// Refuses a scheme other than Bearer: these readers put the token behind "Bearer" themselves.
fn bearer(credential: &CredentialAnswer) -> Result<(), PrintError> {
    let message = if credential.is_none() {
        "sends no Authorization header (method none), and this format needs a token".to_owned()
    } else if credential.token_type.eq_ignore_ascii_case("bearer") {
        return Ok(());
    } else {
        format!(
            "has a credential of type {}, and this format needs a bearer token",
            credential.token_type
        )
    };
    Err(PrintError::Unfit {
        exit: exit::REJECTED,
        message,
    })
}

/// Quotes text for curl, which reads a backslash inside of double quotes as the start of an escape.
/// Control characters never get here.
fn curl_quoted(text: &str) -> WipedText {
    let mut quoted = Zeroizing::new(String::with_capacity(text.len() * 2));
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Joins texts without growing the result, since that would leave copies behind.
fn joined(parts: &[&str]) -> WipedText {
    let mut text = Zeroizing::new(String::with_capacity(
        parts.iter().map(|part| part.len()).sum(),
    ));
    parts.iter().for_each(|part| text.push_str(part));
    text
}

/// Formats one line of JSON. `payload` is the length of its long part: with escapes it takes at
/// most six times that (RFC 8259 §7). Everything else fits into a kilobyte.
fn line_of(value: &impl Serialize, payload: usize) -> WipedText {
    let mut bytes = Zeroizing::new(Vec::with_capacity(payload * 6 + 1024));
    serde_json::to_writer(&mut *bytes, value)
        .expect("writing to memory does not fail, and every key is text");
    bytes.push(b'\n');
    let text = String::from_utf8(std::mem::take(&mut *bytes)).expect("JSON is written as UTF-8");
    Zeroizing::new(text)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential<'a> {
    api_version: &'a str,
    kind: &'a str,
    status: ExecStatus<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecStatus<'a> {
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_timestamp: Option<String>,
}

#[derive(Serialize)]
struct GoogleSuccess<'a> {
    version: u8,
    success: bool,
    token_type: &'a str,
    id_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_time: Option<u64>,
}

#[derive(Serialize)]
struct GoogleFailure<'a> {
    version: u8,
    success: bool,
    code: &'a str,
    message: &'a str,
}

#[cfg(test)]
mod tests;
