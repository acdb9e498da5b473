//! The settings under `redis`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo};
use serde::{Deserialize, Serialize, Serializer};

use crate::model::{Problem, Problems, Secret};

/// Where the waits, the state and the record of what was applied are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The server: `redis://host:port/db`, or `rediss://` for TLS.
    pub url: ServerUrl,
    /// The ACL user; wins over one in the URL. Default: the server's default user.
    pub username: Option<String>,
    /// A file that holds the ACL user's name, read at each connect; in place of `username`.
    pub username_file: Option<PathBuf>,
    /// The password; wins over one in the URL.
    pub password: Option<Secret>,
    /// A file that holds the password, read at each connect; in place of `password`.
    pub password_file: Option<PathBuf>,
    /// What every key but greentic-state's starts with. Workers that share waits must agree on it.
    pub namespace: String,
    /// How long the start waits for a server; afterwards the worker reconnects for ever.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long an answer may take, and how long the opening of a connection. A server that syncs its log on every write
    /// (`appendfsync always`) needs some.
    #[serde(with = "humantime_serde")]
    pub response_timeout: Duration,
    /// For `rediss://`: the PEM file of the authority that signed the server's certificate. Default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// For `rediss://`: the worker's own certificate (PEM), for a server that verifies its clients.
    pub cert_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    pub key_file: Option<PathBuf>,
    /// How long an applied activity is remembered, so that a copy of it is not applied again.
    #[serde(with = "humantime_serde")]
    pub dedupe_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: ServerUrl::new("redis://127.0.0.1:6379"),
            username: None,
            username_file: None,
            password: None,
            password_file: None,
            namespace: "greentic".to_owned(),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(2),
            ca_file: None,
            cert_file: None,
            key_file: None,
            dedupe_window: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Config {
    /// What is wrong with these settings, as far as can be told without a server.
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        self.check_server(&mut problems);
        let plain = |c: char| c.is_ascii_graphic() && c != '{' && c != '}';
        if self.namespace.is_empty() || !self.namespace.chars().all(plain) {
            problems.push(
                Problem::error(format!(
                    "`{}` cannot start a Redis key",
                    self.namespace.escape_debug()
                ))
                .at("redis.namespace")
                .remedy("use visible ASCII characters, no braces"),
            );
        }
        for (place, duration) in [
            ("redis.connect_timeout", self.connect_timeout),
            ("redis.response_timeout", self.response_timeout),
            ("redis.dedupe_window", self.dedupe_window),
        ] {
            if duration < Duration::from_millis(1) {
                problems.push(
                    Problem::error("it is zero")
                        .at(place)
                        .remedy("set a duration such as `2s`"),
                );
            }
        }
        problems
    }

    fn check_server(&self, problems: &mut Problems) {
        let Some(tls) = self.url.is_tls() else {
            problems.push(
                Problem::error(format!("`{}` is no address of a Redis server", self.url))
                    .at("redis.url")
                    .remedy("write redis://host:port/db, or rediss://host:port/db for TLS"),
            );
            return;
        };
        self.check_files(tls, problems);
        self.check_login(problems);
    }

    fn check_files(&self, tls: bool, problems: &mut Problems) {
        for (place, file, is_for_tls) in [
            ("redis.ca_file", &self.ca_file, true),
            ("redis.cert_file", &self.cert_file, true),
            ("redis.key_file", &self.key_file, true),
            ("redis.username_file", &self.username_file, false),
            ("redis.password_file", &self.password_file, false),
        ] {
            let Some(file) = file else { continue };
            if is_for_tls && !tls {
                problems.push(
                    Problem::error("there is a file for TLS, but no TLS to use it for")
                        .at(place)
                        .remedy(format!(
                            "write rediss:// in redis.url, or leave {place} out"
                        )),
                );
            } else if let Err(error) = std::fs::read(file) {
                problems.push(
                    Problem::error(format!("the file cannot be read: {error}"))
                        .in_file(file)
                        .at(place)
                        .remedy("check the path, and that the worker's user may read the file"),
                );
            }
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            problems.push(
                Problem::error("`cert_file` and `key_file` go together, and only one is given")
                    .at("redis")
                    .remedy("give both, or none where the server does not verify its clients"),
            );
        }
    }

    fn check_login(&self, problems: &mut Problems) {
        for (key, given, in_file) in [
            ("username", self.username.is_some(), &self.username_file),
            ("password", self.password.is_some(), &self.password_file),
        ] {
            if given && in_file.is_some() {
                problems.push(
                    Problem::error(format!("`{key}` and `{key}_file` are both given"))
                        .at(format!("redis.{key}_file"))
                        .remedy("keep one of them"),
                );
            }
        }
        let in_url = self.url.0.as_str().into_connection_info();
        let in_url = in_url.is_ok_and(|info| info.redis_settings().password().is_some());
        let named = self.username.is_some() || self.username_file.is_some();
        if named && self.password.is_none() && self.password_file.is_none() && !in_url {
            problems.push(
                Problem::error("there is a user, but no password")
                    .at("redis.username")
                    .remedy("give `redis.password` or `redis.password_file`, too"),
            );
        }
    }
}

/// The URL of a server. Printed or serialised, it shows no user and no password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Wraps a URL; [`Config::problems`] tells whether it is one.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Whether it asks for TLS; none if it is no URL of a server over TCP. TLS that checks no certificate is not had.
    fn is_tls(&self) -> Option<bool> {
        let info = self.0.as_str().into_connection_info().ok()?;
        if let ConnectionAddr::TcpTls { insecure, .. } = info.addr() {
            return (!insecure).then_some(true);
        }
        matches!(info.addr(), ConnectionAddr::Tcp(..)).then_some(false)
    }

    /// The server's name or address, and its port; none if it is no URL of a server over TCP.
    pub fn address(&self) -> Option<(String, u16)> {
        let info = self.0.as_str().into_connection_info().ok()?;
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host.clone(), *port))
            }
            ConnectionAddr::Unix(_) | _ => None,
        }
    }

    /// The URL as it was written.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, server))) => write!(f, "{scheme}://***@{server}"),
            (None, Some((_, server))) => write!(f, "***@{server}"),
            (_, None) => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(yaml: &str, places: &[&str]) {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let problems = config.problems();
        let found: Vec<_> = problems
            .iter()
            .map(|p| p.place.as_deref().unwrap_or_default())
            .collect();
        assert_eq!(found, places, "{problems}");
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        check("{}", &[]);
        check("url: rediss://cache.example:6380/2", &[]);
        check("url: redis://user:word@cache.example", &[]);
        for url in ["", "cache:6379", "http://cache", "unix:///tmp/redis.sock"] {
            check(&format!("url: '{url}'"), &["redis.url"]);
        }
        check("url: rediss://cache/#insecure", &["redis.url"]);
        check("ca_file: ca.pem", &["redis.ca_file"]);
        check(
            "{cert_file: c.pem, key_file: k.pem}",
            &["redis.cert_file", "redis.key_file"],
        );
        check("{url: 'rediss://cache', cert_file: Cargo.toml}", &["redis"]);
        check(
            "{password: a, password_file: Cargo.toml}",
            &["redis.password_file"],
        );
        check("password_file: /nowhere/word", &["redis.password_file"]);
        check("username: worker", &["redis.username"]);
        check("{username: worker, password_file: Cargo.toml}", &[]);
        check("{url: 'redis://:word@cache', username: worker}", &[]);
        check(
            "{url: 'rediss://cache', ca_file: /nowhere/ca.pem}",
            &["redis.ca_file"],
        );
        for namespace in ["", "a b", "a{b}", "ü"] {
            check(&format!("namespace: '{namespace}'"), &["redis.namespace"]);
        }
        check(
            "{connect_timeout: 0s, response_timeout: 0s, dedupe_window: 0s}",
            &[
                "redis.connect_timeout",
                "redis.response_timeout",
                "redis.dedupe_window",
            ],
        );
    }

    #[test]
    fn settings_read_back_as_they_were_written_and_unknown_ones_are_refused() {
        let text = serde_yaml::to_string(&Config::default()).unwrap();
        assert!(text.contains("response_timeout: 2s"), "{text}");
        assert_eq!(
            serde_yaml::from_str::<Config>(&text).unwrap(),
            Config::default()
        );
        assert!(serde_yaml::from_str::<Config>("host: cache").is_err());
    }

    #[test]
    fn no_print_of_a_url_shows_its_password() {
        for (url, shown) in [
            ("redis://u:p@h:1/0", "redis://***@h:1/0"),
            ("redis://:p@ss@h", "redis://***@h"),
            ("u:p@h", "***@h"),
            ("redis://h:1", "redis://h:1"),
        ] {
            let url = ServerUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
            assert_eq!(
                serde_json::to_value(&url).unwrap(),
                serde_json::json!(shown)
            );
        }
    }
}
