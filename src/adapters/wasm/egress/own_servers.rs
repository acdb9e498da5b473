//! The servers that no component is to reach, whatever the lists of hosts say: the worker's own endpoint, and the NATS and
//! Redis servers that it talks to.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{PoisonError, RwLock};

use super::addresses::canonical;

/// The worker's own endpoint, and the servers that it talks to.
#[derive(Debug, Default)]
pub(in super::super) struct OwnServers {
    servers: Vec<(String, u16)>,
    /// What the endpoint listens at; known when it is bound.
    listeners: RwLock<Vec<SocketAddr>>,
}

impl OwnServers {
    /// The servers by name or address and port.
    pub(in super::super) fn new(servers: impl IntoIterator<Item = (String, u16)>) -> Self {
        let plain = |(host, port): (String, u16)| (super::names::plain(&host), port);
        Self {
            servers: servers.into_iter().map(plain).collect(),
            listeners: RwLock::default(),
        }
    }

    /// Adds an address that the worker listens at.
    pub(in super::super) fn listen(&self, address: SocketAddr) {
        let mut listeners = self
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push(address);
    }

    /// Returns whether one of them has this port.
    pub(super) fn have_port(&self, port: u16) -> bool {
        self.servers.iter().any(|(_, own)| *own == port)
            || self.listeners().iter().any(|own| own.port() == port)
    }

    /// Returns whether one of them goes by this name and port.
    pub(super) fn are_named(&self, host: &str, port: u16) -> bool {
        self.servers
            .iter()
            .any(|(name, own)| *own == port && name == host)
    }

    /// Returns whether one of them is at this address and port. A server whose name cannot be looked up may be anywhere.
    pub(super) async fn are_at(&self, address: IpAddr, port: u16) -> bool {
        let address = canonical(address);
        if self
            .listeners()
            .iter()
            .any(|own| listens(*own, address, port))
        {
            return true;
        }
        for (name, _) in self.servers.iter().filter(|(_, own)| *own == port) {
            let Ok(found) = tokio::net::lookup_host((name.as_str(), port)).await else {
                return true;
            };
            let mut found = found.map(|found| canonical(found.ip()));
            // A server on this machine may listen at all of its addresses.
            if found.any(|own| own == address || (is_local(own) && is_local(address))) {
                return true;
            }
        }
        false
    }

    fn listeners(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.read();
        listeners.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn listens(own: SocketAddr, address: IpAddr, port: u16) -> bool {
    let ip = canonical(own.ip());
    own.port() == port && (ip == address || (ip.is_unspecified() && is_local(address)))
}

/// Returns whether an address is one of this machine's: only such a one can be bound.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn at(own: &OwnServers, address: &str) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        own.have_port(address.port()) && own.are_at(address.ip(), address.port()).await
    }

    #[tokio::test]
    async fn a_listener_is_at_its_address_or_at_all_of_the_machine() {
        let own = OwnServers::default();
        assert!(!at(&own, "127.0.0.1:8080").await);
        own.listen("127.0.0.1:8080".parse().unwrap());
        assert!(at(&own, "127.0.0.1:8080").await);
        assert!(at(&own, "[::ffff:127.0.0.1]:8080").await);
        assert!(!at(&own, "127.0.0.1:8081").await);
        assert!(!at(&own, "127.0.0.2:8080").await);
        for all in ["0.0.0.0:9090", "[::]:9090"] {
            let own = OwnServers::default();
            own.listen(all.parse().unwrap());
            for local in [
                "127.0.0.1:9090",
                "127.8.9.1:9090",
                "[::1]:9090",
                "[64:ff9b::127.0.0.1]:9090",
            ] {
                assert!(at(&own, local).await, "{all} {local}");
            }
            assert!(!at(&own, "93.184.216.34:9090").await);
        }
    }

    #[tokio::test]
    async fn a_server_is_found_by_its_name_and_at_its_addresses() {
        let servers = [
            ("LOCALHOST.", 4222),
            ("10.9.8.7", 6379),
            ("no.such.host.invalid", 7000),
        ];
        let own = OwnServers::new(servers.map(|(host, port)| (host.to_owned(), port)));
        assert!(own.are_named("localhost", 4222) && !own.are_named("localhost", 6379));
        // On this machine, at whichever of its addresses.
        assert!(at(&own, "127.0.0.1:4222").await && at(&own, "127.0.0.9:4222").await);
        assert!(at(&own, "10.9.8.7:6379").await && !at(&own, "10.9.8.8:6379").await);
        assert!(!at(&own, "127.0.0.1:6379").await);
        assert!(at(&own, "93.184.216.34:7000").await, "it may be that");
    }
}
