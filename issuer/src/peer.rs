//! The other end of a connection.

use tokio::sync::Notify;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::certificates;

pub(crate) struct ConnectionPeer {
    /// The number of the connection, from 1.
    #[cfg_attr(
        not(feature = "faults"),
        expect(dead_code, reason = "the journal alone records it")
    )]
    pub number: u64,
    /// The verified client certificate, if the client presented one.
    pub certificate: Option<PeerCertificate>,
    /// Tells the connection to end at once.
    pub close: Notify,
}

/// A client certificate whose chain leads to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerCertificate {
    /// x5t#S256
    pub thumbprint: String,
    pub common_name: Option<String>,
    pub uris: Vec<String>,
}

impl PeerCertificate {
    pub fn read(der: &[u8]) -> Option<PeerCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let common_name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .map(str::to_owned);
        let uris = match certificate.subject_alternative_name() {
            Ok(Some(names)) => names
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        Some(PeerCertificate {
            thumbprint: certificates::thumbprint(der),
            common_name,
            uris,
        })
    }
}
