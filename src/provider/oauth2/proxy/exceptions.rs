//! `NO_PROXY`: the hosts that requests reach without a proxy. It has no standard. This parser
//! understands what curl, Go and Python understand.

use std::net::IpAddr;

use url::{Host, Url};

/// The entries of a list, separated by commas or spaces.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    entries: Vec<Exception>,
    /// Entries that mean nothing here, exactly as they are written.
    pub(super) strange: Vec<String>,
}

/// One entry: the hosts that it is about, and the port if it names one.
#[derive(Debug)]
struct Exception {
    which: Which,
    port: Option<u16>,
}

#[derive(Debug)]
enum Which {
    /// `*`
    All,
    /// `example.com` and `.example.com` (the domain and everything below), `*.example.com` (only
    /// what is below it).
    Domain { name: String, with_itself: bool },
    /// An address, or a network: `10.0.0.0/8`, `2001:db8::/32`.
    Network { address: IpAddr, bits: u32 },
}

impl Exceptions {
    pub(super) fn parse(list: &str) -> Exceptions {
        let mut exceptions = Exceptions::default();
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        for entry in entries.filter(|entry| !entry.is_empty()) {
            match Exception::parse(entry) {
                Some(exception) => exceptions.entries.push(exception),
                None => exceptions.strange.push(entry.to_owned()),
            }
        }
        exceptions
    }

    /// Whether requests to this URL go without a proxy.
    pub(super) fn contain(&self, url: &Url) -> bool {
        let (Some(host), port) = (url.host(), url.port_or_known_default()) else {
            return false;
        };
        self.entries.iter().any(|entry| {
            let on_its_port = entry.port.is_none() || entry.port == port;
            on_its_port && entry.which.fits(&host)
        })
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Exception> {
        // An entry that is a URL stands for its host.
        let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
        let entry = entry.strip_suffix('/').unwrap_or(entry);
        if let Some((network, bits)) = entry.split_once('/') {
            let address = address(network)?;
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
            let which = Which::Network { address, bits };
            return Some(Exception { which, port: None });
        }
        if let Some(address) = address(entry) {
            let bits = width(address);
            let which = Which::Network { address, bits };
            return Some(Exception { which, port: None });
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        let which = Which::parse(host)?;
        Some(Exception { which, port })
    }
}

impl Which {
    fn parse(host: &str) -> Option<Which> {
        if host == "*" {
            return Some(Which::All);
        }
        if let Some(address) = address(host) {
            let bits = width(address);
            return Some(Which::Network { address, bits });
        }
        let (name, with_itself) = match host.strip_prefix("*.") {
            Some(below) => (below, false),
            None => (host.strip_prefix('.').unwrap_or(host), true),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() || name.contains('*') {
            return None;
        }
        // The name is in small letters and in its wire form (IDNA), as in URLs.
        match Host::parse(name).ok()? {
            Host::Domain(name) => Some(Which::Domain { name, with_itself }),
            Host::Ipv4(_) | Host::Ipv6(_) => None,
        }
    }

    fn fits(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Which::All, _) => true,
            (Which::Domain { name, with_itself }, Host::Domain(host)) => {
                let host = host.strip_suffix('.').unwrap_or(host);
                match host.strip_suffix(name.as_str()) {
                    Some("") => *with_itself,
                    Some(above) => above.ends_with('.'),
                    None => false,
                }
            }
            (Which::Network { address, bits }, Host::Ipv4(ip)) => {
                same_network(*address, IpAddr::V4(*ip), *bits)
            }
            (Which::Network { address, bits }, Host::Ipv6(ip)) => {
                same_network(*address, IpAddr::V6(*ip).to_canonical(), *bits)
            }
            _ => false,
        }
    }
}

/// Parses an address with or without the brackets of IPv6. An IPv4 address in the form of IPv6
/// counts as IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(address.to_canonical())
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether the first `bits` bits of both addresses are the same.
fn same_network(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    let differ = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()) << 96,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_knows_names_addresses_networks_and_ports() {
        for (list, url, excepted) in [
            ("*", "https://idp.example", true),
            ("*", "https://[2001:db8::1]", true),
            ("other.example, *", "https://192.0.2.1", true),
            ("idp.example", "https://idp.example", true),
            ("IDP.Example.", "https://idp.example", true),
            ("idp.example", "https://a.idp.example", true),
            ("idp.example", "https://notidp.example", false),
            (".example", "https://idp.example", true),
            (".example", "https://example", true),
            ("*.example", "https://idp.example", true),
            ("*.example", "https://a.idp.example", true),
            ("*.example", "https://example", false),
            ("*.example", "https://idp.example.org", false),
            ("a.example b.example", "https://b.example", true),
            ("a.example,,b.example", "https://b.example", true),
            ("b\u{fc}cher.example", "https://xn--bcher-kva.example", true),
            ("idp.example:443", "https://idp.example", true),
            ("idp.example:8443", "https://idp.example", false),
            ("idp.example:8443", "https://idp.example:8443", true),
            ("*.example:8443", "https://idp.example:8443", true),
            ("*:8443", "https://idp.example", false),
            ("https://idp.example/", "https://idp.example", true),
            ("192.0.2.1", "https://192.0.2.1", true),
            ("192.0.2.1:443", "https://192.0.2.1", true),
            ("192.0.2.1:444", "https://192.0.2.1", false),
            ("192.0.2.1", "https://192.0.2.10", false),
            ("192.0.2.1", "https://[::ffff:192.0.2.1]", true),
            ("192.0.2.0/24", "https://192.0.2.77", true),
            ("192.0.2.9/24", "https://192.0.2.77", true),
            ("192.0.2.0/24", "https://192.0.3.77", false),
            ("0.0.0.0/0", "https://192.0.3.77", true),
            ("0.0.0.0/0", "https://[2001:db8::1]", false),
            ("192.0.2.0/24", "https://name-of-192.0.2.77.example", false),
            ("2001:db8::1", "https://[2001:db8::1]", true),
            ("[2001:db8::1]", "https://[2001:db8::1]", true),
            ("[2001:db8::1]:443", "https://[2001:db8::1]", true),
            ("[2001:db8::1]:8443", "https://[2001:db8::1]", false),
            ("2001:db8::/32", "https://[2001:db8:ffff::1]", true),
            ("[2001:db8::]/32", "https://[2001:db8:ffff::1]", true),
            ("2001:db8::/32", "https://[2001:db9::1]", false),
            ("", "https://idp.example", false),
        ] {
            let exceptions = Exceptions::parse(list);
            assert_eq!(
                exceptions.contain(&Url::parse(url).unwrap()),
                excepted,
                "{list} {url}"
            );
            assert!(exceptions.strange.is_empty(), "{list}");
        }
    }

    #[test]
    fn what_no_proxy_cannot_mean_is_kept_to_be_told() {
        let list = "10.*, idp*.example, 10.0.0.0/33, idp.example:http, [::1, good.example";
        let exceptions = Exceptions::parse(list);
        let strange = [
            "10.*",
            "idp*.example",
            "10.0.0.0/33",
            "idp.example:http",
            "[::1",
        ];
        assert_eq!(exceptions.strange, strange);
        assert_eq!(exceptions.entries.len(), 1);
    }
}
