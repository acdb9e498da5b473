//! Which hosts components may reach, by name and by the address behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::super::config::HostPattern;
use super::addresses::{Reach, reach};

/// Why a request does not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Forbidden {
    #[error("only http and https are allowed")]
    Scheme,
    #[error("the host is not in `components.http.allow`")]
    Host,
    #[error("the host has an address that components may not reach")]
    Address,
}

/// The allowed hosts.
#[derive(Clone, Debug)]
pub(super) struct Allowed(Arc<[HostPattern]>);

impl Allowed {
    pub(super) fn new(patterns: &[HostPattern]) -> Self {
        Self(patterns.into())
    }

    /// Whether a request may go to this URL, as far as the URL tells.
    pub(super) fn check(&self, url: &Url) -> Result<(), Forbidden> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Forbidden::Scheme);
        }
        let host = url.host_str().ok_or(Forbidden::Host)?;
        let host = plain(host);
        if !self.0.iter().any(|pattern| pattern.covers(&host)) {
            return Err(Forbidden::Host);
        }
        match host.parse::<IpAddr>() {
            Ok(address) => self.check_address(&host, address),
            Err(_) => Ok(()),
        }
    }

    /// Whether this host may lie at this address: a private one only where it is allowed by its own name.
    fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Forbidden> {
        match reach(address) {
            Reach::Public => Ok(()),
            Reach::Private if self.0.iter().any(|pattern| pattern.names(host)) => Ok(()),
            Reach::Private | Reach::Never => Err(Forbidden::Address),
        }
    }

    /// A name with an address that is not allowed is not reached at its other ones either: whoever answers for it means
    /// no good.
    async fn look_up(
        &self,
        name: &str,
    ) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let host = plain(name);
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
        for address in &found {
            self.check_address(&host, address.ip())?;
        }
        Ok(found)
    }
}

impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.clone();
        Box::pin(async move {
            let found = allowed.look_up(name.as_str()).await?;
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

/// A host as patterns have it: in lower case, without the brackets of an address and the dot of the root.
fn plain(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_is_reached() {
        #[track_caller]
        fn check(url: &str, expected: Result<(), Forbidden>) {
            let allow = [
                "api.example.com",
                "*.example.org",
                "10.0.0.7",
                "169.254.169.254",
                "[::1]",
                "1.1.1.1",
            ];
            let patterns: Vec<HostPattern> = allow.iter().map(|p| p.parse().unwrap()).collect();
            let url = Url::parse(url).unwrap();
            assert_eq!(Allowed::new(&patterns).check(&url), expected, "{url}");
        }
        check("https://api.example.com/x", Ok(()));
        check("https://API.example.com./x", Ok(()));
        check("http://a.example.org:8080", Ok(()));
        check("http://1.1.1.1", Ok(()));
        check("http://10.0.0.7", Ok(()));
        // The URL parser reads every spelling of an address.
        check("http://167772167/", Ok(()));
        check("http://[::1]:80/", Ok(()));
        check("ftp://api.example.com", Err(Forbidden::Scheme));
        check("file:///etc/passwd", Err(Forbidden::Scheme));
        check("http://example.com", Err(Forbidden::Host));
        check(
            "http://api.example.com@evil.example.net/",
            Err(Forbidden::Host),
        );
        check("http://127.1", Err(Forbidden::Host));
        check("http://169.254.169.254", Err(Forbidden::Address));
        check("http://0xa9fea9fe", Err(Forbidden::Address));
    }

    #[tokio::test]
    async fn a_name_leads_to_a_private_address_only_when_it_is_allowed_by_itself() {
        async fn look_up(allow: &str) -> bool {
            let allowed = Allowed::new(&[allow.parse().unwrap()]);
            let found = allowed.look_up("localhost").await;
            found.is_ok_and(|found| !found.is_empty())
        }
        assert!(look_up("localhost").await);
        assert!(!look_up("*.example.com").await);
    }
}
