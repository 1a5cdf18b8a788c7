//! Generates the gRPC types from `proto/`, without a protoc binary.

use std::path::PathBuf;
use std::{env, error::Error, fs};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors: FileDescriptorSet = protox::compile(
        ["tokend/v1/credential.proto", "tokend/v1/admin.proto"],
        ["proto"],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For reflection. Encoded by protox's own prost, so that both agree on the format.
    fs::write(out.join("tokend.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Its credential is encoded once, when it is published: see src/proto.rs.
        .extern_path(
            ".tokend.v1.GetTokenResponse",
            "crate::proto::GetTokenResponse",
        )
        .codec_path("crate::proto::codec::Codec")
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
