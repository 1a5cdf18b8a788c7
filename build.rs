//! Generates the gRPC types from `proto/`, without a protoc binary.

use std::path::PathBuf;
use std::{env, error::Error, fs};

use prost::Message;
use prost_types::FileDescriptorSet;
use tonic_prost_build::Builder;

/// The messages that are JSON on the HTTP side: it writes them, the command line reads them.
const JSON: [&str; 13] = [
    "AuditStatus",
    "ExplainResponse",
    "ExplainedCaller",
    "ExplainedRule",
    "GetStatusResponse",
    "LimitStatus",
    "ListProfilesResponse",
    "ProfileCertificate",
    "ProfileError",
    "ProfileReload",
    "ProfileStatus",
    "ProfileSummary",
    "ReloadResponse",
];

/// The serde attributes of messages and fields. The functions they name are in src/proto/json.rs.
const FORMS: [(&str, &[&str]); 9] = [
    // A daemon of another version may leave these out, and only administrators get some of them.
    (
        "default",
        &[
            "AuditStatus",
            "GetStatusResponse.config_generation",
            "GetStatusResponse.limits",
            "GetStatusResponse.pid",
            "GetStatusResponse.refused",
            "GetStatusResponse.started_at",
            "GetStatusResponse.version",
            "GetStatusResponse.warnings",
            "LimitStatus",
            "ProfileCertificate",
            "ProfileError",
            "ProfileReload",
            "ProfileStatus",
            "ProfileSummary.available",
            "ProfileSummary.method",
            "ProfileSummary.target",
            "ReloadResponse.config_generation",
            "ReloadResponse.refused",
        ],
    ),
    (
        r#"deserialize_with = "crate::proto::json::required""#,
        &["ExplainResponse.caller", "ExplainResponse.profile"],
    ),
    (
        r#"serialize_with = "crate::proto::json::unnamed""#,
        &["ProfileStatus.reload"],
    ),
    (
        r#"skip_serializing_if = "Option::is_none""#,
        &[
            "LimitStatus.refused",
            "LimitStatus.used",
            "ProfileStatus.clock_skew",
            "ProfileStatus.expires_in",
            "ProfileStatus.last_error",
            "ProfileStatus.next_attempt_in",
        ],
    ),
    (
        r#"skip_serializing_if = "String::is_empty""#,
        &["ProfileReload.profile"],
    ),
    (
        r#"skip_serializing_if = "Vec::is_empty""#,
        &["LimitStatus.reached_by"],
    ),
    (
        r#"with = "crate::proto::json::seconds""#,
        &["ProfileStatus.expires_in", "ProfileStatus.next_attempt_in"],
    ),
    (
        r#"with = "crate::proto::json::timestamp""#,
        &[
            "GetStatusResponse.started_at",
            "ProfileCertificate.not_after",
            "ProfileCertificate.not_before",
            "ProfileError.since",
            "ProfileReload.since",
        ],
    ),
    (
        r#"with = "crate::proto::json::whole_seconds""#,
        &["ProfileStatus.clock_skew"],
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors: FileDescriptorSet = protox::compile(
        ["tokend/v1/credential.proto", "tokend/v1/admin.proto"],
        ["proto"],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The server offers these descriptors for reflection. protox encodes them with its own prost,
    // so that both agree on the format.
    fs::write(out.join("tokend.v1.bin"), descriptors.encode_to_vec())?;
    let types = tonic_prost_build::configure()
        // The broker encodes this credential once, when it publishes it: see src/proto.rs.
        .extern_path(
            ".tokend.v1.GetTokenResponse",
            "crate::proto::GetTokenResponse",
        )
        .codec_path("crate::proto::codec::Codec")
        .build_transport(false);
    with_json(types).compile_fds(descriptors)?;
    Ok(())
}

fn with_json(mut types: Builder) -> Builder {
    for message in JSON {
        let derived = "#[derive(serde::Serialize, serde::Deserialize)]";
        types = types.message_attribute(format!(".tokend.v1.{message}"), derived);
    }
    for (form, places) in FORMS {
        for place in places {
            let (path, form) = (format!(".tokend.v1.{place}"), format!("#[serde({form})]"));
            types = match place.contains('.') {
                true => types.field_attribute(path, form),
                false => types.message_attribute(path, form),
            };
        }
    }
    types
}
