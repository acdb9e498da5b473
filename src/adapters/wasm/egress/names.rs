//! The hosts that components may reach, by name and port and by the address behind the name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::super::host_pattern::HostPattern;
use super::addresses::{Reach, reach};
use super::own_servers::OwnServers;

/// Names of metadata services, in case one is given an address that looks like any other.
const METADATA: [&str; 3] = ["metadata.google.internal", "metadata.goog", "instance-data"];

/// Why a request does not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Forbidden {
    #[error("only http and https are allowed")]
    Scheme,
    #[error(
        "the host, or its port, is not in `components.http.allow`, nor in the tenant's own `http.allow` where that is set"
    )]
    Host,
    #[error("the host has an address that components may not reach")]
    Address,
    #[error("the host is a server of the worker itself")]
    Own,
}

/// The allowed hosts, and the servers that are never among them.
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    patterns: Arc<[HostPattern]>,
    own: Arc<OwnServers>,
}

impl Allowed {
    pub(super) fn new(patterns: &[HostPattern], own: Arc<OwnServers>) -> Self {
        Self {
            patterns: patterns.into(),
            own,
        }
    }

    /// Returns whether a request may go to this URL, as far as the URL tells. If its port is one of the worker's own servers, that
    /// port comes back: only a connection whose [`Lookup`] knows it may be used.
    pub(super) async fn check(&self, url: &Url) -> Result<Option<u16>, Forbidden> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Forbidden::Scheme);
        }
        let host = plain(url.host_str().ok_or(Forbidden::Host)?);
        let port = url.port_or_known_default().ok_or(Forbidden::Host)?;
        if !self.lists(&host, port) {
            return Err(Forbidden::Host);
        }
        if METADATA.contains(&host.as_str()) {
            return Err(Forbidden::Address);
        }
        let port = self.own.have_port(port).then_some(port);
        if port.is_some_and(|port| self.own.are_named(&host, port)) {
            return Err(Forbidden::Own);
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            self.check_address(&host, address, port).await?;
        }
        Ok(port)
    }

    /// Returns whether the list has this host at this port. A host that is listed by itself is reached at the ports that it is
    /// listed with, whatever holds for its domain.
    fn lists(&self, host: &str, port: u16) -> bool {
        let mut by_itself = self
            .patterns
            .iter()
            .filter(|pattern| pattern.names(host))
            .peekable();
        match by_itself.peek() {
            Some(_) => by_itself.any(|pattern| pattern.has_port(port)),
            None => self
                .patterns
                .iter()
                .any(|pattern| pattern.covers(host) && pattern.has_port(port)),
        }
    }

    /// Whether this host may lie at this address: a private one only where it is allowed by its own name.
    async fn check_address(
        &self,
        host: &str,
        address: IpAddr,
        own_port: Option<u16>,
    ) -> Result<(), Forbidden> {
        match reach(address) {
            Reach::Public => {}
            Reach::Private if self.patterns.iter().any(|pattern| pattern.names(host)) => {}
            Reach::Private | Reach::Never => return Err(Forbidden::Address),
        }
        match own_port {
            Some(port) if self.own.are_at(address, port).await => Err(Forbidden::Own),
            Some(_) | None => Ok(()),
        }
    }
}

/// Looks up the names of hosts for connections to one port, if it is one of the worker's own servers, or to any other. The
/// addresses that are checked are those that are connected to.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    pub(super) allowed: Allowed,
    pub(super) own_port: Option<u16>,
}

impl Lookup {
    /// A name with an address that is not allowed is not reached at its other ones either: whoever answers for it means
    /// no good.
    async fn look_up(
        &self,
        name: &str,
    ) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let host = plain(name);
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
        for address in &found {
            let address = address.ip();
            self.allowed
                .check_address(&host, address, self.own_port)
                .await?;
        }
        Ok(found)
    }
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.clone();
        Box::pin(async move {
            let found = lookup.look_up(name.as_str()).await?;
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

/// A host as patterns have it: in lower case, without the brackets of an address and the dot of the root.
pub(super) fn plain(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
