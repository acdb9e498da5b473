use super::*;

fn allowing(patterns: &[&str], own: OwnServers) -> Allowed {
    let patterns: Vec<HostPattern> = patterns.iter().map(|p| p.parse().unwrap()).collect();
    Allowed::new(&patterns, Arc::new(own))
}

async fn checked(allowed: &Allowed, url: &str) -> Result<(), Forbidden> {
    allowed.check(&Url::parse(url).unwrap()).await.map(drop)
}

#[tokio::test]
async fn only_what_is_allowed_is_reached() {
    let allowed = allowing(
        &[
            "api.example.com",
            "*.example.org",
            "10.0.0.7",
            "169.254.169.254",
            "[::1]",
            "1.1.1.1",
        ],
        OwnServers::default(),
    );
    for (url, expected) in [
        ("https://api.example.com/x", Ok(())),
        ("https://API.example.com./x", Ok(())),
        ("http://a.example.org:8080", Ok(())),
        ("http://1.1.1.1", Ok(())),
        ("http://10.0.0.7", Ok(())),
        // The URL parser reads every spelling of an address.
        ("http://167772167/", Ok(())),
        ("http://[::1]:80/", Ok(())),
        ("ftp://api.example.com", Err(Forbidden::Scheme)),
        ("file:///etc/passwd", Err(Forbidden::Scheme)),
        ("http://example.com", Err(Forbidden::Host)),
        (
            "http://api.example.com@evil.example.net/",
            Err(Forbidden::Host),
        ),
        ("http://127.1", Err(Forbidden::Host)),
        ("http://169.254.169.254", Err(Forbidden::Address)),
        ("http://0xa9fea9fe", Err(Forbidden::Address)),
    ] {
        assert_eq!(checked(&allowed, url).await, expected, "{url}");
    }
}

#[tokio::test]
async fn a_metadata_service_is_not_reached_though_it_is_listed() {
    for host in [
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::a9fe:a9fe",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "metadata.google.internal",
    ] {
        let allowed = allowing(&[host], OwnServers::default());
        let url = match host.contains(':') {
            true => format!("http://[{host}]/latest/meta-data"),
            false => format!("http://{host}/latest/meta-data"),
        };
        assert_eq!(
            checked(&allowed, &url).await,
            Err(Forbidden::Address),
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_port_in_the_list_is_the_only_one() {
    let allowed = allowing(
        &[
            "api.example.com:8443",
            "*.example.org:443",
            "a.example.org:80",
            "10.0.0.7:80",
            "[fd12::1]:80",
        ],
        OwnServers::default(),
    );
    for (url, allowed_it) in [
        ("https://api.example.com:8443/", true),
        ("https://api.example.com/", false),
        ("http://api.example.com:80/", false),
        ("https://b.example.org/", true),
        ("http://b.example.org/", false),
        ("http://a.example.org/", true),
        // Listed by itself, so what holds for the domain does not hold for it.
        ("https://a.example.org/", false),
        ("http://10.0.0.7/", true),
        ("http://10.0.0.7:6379/", false),
        ("http://[fd12::1]/", true),
        ("http://[fd12::1]:81/", false),
    ] {
        let expected = if allowed_it {
            Ok(())
        } else {
            Err(Forbidden::Host)
        };
        assert_eq!(checked(&allowed, url).await, expected, "{url}");
    }
}

#[tokio::test]
async fn a_name_leads_to_a_private_address_only_when_it_is_allowed_by_itself() {
    async fn look_up(allow: &str, own_port: Option<u16>) -> bool {
        let own = OwnServers::new([("127.0.0.1".to_owned(), 6379)]);
        let allowed = allowing(&[allow], own);
        let found = Lookup { allowed, own_port }.look_up("localhost").await;
        found.is_ok_and(|found| !found.is_empty())
    }
    assert!(look_up("localhost", None).await);
    assert!(!look_up("*.example.com", None).await);
    // At the port of a server of the worker's own, an alias of its address is that server.
    assert!(!look_up("localhost", Some(6379)).await);
}

#[tokio::test]
async fn the_servers_of_the_worker_are_not_reached_though_they_are_listed() {
    let servers = [("redis.internal", 6379), ("127.0.0.1", 4222)];
    let own = OwnServers::new(servers.map(|(host, port)| (host.to_owned(), port)));
    own.listen("0.0.0.0:8080".parse().unwrap());
    let allowed = allowing(
        &[
            "redis.internal",
            "127.0.0.1",
            "127.0.0.2",
            "::1",
            "localhost",
        ],
        own,
    );
    for url in [
        "http://redis.internal:6379/",
        "http://REDIS.internal.:6379/",
        "http://127.0.0.1:4222/",
        "http://0x7f000001:4222/",
        "http://127.0.0.2:4222/",
        "http://127.0.0.1:8080/metrics",
        "http://127.0.0.2:8080/metrics",
        "http://[::1]:8080/metrics",
    ] {
        assert_eq!(checked(&allowed, url).await, Err(Forbidden::Own), "{url}");
    }
    assert_eq!(checked(&allowed, "http://127.0.0.1:9000/").await, Ok(()));
    // The address behind a name is looked at by the connection, which is told the port.
    let url = Url::parse("http://localhost:8080/").unwrap();
    assert_eq!(allowed.check(&url).await, Ok(Some(8080)));
    let url = Url::parse("http://localhost:9000/").unwrap();
    assert_eq!(allowed.check(&url).await, Ok(None));
}
